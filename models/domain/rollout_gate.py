"""Whether a stage may be left, and by which way: counts and evidence in, one decision with its reason out.

The order is the promise: errors before success, percentages only after the minimum executed, attachments and evidence
before a person is asked, and nobody passes a gate that waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from models.domain.evidence import Outcome, Verdict
from models.domain.plan_reader import Text
from models.domain.rollout import Following, StagePolicy, Unclear


@dataclass(frozen=True, slots=True)
class Counts:
    """A stage's stores by where they stand; `stores` is their sum, without those that somebody else took over.

    `regressed`: those of `queued`, `in_progress` and `soaking` that had succeeded before. `queue_over`: the queue's
    deadline of the stage has passed, so that who is still offline is not waited for.
    """

    stores: int
    queued: int = 0
    offline: int = 0
    in_progress: int = 0
    soaking: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    lying: int = 0
    regressed: int = 0
    queue_over: bool = False

    @property
    def errors(self) -> int:
        """Failed in any way."""
        return self.failed + self.timed_out + self.lying

    @property
    def executed(self) -> int:
        """Those whose outcome is known."""
        return self.succeeded + self.errors

    @property
    def asked(self) -> int:
        """Those in which something was changed, whatever came of it so far."""
        return self.stores - self.queued - self.offline

    @property
    def reached(self) -> int:
        """All but the offline bucket."""
        return self.stores - self.offline


class Way(StrEnum):
    """What a gate says."""

    ADVANCE = "advance"
    HOLD = "hold"
    AWAIT_APPROVAL = "await_approval"
    HALT = "halt"


class GateCode(StrEnum):
    """Why, as a closed list; the text is `Gate.why`."""

    PASSED = "passed"
    ERRORS_ABSOLUTE = "errors_absolute"
    ERRORS_PERCENT = "errors_percent"
    SUCCESS_UNREACHABLE = "success_unreachable"
    OFFLINE_CAP = "offline_cap"
    EVIDENCE_HARM = "evidence_harm"
    EVIDENCE_UNCLEAR = "evidence_unclear"
    FEW_EXECUTED = "few_executed"
    NOT_SOAKED = "not_soaked"
    OFFLINE_MANY = "offline_many"
    ATTACHMENT_MISSING = "attachment_missing"
    EVIDENCE_MISSING = "evidence_missing"
    EVIDENCE_WAITS = "evidence_waits"
    EVIDENCE_INVALID = "evidence_invalid"
    APPROVAL_MISSING = "approval_missing"


@dataclass(frozen=True, slots=True)
class Gate:
    """One decision: the way, why as a code, and why in words."""

    way: Way
    code: GateCode
    why: Text


def advance(why: Text) -> Gate:
    """The next stage may open."""
    return Gate(Way.ADVANCE, GateCode.PASSED, why)


def hold(code: GateCode, why: Text) -> Gate:
    """Wait; time or terminals will tell."""
    return Gate(Way.HOLD, code, why)


def await_approval(code: GateCode, why: Text) -> Gate:
    """Everything else is satisfied: a person decides."""
    return Gate(Way.AWAIT_APPROVAL, code, why)


def halt(code: GateCode, why: Text) -> Gate:
    """Stop, and go back if the policy says so."""
    return Gate(Way.HALT, code, why)


def evaluate(
    counts: Counts,
    policy: StagePolicy,
    verdict: Verdict | None,
    *,
    attached: frozenset[str] = frozenset(),
    approved: bool = False,
) -> Gate:
    """The gate of one stage. `attached`: names of attached documents; `approved`: by a person who may.

    Says the same for the same arguments; holds no state of its own.
    """
    return (
        _error(counts, policy, verdict)
        or _not_yet(counts, policy)
        or _papers(policy, attached)
        or _evidence(policy, verdict, approved)
        or _person(counts, policy, approved)
    )


def _error(counts: Counts, policy: StagePolicy, verdict: Verdict | None) -> Gate | None:
    errors, executed, asked = counts.errors, counts.executed, counts.asked
    if errors > policy.error_stores_max:
        return halt(
            GateCode.ERRORS_ABSOLUTE,
            Text(
                f"{counts.stores} 家门店中有 {errors} 家失败，最多允许 {policy.error_stores_max} 家",
                f"{errors} of {counts.stores} stores failed, {policy.error_stores_max} at most",
            ),
        )
    if executed >= policy.executed_min and errors * 100 > policy.error_percent_max * asked:
        return halt(
            GateCode.ERRORS_PERCENT,
            Text(
                f"已变更的 {asked} 家门店中有 {errors} 家失败，超过 {policy.error_percent_max}%",
                f"{errors} of the {asked} stores that were asked failed, more than {policy.error_percent_max} %",
            ),
        )
    if policy.evidence is not None and verdict is not None and verdict.halts:
        return halt(GateCode.EVIDENCE_HARM, verdict.why)
    if counts.queue_over and counts.offline * 100 > policy.offline_percent_max * counts.stores:
        return halt(
            GateCode.OFFLINE_CAP,
            Text(
                f"排队期限已过，{counts.stores} 家门店中仍有 {counts.offline} 家离线，"
                f"超过 {policy.offline_percent_max}%",
                f"the queue's deadline is over and {counts.offline} of {counts.stores} stores are offline, "
                f"more than {policy.offline_percent_max} %",
            ),
        )
    possible = counts.stores - errors
    if executed >= policy.executed_min and possible * 100 < policy.success_percent_min * counts.stores:
        return halt(
            GateCode.SUCCESS_UNREACHABLE,
            Text(
                f"即使其余门店全部成功，也只有 {possible}/{counts.stores} 家，达不到 {policy.success_percent_min}%",
                f"even if every other store succeeds it is {possible} of {counts.stores}, "
                f"less than {policy.success_percent_min} %",
            ),
        )
    return None


def _not_yet(counts: Counts, policy: StagePolicy) -> Gate | None:
    if counts.offline * 100 > policy.offline_percent_max * counts.stores:
        return hold(
            GateCode.OFFLINE_MANY,
            Text(
                f"等待：{counts.stores} 家门店中有 {counts.offline} 家离线，最多允许 {policy.offline_percent_max}%",
                f"waits for: {counts.offline} of {counts.stores} stores are offline, "
                f"{policy.offline_percent_max} % at most",
            ),
        )
    if counts.executed < policy.executed_min:
        return hold(
            GateCode.FEW_EXECUTED,
            Text(
                f"等待：{counts.stores} 家门店中 {counts.executed} 家已有结果（观察期满，或失败），"
                f"至少 {policy.executed_min} 家才判断",
                f"waits for: {counts.executed} of {counts.stores} stores have an outcome (healthy for long enough, "
                f"or failed), {policy.executed_min} are needed to judge",
            ),
        )
    if not counts.succeeded or counts.succeeded * 100 < policy.success_percent_min * counts.reached:
        left = counts.reached - counts.executed
        return hold(
            GateCode.NOT_SOAKED,
            Text(
                f"等待：{counts.stores} 家门店中还有 {left} 家未完成观察期",
                f"waits for: {left} of {counts.stores} stores not yet soaked",
            ),
        )
    return None


def _papers(policy: StagePolicy, attached: frozenset[str]) -> Gate | None:
    missing = [name for name in policy.attachments if name not in attached]
    if not missing:
        return None
    names = ", ".join(missing)
    return hold(GateCode.ATTACHMENT_MISSING, Text(f"等待：尚未附上 {names}", f"waits for: {names} is not attached yet"))


def _evidence(policy: StagePolicy, verdict: Verdict | None, approved: bool) -> Gate | None:
    if policy.evidence is None:
        return None
    if verdict is None:
        days = policy.evidence.look_days[0]
        return hold(
            GateCode.EVIDENCE_MISSING,
            Text(f"等待：{days} 个完整营业日后的首次评估", f"waits for: the first look, after {days} full days"),
        )
    if verdict.outcome is Outcome.BETTER or (verdict.outcome is Outcome.SAFE and verdict.final):
        return None
    if verdict.outcome is Outcome.INVALID and verdict.final:
        return hold(
            GateCode.EVIDENCE_INVALID,
            Text(
                f"最后一次评估无法判断，不再有下一次：{verdict.why.zh}；请回退，或重新制定计划",
                f"the last look cannot be judged and no other follows: {verdict.why.en}; roll back, or plan again",
            ),
        )
    if not verdict.final:
        following = policy.evidence.look_days[verdict.look]
        return hold(
            GateCode.EVIDENCE_WAITS,
            Text(
                f"等待：{following} 个完整营业日后的第 {verdict.look + 1} 次评估；目前：{verdict.why.zh}",
                f"waits for: look {verdict.look + 1}, after {following} full days; so far: {verdict.why.en}",
            ),
        )
    if policy.unclear is Unclear.HALT:
        return halt(GateCode.EVIDENCE_UNCLEAR, verdict.why)
    return None if approved else await_approval(GateCode.EVIDENCE_UNCLEAR, verdict.why)


def _person(counts: Counts, policy: StagePolicy, approved: bool) -> Gate:
    done = Text(
        f"{counts.reached} 家门店中 {counts.succeeded} 家成功",
        f"{counts.succeeded} of {counts.reached} stores succeeded",
    )
    if policy.following is Following.APPROVAL and not approved:
        return await_approval(
            GateCode.APPROVAL_MISSING,
            Text(f"{done.zh}；等待非发起人批准", f"{done.en}; waits for approval by somebody other than the author"),
        )
    return advance(done)
