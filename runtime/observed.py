"""What a host observes of its terminals without a turn: how wrong their clocks are, and their losable telemetry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from models.domain.events import Event
from models.domain.ids import TerminalId, derived_id
from models.domain.messages import Address
from models.domain.presence import SkewFound
from models.domain.registry import RegisteredTerminal
from models.domain.twin import ClockSkew, observed, replayed_at
from runtime.engine import Item
from runtime.telemetry import HostCounts

SKEW_TOLD_EVERY = timedelta(minutes=1)
SKEW_NEWS_MS = 2_000
"""A smaller move of the estimate is delay of the network, not news."""
SAMPLE_EVERY = timedelta(minutes=1)
TELEMETRY_EVERY_S = 1.0
"""A terminal's telemetry above this rate is dropped."""
SAMPLES_A_FLUSH_MAX = 1_000

ADDRESS_KIND = "terminal"


def address_of(record: RegisteredTerminal) -> Address:
    """The terminal's entity."""
    return Address(record.region, record.store, ADDRESS_KIND, record.terminal)


@dataclass(slots=True)
class _Clock:
    skew: ClockSkew
    told_ms: int
    told_alarm: bool
    told_at: datetime


@dataclass(slots=True)
class _Newest:
    at: datetime
    doc: Mapping[str, Any]
    sampled_at: datetime | None = None
    stored: bool = False


class Observed:
    """One entry for each terminal of the registry that spoke; a retired one is forgotten."""

    def __init__(
        self,
        counts: HostCounts,
        wall: Callable[[], datetime],
        put: Callable[[Item], None],
        known_skew: Callable[[Address], tuple[int | None, bool]],
    ) -> None:
        """`known_skew`: what the terminal's entity already holds, so that a restart tells it nothing new."""
        self._counts = counts
        self._wall = wall
        self._put = put
        self._known_skew = known_skew
        self._clocks: dict[TerminalId, _Clock] = {}
        self._telemetry: dict[TerminalId, _Newest] = {}

    # ------------------------------------------------------------ clocks

    def event(self, record: RegisteredTerminal, event: Event) -> Event:
        """Hold an event's `ts` against its receipt. A replayed one comes back with `ts` by our clock, bounded."""
        if not event.replay:
            self.clock(record, event.ts)
            return event
        return replace(event, ts=replayed_at(event.ts, self.skew(record), self._wall()))

    def skew(self, record: RegisteredTerminal) -> timedelta:
        """How far the terminal's clock is ahead of ours, as far as we know."""
        clock = self._clocks.get(record.terminal)
        ms = self._known_skew(address_of(record))[0] if clock is None else clock.skew.ms
        return timedelta(milliseconds=ms or 0)

    def clock(self, record: RegisteredTerminal, ts: datetime) -> None:
        """One more message that was sent just now."""
        now = self._wall()
        clock = self._clocks.get(record.terminal)
        skew = observed(clock.skew if clock else None, ts, now)
        if clock is None:
            told_ms, told_alarm = self._known_skew(address_of(record))
            clock = self._clocks[record.terminal] = _Clock(skew, told_ms or 0, told_alarm, now)
            news = told_ms is None or skew.alarming != told_alarm
        else:
            clock.skew = skew
            moved = abs(skew.ms - clock.told_ms) >= SKEW_NEWS_MS and now - clock.told_at >= SKEW_TOLD_EVERY
            news = moved or skew.alarming != clock.told_alarm
        if news:
            clock.told_ms, clock.told_alarm, clock.told_at = skew.ms, skew.alarming, now
            cause = derived_id(record.terminal, f"skew:{time.time_ns()}")
            self._put(Item(address_of(record), SkewFound(skew.ms, skew.alarming), cause, terminal=record))

    # ------------------------------------------------------------ telemetry

    def telemetry(self, record: RegisteredTerminal, doc: Mapping[str, Any]) -> None:
        """Keep the newest; more than one a second is dropped and counted."""
        now = self._wall()
        newest = self._telemetry.get(record.terminal)
        if newest is None:
            self._telemetry[record.terminal] = _Newest(now, doc)
        elif (now - newest.at).total_seconds() < TELEMETRY_EVERY_S:
            self._counts.telemetry_dropped += 1
        else:
            newest.at, newest.doc, newest.stored = now, doc, False

    def samples(self) -> dict[TerminalId, Mapping[str, Any]]:
        """What is due for the table: each terminal's newest, once a minute at most; bounded for each call."""
        now = self._wall()
        due: dict[TerminalId, Mapping[str, Any]] = {}
        for terminal, newest in self._telemetry.items():
            if newest.stored or (newest.sampled_at is not None and now - newest.sampled_at < SAMPLE_EVERY):
                continue
            newest.sampled_at, newest.stored = now, True
            due[terminal] = newest.doc
            if len(due) == SAMPLES_A_FLUSH_MAX:
                break
        return due

    def forget(self, terminal: TerminalId) -> None:
        """The terminal was retired."""
        self._clocks.pop(terminal, None)
        self._telemetry.pop(terminal, None)
