"""The arithmetic of a search: cosines of a probe with the rows of columns, and the best two members among them.

One thread always: a worker is a core, and threads of a matrix library would spin beside the net.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.domain.ids import MemberId
from models.domain.recognition import Candidate, SearchResult
from models.faces.columns import SIGN_BYTES, Columns, Kind
from models.faces.embed import Vector
from models.faces.rotation import sign_rotation

Positions = NDArray[np.intp]

BLOCK_ROWS = 1024
"""Rows scored at once: larger products make OpenBLAS wake its other threads, which then spin beside the net
(at 10,000 templates that doubled the CPU time of a whole identification, 21 to 40 ms)."""
HEAP = 32
"""Best rows that one pass keeps: more than one member's templates, so that another member is among them."""
RERANKED = 1000
"""Rows nearest by their signs that are scored. With 256 bits and a million rows, a row of cosine 0.60 is farther
than the 1000th in 1 of 10,000 cases; the bound below makes that case harmless."""
SURE_SCORE, SURE_MARGIN = 0.60, 0.10
"""A search by signs counts only if its best is at least so good and so far ahead; else every row is scored. Under
t(1,000,000) = 0.68 and the margin of 0.08 nothing is accepted that these let through."""
GATHERED_MAX = 4096
"""Rows of a subset that are scored by numpy; more are worth a copy for the vector kernel."""


def best_two(columns: Columns, count: int, probe: Vector, positions: Positions | None = None) -> SearchResult:
    """The best member and the best of another one, among the first `count` rows or those at `positions`.

    `probe`: rotated as the rows are. Kind SIGNS without positions: the second is a lower bound where it is farther
    than SURE_MARGIN behind; the best is that of the exact scan.
    """
    if positions is None and columns.kind is Kind.SIGNS and count > RERANKED:
        near = nearest_by_signs(columns.signs[:count], probe, RERANKED)
        sure = _named(columns, *_top(columns, count, probe, near), count)
        if _is_sure(sure):
            return sure
    return exact_two(columns, count, probe, positions)


def exact_two(columns: Columns, count: int, probe: Vector, positions: Positions | None = None) -> SearchResult:
    """The same by scoring every row."""
    searched = count if positions is None else len(positions)
    return _named(columns, *_top(columns, count, probe, positions), searched)


def _is_sure(result: SearchResult) -> bool:
    if result.best is None or result.second is None or result.best.score < SURE_SCORE:
        return False
    return result.best.score - result.second.score >= SURE_MARGIN


def _top(
    columns: Columns, count: int, probe: Vector, positions: Positions | None
) -> tuple[NDArray[np.float32], Positions]:
    """Scores and positions of the best rows, best first: enough of them to hold two members if there are two."""
    if positions is not None and len(positions) <= GATHERED_MAX:
        scores = columns.rows[positions].astype(np.float32, copy=False) @ probe
        return _two_of(columns, scores, positions)
    if columns.kind is Kind.FLOAT32:
        return _two_of(columns, _dots(columns.rows, count, probe, positions), positions)
    rows = columns.rows[:count] if positions is None else columns.rows[positions]
    for heap in (HEAP, 32 * HEAP):
        scores, found = half_top(rows, probe, heap)
        if positions is not None:
            found = positions[found]
        if len(found) < heap or len(set(columns.keys[found].tolist())) > 1:
            return scores, found
    every = np.concatenate([rows[at : at + BLOCK_ROWS].astype(np.float32) @ probe for at in _starts(len(rows))])
    return _two_of(columns, every, positions)


def _starts(count: int) -> range:
    return range(0, count, BLOCK_ROWS)


def _dots(rows: NDArray[Any], count: int, probe: Vector, positions: Positions | None) -> NDArray[np.float32]:
    total = count if positions is None else len(positions)
    scores = np.empty(total, np.float32)
    for start in _starts(total):
        end = min(start + BLOCK_ROWS, total)
        block = rows[start:end] if positions is None else rows[positions[start:end]]
        np.dot(block, probe, out=scores[start:end])
    return scores


def _two_of(
    columns: Columns, scores: NDArray[np.float32], positions: Positions | None
) -> tuple[NDArray[np.float32], Positions]:
    """The best row and the best of another member's. `scores` are spent."""
    if not len(scores):
        return scores, np.empty(0, np.intp)
    keys = columns.keys[: len(scores)] if positions is None else columns.keys[positions]
    first = int(scores.argmax())
    best = scores[first]
    scores[keys == keys[first]] = -np.inf
    second = int(scores.argmax())
    picked = np.array([first] if scores[second] == -np.inf else [first, second], np.intp)
    values = np.array([best] if len(picked) == 1 else [best, scores[second]], np.float32)
    return values, picked if positions is None else positions[picked]


def _named(columns: Columns, scores: NDArray[np.float32], found: Positions, searched: int) -> SearchResult:
    if not len(found):
        return SearchResult(None, None, searched)
    members = columns.members[found]
    best = Candidate(_member(members[0]), _cosine(scores[0]))
    for member, score in zip(members[1:], scores[1:], strict=True):
        if member != members[0]:
            return SearchResult(best, Candidate(_member(member), _cosine(score)), searched)
    return SearchResult(best, None, searched)


def _member(member: Any) -> MemberId:
    return MemberId(bytes(member).decode(errors="replace"))


def _cosine(score: np.float32) -> float:
    return max(-1.0, min(1.0, float(score)))


# ---------------------------------------------------------------- the kernels: in place, over memory that may be shared


def half_top(rows: NDArray[Any], probe: Vector, best: int) -> tuple[NDArray[np.float32], Positions]:
    """The best scores of contiguous float16 rows and their positions, best first: one pass at memory speed."""
    faiss = _faiss()
    query = np.ascontiguousarray(probe, np.float32)
    scores = np.full(best, -np.inf, np.float32)
    found = np.full(best, -1, np.int64)
    if len(rows):
        scalar = faiss.ScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16)
        scanner = scalar.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, None, False)
        scanner.set_query(faiss.swig_ptr(query))
        scanner.set_list(0, 0.0)
        codes = faiss.swig_ptr(rows.view(np.uint8).reshape(-1))
        scanner.scan_codes(len(rows), codes, None, faiss.swig_ptr(scores), faiss.swig_ptr(found), best)
    order = np.argsort(-scores, kind="stable")
    order = order[found[order] >= 0]
    return scores[order], found[order].astype(np.intp)


def signs_of(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """uint8[n, 32]: the signs of rotated rows, and of the same under one more rotation, known to all.

    Two orthogonal sets of directions: angles are estimated with less variance than by independent ones (Ji et al.
    2012, super-bit locality-sensitive hashing).
    """
    every = np.concatenate([rows, rows @ sign_rotation(rows.shape[1])], axis=1)
    packed = np.packbits(every > 0, axis=1)
    signs = np.zeros((len(rows), SIGN_BYTES), np.uint8)
    signs[:, : min(SIGN_BYTES, packed.shape[1])] = packed[:, :SIGN_BYTES]
    return signs


def nearest_by_signs(signs: NDArray[np.uint8], probe: Vector, nearest: int) -> Positions:
    """Positions of the rows whose signs differ least from the probe's, in any order."""
    faiss = _faiss()
    mine = signs_of(probe[np.newaxis])
    distances = np.empty(nearest, np.int32)
    found = np.full(nearest, -1, np.int64)
    faiss.hammings_knn_mc(
        faiss.swig_ptr(mine.reshape(-1)),
        faiss.swig_ptr(signs.reshape(-1)),
        1,
        len(signs),
        nearest,
        SIGN_BYTES,
        faiss.swig_ptr(distances),
        faiss.swig_ptr(found),
        None,
    )
    return found[found >= 0].astype(np.intp)


def _faiss() -> Any:
    """Imported when a gallery first needs it (0.3 s, 40 MiB): a small shop never does. One thread in this thread."""
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    return faiss
