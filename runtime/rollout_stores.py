"""What a rollout changes for whole stores: settings that hosts read, and the version of the book.

An order to a store is one transaction: the store's live layer or its pin, and the generation that its terminals'
documents are to show. It is carried out only while the rollout's journal is as long as it was when the order was
decided, so none of an earlier tick can come late. Then the host is told to look; should nobody tell it, it looks by
itself within seconds. Hosts act by what they read and give their terminals new documents after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from psycopg import AsyncConnection

from actors.hosts import Hosts
from actors.rollout_effects import Activate
from actors.rollout_work import Order
from models.domain.chain_settings import Level
from models.domain.errors import Refused, RetryLater
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.rollout import Artefact, Observed
from models.domain.rollout_journal import Rollout
from models.domain.rollout_part import BOOKS, layer_change, store_part
from models.domain.rollout_plan import PlannedStore
from models.tables import store_books
from models.tables.config_layers import LayerChange, change_layer
from models.tables.rollout_sight import Twin
from models.tables.rollouts import stands_at
from models.tables.store_books import StoreSight
from runtime.orders import refresh
from runtime.rollout_databases import AWAY, Databases

log = structlog.get_logger()

STORES_AT_ONCE_MAX = 64


def seen_by_store(
    artefact: Artefact,
    stores: Iterable[PlannedStore],
    seen: Mapping[TerminalId, Observed],
    twins: Mapping[TerminalId, Twin],
    whole: Mapping[StoreId, StoreSight],
) -> dict[TerminalId, Observed]:
    """Terminals whose part is their store's. Until its host has read that, a terminal's next document is still to come,
    and counts as the generation after the present one."""
    found: dict[TerminalId, Observed] = {}
    for store in stores:
        sight = whole.get(store.store)
        if sight is None:
            continue
        part = store_part(artefact, sight.version, sight.layer)
        for target in store.targets:
            if (one := seen.get(target.terminal)) is not None:
                behind = twins[target.terminal].store_gen < sight.gen
                found[target.terminal] = replace(one, gen=one.gen + behind, part=part)
    return found


class StoreOrders:
    """Carries out the orders of one tick that are for whole stores."""

    def __init__(self, databases: Databases, hosts: Hosts) -> None:
        self._databases, self._hosts = databases, hosts

    async def give(
        self, rollout: Rollout, orders: Iterable[Order], regions: Mapping[TerminalId, RegionId], now: datetime
    ) -> tuple[int, int]:
        """How many stores were changed, and how many orders were refused. A region that is away is asked next time."""
        by_region: dict[RegionId, dict[StoreId, Order]] = {}
        for one in orders:
            by_region.setdefault(regions[one.target], {}).setdefault(one.store, one)
        given = refused = 0
        for region, stores in by_region.items():
            wanted = list(stores.values())
            for n in range(0, len(wanted), STORES_AT_ONCE_MAX):
                some = wanted[n : n + STORES_AT_ONCE_MAX]
                try:
                    left = await self._change(rollout, region, some, now)
                except AWAY as error:
                    log.warning("rollout_region_away", regions=[region], error=str(error))
                    break
                given, refused = given + len(some) - left, refused + left
                await self._tell(region, some)
        return given, refused

    async def _change(self, rollout: Rollout, region: RegionId, orders: Sequence[Order], now: datetime) -> int:
        """In one transaction that holds the journal; returns how many were refused."""
        url = self._databases.database_of(region)
        async with self._databases.at() as home, home.transaction():
            if not await stands_at(home, rollout.id, rollout.entries):
                return len(orders)
            if url == self._databases.home:
                return await _carry_out(home, rollout, region, orders, now)
            async with self._databases.at(url) as conn, conn.transaction():
                return await _carry_out(conn, rollout, region, orders, now)

    async def _tell(self, region: RegionId, orders: Sequence[Order]) -> None:
        """Hosts look within a second instead of five; whoever is not there looks when it is."""
        try:
            await self._hosts.deliver(region, [refresh(one.target) for one in orders])
        except (Refused, RetryLater) as error:
            log.info("rollout_hosts_not_told", region=region, code=error.code)


async def _carry_out(
    conn: AsyncConnection[Any], rollout: Rollout, region: RegionId, orders: Sequence[Order], now: datetime
) -> int:
    refused = 0
    for one in orders:
        try:
            async with conn.transaction():
                await _one(conn, rollout, region, one, now)
        except Refused as error:
            refused += 1
            log.warning("rollout_order_refused", rollout=rollout.id, store=one.store, code=error.code)
    return refused


async def _one(conn: AsyncConnection[Any], rollout: Rollout, region: RegionId, wanted: Order, now: datetime) -> None:
    assert not isinstance(wanted, Activate), "no artefact of a whole store is activated"
    artefact, chain, store = rollout.artefact, rollout.chain, wanted.store
    if artefact.kind in BOOKS:
        await store_books.pin(conn, chain, store, int(wanted.part))
        return
    patch, forget = layer_change(artefact, wanted.part)
    by, reason = f"rollout {rollout.id}", f"{artefact.key} {artefact.version}"
    asked = LayerChange(chain, Level.STORE, store, region, patch, by, reason, forget)
    await change_layer(conn, asked, now)
    await store_books.mark_changed(conn, store)
