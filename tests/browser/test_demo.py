"""The demonstration as its first user sees it: the wall, a member recognised, a charge explained."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from models.domain.errors import NeedsOperator
from runtime.photos import fetch_wheel
from runtime.settings import CONFIGS

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(240)]

WHEEL_DIR = CONFIGS.parent / "var" / "photos"
STORY_S_MAX = 180.0
STOP_S_MAX = 30.0
"""A bound for a busy machine, not the promise: the two seconds of Ctrl-C are a benchmark."""


@dataclass
class Demo:
    """A running demonstration and what it said so far."""

    process: subprocess.Popen[str]
    data: Path
    lines: list[str] = field(default_factory=list)
    said: threading.Condition = field(default_factory=threading.Condition)

    def listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.said:
                self.lines.append(line)
                self.said.notify_all()
        with self.said:
            self.said.notify_all()

    def wait_for(self, pattern: str, timeout_s: float = STORY_S_MAX) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        with self.said:
            while True:
                found = re.search(pattern, "".join(self.lines))
                if found:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, "".join(self.lines)
                assert self.process.poll() is None, "".join(self.lines)
                self.said.wait(min(left, 1.0))


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    try:
        fetch_wheel(WHEEL_DIR)
    except NeedsOperator as error:
        pytest.skip(f"no photographs: {error.message}")
    # Not below pytest's own folder: it is closed to the user that runs the database.
    data = Path(tempfile.mkdtemp(prefix="so-demo-"))
    data.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime", "demo", "--data", str(data / "house")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "400"},
    )
    running = Demo(process, data / "house")
    listener = threading.Thread(target=running.listen, daemon=True)
    listener.start()
    try:
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_S_MAX)
        listener.join(STOP_S_MAX)
        assert process.stderr is not None
        process.stderr.close()
        shutil.rmtree(data, ignore_errors=True)


def test_a_first_user_sees_a_member_recognised_and_a_charge_explained(demo: Demo, chromium: Browser) -> None:
    link = demo.wait_for(r"http://\S+/login/\S+").group(0)
    with chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-US") as context:
        page = context.new_page()
        foreign: list[str] = []
        page.on("request", lambda request: None if "127.0.0.1" in request.url else foreign.append(request.url))
        page.goto(link)
        expect(page.get_by_role("heading", name="The wall")).to_be_visible(timeout=60_000)
        demo.wait_for("the story is told · everything holds")

        # Person 1 walks up to a terminal in the browser and is greeted by the phone's last digits.
        page.goto(page.url.split("/wall")[0] + "/terminal/zs-shiqi-f2")
        page.locator("[data-do='session.open']").click()
        expect(page.locator("#screen")).to_have_attribute("data-state", "open")
        probe = next((demo.data / "faces").glob("photographs-*/person-1/probe-*.jpg"))
        page.locator("#photo").set_input_files(str(probe))
        page.locator("#consent button[value='grant']").click()
        expect(page.locator("#greeting")).to_contain_text("0001", timeout=15_000)

        # The member who used one coupon pays 8.00, and the page says why.
        page.goto(page.url.split("/terminal")[0] + "/members")
        page.get_by_role("row").filter(has_text="¥8.00 / ¥10.00").get_by_role("link").first.click()
        sentence = "You enjoyed 8.00, less than the fee of 10.00: you pay 8.00"
        expect(page.get_by_text(sentence).first).to_be_visible()
        assert foreign == []
