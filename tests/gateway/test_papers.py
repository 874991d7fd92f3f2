"""Price files in, invoices and points out, by the API."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.domain.price_file import FILE_BYTES_MAX
from models.domain.receipts import GENESIS, kept_from_row
from runtime.plant import Plant
from runtime.price_desk import PricesOfAHouse
from tests.gateway.conftest import Console

FILE = "code,name_zh,name_en,price\n6900000000007,可乐,Cola,3.50\n"
PRICES = "/api/v1/chains/chain/prices"


@pytest.fixture
def papers(console: Console, filled_url: str) -> Console:
    console.edge.prices = PricesOfAHouse([Plant(Path(), database_url=filled_url)])
    return console


async def test_a_price_file_is_taken_whole_or_not_at_all(papers: Console, engine: AsyncEngine) -> None:
    headers = {**papers.ours, "Content-Type": "text/csv"}
    dry = await papers.client.post(PRICES, params={"dry_run": True}, content=FILE, headers=headers)
    assert (dry.status_code, dry.json()["version"], dry.json()["new"]) == (200, 0, 1), dry.text
    wrong = await papers.client.post(PRICES, content=FILE + "x,,Y,1\n", headers=headers)
    assert (wrong.status_code, wrong.json()["code"]) == (409, "prices_wrong")
    assert "line 3" in wrong.json()["detail"]
    never = await papers.client.post(PRICES, params={"effective": "soon"}, content=FILE, headers=headers)
    assert never.json()["code"] == "bad_time"
    nobody = await papers.client.post("/api/v1/chains/nobody/prices", content=FILE, headers=headers)
    assert nobody.json()["code"] == "unknown_chain"
    long = await papers.client.post(
        PRICES, content=FILE, headers={**headers, "Content-Length": str(FILE_BYTES_MAX + 1)}
    )
    assert long.status_code == 413
    done = await papers.client.post(PRICES, content=FILE, headers=headers)
    assert (done.status_code, done.json()["version"], done.json()["gone"] > 0) == (200, 2, True)
    async with engine.connect() as conn:
        found = (await conn.execute(text("SELECT max(version) FROM book"))).scalar_one()
    assert found == 2
    history = (await papers.client.get(PRICES)).json()
    assert [(one["version"], one["lines"]) for one in history["items"]] == [(2, 1)]
    first = (await papers.client.get(f"{PRICES}/2", params={"limit": 1})).json()
    rest = (await papers.client.get(f"{PRICES}/2", params={"cursor": first["next"]})).json()
    changes = [*first["items"], *rest["items"]]
    assert {one["kind"] for one in changes} == {"new", "gone"}
    (cola,) = (one for one in changes if one["kind"] == "new")
    assert (cola["code"], cola["from_fen"], cola["to_fen"]) == ("6900000000007", None, 350)
    assert len(changes) == history["items"][0]["changed"]
    page = (await papers.client.get("/prices")).text
    assert "What changed" in page or "变动内容" in page
    assert "6900000000007" in (await papers.client.get("/prices/chain/2")).text


async def test_an_invoice_and_points_are_found_by_their_ids(papers: Console, engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        sale, due = (await conn.execute(text("SELECT id, due_fen FROM sale ORDER BY id LIMIT 1"))).one()
        member = (await conn.execute(text("SELECT id FROM member ORDER BY id LIMIT 1"))).scalar_one()
    invoice = (await papers.client.get(f"/api/v1/invoices/{sale}")).json()
    assert (invoice["kind"], invoice["stands_fen"], invoice["currency"]) == ("sale", due, "CNY")
    assert (await papers.client.get("/api/v1/invoices/nothing")).status_code == 404
    points = (await papers.client.get(f"/api/v1/members/{member}/points")).json()
    assert points == {"member": member, "accounts": []}
    assert (await papers.client.get("/api/v1/members/nobody/points")).status_code == 404


async def _chained(engine: AsyncEngine, store: str) -> list[str]:
    """Chain the world's sales of a store, as the commit of a sale does; their receipts' numbers."""
    async with engine.begin() as conn:
        rows = (
            await conn.execute(text("SELECT to_jsonb(s) FROM sale s WHERE store = :s ORDER BY at"), {"s": store})
        ).scalars()
        sha256, numbers = GENESIS, []
        for n, doc in enumerate(rows.all(), 1):
            one = kept_from_row(store, "sale", doc["id"], doc)
            sha256 = hashlib.sha256(sha256 + one.digest).digest()
            await conn.execute(
                text("INSERT INTO receipt VALUES (:store, :n, :id, 'sale', :at, :digest, :sha256)"),
                {"store": store, "n": n, "id": one.id, "at": one.at, "digest": one.digest, "sha256": sha256},
            )
            numbers.append(doc["receipt"])
        await conn.execute(text("UPDATE sale SET chained = true WHERE store = :s"), {"s": store})
    return numbers


async def test_receipts_are_found_by_number_and_their_chain_is_verified(papers: Console, engine: AsyncEngine) -> None:
    store = "s-001"
    numbers = await _chained(engine, store)
    assert len(numbers) > 1
    chain = (await papers.client.get(f"/api/v1/stores/{store}/receipts", params={"limit": 1})).json()
    assert [one["receipt"] for one in chain["items"]] == numbers[-1:]
    (found,) = (await papers.client.get("/api/v1/receipts", params={"q": numbers[0]})).json()
    assert (found["n"], found["kind"], found["receipt"]) == (1, "sale", numbers[0])
    begun = (await papers.client.get("/api/v1/receipts", params={"q": store})).json()
    assert len(begun) == len(numbers)
    one = (await papers.client.get(f"/api/v1/stores/{store}/receipts/1")).json()
    assert (one["faults"], one["sale"]["receipt"], len(one["lines"]) > 0) == ([], numbers[0], True)
    whole = (await papers.client.get(f"/api/v1/stores/{store}/receipt-chain")).json()
    assert (whole["ok"], whole["receipts"]) == (True, len(numbers))
    assert numbers[0] in (await papers.client.get("/receipts", params={"store": store})).text
    assert numbers[0] in (await papers.client.get(f"/receipts/{store}/1")).text
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE sale SET gross_fen = gross_fen + 1 WHERE receipt = :r"), {"r": numbers[0]})
    try:
        harmed = (await papers.client.get(f"/api/v1/stores/{store}/receipts/1")).json()
        broken = (
            await papers.client.get(f"/api/v1/stores/{store}/receipt-chain", params={"head": whole["head"]})
        ).json()
    finally:
        async with engine.begin() as conn:
            await conn.execute(text("UPDATE sale SET gross_fen = gross_fen - 1 WHERE receipt = :r"), {"r": numbers[0]})
    assert [fault["kind"] for fault in harmed["faults"]] == ["changed"]
    assert [(fault["kind"], fault["n"]) for fault in broken["faults"]] == [("changed", 1)]
    noted = await papers.client.get(f"/api/v1/stores/{store}/receipt-chain", params={"head": "99:00"})
    assert [fault["kind"] for fault in noted.json()["faults"]] == ["missing"]
    nonsense = await papers.client.get(f"/api/v1/stores/{store}/receipt-chain", params={"head": "x"})
    assert nonsense.status_code == 422
    assert (await papers.client.get(f"/api/v1/stores/{store}/receipts/9999")).status_code == 404


async def test_an_invoice_as_page_and_csv(papers: Console, engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        sale, receipt = (await conn.execute(text("SELECT id, receipt FROM sale ORDER BY id LIMIT 1"))).one()
    sheet = (await papers.client.get(f"/api/v1/invoices/{sale}", params={"format": "csv"})).text.splitlines()
    assert sheet[0].startswith("number,issuer,store,at,reason,line,code")
    assert sheet[1].startswith(receipt)
    assert receipt in (await papers.client.get("/invoices")).text
    assert (
        "6 %" in (await papers.client.get(f"/invoices/{sale}")).text
        or "13 %" in (await papers.client.get(f"/invoices/{sale}")).text
    )
    assert (await papers.client.get("/invoices", params={"tab": "memberships"})).status_code == 200
