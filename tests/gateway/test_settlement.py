"""Settlement by the API, on a real database and the real desk: the switch, the items, a refused action."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from models.domain.ids import ChainId, RegionId
from runtime.plant import Plant
from runtime.settlement_desk import SettlementsOfAHouse
from tests.gateway.conftest import Console

API = "/api/v1/settlement"
REGION = "far"


async def forecast(plant: Plant) -> Mapping[str, object]:
    names = ("expired", "cut_off", "reserved", "calls", "nothing", "fee", "fee_fen", "clawback", "clawback_fen")
    return {"region": plant.region, "now": "2026-03-01T00:00:00Z", **dict.fromkeys(names, 3)}


@pytest.fixture
def settled(console: Console, filled_url: str) -> Console:
    served = console.edge.settings.regions[0].name
    plants = [
        Plant(data_dir=Path(), chain=ChainId("demo"), region=RegionId(name), database_url=filled_url)
        for name in (REGION, served)
    ]
    console.edge.settlements = SettlementsOfAHouse(plants, forecast)
    return console


def effect(console: Console) -> dict[str, str]:
    return {**console.ours, "Idempotency-Key": str(uuid.uuid4())}


async def test_a_region_is_paused_seen_so_and_resumed(settled: Console) -> None:
    url = f"{API}/{REGION}"
    assert (await settled.client.get(url)).json()["switch"]["paused"] is False
    body = {"paused": True, "reason": "the provider is down"}
    assert (await settled.client.put(f"{url}/switch", json=body)).status_code == 403, "no token of ours"
    done = (await settled.client.put(f"{url}/switch", json=body, headers=effect(settled))).json()
    assert (done["paused"], done["why"], done["by"][:8]) == (True, "the provider is down", "console:")
    status = (await settled.client.get(url)).json()
    assert (status["switch"]["paused"], status["due"], status["runs"]) == (True, 0, [])
    await settled.client.put(f"{url}/switch", json={"paused": False}, headers=effect(settled))
    assert (await settled.client.get(url)).json()["switch"]["paused"] is False


async def test_a_forecast_items_and_an_action_that_is_refused(settled: Console) -> None:
    url = f"{API}/{REGION}"
    assert (await settled.client.get(f"{url}/forecast")).json()["fee_fen"] == 3
    assert (await settled.client.get(f"{url}/items")).json() == []
    assert (await settled.client.get(f"{url}/items?stage=owing")).json() == []
    assert (await settled.client.get(f"{url}/items?stage=all")).status_code == 422
    body = {"action": "close", "reason": "done by hand"}
    refused = await settled.client.post(f"{url}/items/nobody/actions", json=body, headers=effect(settled))
    assert (refused.status_code, refused.json()["code"]) == (409, "unknown_membership")


async def test_the_page_shows_the_switch_and_what_is_parked(settled: Console) -> None:
    region = settled.edge.settings.regions[0].name
    url = f"{API}/{region}/switch"
    await settled.client.put(url, json={"paused": True, "reason": "stocktaking <b>"}, headers=effect(settled))
    shown = (await settled.client.get("/settlement")).text
    assert "stocktaking &lt;b&gt;" in shown
    assert f'data-do="{url}"' in shown
    assert 'hx-trigger="every 2s"' in shown
    await settled.client.put(url, json={"paused": False}, headers=effect(settled))
