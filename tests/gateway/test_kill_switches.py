"""Kill switches by the API and the page, on a real database and the real desk."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth import make_login_link
from models.domain.ids import ChainId, RegionId
from models.domain.kill_switch import Scope, ScopeKind
from models.domain.permissions import Grant, Permission
from models.tables.kill_switches import load_standing
from models.tables.privacy import list_events, verify
from runtime.kill_switches import KillSwitchesOfAHouse
from runtime.permissions_cli import change_everywhere
from runtime.plant import Plant
from tests.gateway.conftest import SETTINGS, Console

API = "/api/v1/kill-switches"


@pytest.fixture
def plant(filled_url: str) -> Plant:
    return Plant(data_dir=Path(), database_url=filled_url, chain=ChainId("chain"), region=RegionId("local"))


@pytest_asyncio.fixture
async def boss(console: Console, engine: AsyncEngine, filled_url: str) -> Console:
    """The same browser, signed in by somebody who may throw switches at the whole chain, and where nothing is."""
    for kind, name in ((ScopeKind.CHAIN, "chain"), (ScopeKind.CHAIN, "nowhere"), (ScopeKind.REGION, "nowhere")):
        await change_everywhere([filled_url], Grant("boss", Permission.KILL_SWITCH, Scope(kind, name)), True, "test")
    await console.client.get(await make_login_link(engine, SETTINGS, person="boss"))
    return replace(console, csrf=(await console.client.get("/api/v1/session")).json()["csrf"])


def effect(console: Console) -> dict[str, str]:
    return {**console.ours, "Idempotency-Key": str(uuid.uuid4())}


async def test_a_switch_is_thrown_once_audited_and_lifted_by_the_same_verb(boss: Console, plant: Plant) -> None:
    console = boss
    console.edge.kill_switches = KillSwitchesOfAHouse([plant])
    post, key = console.client.post, effect(console)
    body = {"switch": "face", "scope": "chain", "name": "chain", "reason": "a bad net"}
    assert (await post(API, json=body)).status_code == 403, "no token of ours"
    thrown = await post(API, json=body, headers=key)
    assert (thrown.status_code, thrown.json()["ok"]) == (200, True)
    assert thrown.json()["by"] == "console:boss"
    [region] = thrown.json()["regions"]
    assert (region["changed"], region["stores"], region["regions"]) == (True, 20, ["local"])
    assert (await post(API, json=body, headers=key)).json() == thrown.json()
    again = await post(API, json=body, headers=effect(console))
    assert again.json()["regions"][0]["changed"] is False, "it stood already"
    longer = await post(API, json={**body, "minutes": 30}, headers=effect(console))
    assert longer.json()["regions"][0]["changed"] is True
    one_store = {"switch": "offers", "scope": "store", "name": "s-003", "reason": "<b>wrong text</b>"}
    assert (await post(API, json=one_store, headers=effect(console))).status_code == 200

    [offers, face] = (await console.client.get(API)).json()
    assert (face["switch"], face["standing"], face["reason"], face["terminals"]) == ("face", True, "a bad net", 60)
    assert (offers["scope"], offers["name"], offers["terminals"], offers["applied"]) == ("store", "s-003", 3, 0)
    for language, word in (("zh", "紧急开关"), ("en", "Kill switches")):
        await console.client.get(f"/language/{language}")
        shown = await console.client.get("/switches")
        assert shown.status_code == 200
        assert word in shown.text
        assert "&lt;b&gt;wrong text" in shown.text
        card = (await console.client.get("/wall/stores/s-003")).text
        assert 'data-kill="face"' in card
        assert 'data-kill="offers"' in card
        counter = (await console.client.get("/terminal/t-001-1")).text
        assert 'data-kill="face"' in counter
        assert 'data-kill="offers"' not in counter

    for each in (body, one_store):
        lifted = await post(API, json={**each, "reason": "repaired", "lift": True}, headers=effect(console))
        assert lifted.json()["regions"][0]["changed"] is True
    nothing = await post(API, json={**body, "reason": "repaired", "lift": True}, headers=effect(console))
    assert (nothing.json()["ok"], nothing.json()["regions"][0]["changed"]) == (True, False)
    assert not [one for one in (await console.client.get(API)).json() if one["standing"]]
    async with await AsyncConnection.connect(plant.database_url) as conn:
        assert await load_standing(conn) == []
        events = [one for one in await list_events(conn, limit=50) if one.kind.startswith("kill_switch.")]
        assert [one.kind.removeprefix("kill_switch.") for one in events] == [
            "thrown",
            "changed",
            "thrown",
            "lifted",
            "lifted",
        ]
        assert events[0].subject == "chain:chain"
        assert events[0].detail["reason"] == "a bad net"
        assert (await verify(conn)).ok


NONSENSE: tuple[tuple[dict[str, str], int, str], ...] = (
    ({"name": "nowhere"}, 409, "unknown_chain"),
    ({"scope": "region", "name": "nowhere"}, 409, "unknown_region"),
    ({"scope": "store", "name": "nowhere"}, 409, "unknown_store"),
    ({"reason": "  "}, 409, "reason_missing"),
    ({"until": "2020-01-01T00:00:00Z"}, 409, "until_past"),
    ({"until": "2030-01-01T00:00:00"}, 422, ""),
    ({"switch": "payments"}, 422, ""),
)


async def test_what_makes_no_sense_is_refused(boss: Console, plant: Plant) -> None:
    boss.edge.kill_switches = KillSwitchesOfAHouse([plant])
    for change, status, code in NONSENSE:
        body = {"switch": "face", "scope": "chain", "name": "chain", "reason": "why", **change}
        refused = await boss.client.post(API, json=body, headers=effect(boss))
        assert (refused.status_code, refused.json()["code"] if code else "") == (status, code), change


async def test_a_region_that_is_away_is_named_and_the_same_order_reaches_it(boss: Console, plant: Plant) -> None:
    console = boss
    away = replace(plant, region=RegionId("north"), database_url="postgresql://nobody@127.0.0.1:1/none")
    body = {"switch": "benefits", "scope": "chain", "name": "chain", "reason": "wrong plan"}
    console.edge.kill_switches = KillSwitchesOfAHouse([plant, away])
    half = (await console.client.post(API, json=body, headers=effect(console))).json()
    assert half["ok"] is False
    reached, missed = half["regions"]
    assert (reached["ok"], reached["regions"]) == (True, ["local"])
    assert (missed["ok"], missed["code"], missed["regions"]) == (False, "database_away", ["north"])
    assert "again" in missed["do"]
    console.edge.kill_switches = KillSwitchesOfAHouse([plant, replace(away, database_url=plant.database_url)])
    whole = (await console.client.post(API, json=body, headers=effect(console))).json()
    assert whole["ok"] is True
    assert [one["changed"] for one in whole["regions"]] == [False], "what was done stays done"
    lifted = await console.client.post(API, json={**body, "lift": True}, headers=effect(console))
    assert lifted.json()["ok"] is True


WHERE = (
    ("chain", "chain", "at chain:chain"),
    ("region", "local", "at region:local"),
    ("store", "s-001", "at store:s-001, region:local or chain:chain"),
)


async def test_it_takes_the_permission_over_the_whole_scope(
    console: Console, engine: AsyncEngine, filled_url: str, plant: Plant
) -> None:
    console.edge.kill_switches = KillSwitchesOfAHouse([plant])
    nobody = {"switch": "offers", "scope": "chain", "name": "chain", "reason": "why", "lift": True}
    assert (await console.client.post(API, json=nobody, headers=effect(console))).status_code == 403
    await console.client.get(await make_login_link(engine, SETTINGS, person="ann"))
    ann = replace(console, csrf=(await console.client.get("/api/v1/session")).json()["csrf"])
    for kind, name, at in WHERE:
        body = {**nobody, "scope": kind, "name": name}
        refused = await ann.client.post(API, json=body, headers=effect(ann))
        assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
        assert refused.json()["detail"] == f"ann has no permission kill.switch {at}"
        assert f"grant ann kill.switch --{kind} {name}" in refused.json()["do"]
        grant = Grant("ann", Permission.KILL_SWITCH, Scope(ScopeKind(kind), name))
        await change_everywhere([filled_url], grant, True, "test")
        assert (await ann.client.post(API, json=body, headers=effect(ann))).status_code == 200
        await change_everywhere([filled_url], grant, False, "test")
