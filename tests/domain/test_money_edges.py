"""Edges of the money rules that no story comes by: each was a mutant that nothing else found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from models.domain.accounts import store_of
from models.domain.charging import (
    Branch,
    Cancellation,
    CancelledBy,
    UseClass,
    classify_use,
    effective_fee_fen,
    plan_at,
)
from models.domain.errors import Bug
from models.domain.ids import BenefitId, LegalEntityId, MembershipId, StoreId, UsageId
from models.domain.ledger import (
    Place,
    Settlement,
    StoreShare,
    Taking,
    promised_top_ups,
    sale_paid,
    settled,
    top_ups,
)
from models.domain.member_balance import BALANCE
from models.domain.membership import (
    Cancelled,
    CutOff,
    Expired,
    HoldFrozen,
    HoldLapsed,
    PlanChanged,
    ProviderAnswer,
    ProviderAnswered,
    State,
    UseReported,
    apply,
)
from models.domain.membership_end import attempt_due, positive
from models.domain.membership_events import Guarantee, HoldState
from models.domain.membership_guarantee import guaranteed, guarantees_instead, holder_of
from models.domain.membership_state import HOLD_TIMEOUT, Attempt, Membership, Outcome, Use, broken_invariant
from models.domain.money import Money, Rounding, cash_rounded_fen, divide, format_yuan
from models.domain.payments import PROVIDERS
from models.domain.periods import FixedDate
from models.domain.plans import GuaranteeKind, MerchantCancel, Plan, Rule, plan_from_dict
from models.domain.settlement import CALL_LEASE, CallKind, NewCall, payment_of
from tests.actors.test_settlement import call_of, standing
from tests.domain.test_generations import TIMES, bought
from tests.domain.test_membership import CUTOFF, EXPIRY, after, use
from tests.domain.test_plans import shipped

PLAN = plan_from_dict(shipped())
START = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
COUPON = BenefitId("coupon8")
ALIPAY, WECHAT = PROVIDERS


@pytest.mark.parametrize(
    ("kind", "holder"),
    [
        (GuaranteeKind.HUABEI_HOLD, ALIPAY),
        (GuaranteeKind.SESAME_CREDIT, ALIPAY),
        (GuaranteeKind.MERCHANT_TRUST, ALIPAY),
        (GuaranteeKind.PAY_SCORE, WECHAT),
        (GuaranteeKind.BALANCE_HOLD, BALANCE),
        (GuaranteeKind.CASH_DEPOSIT, BALANCE),
    ],
)
def test_who_secures_and_collects(kind: GuaranteeKind, holder: str) -> None:
    assert holder_of(kind) == holder


def test_whatever_is_refused_the_others_with_money_behind_them_are_offered() -> None:
    kinds = (GuaranteeKind.HUABEI_HOLD, GuaranteeKind.CASH_DEPOSIT, GuaranteeKind.BALANCE_HOLD)
    plan = replace(PLAN, guarantees=kinds)
    for refused in kinds:
        assert guarantees_instead(plan, refused) == tuple(kind for kind in kinds if kind != refused)


@pytest.mark.parametrize(("taken", "use_class"), [(4, UseClass.REGULAR), (5, UseClass.OVERUSE), (6, UseClass.OVERUSE)])
def test_a_plan_with_fewer_uses_than_were_made_has_none_left(taken: int, use_class: UseClass) -> None:
    """More than the quota may be taken: somebody went over to a smaller plan."""
    at = START + timedelta(days=1)
    found = classify_use(
        PLAN, {COUPON: taken}, COUPON, enrolled_at=START, expiry=at + timedelta(days=1), cut_off=False, biz_time=at,
        offline=True,
    )  # fmt: skip
    assert found is use_class


@pytest.mark.parametrize("quota", [1, 1000])
def test_the_last_place_is_taken_by_number_and_not_by_object(quota: int) -> None:
    [benefit] = [one for one in PLAN.benefits if one.id == COUPON]
    plan = replace(PLAN, benefits=(replace(benefit, quota=quota),))
    at = START + timedelta(days=1)
    classes = [
        classify_use(
            plan, taken, COUPON, enrolled_at=START, expiry=at + timedelta(days=1), cut_off=False, biz_time=at,
            offline=True,
        )
        for taken in (Counter[str](), Counter[str]({COUPON: int(str(quota))}))
    ]  # fmt: skip
    assert classes == [UseClass.REGULAR, UseClass.OVERUSE]


def test_a_cancel_on_a_day_before_the_enrolment_leaves_nothing_and_never_less() -> None:
    plan = replace(PLAN, on_merchant_cancel=MerchantCancel.PRORATE, exemption_days=0)
    early = Cancellation(CancelledBy.MERCHANT, START - timedelta(days=3))
    assert effective_fee_fen(plan, START, early) == 0


def test_what_a_row_says_by_itself() -> None:
    row = standing()
    assert (row.task_target, row.task_done, row.guarantee, row.renews, row.first_at) == (None, 0, "", False, None)
    assert (row.cycle, row.cancelled_by, row.provider) == (1, "", ALIPAY)
    assert replace(row, charge_fen=None).due_fen == 0
    assert replace(row, task_target=1).preview_fen == 1000, "a task of which nothing is done"
    new = NewCall(row.id, CallKind.CAPTURE, "S1", 800, START)
    assert new.attempt == 0
    assert (call_of(new).provider, call_of(new).hold_order) == (ALIPAY, "")
    assert timedelta(seconds=60) == CALL_LEASE, "settlement.md says so"


def test_what_an_event_does_by_itself_is_nothing() -> None:
    m = Membership(MembershipId("m1"), PLAN, Guarantee(GuaranteeKind.HUABEI_HOLD), State.ACTIVE)
    none = Outcome(m)
    assert (none.collected_fen, none.refund_fen, none.release_hold_fen) == (0, 0, 0)
    assert not none.cancel_refused
    assert not none.change_refused
    assert (m.generation, m.cycle, m.captured_fen, m.refunded_fen, m.cancels_refused) == (1, 1, 0, 0, 0)
    assert not m.task_kept
    assert Use(UsageId("u1"), COUPON, 800, START, START, False, UseClass.REGULAR).paid_fen == 0
    assert timedelta(minutes=15) == HOLD_TIMEOUT, "memberships.md says so"


HELD = Guarantee(GuaranteeKind.HUABEI_HOLD, 1000, HoldState.HELD)
SOUND = Membership(
    MembershipId("m1"), PLAN, HELD, State.SETTLING, enrolled_at=START, charge_fen=800,
    uses=(Use(UsageId("u1"), COUPON, 800, START, START, False, UseClass.REGULAR),),
)  # fmt: skip
CLOSED = replace(SOUND, state=State.CLOSED, captured_fen=800, guarantee=replace(HELD, hold=HoldState.ENDED))
"""u is 800, the fee 1000."""


@pytest.mark.parametrize(
    ("m", "why"),
    [
        (SOUND, ""),
        (CLOSED, ""),
        (replace(CLOSED, guarantee=replace(HELD, hold=HoldState.ENDED, hold_fen=0)), ""),
        (replace(CLOSED, captured_fen=1), "paid 1 fen is not what is due, 800"),
        (replace(CLOSED, captured_fen=799), "paid 799 fen is not what is due, 800"),
        (replace(CLOSED, captured_fen=801), "paid 801 fen is outside 0..min(fee 1000, used 800)"),
        (replace(CLOSED, charge_fen=700), "paid 800 fen is not what is due, 700"),
        (replace(CLOSED, captured_fen=0, refunded_fen=1), "paid -1 fen is outside 0..min(fee 1000, used 800)"),
        (replace(SOUND, guarantee=replace(HELD, hold_fen=999)), "held 999 fen, less than the fee of 1000"),
        (replace(SOUND, guarantee=replace(HELD, hold_fen=1001)), ""),
        (replace(CLOSED, guarantee=HELD), "closed while the hold is still open"),
        (replace(SOUND, attempt=Attempt("S", 0, 1000, True)), ""),
        (replace(SOUND, attempt=Attempt("S", 0, 1001, True)), "capture of 1001 fen exceeds the fee of 1000"),
    ],
)
def test_the_invariants_say_what_is_wrong(m: Membership, why: str) -> None:
    assert broken_invariant(m) == why


@pytest.mark.parametrize(("fen", "state"), [("799", State.PARKED), ("800", State.CLOSED), ("801", State.PARKED)])
def test_a_capture_is_of_the_amount_that_was_asked_for(fen: str, state: State) -> None:
    asked = after(use(1, START + timedelta(days=1)), Expired(EXPIRY), CutOff(CUTOFF))
    asked.meet(ProviderAnswered(CUTOFF, ProviderAnswer.SUCCEEDED, captured_fen=int(fen)))
    assert asked.membership.state is state


def test_an_amount_of_a_use_is_at_least_one_fen() -> None:
    assert positive(1) == 1
    for fen in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            positive(fen)


def changed_to(plan: Plan, hold_fen: int = 3000, state: HoldState = HoldState.HELD, uses: int = 1) -> bool:
    """Whether a member of the 10.00 plan, with so many uses of 8.00, goes over to another."""
    life = after(*(use(n, START + timedelta(days=1)) for n in range(uses)))
    guarantee = Guarantee(GuaranteeKind.HUABEI_HOLD, hold_fen, state)
    outcome = life.meet(PlanChanged(START + timedelta(days=2), "c1", plan, guarantee))
    assert outcome.change_refused is (outcome.membership.plan != plan)
    refused_fen = hold_fen if state is HoldState.HELD else 0
    assert outcome.release_hold_fen == (refused_fen if outcome.change_refused else 1000)
    return not outcome.change_refused


BIGGER = replace(PLAN, fee_fen=3000)


@pytest.mark.parametrize(
    ("owner", "may"), [("chain", True), ("".join(("ch", "ain")), True), ("a-brand", False), ("z-brand", False)]
)
def test_a_plan_of_another_owner_is_no_change_of_plan(owner: str, may: bool) -> None:
    assert changed_to(replace(BIGGER, owner_entity=LegalEntityId(owner))) is may


@pytest.mark.parametrize(
    ("hold_fen", "state", "may"),
    [
        (2999, HoldState.HELD, False),
        (3000, HoldState.HELD, True),
        (3001, HoldState.HELD, True),
        (3000, HoldState.NONE, False),
        (3000, HoldState.LAPSED, False),
        (3000, HoldState.ENDED, False),
    ],
)
def test_a_change_of_plan_is_covered_by_a_hold_that_stands(hold_fen: int, state: HoldState, may: bool) -> None:
    assert changed_to(BIGGER, hold_fen, state) is may


@pytest.mark.parametrize(("fee_fen", "may"), [(999, False), (1000, True), (1001, True), (3000, True)])
def test_a_change_of_plan_may_raise_what_is_due_and_never_lowers_it(fee_fen: int, may: bool) -> None:
    """Two uses: 10.00 are due."""
    assert changed_to(replace(BIGGER, fee_fen=fee_fen), uses=2) is may


def test_nobody_goes_over_to_a_plan_that_is_over() -> None:
    day = date(2026, 1, 1)
    assert not changed_to(replace(BIGGER, period=FixedDate(day)))
    assert changed_to(replace(BIGGER, period=FixedDate(day + timedelta(days=60))))


@pytest.mark.parametrize("state", HoldState)
@pytest.mark.parametrize("stands", [State.ACTIVE, State.DUNNING, State.WRITTEN_OFF, State.CLOSED])
def test_a_hold_lapses_where_one_stands_and_may_lapse(state: HoldState, stands: State) -> None:
    m = replace(SOUND, state=stands, guarantee=replace(HELD, hold=state))
    after_it = guaranteed(m, HoldLapsed(START)).membership.guarantee.hold
    lapses = state is HoldState.HELD and stands in {State.ACTIVE, State.DUNNING}
    assert after_it is (HoldState.LAPSED if lapses else state)


@pytest.mark.parametrize("state", State)
def test_only_who_is_active_goes_over(state: State) -> None:
    bigger = PlanChanged(START, "c1", BIGGER, replace(HELD, hold_fen=3000))
    assert guaranteed(replace(SOUND, state=state, charge_fen=None), bigger).change_refused is (
        state is not State.ACTIVE
    )


@pytest.mark.parametrize("state", HoldState)
@pytest.mark.parametrize("stands", [State.ACTIVE, State.SUSPENDED, State.EXPIRED, State.DUNNING, State.CLOSED])
def test_a_second_hold_takes_the_place_of_one_that_lapsed_and_else_goes_back(state: HoldState, stands: State) -> None:
    m = replace(SOUND, state=stands, guarantee=replace(HELD, hold=state, hold_fen=0))
    outcome = guaranteed(m, HoldFrozen(START, 1000))
    found = (outcome.membership.guarantee.hold, outcome.release_hold_fen)
    if state is HoldState.LAPSED and stands in {State.ACTIVE, State.SUSPENDED, State.EXPIRED}:
        assert found == (HoldState.HELD, 0)
    elif state in {HoldState.NONE, HoldState.LAPSED}:
        assert found == (HoldState.ENDED, 1000)
    else:
        assert found == (state, 0)


@pytest.mark.parametrize(("purchases", "given_up_fen"), [(1, 478), (2, 0), (3, 0)])
def test_a_promise_kept_twice_over_gives_up_nothing_either(purchases: int, given_up_fen: int) -> None:
    life = after(*(bought(n, f"s{n}", 1200) for n in range(1, purchases + 1)), plan=TIMES)
    life.meet(Cancelled(START + timedelta(days=10), CancelledBy.MERCHANT))
    assert life.membership.given_up_fen == given_up_fen


def test_a_sale_that_cost_nothing_brings_a_promised_amount_no_nearer() -> None:
    plan = replace(PLAN, rule=Rule.TASK_AMOUNT, task_target=5000)
    assert replace(SOUND, plan=plan).task_done == 0
    assert replace(SOUND, plan=plan, uses=(replace(SOUND.uses[0], paid_fen=1200),)).task_done == 1200


@pytest.mark.parametrize("state", State)
def test_an_attempt_is_due_in_dunning_only(state: State) -> None:
    m = replace(SOUND, state=state, attempt=Attempt("S", 0, 800, False))
    outcome = attempt_due(m)
    assert (outcome.capture is not None) is (state is State.DUNNING)
    assert attempt_due(replace(m, attempt=None)).capture is None


def test_what_was_captured_is_open_no_more_and_a_cancel_that_is_refused_says_so() -> None:
    life = after(use(1, START + timedelta(days=1)), Expired(EXPIRY), CutOff(CUTOFF))
    life.meet(ProviderAnswered(CUTOFF, ProviderAnswer.SUCCEEDED))
    assert life.membership.attempt is not None
    assert not life.membership.attempt.open
    refused = life.meet(Cancelled(CUTOFF, CancelledBy.MEMBER))
    assert (refused.cancel_refused, refused.membership.cancels_refused) == (True, 1)


@pytest.mark.parametrize("state", HoldState)
def test_with_nothing_due_only_a_hold_that_stands_goes_back(state: HoldState) -> None:
    unused = replace(SOUND, state=State.EXPIRED, charge_fen=None, uses=(), guarantee=replace(HELD, hold=state))
    outcome = apply(unused, CutOff(CUTOFF))
    assert outcome.membership.state is State.CLOSED
    assert outcome.release_hold_fen == (1000 if state is HoldState.HELD else 0)


def test_amounts_at_their_borders() -> None:
    assert [format_yuan(fen) for fen in (-1, 0, 1, -100)] == ["-0.01", "0.00", "0.01", "-1.00"]
    for denominator in (0, -1, -7):
        with pytest.raises(ValueError, match="denominator must be positive"):
            divide(10, denominator, Rounding.FLOOR)
    with pytest.raises(ValueError, match="due_fen must not be negative"):
        cash_rounded_fen(-1)


@pytest.mark.parametrize(("mine", "theirs"), [("CNY", "HKD"), ("HKD", "CNY")])
def test_no_currency_meets_another_and_each_meets_itself(mine: str, theirs: str) -> None:
    assert Money(1, mine) + Money(2, "".join(list(mine))) == Money(3, mine)
    with pytest.raises(TypeError, match="mixed currencies"):
        Money(1, mine) + Money(1, theirs)


@pytest.mark.parametrize("state", [state for state in State if state is not State.PARKED])
def test_only_who_is_suspended_is_refused_online(state: State) -> None:
    """In time by its own clock, received after the charge was fixed: late, and the merchant's."""
    for offline in (False, True):
        m = replace(CLOSED, state=state)
        found = apply(m, UseReported(CUTOFF, UsageId("u2"), COUPON, 800, START + timedelta(days=1), offline))
        refused = state is State.SUSPENDED and not offline
        assert found.use_class is (UseClass.REFUSED if refused else UseClass.LATE)


@pytest.mark.parametrize(("late", "state"), [(-1, State.ACTIVE), (0, State.EXPIRED), (1, State.EXPIRED)])
def test_a_timer_that_fires_late_ends_it_all_the_same(late: int, state: State) -> None:
    m = replace(SOUND, state=State.ACTIVE, charge_fen=None)
    assert m.expiry is not None
    assert apply(m, Expired(m.expiry + timedelta(seconds=late))).membership.state is state


CHAIN, SHOP = LegalEntityId("chain"), Place(StoreId("s1"), LegalEntityId("north"))
SHARES = (StoreShare(SHOP, 300), StoreShare(Place(StoreId("s2"), CHAIN), 400))


@pytest.mark.parametrize(
    ("fee_eff_fen", "used_fen", "branch", "topped_up"),
    [
        (300, 700, None, True),
        (700, 700, None, True),
        (int("700"), int("700"), None, True),
        (800, 700, None, False),
        (300, 999, None, True),
        (300, 1000, None, False),
        (300, 1001, None, False),
        (300, 700, Branch.FEE, True),
        (800, 700, Branch.FEE, True),
        (300, 700, Branch.CLAWBACK, False),
        (800, 700, Branch.CLAWBACK, False),
    ],
)
def test_a_reduced_fee_is_topped_up_where_the_stores_would_have_had_theirs_back(
    fee_eff_fen: int, used_fen: int, branch: Branch | None, topped_up: bool
) -> None:
    """Of a fee of 10.00."""
    assert top_ups(1000, fee_eff_fen, used_fen, SHARES, branch) == (SHARES if topped_up else ())


def test_only_what_is_missing_of_a_promise_is_topped_up() -> None:
    received = (StoreShare(SHOP, 299), StoreShare(Place(StoreId("s2"), CHAIN), 400))
    assert promised_top_ups(SHARES, received) == (StoreShare(SHOP, 1),)


@pytest.mark.parametrize("due_fen", [699, 701])
def test_what_is_clawed_back_is_what_the_stores_gave(due_fen: int) -> None:
    assert Settlement("m1", CHAIN, ALIPAY, Branch.CLAWBACK, 700, SHARES).shares == SHARES
    with pytest.raises(Bug, match="do not sum"):
        Settlement("m1", CHAIN, ALIPAY, Branch.CLAWBACK, due_fen, SHARES)


@pytest.mark.parametrize("owner", ["chain", "north", "zone"])
def test_between_two_companies_the_one_that_collects_owes_and_within_one_nobody(owner: str) -> None:
    other = LegalEntityId("".join(list(owner)))
    settled_by = Settlement("m1", other, ALIPAY, Branch.CLAWBACK, 300, SHARES[:1])
    found = settled("n", settled_by, captured_fen=300, business_date="d")
    taken = sale_paid(
        "s", place=SHOP, takings=(Taking(500, provider=ALIPAY, collector=other),), due_fen=500, business_date="d",
        other_discount_fen=90, funded=((other, 60),),
    )  # fmt: skip
    for transaction, fen in ((found, 300), (taken, 560)):
        owed = [one.amount_fen for one in transaction.entries if one.account == f"due_from:{owner}"]
        assert sum(owed) == (fen if owner != "north" else 0)
        assert bool([one for one in transaction.entries if one.account.startswith("due_")]) is (owner != "north")
    subsidy = sum(one.amount_fen for one in taken.entries if one.account == f"subsidy:{owner}")
    given = sum(one.amount_fen for one in taken.entries if one.account == "discount_given:s1")
    assert (subsidy, given) == (60, 30)


@pytest.mark.parametrize(
    ("account", "store"),
    [("till:s1:lane-1", "s1"), ("till", ""), ("sales_gross:s1", "s1"), ("provider_clearing:alipay", ""), ("bank", "")],
)
def test_whose_account_it_is(account: str, store: str) -> None:
    assert store_of(account) == store


def test_what_an_event_leaves_out() -> None:
    assert Guarantee(GuaranteeKind.PAY_SCORE) == Guarantee(GuaranteeKind.PAY_SCORE, 0, HoldState.NONE)
    bare = UseReported(START, UsageId("u"), COUPON, 800, START)
    assert (bare.offline, bare.sale, bare.paid_fen) == (False, None, 0)


def test_a_moment_has_the_plan_that_stood_then() -> None:
    first, second = replace(PLAN, version=7), replace(PLAN, version=8)
    before = [(START, first), (START + timedelta(days=2), second)]
    moments = [START + timedelta(hours=hours) for hours in (-1, 0, 47, 48, 900)]
    assert [plan_at(before, PLAN, at) for at in moments] == [first, second, second, PLAN, PLAN]


@pytest.mark.parametrize(
    ("number", "payment"),
    [("RrevA", "S1"), ("RSm1G1A2", "Sm1G1A2"), ("RSm1G1", "Sm1G1"), ("RSm1G1R2R3", "Sm1G1"), ("RSm1", "S1")],
)
def test_a_refund_gives_back_the_capture_that_it_is_named_after_or_the_memberships(number: str, payment: str) -> None:
    refund = NewCall(MembershipId("m1"), CallKind.REFUND, number, 200, START)
    assert payment_of(call_of(refund, captured_number="S1")) == payment
