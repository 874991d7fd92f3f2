"""Wrong rules are refused, each with its path and reason; nothing has a default."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models.domain.rollout import Artefact, ArtefactKind, digest_of
from models.domain.rollout_feasible import fitted, longest_gap_min, plan_problems
from models.domain.rollout_policy import RULE_FIELDS, PolicyError, misfits, policy_from
from tests.domain.rollouts import CONFIG, SOFTWARE, document, policy, release, rollout, rules, site
from tests.domain.test_rollout_gate import EVIDENCE

FIRST: dict[str, Any] = {"name": "two", "stores": 20} | rules(executed_min=2)
LAST: dict[str, Any] = {"name": "all", "stores": "all"} | rules()


def found(change: Callable[[dict[str, Any]], object]) -> dict[str, str]:
    wrong = copy.deepcopy(document(FIRST, LAST))
    change(wrong)
    with pytest.raises(PolicyError) as refused:
        policy_from(wrong)
    return {one.path: one.reason for one in refused.value.problems}


def in_first(**over: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["stages"][0].update(over)


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        (in_first(success_percent_min=101), "stages[0].success_percent_min", "percent out of 0..100, got 101"),
        (in_first(error_percent_max="2"), "stages[0].error_percent_max", "percent out of 0..100, got '2'"),
        (in_first(error_percent_max=True), "stages[0].error_percent_max", "percent out of 0..100, got True"),
        (in_first(success_percent_min=0), "stages[0].success_percent_min", "lets everything pass"),
        (in_first(success_percent_min=98, error_percent_max=5), "stages[0].error_percent_max", "neither pass nor halt"),
        (in_first(executed_min=21), "stages[0].executed_min", "can never be met"),
        (
            in_first(executed_min=19, offline_percent_max=10, success_percent_min=90),
            "stages[0].executed_min",
            "of 20 stores 2 may be offline, 19 must be executed",
        ),
        (in_first(error_stores_max=20), "stages[0].error_stores_max", "can never halt"),
        (in_first(soak_deadline_s=60), "stages[0].soak_deadline_s", "nobody can soak in time"),
        (in_first(jitter_s=3600), "stages[0].jitter_s", "time out by chance"),
        (in_first(claim_grace_s=600), "stages[0].claim_grace_s", "no lie is ever caught"),
        (in_first(in_flight_stores_max=1, soak_s=300), "stages[0].queue_deadline_s", "after 5700 s"),
        (in_first(starts_per_minute_max=0), "stages[0].starts_per_minute_max", "1..20000"),
        (in_first(evidence=EVIDENCE | {"primary": "happiness"}), "stages[0].evidence.primary", "is no metric"),
        (in_first(evidence=EVIDENCE | {"look_days": [7, 7]}), "stages[0].evidence.look_days", "rising"),
        (in_first(evidence=EVIDENCE | {"alpha": 0}), "stages[0].evidence.alpha", "above 0"),
        (in_first(evidence=EVIDENCE, stores=2), "stages[0].evidence.kind", "cannot show an effect"),
        (
            in_first(windows=[{"begins": "02:00", "until": "05:00", "weekdays": [1, 2, 3, 4, 5, 6, 7]}]),
            "stages[0].queue_deadline_s",
            "closed for 75600 s",
        ),
        (
            in_first(windows=[{"begins": 120, "until": "05:00", "weekdays": [1]}]),
            "stages[0].windows[0].begins",
            "in quotes",
        ),
        (
            in_first(windows=[{"begins": "05:00", "until": "05:00", "weekdays": [1]}]),
            "stages[0].windows[0].until",
            "never opens",
        ),
        (in_first(following="maybe"), "stages[0].following", "one of automatic, approval"),
        (in_first(stores=0), "stages[0].stores", "a number of stores"),
        (in_first(stores="all"), "stages[0].stores", "only the last"),
        (in_first(named=["a", "a"]), "stages[0].named", "twice"),
        (in_first(soak_seconds=5), "stages[0].soak_seconds", "is no field here"),
        (lambda d: d["stages"][1].update(stores=5), "stages[1].stores", "takes all that are left"),
        (lambda d: d["stages"][1].update(name="two"), "stages", "a name of its own"),
        (lambda d: d["stages"][1].update(following="approval"), "stages[1].following", "nothing follows"),
        (lambda d: d.update(stages=[]), "stages", "1..16"),
        (lambda d: d.update(kinds=["hardware"]), "kinds[0]", "one of config"),
        (lambda d: d.update(mandatory_roles=[]), "mandatory_roles", "1..16"),
        (lambda d: d.update(zone="Canton"), "zone", "IANA"),
        (lambda d: d.update(tail="yes"), "tail", "true or false"),
        (lambda d: d.update(title="x"), "title", "mapping"),
        (lambda d: d["rollback"].update(automatic=None), "rollback.automatic", "says nothing"),
        (lambda d: d["rollback"].pop("deadline_s"), "rollback.deadline_s", "is missing"),
    ],
)
def test_each_wrong_value_is_named(change: Callable[[dict[str, Any]], object], path: str, reason: str) -> None:
    problems = found(change)
    assert path in problems, problems
    assert reason in problems[path]


@pytest.mark.parametrize("field", RULE_FIELDS)
def test_no_rule_has_a_default(field: str) -> None:
    assert found(lambda document: document["stages"][0].pop(field)) == {f"stages[0].{field}": "is missing"}


@pytest.mark.parametrize("nonsense", [None, [], "policy", 5, {}])
def test_what_is_no_policy_is_refused(nonsense: object) -> None:
    with pytest.raises(PolicyError):
        policy_from(nonsense)


def test_every_problem_is_named_not_only_the_first() -> None:
    problems = found(in_first(soak_s=-1, executed_min="many", following=None))
    assert set(problems) == {"stages[0].soak_s", "stages[0].executed_min", "stages[0].following"}


def test_what_all_stages_share_may_be_said_once_and_is_blamed_there() -> None:
    shared = rules(soak_s=60)
    short = {"name": "two", "stores": 20}
    whole = document(short, {"name": "all", "stores": "all", "soak_s": 90}, every_stage=shared)
    read = policy_from(whole)
    assert [stage.policy.soak_s for stage in read.stages] == [60, 90]
    with pytest.raises(PolicyError) as refused:
        policy_from(whole | {"every_stage": shared | {"flaps_max": -1}})
    assert [one.path for one in refused.value.problems] == ["every_stage.flaps_max"]


def test_the_stage_that_takes_all_is_judged_once_its_stores_are_counted() -> None:
    rule = policy({"name": "all", "stores": "all"} | rules(executed_min=5, error_stores_max=9, in_flight_stores_max=1))
    plan = rollout(rule, *(site(n) for n in range(4))).plan
    assert {one.path for one in plan_problems(rule, plan)} == {"stages[0].executed_min", "stages[0].error_stores_max"}
    fits = fitted(rule, plan)
    assert plan_problems(fits, plan) == ()
    assert (fits.stages[0].policy.executed_min, fits.stages[0].policy.error_stores_max) == (4, 3)
    many = rollout(rule, *(site(n) for n in range(80))).plan
    assert [one.path for one in plan_problems(fitted(rule, many), many)] == ["stages[0].queue_deadline_s"]


def test_windows_leave_gaps() -> None:
    night = {"begins": "22:00", "until": "02:00", "weekdays": [1, 3]}
    read = policy({"name": "all", "stores": "all"} | rules(windows=[night], queue_deadline_s=600_000))
    assert longest_gap_min(read.stages[0].policy.windows) == (5 * 24 - 4) * 60
    assert longest_gap_min(()) == 0


# ---------------------------------------------------------------- what goes out under which policy


def test_an_artefact_must_fit_its_policy() -> None:
    rule = policy(kinds=["software", "config"])
    assert misfits(rule, SOFTWARE) == ()
    assert misfits(rule, CONFIG) == ()
    assert [one.path for one in misfits(policy(kinds=["config"]), SOFTWARE)] == ["kinds"]
    assert [one.path for one in misfits(rule, replace(CONFIG, sha256="0"))] == ["artefact.sha256"]
    loose = replace(CONFIG, payload='{"volume": 2}', sha256=digest_of('{"volume": 2}'))
    assert [one.path for one in misfits(rule, loose)] == ["artefact.payload"]
    bare = replace(SOFTWARE, fallback="")
    assert [one.path for one in misfits(rule, bare)] == ["artefact.fallback"]
    other = replace(SOFTWARE, payload=release("3.0"), sha256=digest_of(release("3.0")))
    assert [one.path for one in misfits(rule, other)] == ["artefact.version"]


@pytest.mark.parametrize(
    ("payload", "key", "touched"),
    [
        ('{"faces":{"enabled":true}}', "config", True),
        ('{"store":{"face_digits":true}}', "config", True),
        ('{"volume":3}', "face-pay", True),
        ('{"volume":3}', "config", False),
    ],
)
def test_what_touches_faces_needs_a_privacy_assessment_before_the_second_stage(
    payload: str, key: str, touched: bool
) -> None:
    artefact = Artefact(ArtefactKind.CONFIG, replace(CONFIG, key=key).key, "1", payload, digest_of(payload))  # type: ignore[arg-type]
    without = policy(FIRST, LAST)
    asked = policy(FIRST | {"attachments": ["privacy_assessment"]}, LAST)
    assert bool(misfits(without, artefact)) is touched
    assert misfits(asked, artefact) == ()
