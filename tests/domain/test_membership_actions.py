"""What an action would do to a membership, foreseen: every action in every state, every sentence, every fen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from models.domain.charging import CancelledBy
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, PlanId
from models.domain.member_balance import BALANCE
from models.domain.membership import HoldState, State
from models.domain.membership_actions import (
    Action,
    Asked,
    Cancel,
    ChangePlan,
    Consequence,
    Done,
    FreezeAgain,
    LapseHold,
    Renew,
    Resume,
    Suspend,
    credit_admitted,
    foresee,
    told,
    waived_fen,
)
from models.domain.payments import PROVIDERS
from models.domain.periods import FixedDate
from models.domain.plans import HOLD_GUARANTEES, GuaranteeKind, Plan, Rule, plan_from_dict
from models.domain.settlement import Standing
from tests.actors.test_settlement import standing
from tests.domain.test_plans import shipped

PLAN = replace(plan_from_dict(shipped()), funder_entity=LegalEntityId("brand"))
"""The articles' plan: 10.00 for 30 days, 1 day of grace, prorated; what is given up is borne by `brand`."""
BIGGER = replace(PLAN, id=PlanId("light-30"), fee_fen=3000, guarantees=tuple(GuaranteeKind))
BEGAN = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
EXPIRY = datetime(2026, 1, 31, 16, 0, tzinfo=UTC)
"""00:00 of 1 February in Shanghai."""
NOW = BEGAN + timedelta(days=10)
DAY = timedelta(days=1)
HUABEI = GuaranteeKind.HUABEI_HOLD
REFUSAL = {
    Cancel: "cancel_refused",
    Suspend: "suspend_refused",
    Resume: "resume_refused",
    Renew: "renew_refused",
    ChangePlan: "change_refused",
    LapseHold: "lapse_refused",
    FreezeAgain: "freeze_refused",
}


def member(**changes: Any) -> Standing:
    """Active, 7.00 used, 10.00 held."""
    row = standing(
        plan=PLAN, state=State.ACTIVE, used_fen=700, enrolled_at=BEGAN, expires_at=EXPIRY, cutoff_at=EXPIRY + DAY,
        charge_fen=None, branch=None, guarantee=HUABEI.value,
    )  # fmt: skip
    return replace(row, **changes)


def refusal(row: Standing, action: Action, now: datetime = NOW) -> str:
    """The code of the refusal; empty when it would be done."""
    try:
        foresee(row, action, now)
    except Refused as refused:
        return refused.code
    return ""


def goes_over(row: Standing, plan: Plan, guarantee: GuaranteeKind = HUABEI) -> str:
    return refusal(row, ChangePlan(plan, guarantee))


POSSIBLE = {
    Cancel(CancelledBy.MEMBER): {State.ACTIVE, State.SUSPENDED},
    Cancel(CancelledBy.MERCHANT): {State.ACTIVE, State.SUSPENDED},
    Suspend(): {State.ACTIVE},
    Resume(): {State.SUSPENDED},
    Renew(): {State.ACTIVE, State.SUSPENDED, State.EXPIRED, State.SETTLING, State.UNKNOWN, State.CLOSED},
    Renew(False): {State.ACTIVE, State.SUSPENDED, State.EXPIRED, State.SETTLING, State.UNKNOWN, State.CLOSED},
    ChangePlan(BIGGER, HUABEI): {State.ACTIVE},
    LapseHold(): {State.ACTIVE, State.SUSPENDED, State.EXPIRED, State.DUNNING},
    FreezeAgain(): {State.ACTIVE, State.SUSPENDED, State.EXPIRED},
}
NEEDS_HOLD = {LapseHold(): HoldState.HELD, FreezeAgain(): HoldState.LAPSED}


@pytest.mark.parametrize("action", POSSIBLE, ids=lambda action: type(action).__name__)
def test_what_may_be_done_in_which_state(action: Action) -> None:
    for state in State:
        for hold in HoldState:
            may = state in POSSIBLE[action] and NEEDS_HOLD.get(action, hold) is hold
            found = refusal(member(state=state, hold_state=hold), action)
            assert found == ("" if may else REFUSAL[type(action)]), (state, hold)


def test_a_refusal_says_what_stands_in_the_way_and_where_to_look() -> None:
    with pytest.raises(Refused) as caught:
        foresee(member(state=State.CLOSED), Suspend(), NOW)
    assert caught.value.message == "only an active one is suspended; this one is CLOSED"
    assert caught.value.do == "look at its state and its dates"
    with pytest.raises(ValueError, match="time zone"):
        foresee(member(), Suspend(), NOW.replace(tzinfo=None))


def same_money(row: Standing, zh: str, en: str, **changes: Any) -> dict[str, Any]:
    """What is told where nothing but the state changes: 7.00 are due, nothing is given up."""
    return {
        "state": row.state.value, "plan": "light-10", "plan_version": 1, "subject": "十元轻会员",
        "expires_at": "2026-01-31T16:00:00+00:00", "cutoff_at": "2026-02-01T16:00:00+00:00", "renews": False,
        "fee_eff_fen": 1000, "used_fen": 700, "charge_fen": 700, "given_up_fen": 0, "funder": "brand",
        "new_hold_fen": 0, "release_fen": 0, "zh": zh, "en": en, **changes,
    }  # fmt: skip


def test_what_only_changes_the_state_moves_no_money() -> None:
    held, lapsed = member(), member(hold_state=HoldState.LAPSED)
    suspended = replace(held, state=State.SUSPENDED)
    found = foresee(held, Suspend(), NOW)
    assert found.after == suspended
    assert told(found) == same_money(
        suspended, "暂停：不能再在线使用优惠，款项不变。", "Suspended: no benefit can be used online; no money moves."
    )
    found = foresee(suspended, Resume(), NOW)
    assert found.after == held
    assert told(found) == same_money(held, "恢复使用，款项不变。", "It can be used again; no money moves.")
    found = foresee(held, LapseHold(), NOW)
    assert found.after == lapsed
    assert found.text.zh == "冻结已失效：可重新冻结，否则到期直接扣款。"
    assert (found.charge_fen, found.new_hold_fen, found.release_fen) == (700, 0, 0)
    found = foresee(lapsed, FreezeAgain(), NOW)
    assert found.after == lapsed, "the freeze itself is what makes it stand again"
    assert told(found) == same_money(lapsed, "重新冻结 10.00 元。", "10.00 is frozen again.", new_hold_fen=1000)


def test_whoever_renews_is_told_the_fee_and_its_hold() -> None:
    found = foresee(member(), Renew(), NOW)
    assert found.after == member(renews=True)
    zh, en = "本期到期时开通下一期，会费 10.00 元", "When this period ends the next one opens, fee 10.00"
    assert told(found) == same_money(
        found.after, f"{zh}，另行冻结。", f"{en}, with its own hold.", renews=True, new_hold_fen=1000
    )
    trusted = foresee(member(guarantee="merchant_trust"), Renew(), NOW)
    assert (trusted.text.zh, trusted.text.en, trusted.new_hold_fen) == (f"{zh}。", f"{en}.", 0)
    assert foresee(member(plan=replace(PLAN, fee_fen=0)), Renew(), NOW).new_hold_fen == 0
    ends = foresee(member(renews=True), Renew(False), NOW)
    assert ends.after == member()
    assert told(ends) == same_money(
        member(), "本期结束后不再续期，款项不变。", "It ends with this period; no money moves."
    )


def test_nobody_renews_what_was_cancelled_or_ends_for_everybody_but_the_wish_may_go_back() -> None:
    fixed = member(plan=replace(PLAN, period=FixedDate(date(2026, 12, 31))))
    for row in (member(cancelled_by="member"), fixed):
        assert refusal(row, Renew()) == "renew_refused"
        assert refusal(row, Renew(False)) == ""


# ---------------------------------------------------------------- cancel


def test_a_cancel_by_the_merchant_gives_up_the_days_that_were_not_served() -> None:
    found = foresee(member(renews=True), Cancel(CancelledBy.MERCHANT), NOW)
    assert found.after == member(
        state=State.EXPIRED, expires_at=NOW, cutoff_at=NOW + DAY, fee_eff_fen=322, cancelled_by="merchant"
    )
    assert told(found) == same_money(
        found.after,
        "会员资格立即终止，不再续期。已享优惠 7.00 元，有效会费 3.22 元：应付 3.22 元。减免 3.78 元，由 brand 承担。",
        "It ends now and does not renew. Benefits used 7.00, fee that counts 3.22: the member pays 3.22."
        " 3.78 is given up, borne by brand.",
        expires_at=NOW.isoformat(), cutoff_at=(NOW + DAY).isoformat(),
        fee_eff_fen=322, charge_fen=322, given_up_fen=378,
    )  # fmt: skip


def test_a_cancel_by_the_member_leaves_the_fee_and_gives_nothing_up() -> None:
    found = foresee(member(), Cancel(CancelledBy.MEMBER), NOW)
    assert (found.after.fee_eff_fen, found.after.cancelled_by) == (1000, "member")
    assert (found.charge_fen, found.given_up_fen, found.new_hold_fen, found.release_fen) == (700, 0, 0, 0)
    assert found.text.zh.endswith("应付 7.00 元。")
    assert found.text.en.endswith("the member pays 7.00.")


@pytest.mark.parametrize(
    ("overdue", "ends"), [(-timedelta(seconds=1), -1), (timedelta(0), 0), (timedelta(seconds=1), 0), (9 * DAY, 0)]
)
def test_a_cancel_never_lengthens_what_is_over(overdue: timedelta, ends: int) -> None:
    found = foresee(member(), Cancel(CancelledBy.MERCHANT), EXPIRY + overdue)
    assert found.after.expires_at == EXPIRY + timedelta(seconds=ends)


def test_a_later_generation_is_prorated_over_its_own_days() -> None:
    second = member(enrolled_at=EXPIRY, first_at=BEGAN, cycle=2, expires_at=EXPIRY + 30 * DAY)
    found = foresee(second, Cancel(CancelledBy.MERCHANT), EXPIRY + 10 * DAY)
    assert found.after.fee_eff_fen == 333, "10 days of 30"


@pytest.mark.parametrize(
    ("fee_eff", "used", "target", "done", "waived"),
    [
        (1000, 700, None, 0, 0),
        (322, 700, None, 0, 378),
        (322, 1600, None, 0, 678),
        (0, 700, None, 0, 700),
        (322, 300, None, 0, 0),
        (322, 700, 2, 1, 378),
        (322, 700, 2, 2, 0),
    ],
)
def test_what_a_cancel_lets_the_member_off(fee_eff: int, used: int, target: int | None, done: int, waived: int) -> None:
    assert waived_fen(member(fee_eff_fen=fee_eff, used_fen=used, task_target=target, task_done=done)) == waived


# ---------------------------------------------------------------- a change of plan


def test_a_change_of_plan_freezes_first_and_releases_then() -> None:
    found = foresee(member(), ChangePlan(BIGGER, HUABEI), NOW)
    assert found.after == member(
        plan=BIGGER, fee_fen=3000, fee_eff_fen=3000, hold_order="", hold_no="", hold_fen=0, hold_state=HoldState.NONE
    )
    assert told(found) == same_money(
        found.after,
        "改为 十元轻会员，会费 30.00 元。先冻结 30.00 元，再解冻原有 10.00 元。",
        "It becomes Light membership 10, fee 30.00. First 30.00 is frozen, then 10.00 of the old hold goes back.",
        plan="light-30", fee_eff_fen=3000, new_hold_fen=3000, release_fen=1000,
    )  # fmt: skip


def consequence(row: Standing, plan: Plan, guarantee: GuaranteeKind, now: datetime = NOW) -> Consequence:
    return foresee(row, ChangePlan(plan, guarantee), now)


@pytest.mark.parametrize("hold", HoldState)
@pytest.mark.parametrize("guarantee", GuaranteeKind)
def test_what_is_frozen_and_what_goes_back(guarantee: GuaranteeKind, hold: HoldState) -> None:
    """The old hold goes back where one stands, the new one is frozen where the guarantee holds anything."""
    found = consequence(member(hold_state=hold), BIGGER, guarantee)
    new_fen = 3000 if guarantee in HOLD_GUARANTEES else 0
    back_fen = 1000 if hold is HoldState.HELD else 0
    assert (found.new_hold_fen, found.release_fen) == (new_fen, back_fen)
    assert ("先冻结 30.00 元" in found.text.zh, "First 30.00 is frozen" in found.text.en) == (new_fen > 0,) * 2
    assert ("解冻" in found.text.zh, "old hold goes back" in found.text.en) == (new_fen + back_fen > 0,) * 2
    assert found.after.guarantee == guarantee.value
    holders = {GuaranteeKind.PAY_SCORE: PROVIDERS[1], GuaranteeKind.BALANCE_HOLD: BALANCE}
    assert found.after.provider == {**holders, GuaranteeKind.CASH_DEPOSIT: BALANCE}.get(guarantee, PROVIDERS[0])


def test_what_goes_back_alone_is_told_alone() -> None:
    found = consequence(member(), BIGGER, GuaranteeKind.SESAME_CREDIT)
    assert found.text.zh == "改为 十元轻会员，会费 30.00 元。解冻原有 10.00 元。"
    assert found.text.en == "It becomes Light membership 10, fee 30.00. 10.00 of the old hold goes back."
    free = consequence(member(used_fen=0), replace(BIGGER, fee_fen=0), HUABEI)
    assert (free.new_hold_fen, free.release_fen, free.charge_fen) == (0, 1000, 0)


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({"id": PlanId("light-10")}, False),
        ({"id": PlanId("light-10"), "version": 2}, True),
        ({"id": PlanId("light-10"), "version": 0}, True),
        ({"id": PlanId("alight")}, True),
        ({"owner_entity": LegalEntityId("".join(("ch", "ain")))}, True),
        ({"owner_entity": LegalEntityId("a-brand")}, False),
        ({"owner_entity": LegalEntityId("z-brand")}, False),
        ({"fee_fen": 699}, False),
        ({"fee_fen": 700}, True),
        ({"fee_fen": 999}, True),
    ],
)
def test_another_plan_of_the_same_owner_that_lowers_nothing(changes: dict[str, Any], may: bool) -> None:
    """7.00 were used, so 7.00 are owed."""
    assert goes_over(member(), replace(BIGGER, **changes)) == ("" if may else "change_refused")


def test_more_may_come_to_be_owed_and_nothing_at_all_may_stay_so() -> None:
    used = member(used_fen=2000)
    assert (used.preview_fen, consequence(used, BIGGER, HUABEI).charge_fen) == (1000, 2000)
    assert goes_over(member(used_fen=0), BIGGER) == ""
    assert goes_over(member(), replace(BIGGER, guarantees=(GuaranteeKind.PAY_SCORE,))) == "guarantee_unavailable"


def test_a_change_of_plan_takes_the_new_terms_over() -> None:
    task = replace(BIGGER, rule=Rule.TASK_TIMES, task_target=3, grace_days=5)
    after = consequence(member(), task, HUABEI).after
    assert (after.task_target, after.cutoff_at, after.renews) == (3, EXPIRY + 5 * DAY, False)
    assert consequence(member(renews=True), task, HUABEI).after.renews
    for rule in Rule:
        assert consequence(member(), replace(BIGGER, rule=rule), HUABEI).after.renews is (rule is Rule.CYCLE)
    second = member(enrolled_at=EXPIRY, first_at=BEGAN, cycle=2, expires_at=EXPIRY + 30 * DAY)
    later = consequence(second, BIGGER, HUABEI, EXPIRY + DAY).after
    assert (later.cycle, later.expires_at, later.cutoff_at) == (2, EXPIRY + 30 * DAY, EXPIRY + 31 * DAY)


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("fee_fen", [0, 1, 1000])
@pytest.mark.parametrize("guarantee", ["", *GuaranteeKind])
def test_who_is_admitted_without_a_hold(guarantee: str, fee_fen: int) -> None:
    assert credit_admitted(guarantee, fee_fen) is (fee_fen == 0 or guarantee not in HOLD_GUARANTEES)


def test_what_is_asked_says_no_more_than_it_says() -> None:
    assert Asked("suspend").document() == {"verb": "suspend", "on": True}
    whole = Asked("change", "member", "light-30", "pay_score", on=False)
    assert whole.document() == {
        "verb": "change", "by": "member", "plan": "light-30", "guarantee": "pay_score", "on": False,
    }  # fmt: skip
    assert Renew() == Renew(on=True)
    assert Done("n", "m", "suspend", "done", {}).code_text == ""
