"""An anti-spoofing net of the chain's own catalogue (kind `liveness`). None is shipped, and none is a proof."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime as ort

from models.domain.errors import NeedsOperator
from models.domain.liveness import Landmarks
from models.faces.catalogue import NetEntry, NetKind, published_file
from models.faces.detect import Face
from models.faces.jpeg import Pixels
from models.faces.sessions import open_session, to_blob


def landmarks_of(face: Face) -> Landmarks:
    """As values, for the rules of the domain."""
    right, left, nose, mouth_right, mouth_left = ((float(x), float(y)) for x, y in face.landmarks)
    return right, left, nose, mouth_right, mouth_left


class AntiSpoofing:
    """Looks at a face with what is around it, in the whole frame. One thread, no state between calls."""

    def __init__(self, entry: NetEntry) -> None:
        """Raises NeedsOperator when the file is missing, altered, or does not do what its entry says."""
        assert entry.alive is not None, "a catalogue's liveness net says how it is read"
        self._alive, self._feed = entry.alive, entry.feed
        try:
            self._session: ort.InferenceSession = open_session(published_file(entry))
            part = self._alive_part(np.full((*(self._feed.size_px or (1, 1)), 3), 128, np.uint8))
        except NeedsOperator:
            raise
        except Exception as error:  # what a foreign file makes onnxruntime raise is of any type
            raise _unfit(entry, str(error)) from error
        if not 0.0 <= part <= 1.0:
            raise _unfit(entry, f"the number at {self._alive.index} is {part}, not a part of 1")

    @classmethod
    def of_catalogue(cls, catalogue: tuple[NetEntry, ...]) -> AntiSpoofing | None:
        """The catalogue's liveness net, if it has one. Raises NeedsOperator when it has several."""
        found = [entry for entry in catalogue if entry.kind is NetKind.LIVENESS]
        if len(found) > 1:
            names = ", ".join(entry.name for entry in found)
            raise NeedsOperator("net_catalogue", f"several liveness nets: {names}", "keep one of them")
        return cls(found[0]) if found else None

    def score_ppm(self, pixels: Pixels, face: Face) -> int:
        """How alive, 0 to 1,000,000."""
        part = self._alive_part(self._cut_out(pixels, face))
        return round(min(1.0, max(0.0, part)) * 1_000_000) if np.isfinite(part) else 0

    def _cut_out(self, pixels: Pixels, face: Face) -> Pixels:
        """A square around the middle of the face's box in the net's size; beyond the frame its edge repeats."""
        assert self._feed.size_px is not None
        height, width = self._feed.size_px
        x, y, w, h = face.box
        side = max(w, h, 1.0) * self._alive.around
        scale = np.array([width / side, height / side])
        shift = np.array([width, height]) / 2 - scale * (x + w / 2, y + h / 2)
        warp = np.array([[scale[0], 0.0, shift[0]], [0.0, scale[1], shift[1]]])
        cut = cv2.warpAffine(pixels, warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cut, np.uint8)

    def _alive_part(self, cut: Pixels) -> float:
        out = self._session.run(None, {self._feed.tensor: to_blob(cut, self._feed)})[0]
        row = np.asarray(out, np.float64).reshape(len(out), -1)[0]
        if self._alive.logits:
            row = np.exp(row - row.max())
            row /= row.sum()
        return float(row[self._alive.index])


def _unfit(entry: NetEntry, why: str) -> NeedsOperator:
    do = "correct the catalogue file, or export the net to plain ONNX operations"
    return NeedsOperator("net_unfit", f"{entry.name}: {why}", do)
