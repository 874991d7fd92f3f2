"""Kill switches over the databases of a deployment: durable in each, told per region where one is away.

Nobody is called: every host looks at its database each second, so what is committed here is in force within two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection, OperationalError

from gateway.kill_switches import DatabaseOutcome, KillOrder, KillOutcome, ThrownSwitch
from models.domain.errors import Refused, RetryLater
from models.domain.ids import ChainId, RegionId, StoreId, derived_id
from models.domain.kill_switch import KillSwitch, Place, Scope, ScopeKind, Switch, require_order
from models.tables import kill_switches as table
from models.tables.kill_switches import Applied
from runtime.clock import wall_now
from runtime.plant import Plant

CONNECT_S_MAX = 5
AWAY_DO = "run the same again when it is back: what is done stays done"


class KillSwitchesOfAHouse:
    """See gateway.kill_switches.KillSwitches. Keeps no connection."""

    def __init__(self, plants: Sequence[Plant], wall: Callable[[], datetime] = wall_now) -> None:
        self._plants = tuple(plants)
        self._wall = wall

    async def order(self, order: KillOrder) -> KillOutcome:
        reason = require_order(order.reason, self._wall(), None if order.lift else order.until)
        order = replace(order, reason=reason)
        databases = await self._databases(order.scope)
        outcomes = await asyncio.gather(*(self._at(url, regions, order) for url, regions in databases.items()))
        return KillOutcome(order, tuple(outcomes))

    async def _at(self, url: str, regions: tuple[str, ...], order: KillOrder) -> DatabaseOutcome:
        at = self._wall().astimezone(UTC)
        try:
            async with await _connect(url) as conn, conn.transaction():
                if order.lift:
                    _, changed = await table.lift(conn, order.switch, order.scope, order.reason, order.by, at)
                else:
                    number = derived_id(f"kill:{order.scope}:{order.switch}", order.number)
                    asked = KillSwitch(number, order.switch, order.scope, order.reason, order.by, at, order.until)
                    _, changed = await table.throw(conn, asked)
                stores = await table.stores_in(conn, order.scope)
        except OperationalError as error:
            return DatabaseOutcome(regions, code="database_away", message=str(error).strip(), do=AWAY_DO)
        return DatabaseOutcome(regions, changed, stores)

    @asynccontextmanager
    async def watch(self, switch: Switch, scope: Scope) -> AsyncIterator[Callable[[], Awaitable[Applied]]]:
        """Asked again and again: terminals of the scope, connected ones, and those whose reported document agrees with
        what stands. A database that is away counts none.
        """
        async with AsyncExitStack() as open_ones:
            connections = []
            for url in await self._databases(scope):
                with suppress(OperationalError):
                    connections.append(await open_ones.enter_async_context(await _connect(url)))

            async def look() -> Applied:
                found = []
                for conn in connections:
                    with suppress(OperationalError):
                        found.append(await table.applied(conn, switch, scope, self._wall()))
                sums = (sum(getattr(one, name) for one in found) for name in ("terminals", "connected", "applied"))
                return Applied(*sums)

            yield look

    async def switches(self, *, limit: int = 50) -> Sequence[ThrownSwitch]:
        found: dict[tuple[str, str, str], ThrownSwitch] = {}
        now = self._wall()
        for url, regions in self._by_url(self._plants).items():
            try:
                async with await _connect(url) as conn:
                    for one in await table.list_switches(conn, limit):
                        shown = ThrownSwitch(one, one.in_force(now), regions)
                        if shown.standing:
                            far = await table.applied(conn, one.switch, one.scope, now)
                            shown = replace(
                                shown, terminals=far.terminals, connected=far.connected, applied=far.applied
                            )
                        key = (one.id, str(one.lifted_at), str(one.until))
                        found[key] = shown if key not in found else _together(found[key], shown)
            except OperationalError:
                continue
        shown_first = sorted(found.values(), key=lambda one: (one.standing, one.thrown.at), reverse=True)
        return shown_first[:limit]

    async def of_store(self, store: str) -> Sequence[KillSwitch]:
        now = self._wall()
        for url in self._by_url(self._plants):
            async with await _connect(url) as conn:
                row = await (await conn.execute("SELECT chain, region FROM store WHERE id = %s", (store,))).fetchone()
                if row is None:
                    continue
                place = Place(ChainId(row[0]), RegionId(row[1]), StoreId(store))
                standing = await table.load_standing(conn)
            return [one for one in standing if one.in_force(now) and place.within(one.scope)]
        raise Refused("unknown_store", f"no store {store!r}", "see the console's list of stores")

    # ------------------------------------------------------------ where a scope's stores are

    async def _databases(self, scope: Scope) -> dict[str, tuple[str, ...]]:
        """Database -> its regions within the scope."""
        plants = self._plants
        names: list[str]
        match scope.kind:
            case ScopeKind.CHAIN:
                chosen = [plant for plant in plants if plant.chain == scope.name]
                names = sorted({str(plant.chain) for plant in plants})
            case ScopeKind.REGION:
                chosen = [plant for plant in plants if plant.region == scope.name]
                names = sorted({str(plant.region) for plant in plants})
            case ScopeKind.STORE:
                chosen, names = await self._plants_with(scope.name), ["see the console's list of stores"]
        if not chosen:
            raise Refused(
                f"unknown_{scope.kind}", f"no {scope.kind} {scope.name!r} here", f"one of: {', '.join(names)}"
            )
        return self._by_url(chosen)

    async def _plants_with(self, store: str) -> list[Plant]:
        """One, or none. Raises RetryLater when a database that may have the store is away."""
        away: list[str] = []
        for url, regions in self._by_url(self._plants).items():
            try:
                async with await _connect(url) as conn:
                    row = await (await conn.execute("SELECT region FROM store WHERE id = %s", (store,))).fetchone()
            except OperationalError:
                away += regions
                continue
            if row is not None:
                return [plant for plant in self._plants if plant.database_url == url and plant.region == row[0]]
        if away:
            raise RetryLater("database_away", f"the database of {', '.join(away)} does not answer", AWAY_DO)
        return []

    @staticmethod
    def _by_url(plants: Sequence[Plant]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for plant in plants:
            found[plant.database_url] = (*found.get(plant.database_url, ()), plant.region)
        return found


def _together(one: ThrownSwitch, other: ThrownSwitch) -> ThrownSwitch:
    return replace(
        one,
        regions=one.regions + other.regions,
        terminals=one.terminals + other.terminals,
        connected=one.connected + other.connected,
        applied=one.applied + other.applied,
    )


async def _connect(url: str) -> AsyncConnection[Any]:
    return await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_S_MAX)
