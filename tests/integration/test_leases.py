"""Leases, offline uses, partial reversals and returns over real PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.errors import CheckViolation, UniqueViolation

from actors.effects import Ask
from actors.ports import EndLease, FindMember, FindSale, GrantLease
from models.domain.events import ReturnLine, TenderKind
from models.domain.facts import Fact, SaleMade, SaleReturned
from models.domain.ids import (
    BenefitId,
    LaneId,
    LeaseId,
    LegalEntityId,
    MembershipId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
    derived_id,
)
from models.domain.leases import LEASE_FOR, SYNC_WINDOW
from models.domain.messages import LeaseEnded, LeaseGranted, MemberFound, SaleFound, SaleTender, SaleUse, UsesPosted
from models.domain.returns import Back, bring_back
from models.domain.screen import LeaseGrant, ScreenLine
from models.tables.clock import next_stop
from models.tables.facts import bookings_of, save_facts
from models.tables.ledger import insert_transactions
from runtime.asks import Ports, VisitMemory
from runtime.memberships import NotYet
from tests.integration.money_shop import FRANCHISED, OWN, RunningSimulator, Shop, open_shop, running_simulator

COUPON = BenefitId("coupon8")


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


def lease_request(shop: Shop, membership: MembershipId, uses: int = 1, store: StoreId = OWN) -> GrantLease:
    session = SessionId(str(uuid.uuid4()))
    return GrantLease(session, store, TerminalId("t-1"), membership, COUPON, uses, shop.clock.now)


async def granted(shop: Shop, membership: MembershipId, uses: int = 1, store: StoreId = OWN) -> LeaseGrant | None:
    answer = await shop.ask(lease_request(shop, membership, uses, store))
    assert isinstance(answer, LeaseGranted)
    return answer.lease


async def leased(shop: Shop, membership: MembershipId, uses: int = 1, store: StoreId = OWN) -> LeaseId:
    lease = await granted(shop, membership, uses, store)
    assert lease is not None
    return lease.id


async def ended(shop: Shop, lease: str, store: StoreId = OWN) -> LeaseEnded | NotYet:
    answer = await shop.ask(EndLease(SessionId(""), store, LeaseId(lease), shop.clock.now))
    assert isinstance(answer, LeaseEnded | NotYet)
    return answer


async def sold_offline(
    shop: Shop,
    membership: MembershipId,
    lease: LeaseId | None,
    at: datetime | None = None,
    store: StoreId = OWN,
    fen: int = 800,
) -> str:
    """Posts one use as an offline sale does; its class."""
    use = replace(shop.use(membership, fen), lease=lease)
    post = shop.post_request(use, store=store, unreserved=True, biz_time=at or shop.clock.now)
    assert isinstance(await shop.ask(post), UsesPosted)
    return str(await shop.one("SELECT class FROM usage WHERE id = %s", use.usage))


async def left(shop: Shop, membership: MembershipId) -> int:
    """Uses that a screen would show."""
    answer = await shop.ask(lease_request(shop, membership, 99))
    assert isinstance(answer, LeaseGranted)
    assert answer.member is not None
    assert answer.member.membership is not None
    return answer.member.membership.benefits[0].uses_left


# ---------------------------------------------------------------- leases


async def test_a_lease_keeps_its_uses_and_gives_back_what_is_left(shop: Shop) -> None:
    membership = await shop.member()
    request = lease_request(shop, membership, 3)
    answers = [await shop.ask(request, "ask-l", n) for n in range(2)]
    assert answers[0] == answers[1]
    assert isinstance(answers[0], LeaseGranted)
    lease = answers[0].lease
    assert lease is not None
    assert (lease.uses, lease.until) == (3, (shop.clock.now + LEASE_FOR).isoformat())
    assert await left(shop, membership) == 2
    assert await granted(shop, membership, 3) is None, "two are free, not three"
    assert await sold_offline(shop, membership, lease.id) == "REGULAR"
    assert await left(shop, membership) == 2, "the use took the place that its lease held"
    for _ in range(2):
        assert isinstance(await ended(shop, lease.id), LeaseEnded)
        assert await left(shop, membership) == 4
    assert await shop.one("SELECT uses, used, state FROM lease") == (3, 1, "ended")
    assert (await shop.membership(membership))["used_fen"] == 800


async def test_the_last_use_goes_to_one_of_many_at_once(shop: Shop) -> None:
    membership = await shop.member()
    await leased(shop, membership, 4)
    use = shop.reserve_request(shop.use(membership))
    answers = await asyncio.gather(shop.ask(use), *(shop.ask(lease_request(shop, membership)) for _ in range(3)))
    won = [a for a in answers if (a.lease is not None if isinstance(a, LeaseGranted) else getattr(a, "ok", False))]
    assert len(won) == 1, answers


async def test_a_leased_use_is_regular_whatever_happened_meanwhile(shop: Shop) -> None:
    membership = await shop.member()
    lease = await leased(shop, membership, 1)
    for _ in range(4):
        await shop.use_coupon(membership)
    assert await sold_offline(shop, membership, None) == "OVERUSE", "the fifth place is the lease's"
    given_at = shop.clock.now + timedelta(hours=23)
    await shop.rows("UPDATE membership SET state = 'EXPIRED', expires_at = %s RETURNING id", shop.clock.now)
    shop.clock.now += timedelta(hours=30)
    assert await sold_offline(shop, membership, lease, given_at) == "REGULAR", "cancelled meanwhile, and promised"
    assert await sold_offline(shop, membership, lease, given_at) == "OVERUSE", "the second use of a lease of one"
    assert (await shop.membership(membership))["used_fen"] == 4000


@pytest.mark.parametrize(
    ("hours", "store", "fen", "expected"),
    [
        (0, FRANCHISED, 800, "REGULAR"),
        (25, OWN, 800, "REGULAR"),
        (0, OWN, 90_000, "OVERUSE"),
    ],
    ids=["another store's lease: within quota all the same", "given after its end: within quota", "worth too much"],
)
async def test_what_a_lease_does_not_cover_is_judged_like_any_other(
    shop: Shop, hours: int, store: StoreId, fen: int, expected: str
) -> None:
    membership = await shop.member()
    lease = await leased(shop, membership)
    at = shop.clock.now + timedelta(hours=hours)
    shop.clock.now = at
    assert await sold_offline(shop, membership, lease, at, store, fen) == expected
    assert await shop.one("SELECT used FROM lease") == 0
    assert (await shop.membership(membership))["used_fen"] == (800 if expected == "REGULAR" else 0)


async def test_a_lapsed_lease_gives_its_places_back(shop: Shop) -> None:
    membership = await shop.member()
    await leased(shop, membership, 5)
    assert await left(shop, membership) == 0
    shop.clock.now += LEASE_FOR + SYNC_WINDOW - timedelta(seconds=1)
    assert await left(shop, membership) == 0, "sales may still be on their way"
    shop.clock.now += timedelta(seconds=1)
    assert await left(shop, membership) == 5


async def test_a_lease_is_not_ended_before_its_sales_are_posted(shop: Shop) -> None:
    membership = await shop.member()
    lease = await leased(shop, membership)
    await shop.rows(
        "INSERT INTO outbox (id, region, shard, store, entity_kind, entity_id, port, verb, request, idempotency_key,"
        " not_before, attempts, created_at) VALUES ('o', 'east', 0, 's-own', 'session', 'l', 'memberships', 'PostUses',"
        " jsonb_build_object('uses', jsonb_build_array(jsonb_build_object('usage', 'u', 'lease', %s::text))),"
        " 'o', now(), 0, now()) RETURNING id",
        lease,
    )
    assert isinstance(await ended(shop, lease), NotYet)
    await shop.rows("UPDATE outbox SET done_at = now() RETURNING id")
    assert isinstance(await ended(shop, lease), LeaseEnded)
    for unknown, store in (("le-9", OWN), (lease, FRANCHISED)):
        answer = await ended(shop, unknown, store)
        assert isinstance(answer, LeaseEnded)
        assert answer.code == "unknown_lease"


async def test_the_cutoff_waits_for_the_last_lease_and_its_sync_window(shop: Shop) -> None:
    membership = await shop.member()
    await shop.use_coupon(membership)
    row = await shop.membership(membership)
    shop.clock.now = row["expires_at"] - timedelta(minutes=1)
    lease = await leased(shop, membership)
    assert await shop.one("SELECT until FROM lease") == row["expires_at"], "a lease never outlives its membership"
    await shop.rows("UPDATE lease SET until = until + interval '6 hours', lapses_at = lapses_at + interval '6 hours'"
                    " RETURNING id")  # fmt: skip
    shop.clock.now = row["cutoff_at"] + timedelta(hours=1)
    report = await shop.settle_after(0)
    assert (report.reserved, report.cut_off) == (1, 0)
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        lapses = row["cutoff_at"] + timedelta(hours=6)
        assert await next_stop(cur, shop.clock.now + timedelta(days=2), shop.clock.now) == lapses
    assert await sold_offline(shop, membership, lease, row["expires_at"] - timedelta(seconds=1)) == "REGULAR"
    report = await shop.settle_after(0)
    assert (report.reserved, report.cut_off) == (0, 1), "nothing is left of the lease"
    assert (await shop.membership(membership))["charge_fen"] == 1000
    assert await sold_offline(shop, membership, None, row["expires_at"] - timedelta(hours=1)) == "LATE"


async def test_the_database_refuses_a_use_too_many_of_a_lease(shop: Shop) -> None:
    await leased(shop, await shop.member())
    with pytest.raises(CheckViolation, match="lease_gives_no_more"):
        await shop.rows("UPDATE lease SET used = 2 RETURNING id")


async def test_uses_of_memberships_that_nobody_has_are_counted_not_posted(shop: Shop) -> None:
    membership = await shop.member()
    known, ghost = shop.use(membership), shop.use(MembershipId("ghost"))
    answer = await shop.ask(shop.post_request(known, ghost, unreserved=True))
    assert isinstance(answer, UsesPosted)
    assert (answer.unknown, answer.terminal) == (1, "t-1")
    assert await shop.one("SELECT count(*) FROM usage") == 1


# ---------------------------------------------------------------- who is it


async def test_a_member_is_found_by_phone_or_number(shop: Shop) -> None:
    membership = await shop.member(phone="138 0000 1234")
    member = (await shop.membership(membership))["member"]
    for by, value, known in (
        ("phone", "+86 138-0000-1234", True),
        ("phone", "13800001235", False),
        ("phone", "x", False),
        ("card", member, True),
        ("code", member, True),
        ("code", "", False),
        ("card", "13800001234", False),
    ):
        answer = await shop.ask(FindMember(SessionId("v"), OWN, by, value))
        assert isinstance(answer, MemberFound)
        assert (answer.member.id if answer.member is not None else None) == (member if known else None), (by, value)


# ---------------------------------------------------------------- returns


async def test_goods_come_back_line_by_line(shop: Shop) -> None:
    """The sale, two returns and the benefit's parts: the ledger is where it was, and one piece too many is refused."""
    membership = await shop.member()
    use = await shop.use_coupon(membership, FRANCHISED)
    made = offline_sale(use, shop.clock.now)
    await save(shop, made)
    await save(shop, made)
    assert await shop.account("north", "till:s-north:lane-1") == 1600
    for n in range(2):
        found = await find(shop, made.receipt)
        assert (found.sale, found.entity, len(found.returns)) == (made.id, "north", n)
        back = bring_back(found, [ReturnLine(1, 1)])
        await save(shop, returned(found, back, shop.clock.now))
        await shop.reverse(*back.uses, store=FRANCHISED, ask_id=str(uuid.uuid4()))
        await shop.check_invariants()
    assert await shop.account("north", "till:s-north:lane-1") == 0
    assert await shop.account("north", f"sales_gross:{FRANCHISED}") == 0
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 0
    assert await shop.one("SELECT fen, reversed_fen FROM usage") == (800, 800)
    assert (await shop.membership(membership))["used_fen"] == 0
    found = await find(shop, made.receipt)
    twin = replace(returned(found, bring_back(replace(found, returns=()), [ReturnLine(1, 1)]), shop.clock.now), n=1)
    with pytest.raises(UniqueViolation):
        await save(shop, replace(twin, id="another return under the same number"))


def offline_sale(use: SaleUse, at: datetime) -> SaleMade:
    """Two teas for 24.00 with a coupon, in cash."""
    return SaleMade(
        id=SaleId(str(uuid.uuid4())), receipt="s-north-lane-1-000001", session=SessionId(""), store=FRANCHISED,
        lane=LaneId("lane-1"), terminal=TerminalId("t-1"), clerk=None, entity=LegalEntityId("north"),
        business_date="2026-03-01", at=at, member=None, membership=use.membership, gross_fen=2400, discount_fen=800,
        due_fen=1600, rounding_fen=0, suspense_fen=0, agency_fen=0,
        lines=(ScreenLine(1, "tea", "Tea", 2, 1200, 800, 1600),), tenders=(SaleTender(TenderKind.CASH, 1600),),
        uses=(use,), till_txn="t-1", received_at=at,
    )  # fmt: skip


def returned(found: SaleFound, back: Back, at: datetime) -> SaleReturned:
    assert found.sale is not None
    assert found.entity is not None
    n = len(found.returns)
    return SaleReturned(
        id=derived_id(found.sale, f"r{n}"), sale=found.sale, n=n, store=FRANCHISED, lane=LaneId("lane-1"),
        terminal=TerminalId("t-1"), clerk="c", entity=found.entity, business_date="2026-03-02", at=at,
        due_fen=back.due_fen, discount_fen=back.discount_fen, rounding_fen=back.rounding_fen,
        suspense_fen=back.suspense_fen, lines=back.lines, tenders=back.tenders, uses=back.uses, reason="damaged",
    )  # fmt: skip


async def save(shop: Shop, fact: Fact) -> None:
    """As a batch's commit does."""
    async with shop.pool.connection() as conn:
        await save_facts(conn, [(fact, "trace")])
        async with conn.cursor() as cur:
            for booking in await bookings_of(conn, [(fact, "trace")]):
                await insert_transactions(cur, [booking.transaction], booking.booked_at, booking.trace)


async def find(shop: Shop, receipt: str) -> SaleFound:
    nothing: Any = None
    ports = Ports(nothing, shop.pool, nothing, nothing, nothing, nothing)
    answer = await ports.ask(Ask("q", FindSale(FRANCHISED, receipt)), 1, VisitMemory())
    assert isinstance(answer.message, SaleFound)
    return answer.message


async def test_goods_of_a_membership_that_nobody_knows_are_brought_back_all_the_same(shop: Shop) -> None:
    membership = await shop.member()
    known, invented = shop.use(membership), shop.use(MembershipId("made-up"))
    posted = await shop.ask(shop.post_request(known, invented, unreserved=True))
    assert isinstance(posted, UsesPosted)
    assert posted.unknown == 1
    for _ in range(2):
        await shop.reverse(invented, known, ask_id="void-1")
    assert await shop.rows("SELECT id, reversed_fen FROM usage") == [(known.usage, 800)]
    assert (await shop.membership(membership))["used_fen"] == 0


async def test_a_lease_covers_nothing_that_was_before_the_membership(shop: Shop) -> None:
    membership = await shop.member()
    lease = await leased(shop, membership)
    enrolled_at = (await shop.membership(membership))["enrolled_at"]
    assert await sold_offline(shop, membership, lease, enrolled_at - timedelta(seconds=1)) == "OVERUSE"
    assert await sold_offline(shop, membership, lease, enrolled_at) == "REGULAR", "the lease is whole"


async def test_a_franchisee_cannot_report_a_benefit_into_money(shop: Shop) -> None:
    membership = await shop.member()
    dear, invented = shop.use(membership, 90_000), replace(shop.use(membership, 700), benefit=BenefitId("made-up"))
    posted = await shop.ask(shop.post_request(dear, invented, store=FRANCHISED, unreserved=True))
    assert isinstance(posted, UsesPosted)
    assert posted.unknown == 1
    assert await shop.rows("SELECT id, class, fen FROM usage") == [(dear.usage, "OVERUSE", 800)]
    assert await shop.account("chain", "absorbed:chain") == 800, "what the plan promised, not what was reported"
    await shop.reverse(dear, invented, store=FRANCHISED)
    assert await shop.account("chain", "absorbed:chain") == 0
