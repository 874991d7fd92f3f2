"""The ledger's pages and API on a real database: drill-down from balances to legs, statements, owners of a store."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.gateway.conftest import Console

API = "/api/v1/ledger"
MONTH = "2026-11"


async def got(console: Console, path: str, status: int = 200) -> Any:
    answer = await console.client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


async def whole(console: Console, path: str) -> list[dict[str, Any]]:
    """Every page of a list."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await got(console, f"{path}&limit=3" + (f"&cursor={cursor}" if cursor else ""))
        items += page["items"]
        if page["next"] is None:
            return items
        cursor = page["next"]


async def test_balances_open_into_their_legs(console: Console) -> None:
    balances = await got(console, f"{API}/balances")
    assert sum(one["amount_fen"] for one in balances) == 0
    for one in balances[:4]:
        booked = await whole(console, f"{API}/journal?entity={one['entity']}&account={one['account']}")
        legs = [leg for txn in booked for leg in txn["entries"]]
        mine = [leg["amount_fen"] for leg in legs if (leg["account"], leg["book"]) == (one["account"], one["book"])]
        assert sum(mine) == one["amount_fen"]
    newest = await whole(console, f"{API}/journal?entity=")
    assert len(newest) == len({txn["id"] for txn in newest}) == (await got(console, "/api/v1/ledger"))["transactions"]


async def test_a_sale_and_a_membership_have_their_journal(console: Console) -> None:
    sale = (await got(console, "/api/v1/sales?limit=1"))["items"][0]
    booked = await whole(console, f"{API}/journal?sale={sale['receipt']}")
    assert [one["request_number"] for one in booked] == [sale["id"]]
    about = await whole(console, f"{API}/journal?membership=ms-0")
    assert {"sale"} <= {one["kind"] for one in about}
    await got(console, f"{API}/journal?sale=x&entity=chain", 409)


async def test_the_statement_equals_the_ledger_and_opens(console: Console) -> None:
    (one,) = await got(console, f"/api/v1/stores/s-001/statement?month={MONTH}")
    assert one["difference_fen"] == 0
    earned = sum(row["fen"] for row in one["rows"] if not row["money"])
    assert earned == sum(row["fen"] for row in one["rows"] if row["money"]) == one["earned_fen"] > 0
    for row in one["rows"]:
        path = f"/api/v1/stores/s-001/statement/line?month={MONTH}&entity={one['entity']}&key={row['key']}"
        behind = sum(amount["fen"] for amount in await whole(console, path))
        assert behind == (row["fen"] if row["money"] else -row["fen"])
    await got(console, "/api/v1/stores/s-001/statement?month=2026-13", 422)
    await got(console, f"/api/v1/stores/nowhere/statement?month={MONTH}", 404)


async def test_a_store_changes_hands_once_per_key(console: Console) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4()), **console.ours}
    body = {"entity": "chain", "from_date": "2031-01-01"}
    answers = [await console.client.post("/api/v1/stores/s-002/owner", json=body, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json() == {"store": "s-002", **body}
    for entity, day, status in (("nobody", "2031-02-01", 409), ("chain", "2031-02-01", 409), ("chain", "soon", 422)):
        fresh = {"Idempotency-Key": str(uuid.uuid4()), **console.ours}
        wrong = {"entity": entity, "from_date": day}
        refused = await console.client.post("/api/v1/stores/s-002/owner", json=wrong, headers=fresh)
        assert refused.status_code == status, refused.text
        assert refused.json()["do"]
    page = (await console.client.get("/statement?store=s-002", headers={"Accept-Language": "en"})).text
    assert "2031-01-01 chain" in page


@pytest.mark.parametrize(("language", "word"), [("zh", "账本"), ("en", "Ledger")])
async def test_the_pages_say_it_in_both_languages(console: Console, language: str, word: str) -> None:
    heads = {"Accept-Language": language}
    page = (await console.client.get("/ledger", headers=heads)).text
    assert f"<h1>{word}</h1>" in page
    assert 'class="sum good"' in page
    journal = (
        await console.client.get("/ledger?tab=journal&entity=chain&account=provider_clearing:alipay", headers=heads)
    ).text
    assert "code found" in journal
    (one,) = await got(console, f"/api/v1/stores/s-001/statement?month={MONTH}")
    line = one["rows"][0]["key"]
    statement = await console.client.get(
        f"/statement?store=s-001&month={MONTH}&entity={one['entity']}&line={line}", headers=heads
    )
    assert 'id="behind"' in statement.text
    assert 'class="sum good"' in statement.text
    txn = (await got(console, f"{API}/journal?limit=1"))["items"][0]["id"]
    assert txn in (await console.client.get(f"/ledger/transactions/{txn}", headers=heads)).text
    assert (await console.client.get("/ledger/transactions/none", headers=heads)).status_code == 404
    assert (await console.client.get("/statement", headers=heads)).status_code == 200
