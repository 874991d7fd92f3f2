"""A terminal that talks too much about itself costs no more than one that does not: the newest word counts.

Presence, reports and answers are states, not events: what a newer one replaces needs no turn and no commit. Over its
rate a terminal's newest messages wait; what they replace is acknowledged and counted. No await, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from models.domain.ids import TerminalId

BURST_MESSAGES_MAX = 40
"""A wild hour of a flapping link, and all the answers that 8 commands may have."""
RATE_PER_S = 1.0
PEERS_REMEMBERED_MAX = 100_000

T = TypeVar("T")
Peer = tuple[TerminalId, str]


@dataclass(slots=True)
class _Bucket(Generic[T]):
    tokens: float
    at_s: float
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
        if not bucket.waiting and self._take(bucket, now_s):
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
            if self._take(bucket, now_s):
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
            bucket = self._buckets[peer] = _Bucket(BURST_MESSAGES_MAX, now_s)
            if len(self._buckets) > PEERS_REMEMBERED_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(peer)
        return bucket

    @staticmethod
    def _take(bucket: _Bucket[T], now_s: float) -> bool:
        bucket.tokens = min(BURST_MESSAGES_MAX, bucket.tokens + (now_s - bucket.at_s) * RATE_PER_S)
        bucket.at_s = now_s
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
