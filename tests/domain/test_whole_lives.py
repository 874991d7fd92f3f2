"""Whole lives drawn by hypothesis, for every rule family: after each step nobody has lost anything.

About 1,000 histories in `make test`; 100,000 with `make soak`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from models.domain.charging import CancelledBy
from models.domain.errors import Refused
from models.domain.ids import BenefitId, LegalEntityId, UsageId
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
    PlanChanged,
    ProviderAnswer,
    ProviderAnswered,
    Resumed,
    State,
    Suspended,
    UseReported,
    UseReversed,
    renewed,
)
from models.domain.membership_guarantee import RENEWABLE
from models.domain.periods import Days, FixedDate, Months, Period
from models.domain.plans import FeeShares, GuaranteeKind, MerchantCancel, Rule, plan_from_dict
from tests.domain.test_plans import shipped
from tests.domain.whole_life import FINAL, Generation, House, check_arrival_order

START = datetime(2027, 12, 31, 15, 30, tzinfo=UTC)  # half an hour before 2028, a leap year, in Shanghai
ARTICLES = plan_from_dict(shipped())
BENEFITS = (
    replace(ARTICLES.benefits[0], quota=3),
    replace(ARTICLES.benefits[0], id=BenefitId("second"), value_fen=300, quota=2),
)
COUPON, SECOND = (benefit.id for benefit in BENEFITS)
NAMES = (COUPON, COUPON, COUPON, SECOND, SECOND, BenefitId("unknown"))
KINDS = (
    GuaranteeKind.HUABEI_HOLD,
    GuaranteeKind.SESAME_CREDIT,
    GuaranteeKind.BALANCE_HOLD,
    GuaranteeKind.CASH_DEPOSIT,
)
TARGETS = {Rule.TASK_TIMES: 3, Rule.TASK_AMOUNT: 5000}
PERIODS: tuple[Period, ...] = (Days(30), Months(1), Months(1, 31), Days(1), FixedDate(date(2028, 1, 30)))
FEES = (1000, 500, 2500, 1, 0)
ZONES = ("Asia/Shanghai", "America/New_York", "Europe/Berlin")
CLEARLY = (ProviderAnswer.SUCCEEDED, ProviderAnswer.FAILED)


def pick(number: int, *choices: Sequence[Any]) -> list[Any]:
    """One of each of `choices`, decoded from one drawn number: a draw costs more than a step of the life. 0: the first
    of each, so that a failing history shrinks to plain ones."""
    picked = []
    for options in choices:
        number, index = divmod(number, len(options))
        picked.append(options[index])
    return picked


def mixed(number: int) -> int:
    """A number with all its digits, where nothing can be drawn any more."""
    return number * 2654435761 % 2**24  # Knuth's multiplier


NUMBER = st.integers(0, 2**24)
SOON, LATE = (0, 90), (2 * 24 * 60, 0, 90, 3 * 24 * 60, 40 * 24 * 60)


class WholeLife(RuleBasedStateMachine):
    """One member of a plan of rule `family`; the provider, the terminals and the clock do what they like."""

    family = Rule.FEE_MIN

    @initialize(plan=NUMBER, number=NUMBER)
    def enrol(self, plan: int, number: int) -> None:
        fee, policy, period, hour, zone, dunning, exempt, shares = pick(
            plan, FEES, tuple(MerchantCancel), PERIODS, (0, 4), ZONES, (0, 1, 2), (0, 0, 7), tuple(FeeShares)
        )
        if self.family is Rule.CYCLE and isinstance(period, FixedDate):
            period = Days(30)
        terms = replace(
            ARTICLES,
            rule=self.family,
            fee_fen=fee,
            benefits=BENEFITS,
            period=period,
            cutoff_hour=hour,
            zone=zone,
            dunning_days=(1,) * dunning,
            on_merchant_cancel=policy,
            guarantees=KINDS,
            task_target=TARGETS.get(self.family),
            exemption_days=exempt,
            fee_shares=shares,
        )
        kind, answer, slow, uses = pick(
            number,
            KINDS,
            (CreditAnswer.OK, CreditAnswer.HOLD_NEEDED, CreditAnswer.OK, CreditAnswer.HOLD_NEEDED, *CreditAnswer),
            (False,) * 15 + (True,),
            (0, 1, 2, 3),
        )
        self.now = START
        self.serial = 0
        self.events: list[tuple[Event, int]] = []
        self.house = House(terms, Guarantee(kind), START)
        self.admit(answer, slow)
        for serial in range(uses):
            self.buy(mixed(number + serial))

    # ------------------------------------------------------------ helpers

    @property
    def life(self) -> Generation:
        return self.house.generations[-1]

    def meet(self, event: Event, generation: int = -1) -> None:
        generation %= len(self.house.generations)
        self.events.append((event, generation))
        self.house.meet(event, generation)

    def name(self, kind: str) -> str:
        self.serial += 1
        return f"{kind}{self.serial}"

    def admit(self, answer: CreditAnswer, slow: bool) -> None:
        self.meet(CreditAnswered(self.now, answer))
        if self.life.m.state is State.HOLD_PENDING:
            if slow:
                self.meet(HoldTimedOut(self.now))
            self.meet(HoldFrozen(self.now, self.life.m.plan.fee_fen))

    def buy(self, number: int, agos: Sequence[int] = SOON, generation: int = -1) -> None:
        benefit, fen, paid, sale, offline, ago = pick(
            number, NAMES, (800, 300, 1, 799, 500), (1200, 2000, 5000), (None, "s1", "s2"), (False, True), agos
        )
        biz_time = self.now - timedelta(minutes=ago) if offline else self.now
        usage, worth_fen = UsageId(self.name("u")), min(fen, 300) if benefit == "second" else fen
        self.meet(UseReported(self.now, usage, benefit, worth_fen, biz_time, offline, sale, paid), generation)

    def take_back(self, number: int, generation: int = -1) -> None:
        """Of one of the last uses, or of one that is still to come."""
        of, fen = pick(number, range(6), (800, 100, 1, 400, 5000))
        uses = self.house.generations[generation].m.uses
        usage = uses[-1 - of].id if of < len(uses) else UsageId(f"u{self.serial + 2}")
        self.meet(UseReversed(self.now, self.name("r"), usage, fen), generation)

    # ------------------------------------------------------------ what may happen

    @rule(number=NUMBER)
    def purchases(self, number: int) -> None:
        count, minutes = pick(number, (1, 2, 3), (0, 1, 26 * 60))
        self.now += timedelta(minutes=minutes)
        for serial in range(count):
            self.buy(number // 9 + mixed(serial))

    @rule(number=NUMBER)
    def something_late_comes_in(self, number: int) -> None:
        generation, minutes = pick(number, (-1, -1, 0), (0, 7 * 60))
        self.now += timedelta(minutes=minutes)
        self.buy(number // 6, LATE, generation)

    @rule(number=NUMBER)
    def reversals(self, number: int) -> None:
        generation, count = pick(number, (-1, -1, 0), (1, 2))
        for serial in range(count):
            self.take_back(number // 6 + serial * 5, generation)

    @precondition(lambda self: self.events)
    @rule(back=st.integers(0, 8))
    def something_arrives_again(self, back: int) -> None:
        event, generation = self.events[-1 - back % len(self.events)]
        if isinstance(event, UseReported | UseReversed | PlanChanged):
            self.house.meet(event, generation)

    @rule(number=NUMBER)
    def mishap(self, number: int) -> None:
        """Cancel, risk control, a hold's own life, another plan; one at a time."""
        what, by, fee, days = pick(number, range(6), tuple(CancelledBy)[::-1], FEES, (30, 2, 60))
        if what == 0:
            self.now += timedelta(days=number % 12)
            self.meet(Cancelled(self.now, by))
        elif what in (1, 2):
            self.meet((Suspended, Resumed)[what - 1](self.now))
        elif what == 3 and self.life.m.enrolled_at:
            offered = BENEFITS[: 1 + number % 2]
            plan = replace(
                self.life.m.plan,
                version=self.life.m.plan.version + 1,
                fee_fen=fee,
                period=Days(days),
                benefits=offered,
            )
            held = Guarantee(GuaranteeKind.HUABEI_HOLD, fee, HoldState.HELD if fee else HoldState.NONE)
            self.meet(PlanChanged(self.now, self.name("c"), plan, held))
        elif what == 4:
            self.meet(HoldLapsed(self.now))
        elif what == 5 and self.life.m.plan.fee_fen:
            self.meet(HoldFrozen(self.now, self.life.m.plan.fee_fen))

    @rule(jump=st.booleans())
    def timers_fire(self, jump: bool) -> None:
        """Early or late; each fires whatever it was set for."""
        due = due_at(self.life)
        if jump and due is not None:
            self.now = max(self.now, due)
        for event in (Expired(self.now), CutOff(self.now), AttemptDue(self.now)):
            self.meet(event)

    @precondition(lambda self: self.life.m.attempt)
    @rule(number=NUMBER)
    def the_provider_says(self, number: int) -> None:
        answer, generation, again = pick(number, (*CLEARLY, *ProviderAnswer), (-1, -1, 0), (False, True))
        self.meet(ProviderAnswered(self.now, answer), generation)
        if again:
            self.now += timedelta(days=1)
            self.meet(AttemptDue(self.now), generation)

    @precondition(lambda self: self.life.m.state in RENEWABLE)
    @rule(kind=st.sampled_from(KINDS))
    def renew(self, kind: GuaranteeKind) -> None:
        try:
            following = renewed(self.life.m, kind, self.now)
        except Refused:
            return
        if len(self.house.generations) < 3:
            self.house.generations.append(Generation(following, self.house.places))
            self.admit(CreditAnswer.OK, slow=False)
            self.buy(mixed(self.serial))

    # ------------------------------------------------------------ nothing waits for ever

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        for generation, life in enumerate(self.house.generations):
            self.wind_up(generation, life)
            for _ in range(4 if life.captures_fen else 1):  # what comes in when all is over
                self.take_back(mixed(self.serial), generation)
                self.buy(mixed(self.serial), LATE, generation)
            check_arrival_order(life)
        self.house.close_books()

    def wind_up(self, generation: int, life: Generation) -> None:
        """With nothing but timers and answers every generation comes to its end."""
        for step in range(12):
            if life.m.state in FINAL:
                return
            self.now = max(self.now, due_at(life) or self.now)
            match life.m.state:
                case State.ACTIVE | State.SUSPENDED:
                    self.meet(Expired(self.now), generation)
                case State.EXPIRED:
                    self.meet(CutOff(self.now), generation)
                case State.DUNNING:
                    self.meet(AttemptDue(self.now), generation)
                case _:
                    self.meet(ProviderAnswered(self.now, CLEARLY[(step + self.serial // 3) % 2]), generation)
        raise AssertionError(f"{life.m.state} waits for ever")


def due_at(life: Generation) -> datetime | None:
    """When the timer of its state fires."""
    m = life.m
    return {State.ACTIVE: m.expiry, State.SUSPENDED: m.expiry, State.EXPIRED: m.cutoff}.get(m.state)


class TimesLife(WholeLife):
    family = Rule.TASK_TIMES


class AmountLife(WholeLife):
    family = Rule.TASK_AMOUNT


class CycleLife(WholeLife):
    family = Rule.CYCLE


FAMILIES = [WholeLife, TimesLife, AmountLife, CycleLife]


def run(machine: type[WholeLife], histories: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("shares", FeeShares)
@pytest.mark.parametrize("back", [1, 400, 700, 799])
def test_a_return_after_a_reduced_fee_takes_no_store_its_due(shares: FeeShares, back: int) -> None:
    """Rare among the drawn histories: F_eff <= u < F when it was charged, u < F_eff after."""
    plan = replace(
        ARTICLES,
        benefits=BENEFITS,
        guarantees=KINDS,
        on_merchant_cancel=MerchantCancel.PRORATE,
        fee_shares=shares,
        funder_entity=LegalEntityId("funder"),
    )
    house = House(plan, Guarantee(GuaranteeKind.SESAME_CREDIT), START)
    at = START + timedelta(days=10)
    for event in (
        CreditAnswered(START, CreditAnswer.OK),
        UseReported(START, UsageId("at-the-owner"), COUPON, 1, START),
        UseReported(START, UsageId("at-a-franchisee"), COUPON, 800, START),
        Cancelled(at, CancelledBy.MERCHANT),
        CutOff(at + timedelta(days=2)),
        ProviderAnswered(at + timedelta(days=2), ProviderAnswer.SUCCEEDED),
        UseReversed(at + timedelta(days=3), "r1", UsageId("at-a-franchisee"), back),
    ):
        house.meet(event)
    assert house.generations[0].m.paid_fen == min(322, 801 - back)
    house.close_books()


@pytest.mark.parametrize("machine", FAMILIES, ids=lambda machine: machine.family.value)
def test_nobody_loses_in_any_history(machine: type[WholeLife]) -> None:
    run(machine, histories=250, steps=10)


@pytest.mark.soak
@pytest.mark.parametrize("machine", FAMILIES, ids=lambda machine: machine.family.value)
def test_nobody_loses_in_a_hundred_thousand_histories(machine: type[WholeLife]) -> None:
    run(machine, histories=25_000, steps=25)
