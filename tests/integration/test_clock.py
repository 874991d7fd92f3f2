"""The business clock: one offset, moved only where that is allowed, stopping wherever something is due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import pytest

from models.domain.errors import Refused
from models.tables.clock import set_movable
from runtime.clock import advance, business_now
from tests.integration.money_shop import RunningSimulator, Shop, open_shop, running_simulator

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


async def movable(shop: Shop) -> None:
    async with shop.pool.connection() as conn:
        await set_movable(conn, True)


async def timer(shop: Shop, kind: str, due: datetime, clock: str = "business") -> None:
    await shop.rows(
        "INSERT INTO timer (region, shard, store, entity_kind, entity_id, clock, kind, ref, due_at)"
        " VALUES ('east', 0, 's-own', 'session', 'lane', %s, %s, '', %s) RETURNING n",
        clock,
        kind,
        due,
    )


async def nothing(_now: datetime) -> None:
    return None


async def test_a_clock_that_may_not_be_moved_stays(shop: Shop) -> None:
    with pytest.raises(Refused) as refused:
        await advance(shop.pool, shop.clock.now + DAY, nothing, nothing, wall=shop.clock)
    assert refused.value.code == "clock_fixed"
    assert await business_now(shop.pool, shop.clock) == shop.clock.now


async def test_time_does_not_go_back(shop: Shop) -> None:
    await movable(shop)
    advanced = await advance(shop.pool, shop.clock.now + DAY, nothing, nothing, wall=shop.clock)
    assert (advanced.was, advanced.now, advanced.stops) == (shop.clock.now, shop.clock.now + DAY, 0)
    with pytest.raises(Refused) as refused:
        await advance(shop.pool, shop.clock.now, nothing, nothing, wall=shop.clock)
    assert refused.value.code == "clock_backwards"
    assert await business_now(shop.pool, shop.clock) == shop.clock.now + DAY
    shop.clock.now += timedelta(seconds=3)
    assert await business_now(shop.pool, shop.clock) == shop.clock.now + DAY, "it runs with the wall"


async def test_it_stops_at_every_timer_and_membership_date_and_now_is_what_is_due(shop: Shop) -> None:
    await movable(shop)
    membership = await shop.member()
    for _ in range(2):
        await shop.use_coupon(membership)
    await shop.admin.add_fault("alipay.trade.pay", "fail", sub_code="ACQ.BUYER_BALANCE_NOT_ENOUGH")
    row = await shop.membership(membership)
    overdue, third_day = shop.clock.now - DAY, shop.clock.now + 3 * DAY
    await timer(shop, "overdue", overdue)
    await timer(shop, "third day", third_day)
    await timer(shop, "much later", shop.clock.now + 400 * DAY)
    await timer(shop, "wall", shop.clock.now + DAY, clock="wall")
    told: list[tuple[str, datetime]] = []
    runner = shop.runner()

    async def fire(now: datetime) -> None:
        assert await business_now(shop.pool, shop.clock) == now
        fired = await shop.rows(
            "DELETE FROM timer WHERE clock = 'business' AND due_at <= %s RETURNING kind, due_at", now
        )
        told.extend((kind, now) for kind, _ in fired)

    async def settle(now: datetime) -> None:
        report = await runner.run(now)
        done = {"expired": report.expired, "cut off": report.cut_off, "woken": report.woken}
        told.extend((what, now) for what, count in done.items() if count)

    advanced = await advance(shop.pool, shop.clock.now + 60 * DAY, settle, fire, wall=shop.clock)
    assert told == [
        ("overdue", shop.clock.now),
        ("third day", third_day),
        ("expired", row["expires_at"]),
        ("cut off", row["cutoff_at"]),
        ("woken", row["cutoff_at"] + DAY),
    ]
    assert (advanced.stops, advanced.unfinished) == (5, 0)
    assert (await shop.membership(membership))["state"] == "CLOSED"
    assert await business_now(shop.pool, shop.clock) == shop.clock.now + 60 * DAY


async def test_what_cannot_be_done_now_does_not_stop_time(shop: Shop) -> None:
    await movable(shop)
    stuck = shop.clock.now + DAY
    await timer(shop, "nobody fires this", stuck)
    stops: list[datetime] = []

    async def fire(now: datetime) -> None:
        stops.append(now)

    advanced = await advance(shop.pool, shop.clock.now + 2 * DAY, nothing, fire, wall=shop.clock)
    assert (advanced.stops, advanced.unfinished, set(stops)) == (1, 1, {stuck})
    assert advanced.now == shop.clock.now + 2 * DAY
