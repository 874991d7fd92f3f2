"""A face desk and its workers in a running engine: a storm, deaths, up under load and down again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.face_crowd import BURST, STORM_ANSWER_S
from tests.integration.house import ROOT, House, Note, environment, storeops

LATE_S = 0.5
"""What the machine of the tests may add to a deadline."""
CROWD_S_MAX = 120.0
pytestmark = pytest.mark.timeout(150)  # the first one starts a house and waits for the crowd


@pytest.fixture(scope="module")
def crowd(_house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the crowd did and heard, in a process of its own: the engine's client stays out of the tests'."""
    if not _house.running:
        _house.start()
    log: Path = tmp_path_factory.mktemp("crowd") / "log"
    token = _house.plant.ray_token_path
    with log.open("ab") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.face_crowd", str(_house.data)],
            cwd=ROOT,
            env={**environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token},
            stdout=subprocess.PIPE,
            stderr=errors,
            timeout=CROWD_S_MAX,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-8_000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_storm_of_one_store_is_told_busy_in_time_and_another_store_has_its_turn(
    crowd: dict[str, Any], note: Note
) -> None:
    storm = crowd["storm"]
    assert set(storm["outcomes"]["quiet"]) == {"quality"}, "looked at, each of them"
    assert storm["outcomes"]["storm"]["busy"] > 100
    assert storm["outcomes"]["storm"]["quality"] > 10
    assert storm["slowest_s"] <= STORM_ANSWER_S + LATE_S + storm["late_s"]
    note("slowest answer of a storm", storm["slowest_s"])


def test_a_worker_killed_under_a_burst_loses_no_request_and_answers_none_twice(crowd: dict[str, Any]) -> None:
    burst, desk = crowd["burst"], crowd["after_burst"]
    assert burst["answers"] == BURST
    assert {what for store in burst["outcomes"].values() for what in store} <= {"quality", "busy"}
    assert sum(store.get("quality", 0) for store in burst["outcomes"].values()) >= BURST / 4, (
        "those of the dead one are with the other"
    )
    assert burst["slowest_s"] <= 3.0 + LATE_S
    assert desk["redispatched"] >= 1
    assert [one["deaths"] for one in desk["workers"]] == [1, 0]
    assert desk["asked"] == desk["answered"] + desk["shed"] + desk["expired"] + desk["lost"] + desk["open"]


def test_workers_come_under_load_and_go_when_they_are_not_needed(crowd: dict[str, Any], note: Note) -> None:
    assert crowd["up"] == 2
    assert crowd["after_burst"]["started"] == 1
    note("the second worker gone after", crowd["down_s"])


def test_between_machines_questions_go_over_ray(crowd: dict[str, Any]) -> None:
    assert crowd["between_machines"] == ["quality", "quality"]


def test_a_desk_killed_finds_its_workers_again_and_everybody_gets_an_answer(crowd: dict[str, Any]) -> None:
    killed = crowd["desk_killed"]
    assert killed["answers"] == BURST
    assert {what for store in killed["outcomes"].values() for what in store} <= {"quality", "busy"}
    assert killed["slowest_s"] <= 3.0 + LATE_S
    before, after = crowd["before_and_after"]
    told = [[desk["pid"], desk["stuck"], *map(who, desk["workers"])] for desk in (before, after)]
    assert after["workers"][0]["pid"] == before["workers"][0]["pid"], f"the same worker: {told}"
    assert after["pid"] != before["pid"], f"another desk: {told}"
    assert sum(store.get("quality", 0) for store in crowd["afterwards"]["outcomes"].values()) > 0


def who(worker: dict[str, Any]) -> str:
    return " ".join(f"{key}={worker.get(key)}" for key in ("n", "pid", "state", "deaths", "since_s", "start_ms"))


def test_the_house_tells_of_its_own_desk(house: House) -> None:
    [desk] = storeops("faces", "workers", "--data", str(house.data))["desks"]
    assert (desk["region"], desk["workers_min"]) == (house.plant.region, 1)
    assert [one["state"] for one in desk["workers"]] == ["ready"]
    assert desk["workers"][0]["pid"] == house.face_worker().pid
