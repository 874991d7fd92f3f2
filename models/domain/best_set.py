"""Which vouchers to take: the set with the lowest effective price, by branch and bound.

A candidate takes something off the lines' nets, never more when a net is lower. A set is applied in the canonical
order (`Candidate.order`), so a set has one price. The search grows sets in that order and leaves a branch when even
all that may still come could not make it the best. Ties go to the lower price, then fewer vouchers, then lower ids.

Exact up to CANDIDATES_MAX candidates as long as NODES_MAX sets are enough; beyond either it answers with the best set
found and `optimal=False`. The bound counts sets, not time: the same question has the same answer on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

CANDIDATES_MAX = 24
"""More are cut to those that would give most by themselves."""

NODES_MAX = 500
"""Sets that are priced at most. Calibrated to 20 ms: see docs/pricing.md and `storeops bench money`."""


class Discount(Protocol):
    """What a candidate takes off. For lower nets it never takes more."""

    def worth_fen(self, nets: Sequence[int]) -> int:
        """In fen, for lines that still cost `nets`."""
        ...

    def parts(self, nets: Sequence[int]) -> tuple[int, ...]:
        """The same by line; they sum to `worth_fen` and none exceeds its net."""
        ...

    def later_fen(self, fen: int) -> int:
        """How much more is charged later because `fen` were taken; 0 <= later_fen <= fen, and fen - later_fen never
        falls when fen rises."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One voucher, or one way to use the light benefit. `order`: place in the canonical order, unique; `group`: at
    most one of a group is taken, empty: none; `exclusive`: only ever alone; `uses`: how many vouchers it counts as."""

    id: str
    order: tuple[int, int, str]
    discount: Discount
    group: str = ""
    exclusive: bool = False
    uses: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """A candidate of the best set and what it takes off each line."""

    candidate: Candidate
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BestSet:
    """The answer. effective_fen = price_fen + what is charged later because of it."""

    taken: tuple[Taken, ...]
    price_fen: int
    effective_fen: int
    optimal: bool
    nodes: int
    """Sets that were priced."""


class Score(NamedTuple):
    """What is compared, in this order: lower is better."""

    effective_fen: int
    price_fen: int
    uses: int
    ids: tuple[str, ...]


def best_set(nets: Sequence[int], candidates: Sequence[Candidate], *, nodes_max: int = NODES_MAX) -> BestSet:
    """The best set of `candidates` on lines that cost `nets` (>= 0)."""
    kept, cut = _strongest([one for one in candidates if one.discount.worth_fen(nets) > 0], nets)
    search = _Search(nets, [one for one in kept if not one.exclusive], nodes_max)
    search.look(())
    for one in kept:
        if one.exclusive:
            search.look((one,))
    search.grow(0, list(nets), Score(sum(nets), sum(nets), 0, ()), ())
    return _answer(nets, search, cut)


def evaluate(nets: Sequence[int], chosen: Sequence[Candidate]) -> tuple[Score, tuple[Taken, ...]]:
    """The price of one set, applied in the canonical order whatever the order it is given in."""
    left = list(nets)
    later_fen, uses = 0, 0
    taken = []
    for one in sorted(chosen, key=lambda candidate: candidate.order):
        parts = one.discount.parts(left)
        left = [net - part for net, part in zip(left, parts, strict=True)]
        later_fen += one.discount.later_fen(sum(parts))
        uses += one.uses
        taken.append(Taken(one, parts))
    price_fen = sum(left)
    return Score(price_fen + later_fen, price_fen, uses, tuple(sorted(one.id for one in chosen))), tuple(taken)


def compatible(chosen: Sequence[Candidate]) -> bool:
    """May these be taken together: one of each group, and an exclusive one alone."""
    groups = [one.group for one in chosen if one.group]
    return len(set(groups)) == len(groups) and (len(chosen) < 2 or not any(one.exclusive for one in chosen))


def greedy_set(nets: Sequence[int], candidates: Sequence[Candidate]) -> BestSet:
    """What a till without a search would do: take what helps most, again and again. The yardstick of `best_set`."""
    chosen: list[Candidate] = []
    best = evaluate(nets, ())[0]
    nodes = 1
    while True:
        tries = [
            (evaluate(nets, [*chosen, one])[0], one)
            for one in candidates
            if one not in chosen and compatible([*chosen, one])
        ]
        nodes += len(tries)
        score, one = min(tries, key=lambda found: found[0], default=(best, None))
        if one is None or score >= best:
            return BestSet(evaluate(nets, chosen)[1], best.price_fen, best.effective_fen, False, nodes)
        best = score
        chosen.append(one)


def _answer(nets: Sequence[int], search: _Search, cut: bool) -> BestSet:
    score, taken = evaluate(nets, search.best_of)
    return BestSet(taken, score.price_fen, score.effective_fen, not cut and not search.out, search.nodes)


def _strongest(candidates: list[Candidate], nets: Sequence[int]) -> tuple[list[Candidate], bool]:
    ordered = sorted(candidates, key=lambda one: one.order)
    if len(ordered) <= CANDIDATES_MAX:
        return ordered, False
    strongest = sorted(ordered, key=lambda one: (evaluate(nets, (one,))[0], one.order))[:CANDIDATES_MAX]
    return sorted(strongest, key=lambda one: one.order), True


class _Search:
    """Sets are grown in the canonical order: the children of a set add one later candidate each."""

    def __init__(self, nets: Sequence[int], ordered: Sequence[Candidate], nodes_max: int) -> None:
        self._nets = nets
        self._ordered = ordered
        self._nodes_max = nodes_max
        self.nodes = 0
        self.best = Score(sum(nets), sum(nets), 0, ())
        self.best_of: tuple[Candidate, ...] = ()

    @property
    def out(self) -> bool:
        """The bound was reached: what was not looked at may be better."""
        return self.nodes >= self._nodes_max

    def look(self, chosen: tuple[Candidate, ...]) -> None:
        """Price one set outside the tree."""
        self._seen(evaluate(self._nets, chosen)[0], chosen)

    def _seen(self, score: Score, chosen: tuple[Candidate, ...]) -> None:
        self.nodes += 1
        if score < self.best:
            self.best, self.best_of = score, chosen

    def grow(self, first: int, nets: list[int], score: Score, chosen: tuple[Candidate, ...]) -> None:
        """Look at all sets that add to `chosen` some of the candidates from position `first` on."""
        groups = {one.group for one in chosen if one.group}
        rest = self._ordered[first:]
        worths = [0 if one.group in groups else one.discount.worth_fen(nets) for one in rest]
        hopes = _hopes(rest, worths)
        for n, worth in enumerate(worths):
            if self._hopeless(score, hopes[n]):
                return  # nor can the later ones: they may add fewer
            if not worth:
                continue
            if self.out:
                return
            one = rest[n]
            later = one.discount.later_fen(worth)
            ids = tuple(sorted((*score.ids, one.id)))
            child = Score(score.effective_fen - worth + later, score.price_fen - worth, score.uses + one.uses, ids)
            grown = (*chosen, one)
            self._seen(child, grown)
            if not self._hopeless(child, hopes[n + 1]):  # what comes after is worth no more than it was here
                left = [net - part for net, part in zip(nets, one.discount.parts(nets), strict=True)]
                self.grow(first + n + 1, left, child, grown)

    def _hopeless(self, score: Score, hope: tuple[int, int]) -> bool:
        """Could no set become the best that takes something more off `score`, at most this much in all?"""
        gain, off = hope
        if not off:
            return True
        price = max(0, score.price_fen - off)
        effective = max(score.effective_fen - score.price_fen, score.effective_fen - gain)
        return (effective, price, score.uses + 1) > self.best[:3]


def _hopes(rest: Sequence[Candidate], worths: Sequence[int]) -> list[tuple[int, int]]:
    """For each position what those from there on could still take off at most, in effect and in price: each what it
    is worth now (later it is worth no more), of a group only the strongest. One more entry: nothing is left."""
    hopes = [(0, 0)] * (len(rest) + 1)
    strongest: dict[str, tuple[int, int]] = {}
    gain = off = 0
    for n in range(len(rest) - 1, -1, -1):
        one, worth = rest[n], worths[n]
        if worth:
            net = worth - one.discount.later_fen(worth)
            if one.group:
                had = strongest.get(one.group, (0, 0))
                now = (max(had[0], net), max(had[1], worth))
                strongest[one.group] = now
                gain, off = gain + now[0] - had[0], off + now[1] - had[1]
            else:
                gain, off = gain + net, off + worth
        hopes[n] = (gain, off)
    return hopes
