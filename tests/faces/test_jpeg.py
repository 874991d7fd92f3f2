"""Whatever bytes a terminal sends: refused by code or decoded right, in bounded time and memory."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.domain.face_quality import IMAGE_FAULTS, JPEG_BYTES_MAX, JPEG_PIXELS_MAX, LookReason
from models.faces.jpeg import SCANS_MAX, Pixels, decode_jpeg, jpeg_size

pytestmark = pytest.mark.faces

RNG = np.random.default_rng(11)
PICTURE = np.asarray(cv2.resize(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8), (96, 72)), np.uint8)


def saved(kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PICTURE[:, :, ::-1]).convert(mode).save(out, kind, **options)
    return out.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif(tiff: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff)


def orientation(value: int, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """A TIFF block with one entry, 0x0112."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, kind, count, value, 0, 0)


def with_segment(jpeg: bytes, inserted: bytes) -> bytes:
    return jpeg[:2] + inserted + jpeg[2:]


PLAIN = saved(quality=90)
PROGRESSIVE = saved(quality=90, progressive=True)
FRAME = PLAIN.index(b"\xff\xc0")


def patched(at: int, content: bytes, jpeg: bytes = PLAIN) -> bytes:
    return jpeg[:at] + content + jpeg[at + len(content) :]


def multi_picture() -> bytes:
    """As a telephone writes it: a second picture after the first (CIPA DC-007)."""
    return saved("MPO", save_all=True, append_images=[Image.fromarray(255 - PICTURE)])


def progressive(width: int, height: int, scans: int) -> bytes:
    """All blocks empty, each scan a few bytes: what one byte of file costs most."""
    blocks = -(-width // 8) * -(-height // 8)
    table = bytes([1] + [0] * 15)
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + bytes([1] * 64))]
    parts.append(segment(0xC2, struct.pack(">BHHB", 8, height, width, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])))
    parts.append(segment(0xC4, b"\x00" + table + b"\x00") + segment(0xC4, b"\x10" + table + b"\xe0"))
    parts.append(segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 0, 0])) + bytes(-(-blocks * 3 // 8)))
    bits = ("0" + "1" * 14) * -(-blocks // 32767)
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    parts += [segment(0xDA, bytes([1, n % 3 + 1, 0, 1, 63, 0])) + coded for n in range(scans - 1)]
    return b"".join(parts) + b"\xff\xd9"


REFUSED = {
    "nothing": (b"", LookReason.NOT_JPEG),
    "start alone": (b"\xff\xd8", LookReason.NOT_JPEG),
    "a PNG": (saved("PNG"), LookReason.NOT_JPEG),
    "a GIF that moves": (saved("GIF", save_all=True, append_images=[Image.new("RGB", (96, 72))]), LookReason.NOT_JPEG),
    "a WebP that moves": (
        saved("WEBP", save_all=True, append_images=[Image.new("RGB", (96, 72))]),
        LookReason.NOT_JPEG,
    ),
    "a TIFF": (saved("TIFF"), LookReason.NOT_JPEG),
    "JPEG 2000": (saved("JPEG2000"), LookReason.NOT_JPEG),
    "CMYK": (saved(mode="CMYK"), LookReason.UNSUPPORTED_JPEG),
    "YCCK": (with_segment(saved(mode="CMYK"), segment(0xEE, b"Adobe\0\x64\0\0\0\0\x02")), LookReason.UNSUPPORTED_JPEG),
    "12 bits": (patched(FRAME + 4, b"\x0c"), LookReason.UNSUPPORTED_JPEG),
    "16 bits": (patched(FRAME + 4, b"\x10"), LookReason.UNSUPPORTED_JPEG),
    "arithmetic coding": (patched(FRAME, b"\xff\xc9"), LookReason.UNSUPPORTED_JPEG),
    "lossless": (patched(FRAME, b"\xff\xc3"), LookReason.UNSUPPORTED_JPEG),
    "hierarchical": (with_segment(PLAIN, segment(0xDE, PLAIN[FRAME + 4 : FRAME + 19])), LookReason.UNSUPPORTED_JPEG),
    "two frame headers": (with_segment(PLAIN, PLAIN[FRAME : FRAME + 19]), LookReason.CORRUPT_JPEG),
    "a frame header of another length": (patched(FRAME + 2, b"\x00\x14"), LookReason.CORRUPT_JPEG),
    "no components": (patched(FRAME + 9, b"\x00"), LookReason.CORRUPT_JPEG),
    "two components": (patched(FRAME + 9, b"\x02"), LookReason.CORRUPT_JPEG),
    "255 components": (patched(FRAME + 9, b"\xff"), LookReason.CORRUPT_JPEG),
    "no height": (patched(FRAME + 5, b"\x00\x00"), LookReason.CORRUPT_JPEG),
    "no width": (patched(FRAME + 7, b"\x00\x00"), LookReason.CORRUPT_JPEG),
    "100 megapixels": (patched(FRAME + 5, struct.pack(">HH", 10000, 10000)), LookReason.TOO_LARGE),
    "100 megapixels, progressive": (progressive(10000, 10000, 2)[:JPEG_BYTES_MAX], LookReason.TOO_LARGE),
    "one row more than the bound": (progressive(2048, 2049, 2), LookReason.TOO_LARGE),
    "scans without end": (progressive(2048, 2048, 5000), LookReason.TOO_LARGE),
    "a scan before its frame": (b"\xff\xd8" + segment(0xDA, bytes(10)) + PLAIN[2:], LookReason.CORRUPT_JPEG),
    "a picture in the picture": (b"\xff\xd8" + PLAIN, LookReason.CORRUPT_JPEG),
    "segments without end": (b"\xff\xd8" + segment(0xFE, b"") * 40_000 + PLAIN[2:], LookReason.CORRUPT_JPEG),
    "the second picture whole, the first not": (multi_picture()[:900] + PLAIN, LookReason.CORRUPT_JPEG),
}


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_is_refused_by_its_code(content: bytes, expected: LookReason, monkeypatch: pytest.MonkeyPatch) -> None:
    if expected is not LookReason.CORRUPT_JPEG:
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("a decoder saw it"))
    assert decode_jpeg(content) is expected
    assert expected in IMAGE_FAULTS


DECODED = {
    "baseline": PLAIN,
    "progressive": PROGRESSIVE,
    "grey": saved(mode="L", quality=90),
    "sixteen scans": progressive(96, 72, SCANS_MAX),
    "restart markers": cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes(),
    "4:2:0": saved(quality=90, subsampling=2),
    "fill bytes before the markers": PLAIN[:2] + b"\xff\xff\xff" + PLAIN[2:],
    "a comment of 60 KiB": with_segment(PLAIN, segment(0xFE, b"\xff\xd9" * 30_000)),
    "two pictures": multi_picture(),
    "a film behind the picture": PLAIN + b"ftyp" + bytes(RNG.integers(0, 256, 5000, dtype=np.uint8)),
}


@pytest.mark.parametrize("content", DECODED.values(), ids=DECODED)
def test_is_decoded_right(content: bytes) -> None:
    pixels = decode_jpeg(content)
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == PICTURE.shape
    assert jpeg_size(content) == (96, 72)
    if content[:2000].find(b"\xff\xc2") < 0 or content == PROGRESSIVE:
        close = cv2.cvtColor(PICTURE, cv2.COLOR_BGR2GRAY).astype(int) - cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        assert np.abs(close).mean() < 4


def test_one_pixel_is_a_picture() -> None:
    assert jpeg_size(cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))[1].tobytes()) == (1, 1)


def upright(stored: Pixels, value: int) -> Pixels:
    """How a picture stored under this orientation is to be shown (Exif 2.32, 4.6.5)."""
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }
    return np.asarray(shown[value], np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_camera_that_is_mounted_turned_or_mirrored_gives_an_upright_picture(value: int, order: str) -> None:
    jpeg = with_segment(PLAIN, exif(orientation(value, order)))
    pixels, plain = decode_jpeg(jpeg), decode_jpeg(PLAIN)
    assert isinstance(pixels, np.ndarray)
    assert isinstance(plain, np.ndarray)
    assert np.array_equal(pixels, upright(plain, value))


def cyclic() -> bytes:
    return b"II" + struct.pack("<HI", 42, 8) + struct.pack("<H", 0) + struct.pack("<I", 8)


EXIF = {
    "no such orientation": orientation(9),
    "orientation 0": orientation(0),
    "of another type": orientation(6, kind=2),
    "four thousand million of them": orientation(6, count=0xFFFFFFFF),
    "entries beyond the end": b"II" + struct.pack("<HIH", 42, 8, 0xFFFF),
    "a directory beyond the end": b"II" + struct.pack("<HI", 42, 0xFFFFFFF0),
    "a directory inside the header": b"II" + struct.pack("<HI", 42, 0),
    "a directory that follows itself": cyclic(),
    "no byte order": b"XX" + orientation(6)[2:],
    "nothing": b"",
    "60 KiB of entries": b"II" + struct.pack("<HIH", 42, 8, 5000) + struct.pack("<HHII", 0x0112, 4, 9, 9) * 5000,
    "noise": bytes(RNG.integers(0, 256, 60_000, dtype=np.uint8)),
}


@pytest.mark.parametrize("tiff", EXIF.values(), ids=EXIF)
def test_metadata_that_lies_changes_nothing(tiff: bytes) -> None:
    pixels = decode_jpeg(with_segment(PLAIN, exif(tiff) * (3 if len(tiff) < 20_000 else 1)))
    assert isinstance(pixels, np.ndarray)
    assert sorted(pixels.shape[:2]) == [72, 96]


@pytest.mark.parametrize("content", [PLAIN, PROGRESSIVE, multi_picture()], ids=["baseline", "progressive", "two"])
def test_cut_anywhere_it_is_corrupt(content: bytes) -> None:
    whole = next(cut for cut in range(len(content) + 1) if not isinstance(decode_jpeg(content[:cut]), LookReason))
    assert content[whole - 2 : whole] == b"\xff\xd9", "the first cut that passes ends with the picture's end"
    for cut in range(whole):
        assert decode_jpeg(content[:cut]) is (LookReason.NOT_JPEG if cut < 3 else LookReason.CORRUPT_JPEG)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from([PLAIN, PROGRESSIVE, with_segment(PLAIN, exif(orientation(6)))])))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(content) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                content[at] = draw(st.integers(0, 255))
            case 1:
                content[at : at + draw(st.integers(1, 64))] = b""
            case 2:
                content[at:at] = draw(st.binary(max_size=64))
            case 3:
                content[at : at + 2] = bytes([0xFF, draw(st.integers(0, 255))])
            case _:
                content += content[at : at + 256]
        content = content or bytearray(b"\xff")
    return bytes(content)


@settings(max_examples=250, deadline=None)
@given(mutated())
def test_no_mutation_raises_or_leaves_the_bounds(content: bytes) -> None:
    began = time.process_time()
    pixels = decode_jpeg(content)
    assert time.process_time() - began < 2.0
    if isinstance(pixels, LookReason):
        assert pixels in IMAGE_FAULTS
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[0] * pixels.shape[1] <= JPEG_PIXELS_MAX


BOUND_MIB = 80
"""Above an idle process: 4,194,304 pixels are 12 MiB of BGR, 24 MiB of coefficients, and 12 MiB more for a turn."""

MEASURE = """
import json, resource, struct, sys
import cv2
from models.faces.jpeg import decode_jpeg
cv2.setNumThreads(1)
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))
files = sys.stdin.buffer.read()
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = status("VmRSS")
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
said, at = {}, 0
while at < len(files):
    (size,) = struct.unpack_from(">I", files, at)
    answer = decode_jpeg(files[at + 4 : at + 4 + size])
    name = answer if isinstance(answer, str) else "decoded"
    said[name] = said.get(name, 0) + 1
    at += 4 + size
spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime
print(json.dumps({"mib": (status("VmHWM") - before) / 1024, "said": said, "cpu_s": spent}))
"""


def hostile() -> Iterator[bytes]:
    """Files that are meant to cost much, all within the byte bound."""
    yield from (content for content, _ in REFUSED.values())
    yield progressive(2048, 2048, SCANS_MAX)
    yield with_segment(progressive(64, 65500, SCANS_MAX), exif(orientation(6)))
    yield progressive(65500, 64, SCANS_MAX)
    chance = random.Random(5)
    large = cv2.imencode(".jpg", cv2.resize(PICTURE, (2048, 2048)), [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes()
    assert len(large) < JPEG_BYTES_MAX
    for _ in range(20):
        content = bytearray(large)
        for _ in range(20):
            content[chance.randrange(len(content))] = chance.randrange(256)
        yield bytes(content)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_hostile_files_stay_within_memory_and_time() -> None:
    files = b"".join(struct.pack(">I", len(one)) + one for one in hostile())
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=files,
        capture_output=True,
        check=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )
    measured = json.loads(ran.stdout)
    assert measured["said"]["decoded"] >= 3
    assert 12 < measured["mib"] < BOUND_MIB, measured
    assert measured["cpu_s"] < 15, measured
