"""The drawers' desk of a house that runs: each store's drawers lie in its own region's database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.drawers import Drawer, ShiftReport
from models.domain.drawers import MoveKind
from models.domain.errors import Refused
from runtime.drawers import DrawersOfADatabase
from runtime.plant import Plant

CONNECTIONS_MAX = 4


class DrawersOfAHouse:
    """See gateway.drawers.Drawers. Belongs to one event loop; `aclose` ends its connections."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self._urls = list(dict.fromkeys(plant.database_url for plant in plants))
        self._pools: dict[str, AsyncConnectionPool[AsyncConnection[Any]]] = {}

    async def drawers(self, store: str) -> Sequence[Drawer]:
        return await (await self._of(store)).drawers(store)

    async def open_shift(self, number: str, store: str, drawer: str, float_fen: int, by: str) -> ShiftReport:
        return await (await self._of(store)).open_shift(number, store, drawer, float_fen, by)

    async def move(
        self, number: str, store: str, drawer: str, kind: MoveKind, fen: int, reason: str, by: str
    ) -> ShiftReport:
        return await (await self._of(store)).move(number, store, drawer, kind, fen, reason, by)

    async def count(self, number: str, store: str, drawer: str, counted_fen: int, by: str) -> ShiftReport:
        return await (await self._of(store)).count(number, store, drawer, counted_fen, by)

    async def hand_over(self, number: str, store: str, drawer: str, by: str) -> ShiftReport:
        return await (await self._of(store)).hand_over(number, store, drawer, by)

    async def close(self, number: str, store: str, drawer: str, by: str) -> ShiftReport:
        return await (await self._of(store)).close(number, store, drawer, by)

    async def report(self, shift: str) -> ShiftReport:
        found = await self._database_with("SELECT 1 FROM drawer_shift WHERE id = %s", shift)
        if found is None:
            raise Refused("unknown_shift", f"no shift {shift!r}", "see the store's shifts")
        return await found.report(shift)

    async def reports(self, store: str, *, day: str = "", drawer: str = "", limit: int = 50) -> Sequence[ShiftReport]:
        return await (await self._of(store)).reports(store, day=day, drawer=drawer, limit=limit)

    async def aclose(self) -> None:
        """Close all connections. The desk cannot be used afterwards."""
        for pool in self._pools.values():
            await pool.close()

    async def _of(self, store: str) -> DrawersOfADatabase:
        found = await self._database_with("SELECT 1 FROM store WHERE id = %s", store)
        if found is None:
            raise Refused("unknown_store", f"no store {store!r}", "see the console's list of stores")
        return found

    async def _database_with(self, question: str, key: str) -> DrawersOfADatabase | None:
        for url in self._urls:
            pool = await self._pool(url)
            async with pool.connection() as conn:
                if await (await conn.execute(question, (key,))).fetchone() is not None:
                    return DrawersOfADatabase(pool)
        return None

    async def _pool(self, url: str) -> AsyncConnectionPool[AsyncConnection[Any]]:
        if url not in self._pools:
            pool = self._pools[url] = AsyncConnectionPool[AsyncConnection[Any]](
                url, min_size=0, max_size=CONNECTIONS_MAX, open=False, check=AsyncConnectionPool.check_connection
            )
            await pool.open()
        return self._pools[url]


@asynccontextmanager
async def opened(plants: Sequence[Plant]) -> AsyncIterator[DrawersOfAHouse]:
    """The desk for one call of the command line."""
    desk = DrawersOfAHouse(plants)
    try:
        yield desk
    finally:
        await desk.aclose()
