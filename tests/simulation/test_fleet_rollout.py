"""The fleet's rollout: a compressed policy can be followed, faults are read strictly, the judge sees who lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from devices.fleet.orders import Fault, FleetLane, FleetTerminal, Runs
from models.domain.errors import Refused
from models.domain.ids import StoreId, TerminalId
from models.domain.rollout import Selector
from models.domain.rollout_feasible import contradictions, fitted, plan_problems
from models.domain.rollout_plan import resolve
from runtime.fleet_chain import fleet_chain, lanes_of
from runtime.fleet_rollout import Judge, away, compressed, markdown, shares_of, sites_of, with_faults
from runtime.rehearsal_world import BAD, GOOD, Shares
from runtime.rollout_files import policy_path, read_policy

SOFTWARE = read_policy(policy_path("software"))


def lanes(stores: int) -> tuple[FleetLane, ...]:
    return tuple(lanes_of(fleet_chain(stores, 3), "key", 1))


@pytest.mark.parametrize(("stores", "stages"), [(6, [2, 2, 2]), (60, [2, 14, 44]), (1_000, [2, 50, 948])])
def test_a_compressed_policy_can_be_followed(stores: int, stages: list[int]) -> None:
    policy = compressed(SOFTWARE, stores)
    plan = resolve(
        sites_of(lanes(stores)), Selector(all_stores=True), policy.stages, 1, mandatory_roles=policy.mandatory_roles
    )
    policy = fitted(policy, plan)
    assert [len(stage.stores) for stage in plan.stages] == stages
    assert (contradictions(policy), plan_problems(policy, plan)) == ([], ())
    same = ("success_percent_min", "error_percent_max", "offline_percent_max", "in_flight_stores_max", "flaps_max")
    for quick, real in zip(policy.stages, SOFTWARE.stages, strict=True):
        assert [getattr(quick.policy, name) for name in same] == [getattr(real.policy, name) for name in same]


def test_faults_are_a_share_of_the_stores() -> None:
    faulty = with_faults(lanes(100), BAD, 3)
    assert sum(away(lane) for lane in faulty) == 5
    others = [one.fault for lane in faulty if not away(lane) for one in lane.terminals if one.fault is not Fault.NONE]
    assert len(others) == 5
    assert with_faults(lanes(100), None, 3) == lanes(100)
    assert with_faults(lanes(100), BAD, 3) == faulty


def test_shares_by_name_or_file(tmp_path: Path) -> None:
    assert [shares_of(name) for name in ("none", "good", "defaults")] == [None, GOOD, BAD]
    file = tmp_path / "faults.yaml"
    file.write_text("{failing: 100, offline: 0, lying: 20, flapping: 0}")
    assert shares_of(str(file)) == Shares(100, 0, 20, 0)
    for wrong in ("{failing: 100}", "{failing: -1, offline: 0, lying: 0, flapping: 0}", "[]", "no", "{failing: x}"):
        file.write_text(wrong)
        with pytest.raises(Refused) as refused:
            shares_of(str(file))
        assert refused.value.code == "bad_faults"
    with pytest.raises(Refused):
        shares_of(str(tmp_path / "missing.yaml"))


def test_the_judge_holds_truth_report_and_document_together() -> None:
    store, one, two = StoreId("s"), TerminalId("s-f1"), TerminalId("s-t1")
    lane = FleetLane(store, False, 0, 24, tuple(FleetTerminal(name, "till", "till", "") for name in (one, two)))
    new = Runs(one, "fleet 2.0.0", "fleet 2.0.0", 3, "hash", 1)
    wanted = {one: (3, "fleet 2.0.0"), two: (3, "fleet 2.0.0")}
    judge = Judge((lane,), wanted)
    assert judge.between([new, replace(new, terminal=two)]) == []
    assert len(judge.between([replace(new, version="fleet 1.0.0"), replace(new, terminal=two)])) == 2, (
        "a liar, and both"
    )
    assert judge.between([new, replace(new, terminal=two, applied_gen=2)]) == [
        "s-t1: to run fleet 2.0.0 of generation 3, runs fleet 2.0.0, says fleet 2.0.0 of generation 2"
    ]
    never_asked = Judge((lane,), {})
    assert never_asked.between([Runs(one, "fleet 1.0.0", "fleet 1.0.0", 0, "", 0)]) == []
    assert len(never_asked.between([Runs(one, "fleet 1.0.0", "fleet 2.0.0", 0, "", 0)])) == 1


def test_the_ladder_as_a_table() -> None:
    spans = {"n": 1, "p50": 1.0, "p99": 2.0, "max": 2.0}
    stage = dict.fromkeys(("stores", "succeeded", "failed", "timed_out", "liars_caught", "offline"), 2)
    stage |= {"under_way": 0, "not_asked": 0}
    found = {
        "stages": [{**stage, "opened_s": 1.0, "asked_s": None, "passed_s": None}],
        "halted_at": 1,
        "halted_s": 9.0,
        "halted_why": "2 of 2 stores failed",
        "state": "rolled_back",
        "seconds": 12.5,
        "why": {"en": "everything is back", "zh": "已恢复"},
        "rolled_back": 2,
        "left_between_versions": 0,
        "boots": 4,
        "told_again": 0,
        "journal": 20,
        "proved_s": spans,
        "returned_s": spans,
        "broken": ["something"],
    }
    shown = markdown(found)
    assert "| 1 | 2 | 2 | 2 | 2 | 2 | 2 | 0 | 0 | 1.0 s | – |" in shown
    assert "Halted in stage 1 after 9.0 s: 2 of 2 stores failed." in shown
    assert shown.endswith("- BROKEN: something")
