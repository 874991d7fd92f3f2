"""The outbox keeps what has no reply: through a kill -9, inside its bounds, and money always."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devices.outbox import COMMIT_ROWS_MAX, EntryClass, Outbox, OutboxEntry, OutboxFull, class_of
from models.domain.ids import MessageId

NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)


def entry(name: str, kind: EntryClass = EntryClass.QUESTION, size: int = 10, at: datetime = NOW) -> OutboxEntry:
    return OutboxEntry(MessageId(name), kind, name.encode().ljust(size, b"."), at)


@asynccontextmanager
async def opened(path: Path | None, bytes_max: int = 1_000_000) -> AsyncIterator[Outbox]:
    outbox = Outbox(path, bytes_max=bytes_max)
    await outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


def stored(path: Path) -> list[str]:
    with sqlite3.connect(path) as db:
        rows = [row[0] for row in db.execute("SELECT id FROM entry ORDER BY place")]
    db.close()
    return rows


async def test_entries_and_settings_outlive_the_process_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "outbox.db"
    async with opened(path) as outbox:
        for name in ("a", "b", "c"):
            await outbox.put(entry(name))
        outbox.remove(MessageId("b"))
        outbox.remove(MessageId("unknown"))
        outbox.set_setting("applied_gen", "3")
    async with opened(path) as outbox:
        assert outbox.entries() == [entry("a"), entry("c")]
        assert outbox.bytes_stored == 20
        assert outbox.setting("applied_gen") == "3"


async def test_money_is_on_disk_when_put_returns_and_questions_within_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        await outbox.put(entry("question"))
        assert stored(path) == []
        await outbox.put(entry("money", EntryClass.MONEY))
        assert stored(path) == ["question", "money"]
        for n in range(COMMIT_ROWS_MAX * 3):
            await outbox.put(entry(f"q{n}"))
        async with asyncio.timeout(30):
            while len(stored(path)) < COMMIT_ROWS_MAX * 3 + 2:  # noqa: ASYNC110 - another thread writes the file
                await asyncio.sleep(0.01)
        assert outbox.commits <= 5


async def test_when_full_telemetry_goes_first_then_questions_are_refused_and_money_never() -> None:
    async with opened(None, bytes_max=100) as outbox:
        await outbox.put(entry("t1", EntryClass.TELEMETRY, 40))
        await outbox.put(entry("t2", EntryClass.TELEMETRY, 40))
        await outbox.put(entry("q1", size=60))
        assert [kept.id for kept in outbox.entries()] == ["t2", "q1"]
        await outbox.put(entry("q2", size=40))
        with pytest.raises(OutboxFull) as caught:
            await outbox.put(entry("q3", size=1))
        assert caught.value.do
        await outbox.put(entry("m1", EntryClass.MONEY, 60))
        assert [kept.id for kept in outbox.entries()] == ["q1", "q2", "m1"]
        assert (outbox.dropped_entries, outbox.refused_entries, outbox.bytes_stored) == (2, 1, 160)
        outbox.remove(MessageId("m1"))
        outbox.remove(MessageId("q1"))
        await outbox.put(entry("q3", size=60))


async def test_age_drops_questions_after_a_day_and_money_never() -> None:
    async with opened(None) as outbox:
        for name, kind in (("t", EntryClass.TELEMETRY), ("q", EntryClass.QUESTION), ("m", EntryClass.MONEY)):
            await outbox.put(entry(name, kind))
        assert [old.id for old in outbox.drop_old(NOW + timedelta(seconds=61))] == ["t"]
        assert outbox.drop_old(NOW + timedelta(hours=24)) == []
        assert [old.id for old in outbox.drop_old(NOW + timedelta(days=400))] == ["q"]
        assert [kept.id for kept in outbox.entries()] == ["m"]


def test_what_is_money() -> None:
    assert {class_of(name) for name in ("paid", "sale", "return", "void")} == {EntryClass.MONEY}
    assert {class_of(name) for name in ("scan", "confirm", "enrol")} == {EntryClass.QUESTION}


async def test_a_disk_that_refuses_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with opened(path) as outbox:
        blocker = sqlite3.connect(path, timeout=0)
        assert outbox._db is not None
        outbox._db.execute("PRAGMA busy_timeout = 0")
        blocker.execute("BEGIN IMMEDIATE")
        await outbox.put(entry("m", EntryClass.MONEY))
        assert outbox.disk_errors >= 1
        assert [kept.id for kept in outbox.entries()] == ["m"]
        blocker.execute("ROLLBACK")
        blocker.close()
        await outbox.flush()
        assert stored(path) == ["m"]


CHILD = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from devices.outbox import EntryClass, Outbox, OutboxEntry
from models.domain.ids import MessageId

async def main():
    outbox = Outbox(Path(sys.argv[1]))
    await outbox.open()
    for n in range(100_000):
        await outbox.put(OutboxEntry(MessageId(f"m{n}"), EntryClass.MONEY, b"paid", datetime.now(UTC)))
        print(f"m{n}", flush=True)

asyncio.run(main())
"""


def promises_of_a_killed_process(path: Path) -> list[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    promised = [child.stdout.readline().strip() for _ in range(20)]
    os.kill(child.pid, signal.SIGKILL)
    promised += child.stdout.read().split()
    child.stdout.close()
    child.wait()
    return promised


async def test_what_put_promised_survives_a_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    promised = await asyncio.to_thread(promises_of_a_killed_process, path)
    async with opened(path) as outbox:
        kept = [kept.id for kept in outbox.entries()]
    assert kept[: len(promised)] == promised
    assert len(kept) <= len(promised) + 1
