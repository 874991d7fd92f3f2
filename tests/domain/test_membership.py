from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.charging import (
    Branch,
    Cancellation,
    CancelledBy,
    UseClass,
    charge_fen,
    cutoff_instant,
    due_fen,
    effective_fee_fen,
    expiry_instant,
    request_number,
)
from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import BenefitId, MembershipId, UsageId
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
    HoldTimedOut,
    Membership,
    PlanChanged,
    ProviderAnswer,
    ProviderAnswered,
    Resumed,
    State,
    Suspended,
    UseReported,
    UseReversed,
    apply,
    apply_for,
)
from models.domain.plans import GuaranteeKind, MerchantCancel, Plan, plan_from_dict
from tests.domain.lives import Life, cases, enrolled, event_of, live
from tests.domain.test_plans import shipped

PLAN = plan_from_dict(shipped())
DAY, COUPON = timedelta(days=1), BenefitId("coupon8")
START = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)  # 10:00 in Shanghai
EXPIRY = datetime(2026, 1, 31, 16, 0, tzinfo=UTC)  # 00:00 on 1 February in Shanghai
CUTOFF = EXPIRY + DAY


def use(number: int, at: datetime, fen: int = 800, offline: bool = False, biz: datetime | None = None) -> Event:
    return UseReported(at, UsageId(f"u{number}"), COUPON, fen, biz or at, offline)


def reverse(number: int, of: int, at: datetime, fen: int = 800) -> Event:
    return UseReversed(at, f"r{number}", UsageId(f"u{of}"), fen)


def answered(at: datetime, answer: str) -> Event:
    return ProviderAnswered(at, ProviderAnswer(answer))


def after(*events: Event, plan: Plan = PLAN) -> Life:
    life = Life(enrolled(plan, START))
    for event in events:
        life.meet(event)
    return life


def settling(uses: int = 1) -> list[Event]:
    """Uses on the first days, then expiry and cutoff."""
    return [*(use(n, START + n * DAY) for n in range(uses)), Expired(EXPIRY), CutOff(CUTOFF)]


# ---------------------------------------------------------------- instants and fees


def test_expiry_is_midnight_after_the_last_day_and_cutoff_a_grace_later() -> None:
    assert expiry_instant(START, PLAN) == EXPIRY
    assert cutoff_instant(EXPIRY, PLAN) == CUTOFF
    late_shop = replace(PLAN, cutoff_hour=4)
    assert expiry_instant(START, late_shop) == EXPIRY + timedelta(hours=4)
    # 01:00 local on 1 January is 1 January for the calendar, whatever the shop's cutoff hour.
    assert expiry_instant(START - timedelta(hours=9), late_shop) == EXPIRY + timedelta(hours=4)


def test_expiry_is_local_midnight_where_clocks_change() -> None:
    plan = replace(PLAN, zone="America/New_York")
    enrolled_at = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
    assert expiry_instant(enrolled_at, plan) == datetime(2026, 3, 23, 4, 0, tzinfo=UTC)
    assert cutoff_instant(datetime(2026, 3, 8, 4, 30, tzinfo=UTC), plan) == datetime(2026, 3, 9, 3, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("policy", "by", "days", "fee_eff"),
    [
        (MerchantCancel.PRORATE, CancelledBy.MERCHANT, 0, 0),
        (MerchantCancel.PRORATE, CancelledBy.MERCHANT, 10, 322),  # floor(1000 * 10 / 31)
        (MerchantCancel.PRORATE, CancelledBy.MERCHANT, 31, 1000),
        (MerchantCancel.PRORATE, CancelledBy.MERCHANT, 99, 1000),
        (MerchantCancel.ZERO, CancelledBy.MERCHANT, 10, 0),
        (MerchantCancel.MIN, CancelledBy.MERCHANT, 10, 1000),
        (MerchantCancel.ZERO, CancelledBy.MEMBER, 10, 1000),
        (MerchantCancel.PRORATE, CancelledBy.MEMBER, 10, 1000),
    ],
)
def test_what_a_cancel_leaves_of_the_fee(policy: MerchantCancel, by: CancelledBy, days: int, fee_eff: int) -> None:
    plan = replace(PLAN, on_merchant_cancel=policy)
    assert effective_fee_fen(plan, START, Cancellation(by, START + days * DAY)) == fee_eff


def test_amounts_of_the_rules_are_never_negative_or_float() -> None:
    with pytest.raises(ValueError, match="used_fen"):
        charge_fen(1000, -1)
    with pytest.raises(TypeError):
        charge_fen(10.0, 800)  # type: ignore[arg-type]  # the refusal is the test
    assert due_fen(800, 1000, 500) == 500


def test_numbers_of_captures() -> None:
    assert [request_number("m1", 2, retry) for retry in (0, 1, 4)] == ["Sm1G2", "Sm1G2A1", "Sm1G2A4"]
    assert request_number("m1", 2) == "Sm1G2"


# ---------------------------------------------------------------- admission and guarantee


def applied(kind: GuaranteeKind = GuaranteeKind.HUABEI_HOLD) -> Membership:
    plan = replace(PLAN, guarantees=tuple(GuaranteeKind))
    return apply_for(MembershipId("m1"), plan, kind, START)


@pytest.mark.parametrize(
    ("kind", "answer", "state"),
    [
        (GuaranteeKind.SESAME_CREDIT, CreditAnswer.OK, State.ACTIVE),
        (GuaranteeKind.SESAME_CREDIT, CreditAnswer.HOLD_NEEDED, State.HOLD_PENDING),
        (GuaranteeKind.HUABEI_HOLD, CreditAnswer.OK, State.HOLD_PENDING),
        (GuaranteeKind.HUABEI_HOLD, CreditAnswer.REFUSED, State.REJECTED),
    ],
)
def test_admission(kind: GuaranteeKind, answer: CreditAnswer, state: State) -> None:
    assert apply(applied(kind), CreditAnswered(START, answer)).membership.state is state


def test_an_abandoned_application_gives_a_late_hold_back_once() -> None:
    life = Life(applied())
    life.meet(CreditAnswered(START, CreditAnswer.HOLD_NEEDED))
    life.meet(HoldTimedOut(START + timedelta(minutes=15)))
    assert life.membership.state is State.ABANDONED
    assert life.meet(HoldFrozen(START + DAY, 1000)).release_hold_fen == 1000
    assert life.meet(HoldFrozen(START + DAY, 1000)).release_hold_fen == 0
    assert life.membership.state is State.ABANDONED


def test_the_guarantee_must_be_the_plans() -> None:
    with pytest.raises(Refused) as caught:
        apply_for(MembershipId("m1"), PLAN, GuaranteeKind.CASH_DEPOSIT, START)
    assert caught.value.code == "guarantee_unavailable"


def test_enrolling_again_waits_for_the_interval() -> None:
    plan = replace(PLAN, enrol_again_after_days=7)
    args = (MembershipId("m1"), plan, GuaranteeKind.HUABEI_HOLD)
    with pytest.raises(Refused) as caught:
        apply_for(*args, START + 6 * DAY, last_ended_at=START)
    assert caught.value.code == "enrol_too_soon"
    assert apply_for(*args, START + 7 * DAY, last_ended_at=START).state is State.ADMITTING


def test_a_hold_smaller_than_the_fee_parks() -> None:
    pending = apply(applied(), CreditAnswered(START, CreditAnswer.OK)).membership
    assert apply(pending, HoldFrozen(START, 999)).membership.state is State.PARKED


def test_suspension_stops_online_use_and_resumes() -> None:
    life = after(Suspended(START + DAY))
    assert life.meet(use(1, START + DAY)).use_class is UseClass.REFUSED
    assert life.meet(use(2, START + DAY, offline=True)).use_class is UseClass.REGULAR
    life.meet(Resumed(START + 2 * DAY))
    assert life.meet(use(3, START + 2 * DAY)).use_class is UseClass.REGULAR
    life.meet(Suspended(START + 3 * DAY))
    life.meet(Expired(EXPIRY))
    assert life.membership.state is State.EXPIRED


def test_a_lapsed_hold_may_be_frozen_again_and_else_the_charge_is_withheld_at_the_end() -> None:
    life = after(HoldLapsed(START + DAY))
    assert life.membership.guarantee.hold is HoldState.LAPSED
    refrozen = apply(life.membership, HoldFrozen(START + 2 * DAY, 1000)).membership
    assert refrozen.guarantee.hold is HoldState.HELD
    for event in settling():
        capture = life.meet(event).capture
    assert capture is not None
    assert capture.fen == 800
    life.meet(answered(CUTOFF + DAY, "succeeded"))
    assert life.membership.guarantee.hold is HoldState.LAPSED, "nothing is left to release"


def test_a_change_of_plan_holds_first_and_then_releases() -> None:
    bigger = replace(PLAN, fee_fen=3000)
    held = Guarantee(GuaranteeKind.HUABEI_HOLD, 3000, HoldState.HELD)
    life = after(use(1, START + DAY))
    outcome = life.meet(PlanChanged(START + 2 * DAY, "c1", bigger, held))
    assert outcome.release_hold_fen == 1000
    assert (outcome.membership.plan.fee_fen, outcome.membership.used_fen) == (3000, 800)


def test_use_before_enrolment_is_outside_the_life() -> None:
    pending = applied()
    assert apply(pending, use(1, START)).use_class is UseClass.REFUSED
    assert apply(pending, use(1, START, offline=True)).use_class is UseClass.OVERUSE


# ---------------------------------------------------------------- timers, answers and broken things


def test_timers_that_fire_early_or_twice_change_nothing() -> None:
    life = after(use(1, START + DAY))
    states = [
        life.meet(event).membership.state
        for event in (
            Expired(EXPIRY - timedelta(seconds=1)),
            CutOff(CUTOFF),
            Expired(EXPIRY),
            CutOff(CUTOFF - timedelta(seconds=1)),
        )
    ]
    assert states == [State.ACTIVE, State.ACTIVE, State.EXPIRED, State.EXPIRED]
    first = life.meet(CutOff(CUTOFF))
    assert first.capture is not None
    again = life.meet(CutOff(CUTOFF))
    assert (again.capture, again.membership) == (None, first.membership)


def test_a_cancel_after_an_overdue_expiry_does_not_lengthen_the_membership() -> None:
    life = after(Cancelled(EXPIRY + DAY, CancelledBy.MEMBER))
    assert life.membership.expiry == EXPIRY


def test_an_unclear_answer_is_queried_under_the_same_number() -> None:
    life = after(*settling(5))
    outcome = life.meet(answered(CUTOFF + DAY, "unknown"))
    assert (outcome.query, outcome.capture, life.membership.state) == ("Sm1G1", None, State.UNKNOWN)
    outcome = life.meet(answered(CUTOFF + 2 * DAY, "succeeded"))
    assert (outcome.collected_fen, life.membership.paid_fen, life.membership.state) == (1000, 1000, State.CLOSED)


def test_dunning_follows_the_plans_days_and_ends_in_writing_off() -> None:
    life = after(*settling(5))
    at, waits, numbers = CUTOFF, [], []
    for _ in range(4):
        due_at = life.meet(answered(at, "failed")).attempt_due_at
        assert due_at is not None
        waits.append((due_at - at).days)
        at = due_at
        capture = life.meet(AttemptDue(at)).capture
        assert capture is not None
        numbers.append(capture.number)
    last = life.meet(answered(at, "failed"))
    assert waits == [1, 1, 8, 6]
    assert numbers == ["Sm1G1A1", "Sm1G1A2", "Sm1G1A3", "Sm1G1A4"]
    assert (life.membership.state, last.attempt_due_at) == (State.WRITTEN_OFF, None)
    assert last.release_hold_fen == 1000, "a hold is not kept over a debt that was given up"
    late = life.meet(answered(at + DAY, "succeeded"))
    assert (late.collected_fen, life.membership.state) == (1000, State.CLOSED)


def test_nothing_owed_is_held_against_the_member_in_either_order() -> None:
    """The last failure and the reversal of everything commute: CLOSED both ways."""
    plan = replace(PLAN, dunning_days=())
    failed, back = answered(CUTOFF + DAY, "failed"), reverse(1, 0, CUTOFF + DAY)
    for events in ([failed, back], [back, failed]):
        assert after(*settling(), *events, plan=plan).membership.state is State.CLOSED


def test_a_later_attempt_takes_only_what_is_still_due() -> None:
    life = after(*settling(2), answered(CUTOFF, "failed"), reverse(1, 0, CUTOFF + DAY, 700))
    capture = life.meet(AttemptDue(CUTOFF + DAY)).capture
    assert capture is not None
    assert (capture.number, capture.fen, life.membership.charge_fen) == ("Sm1G1A1", 900, 1000)


def test_a_capture_of_another_amount_parks_and_an_operator_is_needed() -> None:
    life = after(*settling())
    life.meet(ProviderAnswered(CUTOFF, ProviderAnswer.SUCCEEDED, captured_fen=801))
    assert life.membership.state is State.PARKED
    assert "801" in life.membership.parked_because
    with pytest.raises(NeedsOperator):
        life.meet(AttemptDue(CUTOFF + DAY))


def test_events_that_are_wrong_in_themselves_raise() -> None:
    membership = enrolled(PLAN, START)
    with pytest.raises(ValueError, match="time zone"):
        apply(membership, Expired(datetime(2026, 2, 1)))  # noqa: DTZ001  # the refusal is the test
    with pytest.raises(ValueError, match="positive"):
        apply(membership, use(1, START, fen=0))
    with pytest.raises(TypeError):
        apply(membership, reverse(1, 1, START, fen=True))


def test_renewal_settles_under_a_number_of_its_own() -> None:
    again = apply_for(MembershipId("m1"), PLAN, GuaranteeKind.HUABEI_HOLD, START, generation=2)
    life = Life(again)
    life.meet(CreditAnswered(START, CreditAnswer.OK))
    life.meet(HoldFrozen(START, 1000))
    capture = [life.meet(event).capture for event in settling()][-1]
    assert capture is not None
    assert capture.number == "Sm1G2"


# ---------------------------------------------------------------- properties

SPAN_MINUTES = 45 * 24 * 60
MINUTES = st.integers(0, SPAN_MINUTES)
NUMBERS = st.integers(0, 8)


def _use_event(at: int, number: int, fen: int, ago: int, offline: bool) -> tuple[int, Event]:
    received = START + timedelta(minutes=at)
    return at, use(number, received, fen, offline, received - timedelta(minutes=ago))


EVENTS = st.one_of(
    st.builds(_use_event, MINUTES, NUMBERS, st.integers(1, 800), st.integers(0, 5000), st.booleans()),
    st.builds(
        lambda at, number, of, fen: (at, reverse(number, of, START + timedelta(minutes=at), fen)),
        MINUTES,
        NUMBERS,
        NUMBERS,
        st.integers(1, 900),
    ),
    st.builds(lambda at, by: (at, Cancelled(START + timedelta(minutes=at), by)), MINUTES, st.sampled_from(CancelledBy)),
    st.builds(
        lambda at, answer: (at, ProviderAnswered(START + timedelta(minutes=at), answer)),
        MINUTES,
        st.sampled_from(ProviderAnswer),
    ),
    st.builds(
        lambda at, kind: (at, kind(START + timedelta(minutes=at))),
        MINUTES,
        st.sampled_from([AttemptDue, Suspended, Resumed, HoldLapsed, Expired, CutOff]),
    ),
)
TIMERS: list[tuple[int, Event]] = [
    (30 * 24 * 60 + 840, Expired(EXPIRY)),
    (31 * 24 * 60 + 840, CutOff(CUTOFF)),
]
PLANS = st.builds(
    lambda fee, policy, dunning: replace(PLAN, fee_fen=fee, on_merchant_cancel=policy, dunning_days=(1,) * dunning),
    st.sampled_from([0, 1, 500, 1000, 3000]),
    st.sampled_from(MerchantCancel),
    st.integers(0, 3),
)
HISTORIES = st.lists(EVENTS, max_size=30).map(
    lambda events: [event for _, event in sorted([*events, *TIMERS], key=lambda pair: pair[0])]
)


def facts(m: Membership) -> tuple[Any, ...]:
    """What the member and the books see at the end."""
    return m.state, m.used_fen, m.charge_fen, m.paid_fen, m.branch, m.given_up_fen


@settings(max_examples=300)
@given(PLANS, HISTORIES)
def test_nobody_ever_pays_more_than_the_fee_or_the_benefit(plan: Plan, events: list[Event]) -> None:
    life = Life(enrolled(plan, START))
    charges = set()
    for event in events:
        life.meet(event)
        m = life.membership
        assert m.state is not State.PARKED, m.parked_because
        assert 0 <= m.paid_fen <= min(m.fee_eff_fen, m.used_fen)
        assert 0 <= m.used_fen <= 5 * 800
        assert m.quota_taken()[COUPON] <= 5
        assert m.given_up_fen >= 0
        if m.charge_fen is not None:
            charges.add((m.charge_fen, m.branch))
            assert m.due_fen == due_fen(m.charge_fen, m.fee_eff_fen, m.used_fen)
    assert len(charges) <= 1, "charge and branch are fixed once"
    collected = [outcome.collected_fen for outcome in life.outcomes if outcome.collected_fen]
    refunds = sum(outcome.refund_fen for outcome in life.outcomes)
    assert len(collected) <= 1
    assert sum(collected) - refunds == life.membership.paid_fen
    numbers = [outcome.capture.number for outcome in life.outcomes if outcome.capture]
    assert len(numbers) == len(set(numbers)) <= 1 + plan.dunning_attempts


@settings(max_examples=200)
@given(PLANS, HISTORIES)
def test_a_charge_is_explained_by_usage_lines(plan: Plan, events: list[Event]) -> None:
    life = Life(enrolled(plan, START))
    for event in events:
        before = life.membership
        life.meet(event)
        if before.charge_fen is None and life.membership.charge_fen is not None:
            m = life.membership
            lines = sum(m.net_fen(each) for each in m.uses if each.use_class is UseClass.REGULAR)
            assert m.charge_fen == before.due_fen == min(m.fee_eff_fen, lines), "preview == charge"
            if m.branch is Branch.CLAWBACK:
                assert m.charge_fen == lines
            assert (m.branch is None) == (m.charge_fen == 0)


@settings(max_examples=200)
@given(PLANS, HISTORIES, st.data())
def test_duplicates_have_no_effect(plan: Plan, events: list[Event], data: st.DataObject) -> None:
    once, twice = Life(enrolled(plan, START)), Life(enrolled(plan, START))
    for event in events:
        first = once.meet(event)
        twice.meet(event)
        if data.draw(st.booleans()):
            again = twice.meet(event)
            assert again.capture is None
            assert (again.collected_fen, again.refund_fen, again.release_hold_fen) == (0, 0, 0)
            if isinstance(event, UseReported):
                assert again.use_class is first.use_class
    assert facts(once.membership) == facts(twice.membership)
    assert once.classes == twice.classes


@settings(max_examples=200)
@given(
    st.integers(0, 5),
    st.lists(EVENTS, max_size=10),
    st.sampled_from(["succeeded", "failed"]),
    st.randoms(use_true_random=False),
)
def test_arrival_order_after_collection_changes_nothing(
    uses: int, events: list[tuple[int, Event]], answer: str, random: Any
) -> None:
    plan = replace(PLAN, dunning_days=())
    late = [event for _, event in events if isinstance(event, UseReported | UseReversed)]
    # One id means one event: what repeats it is a duplicate, and a duplicate says the same.
    late = list({(type(event), event.id): event for event in late}.values())
    base = [*settling(uses), answered(CUTOFF, answer)]
    shuffled = list(late)
    random.shuffle(shuffled)
    one, other = after(*base, *late, plan=plan), after(*base, *shuffled, plan=plan)
    assert facts(one.membership) == facts(other.membership)
    assert sum(o.refund_fen for o in one.outcomes) == sum(o.refund_fen for o in other.outcomes)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_every_event_of_a_life_may_arrive_twice(case: dict[str, Any]) -> None:
    once = live(case)
    twice = Life(enrolled(once.membership.plan, datetime.fromisoformat(case["enrolled_at"])))
    for data in case["events"]:
        twice.meet(event_of(data))
        twice.meet(event_of(data))
    told = twice.told()
    told["refused_cancels"] = case["expect"]["refused_cancels"]  # each asking is counted
    assert told == case["expect"]


# ---------------------------------------------------------------- one sentence
