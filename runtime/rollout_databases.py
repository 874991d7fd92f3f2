"""The databases of a chain as its rollouts see them: one home, and one for each group of regions that shares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import structlog
from psycopg import AsyncConnection, OperationalError
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from models.domain.evidence import MetricId
from models.domain.ids import ChainId, MessageId, RegionId, StoreId, TerminalId
from models.domain.rollout import Site
from models.tables.evidence import Days, read_days
from models.tables.rollout_sight import CommandAnswer, Twin, load_answers, load_sites, load_twins
from models.tables.store_books import StoreSight, load_store_sights
from runtime.plant import Plant, open_pool

log = structlog.get_logger()

CONNECT_S_MAX = 5.0
AWAY = (OperationalError, PoolTimeout)


class Databases:
    """The databases of a chain: the home, where its rollouts are written, is the first region's."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self.chain = plants[0].chain
        self._pools: dict[str, AsyncConnectionPool[AsyncConnection[Any]]] = {}
        self.regions: dict[str, list[RegionId]] = {}
        for plant in plants:
            self.regions.setdefault(plant.database_url, []).append(plant.region)
            if plant.database_url not in self._pools:
                self._pools[plant.database_url] = open_pool(plant, 2)
        self.home = plants[0].database_url

    async def open(self) -> None:
        """Connections follow in the background: a database that is away is waited for by who asks it."""
        for pool in self._pools.values():
            await pool.open()

    async def close(self) -> None:
        """All of them."""
        for pool in self._pools.values():
            await pool.close()

    def at(self, url: str | None = None) -> Any:
        """A connection as an async context: of the home, or of a named database. Raises PoolTimeout after 5 s."""
        return self._pools[url or self.home].connection(CONNECT_S_MAX)

    async def sites(self, chain: ChainId) -> tuple[list[Site], list[RegionId]]:
        """Stores of every database that answers, and the regions of those that do not."""
        found: list[Site] = []
        away: list[RegionId] = []
        for url, regions in self.regions.items():
            try:
                async with self.at(url) as conn:
                    found += await load_sites(conn, chain, regions)
            except AWAY:
                away += regions
        return found, away

    async def twins(self, stores: Mapping[RegionId, Sequence[StoreId]]) -> dict[TerminalId, Twin]:
        """Of these stores; a database that is away shows none of its terminals, so that they count as offline."""
        found: dict[TerminalId, Twin] = {}
        for url, regions in self.regions.items():
            wanted = [store for region in regions for store in stores.get(region, ())]
            if not wanted:
                continue
            try:
                async with self.at(url) as conn:
                    found |= await load_twins(conn, regions, wanted)
            except AWAY as error:
                log.warning("rollout_region_away", regions=regions, error=str(error))
        return found

    def database_of(self, region: RegionId) -> str:
        """Where a region's stores are."""
        return next(url for url, regions in self.regions.items() if region in regions)

    async def store_sights(self, stores: Mapping[RegionId, Sequence[StoreId]]) -> dict[StoreId, StoreSight]:
        """Of these stores; one whose database is away is missing. Ask after the twins: what their hosts had read by
        then must not be newer than what is found here."""
        found: dict[StoreId, StoreSight] = {}
        for url, regions in self.regions.items():
            wanted = [store for region in regions for store in stores.get(region, ())]
            if not wanted:
                continue
            try:
                async with self.at(url) as conn:
                    found |= await load_store_sights(conn, self.chain, wanted)
            except AWAY as error:
                log.warning("rollout_region_away", regions=regions, error=str(error))
        return found

    async def days(self, metric: MetricId, stores: Sequence[StoreId], since: date, until: date) -> Days:
        """A metric of stores, each from the database that has it. Raises what a database raises that is away."""
        found: Days = dict.fromkeys(stores, ())
        for url in self.regions:
            async with self.at(url) as conn:
                found |= {
                    one: days for one, days in (await read_days(conn, metric, stores, since, until)).items() if days
                }
        return found

    async def answers(self, commands: Mapping[RegionId, Sequence[MessageId]]) -> dict[MessageId, CommandAnswer]:
        """What became of these commands, asked where their terminals stand."""
        found: dict[MessageId, CommandAnswer] = {}
        for url, regions in self.regions.items():
            wanted = [one for region in regions for one in commands.get(region, ())]
            if not wanted:
                continue
            try:
                async with self.at(url) as conn:
                    found |= await load_answers(conn, wanted)
            except AWAY as error:
                log.warning("rollout_region_away", regions=regions, error=str(error))
        return found
