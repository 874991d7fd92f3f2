"""Time under control."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from runtime.testing.clock import ManualClock, StuckLoop, VirtualLoop


def test_a_manual_clock_moves_only_when_told_and_never_back() -> None:
    clock = ManualClock()
    before = clock()
    assert clock() == before
    assert clock.advance(timedelta(hours=1)) == before + timedelta(hours=1) == clock()
    with pytest.raises(ValueError, match="back"):
        clock.advance(timedelta(seconds=-1))


def test_a_virtual_loop_jumps_over_every_wait_in_order() -> None:
    seen: list[tuple[float, str]] = []

    async def wait(name: str, *spans_s: float) -> None:
        for span_s in spans_s:
            await asyncio.sleep(span_s)  # virtual: costs nothing
            seen.append((asyncio.get_running_loop().time(), name))

    async def main() -> None:
        await asyncio.gather(wait("a", 3600.0, 1.0), wait("b", 3600.5))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400):
                await asyncio.Event().wait()
        seen.append((asyncio.get_running_loop().time(), "end"))

    loop = VirtualLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert seen == [(3600.0, "a"), (3600.5, "b"), (3601.0, "a"), (90_001.0, "end")]


def test_who_waits_for_nothing_is_found_out() -> None:
    loop = VirtualLoop()
    try:
        with pytest.raises(StuckLoop):
            loop.run_until_complete(asyncio.Event().wait())
    finally:
        loop.close()
