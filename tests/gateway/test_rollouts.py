"""Rollouts by the API: on a real database, with the real desk and driver, and hosts that answer for their terminals."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
import yaml
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.app import create_app
from gateway.auth import make_login_link
from gateway.settings import GatewaySettings, ServedRegion
from models.domain.kill_switch import Scope, ScopeKind
from models.domain.permissions import Grant, Permission
from models.tables.privacy import list_events
from runtime.permissions_cli import change_everywhere
from runtime.plant import Plant
from runtime.postgres import EmbeddedPostgres, sqlalchemy_url
from runtime.rollout_databases import Databases
from runtime.rollout_desks import RolloutsOfAHouse
from runtime.rollout_files import policy_path
from runtime.rollouts import RolloutDriver
from tests.conftest import fresh_database
from tests.gateway.conftest import client_of
from tests.integration.rollout_shop import CHAIN, REGION, Clock, Region, plant, report

API = "/api/v1/rollouts"
SETTINGS = GatewaySettings(regions=(ServedRegion(REGION, CHAIN),))
CREATE, PROMOTE, HALT = Permission.ROLLOUT_CREATE, Permission.ROLLOUT_PROMOTE, Permission.ROLLOUT_HALT
EVERYWHERE = Scope(ScopeKind.CHAIN, CHAIN)
GRANTS = (
    *(Grant("ann", one, EVERYWHERE) for one in (CREATE, PROMOTE, HALT)),
    *(Grant("bob", one, EVERYWHERE) for one in (PROMOTE, HALT)),
    *(Grant("carl", CREATE, Scope(ScopeKind.STORE, f"s-{n}")) for n in (1, 2, 3)),
)


@cache
def shipped() -> str:
    return json.dumps(yaml.safe_load(policy_path("configuration").read_text(encoding="utf-8")))


def policy_yaml(*, tail: bool = False, kinds: Sequence[str] = ("config", "flag"), **pilot: Any) -> str:
    """Two stores, then all; nobody soaks, a person lets the second stage begin."""
    document = json.loads(shipped())
    document |= {
        "name": "small",
        "tail": tail,
        "kinds": list(kinds),
        "stages": [document["stages"][0], document["stages"][-1]],
    }
    for stage in document["stages"]:
        stage |= {"soak_s": 0, "jitter_s": 0, "evidence": None, "attachments": []}
    document["stages"][0] |= pilot
    return yaml.safe_dump(document, sort_keys=False)


def wanted(**changed: Any) -> dict[str, Any]:
    """A change of a setting of its own, so that rollouts of several tests do not conflict."""
    flag = {"kind": "flag", "name": f"sound.s{uuid.uuid4().hex[:8]}", "value": 40}
    return {"artefact": flag, "selector": {"all_stores": True}, "policy_yaml": policy_yaml(), **changed}


@pytest.fixture(scope="module")
def url(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Six stores with two terminals each, and people with permissions."""
    with fresh_database(embedded_postgres, migrated_template) as made:
        with psycopg.connect(made, autocommit=True) as conn:
            plant(conn)
        for grant in GRANTS:
            asyncio.run(change_everywhere([made], grant, True, "test"))
        yield made


@dataclass(slots=True)
class Person:
    """Somebody who is signed in."""

    client: httpx.AsyncClient
    csrf: str

    async def get(self, path: str = "", **query: Any) -> Any:
        answer = await self.client.get(f"{API}{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None, key: str = "") -> httpx.Response:
        headers = {"X-CSRF-Token": self.csrf, "Idempotency-Key": key or str(uuid.uuid4())}
        return await self.client.post(f"{API}{path}", json=body, headers=headers)

    async def done(self, path: str, body: Any = None, key: str = "") -> Any:
        answer = await self.post(path, body, key)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, path: str, body: Any = None, key: str = "") -> tuple[int, str]:
        answer = await self.post(path, body, key)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert answer.json()["do"]
        return answer.status_code, answer.json()["code"]


@dataclass(slots=True)
class House:
    """The app, and the chain's actor as far as a test lets it go."""

    app: FastAPI
    engine: AsyncEngine
    url: str
    clock: Clock
    driver: RolloutDriver
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def person(self, name: str) -> Person:
        client = client_of(self.app)
        self.clients.append(client)
        await client.get(await make_login_link(self.engine, SETTINGS, person=name))
        return Person(client, (await client.get("/api/v1/session")).json()["csrf"])

    async def rounds(self, times: int = 3) -> None:
        for _ in range(times):
            await self.driver.round()
            report(self.url)
            self.clock.on(5)


@pytest_asyncio.fixture
async def house(url: str) -> AsyncIterator[House]:
    clock, plants = Clock(), [Plant(Path("/nowhere"), CHAIN, REGION, database_url=url)]
    engine = create_async_engine(sqlalchemy_url(url))
    databases, desks = Databases(plants), RolloutsOfAHouse(plants, clock)
    await databases.open()
    app = create_app(SETTINGS, database=engine)
    app.state.edge.rollouts = desks
    driver = RolloutDriver(databases, Region(url, clock), clock)  # type: ignore[arg-type]
    made = House(app, engine, url, clock, driver)
    yield made
    for client in made.clients:
        await client.aclose()
    await desks.close()
    await databases.close()
    await engine.dispose()


async def test_two_stores_then_all_and_back(house: House) -> None:
    ann, bob = await house.person("ann"), await house.person("bob")
    body = wanted()
    before = await ann.done("/preview", body)
    assert (before["id"], before["terminals"]) == (None, 12)
    assert [(one["name"], one["stores"], one["strata"]) for one in before["stages"]] == [
        ("pilot", 2, {"south": 2}),
        ("all", 4, {"south": 4}),
    ]
    draft = await ann.done("", body, "press-draft")
    assert draft["plan_sha256"] == before["plan_sha256"]
    assert await ann.done("", body, "press-draft") == draft
    other = {**body, "seed": 7}
    assert await ann.refused("", other, "press-draft") == (422, "idempotency_key_reused")
    house.app.state.edge.calls._calls.clear()  # a gateway that began anew keeps to the draft all the same
    assert await ann.refused("", other, "press-draft") == (409, "number_reused")
    assert await ann.done("", body, "press-draft") == draft

    here = f"/{draft['id']}"
    assert (await ann.get(here))["state"] == "draft"
    started = await ann.done(f"{here}/start")
    assert (started["state"], started["why"]["en"]) == ("running", "started by console:ann")
    await house.rounds()
    waits = await bob.get(here)
    pilot = waits["stages"][0]
    assert (waits["stage"], pilot["state"], pilot["gate"]["way"]) == (1, "awaits_approval", "await_approval")
    assert (pilot["counts"]["succeeded"], pilot["targets"], pilot["rules"]["error_stores_max"]) == (
        2,
        {"succeeded": 4},
        0,
    )
    assert waits["why"] == pilot["gate"]["why"]
    assert waits["stages"][1]["counts"] is None
    [row] = [one for one in (await bob.get("", state="running"))["items"] if one["id"] == draft["id"]]
    assert (row["stage"], row["stages"], row["stage_name"], row["stores"], row["why"]) == (
        1,
        2,
        "pilot",
        6,
        waits["why"],
    )

    assert await ann.refused(f"{here}/promote", {"stage": 1}) == (409, "own_rollout")
    assert await bob.refused(f"{here}/promote", {"stage": 2}) == (409, "stage_moved")
    assert await bob.refused(f"{here}/start") == (403, "permission_missing")
    promoted = await bob.done(f"{here}/promote", {"stage": 1}, "press-promote")
    assert (promoted["stage"], promoted["state"]) == (2, "running")
    assert await bob.done(f"{here}/promote", {"stage": 1}, "press-promote") == promoted
    assert (await bob.done(f"{here}/promote", {"stage": 1}))["stage"] == 2, "said twice, once in effect"
    await house.rounds()
    whole = await ann.get(here)
    assert (whole["state"], whole["stages"][1]["counts"]["succeeded"]) == ("completed", 4)
    assert [one["gate"]["why"]["en"] for one in whole["stages"]][1] == "4 of 4 stores succeeded"

    gone_back = await bob.done(f"{here}/rollback", {"reason": "too quiet"})
    assert gone_back["state"] == "rolling_back"
    await house.rounds(4)
    whole = await ann.get(here)
    assert (whole["state"], whole["stages"][1]["targets"]) == ("rolled_back", {"rolled_back": 8})
    with psycopg.connect(house.url) as conn:
        rows = conn.execute("SELECT DISTINCT state->'desired'->>'overrides' FROM entity ORDER BY 1").fetchall()
        assert rows == [('{"sound":{"volume_percent":70}}',), ("{}",)]
    async with await psycopg.AsyncConnection.connect(house.url) as audited:
        events = [one for one in await list_events(audited, limit=50) if one.subject == draft["id"]]
    assert [one.kind.removeprefix("rollout.") for one in events] == ["planned", "start", "promote", "rollback"]
    assert {one.by for one in events} == {"console:ann", "console:bob"}
    await looked_into(ann, here)
    figures = house.driver.figures.snapshot()
    assert (figures["completions"], figures["rollbacks"], figures["halts"]) == (1, 1, 0)
    assert sum(figures["tick_ms"]) == figures["ticks"]


async def looked_into(ann: Person, here: str) -> None:
    """Terminals, journal and evidence of a rollout that went forward and back."""
    pages, cursor = [], None
    while True:
        page = await ann.get(f"{here}/targets", limit=5, **({"cursor": cursor} if cursor else {}))
        pages.append(page["items"])
        if (cursor := page["next"]) is None:
            break
    assert [len(page) for page in pages] == [5, 5, 2]
    shown = [one for page in pages for one in page]
    assert [(one["stage"], one["store"], one["terminal"]) for one in shown] == sorted(
        (one["stage"], one["store"], one["terminal"]) for one in shown
    )
    assert {(one["state"], one["why"]["en"]) for one in shown} == {("rolled_back", "has what it had before")}
    first = shown[0]
    assert len((await ann.get(f"{here}/targets", stage=2))["items"]) == 8
    assert len((await ann.get(f"{here}/targets", store=first["store"]))["items"]) == 2
    assert len((await ann.get(f"{here}/targets", state=["rolled_back", "failed"]))["items"]) == 12
    assert (await ann.get(f"{here}/targets", state="failed"))["items"] == []

    one = await ann.get(f"{here}/targets/{first['terminal']}")
    assert one["target"] == first
    twin = one["twin"]
    assert (twin["online"], twin["desired_gen"], twin["applied_gen"]) == (True, 3, 3)
    states = [entry["state"] for entry in one["journal"]]
    assert (states[0], states[-1]) == ("activating", "rolled_back")
    journal: list[Any] = []
    cursor = None
    while True:
        page = await ann.get(f"{here}/journal", terminal="", limit=3, **({"cursor": cursor} if cursor else {}))
        journal += page["items"]
        if (cursor := page["next"]) is None:
            break
    numbers = [entry["n"] for entry in journal]
    assert numbers == sorted(set(numbers))
    assert [entry["words"]["en"] for entry in journal][:2] == ["running: started by console:ann", "stage 1 open"]
    [approved] = [entry for entry in journal if entry["by"] == "console:bob" and entry["kind"] == "stage"]
    assert approved["words"] == {"zh": "console:bob 批准第 1 阶段", "en": "stage 1 approved by console:bob"}
    pilot, _ = await ann.get(f"{here}/evidence")
    assert (pilot["name"], pilot["looks"], pilot["outlook"]) == ("pilot", [], None)
    assert [one["gate"]["way"] for one in pilot["decisions"]] == ["await_approval", "advance"]
    assert len(await ann.get(f"{here}/evidence", stage=2)) == 1


async def test_it_is_paused_goes_on_and_is_halted(house: House) -> None:
    ann, bob = await house.person("ann"), await house.person("bob")
    body = wanted(policy_yaml=policy_yaml(attachments=["privacy_assessment"]))
    here = f"/{(await ann.done('', body))['id']}"
    assert await bob.refused(f"{here}/pause", {"reason": "early"}) == (409, "not_running")
    await ann.done(f"{here}/start")
    assert (await ann.done(f"{here}/start"))["state"] == "running"
    assert (await bob.done(f"{here}/pause", {"reason": "a storm"}))["why"]["en"] == "paused by console:bob: a storm"
    assert (await bob.done(f"{here}/resume"))["state"] == "running"
    await house.rounds()
    assert await bob.refused(f"{here}/approve", {"stage": 1}) == (409, "not_waiting")
    assert (await bob.get(here))["attachments_missing"] == ["privacy_assessment"]
    assert await ann.refused(f"{here}/attach", {"name": "poem", "reference": "x"}) == (409, "bad_attachment")
    attached = await ann.done(f"{here}/attach", {"name": "privacy_assessment", "reference": "PIA-7"})
    assert attached["attachments"] == {"privacy_assessment": "PIA-7"}
    approved = await bob.done(f"{here}/approve", {"stage": 1})
    assert approved["stage"] == 1
    assert (await bob.get(here))["stages"][0]["approved_by"] == "console:bob"
    await house.rounds(1)
    halted = await bob.done(f"{here}/halt", {"reason": "wrong volume"})
    assert (halted["state"], halted["stage"]) == ("halted", 2)
    await house.rounds(1)
    figures = house.driver.figures.snapshot()
    assert (figures["halts"], figures["standing"]["halted"], figures["targets"]["succeeded"]) == (1, 1, 4)
    await bob.done(f"{here}/rollback", {"reason": "wrong volume"})
    await house.rounds(4)
    assert (await bob.get(here))["state"] == "rolled_back"


VERBS: tuple[tuple[str, dict[str, Any] | None, Permission], ...] = (
    ("start", None, CREATE),
    ("attach", {"name": "privacy_assessment", "reference": "PIA-7"}, CREATE),
    ("promote", {"stage": 1}, PROMOTE),
    ("approve", {"stage": 1}, PROMOTE),
    ("resume", None, PROMOTE),
    ("pause", {"reason": "why not"}, HALT),
    ("halt", {"reason": "why not"}, HALT),
    ("rollback", {"reason": "why not"}, HALT),
)


async def test_each_verb_takes_its_permission_wherever_the_plan_reaches(house: House) -> None:
    ann, eve, nobody, carl = [await house.person(name) for name in ("ann", "eve", "", "carl")]
    body = wanted()
    number = (await ann.done("", body))["id"]
    for verb, said, permission in VERBS:
        for person in (eve, nobody):
            answer = await person.post(f"/{number}/{verb}", said)
            assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing"), verb
            assert f"{permission} " in answer.json()["do"]
    for path in ("", "/preview"):
        assert await eve.refused(path, body) == (403, "permission_missing")
        answer = await carl.post(path, body)
        assert answer.status_code == 403
        assert any(f"store:s-{n}," in answer.json()["detail"] for n in (4, 5, 6))
        three = {**body, "selector": {"regions": [REGION], "excluded_stores": ["s-4", "s-5", "s-6"]}}
        assert (await carl.done(path, three))["stores"] == 3
        tailed = {**three, "policy_yaml": policy_yaml(tail=True)}
        assert await carl.refused(path, tailed) == (403, "permission_missing"), "stores that nobody knows yet"
    without_token = await ann.client.post(f"{API}/{number}/start", headers={"Idempotency-Key": "press-0001"})
    assert (without_token.status_code, without_token.json()["code"]) == (403, "csrf")
    assert (await ann.get(f"/{number}"))["state"] == "draft"


async def test_a_draft_takes_over_from_another_rollout(house: House) -> None:
    ann, bob = await house.person("ann"), await house.person("bob")
    body = wanted()
    first = (await ann.done("", body))["id"]
    await ann.done(f"/{first}/start")
    await house.rounds(1)
    second = await ann.done("", {**body, "artefact": {**body["artefact"], "value": 50}})
    assert second["conflict"] == first
    assert await ann.refused(f"/{second['id']}/start") == (409, "rollout_conflict")
    says = {"successor": second["id"]}
    assert await bob.refused(f"/{first}/supersede", says) == (403, "permission_missing")
    assert await ann.refused(f"/{first}/supersede", {"successor": "none"}) == (404, "not_found")
    taken = await ann.done(f"/{first}/supersede", says)
    assert (taken["id"], taken["state"]) == (second["id"], "running")
    old, new = await ann.get(f"/{first}"), await ann.get(f"/{second['id']}")
    assert (old["state"], old["superseded_by"], new["supersedes"]) == ("superseded", second["id"], first)
    await ann.done(f"/{second['id']}/rollback", {"reason": "enough"})


async def test_software_by_its_version_and_candidates_of_the_book(house: House) -> None:
    ann, bob, carl = [await house.person(name) for name in ("ann", "bob", "carl")]
    text = policy_yaml(kinds=["software", "plan", "prices"])
    with psycopg.connect(house.url, autocommit=True) as conn:
        for number in ("1.0.0", "2.0.0"):
            conn.execute(
                "INSERT INTO software_image (name, number, sha256, size_bytes, profile, notes_zh, notes_en, added_by,"
                " added_at) VALUES ('dragonfly', %s, %s, 7, '', '', '', 'test', now()) ON CONFLICT DO NOTHING",
                (number, number[0] * 64),
            )
    software = {"kind": "software", "release": "dragonfly 2.0.0", "fallback": "dragonfly 1.0.0"}
    made = await ann.done("/preview", wanted(artefact=software, policy_yaml=text))
    artefact = made["artefact"]
    assert (artefact["key"], artefact["version"]) == ("software/dragonfly", "dragonfly 2.0.0")
    assert json.loads(artefact["payload"])["sha256"] == "2" * 64
    assert json.loads(artefact["fallback"])["version"] == "dragonfly 1.0.0"
    spelled = {**software, "release": json.loads(artefact["payload"]), "fallback": json.loads(artefact["fallback"])}
    assert (await ann.done("/preview", wanted(artefact=spelled, policy_yaml=text)))["artefact"]["key"] == "software/all"
    unknown = wanted(artefact={**software, "release": "dragonfly 9.0.0"}, policy_yaml=text)
    assert await ann.refused("/preview", unknown) == (409, "unknown_version")

    book = wanted(artefact={"kind": "book", "version": 99}, policy_yaml=text)
    assert await ann.refused("/preview", book) == (409, "unknown_book")
    for person in (bob, carl):
        assert await person.refused("/candidates/plans", {"plans": [{}]}) == (403, "permission_missing")
        assert await person.refused("/candidates/prices") == (403, "permission_missing")
    assert (await ann.refused("/candidates/plans", {"plans": [{"id": "x"}]}))[0] in (409, 422)


async def test_a_wrong_policy_is_refused_with_line_and_column(house: House) -> None:
    ann = await house.person("ann")
    text = (
        policy_yaml().replace("error_percent_max: 0", "error_percent_max: lots", 1).replace("soak_s: 0", "soak: 0", 1)
    )
    lines = text.splitlines()
    for path in ("", "/preview"):
        answer = await ann.post(path, wanted(policy_yaml=text))
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "policy_wrong")
        assert [one["line"] for one in problem["errors"]] == sorted(one["line"] for one in problem["errors"])
        found = {one["field"]: one for one in problem["errors"]}
        wrong = found["stages[0].error_percent_max"]
        assert lines[wrong["line"] - 1][wrong["column"] - 1 :] == "lots"
        assert "lots" in wrong["problem"]
        assert found["stages[0].soak"]["problem"] == "is no field here"
    broken = (await ann.post("", wanted(policy_yaml="name: [\n"))).json()
    assert (broken["code"], broken["errors"][0]["line"]) == ("policy_wrong", 2)
    assert await ann.refused("", wanted(policy="none", policy_yaml="")) == (422, "unknown_policy")
    assert await ann.refused("", wanted(policy="software")) == (422, "which_policy")
    named = {one["name"]: one for one in await ann.get("/policies")}
    assert named["configuration"]["stages"] == ["pilot", "fifty", "all"]
    assert yaml.safe_load(named["configuration"]["yaml"])["name"] == "configuration"
    assert await ann.refused("", wanted(policy="configuration", policy_yaml="")) == (409, "too_few_stores")


NONSENSE: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"selector": {}}, 409, "nothing_selected"),
    ({"selector": {"everything": True}}, 422, "invalid_request"),
    ({"selector": {"stores": ["s-1\x00"]}}, 422, "invalid_request"),
    ({"artefact": {"kind": "flag", "name": "sound..x", "value": 1}}, 422, "invalid_request"),
    ({"artefact": {"kind": "config", "patch": {}}}, 409, "bad_artefact"),
    ({"artefact": {"kind": "config", "patch": {"a": 1}, "author": "boss"}}, 422, "invalid_request"),
    ({"by": "boss"}, 422, "invalid_request"),
    ({"chain": "elsewhere"}, 422, "which_chain"),
    ({"seed": -1}, 422, "invalid_request"),
)


async def test_nonsense_is_refused_by_name(house: House) -> None:
    ann = await house.person("ann")
    for changed, status, code in NONSENSE:
        assert await ann.refused("", wanted(**changed)) == (status, code), changed
    for path in ("/none", "/none/targets", "/none/targets/t", "/none/journal", "/none/evidence"):
        answer = await ann.client.get(API + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert await ann.refused("/none/start") == (404, "not_found")
    for path in ("/a%00b", "?chain=%00", "/none/targets/a%00b"):
        assert (await ann.client.get(API + path)).status_code in (404, 422), path
    named = wanted() | {"selector": {"all_stores": True, "excluded_stores": ["misspelt"]}}
    assert await ann.refused("/preview", named) == (409, "unknown_selected")
    number = (await ann.done("", wanted()))["id"]
    assert (await ann.client.get(f"{API}/{number}/targets/none")).status_code == 404
    for query in ("cursor=x", "limit=0", "state=lost"):
        assert (await ann.client.get(f"{API}?{query}")).status_code == 422, query
    for body in ({}, {"reason": " "}, {"reason": "x", "by": "boss"}, {"reason": "\x00x"}):
        assert (await ann.refused(f"/{number}/pause", body))[0] == 422, body
    assert await ann.refused(f"/{number}/promote", {"stage": 0}) == (422, "invalid_request")
    house.app.state.edge.rollouts = None
    assert await ann.refused(f"/{number}/start") == (503, "starting")


async def test_the_list_by_pages(house: House) -> None:
    ann = await house.person("ann")
    made = []
    for _ in range(5):
        made.append((await ann.done("", wanted()))["id"])
        house.clock.on(1)
    house.clock.on(3_600)
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        answer = await ann.client.get(API, params={"limit": 2, "state": "draft", **cursor})
        page = answer.json()
        seen += [one["id"] for one in page["items"]]
        assert ("link" in answer.headers) == (page["next"] is not None)
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert len(seen) == len(set(seen))
    assert set(made) <= set(seen)
    assert json.dumps((await ann.get("", chain="elsewhere"))["items"]) == "[]"
