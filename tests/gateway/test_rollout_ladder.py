"""The ladder's picture: every store in one place, each figure held as the gate holds it, buttons that fit the state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.rollout_effects import StageView
from gateway.console.rollout_charts import looks
from gateway.console.rollout_ladder import STANDS, bounds, ladder
from gateway.errors import Problem
from gateway.patch_text import patch_from
from gateway.queries.rollout_evidence import LookView
from gateway.routes.rollouts_page import deeds
from gateway.views import TextView
from models.domain.permissions import Permission
from models.domain.rollout import RolloutState, StageState, TargetState
from models.domain.rollout_gate import Counts, GateCode, Way, evaluate
from models.domain.rollout_journal import Mark, Rollout, StageMark
from tests.domain.rollouts import NOW, after, policy, rollout, rules, site

TWO_THEN_ALL = policy(
    {"name": "pilot", "stores": 2} | rules(following="approval", executed_min=2, soak_s=100),
    {"name": "all", "stores": "all"} | rules(success_percent_min=50, error_percent_max=50, error_stores_max=9),
)


def begun(**marks: Mark) -> Rollout:
    """Six stores; the pilot is open, and its stores' marks in their order."""
    draft = rollout(TWO_THEN_ALL, *(site(n) for n in range(1, 7)))
    pilot = [store.targets[0].terminal for store in draft.plan.stages[0].stores]
    stages = (StageMark(StageState.OPEN, opened_at=NOW, queue_since=NOW), StageMark())
    named = dict(zip(pilot, marks.values(), strict=False))
    return replace(draft, state=RolloutState.RUNNING, stage=0, stages=stages, marks=named)


def test_a_draft_waits_for_its_start_and_everybody_is_queued() -> None:
    first, last = ladder(rollout(TWO_THEN_ALL, *(site(n) for n in range(1, 7))), (), NOW)
    assert (first.why.en, last.why.en) == ("waits for the start", "waits for: stage pilot to pass")
    assert [(part.stand, part.count, part.width) for part in last.parts] == [("queued", 4, 100.0)]
    assert {one.met for rung in (first, last) for one in rung.bounds} == {None}


def test_stores_stand_where_their_terminals_do_and_soaking_has_its_share() -> None:
    soaking = Mark(TargetState.SOAKING, previous="", soak_since=NOW)
    succeeded = Mark(TargetState.SUCCEEDED, previous="", succeeded_at=NOW)
    counts = Counts(2, soaking=1, succeeded=1)
    view = StageView(counts, evaluate(counts, TWO_THEN_ALL.stages[0].policy, None))
    [pilot, _] = ladder(begun(a=soaking, b=succeeded), (view,), after(30))
    assert [(part.stand, part.x, part.width) for part in pilot.parts] == [
        ("succeeded", 0.0, 50.0),
        ("soaking", 50.0, 50.0),
    ]
    assert pilot.soak is not None
    assert (pilot.soak.share, pilot.soak.least_s, pilot.soak.soaking) == (65, 30, 1)
    assert pilot.why.en.startswith("waits for: 1 of 2 stores have an outcome")
    assert {one.name: (one.value, one.met) for one in pilot.bounds}["executed"] == (1, False)
    [stopped, _] = ladder(replace(begun(a=soaking, b=succeeded), state=RolloutState.ROLLING_BACK), (view,), after(30))
    assert (stopped.unfinished, stopped.why.en) == (True, "not finished: the rollout was stopped before")
    back = Mark(TargetState.ROLLED_BACK, previous="", error=TargetState.LYING)
    [pilot, _] = ladder(begun(a=back, b=replace(succeeded, state=TargetState.ROLLING_BACK)), (), NOW)
    assert {part.stand: part.count for part in pilot.parts} == {"rolling_back": 1, "rolled_back": 1}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=8, max_size=8), st.integers(0, 3), st.integers(0, 60), st.integers(0, 100))
@example([0, 0, 0, 0, 2, 1, 0, 0], 3, 33, 0)
def test_a_figure_is_over_its_bound_exactly_when_the_gate_says_so(
    stores: list[int], errors_max: int, error_percent_max: int, success_percent_min: int
) -> None:
    names = ("queued", "offline", "in_progress", "soaking", "succeeded", "failed", "timed_out", "lying")
    tally = dict(zip(names, stores, strict=True))
    counts = Counts(sum(stores), queue_over=False, **tally)
    stage = replace(
        TWO_THEN_ALL.stages[0].policy,
        error_stores_max=errors_max,
        error_percent_max=error_percent_max,
        success_percent_min=success_percent_min,
        executed_min=1,
        offline_percent_max=10,
    )
    gate = evaluate(counts, stage, None)
    met = {one.name: one.met for one in bounds(counts, stage)}
    assert (gate.code is GateCode.ERRORS_ABSOLUTE) == (met["errors"] is False)
    assert (gate.code is GateCode.ERRORS_PERCENT) == (met["errors"] is not False and met["error_share"] is False)
    if gate.code is GateCode.OFFLINE_MANY:
        assert met["offline"] is False
    if gate.way is Way.AWAIT_APPROVAL:
        assert set(met.values()) == {True}
    assert all(0 <= one.at <= 100 and 0 <= one.bound_at <= 100 for one in bounds(counts, stage))


def test_every_mark_of_a_terminal_has_its_piece_of_the_bar() -> None:
    for state in TargetState:
        error = state if state.error else None
        [pilot, _] = ladder(begun(a=Mark(state, previous="", error=error)), (), NOW)
        assert sum(part.count for part in pilot.parts) == 2
        assert {part.stand for part in pilot.parts} <= set(STANDS)
        assert sum(part.width for part in pilot.parts) == pytest.approx(100)


def test_buttons_fit_the_state_the_author_and_the_permissions() -> None:
    running = begun()
    waits = replace(running, stages=(StageMark(StageState.AWAITS_APPROVAL), StageMark()))

    def shown(of: Rollout, **said: Any) -> list[str]:
        found = deeds(of, **{"own": False, "missing": frozenset(), **said})
        return [f"-{one.verb}" if one.blocked else one.verb for one in found]

    assert shown(running) == ["pause", "halt", "rollback"]
    assert shown(waits) == ["promote", "approve", "pause", "halt", "rollback"]
    assert shown(waits, own=True)[:3] == ["-promote", "-approve", "pause"]
    no_halt = frozenset({Permission.ROLLOUT_HALT})
    assert shown(waits, missing=no_halt) == ["promote", "approve", "-pause", "-halt", "-rollback"]
    by_state = {state: shown(replace(running, state=state)) for state in RolloutState}
    assert by_state[RolloutState.DRAFT] == ["start"]
    assert by_state[RolloutState.PAUSED] == ["resume", "halt", "rollback"]
    assert by_state[RolloutState.COMPLETED] == by_state[RolloutState.ROLLBACK_STUCK] == ["rollback"]
    assert by_state[RolloutState.ROLLED_BACK] == by_state[RolloutState.SUPERSEDED] == []


def test_looks_are_drawn_around_no_effect() -> None:
    said: dict[str, Any] = {
        "looks": 2, "at": NOW, "outcome": "unclear", "metric": "takings_per_day", "mde": 0.12, "p": 0.4,
        "sample_ratio_p": 0.5, "treated": 50, "controls": 100, "why": TextView(zh="不明", en="unclear"),
        "findings": [], "points": [],
    }  # fmt: skip
    series = [
        LookView(look=1, estimate=0.02, low=-0.1, high=0.14, **said),
        LookView(look=2, estimate=0.05, low=0.01, high=0.09, **said),
    ]
    chart = looks(series)
    assert chart is not None
    assert [bar.title for bar in chart.bars] == ["1/2: +2.0 (-10.0 … +14.0)", "2/2: +5.0 (+1.0 … +9.0)"]
    [zero] = [line for line in chart.lines if line.kind == "none"]
    middle = float(zero.points.split(",")[-1])
    assert chart.bars[1].y + chart.bars[1].height < middle, "above no effect"
    assert [mark.text for mark in chart.ys if mark.at == middle] == ["0"]
    assert looks([series[0].model_copy(update={"estimate": None})]) is None


def test_a_patch_is_read_as_yaml_or_refused_with_its_place() -> None:
    assert patch_from("sound:\n  volume_percent: 40\n") == {"sound": {"volume_percent": 40}}
    assert patch_from('{"a": {"b": null}}') == {"a": {"b": None}}
    for text, line, said in (
        ("sound:\n  a: [1\n", 3, "expected"),
        ("a: &x {b: 1}\nc: *x\n", 1, "anchors"),
        ("- a\n", 1, "names and values"),
        ("since: 2026-01-01\n", 1, "quotation marks"),
    ):
        with pytest.raises(Problem) as refused:
            patch_from(text)
        assert refused.value.code == "patch_wrong"
        assert (refused.value.errors[0].line, said in refused.value.message) == (line, True), text
