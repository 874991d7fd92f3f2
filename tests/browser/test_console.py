"""The console in a real browser: a wall that moves, a charge explained, a sale at a virtual terminal."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import psycopg
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from devices.liveness import LivenessKey, fingerprint, show_public_key
from tests.browser.conftest import Served, Watched, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def open_table(page: Page) -> None:
    page.get_by_role("tab", name="Table").click()
    expect(page.locator("#twin-table tbody tr")).to_have_count(60)


def test_the_wall_moves_when_a_terminal_does(signed_in: Watched, served: Served) -> None:
    page = signed_in.page
    page.goto(served.login_link())
    expect(page).to_have_url(re.compile("/wall$"))
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#figure-online")).to_have_text("60 / 60")
    open_table(page)
    row = page.locator("#twin-table tr", has_text="t-009-2")
    expect(row.locator(".badge")).to_have_text("Idle")
    served.call(served.shop.change("t-009-2", state="paying", due_fen=1250))
    expect(row.locator(".badge")).to_have_text("Paying")
    expect(row).to_contain_text("¥12.50")
    served.call(served.shop.change("t-009-2", online=False))
    expect(page.locator("#attention")).to_contain_text("t-009-2")
    served.call(served.shop.change("t-009-2", online=True, state="", due_fen=0))
    expect(page.locator("#attention")).to_contain_text("Nothing right now")


def still_picture(canvas: Locator) -> np.ndarray:
    """The canvas once two pictures in a row are equal: the highlight of a change has faded."""
    before = b""
    for _ in range(100):
        picture = canvas.screenshot()
        if picture == before:
            break
        before = picture
    return np.frombuffer(picture, np.uint8)


def test_the_canvas_shows_what_the_table_says_and_opens_details(console: Watched, served: Served) -> None:
    page = console.page
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#figure-online")).to_have_text("60 / 60")
    canvas = page.locator("#canvas")
    before = np.frombuffer(canvas.screenshot(), np.uint8)
    served.call(served.shop.change("t-001-1", state="declined"))
    expect(page.locator("#attention")).to_contain_text("payment declined")
    after = still_picture(canvas)
    first, second = (cv2.imdecode(image, cv2.IMREAD_COLOR) for image in (before, after))
    assert first is not None
    assert second is not None
    changed = np.argwhere((first != second).any(axis=2))
    assert len(changed) > 200, "the canvas did not change"
    assert changed[:, 0].max() < 110, "more than the first row of tiles changed"
    canvas.click(position={"x": 40, "y": 70})
    drawer = page.locator("#drawer")
    expect(drawer).to_be_visible()
    expect(drawer).to_contain_text("t-001-1")
    expect(drawer).to_contain_text("Declined")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(drawer).to_contain_text("Tiyu West")
    served.call(served.shop.change("t-001-1", state=""))


def test_a_charge_is_explained(console: Watched) -> None:
    page = console.page
    page.get_by_role("link", name="Members").first.click()
    page.get_by_role("link", name="李*").click()
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("You enjoyed 8.00, less than the fee of 10.00: you pay 8.00")
    expect(drawer).to_contain_text("您享受优惠 8.00 元，不足会费 10.00 元：实付 8.00 元")
    drawer.get_by_role("link", name="s-001-1-000006").click()
    expect(drawer).to_contain_text("轻会员：8 元优惠券")


def test_settling_says_what_it_did(signed_in: Watched, served: Served) -> None:
    page = signed_in.page
    page.goto(f"{served.settings.base_url}/members")
    page.get_by_role("button", name="Settle what is due").click()
    expect(page.locator("#toast")).to_contain_text("captured_fen 1800")


def test_scope_is_in_the_address(console: Watched) -> None:
    page = console.page
    page.locator("#scope summary").click()
    page.get_by_placeholder("Store name or id").fill("Pazhou")
    page.locator("#scope-choices").get_by_role("link", name=re.compile("Pazhou.*s-006")).click()
    expect(page).to_have_url(re.compile(r"/wall\?region=local&store=s-006$"))
    expect(page.locator("#figure-online")).to_have_text("3 / 3")
    page.get_by_role("link", name="Terminals").click()
    expect(page).to_have_url(re.compile(r"/terminals\?region=local&store=s-006$"))
    expect(page.locator("tbody tr")).to_have_count(3)


def portrait(tmp_path: Path) -> Path:
    """A large photograph, so that the page must scale it down to what the protocol takes."""
    noise = np.random.default_rng(7).integers(0, 255, (2400, 1800, 3), dtype=np.uint8)
    file = tmp_path / "portrait.png"
    cv2.imwrite(str(file), noise)
    assert file.stat().st_size > 1_000_000
    return file


def test_a_sale_at_the_virtual_terminal_moves_the_wall(signed_in: Watched, served: Served, tmp_path: Path) -> None:
    page = signed_in.page
    page.goto(f"{served.settings.base_url}/terminal/t-012-1")
    screen = page.locator("#screen")
    page.get_by_role("button", name="三明治").click()
    expect(screen.locator("#totals")).to_contain_text("¥12.50")
    page.locator("#photo").set_input_files(portrait(tmp_path))
    page.get_by_role("button", name="Yes").click()
    expect(screen.locator("#greeting")).to_have_text("Hello, 张*")
    page.get_by_role("button", name="Cash", exact=True).click()
    expect(screen).to_have_attribute("data-state", "paid")
    expect(screen.locator("#receipt")).to_contain_text("谢谢惠顾")
    page.get_by_role("button", name="矿泉水").click()
    expect(screen).to_have_attribute("data-state", "quoted")
    expect(screen.locator("#totals")).to_contain_text("¥2.00")
    page.goto(f"{served.settings.base_url}/wall?store=s-012")
    expect(page.locator("#figure-sales")).to_have_text("1")
    expect(page.locator("#figure-takings")).to_have_text("¥12.50")


def test_the_camera_sends_a_frame(signed_in: Watched, served: Served) -> None:
    page = signed_in.page
    page.goto(f"{served.settings.base_url}/terminal/t-013-1")
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take and send").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#greeting")).to_have_text("Hello, 张*")


def test_without_consent_no_face_is_sent(signed_in: Watched, served: Served, tmp_path: Path) -> None:
    page = signed_in.page
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.goto(f"{served.settings.base_url}/terminal/t-014-1")
    page.locator("#photo").set_input_files(portrait(tmp_path))
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.locator("#log")).to_contain_text('"granted":false')
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")
    assert not [url for url in sent if url.endswith("/faces")]


def test_the_screen_follows_the_other_terminals_of_the_lane(signed_in: Watched, served: Served) -> None:
    page, base = signed_in.page, served.settings.base_url
    page.goto(f"{base}/terminal/t-015-1")
    other = page.context.new_page()
    other.goto(f"{base}/terminal/t-015-1")
    other.get_by_role("button", name="咖啡").click()
    expect(page.locator("#totals")).to_contain_text("¥18.00")


@pytest.mark.parametrize(
    "path", ["/members", "/payments", "/stores", "/terminals", "/switches", "/system", "/api/v1/docs"]
)
def test_every_page_opens_without_a_complaint(signed_in: Watched, served: Served, path: str) -> None:
    signed_in.page.goto(served.settings.base_url + path)
    if path.endswith("docs"):
        expect(signed_in.page.get_by_text("/api/v1/memberships/{membership}/explain")).to_be_visible()
    else:
        expect(signed_in.page.locator("h1")).to_be_visible()


def test_a_narrow_page_does_not_scroll_sideways(served: Served, chromium: Browser) -> None:
    context = chromium.new_context(locale="zh-CN", viewport={"width": 390, "height": 780}, color_scheme="dark")
    try:
        watched = watch(context, served.settings.base_url)
        page = watched.page
        page.goto(served.login_link())
        shown = ("/wall", "/members", "/payments", "/stores", "/terminals", "/switches", "/system", "/terminal/t-001-1")
        for path in shown:
            page.goto(served.settings.base_url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert page.evaluate("document.documentElement.lang") == "zh-CN"
        assert watched.troubles == []
    finally:
        context.close()


def test_signing_out_leads_to_the_door(console: Watched) -> None:
    console.page.get_by_role("button", name="Sign out").click()
    expect(console.page).to_have_url(re.compile("/login$"))
    console.page.goto(console.page.url.replace("/login", "/wall"))
    expect(console.page).to_have_url(re.compile("/login$"))


@pytest.mark.soak
def test_a_terminal_s_liveness_key_is_registered_and_revoked_on_its_page(signed_in: Watched, served: Served) -> None:
    page = signed_in.page
    page.goto(served.login_link())
    with psycopg.connect(served.database_url, autocommit=True) as conn:
        conn.execute("UPDATE terminal SET profile = 'dragonfly-2', role = 'face' WHERE id = 't-008-1'")
    page.goto(f"{served.settings.base_url}/terminals/t-008-1")
    card, key = page.locator("#liveness-keys"), LivenessKey.make().public
    card.locator("input[name=key]").fill(show_public_key(key))
    card.locator("form button").click()
    expect(card).to_contain_text(fingerprint(key))
    page.on("dialog", lambda dialog: dialog.accept())
    card.locator("[data-revoke]").click()
    expect(card.locator("[data-revoke]")).to_have_count(0)
    expect(card).to_contain_text("console:")
