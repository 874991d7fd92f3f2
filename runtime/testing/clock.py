"""Time under control: a clock that only moves when told, and an event loop whose waits cost nothing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from models.domain.calendar import require_instant


class ManualClock:
    """A wall clock for tests: call it for the time, `advance` it to move. It never goes back."""

    def __init__(self, now: datetime = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)) -> None:
        self._now = require_instant(now, "now")

    def __call__(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move forward; returns the new time. Raises ValueError for a negative span."""
        if by < timedelta(0):
            raise ValueError("time does not go back")
        self._now += by
        return self._now


class StuckLoop(RuntimeError):
    """Every task waits for something that nobody will bring."""


class _JumpingSelector(selectors.BaseSelector):
    """Instead of waiting for `timeout`, the loop's clock jumps by it."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready:
            if timeout is None:
                raise StuckLoop("no timer, no message: nothing can happen any more")
            self.now_s += max(0.0, timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time: one thread, no waiting, the same order of steps in every run."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


async def let_pass(seconds: float) -> None:
    """Let virtual time pass, which costs nothing. On a loop of the real world it would be a guess: refused."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop), "virtual time only"
    await asyncio.sleep(seconds)
