"""Where and when a benefit counts is not the terminal's to say, and a change of plan takes none back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from actors.ports import GrantLease
from models.domain.ids import BenefitId, LeaseId, SessionId, TerminalId
from models.domain.messages import LeaseGranted, ReserveAnswered, UsesPosted
from tests.integration.money_shop import FRANCHISED, OWN, PLAN, RunningSimulator, Shop, open_shop, running_simulator
from tests.integration.test_membership_life import LATER, code_of, do, plan, row


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


async def test_a_benefit_of_another_store_channel_or_hour_is_not_reserved_and_offline_it_is_overuse(shop: Shop) -> None:
    [coupon] = PLAN["benefits"]
    scopes = [
        ({"stores": [OWN]}, 0, OWN, True),
        ({"stores": [OWN]}, 0, FRANCHISED, False),
        ({"channels": ["storeops"]}, 0, OWN, True),
        ({"channels": ["app"]}, 0, OWN, False),
        ({"hours": {"begins": "10:00", "ends": "11:00"}}, 0, OWN, True),  # it is 10:00 in Shanghai
        ({"hours": {"begins": "10:00", "ends": "11:00"}}, 1, OWN, False),
    ]
    for n, (scope, hours, store, holds) in enumerate(scopes):
        light = await plan(shop, benefits=[{**coupon, "scope": scope}])
        membership = await shop.member(f"user{n}", plan=light)
        shop.clock.now += timedelta(hours=hours)
        answer = await shop.ask(shop.reserve_request(shop.use(membership), store=store))
        assert isinstance(answer, ReserveAnswered)
        assert answer.ok is holds, scope
        offline = shop.use(membership)
        await shop.ask(shop.post_request(offline, store=store, unreserved=True))
        found = await shop.one("SELECT class FROM usage WHERE id = %s", offline.usage)
        assert found == ("REGULAR" if holds else "OVERUSE"), scope
        lease = await shop.ask(
            GrantLease(SessionId("v"), store, TerminalId("t-1"), membership, BenefitId("coupon8"), 1, shop.clock.now)
        )
        assert isinstance(lease, LeaseGranted)
        assert (lease.lease is not None) is (holds or hours > 0), "a lease is for later hours too"


async def test_what_was_promised_before_a_change_of_plan_is_not_taken_back(shop: Shop) -> None:
    """Reserved, leased, given offline: the new plan has no such benefit, the store gets what it gave all the same."""
    [coupon] = PLAN["benefits"]
    other = [{**coupon, "id": "other", "value_fen": 500}]
    membership = await shop.member()
    reserved, offline = shop.use(membership), shop.use(membership)
    answer = await shop.ask(shop.reserve_request(reserved, store=FRANCHISED))
    assert isinstance(answer, ReserveAnswered)
    assert answer.ok
    granted = await shop.ask(
        GrantLease(SessionId("v"), FRANCHISED, TerminalId("t-1"), membership, reserved.benefit, 1, shop.clock.now)
    )
    assert isinstance(granted, LeaseGranted)
    assert granted.lease is not None
    leased = replace(shop.use(membership), lease=LeaseId(granted.lease.id))
    before = shop.clock.now
    shop.clock.now += timedelta(minutes=1)
    new = await plan(shop, fee_fen=2000, benefits=other, funder_entity="north")
    await do(shop, membership, "change", plan=new, auth=await code_of(shop))
    shop.clock.now += timedelta(minutes=1)
    await shop.ask(shop.post_request(reserved, store=FRANCHISED))
    await shop.ask(shop.post_request(leased, store=FRANCHISED, unreserved=True))
    for use in (offline, *(shop.use(membership) for _ in range(3))):
        await shop.ask(shop.post_request(use, store=FRANCHISED, biz_time=before, unreserved=True))
    made_up = await shop.ask(shop.post_request(shop.use(membership), store=FRANCHISED, unreserved=True))
    assert isinstance(made_up, UsesPosted)
    assert made_up.unknown == 1, "the coupon is no benefit of the plan any more"
    classes = await shop.rows("SELECT class, fen FROM usage WHERE membership = %s ORDER BY class", membership)
    assert classes == [("OVERUSE", 800)] + [("REGULAR", 800)] * 5, "its quota was five"
    assert await shop.account("chain", "absorbed:chain") == 800, "the funder of its moment"
    surplus = await shop.one("SELECT id FROM usage WHERE class = 'OVERUSE'")
    await shop.reverse(replace(offline, usage=surplus), store=FRANCHISED)
    assert await shop.account("chain", "absorbed:chain") == 0
    await shop.settle_after(LATER)
    assert await row(shop, membership, "state", "charge_fen", "paid_fen") == ("CLOSED", 2000, 2000)
