"""What may be done with a membership besides using it, and what each would do: foreseen by the code that does it.

`foresee` is pure. The command line, the API and the console show its answer before they ask; `runtime.membership_life`
carries it out under the row lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, assert_never

from models.domain.calendar import require_instant
from models.domain.charging import (
    Cancellation,
    CancelledBy,
    charge_fen,
    cutoff_instant,
    cycle_at,
    effective_fee_fen,
    expiry_instant,
)
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId
from models.domain.membership import HoldState, State
from models.domain.membership_guarantee import HOLDS, holder_of
from models.domain.money import format_yuan
from models.domain.periods import FixedDate
from models.domain.plans import HOLD_GUARANTEES, GuaranteeKind, Plan, Rule, Text
from models.domain.settlement import Standing

LIVES = frozenset({State.ACTIVE, State.SUSPENDED})
SETTLES = frozenset({State.EXPIRED, State.SETTLING, State.UNKNOWN})
LAPSES = HOLDS | {State.DUNNING}
"""While a capture or a release is on its way, its answer says that the hold is gone."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End it now, for the member or by the merchant."""

    by: CancelledBy


@dataclass(frozen=True, slots=True)
class Suspend:
    """Risk control stops new online use."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Risk control lets it go on."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Open the next generation when this one expires; `on` False takes the wish back."""

    on: bool = True


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """Upgrade or downgrade to `plan` (its newest version); the new hold first, then the old one goes back."""

    plan: Plan
    guarantee: GuaranteeKind


@dataclass(frozen=True, slots=True)
class LapseHold:
    """The provider let the hold end by itself."""


@dataclass(frozen=True, slots=True)
class FreezeAgain:
    """A new hold in place of one that lapsed."""


Action = Cancel | Suspend | Resume | Renew | ChangePlan | LapseHold | FreezeAgain


@dataclass(frozen=True, slots=True)
class Consequence:
    """What an action does: the membership as it stands afterwards, and what that means in fen.

    `charge_fen`: what the member would pay if nothing else happened. `given_up_fen`: what the merchant's `funder` bears
    of it. `new_hold_fen` is frozen first, `release_fen` goes back then. `text` says all this to a person.
    """

    after: Standing
    charge_fen: int
    given_up_fen: int
    funder: LegalEntityId
    new_hold_fen: int
    release_fen: int
    text: Text


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants done, in plain words: `by` belongs to cancel, `on` to renew, the other two to change."""

    verb: str
    by: str = ""
    plan: str = ""
    guarantee: str = ""
    on: bool = True

    def document(self) -> dict[str, Any]:
        """What makes two requests the same."""
        values = {"verb": self.verb, "by": self.by, "plan": self.plan, "guarantee": self.guarantee, "on": self.on}
        return {name: value for name, value in values.items() if value != ""}


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a request. `state`: done, or pending: the member authorises the freeze (`code_text` to scan).

    `told` is the consequence as it was foreseen when the request was made, the same in every repetition.
    """

    number: str
    membership: str
    verb: str
    state: str
    told: Mapping[str, Any]
    code_text: str = ""


def told(consequence: Consequence) -> dict[str, Any]:
    """A consequence as it is kept, answered and shown, before and after it happened."""
    after = consequence.after
    return {
        "state": after.state.value,
        "plan": after.plan.id,
        "plan_version": after.plan.version,
        "subject": after.plan.name.zh,
        "expires_at": after.expires_at.isoformat(),
        "cutoff_at": after.cutoff_at.isoformat(),
        "renews": after.renews,
        "fee_eff_fen": after.fee_eff_fen,
        "used_fen": after.used_fen,
        "charge_fen": consequence.charge_fen,
        "given_up_fen": consequence.given_up_fen,
        "funder": consequence.funder,
        "new_hold_fen": consequence.new_hold_fen,
        "release_fen": consequence.release_fen,
        "zh": consequence.text.zh,
        "en": consequence.text.en,
    }


def waived_fen(standing: Standing) -> int:
    """What a cancel let the member off, as u and the task stand now: min(F, u) - min(F_eff, u)."""
    full_fen = charge_fen(
        standing.fee_fen, standing.used_fen, task_target=standing.task_target, task_done=standing.task_done
    )
    return full_fen - standing.preview_fen


def foresee(standing: Standing, action: Action, now: datetime) -> Consequence:
    """What `action` would do at business time `now`. Raises Refused when it makes no sense in this state."""
    require_instant(now, "now")
    match action:
        case Cancel():
            return _cancelled(standing, action, now)
        case Suspend():
            _require(standing.state is State.ACTIVE, standing, "suspend_refused", "only an active one is suspended")
            return _same_money(replace(standing, state=State.SUSPENDED), _SUSPENDED)
        case Resume():
            _require(standing.state is State.SUSPENDED, standing, "resume_refused", "only a suspended one is resumed")
            return _same_money(replace(standing, state=State.ACTIVE), _RESUMED)
        case Renew():
            return _renewed(standing, action.on)
        case ChangePlan():
            return _changed(standing, action, now)
        case LapseHold():
            held = standing.state in LAPSES and standing.hold_state is HoldState.HELD
            _require(held, standing, "lapse_refused", "it has no hold that could lapse")
            return _same_money(replace(standing, hold_state=HoldState.LAPSED), _LAPSED)
        case FreezeAgain():
            lapsed = standing.state in HOLDS and standing.hold_state is HoldState.LAPSED
            _require(lapsed, standing, "freeze_refused", "only a hold that lapsed is frozen again")
            return _frozen_again(standing)
        case _:
            assert_never(action)


def credit_admitted(guarantee: str, fee_fen: int) -> bool:
    """True for a guarantee that freezes nothing: no provider is asked about a charge of 0."""
    return fee_fen == 0 or guarantee not in HOLD_GUARANTEES


# ---------------------------------------------------------------- each action


def _cancelled(standing: Standing, action: Cancel, now: datetime) -> Consequence:
    _require(standing.state in LIVES, standing, "cancel_refused", "only an active or suspended membership is cancelled")
    at = min(now, standing.expires_at)  # an overdue expiry timer must not lengthen the membership
    cancellation = Cancellation(action.by, at)
    after = replace(
        standing,
        state=State.EXPIRED,
        expires_at=at,
        cutoff_at=cutoff_instant(at, standing.plan),
        fee_eff_fen=effective_fee_fen(
            standing.plan, standing.row_began_at, cancellation, standing.cycle, opened_at=standing.enrolled_at
        ),
        renews=False,
        cancelled_by=action.by.value,
    )
    charge, waived = after.preview_fen, waived_fen(after)
    pays, used, fee, off = (
        format_yuan(charge),
        format_yuan(after.used_fen),
        format_yuan(after.fee_eff_fen),
        format_yuan(waived),
    )
    zh = f"会员资格立即终止，不再续期。已享优惠 {used} 元，有效会费 {fee} 元：应付 {pays} 元。"
    en = f"It ends now and does not renew. Benefits used {used}, fee that counts {fee}: the member pays {pays}."
    if waived:
        zh += f"减免 {off} 元，由 {after.plan.funder_entity} 承担。"
        en += f" {off} is given up, borne by {after.plan.funder_entity}."
    return Consequence(after, charge, waived, after.plan.funder_entity, 0, 0, Text(zh=zh, en=en))


def _changed(standing: Standing, action: ChangePlan, now: datetime) -> Consequence:
    plan = action.plan
    _require(standing.state is State.ACTIVE, standing, "change_refused", "only an active membership changes its plan")
    same = (plan.id, plan.version) == (standing.plan.id, standing.plan.version)
    _require(not same, standing, "change_refused", "it has this plan already")
    _require(
        plan.owner_entity == standing.owner, standing, "change_refused", "the plan belongs to another legal entity"
    )
    if action.guarantee not in plan.guarantees:
        raise Refused(
            "guarantee_unavailable", f"{plan.id} does not take {action.guarantee}", "choose another guarantee"
        )
    cycle = cycle_at(standing.row_began_at, plan, now)
    expiry = expiry_instant(standing.row_began_at, plan, cycle)
    new_hold_fen = 0 if credit_admitted(action.guarantee, plan.fee_fen) else plan.fee_fen
    release_fen = standing.hold_fen if standing.hold_state is HoldState.HELD else 0
    after = replace(
        standing,
        plan=plan,
        fee_fen=plan.fee_fen,
        fee_eff_fen=plan.fee_fen,
        expires_at=expiry,
        cutoff_at=cutoff_instant(expiry, plan),
        task_target=plan.task_target,
        renews=plan.rule is Rule.CYCLE or standing.renews,
        guarantee=action.guarantee.value,
        provider=holder_of(action.guarantee),
        hold_order="",
        hold_no="",
        hold_fen=0,
        hold_state=HoldState.NONE,
        cycle=cycle,
    )
    lowers = after.preview_fen < standing.preview_fen
    _require(not lowers, standing, "change_refused", "it would lower what is owed as things stand")
    fee, hold, back = format_yuan(plan.fee_fen), format_yuan(new_hold_fen), format_yuan(release_fen)
    zh, en = f"改为 {plan.name.zh}，会费 {fee} 元。", f"It becomes {plan.name.en}, fee {fee}."
    if new_hold_fen:
        zh, en = f"{zh}先冻结 {hold} 元，", f"{en} First {hold} is frozen,"
        zh, en = f"{zh}再解冻原有 {back} 元。", f"{en} then {back} of the old hold goes back."
    elif release_fen:
        zh, en = f"{zh}解冻原有 {back} 元。", f"{en} {back} of the old hold goes back."
    return Consequence(
        after, after.preview_fen, waived_fen(after), plan.funder_entity, new_hold_fen, release_fen, Text(zh=zh, en=en)
    )


def _renewed(standing: Standing, on: bool) -> Consequence:
    allowed = standing.state in LIVES | SETTLES | {State.CLOSED}
    _require(allowed, standing, "renew_refused", "it never began, or is not paid")
    if not on:
        return _same_money(replace(standing, renews=False), _ENDS)
    _require(not standing.cancelled_by, standing, "renew_refused", "it was cancelled: enrol anew")
    _require(not isinstance(standing.plan.period, FixedDate), standing, "renew_refused", "its plan ends for everybody")
    fee = format_yuan(standing.plan.fee_fen)
    text = Text(
        zh=f"本期到期时开通下一期，会费 {fee} 元" + ("，另行冻结。" if _holds(standing) else "。"),
        en=f"When this period ends the next one opens, fee {fee}"
        + (", with its own hold." if _holds(standing) else "."),
    )
    return replace(_same_money(replace(standing, renews=True), text), new_hold_fen=_hold_of(standing))


def _frozen_again(standing: Standing) -> Consequence:
    fee = format_yuan(standing.fee_fen)
    text = Text(zh=f"重新冻结 {fee} 元。", en=f"{fee} is frozen again.")
    return replace(_same_money(standing, text), new_hold_fen=standing.fee_fen)


_SUSPENDED = Text(
    zh="暂停：不能再在线使用优惠，款项不变。", en="Suspended: no benefit can be used online; no money moves."
)
_RESUMED = Text(zh="恢复使用，款项不变。", en="It can be used again; no money moves.")
_LAPSED = Text(
    zh="冻结已失效：可重新冻结，否则到期直接扣款。",
    en="The hold has lapsed: freeze again, else the charge is collected without one at the end.",
)
_ENDS = Text(zh="本期结束后不再续期，款项不变。", en="It ends with this period; no money moves.")


def _same_money(after: Standing, text: Text) -> Consequence:
    return Consequence(after, after.preview_fen, waived_fen(after), after.plan.funder_entity, 0, 0, text)


def _holds(standing: Standing) -> bool:
    return not credit_admitted(standing.guarantee, standing.plan.fee_fen)


def _hold_of(standing: Standing) -> int:
    return standing.plan.fee_fen if _holds(standing) else 0


def _require(allowed: bool, standing: Standing, code: str, message: str) -> None:
    if not allowed:
        raise Refused(code, f"{message}; this one is {standing.state}", "look at its state and its dates")
