"""The money pages in a real browser: a difference is resolved and its day closed; balances sum to zero."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import FilePayload, Route, expect

from models.domain.receipts import GENESIS, kept_from_row
from models.domain.reconciliation import LineKind, StatementFile, StatementLine, totals_of
from runtime.plant import Plant
from runtime.reconciliation_desk import ReconciliationDesk
from tests.browser.conftest import Served, Watched
from tests.gateway.trusted import trusted_membership

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
    row = page.locator("tr[id^=line-]").filter(has_text="in the statement, not in our books")
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


def test_a_price_file_is_checked_mended_and_taken(console: Watched, served: Served) -> None:
    page = console.page
    page.get_by_role("link", name="Price files", exact=True).click()
    with psycopg.connect(served.database_url) as conn:
        listed = conn.execute(
            "SELECT DISTINCT ON (code) code, doc -> 'name' ->> 'zh', doc -> 'name' ->> 'en', (doc ->> 'unit_fen')::int"
            " FROM item WHERE chain = 'chain' AND doc IS NOT NULL ORDER BY code, version DESC"
        ).fetchall()
    lines = [f'{code},"{zh}","{en}",{fen / 100:.2f}' for code, zh, en, fen in listed]
    file = "\n".join(["code,name_zh,name_en,price", *lines, "6900000000007,可乐,Cola,3.505"])
    _choose(console, file)
    page.get_by_role("button", name="Check it, write nothing").click()
    expect(page.locator(".price-faults li")).to_contain_text(f"line {len(listed) + 2}: price")
    assert all("409" in trouble for trouble in console.troubles), "the refusal, and nothing else"
    console.troubles.clear()
    _choose(console, file.removesuffix("5"))
    page.get_by_role("button", name="Check it, write nothing").click()
    expect(page.locator("[data-figure=new]")).to_have_text("1")
    expect(page.locator("[data-figure=gone]")).to_have_text("0")
    page.get_by_role("button", name="Take it").click()
    page.locator("#ask").get_by_role("button", name="Confirm").click()
    expect(page.locator("[data-said]")).to_contain_text("is in force")
    page.reload()
    page.get_by_role("link", name="What changed").first.click()
    expect(page.locator("#drawer")).to_contain_text("6900000000007")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def _choose(console: Watched, file: str) -> None:
    payload: FilePayload = {"name": "prices.csv", "mimeType": "text/csv", "buffer": file.encode()}
    console.page.locator("input[type=file]").set_input_files(payload)


def test_a_receipt_is_found_verified_and_invoiced(console: Watched, served: Served) -> None:
    page = console.page
    with psycopg.connect(served.database_url, autocommit=True) as conn:
        sales = conn.execute("SELECT to_jsonb(s) FROM sale s WHERE store = 's-002' ORDER BY at LIMIT 1")
        [(doc,)] = sales.fetchall()
        one = kept_from_row("s-002", "sale", doc["id"], doc)
        sha256 = hashlib.sha256(GENESIS + one.digest).digest()
        conn.execute("UPDATE sale SET chained = true WHERE id = %s", (one.id,))
        conn.execute(
            "INSERT INTO receipt VALUES ('s-002', 1, %s, 'sale', %s, %s, %s)", (one.id, one.at, one.digest, sha256)
        )
    page.goto(page.url.partition("/wall")[0] + "/receipts?store=s-002")
    page.get_by_role("button", name="Verify the chain").click()
    expect(page.locator("#chain-state p")).to_contain_text(f"1:{sha256.hex()}")
    page.get_by_placeholder("Receipt number or sale id").fill(doc["receipt"])
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=doc["receipt"]).click()
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("follows from the one before")
    drawer.get_by_role("link", name="Its invoice").click()
    expect(drawer).to_contain_text("May be invoiced")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto(page.url.partition("/receipts")[0] + "/language/zh?back=/invoices")
    expect(page.get_by_role("heading", name="开票")).to_be_visible()


def test_settlement_is_tried_dry_paused_and_a_parked_item_resolved(console: Watched, served: Served) -> None:
    page = console.page
    due, parked = (trusted_membership(served.database_url) for _ in range(2))
    with psycopg.connect(served.database_url, autocommit=True) as conn:
        past = "enrolled_at = now() - interval '9 days', expires_at = now() - interval '3 days',"
        conn.execute(
            f"UPDATE membership SET {past} cutoff_at = now() - interval '2 days', used_fen = 700 WHERE id = %s", (due,)
        )
        conn.execute(
            f"UPDATE membership SET {past} cutoff_at = now() - interval '2 days', used_fen = 0, state = 'PARKED',"
            " parked_why = 'captured twice' WHERE id = %s",
            (parked,),
        )
        [(count, clawback_fen)] = conn.execute(
            "SELECT count(*), sum(least(fee_eff_fen, used_fen)) FILTER (WHERE used_fen < fee_eff_fen) FROM membership"
            " WHERE (chain, region) = ('chain', 'local') AND due_at IS NOT NULL AND cutoff_at <= now()"
        ).fetchall()
    held: list[Route] = []
    late = True

    def hold(route: Route) -> None:
        if late:
            held.append(route)
        else:
            route.continue_()

    page.route("**/js/settlement.js*", hold)
    page.get_by_role("link", name="Settlement", exact=True).click(no_wait_after=True)
    dry_run = page.get_by_role("button", name="Dry run")
    expect(dry_run).to_have_css("pointer-events", "none")  # nothing answers yet: no click is lost in silence
    late = False
    for route in held:
        route.continue_()
    dry_run.click()
    foreseen = page.locator("[id^=forecast-]")
    expect(foreseen.locator("[data-field=cut_off]")).to_have_text(str(count))
    expect(foreseen.locator("[data-field=clawback_fen]")).to_have_text(f"{clawback_fen / 100:.2f}")
    with psycopg.connect(served.database_url) as conn:
        state = conn.execute("SELECT state, charge_fen FROM membership WHERE id = %s", (due,)).fetchone()
    assert state == ("ACTIVE", None), "nothing happened"
    ask = page.locator("#ask")
    page.get_by_role("button", name="Pause").click()
    ask.get_by_label("Why").fill("the provider is down")
    ask.get_by_role("button", name="Do it").click()
    expect(page.locator("h2").filter(has_text="the provider is down")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    ask.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    item = page.locator("tr").filter(has_text=parked)
    expect(item).to_contain_text("captured twice")
    item.get_by_role("button", name="Write off").click()
    ask.get_by_label("Why").fill("gone")
    ask.get_by_role("button", name="Do it").click()
    expect(page.locator("#toast")).to_contain_text("owes nothing")
    console.troubles[:] = [trouble for trouble in console.troubles if "409" not in trouble]
    item.get_by_role("button", name="Close").click()
    ask.get_by_label("Why").fill("given back by hand")
    ask.get_by_role("button", name="Do it").click()
    expect(item).to_have_count(0)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with psycopg.connect(served.database_url, autocommit=True) as conn:
        conn.execute("DELETE FROM membership WHERE id IN (%s, %s)", (due, parked))
