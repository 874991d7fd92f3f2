"""Plans & offers in a real browser: a basket typed, its price with the why of each line, and what was left out."""

from __future__ import annotations

import json

import psycopg
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, Watched
from tests.gateway.test_plans import VOUCHERS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


FURNISH = """
    UPDATE book SET doc = doc || %s::jsonb
      || jsonb_build_object('plans', (SELECT jsonb_agg(plan.doc) FROM plan WHERE plan.chain = book.chain))
    RETURNING (SELECT min(code) FROM item WHERE item.chain = book.chain)
"""


def furnished(served: Served) -> str:
    """The book with vouchers and plans; the code of one of its articles."""
    with psycopg.connect(served.database_url, autocommit=True) as conn:
        more = json.dumps({"vouchers": VOUCHERS, "zone": "Asia/Shanghai"})
        row = conn.execute(FURNISH, (more,)).fetchone()
        assert row is not None
        return str(row[0])


def test_a_basket_is_priced_as_the_till_would(console: Watched, served: Served) -> None:
    code, page = furnished(served), console.page
    page.get_by_role("link", name="Plans & offers").click()
    page.get_by_label("Basket").fill(f"{code} 5")
    page.get_by_label("Voucher codes").fill("FIVE SIX OLD")
    page.get_by_role("button", name="Price it").click()
    row = page.locator("table tbody tr").first
    expect(row).to_contain_text("voucher: 2 off 5")
    expect(page.get_by_text("one of a kind with 2 off 5")).to_be_visible()
    expect(page.get_by_text("The voucher has expired")).to_be_visible()
    page.locator("a[href^='/language/zh']").first.click()
    expect(row).to_contain_text("券：满五减二")
