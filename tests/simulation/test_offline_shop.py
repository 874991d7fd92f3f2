"""Leases, offline sales and returns in the shop in a box: wherever it dies, and whoever is quicker."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from models.domain.charging import UseClass
from models.domain.plans import Plan
from runtime.testing.shop import FAIR, FOUL, ShopSimulation, Weather
from runtime.testing.visits import offline_story, race
from tests.simulation.conftest import seeds

KILLS = 12
"""Places at which the story's host dies, spread over all of them; the sweep tries each."""


async def tell(shop: ShopSimulation) -> None:
    await offline_story(shop.ours, shop.second, shop.wallet)


async def hurry(shop: ShopSimulation) -> None:
    await race(shop.ours, shop.second, shop.wallet, random.Random(f"race {shop.seed}"))


def told(plan: Plan, kill_at: int | None = None) -> ShopSimulation:
    return ShopSimulation(1, plan, kill_at=kill_at).run(tell)


@pytest.fixture(scope="module")
def undisturbed(plan: Plan) -> ShopSimulation:
    return told(plan)


def sales(shop: ShopSimulation) -> list[tuple[str, int, int, int, bool]]:
    """Till transaction, due, discount, what went back, whether it was made offline."""
    back = dict.fromkeys(shop.database.sales, 0)
    for one in shop.database.returns.values():
        back[one.sale] += sum(tender.fen for tender in one.tenders)
    return sorted(
        (sale.till_txn, sale.due_fen, sale.discount_fen, back[sale.id], sale.received_at is not None)
        for sale in shop.database.sales.values()
    )


def test_the_story_undisturbed(undisturbed: ShopSimulation) -> None:
    # Of the two teas for 24.00 less their 6.00 of the coupon, both came back; one of the two lanes had to wait.
    assert sales(undisturbed) == [
        ("", 2400, 800, 1800, False),
        ("off-1", 400, 800, 0, True),
        ("off-2", 1200, 0, 0, True),
    ]
    (lease,) = undisturbed.members.leases.values()
    assert (lease.uses, lease.used, lease.open) == (2, 1, False)
    (row,) = undisturbed.members.rows.values()
    assert row.used_fen == 800 + 200, "the leased coupon, and what the beer kept of the other"
    assert {line.use_class for line in undisturbed.members.usage.values()} == {UseClass.REGULAR}
    assert [back.n for back in undisturbed.database.returns.values()] == [0, 1]


@pytest.mark.parametrize("part", range(KILLS))
def test_a_death_in_the_story(plan: Plan, undisturbed: ShopSimulation, part: int) -> None:
    """What must stand stands: each offline sale once, and never more back than was paid (the auditor)."""
    kill_at = 1 + part * (len(undisturbed.points) - 1) // (KILLS - 1)
    shop = told(plan, kill_at)
    assert len(shop.kills) == 1
    assert [one[0] for one in sales(shop) if one[4]] == ["off-1", "off-2"]


@pytest.mark.parametrize("weather", [FAIR, FOUL], ids=["fair", "foul"])
@pytest.mark.parametrize("seed", seeds(5))
def test_two_lanes_want_the_last_coupon_and_one_receipts_money(plan: Plan, weather: Weather, seed: int) -> None:
    one = replace(plan, benefits=tuple(replace(benefit, quota=1) for benefit in plan.benefits))
    shop = ShopSimulation(seed, one, weather=weather).run(hurry)
    if weather is FAIR:
        assert shop.database.returns or shop.database.voids
        assert shop.members.leases or shop.members.usage
