"""Exact recall at the sizes where a search reads less than every row (make soak)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.domain.gallery import NewRow
from models.domain.ids import MemberId, StoreId
from models.domain.recognition import SearchResult
from models.faces.columns import MEMBER_BYTES_MAX, Kind, Rows
from models.faces.embed import to_embedding
from models.faces.gallery import Gallery

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

BLOCK = 50_000
FLOOR, MARGIN = 0.60, 0.08


class Oracle:
    """All rows in float32, scanned."""

    def __init__(self) -> None:
        self.vectors: NDArray[np.float32] = np.empty((0, 128), np.float32)
        self.members: NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, vectors: NDArray[np.float32], members: NDArray[np.int64]) -> None:
        self.vectors = np.concatenate([self.vectors, vectors])
        self.members = np.concatenate([self.members, members])

    def remove(self, member: int) -> int:
        gone = np.flatnonzero(self.members == member)
        self.vectors[gone], self.members[gone] = 0.0, -1
        return len(gone)

    def any(self, rng: np.random.Generator) -> int:
        """The place of somebody who is there."""
        there = np.flatnonzero(self.members >= 0)
        return int(rng.choice(there))

    def two(self, probe: NDArray[np.float32]) -> tuple[int, float, float]:
        scores = self.vectors @ probe
        first = int(scores.argmax())
        return int(self.members[first]), float(scores[first]), float(scores[self.members != self.members[first]].max())


def units(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((count, 128), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def near(rng: np.random.Generator, base: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
    other = units(rng, 1)[0]
    other -= base * (other @ base)
    other /= np.linalg.norm(other)
    mixed: NDArray[np.float32] = (cosine * base + np.sqrt(1 - cosine**2) * other).astype(np.float32)
    return mixed


def agrees(found: SearchResult, truth: tuple[int, float, float]) -> None:
    member, best, second = truth
    assert found.best is not None
    assert found.second is not None
    assert found.best.score == pytest.approx(best, abs=1e-3)
    assert found.second.member != found.best.member
    if best - second > 1e-3:
        assert found.best.member == f"m{member}"
    if best - second < MARGIN or best < FLOOR:
        assert found.second.score == pytest.approx(second, abs=1e-3)
    else:
        assert found.second.score <= second + 1e-3


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_every_search_finds_what_a_plain_scan_finds(size: int) -> None:
    rng = np.random.default_rng(size)
    gallery, truth = Gallery(128, np.eye(128, dtype=np.float32)), Oracle()
    gallery.begin_load(size)
    parts = []
    for start in range(0, size, BLOCK):
        vectors = units(rng, BLOCK)
        parts.append(vectors)
        names = np.array([b"m%d" % n for n in range(start, start + BLOCK)], f"S{MEMBER_BYTES_MAX}")
        zeros = np.zeros(BLOCK, np.uint64)
        gallery.put_rows(Rows(vectors, zeros, zeros.astype(np.uint32), zeros.astype(np.uint16), names))
    gallery.end_load(1)
    truth.add(np.concatenate(parts), np.arange(size))
    assert gallery.kind is (Kind.HALF if size == 100_000 else Kind.SIGNS)
    for turn in range(200):
        mate = truth.vectors[truth.any(rng)].copy()
        if turn % 4 == 0:  # a double, near enough to matter
            double = near(rng, mate, float(rng.uniform(0.5, 0.99)))
            row = NewRow(MemberId(f"m{size + turn}"), "t", to_embedding(double), StoreId("s"), "")
            assert gallery.add_many([row]) == 0
            truth.add(double[np.newaxis], np.array([size + turn]))
        if turn % 10 == 1:
            gone = int(truth.members[truth.any(rng)])
            assert gallery.remove(MemberId(f"m{gone}")) == truth.remove(gone)
        probe = units(rng, 1)[0] if turn % 5 == 4 else near(rng, mate, float(rng.uniform(0.3, 0.95)))
        agrees(gallery.search(to_embedding(probe))[0], truth.two(probe))
    assert len(gallery) == np.count_nonzero(truth.members >= 0)
