"""Order by `seq`: a money event waits for the messages before it, 2 s at most; nothing else waits.

MQTT keeps the order of one topic on one connection. A killed broker loses messages, and two topics (events, faces)
or a redelivery may swap them: paying for a basket before its last scan would take the wrong sum. No await, no clock:
the caller says what time it is.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from models.domain.events import Cancel, Confirm, OfflineSale, Paid, Return, Void
from models.domain.ids import TerminalId

WAIT_S_MAX = 2.0
BOOTS_REMEMBERED_MAX = 100_000
SEQS_REMEMBERED_MAX = 256
"""Of a boot, above its first gap; beyond that the oldest gap is given up."""
HELD_A_BOOT_MAX = 8
HELD_A_TERMINAL_MAX = 16
"""Boots are the terminal's to make up: with a new one for each message it must not use the room of the others."""
HELD_MAX = 1_024

MONEY_EVENTS = (Confirm, Paid, Cancel, Void, Return, OfflineSale)
"""Event bodies that move money or end a payment."""

T = TypeVar("T")
Boot = tuple[TerminalId, str]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A gap that was given up: seqs `first`..`last` had not come."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Passed(Generic[T]):
    """A message that may go on; `skipped` marks a money event that went over a gap."""

    item: T
    skipped: Skipped | None = None


@dataclass(slots=True)
class _Held(Generic[T]):
    seq: int
    until: float
    items: list[T]


@dataclass(slots=True)
class _Line(Generic[T]):
    """What is known of one boot. Seqs up to `floor` have come or were given up."""

    floor: int
    highest: int
    seen: set[int] = field(default_factory=set)
    held: list[_Held[T]] = field(default_factory=list)


class SeqGate(Generic[T]):
    """Lets messages through in order as far as that matters. Bounded; what exceeds a bound goes on at once, marked."""

    def __init__(self, gap: Callable[[Boot, int, int], None]) -> None:
        """`gap(boot, after, seq)` is told at once of each gap, whoever waits for it or not."""
        self._gap = gap
        self._lines: OrderedDict[Boot, _Line[T]] = OrderedDict()
        self._holding: dict[Boot, _Line[T]] = {}
        self._held_of: Counter[TerminalId] = Counter()
        self.held = 0
        self.skipped = 0

    def unknown(self, boot: Boot, seq: int) -> bool:
        """True when the caller should first say, by `learn`, what came before: this host has not seen the boot."""
        return seq > 1 and boot not in self._lines

    def learn(self, boot: Boot, newest: int) -> None:
        """The newest seq of a boot that was committed before the message at hand; 0 for none."""
        self._lines.setdefault(boot, _Line(newest, newest))

    def admit(self, boot: Boot, seq: int, money: bool, item: T, now_s: float) -> list[Passed[T]]:
        """What may go on now, in order: this message, those that waited for it, or nothing yet."""
        line = self._line(boot)
        if seq > line.highest + 1:
            self._gap(boot, line.highest, seq)
        line.highest = max(line.highest, seq)
        again = next((held for held in line.held if held.seq == seq), None)
        if again is not None and len(again.items) < HELD_A_BOOT_MAX:
            again.items.append(item)  # a duplicate must not overtake what it repeats
            return []
        waits = money and seq > line.floor + 1 and seq not in line.seen
        if seq > line.floor:
            line.seen.add(seq)
        self._settle(line)
        if not waits or seq <= line.floor:
            return [Passed(item), *self._released(boot, line)]
        much = len(line.held) >= HELD_A_BOOT_MAX or self._held_of[boot[0]] >= HELD_A_TERMINAL_MAX
        if much or self.held >= HELD_MAX:
            return self._give_up(boot, line, _Held(seq, now_s, [item]))
        line.held.append(_Held(seq, now_s + WAIT_S_MAX, [item]))
        line.held.sort(key=lambda held: held.seq)
        self._holding[boot] = line
        self._count(boot, 1)
        return []

    def due(self, now_s: float) -> list[Passed[T]]:
        """What has waited long enough: its gap is given up for this boot, once."""
        passed: list[Passed[T]] = []
        for boot, line in list(self._holding.items()):
            while line.held and any(held.until <= now_s for held in line.held):
                held = line.held.pop(0)  # whoever is behind it waits for it too, and goes after it
                self._count(boot, -1)
                passed += self._give_up(boot, line, held)
        return passed

    def wait_s(self, now_s: float) -> float:
        """Seconds until something is due; infinite when nothing waits."""
        untils = [held.until for line in self._holding.values() for held in line.held]
        return max(0.0, min(untils) - now_s) if untils else float("inf")

    def _count(self, boot: Boot, more: int) -> None:
        self.held += more
        self._held_of[boot[0]] += more
        if not self._held_of[boot[0]]:
            del self._held_of[boot[0]]

    def _line(self, boot: Boot) -> _Line[T]:
        line = self._lines.get(boot)
        if line is None:
            line = self._lines[boot] = _Line(0, 0)
        self._lines.move_to_end(boot)
        while len(self._lines) > BOOTS_REMEMBERED_MAX:
            oldest = next(iter(self._lines))
            if oldest in self._holding:
                self._lines.move_to_end(oldest)
                break
            del self._lines[oldest]
        return line

    def _settle(self, line: _Line[T]) -> None:
        if len(line.seen) > SEQS_REMEMBERED_MAX:
            line.floor = min(line.seen) - 1
        while line.floor + 1 in line.seen:
            line.floor += 1
            line.seen.discard(line.floor)

    def _give_up(self, boot: Boot, line: _Line[T], held: _Held[T]) -> list[Passed[T]]:
        skipped = Skipped(line.floor + 1, held.seq - 1)
        self.skipped += 1
        line.floor = max(line.floor, held.seq)
        line.seen = {seq for seq in line.seen if seq > line.floor}
        self._settle(line)
        lower = [one for one in line.held if one.seq < held.seq]  # over a bound: they go first
        line.held = line.held[len(lower) :]
        self._count(boot, -len(lower))
        first, *again = [item for one in (*lower, held) for item in one.items]
        return [Passed(first, skipped), *_passed(again), *self._released(boot, line)]

    def _released(self, boot: Boot, line: _Line[T]) -> list[Passed[T]]:
        """Those whose predecessors have all come."""
        passed: list[Passed[T]] = []
        while line.held and line.held[0].seq <= line.floor:
            passed += _passed(line.held.pop(0).items)
            self._count(boot, -1)
        if not line.held:
            self._holding.pop(boot, None)
        return passed


def _passed(items: Iterable[T]) -> list[Passed[T]]:
    return [Passed(item) for item in items]
