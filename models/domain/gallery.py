"""A template on its way into a gallery, where a search looks, and what two searches make together."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.domain.ids import MemberId, StoreId
from models.domain.recognition import Embedding, SearchResult


@dataclass(frozen=True, slots=True)
class NewRow:
    """An opened template, and where its member belongs."""

    member: MemberId
    template: str
    embedding: Embedding | bytearray = field(repr=False)
    """A bytearray is zeroed by whoever opened it, once it is inside."""
    store: StoreId
    tail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InStore:
    """The members whose home store it is, and these recent visitors."""

    store: StoreId
    visitors: tuple[MemberId, ...] = ()


@dataclass(frozen=True, slots=True)
class InTail:
    """The members whose phone ends in these four digits."""

    tail: str = field(repr=False)


Where = InStore | InTail | None
"""None: all templates."""


def merged(one: SearchResult, other: SearchResult) -> SearchResult:
    """The result of two searches over disjoint templates, as if they had been one."""
    every = [c for c in (one.best, one.second, other.best, other.second) if c is not None]
    every.sort(key=lambda candidate: candidate.score, reverse=True)
    best = every[0] if every else None
    second = next((c for c in every if best is not None and c.member != best.member), None)
    return SearchResult(best, second, one.searched + other.searched)
