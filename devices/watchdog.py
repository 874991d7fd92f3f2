"""A stuck terminal restarts itself, and says why in the health of its next report.

Two ways to be stuck: the event loop does not turn (something blocks it), which a thread sees from outside; or the
agent is connected and hears no reply for long, which it sees itself (`devices.duties`).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from devices.durable import write_whole

BLOCKED_S_MAX = 30.0
BEATS_A_LIMIT = 4

Restart = Callable[[str], None]


class LoopWatch:
    """Restarts when the event loop has not turned for `blocked_s_max`. Its thread needs nothing of the loop."""

    def __init__(self, note: Path, restart: Restart, *, blocked_s_max: float = BLOCKED_S_MAX) -> None:
        """`restart` is called once, on the watching thread, after the reason is on the disk in `note`."""
        self._note = note
        self._restart = restart
        self._limit_s = blocked_s_max
        self._beat = 0.0
        self._over = threading.Event()
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch the running loop."""
        self._beat = time.monotonic()
        self._beating = asyncio.get_running_loop().create_task(self._beats(), name="heartbeat")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """The loop ends in order."""
        self._over.set()
        if self._beating is not None:
            self._beating.cancel()

    async def _beats(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(self._limit_s / BEATS_A_LIMIT)

    def _watch(self) -> None:
        while not self._over.wait(self._limit_s / BEATS_A_LIMIT):
            stuck_s = time.monotonic() - self._beat
            if stuck_s > self._limit_s:
                reason = f"the event loop did not turn for {stuck_s:.0f} s"
                note_restart(self._note, reason)
                self._restart(reason)
                return


def note_restart(note: Path, reason: str) -> None:
    """Leave the reason of a restart for the next boot. Blocking."""
    document = {"reason": reason[:200], "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_whole(note, json.dumps(document).encode())


def last_restart(note: Path) -> dict[str, str] | None:
    """Why the boot before this one ended, if it said so; the note is taken away."""
    try:
        document = json.loads(note.read_bytes())
        note.unlink()
        return {"reason": str(document["reason"])[:200], "at": str(document["at"])[:40]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
