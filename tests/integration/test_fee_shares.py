"""A fee that a plan shares by usage: each store's entity has its part, and a reversal takes it back from there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from models.tables.control import fee_received
from models.tables.plans import save_plan
from runtime.settlement import SettlementLimits
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    OWN,
    PLAN,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)

LATER = 40


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        async with shop.pool.connection() as conn, conn.cursor() as cur:
            await save_plan(cur, CHAIN, {**PLAN, "version": 2, "fee_shares": "usage"})
        yield shop


async def shares(shop: Shop, membership: str) -> dict[Any, int]:
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        return {share.place.store: share.fen for share in await fee_received(cur, membership)}


@pytest.mark.parametrize("plain_by_statement", [True, False])
async def test_a_shared_fee_goes_to_the_stores_and_comes_back_from_them(shop: Shop, plain_by_statement: bool) -> None:
    membership = await shop.member()
    await shop.use_coupon(membership, OWN)
    use = await shop.use_coupon(membership, FRANCHISED)
    limits = SettlementLimits(patience_s=0, plain_by_statement=plain_by_statement)
    report = await shop.settle_after(LATER, limits=limits)
    assert report.ok
    assert report.totals.captured_fen == 1000
    assert await shares(shop, membership) == {OWN: 500, FRANCHISED: 500}
    assert await shop.account("north", f"membership_fee_income:{FRANCHISED}") == -500
    assert await shop.account("chain", "due_to:north") == -500
    await shop.reverse(use, store=FRANCHISED)
    assert await shares(shop, membership) == {OWN: 400, FRANCHISED: 400}
    assert (await shop.settle_after(0)).ok
    assert (await shop.membership(membership))["refunded_fen"] == 200
