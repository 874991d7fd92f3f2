// A photograph becomes a JPEG that the protocol takes: at most 192 KiB, scaled down until it fits.

const JPEG_BYTES_MAX = 192 * 1024;
const SIDE_FIRST_PX = 1280;
const SIDE_LEAST_PX = 320;

async function jpegOf(source, width, height) {
  const canvas = document.createElement("canvas");
  for (let side = SIDE_FIRST_PX; side >= SIDE_LEAST_PX; side = Math.round(side * 0.75)) {
    const scale = Math.min(1, side / Math.max(width, height));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
    for (const quality of [0.9, 0.8]) {
      const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", quality); });
      if (blob && blob.size <= JPEG_BYTES_MAX) return blob;
    }
  }
  throw new Error("the photograph does not fit");
}

/** The file as a JPEG; its EXIF orientation is applied and everything else of it is left behind. */
export async function fromFile(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  try {
    return await jpegOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

export class Camera {
  constructor(video) {
    this.video = video;
  }

  async start() {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } }, audio: false });
    this.video.srcObject = stream;
    this.video.hidden = false;
    await this.video.play();
  }

  shoot() {
    return jpegOf(this.video, this.video.videoWidth, this.video.videoHeight);
  }

  stop() {
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
    this.video.hidden = true;
  }
}
