"""Secret rotations: scores are unchanged, a rotation can be revoked, and rotated rows are useless to anyone else."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Rotation = NDArray[np.float32]


def rotation_from(secret: bytes, dimension: int = 128) -> Rotation:
    """The orthogonal matrix of a secret (32 bytes or more), uniform over rotations (Stewart 1980: QR of a Gaussian).

    The same secret gives the same matrix, up to the rounding of the machine's linear algebra: rows of
    galleries in memory may be compared, but only unrotated templates are kept at rest.
    """
    if len(secret) < 32:
        raise ValueError("a rotation secret has 32 bytes or more")
    count = dimension * dimension
    stream = hashlib.shake_256(b"storeops/rotation/1" + secret).digest(16 * count)
    uniform = (np.frombuffer(stream, "<u8").astype(np.float64) + 0.5) / 2.0**64
    radius = np.sqrt(-2.0 * np.log(np.maximum(uniform[:count], 1e-300)))
    gaussian = (radius * np.cos(2 * np.pi * uniform[count:])).reshape(dimension, dimension)
    q, r = np.linalg.qr(gaussian)
    return (q * np.sign(np.diag(r))).astype(np.float32)


@lru_cache(maxsize=4)
def sign_rotation(dimension: int) -> Rotation:
    """The second rotation of sign bits. No secret: what it turns is rotated by one already."""
    return rotation_from(b"storeops/signs/1".ljust(32, b"."), dimension)
