"""Reconciliation by the API and the page, on a real database and the real desk."""

from __future__ import annotations

import csv
import io
import uuid
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest_asyncio

from models.domain.reconciliation import LineKind, StatementFile, StatementLine, totals_of
from runtime.plant import Plant
from runtime.reconciliation_desk import ReconciliationDesk
from tests.gateway.conftest import Console

DAY = date(2026, 3, 1)
API = "/api/v1/reconciliation"


@pytest_asyncio.fixture
async def entity(console: Console, filled_url: str) -> str:
    """A legal entity of its own whose provider says one payment, long ago, that we know nothing of."""
    name = f"e-{uuid.uuid4().hex[:8]}"
    with psycopg.connect(filled_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO legal_entity (id, chain, name_zh, name_en, provider_app) VALUES (%s, 'chain', '', '', '')",
            (name,),
        )
    desk = ReconciliationDesk([Plant(data_dir=Path(), database_url=filled_url)])
    console.edge.reconciliation = desk
    at = datetime(2026, 3, 1, 4, tzinfo=UTC)
    line = StatementLine("alipay", name, LineKind.PAYMENT, "=P1", "", "T1", 500, 500, 3, at, DAY)
    await desk.keep(StatementFile("alipay", name, DAY, totals_of([line]), [line]))
    await desk.run(name, "alipay", DAY)
    return name


def effect(console: Console) -> dict[str, str]:
    return {**console.ours, "Idempotency-Key": str(uuid.uuid4())}


async def test_a_day_stays_open_until_its_line_is_explained_and_reopens_with_a_reason(
    console: Console, entity: str, filled_url: str
) -> None:
    [day] = (await console.client.get(f"{API}/days?account={entity}")).json()
    assert (day["statement_lines"], day["matched"], day["open_lines"]) == (1, 0, 1)
    assert (day["statement_fen"], day["difference_fen"], day["closed"]) == (497, 500, False)
    [line] = (await console.client.get(f"{API}/lines?account={entity}&day={DAY}&state=open")).json()
    assert (line["verdict"], line["difference_fen"]) == ("PROVIDER_ONLY", 500)

    with psycopg.connect(filled_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO drawer_shift (id, store, drawer, n, entity, business_date, state, opened_at, opened_by,"
            " float_fen, counted_by, ended_by, next_shift)"
            " VALUES (%s, 's-003', 'lane-1', 1, %s, %s, 'open', now(), 'ann', 0, '', '', '')",
            (entity, entity, DAY.isoformat()),
        )
    by_store = (await console.client.get(f"/api/v1/days/{entity}/{DAY}/stores")).json()
    assert [(one["store"], one["open_lines"], one["difference_fen"], one["uncounted_drawers"]) for one in by_store] == [
        ("", 1, 500, []), ("s-003", 0, 0, ["lane-1"]),
    ]  # fmt: skip
    assert "s-003" in (await console.client.get(f"/reconciliation?account={entity}&day={DAY}")).text

    close = f"/api/v1/days/{entity}/{DAY}/close"
    stays = (await console.client.post(close, headers=effect(console))).json()
    assert stays["closed"] is False
    assert [(one["code"], one["lines"]) for one in stays["obstacles"]] == [("open_lines", [line["id"]])]

    explain = f"{API}/lines/{line['id']}/explain"
    assert (await console.client.post(explain, json={"reason": "known"})).status_code == 403, "no token of ours"
    key = effect(console)
    booked = await console.client.post(explain, json={"reason": "known", "remedy": "suspense"}, headers=key)
    assert (booked.json()["state"], booked.json()["posted_to"]) == ("posted", "suspense")
    assert (
        await console.client.post(explain, json={"reason": "known", "remedy": "suspense"}, headers=key)
    ).json() == booked.json(), "the same press, the same answer"
    assert (await console.client.post(explain, json={"reason": "x"}, headers=effect(console))).status_code == 409

    assert (await console.client.post(close, headers=effect(console))).json()["closed"] is True
    reopen = f"/api/v1/days/{entity}/{DAY}/reopen"
    assert (await console.client.post(reopen, json={"reason": ""}, headers=effect(console))).status_code == 422
    opened = await console.client.post(reopen, json={"reason": "a till was forgotten"}, headers=effect(console))
    assert opened.json()["state"] == "open"
    [event] = (await console.client.get(f"/api/v1/days?entity={entity}")).json()
    assert event["reason"] == "a till was forgotten"


async def test_the_page_shows_days_and_lines_in_both_languages_and_csv_is_no_formula(
    console: Console, entity: str
) -> None:
    for language, words in (("zh", ("对账与日结", "仅渠道有")), ("en", ("Reconciliation", "Provider only"))):
        await console.client.get(f"/language/{language}")
        shown = await console.client.get(f"/reconciliation?account={entity}&day={DAY}")
        assert shown.status_code == 200
        for word in words:
            assert word in shown.text
        assert f"/api/v1/days/{entity}/{DAY}/close" in shown.text
    everything = await console.client.get("/reconciliation")
    assert everything.status_code == 200
    report = await console.client.get(f"{API}/lines?account={entity}&day={DAY}&format=csv")
    [header, row] = csv.reader(io.StringIO(report.text))
    assert dict(zip(header, row, strict=True))["order_no"] == "'=P1"
    assert report.headers["content-type"] == "text/csv; charset=utf-8"


async def test_while_it_starts_it_says_so(console: Console) -> None:
    console.edge.reconciliation = None
    assert (await console.client.get(f"{API}/days")).status_code == 503
