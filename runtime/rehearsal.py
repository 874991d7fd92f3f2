"""A rollout before it is started: the production rules against simulated terminals on a virtual clock.

The tick, the gates and the plan are those of a real rollout; only terminals, evidence, approving persons and time are
simulated. What comes out is what the policy would do to a chain with these faults.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from actors.rollout import tick
from actors.rollout_commands import receive
from actors.rollout_effects import (
    Activate,
    Attach,
    Decide,
    Observation,
    Promote,
    Restore,
    RolloutEffect,
    RolloutTurn,
    SetDesired,
    Start,
)
from devices.fleet.orders import Fault
from models.domain.errors import NeedsOperator
from models.domain.evidence import Outcome, StageKind, Verdict
from models.domain.ids import ChainId
from models.domain.plan_reader import Text
from models.domain.rollout import (
    ArtefactKind,
    PersonId,
    RolloutId,
    RolloutPolicy,
    RolloutState,
    Selector,
    Site,
    StageState,
    TargetState,
)
from models.domain.rollout_feasible import fitted, plan_problems
from models.domain.rollout_gate import Counts, Way
from models.domain.rollout_journal import NO_TEXT, UNTOUCHED, Rollout, drafted
from models.domain.rollout_part import at_store
from models.domain.rollout_plan import draw, resolve
from models.domain.rollout_target import counts_of
from runtime.rehearsal_world import BAD, GOOD, Shares, World, artefact_for, chain_of

BEGINS = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
"""Monday, 09:00 in Shanghai."""
AUTHOR, OTHER = PersonId("author"), PersonId("approver")
APPROVES_AFTER = timedelta(hours=1)
VIRTUAL_DAYS_MAX = 120
STEP_S_MAX = 90
IDLE_S_MAX = 1_800
SOAKING_STEPS = 4
NAMED_UP_TO = 10
"""A first stage of so few stores is named by people, who name stores that answer."""
STORES_MAX = 5_000

Shown = Callable[[Rollout, tuple[Counts, ...], Text, datetime], None]


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What became of a stage, counted by store when the rollout ended or halted."""

    name: str
    counts: Counts
    passed: bool
    why: Text


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The outcome. `ok`: the rules did what they must, checked against the truth of the simulated terminals.

    That is: no faulty terminal was taken for a success, no stage opened before the one before it had passed, whatever
    was asked ended wholly new or wholly old, and the rollout ended by itself, complete or (with faults) rolled back.
    """

    ok: bool
    stages: tuple[StageOutcome, ...]
    halted_at: int | None
    """The number of the stage, from 1."""
    rolled_back: int
    """Stores that were given back what they had."""
    left_between_versions: int
    """Terminals whose document, report and truth are not of one version."""
    seconds: float
    virtual: timedelta
    ticks: int
    state: RolloutState
    why: Text
    faults: tuple[str, ...] = ()
    """What the rules did wrong; empty when `ok`."""

    def document(self) -> dict[str, Any]:
        """The JSON object of the command line."""
        return {
            "ok": self.ok,
            "stages": [
                {
                    "stores": one.counts.stores,
                    "succeeded": one.counts.succeeded,
                    "failed": one.counts.failed,
                    "timed_out": one.counts.timed_out,
                    "offline": one.counts.offline,
                    "liars_caught": one.counts.lying,
                }
                for one in self.stages
            ],
            "halted_at": self.halted_at,
            "rolled_back": self.rolled_back,
            "left_between_versions": self.left_between_versions,
            "seconds": round(self.seconds, 2),
        }


def rehearse(
    policy: RolloutPolicy,
    *,
    stores: int = 1_000,
    terminals: int = 3,
    seed: int = 0,
    good: bool = False,
    shares: Shares | None = None,
    shown: Shown | None = None,
) -> Rehearsal:
    """Run a policy to its end. Raises NeedsOperator `policy_wrong` when it cannot be followed with so many stores."""
    run = Run(policy, stores, terminals, seed, shares or (GOOD if good else BAD), expect_complete=good)
    began = time.monotonic()
    while not run.over:
        run.step()
        if shown is not None:
            shown(run.rollout, run.counts, run.why, run.now)
    return run.outcome(time.monotonic() - began)


def _narrowed(site: Site, roles: frozenset[str]) -> Site:
    return replace(site, terminals=tuple(one for one in site.terminals if one.role in roles) or site.terminals)


class Run:
    """One rehearsal, step by step."""

    def __init__(
        self, policy: RolloutPolicy, stores: int, terminals: int, seed: int, shares: Shares, *, expect_complete: bool
    ) -> None:
        kind = sorted(policy.kinds, key=list(ArtefactKind).index)[-1]
        artefact = artefact_for(kind)
        sites = chain_of(stores, terminals)
        if at_store(artefact):  # these prove it for their stores, so they are where something can go wrong
            sites = tuple(_narrowed(site, policy.mandatory_roles) for site in sites)
        self.world = World(sites, artefact, shares, seed)
        answering = sorted(
            (site.store for site in sites if self.world.seen[site.terminals[0].terminal].online),
            key=lambda store: draw(seed, "named", store),
        )
        first = policy.stages[0]
        if not first.named and 0 < first.stores <= NAMED_UP_TO:
            first = replace(first, named=tuple(answering[: first.stores]))
            policy = replace(policy, stages=(first, *policy.stages[1:]))
        selector = Selector(all_stores=True)
        plan = resolve(
            sites,
            selector,
            policy.stages,
            seed,
            mandatory_roles=policy.mandatory_roles,
            stratify=policy.stratify,
        )
        policy = fitted(policy, plan)
        if problems := plan_problems(policy, plan):
            text = "; ".join(f"{one.path}: {one.reason}" for one in problems)
            raise NeedsOperator("policy_wrong", text, "mend the policy, or rehearse with other stores")
        self.now = BEGINS
        self.rollout = drafted(
            RolloutId(f"rehearsal-{seed}"), ChainId("rehearsal"), self.world.artefact, selector, policy, plan, AUTHOR
        )
        self.why = Text("", "")
        self.counts: tuple[Counts, ...] = ()
        self.ticks = 0
        self._halt_counts: tuple[Counts, ...] = ()
        self._expect_complete = expect_complete
        self._waits_since: datetime | None = None
        self._idle = 0
        self._step_s = _step_s(policy)
        self._faults: list[str] = []
        self._whys: dict[int, Text] = {}

    @property
    def over(self) -> bool:
        """Nothing more will happen, or it takes too long."""
        done = (RolloutState.COMPLETED, RolloutState.TAILING, RolloutState.ROLLED_BACK)
        stuck = (RolloutState.ROLLBACK_STUCK, RolloutState.HALTED)
        late = self.now - BEGINS > timedelta(days=VIRTUAL_DAYS_MAX)
        return self.rollout.state in done or self.rollout.state in stuck or late

    def step(self) -> None:
        """One tick, then to the next moment worth a look."""
        self.world.advance(self.now)
        seen = self._seen()
        self._people(seen)
        turn = tick(self.rollout, seen, self.now)
        self.ticks += 1
        self.why = turn.why
        self.counts = tuple(view.counts for view in turn.stages)
        self._watch(turn.effects)
        self._perform(turn)
        self._idle = 0 if turn.effects else self._idle + 1
        self.now = self._next()

    def _people(self, seen: Observation) -> None:
        """What persons do: start it, attach what is required, promote when they are asked and have slept on it."""
        rollout = self.rollout
        if rollout.state is RolloutState.DRAFT:
            self._perform(receive(rollout, Start(AUTHOR), seen, self.now))
        for name in sorted({name for stage in rollout.policy.stages for name in stage.policy.attachments}):
            if name not in self.rollout.attachments:
                self._perform(receive(self.rollout, Attach(OTHER, name, "rehearsal"), seen, self.now))
        if self._approval_due():
            self._perform(receive(self.rollout, Promote(OTHER), seen, self.now))

    def _approval_due(self) -> bool:
        stage = self.rollout.stages[self.rollout.stage] if self.rollout.stage >= 0 else None
        if stage is None or stage.state is not StageState.AWAITS_APPROVAL:
            self._waits_since = None
            return False
        self._waits_since = self._waits_since or self.now
        return self.now - self._waits_since >= APPROVES_AFTER

    def _perform(self, turn: RolloutTurn) -> None:
        """Carry out a turn's effects in their order."""
        self.rollout = turn.rollout
        for effect in turn.effects:
            if isinstance(effect, SetDesired | Restore | Activate):
                self.world.take(effect, self.now)

    def _seen(self) -> Observation:
        verdicts = {}
        for number, stage in enumerate(self.rollout.policy.stages):
            spec, opened = stage.policy.evidence, self.rollout.stages[number].opened_at
            if spec is None or opened is None:
                continue
            look = spec.look_of((self.now - opened) // timedelta(days=1))
            if look is not None:
                outcome = Outcome.SAFE if spec.kind is StageKind.SAFETY else Outcome.BETTER
                why = Text("模拟的证据", "simulated evidence")
                verdicts[number] = Verdict(outcome, spec.kind, why, look, spec.looks, "", spec.sha256)
        return Observation(self.world.seen, verdicts)

    def _next(self) -> datetime:
        """Short steps while something moves, longer ones while nothing does; never past what happens next."""
        soaking = any(one.soaking for one in self.counts)
        longest_s = SOAKING_STEPS * self._step_s if soaking else max(IDLE_S_MAX, self._step_s)
        following = self.now + timedelta(seconds=min(self._step_s << min(self._idle, 12), longest_s))
        due = self.world.next_due
        shortest = self.now + timedelta(seconds=self._step_s)
        return following if due is None else max(shortest, min(following, due))

    # ------------------------------------------------------------ judged

    def _watch(self, effects: tuple[RolloutEffect, ...]) -> None:
        """Hold each decision against the rules from outside."""
        for effect in effects:
            if not isinstance(effect, Decide):
                continue
            self._whys[effect.stage] = effect.gate.why
            if effect.gate.way is Way.HALT:
                self._halt_counts = self.counts
            errors, policy = effect.counts.errors, self.rollout.policy.stages[effect.stage].policy
            if effect.gate.way is Way.ADVANCE and errors > policy.error_stores_max:
                self._faults.append(f"stage {effect.stage + 1} passed with {errors} errors")

    def outcome(self, seconds: float) -> Rehearsal:
        """What came of it, and whether the rules did what they must."""
        plan, rollout = self.rollout.plan, self.rollout
        final = tuple(counts_of(stage.stores, rollout.marks, queue_over=False) for stage in plan.stages)
        # After a rollback the counts that matter are those at the halt; stages that never opened are untouched.
        counts = (*self._halt_counts, *final[len(self._halt_counts) :]) if self._halt_counts else final
        between = list(self.world.between_versions())
        faults = [*self._faults, *self._wrong_successes()]
        if between:
            faults.append(f"{len(between)} terminals are left between versions, {between[0]} for one")
        ended = (RolloutState.COMPLETED, RolloutState.TAILING)
        if self._expect_complete and rollout.state not in ended:
            faults.append(f"a good artefact did not come through: {rollout.state}, {self.why.en}")
        if rollout.state not in (*ended, RolloutState.ROLLED_BACK):
            faults.append(f"it did not end: {rollout.state}, {self.why.en}")
        back = sum(
            any(rollout.mark(one.terminal).state is TargetState.ROLLED_BACK for one in store.targets)
            for stage in plan.stages
            for store in stage.stores
        )
        return Rehearsal(
            ok=not faults,
            stages=tuple(
                StageOutcome(
                    stage.name, counts[n], rollout.stages[n].state is StageState.PASSED, self._whys.get(n, NO_TEXT)
                )
                for n, stage in enumerate(plan.stages)
            ),
            halted_at=None if rollout.halted_at is None else rollout.halted_at + 1,
            rolled_back=back,
            left_between_versions=len(between),
            seconds=seconds,
            virtual=self.now - BEGINS,
            ticks=self.ticks,
            state=rollout.state,
            why=self.why,
            faults=tuple(faults),
        )

    def _wrong_successes(self) -> list[str]:
        """Terminals that count as a success and are none."""
        rollout, found = self.rollout, []
        for target, fault in self.world.faults.items():
            mark = rollout.marks.get(target, UNTOUCHED)
            if mark.state is TargetState.SUCCEEDED and fault is not Fault.OFFLINE:
                found.append(f"{target} ({fault}) counts as a success")
        return found


def _step_s(policy: RolloutPolicy) -> int:
    """Short enough for the shortest time that the policy names."""
    rules = [stage.policy for stage in policy.stages]
    times = [one.soak_s for one in rules] + [one.claim_grace_s for one in rules]
    times += [one.in_progress_deadline_s for one in rules] + [one.soak_deadline_s - one.soak_s for one in rules]
    return max(1, min(STEP_S_MAX, min(one for one in times if one) // 10))
