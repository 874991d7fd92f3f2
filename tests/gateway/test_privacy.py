"""Privacy & audit by the API and the page, and a member's own page, on a real database and the real desk."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import psycopg
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth import make_login_link
from gateway.edge import wall_clock
from runtime.privacy import Privacy
from runtime.privacy_desk import Desk, MemberLinks
from tests.gateway.conftest import BASE, SETTINGS, Console, client_of

API = "/api/v1/privacy"
REASON = {"reason": "she asked"}


@pytest.fixture
def desk(console: Console, filled_url: str) -> Desk:
    made = Desk(Privacy([filled_url], scrubs=False), MemberLinks(b"key", hours=1))
    console.edge.privacy = made
    return made


@pytest.fixture
def member(filled_url: str) -> str:
    """Somebody new whose light membership is over."""
    name = f"m-{uuid.uuid4().hex[:8]}"
    with psycopg.connect(filled_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user,"
            " joined_at) VALUES (%s, 'chain', 'local', 's-001', '王小明', %s, '4321', '', now())",
            (name, name),
        )
    return name


def effect(console: Console) -> dict[str, str]:
    return {**console.ours, "Idempotency-Key": str(uuid.uuid4())}


async def sign_in(console: Console, engine: AsyncEngine, person: str) -> Console:
    """The same browser, another person before it."""
    await console.client.get(await make_login_link(engine, SETTINGS, person=person))
    return replace(console, csrf=(await console.client.get("/api/v1/session")).json()["csrf"])


@pytest_asyncio.fixture
async def second(console: Console, engine: AsyncEngine) -> AsyncIterator[Console]:
    """Another person, signed in at the same gateway."""
    async with client_of(console.app) as client:
        await client.get(await make_login_link(engine, SETTINGS))
        csrf = (await client.get("/api/v1/session")).json()["csrf"]
        yield Console(client, console.app, csrf)


@pytest.mark.usefixtures("desk")
async def test_an_erasure_needs_a_second_person(
    console: Console, second: Console, member: str, engine: AsyncEngine
) -> None:
    nobody = await console.client.post(f"{API}/members/{member}/erasure", json=REASON, headers=effect(console))
    assert (nobody.status_code, nobody.json()["code"]) == (409, "four_eyes")
    assert "--as NAME" in nobody.json()["do"]
    console = await sign_in(console, engine, "ann")
    asked = await console.client.post(f"{API}/members/{member}/erasure", json=REASON, headers=effect(console))
    assert (asked.status_code, asked.json()["state"]) == (200, "open")
    approve = f"{API}/requests/{asked.json()['id']}/approve"
    second = await sign_in(second, engine, "ann")
    for own in (console, second):
        refused = await own.client.post(approve, headers=effect(own))
        assert (refused.status_code, refused.json()["code"]) == (409, "four_eyes"), "another session is no other person"
    page = (await console.client.get("/privacy?tab=requests", headers={"Accept-Language": "en"})).text
    assert "Another person approves" in page
    assert "王小明" not in page, "names are masked"
    second = await sign_in(second, engine, "")
    nameless = await second.client.post(approve, headers=effect(second))
    assert (nameless.status_code, nameless.json()["code"]) == (409, "four_eyes")
    second = await sign_in(second, engine, "bob")
    done = await second.client.post(approve, headers=effect(second))
    assert (done.status_code, done.json()["state"]) == (200, "done")


@pytest.mark.usefixtures("desk")
async def test_the_same_key_withdraws_once_and_no_reason_is_refused(console: Console, member: str) -> None:
    address, headers = f"{API}/members/{member}/withdraw", effect(console)
    first = await console.client.post(address, json=REASON, headers=headers)
    again = await console.client.post(address, json=REASON, headers=headers)
    assert first.json() == again.json()
    refused = await console.client.post(address, json={"reason": ""}, headers=effect(console))
    assert refused.status_code == 422
    unknown = await console.client.post(f"{API}/members/nobody/withdraw", json=REASON, headers=effect(console))
    assert (unknown.status_code, unknown.json()["code"]) == (409, "unknown_member")


@pytest.mark.usefixtures("desk")
async def test_no_effect_without_our_own_token_and_none_without_a_session(console: Console, member: str) -> None:
    for path in (f"members/{member}/withdraw", f"members/{member}/export", "audit/verify"):
        foreign = await console.client.post(f"{API}/{path}", json=REASON, headers={"Idempotency-Key": "12345678"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "csrf")
        async with client_of(console.app) as stranger:
            assert (await stranger.post(f"{API}/{path}", json=REASON)).status_code == 401


@pytest.mark.usefixtures("desk")
async def test_an_export_is_a_file_of_the_person_s_own_and_stands_in_the_audit(console: Console, member: str) -> None:
    export = f"{API}/members/{member}/export"
    answer = await console.client.post(export, json=REASON, headers=console.ours)
    assert answer.headers["content-disposition"] == f'attachment; filename="member-{member}.json"'
    assert json.loads(answer.text)["profile"][0]["name"] == "王小明"
    page = await console.client.post(f"{export}?language=zh", json=REASON, headers=console.ours)
    assert "我们保存的关于您的信息" in page.text
    first = (await console.client.get(f"{API}/audit?subject={member}&limit=1")).json()
    assert [event["kind"] for event in first["items"]] == ["exported"]
    rest = (await console.client.get(f"{API}/audit?subject={member}&cursor={first['next']}")).json()
    assert [event["kind"] for event in rest["items"]] == ["exported"]
    assert rest["next"] is None
    check = await console.client.post(f"{API}/audit/verify", headers=console.ours)
    assert [(one["fault"], one["checkpoint"]) for one in check.json()] == [(None, 0)]


@pytest.mark.usefixtures("desk")
async def test_a_child_s_mark_by_the_console(console: Console, member: str) -> None:
    answer = await console.client.post(f"{API}/members/{member}/age", json={"under_14": True}, headers=console.ours)
    assert answer.json() == {"templates_erased": 0}
    bad = await console.client.post(f"{API}/members/{member}/age", json={"birth_year": 12}, headers=console.ours)
    assert bad.status_code == 422
    silent = await console.client.post(f"{API}/members/{member}/age", json={}, headers=console.ours)
    assert silent.status_code == 422, "who says nothing takes no mark back"


async def test_a_member_s_page_opens_by_its_link_alone_and_ends(console: Console, desk: Desk, member: str) -> None:
    now = wall_clock()
    link = (await console.client.post(f"{API}/members/{member}/link", headers=console.ours)).json()["url"]
    async with client_of(console.app) as phone:
        page = await phone.get(link, headers={"Accept-Language": "zh"})
        assert (page.status_code, "王*" in page.text, "王小明" in page.text) == (200, True, False)
        mine = await phone.post(f"{link}/export?form=json", headers={"Origin": BASE})
        assert json.loads(mine.text)["profile"][0]["id"] == member
        foreign = await phone.post(f"{link}/withdraw", headers={"Origin": "https://elsewhere.example"})
        assert foreign.status_code == 403
        done = await phone.post(f"{link}/withdraw", headers={"Origin": BASE})
        assert (done.status_code, done.headers["location"]) == (303, f"{link.removeprefix(BASE)}?done=withdrawn")
        asked = await phone.post(f"{link}/erasure", headers={"Origin": BASE})
        assert asked.status_code == 303
        old = desk.link(member, now - timedelta(hours=2))
        for token, status in ((old, 410), ("forged", 404), (desk.link("nobody", now), 404)):
            assert (await phone.get(f"/m/{token}")).status_code == status
        for path in ("/members", "/privacy", f"{API}/audit"):
            answer: httpx.Response = await phone.get(path)
            assert answer.status_code in {303, 401}, "the link opens this page and no other"


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(("level", "faces"), [("near", 80_000), ("over", 100_000)])
async def test_the_page_warns_of_the_filing_threshold(
    console: Console, monkeypatch: pytest.MonkeyPatch, level: str, faces: int
) -> None:
    from gateway.queries import privacy

    async def counted(_session: object) -> privacy.Faces:
        return privacy.Faces({"chain": faces})

    monkeypatch.setattr(privacy, "faces", counted)
    for language, words in (("en", "filing"), ("zh", "备案")):
        page = (await console.client.get("/privacy", headers={"Accept-Language": language})).text
        assert f"{faces:,}" in page
        assert words in page
        assert ('class="notice bad"' in page) is (level == "over")


async def test_stored_faces_and_waiting_requests_are_counted_for_the_alert(
    console: Console, desk: Desk, member: str
) -> None:
    await desk.ask_erasure(member, by="member", via="member_page", reason="asked")
    console.edge.people_counted = None
    text = (await console.client.get("/metrics")).text
    assert 'storeops_faces_distinct{chain="chain"} ' in text
    waiting = next(line for line in text.splitlines() if line.startswith("storeops_privacy_requests_open "))
    assert int(waiting.split()[1]) >= 1
