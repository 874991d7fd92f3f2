"""Settlement's decisions: against the pure membership over all 504 lives, and one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from actors.settlement import Booking, Step, after_reversal, book_answer, next_step, send_after_query, state_after
from models.domain.charging import Branch, branch_of
from models.domain.ids import ChainId, LegalEntityId, MemberId, MembershipId, RegionId, StoreId
from models.domain.ledger import Book, Place, StoreShare, Transaction
from models.domain.membership import (
    AttemptDue,
    CutOff,
    Event,
    HoldState,
    Membership,
    ProviderAnswer,
    ProviderAnswered,
    State,
    UseReversed,
)
from models.domain.payments import (
    AnyAnswer,
    Failed,
    FailReason,
    PayResult,
    Pending,
    RefundResult,
    ReleaseResult,
    Succeeded,
    Unknown,
    WaitsFor,
)
from models.domain.settlement import Call, CallKind, CallState, NewCall, Standing, capture_call, release_call
from tests.domain.lives import Life, cases, enrolled, event_of, plan_of

AT = datetime(2026, 5, 1, tzinfo=UTC)
STORE = Place(StoreId("s1"), LegalEntityId("north"))
CASES = cases()
PLAN = plan_of(CASES[0]["plan"])
REFUSED = Failed(FailReason.NOT_ENOUGH_FUNDS, "x")


def standing(**changes: Any) -> Standing:
    row = Standing(
        id=MembershipId("m1"),
        enrol_key="e",
        member=MemberId("p"),
        chain=ChainId("c"),
        region=RegionId("r"),
        store=STORE.store,
        terminal="t",
        session="v",
        plan=PLAN,
        owner=LegalEntityId("chain"),
        generation=1,
        state=State.SETTLING,
        fee_fen=1000,
        fee_eff_fen=1000,
        used_fen=1600,
        hold_order="Hm1",
        hold_no="h",
        hold_fen=1000,
        hold_state=HoldState.HELD,
        enrolled_at=AT,
        expires_at=AT,
        cutoff_at=AT,
        charge_fen=1000,
        branch=Branch.FEE,
        paid_fen=0,
        refunded_fen=0,
        receivable_fen=0,
        captured_number="",
        attempts=0,
    )
    return replace(row, **changes)


def call_of(new: NewCall, answer: AnyAnswer | None = None, **changes: Any) -> Call:
    row = Call(
        membership=new.membership,
        owner=LegalEntityId("chain"),
        kind=new.kind,
        number=new.number,
        fen=new.fen,
        state=CallState.NEW if answer is None else CallState.ANSWERED,
        attempt=new.attempt,
        tries=1,
        not_before=new.not_before,
        lease_until=None,
        answer=answer,
        hold_no="h",
        captured_number="",
    )
    return replace(row, **changes)


def paid(fen: int) -> Succeeded[PayResult]:
    return Succeeded(PayResult(fen, fen, fen, fen, (), "t"))


# ---------------------------------------------------------------- all lives, row against pure membership


@dataclass
class RowLife:
    """The same life as rows: what the statements of models.tables.settlement do around the pure decisions."""

    row: Standing
    call: NewCall | None = None
    refunds_fen: list[int] = field(default_factory=list)
    booked: list[Transaction] = field(default_factory=list)

    def meet(self, event: Event, before: Membership, after: Membership) -> None:
        used_before = before.used_fen
        if self.row.charge_fen is None:
            self.row = replace(
                self.row, state=after.state, used_fen=used_before, fee_eff_fen=after.fee_eff_fen, plan=after.plan
            )
        match event:
            case CutOff() if after.charge_fen is not None and before.charge_fen is None:
                self._cut_off(event.at)
            case AttemptDue() if self.row.state is State.DUNNING and self.call is not None:
                self._wake(event.at)
            case ProviderAnswered() if self.call is not None and not self.row.captured_number:
                self._answer(event)
            case UseReversed() if used_before != after.used_fen:
                self._do(
                    after_reversal(self.row, event.id, used_before - after.used_fen, STORE, event.at, provider="alipay")
                )
            case _:
                self.row = replace(self.row, used_fen=after.used_fen)

    def _cut_off(self, at: datetime) -> None:
        charge = min(self.row.fee_eff_fen, self.row.used_fen)
        self.row = replace(
            self.row, state=State.SETTLING, charge_fen=charge, branch=branch_of(charge, self.row.fee_eff_fen)
        )
        if charge:
            self.call = capture_call(self.row, 0, charge, at)
        else:
            self._release(at)

    def _wake(self, at: datetime) -> None:
        assert self.call is not None
        self.row = replace(self.row, state=State.SETTLING)
        if self.row.due_fen:
            self.call = capture_call(self.row, self.row.attempts, self.row.due_fen, at)
        else:
            self._release(at)

    def _answer(self, event: ProviderAnswered) -> None:
        assert self.call is not None
        open_ = self.row.state in {State.SETTLING, State.UNKNOWN}
        match event.answer:
            case ProviderAnswer.SUCCEEDED:
                self._book(self.call, paid(self.call.fen), event.at)
            case ProviderAnswer.FAILED if open_:
                self._book(self.call, REFUSED, event.at)
            case ProviderAnswer.UNKNOWN if open_:
                self.row = replace(self.row, state=State.UNKNOWN)
            case _:
                pass

    def _book(self, call: NewCall, answer: AnyAnswer, at: datetime) -> None:
        fen = self.row.due_fen if self.row.branch is Branch.CLAWBACK else 0
        shares = (StoreShare(STORE, fen),) if fen else ()
        self._do(book_answer(self.row, call_of(call, answer), shares, at, provider="alipay"))

    def _release(self, at: datetime) -> None:
        if self.row.hold_state is HoldState.HELD:
            new = release_call(self.row, at)
            self._book(new, Succeeded(ReleaseResult("h", new.fen)), at)
        else:
            self.row = replace(self.row, state=State.CLOSED)

    def _do(self, booking: Booking) -> None:
        assert booking.parked_why == ""
        self.row = booking.standing
        self.booked += booking.transactions
        for new in booking.calls:
            match new.kind:
                case CallKind.REFUND:
                    self.refunds_fen.append(new.fen)
                    self._book(new, Succeeded(RefundResult("t", new.fen)), new.not_before)
                case CallKind.RELEASE:
                    self._book(new, Succeeded(ReleaseResult("h", new.fen)), new.not_before)
                case CallKind.CAPTURE:
                    pass  # opened by `_wake`, on its day


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rows_settle_every_life_as_the_pure_membership_does(case: dict[str, Any]) -> None:
    plan = plan_of(case["plan"])
    life = Life(enrolled(plan, datetime.fromisoformat(case["enrolled_at"])))
    held = HoldState.HELD if plan.fee_fen else HoldState.NONE
    rows = RowLife(
        standing(
            plan=plan, state=State.ACTIVE, fee_fen=plan.fee_fen, fee_eff_fen=plan.fee_fen, used_fen=0,
            hold_fen=plan.fee_fen, hold_state=held, charge_fen=None, branch=None,
        )
    )  # fmt: skip
    for data in case["events"]:
        before = life.membership
        event = event_of(data)
        life.meet(event)
        rows.meet(event, before, life.membership)
        if life.membership.charge_fen is not None:
            assert rows.row.state is life.membership.state, data
            assert rows.row.paid_fen == life.membership.paid_fen
            assert rows.row.due_fen == life.membership.due_fen
    expect = case["expect"]
    if life.membership.charge_fen is None:
        return
    told = (rows.row.state, rows.row.charge_fen, rows.row.paid_fen, rows.row.used_fen, rows.refunds_fen)
    assert told == tuple(expect[key] for key in ("state", "charge_fen", "paid_fen", "used_fen", "refunds_fen"))
    assert (rows.row.branch and rows.row.branch.value) == expect["branch"]
    assert rows.row.hold_state is not HoldState.HELD or rows.row.state in {State.DUNNING, State.UNKNOWN, State.SETTLING}
    sums: Counter[str] = Counter()
    for txn in rows.booked:
        for entry in txn.entries:
            if entry.book is Book.POSTED:
                sums[entry.account] += entry.amount_fen
    assert sums["provider_clearing:alipay"] == rows.row.paid_fen
    owed = sums["bad_debt"] if rows.row.state is State.WRITTEN_OFF else sums["member_receivable"]
    assert owed == rows.row.receivable_fen
    assert sums["refund_payable"] == 0
    income = -sums["membership_fee_income"] - sums["discount_given:s1"]
    assert income == rows.row.paid_fen + rows.row.receivable_fen
    assert len({txn.id for txn in rows.booked}) == len(rows.booked), "one request is booked once"


# ---------------------------------------------------------------- what to do next


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"tries": 0}, Step.SEND),
        ({"tries": 1}, Step.QUERY),
        ({"tries": 3, "state": CallState.UNKNOWN}, Step.QUERY),
        ({"tries": 1, "lease_until": AT + timedelta(seconds=1)}, Step.WAIT),
        ({"tries": 1, "lease_until": AT}, Step.QUERY),
        ({"tries": 0, "not_before": AT + timedelta(seconds=1)}, Step.WAIT),
        ({"state": CallState.ANSWERED}, Step.BOOK),
        ({"state": CallState.POSTED}, Step.NOTHING),
    ],
)
def test_a_free_worker_knows_what_to_do_with_a_call(changes: dict[str, Any], step: Step) -> None:
    call = call_of(capture_call(standing(), 0, 1000, AT), **changes)
    assert next_step(call, AT, AT) is step


@pytest.mark.parametrize(
    ("answer", "definite", "send_again"),
    [
        (paid(1000), True, False),
        (REFUSED, True, False),
        (Pending(WaitsFor.PROVIDER), False, False),
        (Unknown("timeout"), False, False),
        (Unknown("not_found", absent=True), False, True),
    ],
)
def test_only_success_and_failure_are_definite(answer: AnyAnswer, definite: bool, send_again: bool) -> None:
    assert (state_after(answer) is CallState.ANSWERED) is definite
    assert send_after_query(answer) is send_again


# ---------------------------------------------------------------- what must not happen, parks


def book(row: Standing, new: NewCall, answer: AnyAnswer) -> Booking:
    return book_answer(row, call_of(new, answer), (), AT, provider="alipay")


def test_a_capture_of_another_amount_parks() -> None:
    booking = book(standing(), capture_call(standing(), 0, 1000, AT), paid(999))
    assert (booking.standing.state, booking.transactions) == (State.PARKED, ())
    assert "another amount" in booking.parked_why


def test_a_second_capture_parks() -> None:
    row = standing(state=State.CLOSED, captured_number="Sm1G1", paid_fen=1000)
    assert "captured twice" in book(row, capture_call(row, 1, 1000, AT), paid(1000)).parked_why


@pytest.mark.parametrize("state", [State.CLOSED, State.WRITTEN_OFF, State.DUNNING, State.PARKED])
def test_a_failure_that_is_heard_too_late_changes_nothing(state: State) -> None:
    row = standing(state=state, captured_number="Sm1G1", paid_fen=1000, attempts=1)
    assert book(row, capture_call(row, 1, 1000, AT), REFUSED) == Booking(row)


def test_a_refund_that_fails_parks() -> None:
    row = standing(state=State.CLOSED, captured_number="Sm1G1", paid_fen=200, refunded_fen=800)
    new = NewCall(row.id, CallKind.REFUND, "Rx", 800, AT)
    booking = book(row, new, REFUSED)
    assert (booking.standing.state, booking.parked_why) == (
        State.PARKED,
        "refund Rx failed: not_enough_funds (x)",
    )


@pytest.mark.parametrize("reason", list(FailReason))
def test_a_release_that_fails_because_nothing_is_held_is_over(reason: FailReason) -> None:
    row = standing(charge_fen=0, branch=None, used_fen=0)
    booking = book(row, release_call(row, AT), Failed(reason, "x"))
    over = reason in {FailReason.HOLD_GONE, FailReason.HOLD_EXHAUSTED, FailReason.ORDER_UNKNOWN}
    assert booking.standing.state is (State.CLOSED if over else State.PARKED)


def test_a_release_closes_only_what_waits_for_it_and_owes_nothing() -> None:
    back = Succeeded(ReleaseResult("h", 1000))
    parked = standing(state=State.PARKED, charge_fen=0, branch=None, used_fen=0)
    assert book(parked, release_call(parked, AT), back).standing.state is State.PARKED, "a person closes it"
    owing = standing()
    assert book(owing, release_call(owing, AT), back).standing.state is State.SETTLING


def test_records_that_differ_wait_for_a_person_and_are_not_dunned() -> None:
    row = standing()
    booking = book(row, capture_call(row, 0, 1000, AT), Failed(FailReason.RECORDS_DIFFER, "ours: 8.00"))
    assert (booking.standing.state, booking.calls, booking.transactions) == (State.PARKED, (), ())
    assert "the records differ. ours: 8.00" in booking.parked_why


def test_periods_count_from_the_enrolment_that_began_the_row() -> None:
    earlier = AT - timedelta(days=30)
    assert standing().row_began_at == AT
    assert standing(first_at=earlier).row_began_at == earlier


def test_a_debt_forgiven_before_its_hold_is_back_closes_with_the_release() -> None:
    row = standing(state=State.WRITTEN_OFF, used_fen=800, charge_fen=800, receivable_fen=800, attempts=3)
    forgiven = after_reversal(row, "v", 800, STORE, AT, provider="alipay").standing
    assert (forgiven.state, forgiven.receivable_fen) == (State.SETTLING, 0)
    back = book(forgiven, release_call(row, AT), Succeeded(ReleaseResult("h", 1000))).standing
    assert (back.state, back.hold_state) == (State.CLOSED, HoldState.ENDED)


def test_dunning_follows_the_plans_days() -> None:
    plan = replace(PLAN, dunning_days=(1, 8))
    row = standing(plan=plan)
    for attempt, days in enumerate((1, 8)):
        booking = book(row, capture_call(row, attempt, 1000, AT), REFUSED)
        [following] = booking.calls
        assert booking.standing.state is State.DUNNING
        assert (following.number, following.not_before) == (f"Sm1G1A{attempt + 1}", AT + timedelta(days=days))
        row = replace(booking.standing, state=State.SETTLING)
    last = book(row, capture_call(row, 2, 1000, AT), REFUSED)
    assert last.standing.state is State.WRITTEN_OFF
    assert [call.kind for call in last.calls] == [CallKind.RELEASE]
