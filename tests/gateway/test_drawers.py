"""Drawers by the API, on a real database and the real desk; a manager's return as a terminal would send it."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from actors.hosts import Delivered, Delivery
from devices.codec import decode_event
from gateway.auth import make_login_link
from gateway.idempotency import IdempotentCalls
from models.domain.events import Return, ReturnLine
from models.domain.ids import LaneId, RegionId, StoreId, TerminalId
from models.domain.kill_switch import Scope, ScopeKind
from models.domain.permissions import Grant, Permission
from models.domain.registry import RegisteredTerminal
from runtime.drawer_desk import DrawersOfAHouse
from runtime.permissions_cli import change_everywhere
from runtime.plant import Plant
from tests.gateway.conftest import SETTINGS, Console
from tests.gateway.shop import SmallShop

AT = RegisteredTerminal(TerminalId("t-001-1"), StoreId("s-001"), RegionId("local"), LaneId("lane-1"), "till", "till")
API = "/api/v1/stores/s-001/drawers"


@pytest_asyncio.fixture
async def desk(console: Console, filled_url: str) -> AsyncIterator[DrawersOfAHouse]:
    house = DrawersOfAHouse([Plant(data_dir=Path(), database_url=filled_url)])
    console.edge.drawers = house
    yield house
    await house.aclose()


def effect(console: Console) -> dict[str, str]:
    return {**console.ours, "Idempotency-Key": str(uuid.uuid4())}


async def test_a_shift_by_the_api_is_counted_blind(console: Console, desk: DrawersOfAHouse) -> None:
    post, key = console.client.post, effect(console)
    assert (await post(f"{API}/lane-1/open", json={"float_fen": 5_000})).status_code == 403, "no token of ours"
    opened = await post(f"{API}/lane-1/open", json={"float_fen": 5_000}, headers=key)
    assert opened.json()["opened_by"].startswith("console:")
    assert (await post(f"{API}/lane-1/open", json={"float_fen": 5_000}, headers=key)).json() == opened.json()
    refused = await post(f"{API}/lane-1/open", json={"float_fen": 5_000}, headers=effect(console))
    assert (refused.status_code, refused.json()["code"]) == (409, "shift_open")
    body = {"fen": 700, "reason": "=stamps", "by": "=ann"}
    moved = await post(f"{API}/lane-1/moves/paid-out", json=body, headers=effect(console))
    assert (moved.json()["kind"], moved.json()["paid_out_fen"], moved.json()["expected_fen"]) == ("X", 700, None)
    counted = await post(f"{API}/lane-1/count", json={"counted_fen": 4_400, "by": "=ann"}, headers=effect(console))
    assert (counted.json()["kind"], counted.json()["over_short_fen"]) == ("Z", 100)
    [drawer, *_] = (await console.client.get(API)).json()
    assert (drawer["name"], drawer["shift"]["state"]) == ("lane-1", "counted")
    too_long = await post(f"{API}/lane-1/hand-over", json={"by": "b" * 65}, headers=effect(console))
    assert (too_long.status_code, "by" in too_long.text) == (422, True)
    handed = await post(f"{API}/lane-1/hand-over", json={"by": "b" * 64}, headers=effect(console))
    assert (handed.json()["n"], handed.json()["float_fen"]) == (2, 4_400)
    again = await console.client.get(f"/api/v1/shifts/{counted.json()['shift']}")
    assert again.json()["next_shift"] == handed.json()["shift"]
    report = await console.client.get("/api/v1/stores/s-001/shifts?format=csv&drawer=lane-1")
    newest, oldest = csv.DictReader(io.StringIO(report.text))
    assert (newest["expected_fen"], oldest["expected_fen"], oldest["counted_by"]) == ("", "4300", "'=ann")
    for path in ("/api/v1/shifts/none", "/api/v1/stores/nowhere/drawers"):
        assert (await console.client.get(path)).status_code == 409


async def test_the_page_offers_what_may_be_done_in_both_languages(console: Console, desk: DrawersOfAHouse) -> None:
    for language, word in (("zh", "开班"), ("en", "Open a shift")):
        await console.client.get(f"/language/{language}")
        shown = await console.client.get("/drawers?store=s-002")
        assert shown.status_code == 200
        assert word in shown.text
        assert (await console.client.get("/drawers")).status_code == 200


class Listening(SmallShop):
    """A small shop that keeps what came to it."""

    came: Delivery | None = None

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        [self.came] = batch
        return [Delivered(b'{"ok":true}', b"")]


async def sign_in_as(console: Console, engine: AsyncEngine, person: str) -> Console:
    """The same browser, by a link of that person."""
    await console.client.get(await make_login_link(engine, SETTINGS, person=person))
    return replace(console, csrf=(await console.client.get("/api/v1/session")).json()["csrf"])


async def test_a_managers_return_is_an_event_of_the_terminal_once(
    console: Console, engine: AsyncEngine, filled_url: str
) -> None:
    shop = Listening([])
    console.edge.hosts = shop
    body = {
        "terminal": "t-001-1", "lines": [{"line": 1, "quantity": 2}], "reason": "card is closed", "cash": True,
    }  # fmt: skip
    path = "/api/v1/sales/s-009-lane-1-000007/returns"
    refused = await console.client.post(path, json=body, headers=effect(console))
    assert (refused.status_code, refused.json()["code"], shop.came) == (403, "permission_missing", None)
    console = await sign_in_as(console, engine, "boss")
    for scope in (Scope(ScopeKind.STORE, "s-002"), Scope(ScopeKind.CHAIN, "elsewhere")):
        await change_everywhere([filled_url], Grant("boss", Permission.RETURN_CASH, scope), True, "test")
    refused = await console.client.post(path, json=body, headers=effect(console))
    assert refused.json()["detail"] == (
        "boss has no permission return.cash at store:s-001, region:local or chain:chain"
    )
    granted = Grant("boss", Permission.RETURN_CASH, Scope(ScopeKind.REGION, "local"))
    assert await change_everywhere([filled_url], granted, True, "test")
    assert not await change_everywhere([filled_url], granted, True, "test")
    key, sent = effect(console), []
    for _ in range(2):
        answer = await console.client.post("/api/v1/sales/s-009-lane-1-000007/returns", json=body, headers=key)
        assert answer.json()["reply"] == {"ok": True}
        assert shop.came is not None
        sent.append(decode_event(shop.came.payload, AT))
        console.edge.calls = IdempotentCalls(10)  # the gateway was started again
    event = sent[0]
    assert event.id == sent[1].id, "the same key is the same event: the host answers it again"
    assert (event.clerk, event.body) == (
        "boss", Return("s-009-lane-1-000007", (ReturnLine(1, 2),), "cash:card is closed")
    )  # fmt: skip
    assert await change_everywhere([filled_url], granted, False, "test")
    shop.came = None
    refused = await console.client.post(path, json=body, headers=effect(console))
    assert (refused.status_code, shop.came) == (403, None), "taken away counts at once"
    plain = await console.client.post(path, json={**body, "cash": False}, headers=effect(console))
    assert plain.status_code == 200
    nobody = {**body, "terminal": "nobody"}
    answer = await console.client.post("/api/v1/sales/s/returns", json=nobody, headers=effect(console))
    assert answer.status_code == 404


async def test_while_it_starts_it_says_so(console: Console) -> None:
    console.edge.drawers = None
    assert (await console.client.get(API)).status_code == 503
