from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.domain.face_quality import (
    JPEG_BYTES_MAX,
    PRODUCTION,
    FaceKind,
    LookPurpose,
    LookReason,
    covered,
)
from models.domain.recognition import Seen, Unseen
from models.faces.align import REFERENCE, align, similarity
from models.faces.embed import FaceEmbedder, to_vector
from models.faces.jpeg import Pixels, decode_jpeg, jpeg_size
from models.faces.nets import Nets
from models.faces.pipeline import FacePipeline

pytestmark = pytest.mark.faces


def encoded(pixels: Pixels, quality: int = 92) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def flat(value: int, height: int = 240, width: int = 320) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def decoded(jpeg: bytes) -> Pixels:
    pixels = decode_jpeg(jpeg)
    assert isinstance(pixels, np.ndarray)
    return pixels


def probe(pipeline: FacePipeline, jpeg: bytes, kind: FaceKind = FaceKind.FRAME) -> Seen | Unseen:
    return pipeline.look(jpeg, kind=kind, purpose=LookPurpose.PROBE, policy=PRODUCTION)


def enrol(pipeline: FacePipeline, jpeg: bytes) -> Seen | Unseen:
    return pipeline.look(jpeg, kind=FaceKind.FRAME, purpose=LookPurpose.ENROL, policy=PRODUCTION)


def reason(seen: Seen | Unseen) -> LookReason | None:
    return seen.reason if isinstance(seen, Unseen) else None


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


NOISE = np.random.default_rng(5).integers(0, 256, (200, 200, 3), dtype=np.uint8)

GARBAGE = {
    "nothing": (b"", LookReason.NOT_JPEG),
    "text": (b"GET / HTTP/1.1\r\n\r\n", LookReason.NOT_JPEG),
    "png": (cv2.imencode(".png", flat(128))[1].tobytes(), LookReason.NOT_JPEG),
    "start marker alone": (b"\xff\xd8\xff", LookReason.CORRUPT_JPEG),
    "fill bytes for ever": (b"\xff\xd8" + b"\xff" * 5000, LookReason.CORRUPT_JPEG),
    "segment of length 0": (b"\xff\xd8\xff\xe0\x00\x00" + b"\x00" * 50, LookReason.CORRUPT_JPEG),
    "truncated": (encoded(NOISE)[:3000], LookReason.CORRUPT_JPEG),
    "last byte missing": (encoded(NOISE)[:-1], LookReason.CORRUPT_JPEG),
    "header of 65535 x 65535": (with_size(encoded(NOISE), 65535, 65535), LookReason.TOO_LARGE),
    "width 0": (with_size(encoded(NOISE), 0, 200), LookReason.CORRUPT_JPEG),
    "over the byte bound": (encoded(NOISE) + b"\x00" * JPEG_BYTES_MAX, LookReason.TOO_LARGE),
    "over the pixel bound": (encoded(flat(90, 2100, 2100), 10), LookReason.TOO_LARGE),
    "one pixel": (encoded(flat(128, 1, 1)), LookReason.NO_FACE),
    "a line": (encoded(flat(128, 1, 4000)), LookReason.NO_FACE),
    "grey wall": (encoded(flat(128)), LookReason.NO_FACE),
    "noise": (encoded(NOISE), LookReason.NO_FACE),
    "one channel": (encoded(np.asarray(NOISE[:, :, 0])), LookReason.NO_FACE),
    "black": (encoded(flat(0)), LookReason.TOO_DARK),
    "white": (encoded(flat(255)), LookReason.TOO_BRIGHT),
}


@pytest.mark.parametrize(("content", "expected"), GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("kind", list(FaceKind))
def test_garbage_gets_its_code(pipeline: FacePipeline, content: bytes, expected: LookReason, kind: FaceKind) -> None:
    assert reason(probe(pipeline, content, kind)) is expected


def test_a_size_beyond_the_bound_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert decode_jpeg(with_size(encoded(NOISE), 60000, 60000)) is LookReason.TOO_LARGE


def test_the_header_is_read_past_metadata_and_thumbnails() -> None:
    plain = encoded(flat(90, 30, 50))
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(plain) + 2) + plain
    assert jpeg_size(plain) == (50, 30)
    assert jpeg_size(plain[:2] + thumbnail + plain[2:]) == (50, 30)
    cut = plain[:2] + thumbnail + plain[2:-1]
    assert decode_jpeg(cut) is LookReason.CORRUPT_JPEG, "the thumbnail's end is not the image's"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_make_it_raise(pipeline: FacePipeline, data: st.DataObject) -> None:
    content = bytearray(encoded(np.asarray(NOISE[:64, :64])))
    for _ in range(data.draw(st.integers(0, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    seen = probe(pipeline, bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert isinstance(seen, (Seen, Unseen))


def test_the_warp_is_exact_for_a_moved_template() -> None:
    angle, scale = 0.3, 2.5
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (REFERENCE @ turn.T + [40, 90]).astype(np.float32)
    back = similarity(moved)
    assert np.allclose(moved @ back[:, :2].T + back[:, 2], REFERENCE, atol=1e-4)
    with pytest.raises(ValueError, match="one point"):
        similarity(np.ones((5, 2), np.float32))


def test_a_clear_face_is_seen_with_a_unit_vector(pipeline: FacePipeline, portrait: bytes) -> None:
    seen = enrol(pipeline, portrait)
    assert isinstance(seen, Seen)
    assert np.linalg.norm(to_vector(seen.embedding)) == pytest.approx(1.0, abs=1e-5)
    assert seen.eye_distance_px > 40
    assert seen.quality.faces == 1
    assert "embedding" not in repr(seen), "no template in a log"


def test_an_aligned_crop_gives_the_frame_s_embedding(pipeline: FacePipeline, portrait: bytes) -> None:
    pixels = decoded(portrait)
    crop = align(pixels, pipeline.faces(pixels, 320)[0].landmarks)
    frame, small = probe(pipeline, portrait), probe(pipeline, encoded(crop, 95), FaceKind.CROP)
    assert isinstance(frame, Seen)
    assert isinstance(small, Seen)
    assert to_vector(frame.embedding) @ to_vector(small.embedding) > 0.95
    assert (
        reason(pipeline.look(encoded(crop), kind=FaceKind.CROP, purpose=LookPurpose.ENROL, policy=PRODUCTION))
        is LookReason.FRAME_NEEDED
    )


def test_a_crop_that_is_not_aligned_is_aligned_here(pipeline: FacePipeline, nets: Nets, portrait: bytes) -> None:
    sloppy = cv2.resize(decoded(portrait)[20:230, 20:230], (112, 112), interpolation=cv2.INTER_AREA)
    jpeg = encoded(np.asarray(sloppy, np.uint8), 95)
    frame, crop = probe(pipeline, portrait), probe(pipeline, jpeg, FaceKind.CROP)
    assert isinstance(frame, Seen)
    assert isinstance(crop, Seen)
    as_sent = FaceEmbedder(nets.recogniser_path).embed(decoded(jpeg))
    assert to_vector(frame.embedding) @ to_vector(crop.embedding) > 0.7
    assert to_vector(frame.embedding) @ as_sent < 0.5


def test_a_tight_crop_as_frame_is_found_by_its_border(pipeline: FacePipeline, portrait: bytes) -> None:
    pixels = decoded(portrait)
    x, y, w, h = (round(v) for v in pipeline.faces(pixels, 320)[0].box)
    tight = np.ascontiguousarray(pixels[y : y + h, x : x + w])
    whole, cut = probe(pipeline, portrait), probe(pipeline, encoded(tight, 95))
    assert isinstance(whole, Seen)
    assert isinstance(cut, Seen)
    assert to_vector(whole.embedding) @ to_vector(cut.embedding) > 0.75


def test_the_customer_is_asked_to_look_again(pipeline: FacePipeline, portrait: bytes) -> None:
    pixels = decoded(portrait)
    far = cv2.copyMakeBorder(
        cv2.resize(pixels, (70, 70), interpolation=cv2.INTER_AREA), 85, 85, 125, 125, cv2.BORDER_REPLICATE
    )
    assert reason(probe(pipeline, encoded(np.asarray(far, np.uint8)))) is LookReason.COME_CLOSER
    blurred = cv2.GaussianBlur(pixels, (0, 0), 4)
    assert reason(probe(pipeline, encoded(np.asarray(blurred, np.uint8)))) is LookReason.BLURRED
    night = (pixels * 0.03).astype(np.uint8)
    assert reason(probe(pipeline, encoded(night))) is LookReason.TOO_DARK


def test_a_dim_face_is_lifted_before_it_is_refused(pipeline: FacePipeline, portrait: bytes) -> None:
    bright = probe(pipeline, portrait)
    dim = probe(pipeline, encoded((decoded(portrait) * 0.2).astype(np.uint8)))
    assert isinstance(bright, Seen)
    assert isinstance(dim, Seen)
    assert dim.quality.enhanced
    assert dim.quality.luminance < 40
    assert to_vector(bright.embedding) @ to_vector(dim.embedding) > 0.85


def test_two_faces_are_several_unless_one_is_much_nearer(pipeline: FacePipeline, portrait: bytes) -> None:
    pixels = decoded(portrait)
    both = np.hstack([pixels, pixels])
    assert reason(probe(pipeline, encoded(both))) is LookReason.SEVERAL_FACES
    behind = cv2.copyMakeBorder(
        cv2.resize(pixels, (125, 125), interpolation=cv2.INTER_AREA), 0, 125, 0, 0, cv2.BORDER_REPLICATE
    )
    queue = encoded(np.hstack([pixels, np.asarray(behind, np.uint8)]))
    nearest = probe(pipeline, queue)
    assert isinstance(nearest, Seen)
    assert nearest.quality.faces == 2
    alone = probe(pipeline, portrait)
    assert isinstance(alone, Seen)
    assert to_vector(nearest.embedding) @ to_vector(alone.embedding) > 0.9
    assert reason(enrol(pipeline, queue)) is LookReason.SEVERAL_FACES, "enrolment takes exactly one"


@pytest.mark.parametrize("value", range(1, 9))
def test_a_turned_camera_gives_the_same_embedding(pipeline: FacePipeline, portrait: bytes, value: int) -> None:
    upright = decoded(portrait)
    # What the sensor stored, so that the orientation brings it upright again (Exif 2.32, 4.6.5).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[value]
    jpeg = encoded(np.ascontiguousarray(stored), 95)
    tiff = b"II" + struct.pack("<HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + jpeg[2:]
    seen, plain = enrol(pipeline, turned), enrol(pipeline, portrait)
    assert isinstance(seen, Seen)
    assert isinstance(plain, Seen)
    assert to_vector(seen.embedding) @ to_vector(plain.embedding) > 0.98
    if value in (3, 6, 8):
        assert not isinstance(enrol(pipeline, jpeg), Seen), "without its orientation it lies on its side"


def test_a_file_that_was_cut_and_closed_is_judged_by_what_is_left(pipeline: FacePipeline, portrait: bytes) -> None:
    whole = probe(pipeline, portrait)
    assert isinstance(whole, Seen)
    doubtful = 0
    for part in (0.2, 0.4, 0.5, 0.6, 0.7, 0.9):
        seen = probe(pipeline, portrait[: int(len(portrait) * part)] + b"\xff\xd9")
        if isinstance(seen, Unseen) or covered(seen.quality) is not None:
            doubtful += 1  # grey below the cut: half a face is no stranger
        else:
            assert to_vector(seen.embedding) @ to_vector(whole.embedding) > 0.7, part
    assert doubtful >= 2
