"""Whether rules can be followed at all: thresholds that contradict each other, gates that nobody can meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from models.domain.evidence import StageKind
from models.domain.rollout import Following, LocalWindow, RolloutPolicy, Stage, StagePolicy
from models.domain.rollout_plan import FrozenPlan

PRIMARY_STORES_MIN = 10
"""Below it an effect cannot be told from chance: with 2 stores a plain test is wrong in 16 % of A/A runs."""
WEEK_MINUTES = 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong value: where it stands (`stages[1].soak_s`) and why it cannot be followed."""

    path: str
    reason: str


def contradictions(policy: RolloutPolicy) -> list[Problem]:
    """Problems of rules that are fine one by one."""
    found: list[Problem] = []
    last = len(policy.stages) - 1
    if len({stage.name for stage in policy.stages}) != len(policy.stages):
        found.append(Problem("stages", "each stage needs a name of its own"))
    named = [store for stage in policy.stages for store in stage.named]
    if len(set(named)) != len(named):
        found.append(Problem("stages", "a store is named in two stages"))
    for number, stage in enumerate(policy.stages):
        path = f"stages[{number}]"
        if stage.takes_all != (number == last):
            reason = "the last stage takes all that are left" if number == last else "only the last stage takes all"
            found.append(Problem(f"{path}.stores", reason))
        if number == last and stage.policy.following is not Following.AUTOMATIC:
            found.append(Problem(f"{path}.following", "nothing follows the last stage: automatic"))
        if number == last and stage.policy.attachments:
            found.append(Problem(f"{path}.attachments", "nothing follows the last stage: require them before"))
        found.extend(Problem(f"{path}.{name}", reason) for name, reason in _of_stage(stage))
    return found


def fitted(policy: RolloutPolicy, plan: FrozenPlan) -> RolloutPolicy:
    """The policy for this plan: absolute numbers of the stage that takes all become at most what it can show.

    A chain of 120 stores goes by the same file as one of 1,000; the fitted policy is what is frozen with the plan.
    """
    stage, stores = policy.stages[-1], len(plan.stages[-1].stores)
    rules = stage.policy
    reachable = stores - stores * rules.offline_percent_max // 100
    rules = replace(
        rules,
        executed_min=max(1, min(rules.executed_min, reachable)),
        error_stores_max=min(rules.error_stores_max, stores - 1),
    )
    return replace(policy, stages=(*policy.stages[:-1], replace(stage, policy=rules)))


def plan_problems(policy: RolloutPolicy, plan: FrozenPlan) -> tuple[Problem, ...]:
    """What only shows once the stores are counted, of a fitted policy."""
    found: list[Problem] = []
    for number, (stage, planned) in enumerate(zip(policy.stages, plan.stages, strict=True)):
        reasons = _of_count(stage.policy, len(planned.stores))
        found.extend(Problem(f"stages[{number}].{name}", reason) for name, reason in reasons)
    return tuple(found)


def _of_stage(stage: Stage) -> Iterator[tuple[str, str]]:
    rules = stage.policy
    if rules.success_percent_min == 0:
        yield "success_percent_min", "0 lets everything pass: 1..100"
    if rules.success_percent_min + rules.error_percent_max > 100:
        yield (
            "error_percent_max",
            f"{rules.success_percent_min} % success is wanted, {rules.error_percent_max} % errors are allowed: between "
            f"{100 - rules.success_percent_min} % and {rules.error_percent_max} % it could neither pass nor halt",
        )
    if rules.soak_deadline_s <= rules.soak_s:
        yield "soak_deadline_s", f"must be over soak_s ({rules.soak_s}), or nobody can soak in time"
    if rules.jitter_s >= rules.queue_deadline_s:
        yield "jitter_s", f"must be under queue_deadline_s ({rules.queue_deadline_s}), or stores time out by chance"
    if rules.claim_grace_s >= rules.in_progress_deadline_s:
        yield "claim_grace_s", "must be under in_progress_deadline_s, or no lie is ever caught"
    gap_s = 60 * longest_gap_min(rules.windows)
    if gap_s >= rules.queue_deadline_s:
        yield "queue_deadline_s", f"the windows are closed for {gap_s} s at a stretch: stores time out waiting"
    if not stage.takes_all:
        yield from _of_count(rules, stage.stores)


def _of_count(rules: StagePolicy, stores: int) -> Iterator[tuple[str, str]]:
    away = stores * rules.offline_percent_max // 100
    if rules.executed_min > stores - away:
        yield (
            "executed_min",
            f"can never be met: of {stores} stores {away} may be offline, {rules.executed_min} must be executed",
        )
    if rules.error_stores_max >= stores:
        yield "error_stores_max", f"can never halt: the stage has {stores} stores"
    if rules.evidence is not None and rules.evidence.kind is StageKind.PRIMARY and stores < PRIMARY_STORES_MIN:
        yield (
            "evidence.kind",
            f"{stores} stores cannot show an effect, {PRIMARY_STORES_MIN} at least: say safety",
        )
    last_s = last_turn_s(rules, stores)
    if last_s >= rules.queue_deadline_s:
        yield (
            "queue_deadline_s",
            f"is over before the last store's turn, which comes after {last_s} s: {rules.in_flight_stores_max} stores "
            f"in flight for {rules.soak_s} s each, {rules.starts_per_minute_max} a minute",
        )


def last_turn_s(rules: StagePolicy, stores: int) -> int:
    """The earliest second at which the last of `stores` can be asked when everything goes well."""
    waves = -(-stores // rules.in_flight_stores_max) - 1
    minutes = -(-stores // rules.starts_per_minute_max) - 1
    return max(waves * rules.soak_s, minutes * 60) + rules.jitter_s


def longest_gap_min(windows: tuple[LocalWindow, ...]) -> int:
    """The longest time without a window in a week, in minutes; 0 when there are no windows: always open."""
    if not windows:
        return 0
    spans = []
    for window in windows:
        begins, until = (60 * one.hour + one.minute for one in (window.begins, window.until))
        length = (until - begins) % (24 * 60)
        spans += [((day - 1) * 24 * 60 + begins, length) for day in window.weekdays]
    spans.sort()
    reached = spans[0][0] + spans[0][1]
    gap = 0
    for begins, length in [*spans[1:], (spans[0][0] + WEEK_MINUTES, 0)]:
        gap = max(gap, begins - reached)
        reached = max(reached, begins + length)
    return gap
