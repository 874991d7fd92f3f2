"""The buttons of a membership's detail, in a real browser: what each would do, then doing it."""

from __future__ import annotations

import psycopg
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, Watched
from tests.gateway.trusted import trusted_membership

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def test_a_button_says_what_it_would_do_and_does_it_when_it_is_confirmed(signed_in: Watched, served: Served) -> None:
    page, membership = signed_in.page, trusted_membership(served.database_url)
    page.goto(f"{served.settings.base_url}/members?q={membership}")
    page.locator("tbody a").first.click()
    drawer = page.locator("#drawer")
    drawer.get_by_role("button", name="Suspend").click()
    question = drawer.locator("dialog.ask")
    expect(question).to_contain_text("no benefit can be used online")
    expect(question).to_contain_text("款项不变")
    question.get_by_role("button", name="Back").click()
    expect(drawer.locator("h2").first).to_contain_text("Active")
    drawer.get_by_role("button", name="Suspend").click()
    question.get_by_role("button", name="Confirm").click()
    expect(drawer.locator("h2").first).to_contain_text("Suspended")
    drawer.get_by_role("button", name="Cancel by the merchant").click()
    expect(question).to_contain_text("the member pays 0.00")
    question.get_by_role("button", name="Confirm").click()
    expect(drawer.locator("h2").first).to_contain_text("Expired")
    expect(drawer.get_by_role("button", name="Suspend")).to_have_count(0)


def test_a_clerk_tops_a_balance_up_and_pays_it_out(signed_in: Watched, served: Served) -> None:
    page, membership = signed_in.page, trusted_membership(served.database_url)
    with psycopg.connect(served.database_url) as conn:
        row = conn.execute("SELECT t.store, t.lane FROM terminal t JOIN store_entity e USING (store)").fetchone()
    assert row is not None
    page.goto(f"{served.settings.base_url}/members?q={membership}")
    page.locator("tbody a").first.click()
    part = page.locator("[data-member-money]")
    for button, moved, left in (("Top up", "Top up 12.50", "12.50"), ("Pay out", "Pay out 12.50", "0.00")):
        part.get_by_label("Yuan").fill("12.5")
        part.get_by_label("Store", exact=True).fill(row[0])
        part.get_by_label("Drawer").fill(row[1])
        part.get_by_role("button", name=button).click()
        expect(part.locator("p b").first).to_contain_text(left)
        expect(part.locator("li").first).to_contain_text(moved.split()[0])
    expect(part).to_contain_text("No agreement")
