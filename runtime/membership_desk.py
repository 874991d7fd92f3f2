"""The memberships' desk of a house that runs: for the gateway and the command line, made from its plants.

Each region's memberships lie in its own database and are settled with its own merchant accounts; an id says neither,
so the desk looks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from models.domain.errors import Refused
from models.domain.events import ProviderAuth
from models.domain.membership_actions import Asked, Done, told
from runtime.membership_life import MembershipLife, Shown
from runtime.plant import Plant, Providers, choose

CONNECTIONS_MAX = 4


class MembershipsOfAHouse:
    """See gateway.memberships.MembershipDesk. Belongs to one event loop; `aclose` ends its connections."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self._plants = plants
        self._pools: dict[str, AsyncConnectionPool[AsyncConnection[Any]]] = {}
        self._providers: dict[str, Providers] = {}

    async def show(self, membership: str) -> Shown:
        """How it stands, and what was asked of it."""
        return await (await self._life_of(membership)).show(membership)

    async def known(self, number: str, membership: str) -> bool:
        """Whether this number was asked for before."""
        return await (await self._life_of(membership)).known(number)

    async def foresee(self, membership: str, asked: Asked) -> Mapping[str, Any]:
        """What would happen now; nothing does."""
        return told(await (await self._life_of(membership)).foresee(membership, asked))

    async def do(
        self, number: str, membership: str, asked: Asked, *, by: str, auth: ProviderAuth | None = None
    ) -> Done:
        """Do it, once under this number."""
        return await (await self._life_of(membership)).do(number, membership, asked, by=by, auth=auth)

    async def aclose(self) -> None:
        """Close all connections. The desk cannot be used afterwards."""
        for providers in self._providers.values():
            await providers.aclose()
        for pool in self._pools.values():
            await pool.close()

    async def _life_of(self, membership: str) -> MembershipLife:
        for url in dict.fromkeys(plant.database_url for plant in self._plants):
            pool = await self._pool(url)
            async with pool.connection() as conn:
                row = await (
                    await conn.execute("SELECT region FROM membership WHERE id = %s", (membership,))
                ).fetchone()
            if row is not None:
                plant = choose([one for one in self._plants if one.database_url == url], row[0])
                providers = self._providers.setdefault(plant.region, Providers(plant))
                return MembershipLife(pool, providers)
        raise Refused("unknown_membership", f"there is no membership {membership!r}", "look it up in the console")

    async def _pool(self, url: str) -> AsyncConnectionPool[AsyncConnection[Any]]:
        if url not in self._pools:
            pool = AsyncConnectionPool[AsyncConnection[Any]](
                url, min_size=0, max_size=CONNECTIONS_MAX, open=False, check=AsyncConnectionPool.check_connection
            )
            await pool.open()
            self._pools[url] = pool
        return self._pools[url]


@asynccontextmanager
async def opened(plants: Sequence[Plant]) -> AsyncIterator[MembershipsOfAHouse]:
    """The desk for one call of the command line."""
    desk = MembershipsOfAHouse(plants)
    try:
        yield desk
    finally:
        await desk.aclose()
