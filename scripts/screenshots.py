"""The pictures of the READMEs, from a real demonstration: `make screenshots` writes docs/images/*.png anew.

Starts a demonstration of its own in a folder of its own, watches the story in Debian's Chromium, and ends it.
"""

from __future__ import annotations

import argparse
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
STOREOPS = Path(sys.executable).with_name("storeops")
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
VIEWPORT = {"width": 1280, "height": 800}
STORY_S_MAX = 600.0
IMAGE_BYTES_MAX = 300_000

SIGN_IN = re.compile(r"sign in, once.*?(http://\S+)")
LAST_SALE = re.compile(r"at the till of")
TOLD = re.compile(r"the story is told")
ENDED = "(ended)"


class Demonstration:
    """A demonstration in the background; its chatter is read line by line."""

    def __init__(self, data: Path) -> None:
        command = [str(STOREOPS), "demo", "--reset", "--data", str(data)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            sys.stderr.write(line)
            self._lines.put(line)
        self._lines.put(ENDED)

    def wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """The first line that matches. Raises RuntimeError when the demonstration ends before, or takes too long."""
        deadline = time.monotonic() + STORY_S_MAX
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=1.0)
            except queue.Empty:
                continue
            if line == ENDED:
                break
            found = pattern.search(line)
            if found:
                return found
        raise RuntimeError(f"the demonstration never said {pattern.pattern!r}")

    def stop(self) -> None:
        """Ctrl-C, and wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)
        self._reader.join(timeout=5)


def shoot(page: Page, name: str) -> None:
    """Write one picture and hold it against its bound."""
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    size = path.stat().st_size
    sys.stderr.write(f"{path.relative_to(ROOT)}  {size // 1024} KiB\n")
    if size > IMAGE_BYTES_MAX:
        raise RuntimeError(f"{path} has {size} bytes, at most {IMAGE_BYTES_MAX} are meant")


def wall_pages(context: BrowserContext, base: str) -> dict[str, Page]:
    """The wall in both languages, open side by side and live."""
    pages = {}
    for language in ("zh", "en"):
        page = context.new_page()
        page.goto(f"{base}/language/{language}?back=/wall")
        page.locator("#live[data-state=live]").wait_for()
        pages[language] = page
    return pages


def charge_explained(page: Page, base: str, language: str) -> None:
    """The member who used one coupon of 8.00 under a fee of 10.00, with the sentence and the postings."""
    page.goto(f"{base}/language/{language}?back=/members")
    row = page.locator("tbody tr", has_text="¥8.00 / ¥10.00").first
    row.locator("a").first.click()
    page.locator("#drawer-body .sentence").wait_for()
    shoot(page, f"charge-{language}")


def at_the_counter(page: Page, base: str, language: str) -> None:
    """A terminal in the browser: a basket, and what the light membership would save at once."""
    page.goto(f"{base}/language/{language}?back=/terminal/sz-yantian-f2")
    page.locator("[data-do='session.open']").click()
    page.locator("#screen[data-state='open']").wait_for()
    page.locator("[data-code='6901234561098']").click()
    page.locator("#screen[data-state='quoted']").wait_for()
    page.locator("#offers > *").first.wait_for()
    shoot(page, f"terminal-{language}")
    page.locator("[data-do='cancel']").click()


def waits_for_promote(page: Page, base: str, language: str) -> None:
    """The demonstration's rollout: two stores have passed their gate, and somebody may promote it."""
    page.goto(f"{base}/language/{language}?back=/rollouts")
    page.locator("tbody tr a").first.click()
    page.locator("#do-promote").wait_for()
    shoot(page, f"rollout-{language}")


def main() -> None:
    """Start, watch, shoot, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "storeops-screenshots")
    data = parser.parse_args().data
    IMAGES.mkdir(parents=True, exist_ok=True)
    demonstration = Demonstration(data)
    try:
        link = demonstration.wait_for(SIGN_IN).group(1)
        base = link.partition("/login/")[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            context = browser.new_context(viewport=VIEWPORT, locale="en-GB", timezone_id="Asia/Shanghai")
            context.new_page().goto(link)
            walls = wall_pages(context, base)
            demonstration.wait_for(LAST_SALE)
            for language, page in walls.items():
                page.bring_to_front()
                page.wait_for_timeout(500)
                shoot(page, f"wall-{language}")
            demonstration.wait_for(TOLD)
            for language, page in walls.items():
                charge_explained(page, base, language)
                at_the_counter(page, base, language)
                waits_for_promote(page, base, language)
            browser.close()
    finally:
        demonstration.stop()


if __name__ == "__main__":
    main()
