"""Where and when a benefit counts is not the terminal's to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from actors.ports import GrantLease
from models.domain.ids import BenefitId, SessionId, TerminalId
from models.domain.messages import LeaseGranted, ReserveAnswered
from tests.integration.money_shop import FRANCHISED, OWN, PLAN, RunningSimulator, Shop, open_shop, running_simulator
from tests.integration.test_membership_life import plan


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
