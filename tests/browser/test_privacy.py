"""Privacy & audit in a real browser: a request seen, a face erased with a reason, a member's own page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Served, Watched, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

ENROL = """
    INSERT INTO face_template (id, member, chain, store, net_sha256, policy, consent, ciphertext, key_id, kind, at)
    VALUES (%(member)s, %(member)s, 'chain', 's-001', 'net', 'demo', 'c', 'sealed', %(member)s, 'enrolment', now());
    INSERT INTO face_key (id, member, epoch, wrapped, made_at) VALUES (%(member)s, %(member)s, 1, 'wrapped', now());
    INSERT INTO member_consent (id, member, chain, purpose, text, session, store, terminal, given_at, withdrawn_by)
    VALUES (%(member)s, %(member)s, 'chain', 'face_template', 'recognise-1', 'v', 's-001', 't-001-1', now(), '')
"""


def enrolled(served: Served, n: int) -> str:
    """The world's n-th member, with a stored face."""
    with psycopg.connect(served.database_url, autocommit=True) as conn:
        row = conn.execute("SELECT id FROM member ORDER BY id OFFSET %s LIMIT 1", (n,)).fetchone()
        assert row is not None
        with psycopg.ClientCursor(conn) as cursor:
            cursor.execute(ENROL, {"member": row[0]})
        return str(row[0])


def test_the_officer_erases_a_face_with_a_reason_and_the_audit_shows_it(console: Watched, served: Served) -> None:
    member, page = enrolled(served, 0), console.page
    page.get_by_role("link", name="Privacy & audit").click()
    expect(page.get_by_text("Look for a member first")).to_be_visible()
    page.get_by_role("searchbox").fill(member)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("button", name="Erase face").click()
    asked = page.get_by_role("dialog")
    asked.get_by_role("button", name="Confirm").click()
    expect(asked).to_be_visible()  # nothing is done without a reason
    asked.get_by_label("Why?").fill("she asked at the counter")
    asked.get_by_role("button", name="Confirm").click()
    expect(page.locator("#toast")).to_contain_text("Done")
    page.get_by_role("link", name="Requests", exact=True).click()
    row = page.locator("tr", has_text=member)
    expect(row).to_contain_text("she asked at the counter")
    expect(row.locator(".badge")).to_have_text("Done")
    page.get_by_role("link", name="Audit", exact=True).click()
    expect(page.locator("tr", has_text=member)).to_contain_text("Face erased")
    page.get_by_role("button", name="Check the chain").click()
    state = page.locator("#chain-state")
    expect(state).to_contain_text("The audit is whole")
    expect(state).to_contain_text("no checkpoint yet")
    expect(state).to_have_class("notice warn")


def test_a_member_reads_takes_and_withdraws_on_their_own_page(
    served: Served, chromium: Browser, signed_in: Watched, tmp_path: Path
) -> None:
    member, page = enrolled(served, 1), signed_in.page
    page.goto(f"{served.settings.base_url}/privacy?q={member}")
    page.get_by_role("button", name="Link to their page").click()
    link = page.get_by_label("Link to their page").input_value()
    context = chromium.new_context(locale="zh-CN", viewport={"width": 390, "height": 844})
    theirs = watch(context, served.settings.base_url)  # a phone that never signed in
    theirs.page.goto(link)
    expect(theirs.page.get_by_text("个人脸模板")).to_be_visible()
    with theirs.page.expect_download() as saved:
        theirs.page.get_by_role("button", name="下载 JSON").click()
    saved.value.save_as(tmp_path / "mine.json")
    mine = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in mine["profile"]] == [member]
    theirs.page.locator("form[action$=withdraw] input").check()
    theirs.page.get_by_role("button", name="撤回同意并删除人脸").click()
    expect(theirs.page).to_have_url(re.compile("done=withdrawn"))
    expect(theirs.page.get_by_text("没有保存您的人脸")).to_be_visible()
    context.close()
    assert theirs.troubles == []
