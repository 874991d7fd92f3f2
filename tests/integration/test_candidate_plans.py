"""A plan's next version on its way: sold only where it is pinned, and nobody's membership changes under them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import PlanId
from models.tables.chain_books import save_book
from models.tables.plans import latest_plan
from models.tables.store_books import make_current, pin
from runtime.plant import Plant
from runtime.rollout_books import candidate_of_plans, candidate_of_version
from runtime.rollout_databases import Databases
from tests.integration.money_shop import CHAIN, FRANCHISED, OWN, PLAN, REGION, Shop, open_shop, running_simulator

pytestmark = pytest.mark.integration

NEXT: dict[str, Any] = PLAN | {"version": 2, "fee_fen": 1200}


async def sold(shop: Shop) -> dict[str, int]:
    """The version that each store sells."""
    found = {}
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        for store in (OWN, FRANCHISED, ""):
            plan = await latest_plan(cur, CHAIN, PlanId("light-10"), store)
            assert plan is not None
            found[store] = plan.version
    return found


@pytest.fixture
async def shop(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    with running_simulator(tmp_path) as simulator:
        async with open_shop(migrated_database_url, simulator) as opened:
            yield opened


async def test_a_candidate_is_sold_where_it_is_pinned_and_members_keep_what_they_were_sold(shop: Shop) -> None:
    document: dict[str, Any] = {"plans": [PLAN], "consents": []}
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        assert await save_book(cur, CHAIN, document, [], shop.clock.now) == 1
    databases = Databases([Plant(Path("/nowhere"), CHAIN, REGION, database_url=str(shop.pool.conninfo))])
    await databases.open()
    try:
        with pytest.raises(NeedsOperator):
            await candidate_of_plans(databases, [PLAN | {"fee_fen": 1}])
        with pytest.raises(Refused) as nothing:
            await candidate_of_plans(databases, [PLAN])
        assert nothing.value.code == "nothing_changes"
        artefact = await candidate_of_plans(databases, [NEXT])
        assert (artefact.key, artefact.version, artefact.fallback) == ("book", "2", "1")
        assert await candidate_of_plans(databases, [NEXT]) == artefact == await candidate_of_version(databases, 2)
    finally:
        await databases.close()
    assert await sold(shop) == {OWN: 1, FRANCHISED: 1, "": 1}
    before = await shop.member("before")
    async with shop.pool.connection() as conn:
        await pin(conn, CHAIN, OWN, 2)
    assert await sold(shop) == {OWN: 2, FRANCHISED: 1, "": 1}
    meanwhile = await shop.member("meanwhile")
    async with shop.pool.connection() as conn:
        assert await make_current(conn, CHAIN, 1, 2, [OWN, FRANCHISED])
    assert await sold(shop) == {OWN: 2, FRANCHISED: 1, "": 2}, "who was not reached sells what it sold"
    versions = {one: (await shop.membership(one))["plan_version"] for one in (before, meanwhile)}
    assert versions == {before: 1, meanwhile: 2}
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        assert await save_book(cur, CHAIN, document, [], shop.clock.now) == 2, "the chain's file changes no plans now"
