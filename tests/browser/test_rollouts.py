"""Rollouts in a real browser: a stage is promoted by somebody else, and a new one is previewed, mended and started."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.auth import make_login_link
from models.domain.kill_switch import Scope, ScopeKind
from models.domain.permissions import Grant, Permission
from runtime.permissions_cli import change_everywhere
from runtime.postgres import sqlalchemy_url
from tests.browser.conftest import Served, Watched, watch
from tests.browser.rollout_rows import CHAIN, begin, connect_terminals

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

PERMISSIONS = (Permission.ROLLOUT_CREATE, Permission.ROLLOUT_PROMOTE, Permission.ROLLOUT_HALT)


@pytest.fixture(scope="module")
def people(served: Served) -> None:
    """ann and bob may do everything with rollouts; every terminal is connected."""
    connect_terminals(served.database_url)

    async def grant() -> None:
        for person in ("ann", "bob"):
            for one in PERMISSIONS:
                given = Grant(person, one, Scope(ScopeKind.CHAIN, CHAIN))
                await change_everywhere([served.database_url], given, True, "test")

    asyncio.run_coroutine_threadsafe(grant(), served.loop).result(30)


@pytest.fixture
def waiting(served: Served, people: None) -> str:
    """The id of a rollout of ann's that waits for somebody else."""
    made = begin(served.database_url, 40, flag="sound.browsed")
    return asyncio.run_coroutine_threadsafe(made, served.loop).result(30)


@pytest.fixture
def sign_in(served: Served, chromium: Browser) -> Iterator[SignIn]:
    made = SignIn(served, chromium)
    yield made
    for watched in made.pages:
        watched.page.context.close()
        assert watched.troubles == []


class SignIn:
    """Opens a browser of a person's own."""

    def __init__(self, served: Served, chromium: Browser) -> None:
        self._served, self._chromium = served, chromium
        self.pages: list[Watched] = []

    def as_(self, person: str, path: str, width: int = 1280, locale: str = "en-GB") -> Page:
        context = self._chromium.new_context(locale=locale, viewport={"width": width, "height": 844})
        watched = watch(context, self._served.settings.base_url)
        self.pages.append(watched)
        link = asyncio.run_coroutine_threadsafe(self._link(person), self._served.loop).result(15)
        watched.page.goto(link)
        watched.page.goto(self._served.settings.base_url + path)
        return watched.page

    async def _link(self, person: str) -> str:
        engine = create_async_engine(sqlalchemy_url(self._served.database_url), poolclass=NullPool)
        try:
            return await make_login_link(engine, self._served.settings, person=person)
        finally:
            await engine.dispose()


def test_a_stage_waits_for_somebody_else_who_promotes_it(waiting: str, sign_in: SignIn) -> None:
    author = sign_in.as_("ann", f"/rollouts/{waiting}")
    expect(author.locator("#four-eyes")).to_contain_text("You are its author")
    expect(author.get_by_role("button", name="Promote")).to_be_disabled()

    page = sign_in.as_("bob", "/rollouts?state=active")
    row = page.locator("tr", has_text="sound.browsed")
    expect(row).to_contain_text("2 of 2 stores succeeded; waits for approval by somebody other than the author")
    row.get_by_role("link").click()
    pilot = page.get_by_role("listitem", name="Stage 1 · pilot")
    expect(pilot.get_by_role("img", name="Stage pilot: Succeeded 2")).to_be_visible()
    expect(pilot).to_contain_text("at least 100 %")
    page.get_by_label("State").select_option("succeeded")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#targets tbody tr")).to_have_count(6)
    page.locator("#targets tbody a").first.click()
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text('{"sound":{"browsed":40}}')
    expect(drawer.locator(".timeline li")).to_have_count(3)
    page.keyboard.press("Escape")

    page.get_by_text("As a table").click()
    page.get_by_role("button", name="Promote").click()
    page.locator("#ask").get_by_role("button", name="Confirm").click()
    expect(pilot.locator(".badge")).to_have_text("Passed")
    expect(pilot).to_contain_text("approved by console:bob")
    expect(page.get_by_role("table", name="The ladder")).to_be_visible()  # what was opened stays open
    expect(page.locator(".timeline").first).to_contain_text("stage 2 open")
    page.get_by_role("button", name="Roll back").click()
    page.locator("#ask").get_by_role("button", name="Confirm").click()
    expect(page.locator("#ask")).to_be_visible()  # not without a reason
    page.get_by_label("Why", exact=True).fill("too loud")
    page.locator("#ask").get_by_role("button", name="Confirm").click()
    expect(page.locator(".rollout-why")).to_contain_text("rolled back by console:bob: too loud")
    expect(author.locator(".rollout-why")).to_contain_text("too loud")  # whoever watches sees it


def test_a_new_rollout_is_mended_previewed_frozen_and_started(people: None, sign_in: SignIn) -> None:
    page = sign_in.as_("ann", "/rollouts/new", 390, "zh-CN")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("合并补丁（YAML 或 JSON）").fill("sound:\n  made: [40")
    page.get_by_role("button", name="预览").click()
    expect(page.locator("#faults")).to_contain_text("第 2:")
    page.get_by_label("合并补丁（YAML 或 JSON）").fill("sound: {made: 40}")
    page.locator("#rules summary").click()
    rules = page.locator("textarea[name=yaml]")
    document = yaml.safe_load(rules.input_value())
    pilot, several, everybody = document["stages"]
    document["stages"] = [pilot | {"evidence": None}, several | {"stores": 10, "executed_min": 8, "evidence": None}]
    smaller = yaml.safe_dump({**document, "stages": [*document["stages"], everybody]}, sort_keys=False)
    rules.fill(smaller.replace("flaps_max: 2", "flaps_max: often"))
    page.get_by_role("button", name="预览").click()
    fault = page.locator("#faults button")
    expect(fault).to_contain_text(re.compile(r"flaps_max"))
    fault.first.click()
    assert "often" in page.evaluate(
        "window.getSelection().toString() || document.activeElement.value.slice("
        "document.activeElement.selectionStart, document.activeElement.selectionEnd)"
    )
    rules.fill(smaller)
    sign_in.pages[-1].troubles.clear()  # the refusals
    page.get_by_role("button", name="预览").click()
    row = page.locator("#preview tbody tr").nth(1)
    expect(row).to_contain_text("local 10")
    expect(row).to_contain_text("不评估经营指标")
    page.locator("#copy summary").click()
    expect(page.locator("#as-cli")).to_contain_text("""--config '{"sound":{"made":40}}'""")
    digest = page.locator("[data-field=plan_sha256]").inner_text()
    page.get_by_role("button", name="冻结为草稿").click()
    expect(page.locator("#live")).to_contain_text("等待启动")
    expect(page.locator(".facts").first).to_contain_text(digest)
    page.get_by_role("button", name="启动").click()
    page.locator("#ask").get_by_role("button", name="确认").click()
    expect(page.locator("#live .badge").first).to_have_text("进行中")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    first = page.url
    page.goto(page.url.rpartition("/")[0] + "/new")
    page.get_by_label("除外的门店").fill("nowhere")
    page.get_by_label("合并补丁（YAML 或 JSON）").fill("sound: {made: 50}")
    page.get_by_role("button", name="冻结为草稿").click()
    expect(page.locator("#said")).to_contain_text("范围中有写错的名称")  # nobody is left out by a name that is misspelt
    sign_in.pages[-1].troubles.clear()
    page.get_by_label("除外的门店").fill("")
    page.get_by_role("button", name="冻结为草稿").click()
    expect(page.locator("#live .notice")).to_contain_text("sound.made = 40")
    page.get_by_role("button", name="取代并启动").click()
    page.locator("#ask").get_by_role("button", name="确认").click()
    expect(page.locator("#live .badge").first).to_have_text("进行中")
    page.goto(first)
    expect(page.locator("#live .badge").first).to_have_text("已被取代")
