"""The page Faces in a real browser: charts drawn on the server need no script and break no policy."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def test_charts_are_drawn_and_their_tables_say_the_same(console: Watched, served: Served) -> None:
    page = console.page
    page.get_by_role("link", name="Faces").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Faces")
    expect(page.get_by_role("img", name="Number of decisions of each day by outcome")).to_be_visible()
    page.locator("summary", has_text="As a table").first.click()
    expect(page.get_by_role("table", name="Decisions by day").locator("tbody tr")).to_have_count(30)
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "true")
    expect(page.locator(".calibration").first).to_contain_text("extrapolated")
