"""What the audit's last event was, kept outside of its database and signed: a chain alone does not miss its own end."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from models.domain.errors import NeedsOperator

EVERY = timedelta(minutes=50)
"""Each sweep, which comes every hour, adds one. What is younger than the last line could be cut off or written anew
unseen. A line has 250 bytes, and there is none while nothing happens: 2 MB a year at most."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A file of one JSON object a line, the newest last; `key` signs each by HMAC-SHA-256."""

    path: Path
    key: bytes

    async def write(self, conn: AsyncConnection[Any], at: datetime) -> bool:
        """Add the audit's last event if it is a new one, at most once in EVERY and database; True: a line was added."""
        cursor = await conn.execute("SELECT n, sha256 FROM audit_event ORDER BY n DESC LIMIT 1")
        head = await cursor.fetchone()
        if head is None:
            return False
        database = await _database(conn)
        return await asyncio.to_thread(self._add, database, head[0], head[1], at)

    async def last(self, conn: AsyncConnection[Any]) -> tuple[int, str] | None:
        """(n, digest) of the newest line of this database; None when there is none. Raises NeedsOperator
        `checkpoint_forged` for a line that the key did not sign."""
        found = await asyncio.to_thread(self._last, await _database(conn))
        return None if found is None else (found["n"], found["sha256"])

    def _add(self, database: str, n: int, digest: str, at: datetime) -> bool:
        last = self._last(database)
        if last is not None and (last["n"] == n or at - datetime.fromisoformat(last["at"]) < EVERY):
            return False
        line = {"database": database, "n": n, "sha256": digest, "at": at.isoformat()}
        text = json.dumps({**line, "hmac_sha256": self._sign(line)}) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return True

    def _last(self, database: str) -> dict[str, Any] | None:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        found: dict[str, Any] | None = None
        for n, line in enumerate(text.splitlines(), start=1):
            try:
                entry = json.loads(line)
                signed = entry.pop("hmac_sha256")
            except (ValueError, KeyError, AttributeError):
                entry, signed = {}, ""
            if not hmac.compare_digest(str(signed), self._sign(entry)):
                raise NeedsOperator(
                    "checkpoint_forged", f"{self.path}: line {n} is not ours", "compare it with a backup of the file"
                )
            if entry["database"] == database:
                found = entry
        return found

    def _sign(self, line: dict[str, Any]) -> str:
        return hmac.new(self.key, json.dumps(line, sort_keys=True).encode(), hashlib.sha256).hexdigest()


async def _database(conn: AsyncConnection[Any]) -> str:
    """The same for every URL of one database: the time of its server's initdb, and its number there."""
    cursor = await conn.execute(
        "SELECT c.system_identifier::text || '/' || d.oid FROM pg_control_system() c, pg_database d"
        " WHERE d.datname = current_database()"
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])
