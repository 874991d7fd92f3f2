"""The money pages in a real browser: a difference is resolved and its day closed; balances sum to zero."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import expect

from models.domain.reconciliation import LineKind, StatementFile, StatementLine, totals_of
from runtime.plant import Plant
from runtime.reconciliation_desk import ReconciliationDesk
from tests.browser.conftest import Served, Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

DAY = date(2026, 3, 1)
ENTITY = "browsed"


@pytest.fixture
def browsed(served: Served) -> str:
    """A legal entity of its own whose provider says one payment that we know nothing of."""
    with psycopg.connect(served.database_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO legal_entity (id, chain, name_zh, name_en, provider_app) VALUES (%s, 'chain', '', '', '')"
            " ON CONFLICT DO NOTHING",
            (ENTITY,),
        )
    desk = ReconciliationDesk([Plant(data_dir=Path(), database_url=served.database_url)])
    at = datetime(2026, 3, 1, 4, tzinfo=UTC)
    line = StatementLine("alipay", ENTITY, LineKind.PAYMENT, "P1", "", "T1", 500, 500, 3, at, DAY)

    async def match() -> None:
        await desk.keep(StatementFile("alipay", ENTITY, DAY, totals_of([line]), [line]))
        await desk.run(ENTITY, "alipay", DAY)

    asyncio.run_coroutine_threadsafe(match(), served.loop).result(30)
    return ENTITY


def test_a_difference_is_resolved_and_its_day_closes(console: Watched, browsed: str) -> None:
    page = console.page
    page.get_by_role("link", name="Reconciliation", exact=True).click()
    page.locator(f"section[aria-label='{browsed} alipay'] a.recon-day.open").click()
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("in the statement, not in our books")
    page.get_by_role("button", name="Close the day").click()
    page.locator("#ask").get_by_role("button", name="Confirm").click()
    expect(page.locator("[data-obstacles]")).to_contain_text("lines are unexplained")
    row.get_by_role("button", name="To suspense").click()
    page.get_by_label("Reason").fill("a customer of the shop next door")
    page.locator("#ask").get_by_role("button", name="Confirm").click()
    expect(row).to_contain_text("a customer of the shop next door")
    page.get_by_role("button", name="Close the day").click()
    page.locator("#ask").get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("button", name="Reopen")).to_be_visible()
    page.goto(page.url.partition("/reconciliation")[0] + f"/ledger?entity={browsed}")
    expect(page.get_by_text("Σ = ¥0.00")).to_be_visible()
    expect(page.locator("tr", has_text="suspense:")).to_contain_text("5.00")
    page.locator("a[href^='/language/zh']").first.click()
    expect(page.get_by_text("支付手续费")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
