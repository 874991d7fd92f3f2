"""The memberships port over real PostgreSQL and the provider simulator over HTTP."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from gateway.providers.simulator.admin import SimulatorError
from models.domain.errors import NeedsOperator, Refused
from models.domain.events import ProviderAuth
from models.domain.ids import ChainId, MemberId, MembershipId, PlanId
from models.domain.membership import HOLD_TIMEOUT, State
from models.domain.messages import EnrolAnswered, ReserveAnswered, UsesPosted
from models.domain.payments import HoldResult, Succeeded
from models.tables.memberships import load_member_view, member_ids_by_tail
from models.tables.plans import save_plan
from runtime.enrolment import phone_of
from runtime.memberships import Memberships, NotYet
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    OWN,
    PEPPER,
    PLAN,
    REGION,
    Overheard,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)

FREEZE = "alipay.fund.auth.order.freeze"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


# ---------------------------------------------------------------- enrolment


async def test_an_enrolment_holds_the_fee_once_however_often_it_is_asked(shop: Shop) -> None:
    request = await shop.enrol_request(phone="138 0000 1234")
    answers = [await shop.ask(request, "ask-1", attempts) for attempts in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert isinstance(answers[0], EnrolAnswered)
    view = answers[0].member
    assert view is not None
    assert view.membership is not None
    assert (view.name, view.membership.used_fen, view.membership.benefits[0].uses_left) == ("•••• 1234", 0, 5)
    assert await shop.held_fen() == 1000
    assert await shop.account("chain", "hold:alipay", "pending") == 1000
    async with shop.pool.connection() as conn:
        assert await member_ids_by_tail(conn, CHAIN, "1234") == [view.id]
        assert await member_ids_by_tail(conn, CHAIN, "4321") == []
        assert await load_member_view(conn, MemberId("nobody"), shop.clock.now) is None


async def test_the_same_ask_at_the_same_time_makes_one_membership(shop: Shop) -> None:
    request = await shop.enrol_request(phone="13800001234")
    answers = await asyncio.gather(*(shop.ask(request, "ask-1") for _ in range(4)))
    done = [answer for answer in answers if isinstance(answer, EnrolAnswered)]
    assert all(answer.member is not None for answer in done), answers
    assert await shop.one("SELECT count(*) FROM membership") == 1
    assert await shop.held_fen() == 1000


async def test_two_enrolments_with_one_phone_make_one_member_and_one_membership(shop: Shop) -> None:
    requests = [await shop.enrol_request(phone=phone) for phone in ("13800001234", "+86 138-0000-1234")]
    answers = await asyncio.gather(*(shop.ask(request) for request in requests))
    codes = sorted(answer.code for answer in answers if isinstance(answer, EnrolAnswered))
    assert codes == ["", "already_member"]
    assert await shop.one("SELECT count(*) FROM member") == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"guarantee": "sesame_credit"}, "guarantee_unavailable"),
        ({"guarantee": "nonsense"}, "guarantee_unavailable"),
        ({"plan": PlanId("other")}, "unknown_plan"),
        ({"phone": "12"}, "bad_phone"),
        ({"member": MemberId("nobody")}, "enrol_refused"),
        ({"auth": ProviderAuth("alipay", "280000000000000000")}, "enrol_refused"),
    ],
)
async def test_an_enrolment_that_is_refused_holds_nothing(shop: Shop, changes: dict[str, Any], code: str) -> None:
    request = await shop.enrol_request(**changes)
    for attempts in range(2):
        answer = await shop.ask(request, "ask-1", attempts)
        assert isinstance(answer, EnrolAnswered)
        assert (answer.member, answer.pending, answer.code) == (None, False, code)
    assert await shop.held_fen() == 0
    assert await shop.one("SELECT count(*) FROM membership WHERE state <> 'REJECTED'") == 0


async def test_an_existing_member_enrols_and_gets_a_phone(shop: Shop) -> None:
    membership = await shop.member()
    member = MemberId((await shop.membership(membership))["member"])
    await shop.settle_after(40)
    again = await shop.ask(await shop.enrol_request(member=member, phone="13800001234"))
    assert isinstance(again, EnrolAnswered)
    assert again.member is not None
    assert (again.member.id, again.member.name) == (member, "•••• 1234")
    assert again.member.membership is not None
    assert (await shop.membership(again.member.membership.id))["generation"] == 2


async def test_the_plans_interval_between_memberships_is_kept(shop: Shop) -> None:
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        await save_plan(cur, CHAIN, PLAN | {"version": 2, "enrol_again_after_days": 10})
    membership = await shop.member(phone="13800001234")
    await shop.settle_after(35)  # expired 4 days ago
    refused = await shop.ask(await shop.enrol_request(phone="13800001234"))
    assert isinstance(refused, EnrolAnswered)
    assert refused.code == "enrol_refused"
    await shop.settle_after(10)
    assert await shop.member(phone="13800001234") != membership


@pytest.mark.parametrize(
    ("fault", "then"), [("timeout_after", ["query_freeze"]), ("timeout_before", ["query_freeze", "freeze"])]
)
async def test_a_lost_answer_is_asked_for_under_the_same_number(shop: Shop, fault: str, then: list[str]) -> None:
    await shop.admin.add_fault(FREEZE, fault)
    request = await shop.enrol_request()
    async with shop.impatient():
        assert isinstance(await shop.ask(request, "ask-1"), NotYet)
    assert await shop.one("SELECT state FROM membership") == "HOLD_PENDING"
    overheard = Overheard(shop.provider)
    again = Memberships(shop.pool, lambda *_: overheard, pepper=PEPPER, wall=shop.clock)
    answer = await again.ask("ask-1", request, 1)
    assert overheard.calls == then
    assert isinstance(answer, EnrolAnswered)
    assert answer.member is not None
    assert await shop.held_fen() == 1000


async def pending_enrolment(shop: Shop) -> MembershipId:
    await shop.admin.add_fault(FREEZE, "pending")
    request = await shop.enrol_request()
    answer = await shop.ask(request, "ask-1")
    assert answer == EnrolAnswered("ask-1", request.session, None, pending=True)
    assert await shop.memberships.sweep(CHAIN, REGION) == []
    return MembershipId(await shop.one("SELECT id FROM membership"))


async def test_a_freeze_that_is_confirmed_later_opens_the_membership(shop: Shop) -> None:
    membership = await pending_enrolment(shop)
    await shop.admin.authorise_freeze(shop.customer(), auth_no=await shop.auth_no())
    [resolved] = await shop.memberships.sweep(CHAIN, REGION)
    assert (resolved.store, resolved.terminal, resolved.answer.ask) == (OWN, "t-1", "ask-1")
    assert resolved.answer.member is not None
    assert (await shop.membership(membership))["state"] == "ACTIVE"
    assert await shop.account("chain", "hold:alipay", "pending") == 1000


async def test_a_freeze_that_succeeded_when_nobody_waits_any_more_is_released(shop: Shop) -> None:
    membership = await pending_enrolment(shop)
    await shop.admin.authorise_freeze(shop.customer(), auth_no=await shop.auth_no())
    await shop.rows("UPDATE membership SET state = 'ABANDONED' RETURNING id")
    standing = await shop.memberships._enrolment._admit("ask-1", Succeeded(HoldResult(await shop.auth_no(), 1000)))
    assert standing.state is State.ABANDONED
    assert await shop.account("chain", "hold:alipay", "pending") == 1000
    await shop.settle_after(0)
    assert (await shop.membership(membership))["hold_state"] == "ended"
    assert await shop.held_fen() == 0


async def test_a_freeze_that_nobody_confirms_ends_after_15_minutes(shop: Shop) -> None:
    membership = await pending_enrolment(shop)
    shop.clock.now += HOLD_TIMEOUT
    resolved = await shop.memberships.sweep(CHAIN, REGION)
    assert [answer.answer.code for answer in resolved] == ["enrol_refused"]
    assert (await shop.membership(membership))["state"] == "ABANDONED"
    with pytest.raises(SimulatorError):
        await shop.admin.authorise_freeze(shop.customer(), auth_no=await shop.auth_no())
    assert await shop.memberships.sweep(CHAIN, REGION) == []
    await shop.member()  # and a new attempt is free to succeed


async def test_plans_are_immutable(shop: Shop) -> None:
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        assert (await save_plan(cur, CHAIN, PLAN)).fee_fen == 1000
        for chain, changed in ((CHAIN, PLAN | {"fee_fen": 900}), (ChainId("other"), PLAN)):
            with pytest.raises(NeedsOperator, match="other terms"):
                await save_plan(cur, chain, changed)


def test_a_phone_is_kept_as_a_keyed_digest() -> None:
    phone = phone_of("+86 138-0000-1234", PEPPER)
    assert phone == phone_of("13800001234", PEPPER)
    assert phone.digest != phone_of("13800001234", b"another").digest
    assert phone.tail == "1234"
    with pytest.raises(Refused):
        phone_of("١٢٣", PEPPER)


# ---------------------------------------------------------------- uses


async def test_a_coupon_from_reservation_to_ledger(shop: Shop) -> None:
    membership = await shop.member()
    use = shop.use(membership)
    reserve = shop.reserve_request(use, store=FRANCHISED)
    for _ in range(2):
        assert await shop.ask(reserve, "ask-r") == ReserveAnswered("ask-r", reserve.session, ok=True)
    async with shop.pool.connection() as conn:
        view = await load_member_view(conn, (await shop.membership(membership))["member"], shop.clock.now)
    assert view is not None
    assert view.membership is not None
    assert view.membership.benefits[0].uses_left == 4, "a reservation takes a place"
    post = shop.post_request(use, store=FRANCHISED)
    first, second = await shop.ask(post, "ask-p"), await shop.ask(post, "ask-p", 1)
    assert first == second
    assert isinstance(first, UsesPosted)
    assert first.member is not None
    assert first.member.membership is not None
    assert first.member.membership.used_fen == 800
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 800
    assert await shop.account("north", f"sales_gross:{FRANCHISED}") == -800
    assert await shop.account("north", "used", "pending") == 800
    assert await shop.one("SELECT class, paid_fen, entity FROM usage") == ("REGULAR", 1200, "north")


async def test_the_last_coupon_goes_to_one_of_two_lanes(shop: Shop) -> None:
    membership = await shop.member()
    for _ in range(4):
        await shop.use_coupon(membership)
    answers = await asyncio.gather(*(shop.ask(shop.reserve_request(shop.use(membership))) for _ in range(4)))
    reserved = [answer for answer in answers if isinstance(answer, ReserveAnswered) and answer.ok]
    refused = [answer for answer in answers if isinstance(answer, ReserveAnswered) and not answer.ok]
    assert (len(reserved), len(refused)) == (1, 3)
    assert {answer.code for answer in refused} == {"benefit_gone"}
    view = refused[0].member
    assert view is not None
    assert view.membership is not None
    assert view.membership.benefits[0].uses_left == 0


async def test_a_reservation_ends_by_release_or_by_its_wall_expiry(shop: Shop) -> None:
    membership = await shop.member()
    uses = [shop.use(membership) for _ in range(5)]
    assert await reserved(shop, *uses)
    one_more = shop.use(membership)
    assert not await reserved(shop, one_more)
    await shop.release(uses[0])
    assert await reserved(shop, one_more)
    assert not await reserved(shop, uses[0])
    shop.clock.now += timedelta(minutes=1, seconds=59)
    assert not await reserved(shop, uses[0])
    assert await reserved(shop, one_more), "asking again renews it"
    shop.clock.now += timedelta(seconds=1)
    assert await reserved(shop, *uses[:4]), "four have expired, one was renewed"
    assert not await reserved(shop, uses[4])


async def test_a_reservation_does_not_expire_while_its_visit_has_a_question_open(shop: Shop) -> None:
    membership = await shop.member()
    uses = [shop.use(membership) for _ in range(5)]
    request = shop.reserve_request(*uses)
    await shop.ask(request)
    await open_question(shop, request.session, done=False)
    shop.clock.now += timedelta(minutes=5)
    assert not await reserved(shop, shop.use(membership))
    await shop.rows("UPDATE outbox SET done_at = now() RETURNING id")
    assert await reserved(shop, shop.use(membership))


@pytest.mark.parametrize(
    ("fen", "days"), [(801, 0), (0, 0), (800, 31)], ids=["more than it is worth", "nothing", "expired"]
)
async def test_what_the_plan_does_not_give_is_not_reserved(shop: Shop, fen: int, days: int) -> None:
    membership = await shop.member()
    shop.clock.now += timedelta(days=days)
    assert not await reserved(shop, shop.use(membership, fen))


async def test_a_till_that_gave_a_sixth_coupon_is_believed_and_the_merchant_bears_it(shop: Shop) -> None:
    membership = await shop.member()
    for _ in range(5):
        await shop.use_coupon(membership)
    surplus = shop.use(membership)
    await shop.ask(shop.post_request(surplus, store=FRANCHISED, unreserved=True))
    assert await shop.one("SELECT class FROM usage WHERE id = %s", surplus.usage) == "OVERUSE"
    assert (await shop.membership(membership))["used_fen"] == 4000
    assert await shop.account("chain", "absorbed:chain") == 800
    assert await shop.account("chain", "due_to:north") == -800
    assert await shop.account("north", "due_from:chain") == 800


async def test_two_coupons_of_one_till_sale_are_counted_together(shop: Shop) -> None:
    membership = await shop.member()
    await shop.ask(shop.post_request(*(shop.use(membership) for _ in range(7)), unreserved=True))
    assert sorted(await shop.rows("SELECT class, count(*) FROM usage GROUP BY class")) == [
        ("OVERUSE", 2),
        ("REGULAR", 5),
    ]


async def test_a_sale_that_was_paid_after_its_reservation_ended_is_still_booked(shop: Shop) -> None:
    membership = await shop.member()
    use = shop.use(membership)
    assert await reserved(shop, use)
    await shop.release(use)
    await shop.ask(shop.post_request(use))
    assert await shop.one("SELECT class FROM usage") == "REGULAR"
    assert await shop.one("SELECT state FROM reservation") == "posted"


async def test_a_reversal_frees_the_place_and_a_repeated_one_does_nothing(shop: Shop) -> None:
    membership = await shop.member()
    uses = [await shop.use_coupon(membership) for _ in range(5)]
    assert not await reserved(shop, shop.use(membership))
    await shop.reverse(uses[0], ask_id="ask-v")
    await shop.reverse(uses[0], ask_id="ask-v")
    await shop.reverse(uses[0], ask_id="another void of the same sale")
    assert (await shop.membership(membership))["used_fen"] == 3200
    assert await shop.account("chain", "used", "pending") == 3200
    assert await reserved(shop, shop.use(membership))


async def test_a_reversal_before_its_use_is_kept_and_the_use_is_born_reversed(shop: Shop) -> None:
    membership = await shop.member()
    use = shop.use(membership)
    await shop.reverse(use, ask_id=str(uuid.uuid4()))
    await shop.ask(shop.post_request(use))
    assert await shop.one("SELECT class, fen, reversed_fen FROM usage") == ("REGULAR", 800, 800)
    assert (await shop.membership(membership))["used_fen"] == 0
    assert await shop.account("chain", "discount_given:s-own") == 0
    assert await reserved(shop, *(shop.use(membership) for _ in range(5)))


async def test_uses_of_a_membership_serialise(shop: Shop) -> None:
    membership = await shop.member()
    await asyncio.gather(*(shop.ask(shop.post_request(shop.use(membership), unreserved=True)) for _ in range(8)))
    assert sorted(await shop.rows("SELECT class, count(*) FROM usage GROUP BY class")) == [
        ("OVERUSE", 3),
        ("REGULAR", 5),
    ]


# ---------------------------------------------------------------- helpers


async def reserved(shop: Shop, *uses: object) -> bool:
    answer = await shop.ask(shop.reserve_request(*uses))  # type: ignore[arg-type]
    assert isinstance(answer, ReserveAnswered)
    return answer.ok


async def open_question(shop: Shop, session: str, *, done: bool) -> None:
    await shop.rows(
        "INSERT INTO outbox (id, region, shard, store, entity_kind, entity_id, port, verb, request, idempotency_key,"
        " not_before, attempts, created_at, done_at) VALUES ('o', 'east', 0, 's-own', 'session', 'l', 'payments',"
        " 'pay', jsonb_build_object('session', %s::text), 'o', now(), 0, now(), %s) RETURNING id",
        session,
        shop.clock.now if done else None,
    )
