"""Price files in, invoices and points out, by the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.domain.price_file import FILE_BYTES_MAX
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
