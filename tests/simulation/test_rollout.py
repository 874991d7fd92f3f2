"""Whole rollouts against simulated terminals: 2, 50, the rest; halting, coming back, killed at every transition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.rollout_effects import Activate, Decide, Journal, Restore, RolloutEffect, RolloutTurn, SetDesired
from devices.fleet.orders import Fault
from models.domain import rollout_target
from models.domain.ids import MessageId, StoreId, TerminalId
from models.domain.rollout import ArtefactKind, Observed, Reason, RolloutPolicy, RolloutState, TargetState
from models.domain.rollout_gate import Way
from models.domain.rollout_journal import Entry, Rollout, folded
from models.domain.rollout_policy import policy_from
from runtime.__main__ import app
from runtime.rehearsal import Rehearsal, Run, rehearse
from runtime.rehearsal_world import GOOD, NEW, OLD, Shares
from runtime.rollout_files import FOLDER, PolicyFileError, parse_policy, policy_path, read_policy, shipped
from tests.domain.rollouts import document, rules

STORES = 120


def stores_of(found: Rehearsal) -> list[int]:
    return [stage.counts.stores for stage in found.stages]


# ---------------------------------------------------------------- what operators rehearse


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_bad_artefact_halts_and_goes_back_whole(seed: int) -> None:
    found = rehearse(read_policy(policy_path("software")), stores=STORES, seed=seed, shares=Shares(60, 50, 20, 20))
    assert found.ok, found.faults
    assert stores_of(found) == [2, 50, STORES - 52]
    assert found.halted_at in (1, 2, 3)
    assert found.state is RolloutState.ROLLED_BACK
    assert found.left_between_versions == 0
    assert found.rolled_back > 0


@pytest.mark.parametrize("name", ["software", "prices"])
def test_a_good_artefact_comes_through_with_those_who_answer(name: str) -> None:
    waited: set[Reason] = set()

    def looked(rollout: Rollout, *_: object) -> None:
        waited.update(mark.reason for mark in rollout.marks.values())

    found = rehearse(read_policy(policy_path(name)), stores=STORES, seed=3, good=True, shown=looked)
    assert found.ok, found.faults
    assert waited >= {Reason.BUSY, Reason.NO_ANSWER} or name != "software", "some serve somebody, some do not hear"
    assert (found.halted_at, found.rolled_back, found.left_between_versions) == (None, 0, 0)
    for stage in found.stages:
        assert stage.counts.succeeded + stage.counts.offline == stage.counts.stores
    assert sum(stage.counts.offline for stage in found.stages) == STORES * 5 // 100


def test_evidence_and_papers_are_waited_for() -> None:
    found = rehearse(read_policy(policy_path("configuration")), stores=60, seed=3, good=True)
    assert found.ok, found.faults
    assert found.virtual.days >= 7 + 14


def test_the_same_seed_tells_the_same_story() -> None:
    rule = read_policy(policy_path("prices"))
    one, other = (rehearse(rule, stores=60, seed=5) for _ in range(2))
    assert one.document() | {"seconds": 0} == other.document() | {"seconds": 0}
    assert one.virtual == other.virtual


def test_every_fault_is_found_out_where_the_rules_let_it_pass() -> None:
    lenient = policy_from(
        document(
            {"name": "all", "stores": "all"}
            | rules(
                success_percent_min=10,
                error_percent_max=90,
                error_stores_max=39,
                executed_min=20,
                offline_percent_max=50,
                soak_s=1000,
                soak_deadline_s=3000,
            ),
            tail=True,
        )
    )
    run = Run(lenient, 40, 3, 1, Shares(300, 50, 100, 50), expect_complete=True)
    while not run.over:
        run.step()
    found = run.outcome(0)
    assert found.ok, found.faults
    assert found.left_between_versions == 0, "who failed was brought back, store by store"
    [stage] = found.stages
    faulty = {target for target, fault in run.world.faults.items() if fault is not Fault.OFFLINE}
    assert stage.counts.errors == len(faulty) == 18
    assert stage.counts.lying == 4
    for target in faulty:
        assert run.rollout.mark(target).error is not None
        assert not run.world.runs_new(target)


def test_a_rehearsal_notices_rules_that_believe_liars(monkeypatch: pytest.MonkeyPatch) -> None:
    def gullible(mark: Any, artefact: Any, seen: Observed, *_: Any) -> Any:
        done = seen.part == artefact.payload and (seen.said_done_at is not None or seen.software == artefact.version)
        return (rollout_target.Proof.YES if done else rollout_target.Proof.NO), Reason.NONE

    monkeypatch.setattr(rollout_target, "proof", gullible)
    monkeypatch.setattr(
        rollout_target, "_runs", lambda artefact, seen: gullible(None, artefact, seen)[0].value == "yes"
    )
    found = rehearse(read_policy(policy_path("software")), stores=STORES, seed=1, shares=Shares(0, 0, 50, 0))
    assert not found.ok


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("name", ["software", "configuration", "prices"])
def test_a_thousand_stores(name: str, seed: int) -> None:
    for good in (False, True):
        found = rehearse(read_policy(policy_path(name)), stores=1_000, seed=seed, good=good)
        assert found.ok, found.faults
        assert good or found.halted_at is not None


# ---------------------------------------------------------------- killed at every transition

STAGES = (
    {"name": "one", "stores": 1} | rules(following="approval", attachments=["privacy_assessment"]),
    {"name": "all", "stores": "all"}
    | rules(success_percent_min=50, error_percent_max=50, error_stores_max=1, executed_min=2, in_flight_stores_max=2),
)
CHANGE = policy_from(document(*STAGES))
BREAKS = policy_from(document(STAGES[0], STAGES[1] | {"error_stores_max": 0, "error_percent_max": 0}))

SLOW = {"in_progress_deadline_s": 3_000, "soak_deadline_s": 3_000, "queue_deadline_s": 30_000}
SOFTWARE = policy_from(document(*(one | SLOW for one in STAGES), kinds=["software"]))


class Mortal(Run):
    """A driver that keeps the journal, and dies before effect `dies_at`: what it had not done by then is lost."""

    def __init__(self, policy: RolloutPolicy, dies_at: int | None) -> None:
        super().__init__(policy, 5, 2, 1, Shares(200, 0, 0, 0), expect_complete=False)
        self.draft = self.rollout
        self.journal: list[Entry] = []
        self.decided: list[Decide] = []
        self.done = 0
        self.dies_at = dies_at

    def _perform(self, turn: RolloutTurn) -> None:
        for effect in turn.effects:
            if self.done == self.dies_at:
                self.dies_at = None
                self.rollout = folded(self.draft, self.journal)
                return
            self.done += 1
            self._one(effect)
        assert folded(self.draft, self.journal) == turn.rollout
        self.rollout = turn.rollout

    def _one(self, effect: RolloutEffect) -> None:
        if isinstance(effect, Journal):
            self.journal.append(effect.entry)
        elif isinstance(effect, Decide):
            self.decided.append(effect)
        super()._perform(RolloutTurn(self.rollout, (effect,)))

    def lived(self) -> Mortal:
        while not self.over:
            self.step()
        return self

    def end(self) -> tuple[Any, ...]:
        """Everything that must not depend on when somebody died."""
        rollout = self.rollout
        return (
            rollout.state,
            rollout.halted_at,
            [stage.state for stage in rollout.stages],
            {target: (mark.state, mark.error, mark.previous) for target, mark in rollout.marks.items()},
            {target: seen.part for target, seen in self.world.seen.items()},
            [(one.stage, one.gate.way) for one in self.decided if one.gate.way is Way.HALT],
        )


def ends(policy: RolloutPolicy, stride: int = 1) -> Iterator[tuple[int, tuple[Any, ...]]]:
    whole = Mortal(policy, None).lived()
    yield -1, whole.end()
    for dies_at in range(0, whole.done, stride):
        killed = Mortal(policy, dies_at).lived()
        assert killed.dies_at is None
        assert not list(killed.world.between_versions())
        yield dies_at, killed.end()


@pytest.mark.parametrize(
    ("policy", "state", "stride"),
    [
        (CHANGE, "completed", 1),
        (BREAKS, "rolled_back", 1),
        (SOFTWARE, "completed", 4),
        pytest.param(SOFTWARE, "completed", 1, marks=pytest.mark.soak),
    ],
)
def test_a_driver_killed_between_any_two_effects_ends_the_same(policy: RolloutPolicy, state: str, stride: int) -> None:
    every = ends(policy, stride)
    _, whole = next(every)
    assert whole[0] == state
    assert TargetState.ROLLED_BACK in {found[0] for found in whole[3].values()}
    count = 0
    for dies_at, found in every:
        # A decision that was journalled and not kept is taken once only; everything else is the same.
        assert found[:5] == whole[:5], f"killed before effect {dies_at}"
        count += 1
    assert count * stride > 40


def test_a_part_of_a_journal_is_a_rollout_too() -> None:
    run = Mortal(BREAKS, None).lived()
    half: Rollout = folded(run.draft, run.journal[: len(run.journal) // 2])
    assert half.state in (RolloutState.RUNNING, RolloutState.ROLLING_BACK)
    assert folded(half, run.journal[len(run.journal) // 2 :]) == run.rollout
    assert folded(run.rollout, []) is run.rollout
    again = folded(run.rollout, run.journal[-1:])
    assert (again.state, again.marks) == (run.rollout.state, run.rollout.marks), (
        "an entry applied twice changes nothing"
    )


def test_terminals_are_asked_by_compare_and_set() -> None:
    run = Run(CHANGE, 5, 2, 1, GOOD, expect_complete=False)
    run.step()
    target = next(TerminalId(one) for one, mark in run.rollout.marks.items() if mark.asked)
    assert run.world.seen[target].gen == 2


def test_an_activation_that_comes_after_a_restore_starts_nothing() -> None:
    run = Run(SOFTWARE, 2, 1, 1, GOOD, expect_complete=False)
    world, target = run.world, next(iter(run.world.seen))
    back = world.seen[target].part or world.artefact.fallback
    number, store = MessageId("m"), StoreId("s")
    world.take(SetDesired(number, target, store, ArtefactKind.SOFTWARE, world.artefact.payload, 1), run.now)
    world.advance(run.now + timedelta(hours=1))
    assert world.seen[target].fetched == NEW
    later = run.now + timedelta(hours=1)
    world.take(Restore(number, target, store, ArtefactKind.SOFTWARE, back, 2), later)
    world.advance(later + timedelta(seconds=10))
    world.take(Activate(number, target, store, NEW), later + timedelta(seconds=10))
    world.advance(later + timedelta(minutes=5))
    seen = world.seen[target]
    assert (seen.software, seen.not_yet, seen.applied_gen) == (OLD, Reason.NOTHING_TO_ACTIVATE, 3)


# ---------------------------------------------------------------- files and commands


def test_the_shipped_policies_can_be_followed() -> None:
    assert shipped() == ("configuration", "prices", "small", "software")
    for name in shipped():
        stages = read_policy(policy_path(name)).stages
        assert [stage.stores for stage in stages] == [2, 6 if name == "small" else 50, 0]


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("    error_percent_max: 0\n", "    error_percent_max: 120\n", 36, "percent out of 0..100"),
        ("  soak_s: 3600\n", "", 32, "stages[0].soak_s: is missing"),
        ("tail: true\n", "tail: true\ntail: false\n", 9, "is said twice"),
        ("stratify: [region]\n", "stratify: [region\n", 8, "expected ',' or ']'"),
        ('until: "05:00"', "until: 22:30", 26, "in quotes"),
        ("    executed_min: 40\n", "    executed_min: 45\n", 47, "can never be met"),
    ],
)
def test_a_wrong_line_is_named(old: str, new: str, line: int, reason: str) -> None:
    text = (FOLDER / "software.yaml").read_text("utf-8")
    assert old in text
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(text.replace(old, new, 1), Path("x.yaml"))
    found = [(one.line, str(one)) for one in refused.value.problems]
    assert any(reason in told for _, told in found), found
    assert any(at == line for at, told in found if reason in told), found


@pytest.mark.parametrize(
    "text", ["", "[]", "a: &a [*a]", "\x00", "- - -", "x: !!python/object:os.system {}", "{" * 2000]
)
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(PolicyFileError):
        parse_policy(text)


def test_the_command_prints_one_object_last(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["rollout", "rehearse", "--policy", "prices", "--stores", "60", "--good"])
    assert done.exit_code == 0, done.output
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last.keys() == {"ok", "stages", "halted_at", "rolled_back", "left_between_versions", "seconds"}
    assert [one["stores"] for one in last["stages"]] == [2, 50, 8]
    assert last["stages"][0].keys() == {"stores", "succeeded", "failed", "timed_out", "offline", "liars_caught"}
    assert "✓ pilot" in done.stdout
    bad = tmp_path / "bad.yaml"
    bad.write_text((FOLDER / "prices.yaml").read_text("utf-8").replace("flaps_max: 2", "flaps_max: maybe"), "utf-8")
    checked = CliRunner().invoke(app, ["rollout", "check", str(bad), "--json"])
    assert checked.exit_code == 1
    [found] = json.loads(checked.stdout)["policies"]
    [problem] = found["problems"]
    assert (problem["path"], problem["column"]) == ("every_stage.flaps_max", 14)
