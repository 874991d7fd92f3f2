"""Settlement over real PostgreSQL and a real provider simulator: the articles' table, faults, every kill point."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from models.domain.ids import MembershipId
from models.domain.payments import Unknown
from models.domain.settlement import CALL_LEASE
from models.tables.ledger import ledger_totals, load_transaction
from models.tables.ledger_balances import balances
from runtime.late_money import LateMoney
from runtime.settlement import QUERY_AGAIN_AFTER, SettlementLimits
from tests.integration.money_shop import (
    CHAIN,
    FRANCHISED,
    REGION,
    Overheard,
    RunningSimulator,
    Shop,
    open_shop,
    running_simulator,
)

PAY, UNFREEZE, REFUND = "alipay.trade.pay", "alipay.fund.auth.order.unfreeze", "alipay.trade.refund"
BROKE = "ACQ.BUYER_BALANCE_NOT_ENOUGH"
LATER = 40  # days from enrolment: well after expiry and cutoff
MEMBER = ("state", "used_fen", "charge_fen", "branch", "paid_fen", "refunded_fen", "receivable_fen", "hold_state")


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


async def member_with(shop: Shop, coupons: int, user: str = "lin", **where: Any) -> MembershipId:
    membership = await shop.member(user)
    for _ in range(coupons):
        await shop.use_coupon(membership, **where)
    return membership


async def outcome(shop: Shop, membership: MembershipId) -> tuple[Any, ...]:
    row = await shop.membership(membership)
    return tuple(row[name] for name in MEMBER)


# ---------------------------------------------------------------- the articles' table


async def test_the_articles_table_is_settled_exactly(shop: Shop) -> None:
    five, one, none, two = [
        await member_with(shop, coupons, user) for user, coupons in (("a", 5), ("b", 1), ("c", 0), ("d", 2))
    ]
    report = await shop.settle_after(LATER)
    assert await outcome(shop, five) == ("CLOSED", 4000, 1000, "FEE", 1000, 0, 0, "ended")
    assert await outcome(shop, one) == ("CLOSED", 800, 800, "CLAWBACK", 800, 0, 0, "ended")
    assert await outcome(shop, none) == ("CLOSED", 0, 0, None, 0, 0, 0, "ended")
    assert await outcome(shop, two) == ("CLOSED", 1600, 1000, "FEE", 1000, 0, 0, "ended")
    totals = report.totals
    assert (totals.memberships, totals.charges, totals.charge_fen, totals.posted, totals.captured_fen) == (
        4, 3, 2800, 3, 2800,
    )  # fmt: skip
    assert (report.expired, report.cut_off, report.booked, report.open_calls, report.ok) == (4, 4, 4, False, True)
    books = await shop.provider_net()
    assert (books["captured_fen"], books["refunded_fen"], books["held_fen"]) == (2800, 0, 0)
    assert await shop.account("chain", "membership_fee_income") == -2000
    async with shop.pool.connection() as conn:
        assert (await ledger_totals(conn)).provider_clearing_fen == 2800
        assert (await ledger_totals(conn)).sum_fen == 0
    assert await shop.sentence(five) == "You enjoyed 40.00, more than the fee of 10.00: you pay 10.00 and save 30.00"
    again = await shop.settle_after(0)
    assert (again.expired, again.cut_off, again.booked) == (0, 0, 0), "running again does nothing"


async def test_a_franchisee_gets_its_discount_back_and_the_chain_the_rest(shop: Shop) -> None:
    membership = await shop.member()
    await shop.use_coupon(membership, fen=300)
    await shop.use_coupon(membership, store=FRANCHISED, fen=500)
    await shop.settle_after(LATER)
    assert (await outcome(shop, membership))[:5] == ("CLOSED", 800, 800, "CLAWBACK", 800)
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 0
    assert await shop.account("north", "due_from:chain") == 500
    assert await shop.account("chain", "due_to:north") == -500
    assert await shop.account("chain", "discount_given:s-own") == 0
    async with shop.pool.connection() as conn:
        north = {(balance.account, balance.book.value): balance.fen for balance in await balances(conn, entity="north")}
    assert north == {
        ("due_from:chain", "posted"): 500,
        (f"sales_gross:{FRANCHISED}", "posted"): -500,
        ("used", "pending"): 500,
        ("used_contra", "pending"): -500,
    }


async def test_nothing_settles_before_its_time(shop: Shop) -> None:
    membership = await member_with(shop, 1)
    assert (await shop.settle_after(30)).expired == 0  # still the last day
    expired = await shop.settle_after(1)
    assert (expired.expired, expired.cut_off) == (1, 0)
    late = shop.use(membership)
    await shop.ask(shop.post_request(late, biz_time=shop.clock.now - timedelta(days=1), unreserved=True))
    await shop.settle_after(1)
    assert (await outcome(shop, membership))[:3] == ("CLOSED", 1600, 1000), "a late arrival counted until the cutoff"
    await shop.ask(
        shop.post_request(shop.use(membership), biz_time=shop.clock.now - timedelta(days=5), unreserved=True)
    )
    assert sorted(await shop.rows("SELECT class, count(*) FROM usage GROUP BY class")) == [("LATE", 1), ("REGULAR", 2)]
    assert await shop.account("chain", "absorbed:chain") == 800


async def test_an_open_reservation_holds_the_cutoff_until_it_is_resolved(shop: Shop) -> None:
    membership = await shop.member()
    shop.clock.now += timedelta(days=30)
    use = shop.use(membership)
    await shop.ask(shop.reserve_request(use))
    runner = shop.runner()
    waiting = await runner.run(shop.clock.now + timedelta(days=LATER))  # business time jumps, the wall does not
    assert (waiting.expired, waiting.cut_off, waiting.reserved) == (1, 0, 1)
    await shop.ask(shop.post_request(use))
    done = await runner.run(shop.clock.now + timedelta(days=LATER))
    assert (done.cut_off, done.reserved) == (1, 0)
    assert (await outcome(shop, membership))[:3] == ("CLOSED", 800, 800)


async def test_a_reservation_that_nobody_paid_ends_at_the_cutoff(shop: Shop) -> None:
    membership = await shop.member()
    await shop.ask(shop.reserve_request(shop.use(membership)))
    report = await shop.settle_after(LATER)
    assert (report.cut_off, report.reserved) == (1, 0)
    assert (await outcome(shop, membership))[:3] == ("CLOSED", 0, 0)


# ---------------------------------------------------------------- reversals after the charge


async def test_a_reversal_after_collection_is_refunded_once(shop: Shop) -> None:
    membership = await shop.member()
    uses = [await shop.use_coupon(membership) for _ in range(2)]
    await shop.settle_after(LATER)
    await shop.reverse(uses[0], ask_id="v-1")
    await shop.reverse(uses[0], ask_id="v-1")
    await shop.settle_after(0)
    assert await outcome(shop, membership) == ("CLOSED", 800, 1000, "FEE", 800, 200, 0, "ended")
    await shop.reverse(uses[1])
    await shop.settle_after(0)
    assert await outcome(shop, membership) == ("CLOSED", 0, 1000, "FEE", 0, 1000, 0, "ended")
    books = await shop.provider_net()
    assert (books["captured_fen"], books["refunded_fen"]) == (1000, 1000)
    assert await shop.account("chain", "membership_fee_income") == 0
    assert await shop.account("chain", "refund_payable") == 0
    assert "10.00 was refunded" in await shop.sentence(membership)


async def test_a_reversal_while_the_capture_is_on_its_way_is_refunded_from_it(shop: Shop) -> None:
    membership = await shop.member()
    use = await shop.use_coupon(membership)

    async def reverse_meanwhile(step: str) -> None:
        if step == "claimed":
            await shop.reverse(use)

    await shop.settle_after(LATER, between_steps=reverse_meanwhile)
    assert await outcome(shop, membership) == ("CLOSED", 0, 800, "CLAWBACK", 0, 800, 0, "ended")
    books = await shop.provider_net()
    assert (books["captured_fen"], books["refunded_fen"]) == (800, 800)


# ---------------------------------------------------------------- failures


async def test_a_failed_capture_is_dunned_on_the_plans_days_and_paid_in_the_end(shop: Shop) -> None:
    membership = await member_with(shop, 2)
    await shop.admin.add_fault(PAY, "fail", sub_code=BROKE, times=2)
    first = await shop.settle_after(LATER)
    assert await outcome(shop, membership) == ("DUNNING", 1600, 1000, "FEE", 0, 0, 1000, "held")
    assert (first.totals.dunning, first.totals.receivable_fen, first.ok) == (1, 1000, True)
    assert await shop.account("chain", "member_receivable") == 1000
    assert (await shop.settle_after(0)).woken == 0
    assert (await shop.settle_after(1)).woken == 1
    assert (await shop.settle_after(2)).woken == 0
    assert (await shop.settle_after(1)).woken == 1  # 1 day, then 3
    assert await outcome(shop, membership) == ("CLOSED", 1600, 1000, "FEE", 1000, 0, 0, "ended")
    assert await shop.account("chain", "member_receivable") == 0
    numbers = [row[0] for row in await shop.rows("SELECT request_number FROM settlement_call ORDER BY attempt")]
    assert numbers == [f"S{membership}G1", f"S{membership}G1A1", f"S{membership}G1A2"]


async def test_a_plan_that_is_exhausted_writes_off_and_a_reversal_forgives(shop: Shop) -> None:
    membership = await shop.member()
    use = await shop.use_coupon(membership, store=FRANCHISED)
    await shop.admin.add_fault(PAY, "fail", sub_code=BROKE, times=3)
    for days in (LATER, 1, 3):
        report = await shop.settle_after(days)
    assert await outcome(shop, membership) == ("WRITTEN_OFF", 800, 800, "CLAWBACK", 0, 0, 800, "ended")
    assert report.ok
    assert await shop.account("chain", "bad_debt") == 800
    assert await shop.account("chain", "member_receivable") == 0
    assert await shop.account("north", f"discount_given:{FRANCHISED}") == 0, "the franchisee got what it gave"
    refused = await shop.ask(await shop.enrol_request(member=(await shop.membership(membership))["member"]))
    assert getattr(refused, "code", "") == "enrol_refused"
    await shop.reverse(use, store=FRANCHISED)
    assert (await outcome(shop, membership))[0] == "CLOSED"
    assert await shop.account("chain", "bad_debt") == 0


async def test_a_debt_that_is_reversed_to_nothing_closes_without_another_attempt(shop: Shop) -> None:
    membership = await shop.member()
    use = await shop.use_coupon(membership)
    await shop.admin.add_fault(PAY, "fail", sub_code=BROKE)
    await shop.settle_after(LATER)
    await shop.reverse(use)
    await shop.settle_after(1)
    assert await outcome(shop, membership) == ("CLOSED", 0, 800, "CLAWBACK", 0, 0, 0, "ended")
    assert (await shop.provider_net())["captured_fen"] == 0


async def test_a_dunning_attempt_takes_what_is_due_then(shop: Shop) -> None:
    membership = await shop.member()
    uses = [await shop.use_coupon(membership) for _ in range(2)]
    await shop.admin.add_fault(PAY, "fail", sub_code=BROKE)
    await shop.settle_after(LATER)
    await shop.reverse(uses[0])
    await shop.settle_after(1)
    assert await outcome(shop, membership) == ("CLOSED", 800, 1000, "FEE", 800, 0, 0, "ended")
    assert (await shop.provider_net())["captured_fen"] == 800


@pytest.mark.parametrize(
    ("method", "fault"),
    [(PAY, "pending")]
    + [
        (method, fault)
        for method in (PAY, UNFREEZE, REFUND)
        for fault in ("timeout_before", "timeout_after", "http_500", "bad_signature")
    ],
)
async def test_an_unclear_answer_is_queried_under_the_same_number(shop: Shop, method: str, fault: str) -> None:
    membership = await shop.member()
    if method != UNFREEZE:
        use = await shop.use_coupon(membership)
    if method == REFUND:
        await shop.settle_after(LATER)
        await shop.reverse(use)
    await shop.admin.add_fault(method, fault)
    async with shop.impatient():
        unclear = await shop.settle_after(LATER)
    assert unclear.open_calls
    if method == PAY:
        assert (await outcome(shop, membership))[0] == "UNKNOWN"
        assert unclear.totals.open == 1
    if fault == "pending":
        await shop.admin.pay_code(shop.customer(), trade_no=await shop.trade_no())
    shop.clock.now += QUERY_AGAIN_AFTER
    assert not (await shop.settle_after(0)).open_calls
    paid_fen = {PAY: 800, UNFREEZE: 0, REFUND: 0}[method]
    row = await outcome(shop, membership)
    assert (row[0], row[4], row[7]) == ("CLOSED", paid_fen, "ended")
    assert (await shop.provider_net())["net_fen"] == paid_fen
    assert (await shop.settle_after(0)).ok


@pytest.mark.parametrize(
    ("fault", "then"), [("timeout_after", ["query_payment"]), ("timeout_before", ["query_payment", "capture"])]
)
async def test_a_number_that_may_have_arrived_is_never_sent_blindly(shop: Shop, fault: str, then: list[str]) -> None:
    await member_with(shop, 1)
    await shop.admin.add_fault(PAY, fault)
    async with shop.impatient():
        await shop.settle_after(LATER)
    overheard = Overheard(shop.provider)
    shop.clock.now += QUERY_AGAIN_AFTER
    await shop.settle_after(0, providers=lambda *_: overheard)
    assert overheard.calls == then


# ---------------------------------------------------------------- crashes


class Killed(Exception):
    """The worker died here."""


STEPS = (
    "cut_off", "cut_off committed", "wake", "claimed", "asked", "answer", "answered", "book", "booked",
)  # fmt: skip


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_after_any_step_is_repaired_by_running_again(shop: Shop, step: str, nth: int) -> None:
    memberships = [await member_with(shop, coupons, user) for user, coupons in (("a", 5), ("b", 1), ("c", 0))]
    left = nth

    async def die(at: str) -> None:
        nonlocal left
        left -= at == step
        if left == 0:
            left = -1
            raise Killed

    # Plain answers are booked by the commit that keeps them: what comes after is reached one by one only.
    together = not step.startswith("book")
    one_by_one = SettlementLimits(1, 1, patience_s=0, plain_by_statement=together)
    with pytest.raises(Killed):
        await shop.settle_after(LATER, between_steps=die, limits=one_by_one)
    shop.clock.now += CALL_LEASE
    report = await shop.settle_after(0)
    assert not report.open_calls
    assert [(await outcome(shop, membership))[:5] for membership in memberships] == [
        ("CLOSED", 4000, 1000, "FEE", 1000),
        ("CLOSED", 800, 800, "CLAWBACK", 800),
        ("CLOSED", 0, 0, None, 0),
    ]
    books = await shop.provider_net()
    assert (books["captured_fen"], books["captured_count"], books["held_fen"]) == (1800, 2, 0)


async def test_a_lease_of_a_worker_that_died_is_respected_until_it_ends(shop: Shop) -> None:
    membership = await member_with(shop, 1)

    async def die(step: str) -> None:
        if step == "asked":
            raise Killed

    with pytest.raises(Killed):
        await shop.settle_after(LATER, between_steps=die)
    early = await shop.settle_after(0)
    assert (early.booked, early.open_calls) == (0, True)
    shop.clock.now += CALL_LEASE
    assert (await shop.settle_after(0)).booked == 1
    assert (await outcome(shop, membership))[0] == "CLOSED"


async def test_several_workers_at_once_take_each_membership_once(shop: Shop) -> None:
    for n in range(12):
        await member_with(shop, n % 3, f"user-{n}")
    shop.clock.now += timedelta(days=LATER)
    limits = SettlementLimits(chunk_memberships_max=2, chunk_calls_max=2, patience_s=5)
    reports = await asyncio.gather(*(shop.runner(limits=limits).run(shop.clock.now) for _ in range(3)))
    await shop.settle_after(0)
    assert sum(report.expired for report in reports) == 12
    assert sum(report.cut_off for report in reports) == 12
    assert await shop.rows("SELECT state, count(*) FROM membership GROUP BY state") == [("CLOSED", 12)]
    assert (await shop.provider_net())["captured_count"] == 8


async def test_a_booked_transaction_can_be_read_back(shop: Shop) -> None:
    membership = await member_with(shop, 1)
    await shop.settle_after(LATER)
    [(txn,)] = await shop.rows("SELECT id FROM txn WHERE kind = 'settled'")
    async with shop.pool.connection() as conn, conn.cursor() as cur:
        booked = await load_transaction(cur, txn)
        assert await load_transaction(cur, "none") is None
    assert booked is not None
    assert (booked.id, booked.memo, booked.request_number) == (txn, membership, f"S{membership}G1")
    assert sum(entry.amount_fen for entry in booked.entries) == 0


class Silent:
    """A provider that never says what became of a payment."""

    async def query_payment(self, **_: object) -> Unknown:
        return Unknown("silence")


async def test_a_capture_without_an_answer_is_asked_about_when_nobody_waits_for_it(shop: Shop) -> None:
    membership = await member_with(shop, 1)
    await shop.admin.add_fault(PAY, "fail", sub_code=BROKE)
    await shop.settle_after(LATER)
    await shop.admin.add_fault(PAY, "timeout_after")
    async with shop.impatient():
        await shop.settle_after(1)
    assert (await outcome(shop, membership))[0] == "UNKNOWN", "the provider collected, and we do not know"
    await shop.rows("UPDATE membership SET state = 'DUNNING' WHERE id = %s RETURNING id", membership)
    shop.clock.now += timedelta(minutes=10)
    await shop.settle_after(0)
    assert await shop.one("SELECT state FROM settlement_call WHERE attempt = 1") == "UNKNOWN"
    late = LateMoney(shop.pool, lambda *_: shop.provider, wall=shop.clock)
    assert [await late.sweep(CHAIN, REGION) for _ in range(2)] == [1, 0]
    await shop.settle_after(0)
    assert await outcome(shop, membership) == ("CLOSED", 800, 800, "CLAWBACK", 800, 0, 0, "ended")

    await shop.rows("UPDATE settlement_call SET state = 'UNKNOWN' WHERE attempt = 1 RETURNING 1")
    silent: Any = Silent()
    deaf = LateMoney(shop.pool, lambda *_: silent, wall=shop.clock)
    assert await deaf.sweep(CHAIN, REGION) == 0
    assert await deaf.sweep(CHAIN, REGION) == 0, "asked again after five minutes"
    assert await shop.one("SELECT state FROM settlement_call WHERE attempt = 1") == "UNKNOWN"
    shop.clock.now += timedelta(days=31)
    await deaf.sweep(CHAIN, REGION)
    state, answer = await shop.one("SELECT state, answer->>'answer' FROM settlement_call WHERE attempt = 1")
    assert (state, answer) == ("POSTED", "failed"), "a month without an answer is a no"
