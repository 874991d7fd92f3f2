"""The terminal's outbox: every event is kept until its reply, on disk, through a kill -9.

SQLite in WAL mode; commits are batched (50 ms or 100 rows), and an entry that is money is on disk before it is sent.
Bounded by bytes and age, in all and for each class: when full, the oldest telemetry goes first, then new face payments
and other new questions are refused; money is never dropped and never refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from models.domain.errors import RetryLater
from models.domain.ids import MessageId

COMMIT_EVERY_S = 0.05
COMMIT_ROWS_MAX = 100
DISK_RETRY_S = 1.0
OUTBOX_BYTES_MAX = 16 * 1024 * 1024
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
  place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, class TEXT NOT NULL, stored_at REAL NOT NULL, bytes BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


class EntryClass(StrEnum):
    """What may happen to an entry when space or time runs out."""

    TELEMETRY = "telemetry"
    QUESTION = "question"
    """Scans, consents, payments still to be made: refused when full, out of date after a day."""
    MONEY = "money"
    """Money that was taken or given back: never dropped, never refused."""


AGE_MAX: Mapping[EntryClass, timedelta] = {
    EntryClass.TELEMETRY: timedelta(seconds=60),
    EntryClass.QUESTION: timedelta(hours=24),
}
"""As long as the protocol lets the broker keep the same message. Money has no age."""

CLASS_BYTES_MAX: Mapping[EntryClass, int] = {
    EntryClass.TELEMETRY: 1024 * 1024,
    EntryClass.QUESTION: 12 * 1024 * 1024,
}
"""So that neither losable figures nor a jammed scanner take the room that money will need."""

_MONEY_TYPES = frozenset({"paid", "sale", "return", "void", "lease.end"})


def class_of(event_type: str) -> EntryClass:
    """The class of an event by its type."""
    return EntryClass.MONEY if event_type in _MONEY_TYPES else EntryClass.QUESTION


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """The bytes of one event exactly as they were first sent."""

    id: MessageId
    kind: EntryClass
    payload: bytes
    stored_at: datetime


class OutboxFull(RetryLater):
    """No room for another question; nothing was stored."""


class Outbox:
    """The entries without a reply, in memory and on disk. All calls on one event loop."""

    def __init__(
        self,
        path: Path | None,
        *,
        bytes_max: int = OUTBOX_BYTES_MAX,
        class_bytes_max: Mapping[EntryClass, int] = CLASS_BYTES_MAX,
        executor: Executor | None = None,
    ) -> None:
        """`path` None keeps everything in memory. `executor` runs the disk work: one thread of it at a time."""
        self._path = path
        self._bytes_max = bytes_max
        self._class_bytes_max = class_bytes_max
        self._class_bytes = dict.fromkeys(EntryClass, 0)
        self._own_executor = executor is None
        self._executor = executor or ThreadPoolExecutor(1, "outbox")
        self._entries: dict[MessageId, OutboxEntry] = {}
        self._settings: dict[str, str] = {}
        self._bytes = 0
        self._operations: list[tuple[str, tuple[Any, ...]]] = []
        self._writing = asyncio.Lock()
        self._full = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None
        self._db: sqlite3.Connection | None = None
        self.dropped_entries = 0
        self.refused_entries = 0
        self.commits = 0
        self.disk_errors = 0

    async def open(self) -> None:
        """Read what an earlier process left."""
        loop = asyncio.get_running_loop()
        self._db = await loop.run_in_executor(self._executor, self._open)
        rows, settings = await loop.run_in_executor(self._executor, self._read, self._db)
        for entry in rows:
            self._keep(entry)
        self._settings.update(settings)

    async def close(self) -> None:
        """Write what is waiting, and close."""
        if self._timer is not None:
            self._timer.cancel()
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                await self.flush()
            await asyncio.get_running_loop().run_in_executor(self._executor, self._db.close)
            self._db = None
        if self._own_executor:
            self._executor.shutdown()

    def entries(self) -> list[OutboxEntry]:
        """Everything without a reply, oldest first."""
        return list(self._entries.values())

    @property
    def bytes_stored(self) -> int:
        """Payload bytes held."""
        return self._bytes

    async def put(self, entry: OutboxEntry) -> None:
        """Keep an entry. Returns at once for a question; for money when it is on disk.

        Raises OutboxFull for a question when neither age nor dropped telemetry makes room.
        """
        self._make_room(entry)
        self._keep(entry)
        self._later(
            "INSERT OR IGNORE INTO entry (id, class, stored_at, bytes) VALUES (?, ?, ?, ?)",
            (entry.id, entry.kind.value, entry.stored_at.timestamp(), entry.payload),
        )
        if entry.kind is EntryClass.MONEY:
            # Money is sent even when the disk refuses: what the server has is safer than what we have.
            with contextlib.suppress(sqlite3.Error):
                await self.flush()

    def remove(self, message_id: MessageId) -> None:
        """Its reply came. Unknown ids are ignored."""
        entry = self._entries.pop(message_id, None)
        if entry is not None:
            self._bytes -= len(entry.payload)
            self._class_bytes[entry.kind] -= len(entry.payload)
            self._later("DELETE FROM entry WHERE id = ?", (message_id,))

    def drop_old(self, now: datetime) -> list[OutboxEntry]:
        """Drop what is out of date; returns what was dropped. Money never is."""
        old = [
            entry
            for entry in self._entries.values()
            if entry.kind in AGE_MAX and now - entry.stored_at > AGE_MAX[entry.kind]
        ]
        for entry in old:
            self.dropped_entries += 1
            self.remove(entry.id)
        return old

    def setting(self, name: str) -> str | None:
        """A small value kept beside the entries."""
        return self._settings.get(name)

    def set_setting(self, name: str, value: str) -> None:
        """Keep a small value; on disk with the next commit."""
        self._settings[name] = value
        self._later("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    async def flush(self) -> None:
        """Return when everything that was put, removed or set before is on disk.

        Raises sqlite3.Error when the disk refuses; nothing is forgotten then, a later flush writes it.
        """
        async with self._writing:
            operations, self._operations = self._operations, []
            if not operations or self._db is None:
                return
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._write, self._db, operations)
            except sqlite3.Error:
                self.disk_errors += 1
                self._operations = operations + self._operations
                raise
            self.commits += 1

    # ------------------------------------------------------------ within

    def _keep(self, entry: OutboxEntry) -> None:
        self._entries[entry.id] = entry
        self._bytes += len(entry.payload)
        self._class_bytes[entry.kind] += len(entry.payload)

    def _make_room(self, entry: OutboxEntry) -> None:
        if self._over(entry) <= 0:
            return
        self.drop_old(entry.stored_at)
        for old in [old for old in self._entries.values() if old.kind is EntryClass.TELEMETRY]:
            if self._over(entry) <= 0:
                return
            self.dropped_entries += 1
            self.remove(old.id)
        if self._over(entry) > 0 and entry.kind is not EntryClass.MONEY:
            self.refused_entries += 1
            raise OutboxFull(
                "outbox_full",
                f"{self._bytes} bytes wait for the server, {self._bytes_max} is the most",
                "take cash, and check the network",
            )

    def _over(self, entry: OutboxEntry) -> int:
        """Bytes too many if this entry were kept: in all, or of its class."""
        size = len(entry.payload)
        class_max = self._class_bytes_max.get(entry.kind, self._bytes_max)
        return max(self._bytes + size - self._bytes_max, self._class_bytes[entry.kind] + size - class_max)

    def _later(self, statement: str, values: tuple[Any, ...]) -> None:
        self._operations.append((statement, values))
        if len(self._operations) >= COMMIT_ROWS_MAX:
            self._full.set()
        if self._timer is None or self._timer.done():
            self._timer = asyncio.get_running_loop().create_task(self._commit_soon())

    async def _commit_soon(self) -> None:
        while self._operations:
            self._full.clear()
            if len(self._operations) < COMMIT_ROWS_MAX:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), COMMIT_EVERY_S)
            try:
                await asyncio.shield(self.flush())
            except sqlite3.Error:
                # A full or broken disk: memory still holds everything; try again, not in a tight circle.
                await asyncio.sleep(DISK_RETRY_S)

    # On the executor's thread:

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path or ":memory:", check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
        return db

    @staticmethod
    def _read(db: sqlite3.Connection) -> tuple[list[OutboxEntry], dict[str, str]]:
        entries = [
            OutboxEntry(MessageId(row[0]), EntryClass(row[1]), row[3], datetime.fromtimestamp(row[2], UTC))
            for row in db.execute("SELECT id, class, stored_at, bytes FROM entry ORDER BY place")
        ]
        return entries, dict(db.execute("SELECT name, value FROM setting"))

    @staticmethod
    def _write(db: sqlite3.Connection, operations: list[tuple[str, tuple[Any, ...]]]) -> None:
        try:
            db.execute("BEGIN IMMEDIATE")
            for statement, values in operations:
                db.execute(statement, values)
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
