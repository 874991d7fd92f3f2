"""From a JPEG to a unit vector, or to the reason why not. Nothing of the image outlives the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.domain.face_quality import (
    FaceKind,
    LookPurpose,
    LookReason,
    QualityPolicy,
    judge,
)
from models.domain.recognition import Embedding, Seen, Unseen
from models.faces.align import CROP_PX, align, misalignment_px
from models.faces.detect import Face, FaceDetector
from models.faces.embed import FaceEmbedder, combine, to_embedding
from models.faces.jpeg import Pixels, decode_jpeg
from models.faces.liveness import AntiSpoofing, landmarks_of
from models.faces.nets import Nets, Recogniser, build_nets
from models.faces.quality import DARK_LUMINANCE, enhance, expose, luminance, measure

MISALIGNMENT_PX_MAX = 9.0
"""A crop farther off on average is warped again: the terminal did not align it. The detector's own landmarks on
a well aligned crop are off by 2.9 (median) to 7.4 pixels (the worst of a hundred photographs)."""

CROP_SIDE = 160
"""An aligned crop with its border is looked at in this size: landmarks are off by 3.0 pixels (median) and 7.8 at most,
as in full size (2.9 and 7.6; a hundred photographs), for half the time."""

TIGHT_PART = 0.8
"""A face whose box is this much of the image's height or width is looked for again inside a border: with cut
edges the landmarks drift (cosine with the whole photograph 0.839 plain, 0.869 with a border; 5th percentile
0.706 and 0.788)."""

BLIND_LUMINANCE = 20.0
"""An image darker than this on average, in which no face was found, gets `too_dark` and not `no_face`."""

GLARE_LUMINANCE = 235.0


class FacePipeline:
    """Detect, align, judge, embed. One thread; a worker process holds one."""

    def __init__(self, nets: Nets, older: Sequence[Recogniser] = (), anti_spoofing: AntiSpoofing | None = None) -> None:
        """`older`: recognisers that a probe is embedded by as well."""
        self._anti_spoofing = anti_spoofing
        self.net_sha256 = nets.recogniser_sha256
        self._detector = FaceDetector(nets.detector_path)
        self._embedder = FaceEmbedder(nets.recogniser_path, nets.recogniser.feed)
        self._older = {one.sha256: FaceEmbedder(one.path, one.feed) for one in older}

    @classmethod
    def from_cache(cls, cache_dir: Path) -> FacePipeline:
        """With the nets of the catalogue, built into `cache_dir` when they are not there yet."""
        return cls(build_nets(cache_dir))

    def warm_up(self) -> None:
        """Run every net once on a seeded picture: the first run of a net allocates, and must not be a customer's."""
        pixels = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
        crop = np.ascontiguousarray(pixels[:CROP_PX, :CROP_PX])
        self._find(pixels, 320)
        self._detector.find_in_tight_crop(crop)
        for embedder in (self._embedder, *self._older.values()):
            embedder.embed(crop)

    def look(
        self,
        jpeg: bytes,
        *,
        kind: FaceKind,
        purpose: LookPurpose,
        policy: QualityPolicy,
        longest_side: int = 320,
    ) -> Seen | Unseen:
        """One image judged by the policy's gates for this purpose. Never raises on any bytes.

        `longest_side`: of the image that the detector sees, 320 at a counter, 640 for groups; the face is
        aligned from the original pixels always.
        """
        pixels = decode_jpeg(jpeg)
        if isinstance(pixels, LookReason):
            return Unseen(pixels)
        if kind is FaceKind.CROP:
            if purpose is LookPurpose.ENROL:
                return Unseen(LookReason.FRAME_NEEDED)  # its eye distance says nothing of the camera's distance
            return self._look_at_crop(pixels, policy)
        gates = policy.gates(purpose)
        faces = self._find(pixels, longest_side)
        if not faces:
            return Unseen(_why_nothing(pixels))
        clear = [face for face in faces if face.score >= min(gates.score_min, faces[0].score)]
        nearest, *others = sorted(clear, key=lambda face: -face.eye_distance_px)
        if others and (
            gates.nearest_ratio_min is None
            or nearest.eye_distance_px < gates.nearest_ratio_min * others[0].eye_distance_px
        ):
            return Unseen(LookReason.SEVERAL_FACES)
        crop = self._warp(pixels, nearest)
        if crop is None:
            return Unseen(LookReason.NO_FACE)
        seen = self._judge(nearest, crop, len(clear), purpose, policy)
        if self._anti_spoofing is not None and isinstance(seen, Seen) and purpose is LookPurpose.PROBE:
            return replace(seen, liveness_ppm=self._anti_spoofing.score_ppm(pixels, nearest))
        return seen

    def retire(self, net_sha256: str) -> None:
        """Close an older net."""
        self._older.pop(net_sha256, None)

    def combine(self, shots: list[Embedding], agreement_min: float) -> Embedding | tuple[int, ...]:
        """As `embed.combine`: the mean of shots that agree, else the positions of those that do."""
        return combine(shots, agreement_min)

    def faces(self, pixels: Pixels, longest_side: int = 640) -> list[Face]:
        """All faces of an image, best first: for tools that cut photographs."""
        return self._find(pixels, longest_side)

    def _find(self, pixels: Pixels, longest_side: int) -> list[Face]:
        for image in (pixels, enhance(pixels)) if luminance(pixels) < DARK_LUMINANCE else (pixels,):
            found = self._detector.find(image, longest_side)
            if not found or _is_tight(image, found[0]):
                found = self._detector.find_in_tight_crop(image, longest_side) or found
            if found:
                return found
        return []

    def _look_at_crop(self, pixels: Pixels, policy: QualityPolicy) -> Seen | Unseen:
        """An aligned crop: looked at once more (0.7 ms), because a terminal may send anything as one."""
        faces = self._detector.find_in_tight_crop(pixels, CROP_SIDE)
        if not faces and luminance(pixels) < DARK_LUMINANCE:
            faces = self._detector.find_in_tight_crop(enhance(pixels), CROP_SIDE)
        if not faces:
            return Unseen(_why_nothing(pixels))
        face = max(faces, key=lambda one: one.eye_distance_px)
        right_size = pixels.shape[:2] == (CROP_PX, CROP_PX)
        aligned = right_size and misalignment_px(face.landmarks) <= MISALIGNMENT_PX_MAX
        crop = pixels if aligned else self._warp(pixels, face)
        if crop is None:
            return Unseen(LookReason.NO_FACE)
        return self._judge(face, crop, len(faces), LookPurpose.PROBE, policy)

    def _warp(self, pixels: Pixels, face: Face) -> Pixels | None:
        try:
            return align(pixels, face.landmarks)
        except ValueError:  # a detector's figment: all landmarks in one point
            return None

    def _judge(
        self, face: Face, crop: Pixels, faces: int, purpose: LookPurpose, policy: QualityPolicy
    ) -> Seen | Unseen:
        before = luminance(crop)
        dark = before < DARK_LUMINANCE
        if dark:
            crop = expose(crop)
        report = measure(face, crop, faces, dark=before if dark else None)
        reason = judge(report, policy.gates(purpose))
        if reason is not None:
            return Unseen(reason, report)
        older = self._older.items() if purpose is LookPurpose.PROBE else ()
        return Seen(
            to_embedding(self._embedder.embed(crop)),
            report,
            landmarks_of(face),
            older=tuple((net, to_embedding(embedder.embed(crop))) for net, embedder in older),
        )


def _is_tight(pixels: Pixels, face: Face) -> bool:
    height, width = pixels.shape[:2]
    return bool(face.box[2] > TIGHT_PART * width or face.box[3] > TIGHT_PART * height)


def _why_nothing(pixels: Pixels) -> LookReason:
    mean = float(np.float64(luminance(pixels)))
    if mean < BLIND_LUMINANCE:
        return LookReason.TOO_DARK
    return LookReason.TOO_BRIGHT if mean > GLARE_LUMINANCE else LookReason.NO_FACE
