"""A terminal that talks too much costs no more than one that does not.

Presence, reports and answers are states, not events: what a newer one replaces needs no turn and no commit. Over its
rate a terminal's newest messages wait; what they replace is acknowledged and counted. Events have a rate each terminal
may keep; above it one a second is refused, the rest is left to the terminal's repeat. No await, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from models.domain.events import Cancel, OfflineSale, Paid, Return, Void
from models.domain.ids import TerminalId

BURST_MESSAGES_MAX = 40
"""A wild hour of a flapping link, and all the answers that 8 commands may have."""
RATE_PER_S = 1.0
PEERS_REMEMBERED_MAX = 100_000

EVENTS_BURST_MAX = 200
EVENTS_PER_S = 50.0
"""Of one terminal, faces among them: five times what a till with a scanner does at its fastest."""
MONEY_EVENTS_BURST_MAX = 400
MONEY_EVENTS_PER_S = 100.0
"""The second bound, for what is never refused for speed below it."""
TOO_FAST_TOLD_EVERY_S = 1.0

UNHURRIED = (Paid, OfflineSale, Cancel, Return, Void)
"""Event bodies that are held against the second bound only: money was taken, or must go back."""

T = TypeVar("T")
Peer = tuple[TerminalId, str]


@dataclass(slots=True)
class Tokens:
    """A token bucket: `left` as of `at_s`."""

    left: float
    at_s: float

    def take(self, now_s: float, per_s: float, burst_max: float) -> bool:
        """True when there was one."""
        self.left = min(burst_max, self.left + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class _Bucket(Generic[T]):
    tokens: Tokens
    waiting: list[tuple[bool, T]] = field(default_factory=list)


class Moderator(Generic[T]):
    """A token bucket for each terminal and channel, with room for the newest messages."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Peer, _Bucket[T]] = OrderedDict()
        self._waiting: dict[Peer, _Bucket[T]] = {}

    def admit(self, peer: Peer, item: T, now_s: float, *, follows: bool = False) -> tuple[list[T], list[T]]:
        """What goes on now, and what is replaced by it for ever.

        `follows`: the message means nothing without the one before it (a Will without its birth), which is kept.
        """
        bucket = self._bucket(peer, now_s)
        if not bucket.waiting and bucket.tokens.take(now_s, RATE_PER_S, BURST_MESSAGES_MAX):
            return [item], []
        kept = [entry for entry in bucket.waiting if follows and not entry[0]]
        replaced = [entry[1] for entry in bucket.waiting if entry not in kept]
        bucket.waiting = [*kept, (follows, item)]
        self._waiting[peer] = bucket
        return [], replaced

    def due(self, now_s: float) -> list[T]:
        """What has waited until its terminal may speak again."""
        passed: list[T] = []
        for peer, bucket in list(self._waiting.items()):
            if bucket.tokens.take(now_s, RATE_PER_S, BURST_MESSAGES_MAX):
                passed += [item for _, item in bucket.waiting]
                bucket.waiting = []
                del self._waiting[peer]
        return passed

    @property
    def waiting(self) -> int:
        """Terminals that are over their rate."""
        return len(self._waiting)

    def _bucket(self, peer: Peer, now_s: float) -> _Bucket[T]:
        bucket = self._buckets.get(peer)
        if bucket is None:
            bucket = self._buckets[peer] = _Bucket(Tokens(BURST_MESSAGES_MAX, now_s))
            if len(self._buckets) > PEERS_REMEMBERED_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(peer)
        return bucket


class Verdict(Enum):
    """What becomes of an event."""

    GO = auto()
    TELL = auto()
    """Too fast: refused, and the terminal is told."""
    LEAVE = auto()
    """Too fast, and it was told a moment ago or may not be refused: left to the terminal's repeat."""


@dataclass(slots=True)
class _Speed:
    events: Tokens
    money: Tokens
    told_at_s: float = float("-inf")


class Pace:
    """How fast each terminal sends events. The terminals that spoke last are remembered, PEERS_REMEMBERED_MAX."""

    def __init__(self) -> None:
        self._speeds: OrderedDict[TerminalId, _Speed] = OrderedDict()

    def judge(self, terminal: TerminalId, body: object, now_s: float, *, replay: bool = False) -> Verdict:
        """Hold one event against its terminal's rate.

        `paid` and `sale` are never refused: money was taken. Nor is what was stored offline (`replay`): a shop that
        comes back with a day's events is no flood, it only has to send some of them again.
        """
        speed = self._speeds.get(terminal)
        if speed is None:
            events, money = Tokens(EVENTS_BURST_MAX, now_s), Tokens(MONEY_EVENTS_BURST_MAX, now_s)
            speed = self._speeds[terminal] = _Speed(events, money)
            if len(self._speeds) > PEERS_REMEMBERED_MAX:
                self._speeds.popitem(last=False)
        self._speeds.move_to_end(terminal)
        if isinstance(body, UNHURRIED):
            goes = speed.money.take(now_s, MONEY_EVENTS_PER_S, MONEY_EVENTS_BURST_MAX)
        else:
            goes = speed.events.take(now_s, EVENTS_PER_S, EVENTS_BURST_MAX)
        if goes:
            return Verdict.GO
        if replay or isinstance(body, Paid | OfflineSale) or now_s - speed.told_at_s < TOO_FAST_TOLD_EVERY_S:
            return Verdict.LEAVE
        speed.told_at_s = now_s
        return Verdict.TELL
