"""The gate: errors before success, percentages after the minimum, and nobody passes one that waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.evidence import Outcome, StageKind, Verdict
from models.domain.plan_reader import Text
from models.domain.rollout import Following, StagePolicy, Unclear
from models.domain.rollout_gate import Counts, GateCode, Way, evaluate
from tests.domain.rollouts import policy, rules

EVIDENCE = {
    "kind": "primary",
    "safety": ["errors"],
    "primary": "sales_per_day",
    "look_days": [7, 14],
    "before_days": 28,
    "controls_per_store": 1,
    "match_labels": ["region"],
    "alpha": 0.05,
    "power": 0.8,
    "mde": 0.1,
    "sample_ratio_alpha": 0.001,
    "seed": 0,
}


def stage(**over: Any) -> StagePolicy:
    found = policy({"name": "one", "stores": 50} | rules(**over), {"name": "rest", "stores": "all"} | rules())
    return found.stages[0].policy


FIFTY = stage(success_percent_min=90, error_percent_max=10, error_stores_max=8, executed_min=20, offline_percent_max=10)


def verdict(outcome: Outcome, look: int = 1) -> Verdict:
    return Verdict(outcome, StageKind.PRIMARY, Text("证据", "evidence"), look, 2, "", "")


@pytest.mark.parametrize(
    ("counts", "way", "code"),
    [
        (Counts(50, queued=50), Way.HOLD, GateCode.FEW_EXECUTED),
        (Counts(50, succeeded=19, soaking=31), Way.HOLD, GateCode.FEW_EXECUTED),
        (Counts(50, succeeded=20, soaking=30), Way.HOLD, GateCode.NOT_SOAKED),
        (Counts(50, succeeded=44, soaking=6), Way.HOLD, GateCode.NOT_SOAKED),
        (Counts(50, succeeded=45, soaking=5), Way.ADVANCE, GateCode.PASSED),
        (Counts(50, succeeded=41, offline=5, soaking=4), Way.ADVANCE, GateCode.PASSED),
        (Counts(50, succeeded=44, offline=6), Way.HOLD, GateCode.OFFLINE_MANY),
        (Counts(50, succeeded=44, offline=6, queue_over=True), Way.HALT, GateCode.OFFLINE_CAP),
        # Six of fifty are more than 10 %, but nineteen executed are too few to say so.
        (Counts(50, succeeded=13, failed=6, soaking=31), Way.HOLD, GateCode.FEW_EXECUTED),
        (Counts(50, succeeded=14, failed=6, soaking=30), Way.HALT, GateCode.ERRORS_PERCENT),
        # Failures are quick, successes soak: three of the first twenty are three of the fifty that were asked.
        (Counts(50, succeeded=17, failed=3, soaking=30), Way.HOLD, GateCode.NOT_SOAKED),
        (Counts(50, succeeded=17, failed=3, queued=30), Way.HALT, GateCode.ERRORS_PERCENT),
        (Counts(50, failed=3, timed_out=3, lying=3, soaking=41), Way.HALT, GateCode.ERRORS_ABSOLUTE),
    ],
)
def test_table(counts: Counts, way: Way, code: GateCode) -> None:
    gate = evaluate(counts, FIFTY, None)
    assert (gate.way, gate.code) == (way, code)
    assert gate.why.zh != gate.why.en


def test_one_of_two_stores_is_enough_to_stop() -> None:
    pilot = (
        policy({"name": "two", "stores": 2} | rules(executed_min=2), {"name": "rest", "stores": "all"} | rules())
        .stages[0]
        .policy
    )
    assert evaluate(Counts(2, failed=1, queued=1), pilot, None).way is Way.HALT
    assert evaluate(Counts(2, timed_out=1, succeeded=1), pilot, None).way is Way.HALT
    assert evaluate(Counts(2, succeeded=2), pilot, None).way is Way.ADVANCE


def test_the_why_line_names_the_figures() -> None:
    gate = evaluate(Counts(50, succeeded=42, soaking=8), FIFTY, None)
    assert gate.why.en == "waits for: 8 of 50 stores not yet soaked"
    assert gate.why.zh == "等待：50 家门店中还有 8 家未完成观察期"


DONE = Counts(50, succeeded=50)


@pytest.mark.parametrize(
    ("found", "unclear", "approved", "way", "code"),
    [
        (None, "halt", True, Way.HOLD, GateCode.EVIDENCE_MISSING),
        (verdict(Outcome.BETTER), "halt", False, Way.ADVANCE, GateCode.PASSED),
        (verdict(Outcome.SAFE, 1), "halt", True, Way.HOLD, GateCode.EVIDENCE_WAITS),
        (verdict(Outcome.SAFE, 2), "halt", False, Way.ADVANCE, GateCode.PASSED),
        (verdict(Outcome.WORSE), "approval", True, Way.HALT, GateCode.EVIDENCE_HARM),
        (verdict(Outcome.UNSAFE), "approval", True, Way.HALT, GateCode.EVIDENCE_HARM),
        (verdict(Outcome.INVALID, 2), "approval", True, Way.HOLD, GateCode.EVIDENCE_INVALID),
        (verdict(Outcome.UNCLEAR, 1), "approval", True, Way.HOLD, GateCode.EVIDENCE_WAITS),
        (verdict(Outcome.UNCLEAR, 2), "halt", True, Way.HALT, GateCode.EVIDENCE_UNCLEAR),
        (verdict(Outcome.UNCLEAR, 2), "approval", False, Way.AWAIT_APPROVAL, GateCode.EVIDENCE_UNCLEAR),
        (verdict(Outcome.UNCLEAR, 2), "approval", True, Way.ADVANCE, GateCode.PASSED),
    ],
)
def test_evidence(found: Verdict | None, unclear: str, approved: bool, way: Way, code: GateCode) -> None:
    gate = evaluate(DONE, stage(evidence=EVIDENCE, unclear=unclear), found, approved=approved)
    assert (gate.way, gate.code) == (way, code)


def test_papers_come_before_people() -> None:
    rule = stage(attachments=["privacy_assessment"], following="approval")
    assert evaluate(DONE, rule, None, approved=True).code is GateCode.ATTACHMENT_MISSING
    attached = frozenset({"privacy_assessment"})
    assert evaluate(DONE, rule, None, attached=attached).way is Way.AWAIT_APPROVAL
    assert evaluate(DONE, rule, None, attached=attached, approved=True).way is Way.ADVANCE


# ---------------------------------------------------------------- properties

many = st.integers(0, 60)


@st.composite
def counted(draw: st.DrawFn) -> Counts:
    parts = {
        name: draw(many)
        for name in ("queued", "offline", "in_progress", "soaking", "succeeded", "failed", "timed_out", "lying")
    }
    return Counts(stores=sum(parts.values()), queue_over=draw(st.booleans()), **parts)


policies = st.builds(
    replace,
    st.just(stage(evidence=EVIDENCE)),
    success_percent_min=st.integers(1, 100),
    error_percent_max=st.integers(0, 100),
    error_stores_max=st.integers(0, 60),
    executed_min=st.integers(1, 100),
    offline_percent_max=st.integers(0, 100),
    following=st.sampled_from(Following),
    unclear=st.sampled_from(Unclear),
)
verdicts = st.one_of(st.none(), st.builds(verdict, st.sampled_from(Outcome), st.integers(1, 2)))


@given(counted(), policies, verdicts, st.booleans())
def test_who_advances_has_satisfied_every_rule(
    counts: Counts, rule: StagePolicy, found: Verdict | None, approved: bool
) -> None:
    gate = evaluate(counts, rule, found, approved=approved)
    if counts.errors > rule.error_stores_max:
        assert gate.way is Way.HALT, "errors come before success"
    if gate.code is GateCode.ERRORS_PERCENT or gate.code is GateCode.SUCCESS_UNREACHABLE:
        assert counts.executed >= rule.executed_min, "percentages only after the minimum"
    if gate.way is not Way.ADVANCE:
        return
    assert counts.executed >= rule.executed_min
    assert counts.succeeded * 100 >= rule.success_percent_min * counts.reached
    assert counts.errors * 100 <= rule.error_percent_max * counts.asked
    assert counts.offline * 100 <= rule.offline_percent_max * counts.stores
    assert found is not None
    assert found.outcome in (Outcome.SAFE, Outcome.BETTER, Outcome.UNCLEAR)
    assert found.outcome is not Outcome.UNCLEAR or (found.final and approved)
    assert found.outcome is not Outcome.SAFE or found.final, "no harm so far is no pass"
    assert rule.following is Following.AUTOMATIC or approved


@given(counted(), policies, verdicts)
def test_one_more_error_never_opens_a_gate(counts: Counts, rule: StagePolicy, found: Verdict | None) -> None:
    if counts.succeeded == 0:
        return
    worse = replace(counts, succeeded=counts.succeeded - 1, failed=counts.failed + 1)
    if evaluate(counts, rule, found, approved=True).way is not Way.ADVANCE:
        assert evaluate(worse, rule, found, approved=True).way is not Way.ADVANCE
