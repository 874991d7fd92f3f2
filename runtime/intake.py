"""Between the door and the engine: floods are thinned out, and money waits for what was sent before it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import structlog

from models.domain.events import Event
from models.domain.ids import derived_id
from models.domain.presence import Birth, CommandResponse, Death, GapSkipped, Reported
from runtime.door import Source
from runtime.engine import Item
from runtime.floods import Moderator, Pace, Verdict
from runtime.journal_port import Connection
from runtime.observed import address_of
from runtime.order import MONEY_EVENTS, Boot, Passed, SeqGate
from runtime.telemetry import HostCounts
from runtime.twin_port import TwinStore

log = structlog.get_logger()

_ABOUT_ITSELF: dict[type, str] = {
    Birth: "presence",
    Death: "presence",
    Reported: "reported",
    CommandResponse: "response",
}


class Database(Protocol):
    """`HostDatabase.run`."""

    def __call__(self, work: Callable[[Connection], Awaitable[list[int]]]) -> Awaitable[list[int]]: ...


class Intake:
    """Hands items on in the order in which the engine may see them. All bounded; see floods.py and order.py."""

    def __init__(self, twins: TwinStore, counts: HostCounts) -> None:
        self._twins = twins
        self._counts = counts
        self._moderator: Moderator[Item] = Moderator()
        self._pace = Pace()
        self._gate: SeqGate[Item] = SeqGate(self._gap)

    async def sort(
        self, items: Sequence[Item], now_s: float, database: Database, drop: Callable[[Item], Any]
    ) -> list[Item]:
        """What may go on now: of these, and of those that waited. `drop` acknowledges what nobody handles."""
        ready = self._moderator.due(now_s)
        ready += _marked(self._gate.due(now_s))
        await self._learn(items, database)
        for item in items:
            channel = _ABOUT_ITSELF.get(type(item.message))
            if item.key is not None:
                if self._too_fast(item, now_s):
                    drop(item)
                    continue
                event = item.message
                money = item.refuse is None and isinstance(event, Event) and isinstance(event.body, MONEY_EVENTS)
                boot = (item.key.terminal, item.key.boot)
                ready += _marked(self._gate.admit(boot, item.key.seq, money, item, now_s))
            elif channel is not None and item.terminal is not None:
                follows = isinstance(item.message, Death)
                passed, replaced = self._moderator.admit(
                    (item.terminal.terminal, channel), item, now_s, follows=follows
                )
                ready += passed
                for old in replaced:
                    self._counts.flooded += 1
                    drop(old)
            else:
                ready.append(item)
        return ready

    def wait_s(self, now_s: float) -> float:
        """Seconds until something here may go on by itself."""
        return self._gate.wait_s(now_s)

    @property
    def waiting(self) -> int:
        """Messages that are held here."""
        return self._gate.held + self._moderator.waiting

    def _too_fast(self, item: Item, now_s: float) -> bool:
        """True for an event that is left to its terminal's repeat. One that is refused for speed is marked."""
        event = item.message
        if not isinstance(event, Event) or item.refuse is not None:
            return False
        verdict = self._pace.judge(event.terminal, event.body, now_s, replay=event.replay)
        if verdict is Verdict.GO:
            return False
        self._counts.too_fast += 1
        asked_by_us = isinstance(item.source, Source) and item.source.inbound is None  # somebody waits for its reply
        if verdict is Verdict.LEAVE and not asked_by_us:
            return True
        item.refuse = "too_fast"
        return False

    async def _learn(self, items: Sequence[Item], database: Database) -> None:
        """Boots that this host has not seen: one question for all, so that a restart costs one round trip a batch."""
        strangers: dict[Boot, int] = {}
        for item in items:
            key = item.key
            if key is not None and self._gate.unknown((key.terminal, key.boot), key.seq):
                strangers.setdefault((key.terminal, key.boot), key.seq)
        if strangers:
            before = [(*boot, seq) for boot, seq in strangers.items()]
            newest = await database(lambda conn: self._twins.newest_seqs(conn, before))
            for boot, seq in zip(strangers, newest, strict=True):
                self._gate.learn(boot, seq)

    def _gap(self, boot: Boot, after: int, seq: int) -> None:
        self._counts.seq_gaps += 1
        log.info("seq_gap", terminal=boot[0], after=after, seq=seq)


def _marked(passed: Sequence[Passed[Item]]) -> list[Item]:
    """A money event that went over a gap leaves a mark at its terminal, durable with it or soon after."""
    items: list[Item] = []
    for one in passed:
        items.append(one.item)
        if one.skipped is not None and one.item.terminal is not None and one.item.key is not None:
            key, record = one.item.key, one.item.terminal
            log.warning("seq_gap_skipped", terminal=record.terminal, first=one.skipped.first, seq=key.seq)
            mark = GapSkipped(key.boot, one.skipped.first, one.skipped.last, key.id)
            cause = derived_id(key.id, f"gap:{record.terminal}:{time.time_ns()}")
            items.append(Item(address_of(record), mark, cause, terminal=record))
    return items
