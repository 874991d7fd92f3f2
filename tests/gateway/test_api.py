"""The API over a real database: lists, explanations, the ledger, problems, idempotency."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from models.domain.errors import Refused, RetryLater
from models.domain.explaining import without_membership
from runtime.explaining import explain_anywhere
from runtime.plant import Plant
from tests.gateway.conftest import Console
from tests.gateway.shop import SmallShop

SALES = 13
"""Nine with a benefit, four without (tests.gateway.world)."""


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so, 10 s at most."""
    async with asyncio.timeout(30):
        while not await what():  # noqa: ASYNC110 - asks a server: no event reaches here
            await asyncio.sleep(0.01)


async def get(console: Console, path: str, status: int = 200) -> Any:
    response = await console.client.get(path)
    assert response.status_code == status, response.text
    return response.json()


async def walk(console: Console, path: str) -> list[str]:
    """Every id of a list, by its Link header, two rows at a time."""
    ids: list[str] = []
    next_path: str | None = f"{path}?limit=2"
    while next_path is not None:
        response = await console.client.get(next_path)
        assert response.status_code == 200
        body = response.json()
        assert 1 <= len(body["items"]) <= 2
        ids += [item["id"] for item in body["items"]]
        next_path = response.links["next"]["url"] if "next" in response.links else None
        assert (next_path is None) == (body["next"] is None)
    return ids


@pytest.mark.parametrize(
    ("path", "rows"),
    [("stores", 20), ("terminals", 60), ("members", 5), ("memberships", 5), ("sales", SALES)],
)
async def test_lists_are_walked_by_key_without_gap_or_repetition(console: Console, path: str, rows: int) -> None:
    ids = await walk(console, f"/api/v1/{path}")
    assert len(ids) == len(set(ids)) == rows


async def test_scope_narrows_every_list(console: Console) -> None:
    for path in ("stores", "terminals", "memberships", "sales", "members"):
        everything = await get(console, f"/api/v1/{path}?limit=200")
        one = await get(console, f"/api/v1/{path}?limit=200&store=s-002")
        none = await get(console, f"/api/v1/{path}?region=nowhere")
        assert len(one["items"]) < len(everything["items"])
        assert none == {"items": [], "next": None}


async def test_search_takes_text_as_text(console: Console) -> None:
    assert (await get(console, "/api/v1/stores?q=s-00&limit=200"))["items"][0]["id"] == "s-001"
    assert (await get(console, "/api/v1/stores?q=s-00&limit=1"))["items"][0]["labels"] == {"city": "guangzhou"}
    assert (await get(console, "/api/v1/stores?q=%25"))["items"] == []
    assert (await get(console, "/api/v1/stores?q='; DROP TABLE store; --"))["items"] == []


async def test_a_charge_is_explained_in_both_languages_with_its_lines(console: Console) -> None:
    explained = await get(console, "/api/v1/memberships/ms-1/explain")
    assert explained["sentence"]["en"] == "You enjoyed 8.00, less than the fee of 10.00: you pay 8.00"
    assert explained["sentence"]["zh"] == "您享受优惠 8.00 元，不足会费 10.00 元：实付 8.00 元"
    membership = explained["membership"]
    assert sum(line["counts_fen"] for line in explained["usage"]) == membership["used_fen"] == 800
    assert membership["charge_fen"] == membership["paid_fen"] == 800
    assert sum(entry["amount_fen"] for entry in explained["entries"]) == 0
    assert {entry["kind"] for entry in explained["entries"]} == {"hold_placed", "settled"}
    assert [call["fen"] for call in explained["calls"]] == [800]
    bought, enjoyed = explained["bought_fen"], explained["enjoyed_fen"]
    assert explained["without_membership"]["en"] == without_membership(bought, enjoyed, 800).en
    assert (bought, enjoyed) == (450, 800)


async def test_pages_and_command_line_explain_with_one_rule(console: Console, filled_url: str) -> None:
    plants = [Plant(Path("/"), database_url=filled_url)]
    for n in range(5):
        explained = await explain_anywhere(plants, f"ms-{n}")
        assert await get(console, f"/api/v1/memberships/ms-{n}/explain") == explained.model_dump(mode="json")


@pytest.mark.parametrize(("membership", "due", "saved"), [("ms-0", 1000, 3000), ("ms-2", 0, 0), ("ms-3", 1000, 600)])
async def test_due_and_saving(console: Console, membership: str, due: int, saved: int) -> None:
    view = await get(console, f"/api/v1/memberships/{membership}")
    assert (view["due_fen"], view["saved_fen"]) == (due, saved)


async def test_the_ledger_sums_to_zero(console: Console) -> None:
    ledger = await get(console, "/api/v1/ledger")
    assert ledger["sum_fen"] == ledger["unbalanced_transactions"] == 0
    assert ledger["transactions"] == SALES + 2 * 2
    assert sum(balance["amount_fen"] for balance in ledger["balances"]) == 0
    assert (await get(console, "/api/v1/ledger?entity=nobody"))["balances"] == []


async def test_the_clock(console: Console) -> None:
    clock = await get(console, "/api/v1/clock")
    assert clock["offset_s"] == 0
    assert clock["movable"] is False


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/terminals/nope", 404, "not_found"),
        ("/api/v1/memberships/nope/explain", 404, "not_found"),
        ("/api/v1/nothing", 404, "not_found"),
        ("/api/v1/stores?limit=0", 422, "invalid_request"),
        ("/api/v1/stores?limit=10000", 422, "invalid_request"),
        ("/api/v1/stores?cursor=%00", 422, "invalid_cursor"),
        ("/api/v1/stores?cursor=WyJhIiwiYiJd", 422, "invalid_cursor"),
        ("/api/v1/sales?cursor=WyJhIiwiYiJd", 422, "invalid_cursor"),
        ("/api/v1/memberships?group=all", 422, "invalid_request"),
        ("/api/v1/demo/face-token", 405, "method_not_allowed"),
    ],
)
async def test_every_refusal_is_a_problem_with_what_to_do(console: Console, path: str, status: int, code: str) -> None:
    response = await console.client.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["do"]


async def test_a_bug_is_a_problem_too(console: Console) -> None:
    async def broken(_region: str) -> Mapping[str, int | str]:
        raise RuntimeError("secret detail")

    console.edge.settle = broken
    response = await console.client.post("/api/v1/settlement/runs", headers=console.ours | {"Idempotency-Key": "k" * 8})
    assert response.status_code == 500
    assert response.json()["code"] == "bug"
    assert "secret" not in response.text


def envelope(kind: str, body: dict[str, object], seq: int) -> dict[str, object]:
    return {
        "v": 1,
        "id": str(uuid.uuid4()),
        "boot": "b",
        "seq": seq,
        "ts": "2026-11-22T04:00:00Z",
        "type": kind,
        "session": None,
        "clerk": None,
        "replay": False,
        "body": body,
    }


async def test_an_event_goes_to_the_host_and_comes_back_as_reply_and_screen(console: Console, shop: SmallShop) -> None:
    event = envelope("scan", {"code": "6901234567908", "quantity": 1}, 1)
    path = "/api/v1/terminals/t-003-2/events"
    headers = console.ours | {"Idempotency-Key": str(event["id"])}
    first = await console.client.post(path, json=event, headers=headers)
    again = await console.client.post(path, json=event, headers=headers)
    assert first.status_code == 200
    assert first.json()["reply"]["ok"] is True
    assert first.json()["screen"]["due_fen"] == 1250
    assert again.content == first.content
    assert shop.turns == 1
    shown = await get(console, "/api/v1/terminals/t-003-2/screen")
    assert shown == first.json()["screen"]


async def test_the_screen_is_waited_for(console: Console) -> None:
    path = "/api/v1/terminals/t-001-1"
    opened = (
        await console.client.post(f"{path}/events", json=envelope("session.open", {}, 1), headers=console.ours)
    ).json()
    session, rev = opened["screen"]["session"], opened["screen"]["rev"]
    waiting = asyncio.create_task(console.client.get(f"{path}/screen?session={session}&rev={rev}"))
    scan = envelope("scan", {"code": "6901234567892", "quantity": 1}, 2)
    await console.client.post(f"{path}/events", json=scan, headers=console.ours)
    async with asyncio.timeout(30):
        newer = (await waiting).json()
    assert newer["rev"] == rev + 1


async def test_stopping_ends_a_long_poll_at_once(console: Console) -> None:
    waiting = asyncio.create_task(console.client.get("/api/v1/terminals/t-001-1/screen"))
    await asyncio.sleep(0)
    console.edge.close()
    async with asyncio.timeout(20):
        response = await waiting
    assert response.status_code == 503
    assert response.json()["code"] == "stopping"


async def test_a_refusal_by_the_host_is_a_reply(console: Console) -> None:
    response = await console.client.post(
        "/api/v1/terminals/t-001-1/events", json=envelope("cancel", {}, 1), headers=console.ours
    )
    assert response.status_code == 200
    assert response.json()["reply"]["error"]["code"] == "no_session"


def face_headers(console: Console, seq: int) -> dict[str, str]:
    return console.ours | {
        "Face-Id": str(uuid.uuid4()),
        "Face-Boot": "b",
        "Face-Seq": str(seq),
        "Content-Type": "image/jpeg",
    }


async def test_a_face_needs_consent_and_then_finds_the_member(console: Console) -> None:
    path = "/api/v1/terminals/t-001-1"
    jpeg = b"\xff\xd8\xff\xe0" + b"x" * 100
    await console.client.post(f"{path}/events", json=envelope("session.open", {}, 1), headers=console.ours)
    refused = await console.client.post(f"{path}/faces", content=jpeg, headers=face_headers(console, 2))
    assert refused.json()["reply"]["error"]["code"] == "consent_missing"
    consent = envelope("consent", {"purpose": "recognise", "text": "2", "granted": True}, 3)
    await console.client.post(f"{path}/events", json=consent, headers=console.ours)
    seen = await console.client.post(f"{path}/faces", content=jpeg, headers=face_headers(console, 4))
    assert seen.json()["screen"]["member"]["name"] == "张*"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"GIF89a", 422, "not_jpeg"),
        (b"", 422, "not_jpeg"),
        (b"\xff\xd8\xff" + b"x" * (192 * 1024), 413, "too_large"),
        (b"\xff\xd8\xff" + b"x" * (300 * 1024), 413, "too_large"),
    ],
)
async def test_bad_faces_are_refused_here(console: Console, content: bytes, status: int, code: str) -> None:
    response = await console.client.post(
        "/api/v1/terminals/t-001-1/faces", content=content, headers=face_headers(console, 1)
    )
    assert (response.status_code, response.json()["code"]) == (status, code)


async def test_bodies_are_bounded_whatever_they_say_of_their_length(console: Console, shop: SmallShop) -> None:
    async def endless() -> Any:
        for _ in range(64):
            yield b"x" * 8192

    response = await console.client.post("/api/v1/terminals/t-001-1/events", content=endless(), headers=console.ours)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    token = await console.client.post("/api/v1/demo/face-token", content=endless(), headers=console.ours)
    assert token.status_code == 413
    too_long = await console.client.post(
        "/api/v1/terminals/t-001-1/events", content=b"x" * (64 * 1024 + 1), headers=console.ours
    )
    assert too_long.status_code == 413
    assert shop.turns == 0


async def test_garbage_is_answered_by_the_host_and_a_wrong_key_by_us(console: Console) -> None:
    path = "/api/v1/terminals/t-001-1/events"
    garbage = await console.client.post(path, content=b"\x00{", headers=console.ours)
    assert garbage.json()["reply"]["id"] is None
    wrong = await console.client.post(
        path, json=envelope("session.open", {}, 1), headers=console.ours | {"Idempotency-Key": "another"}
    )
    assert wrong.status_code == 422
    keyed = await console.client.post(path, content=b"\x00{", headers=console.ours | {"Idempotency-Key": "another"})
    assert keyed.json()["code"] == "invalid_request"


async def test_a_restarting_host_says_when_to_come_back(console: Console, shop: SmallShop) -> None:
    await shop.go_away()
    response = await console.client.post(
        "/api/v1/terminals/t-001-1/events", json=envelope("session.open", {}, 1), headers=console.ours
    )
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["code"] == "host_restarting"
    shop.come_back()


async def test_settlement_runs_once_per_key(console: Console) -> None:
    runs = 0
    go, begun = asyncio.Event(), asyncio.Event()

    async def settle(_region: str) -> Mapping[str, int | str]:
        nonlocal runs
        runs += 1
        begun.set()
        await go.wait()
        return {"settled": 3}

    path = "/api/v1/settlement/runs"
    missing = await console.client.post(path, headers=console.ours)
    assert missing.status_code == 422
    headers = console.ours | {"Idempotency-Key": "press-0001"}
    unconnected = await console.client.post(path, headers=headers)
    assert unconnected.status_code == 503
    console.edge.settle = settle
    first = asyncio.create_task(console.client.post(path, headers=headers))
    await begun.wait()
    bounced = await console.client.post(path, headers=headers)
    assert (bounced.status_code, bounced.json()["code"]) == (409, "in_flight")
    go.set()
    assert (await first).json() == {"totals": {"settled": 3}}
    assert (await console.client.post(path, headers=headers)).json() == {"totals": {"settled": 3}}
    assert runs == 1


async def test_a_settlement_that_failed_may_be_tried_under_the_same_key(console: Console) -> None:
    answers: list[Exception | dict[str, int | str]] = [
        Refused("busy", "another run", "wait"),
        RetryLater("away", "ray is away", "wait"),
        {"settled": 1},
    ]

    async def settle(_region: str) -> Mapping[str, int | str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    console.edge.settle = settle
    headers = console.ours | {"Idempotency-Key": "press-0002"}
    statuses = [(await console.client.post("/api/v1/settlement/runs", headers=headers)).status_code for _ in range(3)]
    assert statuses == [409, 503, 200]


async def answers(console: Console, status: int) -> bool:
    return (await console.client.get("/readyz")).status_code == status


async def test_health_readiness_metrics(console: Console, shop: SmallShop) -> None:
    assert (await get(console, "/healthz")) == {"status": "ok"}
    await until(lambda: answers(console, 200))
    text = (await console.client.get("/metrics")).text
    assert 'storeops_terminals_online{region="local"} 60\n' in text
    assert 'storeops_gateway_responses_total{status="2xx"}' in text
    for line in text.splitlines():
        assert line.startswith("# TYPE ") or len(line.rsplit(" ", 1)) == 2
    await shop.go_away()
    await shop.change("t-001-1", online=False)
    await until(lambda: answers(console, 503))
    shop.come_back()


async def test_the_wall_as_a_document(console: Console) -> None:
    async def full() -> bool:
        return len((await get(console, "/api/v1/wall"))["terminals"]) == 60

    await until(full)


async def test_a_collection_code_is_drawn(console: Console) -> None:
    response = await console.client.get("/api/v1/qr.svg", params={"text": "https://example.test/qr/1?a=b&c=<d>"})
    assert response.headers["content-type"] == "image/svg+xml"
    assert response.text.startswith("<svg")
    assert "<d>" not in response.text
    assert (await console.client.get("/api/v1/qr.svg?text=")).status_code == 422


async def test_every_operation_documents_its_refusals(console: Console) -> None:
    document = await get(console, "/api/v1/openapi.json")
    for path, operations in document["paths"].items():
        if not path.startswith("/api/"):
            continue
        for method, operation in operations.items():
            wanted = {"401", "422", "503"} | ({"403"} if method != "get" else set())
            assert wanted <= operation["responses"].keys(), (method, path)
            assert operation["summary"]
    assert not any(path in document["paths"] for path in ("/wall", "/login/{secret}"))


async def test_the_database_away_is_said_so(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    console.edge.database = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:9/none")
    response = await console.client.get("/api/v1/stores")
    assert (response.status_code, response.json()["code"]) == (503, "database_away")
    page = await console.client.get("/wall")
    assert page.status_code == 503
    assert "text/html" in page.headers["content-type"]
