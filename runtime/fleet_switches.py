"""Kill switches in a fleet's day: each is thrown for the whole chain and lifted again, and it is timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from gateway.kill_switches import KillOrder
from models.domain.kill_switch import Scope, ScopeKind, Switch
from runtime.kill_cli import reach
from runtime.kill_switches import KillSwitchesOfAHouse
from runtime.plant import Plant

WAIT_S_MAX = 30.0
TURNS = tuple((switch, lift) for switch in Switch for lift in (False, True))


@dataclass(frozen=True, slots=True)
class Turned:
    """A switch that was thrown, or lifted: seconds until half and all of the connected terminals reported it."""

    switch: str
    lifted: bool
    connected: int
    applied: int
    p50_s: float | None
    max_s: float | None

    def document(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


async def throw_through_the_day(plant: Plant, seconds: float, turned: list[Turned], say: Callable[[str], None]) -> None:
    """Each switch in turn, evenly over `seconds`, each time from the order to the last report. Nothing stays thrown."""
    desk = KillSwitchesOfAHouse([plant])
    scope = Scope(ScopeKind.CHAIN, plant.chain)
    began = time.monotonic()
    try:
        for n, (switch, lift) in enumerate(TURNS, 1):
            await asyncio.sleep(max(0.0, began + n * seconds / (len(TURNS) + 1) - time.monotonic()))
            turned.append(await _turn(desk, switch, scope, lift=lift))
            say(f"kill {switch}{' --lift' if lift else ''}: {turned[-1].applied} terminals, {turned[-1].max_s} s")
    finally:
        for switch in Switch:
            await desk.order(KillOrder(f"fleet-over-{began}", switch, scope, "the day is over", "fleet", lift=True))


async def _turn(desk: KillSwitchesOfAHouse, switch: Switch, scope: Scope, *, lift: bool) -> Turned:
    began = time.monotonic()
    await desk.order(KillOrder(f"fleet-{began}", switch, scope, "the fleet's day", "fleet", lift=lift))
    reached = await reach(desk, switch, scope, began, WAIT_S_MAX)
    return Turned(switch, lift, reached.connected, reached.applied, reached.p50_s, reached.max_s)
