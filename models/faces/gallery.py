"""The flat gallery: contiguous float32 rows, exact search, true erasure. Right up to about 10,000 templates.

Erasing swaps the last row into the hole and zeroes the last: O(1), and no copy of the vector stays behind.
Rows are rotated by a secret orthogonal matrix of the chain before they enter: scores are unchanged, the
rotation can be revoked, and the rows are useless to anyone else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from models.domain.errors import RetryLater
from models.domain.ids import MemberId
from models.domain.recognition import Candidate, Embedding, SearchResult
from models.faces.embed import to_vector

Rotation = NDArray[np.float32]

TEMPLATES_MAX = 200_000
_GROWTH_ROWS = 256

_BLOCK_ROWS = 1024
"""Rows scored at once: larger products make OpenBLAS wake its other threads, which then spin beside the net
(at 10,000 templates that doubled the CPU time of a whole identification, 21 to 40 ms)."""


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


class Gallery:
    """Templates of one chain, member per row; a member may have several. Not for several threads."""

    def __init__(self, dimension: int, rotation: Rotation, templates_max: int = TEMPLATES_MAX) -> None:
        if rotation.shape != (dimension, dimension) or not np.allclose(
            rotation @ rotation.T, np.eye(dimension), atol=1e-4
        ):
            raise ValueError("the rotation is not an orthogonal matrix of this dimension")
        self.dimension = dimension
        self.templates_max = templates_max
        self.version = 0
        """Of the committed templates inside; kept by whoever loads them."""
        self._rotation = rotation
        self._rows: NDArray[np.float32] = np.zeros((_GROWTH_ROWS, dimension), np.float32)
        self._members: list[MemberId] = []
        self._templates: list[str] = []
        self._slots: dict[MemberId, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: object) -> bool:
        return member in self._slots

    def __iter__(self) -> Iterator[MemberId]:
        return iter(self._slots)

    def add(self, member: MemberId, template_id: str, embedding: Embedding) -> None:
        """Make a template searchable, replacing the one of the same member and id.

        Raises ValueError unless it is a unit vector of the dimension, RetryLater `gallery_full` at the bound.
        """
        vector = to_vector(embedding, self.dimension)
        if not abs(float(np.linalg.norm(vector)) - 1.0) <= 1e-3:
            raise ValueError("a template is a unit vector")
        slot = self._slots.get(member, {}).get(template_id)
        if slot is None:
            slot = len(self._members)
            if slot >= self.templates_max:
                raise RetryLater(
                    "gallery_full", f"{self.templates_max} templates are the bound", "shard the gallery", 60.0
                )
            if slot == len(self._rows):
                self._grow()
            self._members.append(member)
            self._templates.append(template_id)
            self._slots.setdefault(member, {})[template_id] = slot
        self._rows[slot] = self._rotation @ vector

    def remove(self, member: MemberId) -> int:
        """Erase all templates of a member; how many there were. Nothing of their bytes stays in the gallery."""
        slots = self._slots.pop(member, {})
        for slot in sorted(slots.values(), reverse=True):
            last = len(self._members) - 1
            if slot != last:
                self._rows[slot] = self._rows[last]
                self._members[slot], self._templates[slot] = self._members[last], self._templates[last]
                self._slots[self._members[slot]][self._templates[slot]] = slot
            self._rows[last] = 0.0
            self._members.pop()
            self._templates.pop()
        return len(slots)

    def search(self, embedding: Embedding, members: Collection[MemberId] | None = None) -> SearchResult:
        """The best member and the best of another one, among all templates or only those of `members`."""
        probe = self._rotation @ to_vector(embedding, self.dimension)
        if members is None:
            owners: list[MemberId] = self._members
            scores = np.empty(len(owners), np.float32)
            for start in range(0, len(owners), _BLOCK_ROWS):
                end = min(start + _BLOCK_ROWS, len(owners))
                np.dot(self._rows[start:end], probe, out=scores[start:end])
        else:
            slots = [slot for member in members for slot in self._slots.get(member, {}).values()]
            owners = [self._members[slot] for slot in slots]
            scores = self._rows[slots] @ probe if slots else np.empty(0, np.float32)
        if not owners:
            return SearchResult(None, None, 0)
        first = int(scores.argmax())
        best = Candidate(owners[first], _cosine(scores[first]))
        if members is None:
            own = list(self._slots[best.member].values())
        else:
            own = [i for i, owner in enumerate(owners) if owner == best.member]
        scores[own] = -np.inf
        runner = int(scores.argmax())
        second = Candidate(owners[runner], _cosine(scores[runner])) if np.isfinite(scores[runner]) else None
        return SearchResult(best, second, len(owners))

    def _grow(self) -> None:
        old = self._rows
        rows = min(self.templates_max, 2 * len(old))
        self._rows = np.zeros((max(rows, len(old) + 1), self.dimension), np.float32)
        self._rows[: len(old)] = old
        old[:] = 0.0  # no copy of a template stays in freed memory


def _cosine(score: np.float32) -> float:
    return max(-1.0, min(1.0, float(score)))
