"""A membership that renews by itself has no gap: every instant belongs to one generation, and uses go to theirs."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import pairwise

import pytest

from actors.ports import FindMember
from models.domain.ids import MembershipId, SessionId
from models.domain.membership_actions import Asked
from models.domain.messages import MemberFound, ReserveAnswered
from tests.integration.money_shop import CHAIN, OWN, REGION, RunningSimulator, Shop, open_shop, running_simulator
from tests.integration.test_membership_life import plan, row

SEED = 20261122


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


async def trusted(shop: Shop, **changes: object) -> MembershipId:
    light = await plan(shop, guarantees=["merchant_trust"], rule="CYCLE", grace_days=5, **changes)
    return await shop.member(plan=light, guarantee="merchant_trust")


async def test_no_instant_is_uncovered_and_a_use_belongs_to_the_generation_of_its_moment(shop: Shop) -> None:
    first = await trusted(shop, dunning_attempts=12, dunning_days=[1] * 12)
    expiry = (await shop.membership(first))["expires_at"]
    shop.clock.now = expiry - timedelta(microseconds=1)
    answer = await shop.ask(shop.reserve_request(shop.use(first)))
    assert isinstance(answer, ReserveAnswered)
    assert answer.ok
    shop.clock.now = expiry
    answer = await shop.ask(shop.reserve_request(shop.use(first)))
    assert isinstance(answer, ReserveAnswered)
    assert not answer.ok
    assert answer.member is not None
    assert answer.member.membership is not None, "the next one is there at the very instant"
    second = answer.member.membership.id
    answer = await shop.ask(shop.reserve_request(shop.use(second)))
    assert isinstance(answer, ReserveAnswered)
    assert answer.ok
    assert await row(shop, first, "state", "charge_fen") == ("EXPIRED", None), "it has its grace days still"
    for _ in range(2):
        await shop.memberships.sweep(CHAIN, REGION)
    third_begins = (await shop.membership(second))["expires_at"]
    shop.clock.now = third_begins + timedelta(days=1)  # the terminal comes back, and knows the first one only
    chance = random.Random(SEED)
    began = (await shop.membership(first))["enrolled_at"]
    edges = [moment + step for moment in (expiry, third_begins) for step in (-timedelta(microseconds=1), timedelta())]
    for biz_time in [*edges, *(began + (shop.clock.now - began) * chance.random() for _ in range(8))]:
        use = shop.use(first, 1)
        await shop.ask(shop.post_request(use, biz_time=biz_time, unreserved=True))
        [(enrolled_at, expires_at)] = await shop.rows(
            "SELECT m.enrolled_at, m.expires_at FROM usage u JOIN membership m ON m.id = u.membership WHERE u.id = %s",
            use.usage,
        )
        assert enrolled_at <= biz_time < expires_at, (SEED, biz_time)
        await shop.reverse(use)  # the terminal still names the first one
    rows = await shop.rows("SELECT enrolled_at, expires_at, generation, cycle FROM membership ORDER BY generation")
    assert [(generation, cycle) for *_, generation, cycle in rows] == [(1, 1), (2, 2), (3, 3)]
    assert all(before[1] == after[0] for before, after in pairwise(rows)), "no instant between"
    assert await shop.rows("SELECT 1 FROM membership WHERE used_fen <> 0") == []


async def test_who_comes_at_the_instant_finds_the_next_one_and_who_owes_or_cancelled_none(shop: Shop) -> None:
    member = await shop.membership(await trusted(shop))
    shop.clock.now = member["expires_at"]
    found = await shop.ask(FindMember(SessionId("v"), OWN, "card", member["member"]))
    assert isinstance(found, MemberFound)
    assert found.member is not None
    assert found.member.membership is not None
    second = found.member.membership.id
    assert second != member["id"]
    await shop.memberships.life.do("c", second, Asked("cancel", "member"), by="test")
    shop.clock.now += timedelta(days=60)
    await shop.memberships.sweep(CHAIN, REGION)
    assert await shop.one("SELECT count(*) FROM membership") == 2
    owing = await trusted(shop)
    await shop.use_coupon(owing)
    await shop.settle_after(60)  # nobody swept meanwhile: it was charged, and nothing could be collected
    assert await row(shop, owing, "state") == ("DUNNING",)
    await shop.memberships.sweep(CHAIN, REGION)
    assert await shop.one("SELECT count(*) FROM membership") == 3
