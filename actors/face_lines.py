"""Who is next at the face desk: stores take turns by what they used, first come first served within one.

Fair queueing by virtual time (Demers, Keshav, Shenker 1989): each store's line has a tag, the work it was given so
far; the smallest tag is served next. Virtual time is the work that a store would have had by now if all that wait were
served in equal parts; a line that was empty starts there. So a store that asks much does not delay one that asks
little, and newcomers do not pass for ever who waits. Within a store a question that needs no picture goes before an
enrolment's shot, and that before a probe.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from models.domain.ids import StoreId


class Verb(StrEnum):
    """What a face worker is asked, as the method's name."""

    IDENTIFY = "identify"
    RESCORE = "rescore"
    SHOOT = "shoot"
    ENROL = "enrol"


LOOK_UNITS = 16
UNITS: dict[Verb, int] = {Verb.IDENTIFY: LOOK_UNITS, Verb.SHOOT: LOOK_UNITS, Verb.RESCORE: 1, Verb.ENROL: 1}
"""The work of a question: to look at a picture takes about 20 ms, to score again about 1 ms."""
RANKS: dict[Verb, int] = {Verb.RESCORE: 0, Verb.ENROL: 0, Verb.SHOOT: 1, Verb.IDENTIFY: 2}
"""Within one store: the customer who is further on first."""
_RANKS = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. `deadline_s`: of the desk's clock; an answer after it is nobody's."""

    question: str
    store: StoreId
    verb: Verb
    deadline_s: float
    at_s: float
    """When it came."""

    @property
    def units(self) -> int:
        """Its work."""
        return UNITS[self.verb]


@dataclass(slots=True)
class _Line:
    """One store's."""

    tag: float
    units: int = 0
    ranks: tuple[deque[Asked], ...] = field(default_factory=lambda: tuple(deque() for _ in range(_RANKS)))

    def __len__(self) -> int:
        return sum(len(rank) for rank in self.ranks)

    def units_before(self, rank: int) -> int:
        """The work that a newcomer of that rank waits for."""
        return sum(asked.units for one in self.ranks[: rank + 1] for asked in one)

    def first(self) -> deque[Asked]:
        """Whose head is next."""
        return next(rank for rank in self.ranks if rank)


class Lines:
    """All stores that wait. Every operation is O(log stores), except `ahead_of`, which is O(stores that wait)."""

    def __init__(self) -> None:
        self._lines: dict[StoreId, _Line] = {}
        """Those that wait."""
        self._ahead: dict[StoreId, float] = {}
        """Tags of those that do not wait and had more than their part: who comes back is not served first."""
        self._settles: list[tuple[float, StoreId]] = []
        """When virtual time has caught up with them, soonest first."""
        self._order: list[tuple[float, int, StoreId]] = []
        self._pushed = 0
        self._now = 0.0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[Asked]:
        return (asked for line in self._lines.values() for rank in line.ranks for asked in rank)

    def waiting_of(self, store: StoreId) -> int:
        """How many of one store wait."""
        line = self._lines.get(store)
        return len(line) if line else 0

    def put(self, asked: Asked, *, again: bool = False) -> None:
        """At the end of its line; `again`: it was taken and not answered, so it goes to the front, paid already."""
        line = self._lines.get(asked.store)
        moved = again or line is None
        if line is None:
            line = self._lines[asked.store] = _Line(max(self._now, self._ahead.pop(asked.store, 0.0)))
        if again:
            line.tag -= asked.units
            line.ranks[RANKS[asked.verb]].appendleft(asked)
        else:
            line.ranks[RANKS[asked.verb]].append(asked)
        line.units += asked.units
        self._waiting += 1
        if moved:
            self._push(asked.store, line)

    def take(self) -> Asked:
        """The next one. Raises IndexError when nobody waits."""
        while True:
            tag, _, store = self._order[0]
            line = self._lines.get(store)
            if line is not None and line.tag == tag:
                break
            heapq.heappop(self._order)
        asked = line.first().popleft()
        self._pass_time(asked.units)
        line.tag += asked.units
        self._left(asked, line)
        return asked

    def drop(self, asked: Asked) -> bool:
        """It does not wait any more; whether it did."""
        line = self._lines.get(asked.store)
        if line is None or asked not in line.ranks[RANKS[asked.verb]]:
            return False
        line.ranks[RANKS[asked.verb]].remove(asked)
        self._left(asked, line)
        return True

    def last_of_longest(self) -> Asked | None:
        """Who gives way when nobody more may wait: the newest of the lowest rank of the store that waits most."""
        if not self._lines:
            return None
        longest = max(self._lines.values(), key=len)
        return next(rank for rank in reversed(longest.ranks) if rank)[-1]

    def longest(self) -> int:
        """How many of the store that waits most."""
        return max((len(line) for line in self._lines.values()), default=0)

    def ahead_of(self, store: StoreId, verb: Verb) -> int:
        """The work that would be done before a new question of this store: its own line, and the others' turns."""
        own = self._lines.get(store)
        before = own.units_before(RANKS[verb]) if own else 0
        start = own.tag if own else max(self._now, self._ahead.get(store, 0.0))
        turn = start + before
        others = (
            min(line.units, int(turn - line.tag) + LOOK_UNITS)
            for name, line in self._lines.items()
            if name != store and line.tag <= turn
        )
        return before + sum(others)

    def oldest_s(self) -> float | None:
        """When the one came who waits longest; None when nobody waits."""
        heads = (rank[0].at_s for line in self._lines.values() for rank in line.ranks if rank)
        return min(heads, default=None)

    def _push(self, store: StoreId, line: _Line) -> None:
        self._pushed += 1
        heapq.heappush(self._order, (line.tag, self._pushed, store))

    def _left(self, asked: Asked, line: _Line) -> None:
        line.units -= asked.units
        self._waiting -= 1
        if line.units:
            self._push(asked.store, line)
            return
        del self._lines[asked.store]
        if not self._lines:
            self._forget()
        elif line.tag > self._now:
            self._ahead[asked.store] = line.tag
            heapq.heappush(self._settles, (line.tag, asked.store))

    def _pass_time(self, units: int) -> None:
        """So much work was given; those ahead of virtual time had their part of it already."""
        self._now += units / (len(self._lines) + len(self._ahead))
        while self._settles and self._settles[0][0] <= self._now:
            tag, store = heapq.heappop(self._settles)
            if self._ahead.get(store) == tag:
                del self._ahead[store]

    def _forget(self) -> None:
        """Nobody waits: what was is settled."""
        self._ahead.clear()
        self._settles.clear()
        self._order.clear()
        self._now = 0.0
