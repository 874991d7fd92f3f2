"""A small chain through every kind of chaos, on the running house: every reply once, every sale once."""

from __future__ import annotations

import os

import pytest
from rich.console import Console

from devices.fleet.orders import KILLS, Chaos
from runtime.fleet import FleetPlan, attach, play_fleet
from runtime.fleet_chain import fleet_chain
from tests.integration.house import House, Note

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("STOREOPS_FLEET_SECONDS", "60"))
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
