"""A drawer's shift in a real browser: opened, dropped from, counted blind, handed over, on paper in both languages."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Served, Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def does(page: Page, verb: str, keys: str = "") -> None:
    """Press the button of the first drawer, type on the pad, confirm."""
    page.locator(".till").first.get_by_role("button", name=verb).click()
    for key in keys:
        page.locator(f".till-keys [data-key='{key}']").click()
    page.get_by_label("Who").fill("ann")
    page.locator("#till-ask button[value='yes']").click()


def test_a_shift_at_the_drawer(signed_in: Watched, served: Served) -> None:
    page = signed_in.page
    page.goto(f"{served.settings.base_url}/drawers?store=s-011")
    till = page.locator(".till").first
    does(page, "Open a shift", "200")
    expect(till).to_contain_text("¥200.00")
    does(page, "Drop to safe", "20.5")
    expect(till).to_contain_text("¥20.50")
    expect(page.get_by_text("¥179.50")).to_have_count(0)
    does(page, "Count", "179")
    expect(till.locator(".till-count")).to_contain_text("short ¥0.50")
    expect(page.locator(".till-paper")).to_contain_text("Z report")
    does(page, "Hand over")
    expect(till).to_contain_text("Shift 2")
    expect(till).to_contain_text("¥179.00")
    page.locator("a[href^='/language/zh']").first.click()
    expect(page.locator(".till-recent")).to_contain_text("短款 ¥0.50")
