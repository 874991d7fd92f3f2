"""Settlement by the API, on a real database and the real desk: the switch, the items, a refused action."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from gateway.routes.settlement import ForecastView
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


async def test_the_page_shows_the_switch_the_runs_and_what_is_parked(settled: Console, filled_url: str) -> None:
    region = settled.edge.settings.regions[0].name
    with psycopg.connect(filled_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO settlement_run (id, chain, region, at, business_date, started_by, dry, state, step, due,"
            " expired, cut_off, woken, booked, reserved, open_calls, totals, problem, started_at, seen_at)"
            " SELECT state, 'demo', %(region)s, now(), '2026-03-02', 'cli:ann', false, state, '', 12345, 0, 12345, 0,"
            " 777, 0, false, totals::jsonb, '', now(), now() FROM (VALUES ('running', NULL),"
            ' (\'done\', \'{"charges": 2, "charge_fen": 123456, "agree": true,'
            ' "day": {"charges": 3, "charge_fen": 234567}}\')) AS runs(state, totals)',
            {"region": region},
        )
        conn.execute(
            "INSERT INTO membership (id, enrol_key, member, chain, region, store, terminal, session, plan,"
            " plan_version, owner, generation, state, fee_fen, fee_eff_fen, used_fen, guarantee, hold_order, hold_no,"
            " hold_fen, hold_state, enrolled_at, expires_at, cutoff_at, cancelled_by, paid_fen, refunded_fen,"
            " receivable_fen, captured_number, attempts, parked_why) SELECT 'pk-1', 'pk-1', id, 'demo', %s, 's', 't',"
            " '', 'none', 1, 'chain', 1, 'PARKED', 1000, 1000, 0, '', '', '', 0, 'none', now(), now(), now(), '', 0,"
            " 0, 0, '', 0, 'captured twice' FROM member LIMIT 1",
            (region,),
        )
    url = f"{API}/{region}/switch"
    await settled.client.put(url, json={"paused": True, "reason": "stocktaking <b>"}, headers=effect(settled))
    shown = (await settled.client.get("/settlement")).text
    assert "stocktaking &lt;b&gt;" in shown
    assert f'data-do="{url}"' in shown
    assert 'hx-trigger="every 2s"' in shown
    assert f'data-forecast="{API}/{region}/forecast" data-into="forecast-1"' in shown
    assert set(re.findall('data-field="([a-z_]+)"', shown)) <= set(ForecastView.model_fields)
    assert "2345.67" in shown.replace(",", ""), "the whole business date"
    assert '<progress max="12345" value="777">' in shown
    assert "1234.56" in shown.replace(",", "")
    assert "captured twice" in shown
    assert f'data-do="/api/v1/settlement/{region}/items/pk-1/actions"' in shown
    await settled.client.put(url, json={"paused": False}, headers=effect(settled))
    with psycopg.connect(filled_url, autocommit=True) as conn:
        conn.execute("DELETE FROM membership WHERE id = 'pk-1'")
