"""Tasks, upgrades and downgrades, renewal, and what to offer when credit was refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from models.domain.charging import CancelledBy, UseClass, charge_fen, task_done
from models.domain.errors import Refused
from models.domain.ids import BenefitId, LegalEntityId, MembershipId, SaleId, UsageId
from models.domain.membership import (
    AttemptDue,
    Cancelled,
    CreditAnswer,
    CreditAnswered,
    CutOff,
    Event,
    Expired,
    Guarantee,
    HoldFrozen,
    HoldLapsed,
    HoldState,
    Membership,
    PlanChanged,
    ProviderAnswer,
    ProviderAnswered,
    State,
    Suspended,
    UseReported,
    UseReversed,
    apply_for,
    guarantees_instead,
    renewed,
)
from models.domain.periods import Days, FixedDate, Months
from models.domain.plans import GuaranteeKind, Plan, Rule
from tests.domain.lives import Life, enrolled
from tests.domain.test_membership import CUTOFF, DAY, EXPIRY, PLAN, START, after, reverse, settling, use

TIMES = replace(PLAN, rule=Rule.TASK_TIMES, task_target=2)
AMOUNT = replace(PLAN, rule=Rule.TASK_AMOUNT, task_target=5000)


def bought(number: int, sale: str, paid_fen: int, fen: int = 800, offline: bool = False) -> Event:
    at = START + number * timedelta(hours=1)
    return UseReported(at, UsageId(f"u{number}"), BenefitId("coupon8"), fen, at, offline, SaleId(sale), paid_fen)


def settled(plan: Plan, *events: Event) -> Membership:
    return after(*events, Expired(EXPIRY), CutOff(CUTOFF), plan=plan).membership


# ---------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("plan", "events", "done", "charge"),
    [
        (TIMES, [bought(1, "s1", 1200), bought(2, "s2", 1200)], 2, 0),
        (TIMES, [bought(1, "s1", 1200)], 1, 800),
        (TIMES, [bought(1, "s1", 1200), bought(2, "s1", 1200)], 1, 1000),  # two coupons, one purchase
        (TIMES, [bought(1, "s1", 1200), bought(2, "s2", 1200), reverse(1, 1, START + DAY)], 1, 800),
        (TIMES, [bought(1, "s1", 1200), bought(2, "s2", 1200), reverse(1, 1, START + DAY, 799)], 2, 0),
        (TIMES, [], 0, 0),
        (AMOUNT, [bought(1, "s1", 3000), bought(2, "s2", 2000)], 5000, 0),
        (AMOUNT, [bought(1, "s1", 3000), bought(2, "s2", 1999)], 4999, 1000),
        (AMOUNT, [bought(1, "s1", 5000), bought(2, "s1", 5000), reverse(1, 1, START + DAY)], 5000, 0),
        (AMOUNT, [bought(1, "s1", 4000), bought(2, "s1", 4000)], 4000, 1000),  # counted once
        (PLAN, [bought(1, "s1", 9999)], 0, 800),
        (replace(PLAN, rule=Rule.CYCLE), [bought(1, "s1", 9999)], 0, 800),
    ],
)
def test_a_task_that_is_kept_costs_nothing(plan: Plan, events: list[Event], done: int, charge: int) -> None:
    m = settled(plan, *events)
    assert (m.task_done, m.charge_fen, m.task_kept) == (done, charge, bool(plan.task_target and charge == 0 and done))


def test_a_use_without_a_sale_is_a_purchase_of_its_own() -> None:
    assert settled(TIMES, use(1, START), use(2, START + DAY)).charge_fen == 0


def test_what_was_not_regular_keeps_no_promise() -> None:
    life = after(bought(1, "s1", 1200), plan=replace(TIMES, benefits=(replace(PLAN.benefits[0], quota=1),)))
    assert life.meet(bought(2, "s2", 1200, offline=True)).use_class is UseClass.OVERUSE
    assert life.membership.task_done == 1


def test_a_kept_promise_stays_kept_when_goods_come_back_later() -> None:
    m = settled(TIMES, bought(1, "s1", 1200), bought(2, "s2", 1200))
    assert m.state is State.CLOSED
    life = Life(m)
    assert life.meet(reverse(1, 1, CUTOFF + DAY)).refund_fen == 0
    assert (life.membership.charge_fen, life.membership.due_fen, life.membership.given_up_fen) == (0, 0, 0)


def test_a_cancel_by_the_merchant_gives_up_nothing_of_a_promise_that_is_kept() -> None:
    life = after(bought(1, "s1", 1200), Cancelled(START + 10 * DAY, CancelledBy.MERCHANT), plan=TIMES)
    assert (life.membership.due_fen, life.membership.given_up_fen) == (322, 478)
    life = after(
        bought(1, "s1", 1200), bought(2, "s2", 1200), Cancelled(START + 10 * DAY, CancelledBy.MERCHANT), plan=TIMES
    )
    assert (life.membership.due_fen, life.membership.given_up_fen) == (0, 0)


def test_the_charge_of_a_task_as_numbers() -> None:
    assert charge_fen(1000, 800, task_target=3, task_done=3) == 0
    assert charge_fen(1000, 800, task_target=3, task_done=4) == 0
    assert charge_fen(1000, 800, task_target=3, task_done=2) == 800
    assert charge_fen(1000, 800) == 800
    assert charge_fen(1000, 800, task_target=1) == 800, "nothing was done unless somebody says so"
    with pytest.raises(ValueError, match="task_done"):
        charge_fen(1000, 800, task_target=3, task_done=-1)
    assert task_done(PLAN, [5, 6]) == 0


# ---------------------------------------------------------------- upgrade and downgrade


def held(fee_fen: int, kind: GuaranteeKind = GuaranteeKind.HUABEI_HOLD) -> Guarantee:
    return Guarantee(kind, fee_fen, HoldState.HELD)


def changed(life: Life, plan: Plan, guarantee: Guarantee, at: datetime = START + DAY) -> tuple[bool, int]:
    outcome = life.meet(PlanChanged(at, "c1", plan, guarantee))
    return outcome.change_refused, outcome.release_hold_fen


BIGGER, SMALLER = replace(PLAN, version=2, fee_fen=3000), replace(PLAN, version=2, fee_fen=500)


def test_a_change_swaps_the_holds_once() -> None:
    life = after()
    assert changed(life, BIGGER, held(3000)) == (False, 1000)
    assert changed(life, BIGGER, held(3000)) == (False, 0), "a duplicate releases nothing"
    assert life.membership.guarantee == held(3000)


@pytest.mark.parametrize(
    ("events", "plan", "guarantee", "why"),
    [
        ([Suspended(START)], BIGGER, held(3000), "suspended"),
        ([Cancelled(START + DAY, CancelledBy.MEMBER)], BIGGER, held(3000), "cancelled meanwhile"),
        ([], BIGGER, held(2999), "the new hold is too small"),
        ([], BIGGER, held(3000, GuaranteeKind.BALANCE_HOLD), "not a guarantee of the plan"),
        ([], replace(BIGGER, owner_entity=LegalEntityId("other")), held(3000), "another legal entity"),
        ([], replace(BIGGER, period=FixedDate(date(2026, 1, 1))), held(3000), "the new plan is over"),
        ([use(1, START)], SMALLER, held(500), "800 would be owed already"),
    ],
)
def test_a_change_that_may_not_be_gives_the_new_hold_back(
    events: list[Event], plan: Plan, guarantee: Guarantee, why: str
) -> None:
    life = after(*events)
    before = life.membership
    assert changed(life, plan, guarantee) == (True, guarantee.hold_fen), why
    assert (life.membership.plan, life.membership.guarantee) == (before.plan, before.guarantee)
    assert changed(life, plan, guarantee) == (False, 0), "and once"


def test_a_hold_that_never_was_cannot_carry_a_fee() -> None:
    life = after()
    assert changed(life, BIGGER, Guarantee(GuaranteeKind.HUABEI_HOLD)) == (True, 0)
    free = replace(PLAN, version=2, fee_fen=0)
    life = after()
    assert changed(life, free, Guarantee(GuaranteeKind.HUABEI_HOLD)) == (False, 1000)


def test_a_downgrade_that_lowers_nothing_owed_is_free() -> None:
    life = after(use(1, START, fen=500))
    assert changed(life, SMALLER, held(500)) == (False, 1000)
    assert life.membership.due_fen == 500


def test_what_was_promised_before_a_change_is_worth_what_the_plan_of_its_moment_says() -> None:
    life = after()
    coupon = PLAN.benefits[0]
    halved = replace(BIGGER, benefits=(replace(coupon, id=BenefitId("other")),))
    assert changed(life, halved, held(3000)) == (False, 1000)
    before, since = use(1, START + DAY / 2, offline=True), use(2, START + DAY, offline=True)
    arrived = replace(before, at=START + 2 * DAY)
    assert life.meet(arrived).use_class is UseClass.REGULAR, "offline, and heard of after the change"
    assert life.meet(replace(since, at=START + 2 * DAY)).use_class is UseClass.OVERUSE
    assert life.membership.used_fen == 800


def test_the_new_plans_period_counts_from_the_first_day() -> None:
    life = after()
    assert changed(life, replace(BIGGER, period=Days(60)), held(3000)) == (False, 1000)
    assert life.membership.expiry == START - timedelta(hours=10) + 61 * DAY
    # On the 41st day of 60 somebody goes over to 30 days: the second of those is under way.
    assert life.meet(PlanChanged(START + 40 * DAY, "c2", BIGGER, held(3000))).release_hold_fen == 3000
    assert life.membership.cycle == 2
    assert life.membership.expiry == EXPIRY + 30 * DAY


# ---------------------------------------------------------------- holds that lapse


@pytest.mark.parametrize("settles", [False, True])
def test_a_hold_may_lapse_while_the_charge_is_dunned(settles: bool) -> None:
    life = after(*settling(), ProviderAnswered(CUTOFF, ProviderAnswer.FAILED))
    life.meet(HoldLapsed(CUTOFF + timedelta(hours=1)))
    assert life.membership.guarantee.hold is HoldState.LAPSED
    late = life.meet(HoldFrozen(CUTOFF + timedelta(hours=2), 1000))
    assert late.release_hold_fen == 1000, "too late to be of use"
    if settles:
        life.meet(AttemptDue(CUTOFF + DAY))
        assert life.meet(ProviderAnswered(CUTOFF + DAY, ProviderAnswer.SUCCEEDED)).collected_fen == 800
    else:
        life.meet(UseReversed(CUTOFF + DAY, "r", UsageId("u0"), 800))
        assert life.meet(AttemptDue(CUTOFF + DAY)).release_hold_fen == 0


def test_a_hold_may_be_frozen_again_until_the_cutoff() -> None:
    life = after(use(1, START), Expired(EXPIRY), HoldLapsed(EXPIRY))
    assert life.meet(HoldFrozen(EXPIRY + timedelta(hours=1), 1000)).release_hold_fen == 0
    assert life.membership.guarantee.hold is HoldState.HELD


# ---------------------------------------------------------------- renewal

MONTHLY = replace(PLAN, rule=Rule.CYCLE, period=Months(1), guarantees=tuple(GuaranteeKind))
ENROLLED = datetime(2026, 1, 31, 2, tzinfo=UTC)


def opened(m: Membership, at: datetime) -> Membership:
    life = Life(renewed(m, GuaranteeKind.HUABEI_HOLD, at))
    life.meet(CreditAnswered(at, CreditAnswer.OK))
    life.meet(HoldFrozen(at, m.plan.fee_fen))
    return life.membership


def ended(m: Membership) -> Life:
    assert m.expiry is not None
    life = Life(m)
    life.meet(Expired(m.expiry))
    return life


def test_generations_follow_their_anchor_day_and_settle_under_their_own_numbers() -> None:
    m = enrolled(MONTHLY, ENROLLED)
    ends, numbers = [], []
    for generation in range(1, 5):
        assert m.expiry is not None
        assert (m.generation, m.cycle) == (generation, generation)
        ends.append((m.expiry - timedelta(hours=1)).date())
        at = m.expiry - DAY
        life = Life(m)
        life.meet(UseReported(at, UsageId("u"), BenefitId("coupon8"), 800, at))
        life = ended(life.membership)
        assert life.membership.cutoff is not None
        capture = life.meet(CutOff(life.membership.cutoff)).capture
        assert capture is not None
        numbers.append(capture.number)
        m = opened(life.membership, m.expiry)
        assert (m.used_fen, m.charge_fen, m.guarantee.hold_fen) == (0, None, 1000)
    assert ends == [date(2026, 2, 28), date(2026, 3, 31), date(2026, 4, 30), date(2026, 5, 31)]
    assert numbers == ["Sm1G1", "Sm1G2", "Sm1G3", "Sm1G4"]


def test_a_generation_that_opens_late_runs_to_the_same_end() -> None:
    m = opened(ended(enrolled(MONTHLY, ENROLLED)).membership, datetime(2026, 3, 20, 2, tzinfo=UTC))
    assert m.expiry == datetime(2026, 3, 31, 16, tzinfo=UTC)
    m = opened(ended(enrolled(MONTHLY, ENROLLED)).membership, datetime(2026, 4, 2, 2, tzinfo=UTC))
    assert (m.cycle, m.expiry) == (3, datetime(2026, 4, 30, 16, tzinfo=UTC))


def test_what_a_later_generation_leaves_of_the_fee_counts_from_its_own_first_day() -> None:
    m = opened(ended(enrolled(MONTHLY, ENROLLED)).membership, datetime(2026, 3, 3, 2, tzinfo=UTC))
    life = Life(m)
    life.meet(Cancelled(datetime(2026, 3, 13, 2, tzinfo=UTC), CancelledBy.MERCHANT))
    assert life.membership.fee_eff_fen == 1000 * 10 // 29


def test_exemption_days_are_those_of_the_enrolment_alone() -> None:
    plan = replace(MONTHLY, exemption_days=7)
    first, second = enrolled(plan, ENROLLED), opened(ended(enrolled(plan, ENROLLED)).membership, ENROLLED + 29 * DAY)
    for m, fee in ((first, 0), (second, 1000)):
        assert m.enrolled_at is not None
        life = Life(m)
        life.meet(Cancelled(m.enrolled_at + DAY, CancelledBy.MEMBER))
        assert life.membership.fee_eff_fen == fee


CLOSED = after(*settling(0)).membership


@pytest.mark.parametrize(
    ("m", "code"),
    [
        (enrolled(MONTHLY, ENROLLED), "renewal_refused"),
        (
            after(Cancelled(START + DAY, CancelledBy.MEMBER), plan=replace(PLAN, guarantees=tuple(GuaranteeKind))),
            "renewal_refused",
        ),
        (after(*settling(), ProviderAnswered(CUTOFF, ProviderAnswer.FAILED)), "renewal_refused"),
        (replace(CLOSED, plan=replace(PLAN, guarantees=(GuaranteeKind.SESAME_CREDIT,))), "guarantee_unavailable"),
        (replace(CLOSED, plan=replace(PLAN, period=FixedDate(date(2026, 1, 31)))), "plan_over"),
        (apply_for(MembershipId("m1"), PLAN, GuaranteeKind.HUABEI_HOLD, START), "renewal_refused"),
    ],
)
def test_no_next_generation(m: Membership | Life, code: str) -> None:
    membership = m.membership if isinstance(m, Life) else m
    with pytest.raises(Refused) as caught:
        renewed(membership, GuaranteeKind.HUABEI_HOLD, CUTOFF + DAY)
    assert caught.value.code == code


def test_nobody_enrols_after_the_last_day() -> None:
    plan = replace(PLAN, period=FixedDate(date(2026, 1, 1)))
    assert apply_for(MembershipId("m1"), plan, GuaranteeKind.HUABEI_HOLD, START).state is State.ADMITTING
    with pytest.raises(Refused) as caught:
        apply_for(MembershipId("m1"), plan, GuaranteeKind.HUABEI_HOLD, START + timedelta(hours=14))
    assert caught.value.code == "plan_over"


def test_who_has_no_credit_is_offered_what_has_money_behind_it() -> None:
    plan = replace(
        PLAN,
        guarantees=(
            GuaranteeKind.SESAME_CREDIT,
            GuaranteeKind.HUABEI_HOLD,
            GuaranteeKind.MERCHANT_TRUST,
            GuaranteeKind.CASH_DEPOSIT,
        ),
    )
    rest = (GuaranteeKind.HUABEI_HOLD, GuaranteeKind.CASH_DEPOSIT)
    assert guarantees_instead(plan, GuaranteeKind.SESAME_CREDIT) == rest
    assert guarantees_instead(plan, GuaranteeKind.HUABEI_HOLD) == (GuaranteeKind.CASH_DEPOSIT,)
