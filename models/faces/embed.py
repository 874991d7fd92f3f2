"""SFace on onnxruntime, and the arithmetic of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.domain.recognition import Embedding
from models.faces.jpeg import Pixels
from models.faces.sessions import open_session

DIMENSION = 128

Vector = NDArray[np.float32]


class FaceEmbedder:
    """Turns an aligned crop into a unit vector. One thread, batch 1 (batching on one core only loses)."""

    def __init__(self, net: Path | bytes) -> None:
        self._session = open_session(net)
        self._input = self._session.get_inputs()[0].name

    def embed(self, crop: Pixels) -> Vector:
        """float32[128], unit norm. `crop`: aligned 112 x 112 BGR."""
        assert crop.shape == (112, 112, 3), crop.shape
        blob = np.ascontiguousarray(crop[:, :, ::-1].transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
        out = np.asarray(self._session.run(None, {self._input: blob})[0], dtype=np.float32)[0]
        return unit(out)


def unit(vector: Vector) -> Vector:
    """The same direction with norm 1. Raises ValueError on a vector without direction or not finite."""
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(norm) or norm < 1e-12:
        raise ValueError("no direction")
    return (vector / norm).astype(np.float32)


def to_embedding(vector: Vector) -> Embedding:
    """As bytes: little-endian float32, for sealing and for callers without numpy."""
    return Embedding(vector.astype("<f4").tobytes())


def to_vector(embedding: Embedding, dimension: int = DIMENSION) -> Vector:
    """Back from bytes. Raises ValueError when the length is not the dimension's."""
    vector = np.frombuffer(embedding, dtype="<f4")
    if vector.shape != (dimension,):
        raise ValueError(f"{len(embedding)} bytes are not {dimension} float32")
    return vector.astype(np.float32)


def combine(shots: Sequence[Embedding], agreement_min: float) -> Embedding | tuple[int, ...]:
    """The normalised mean of shots that agree pairwise; else the largest set of them that does (may be empty).

    The mean of three lifts the weakest mates (5th percentile) from 0.499 to 0.625 (docs: faces, Accuracy).
    """
    vectors = np.stack([to_vector(shot) for shot in shots])
    agrees = vectors @ vectors.T >= agreement_min
    if agrees.all():
        return to_embedding(unit(vectors.mean(axis=0)))
    best: tuple[int, ...] = ()
    for mask in range(1, 1 << len(shots)):
        chosen = tuple(i for i in range(len(shots)) if mask >> i & 1)
        if len(chosen) > max(1, len(best)) and agrees[np.ix_(chosen, chosen)].all():
            best = chosen
    return best
