"""What starts, what is ready and after how many milliseconds, ticked off on stderr."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Language = Literal["en", "zh"]

# key -> (English, Chinese); an unknown key is shown as it is.
LABELS = {
    "console": ("console", "控制台"),
    "database": ("database", "数据库"),
    "migrations": ("migrations", "数据库迁移"),
    "broker": ("broker", "消息代理"),
    "ray": ("Ray", "Ray"),
    "hosts": ("hosts", "门店主机"),
    "faces": ("faces", "人脸识别"),
    "provider": ("provider simulator", "支付方模拟器"),
    "settlement": ("settlement", "结算"),
    "simulator": ("shop simulator", "门店模拟器"),
}
WORDS = {"failed": ("failed", "失败"), "stopped": ("stopped", "已停止"), "stopping": ("stopping", "正在停止")}


def language_of_environment() -> Language:
    """zh when the person's locale is Chinese (LC_ALL, LC_MESSAGES, LANG: the first that is set decides)."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


class Part:
    """One part while it starts; set `detail` to show where it is to be found."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.detail = ""


class Progress:
    """A line for each part. Parts may start at the same time from several threads; `quiet` only measures."""

    def __init__(self, console: Console | None = None, language: Language | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._column = 1 if (language or language_of_environment()) == "zh" else 0
        self._quiet = quiet
        self._lock = threading.Lock()
        self._running: dict[Part, Spinner] = {}
        self._live: Live | None = None
        self.ready_ms: dict[str, int] = {}
        """Milliseconds of each finished part by key, in the order of their end."""

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self._quiet:
            self._console.print(text, markup=False)

    @contextmanager
    def part(self, key: str) -> Iterator[Part]:
        """Shows the part as starting, then as ready with its time; as failed when the block raises."""
        part = Part(LABELS.get(key, (key, key))[self._column])
        began = time.monotonic()
        self._began(part)
        try:
            yield part
        except BaseException:
            self._ended(part, Text("✗", style="bold red"), WORDS["failed"][self._column])
            raise
        milliseconds = round((time.monotonic() - began) * 1000)
        self.ready_ms[key] = milliseconds
        self._ended(part, Text("✓", style="bold green"), f"{milliseconds:>6} ms")

    @contextmanager
    def stopping(self, key: str) -> Iterator[None]:
        """As `part`, for the way down."""
        part = Part(f"{LABELS.get(key, (key, key))[self._column]} {WORDS['stopped'][self._column]}")
        began = time.monotonic()
        try:
            yield
        finally:
            milliseconds = round((time.monotonic() - began) * 1000)
            self._ended(part, Text("■", style="dim"), f"{milliseconds:>6} ms")

    def _began(self, part: Part) -> None:
        if self._quiet:
            return
        with self._lock:
            if not self._console.is_terminal:
                self._console.print(f"… {part.label}", markup=False)
                return
            self._running[part] = Spinner("dots", text=Text(part.label))
            if self._live is None:
                self._live = Live(console=self._console, transient=True, refresh_per_second=10)
                self._live.start()
            self._live.update(self._spinners())

    def _ended(self, part: Part, mark: Text, outcome: str) -> None:
        if self._quiet:
            return
        with self._lock:
            self._running.pop(part, None)
            line = Text.assemble(mark, f" {part.label}", " " * max(1, 22 - Text(part.label).cell_len), outcome)
            if part.detail:
                line.append(f"  {part.detail}", style="dim")
            self._console.print(line, soft_wrap=True)
            if self._live is not None:
                if self._running:
                    self._live.update(self._spinners())
                else:
                    self._live.stop()
                    self._live = None

    def _spinners(self) -> Table:
        table = Table.grid()
        for spinner in self._running.values():
            table.add_row(spinner)
        return table
