"""The shop in a box. The real host, engine and actors; everything around them fails; the money is the same.

A failing seed is printed: `STOREOPS_SEED=17 pytest tests/simulation -k foul` runs it again, step by step the same.
"""

from __future__ import annotations

import pytest

from models.domain.plans import Plan
from runtime.testing.invariants import InvariantBroken
from runtime.testing.provider import Order
from runtime.testing.shop import FAIR, FOUL, ShopSimulation, Weather
from runtime.testing.visits import story
from tests.simulation.conftest import SEEDS, seeds
from tests.simulation.shops import go_shopping

SLICES = 6
"""The kill points in so many tests: a failure names its neighbourhood, and each stays inside the time limit."""


async def tell_story(shop: ShopSimulation) -> None:
    await story(shop.ours, shop.tills, shop.wallet)


def story_of(plan: Plan, kill_at: int | None = None) -> ShopSimulation:
    return ShopSimulation(1, plan, kill_at=kill_at).run(tell_story)


def in_the_books(shop: ShopSimulation) -> list[tuple[str, int, int, tuple[str, ...], bool]]:
    """The sales: till transaction, due, discount, tenders, voided."""
    return sorted(
        (
            sale.till_txn,
            sale.due_fen,
            sale.discount_fen,
            tuple(str(tender.kind) for tender in sale.tenders),
            sale.id in shop.database.voids,
        )
        for sale in shop.database.sales.values()
    )


@pytest.fixture(scope="module")
def undisturbed(plan: Plan) -> ShopSimulation:
    return story_of(plan)


def test_the_story_undisturbed(undisturbed: ShopSimulation) -> None:
    assert in_the_books(undisturbed) == [
        ("", 400, 800, ("face",), True),
        ("", 1053, 800, ("cash",), False),
        ("", 3153, 0, ("qr",), False),
        ("txn-1", 1853, 0, ("card",), False),
    ]
    (row,) = undisturbed.members.rows.values()
    assert row.used_fen == 800, "one coupon stands, the other was taken back with the voided sale"
    assert len(undisturbed.database.templates) == 1
    assert sum(order.kept_fen for order in undisturbed.provider.orders.values()) == 3153
    stages = {name.split("_", 1)[1] for name in undisturbed.points}
    assert stages >= {
        "read",
        "commit",
        "publish",
        "ack",
        "ask",
        "pay",
        "precreate",
        "refund",
        "ReserveUses",
        "PostUses",
    }


@pytest.mark.parametrize("part", range(SLICES))
def test_a_death_at_every_point_of_the_story(plan: Plan, undisturbed: ShopSimulation, part: int) -> None:
    """Between any two stages, and inside publish, ack and ask: the story ends with the same money."""
    whole = in_the_books(undisturbed)
    not_voided = [(*sale[:4], False) for sale in whole]
    for kill_at in range(1 + part, len(undisturbed.points) + 1, SLICES):
        shop = story_of(plan, kill_at)
        assert len(shop.kills) == 1
        # A death between a void and the answer to its question: the clerk is told `not now`, the sale stands.
        assert in_the_books(shop) in (whole, not_voided), shop.kills


@pytest.mark.parametrize("seed", seeds(SEEDS))
def test_foul_weather(plan: Plan, seed: int) -> None:
    ShopSimulation(seed, plan, weather=FOUL).run(go_shopping)


def test_a_seed_is_the_same_run_again(plan: Plan) -> None:
    once, again = (ShopSimulation(7, plan, weather=FOUL).run(go_shopping) for _ in range(2))
    assert once.points == again.points
    assert once.kills == again.kills
    assert list(once.database.sales) == list(again.database.sales)
    assert once.kills, "a run without a death proves little"


def test_the_weather_is_foul_enough(plan: Plan) -> None:
    """Over a few seeds everything that this is about has happened."""
    shops = [ShopSimulation(seed, plan, weather=FOUL).run(go_shopping) for seed in range(100, 106)]
    kinds = {tender.kind for shop in shops for sale in shop.database.sales.values() for tender in sale.tenders}
    assert kinds >= {"cash", "face", "code", "qr", "card"}
    assert sum(len(shop.kills) for shop in shops) > 20
    assert sum(len(shop.members.usage) for shop in shops) > 5
    assert sum(len(shop.database.voids) for shop in shops) > 2
    assert any(order.reversed or order.closed for shop in shops for order in shop.provider.orders.values())
    assert any(sale.suspense_fen for shop in shops for sale in shop.database.sales.values())
    assert sum(len(shop.database.returns) for shop in shops) > 2
    assert sum(lease.used for shop in shops for lease in shop.members.leases.values()) > 2
    assert any(sale.received_at for shop in shops for sale in shop.database.sales.values())


def test_a_broken_rule_names_its_seed(plan: Plan) -> None:
    """The auditor is no ornament: money that a provider keeps and we do not know ends the run."""

    async def thief(shop: ShopSimulation) -> None:
        await tell_story(shop)
        shop.provider.orders["P0"] = Order("P0", 1, "ann", paid=True)

    with pytest.raises(InvariantBroken, match=r"^seed 3, .*the provider has"):
        ShopSimulation(3, plan, weather=Weather()).run(thief)
    assert Weather() == FAIR
