"""A small chain through every kind of chaos, on the running house: every reply once, every sale once."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from rich.console import Console

from devices.fleet.orders import KILLS, Chaos
from runtime.fleet import FleetPlan, attach, play_fleet
from runtime.fleet_chain import fleet_chain
from runtime.fleet_rollout import DELIVERED, NAME
from runtime.rehearsal_world import BAD
from tests.integration.house import House, Note

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("STOREOPS_FLEET_SECONDS", "36"))
STORES = 20


async def test_a_chain_lives_through_all_chaos(house: House, note: Note) -> None:
    chain = fleet_chain(STORES, 3)
    key = await attach(house.plant, chain)
    plan = FleetPlan(STORES, 3, rate_per_s=30.0, seconds=SECONDS, chaos=tuple(Chaos), seed=7, brisk=True)
    chain = chain.model_copy(update={"chain": house.plant.chain})
    report = await play_fleet(plan, house.plant, chain, key, Console(stderr=True, quiet=True))
    assert report["ok"], report["shown"]
    assert {kill["part"] for kill in report["kills"]} == set(KILLS)
    assert set(report["chaos"]) >= {"offline", "flapping", "duplicates", "lying", "broken"}
    assert report["events"] == report["replies"] > 10 * SECONDS
    assert report["sales_booked"] > 2 * SECONDS
    note("outage_s", max(report["outages_s"], default=0.0))


@pytest.mark.soak
async def test_a_small_chain_gets_software_and_gives_it_back(house: House, note: Note) -> None:
    """Six stores through three stages while customers come; one of them fails, so that all of them go back."""
    chain = fleet_chain(6, 3)
    key = await attach(house.plant, chain)
    shares = replace(BAD, failing=334, offline=0, lying=167, flapping=0)
    plan = FleetPlan(6, 3, 1.0, 1.0, (), 7, flat=True, brisk=True, rollout="software", software_faults=shares)
    chain = chain.model_copy(update={"chain": house.plant.chain})
    report = await play_fleet(plan, house.plant, chain, key, Console(stderr=True, quiet=True))
    assert report["ok"], (report["shown"], report["rollout"]["broken"])
    told = report["rollout"]
    assert (told["state"], told["left_between_versions"]) == ("rolled_back", 0)
    assert told["versions"] == {f"{NAME} {DELIVERED}": 18}
    assert sum(stage["failed"] + stage["timed_out"] + stage["liars_caught"] for stage in told["stages"]) >= 1
    assert sum(stage["stores"] for stage in told["stages"]) == 6
    note("rollout_s", told["seconds"])
