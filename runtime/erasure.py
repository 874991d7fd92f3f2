"""Forgetting a face: templates out of every gallery, keys destroyed, the proof in the audit, in one transaction.

From that commit on nobody opens what was stored, as long as no copy of the wrapped keys is kept. `scrub` takes them,
and the ciphertext, out of the database's own files and write-ahead log; `storeops faces rekey` out of its copies.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection, errors
from psycopg.sql import SQL, Identifier

from models.domain.ids import ChainId, MemberId
from models.domain.privacy import Detail
from models.tables.keys import destroy_keys, key_parts
from models.tables.privacy import audit
from models.tables.templates import remove_member, template_parts

ERASED, SCRUBBED = "face_erased", "faces_scrubbed"
"""Kinds of events in the audit."""

SCRUB_LOCK_KEY = 0x5343525542  # "SCRUB"
LOCK_WAIT_S = 0.5
"""How long a table's readers may have to queue behind a rewrite that waits for its lock."""
TRIES_S_MAX = 10.0
"""Hosts' transactions end within 2 s; who keeps one open for longer is waited for so long."""
REWRITE_BYTES_MAX = 64 * 1024 * 1024
"""A part of the templates beyond it (about 1,300,000 templates in all) is not written anew: its writers would wait
longer than a host's statement may take."""
SEGMENT_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Erased:
    """How many templates and keys there were, and the audit event's digest. Again: 0, 0 and no proof."""

    templates: int
    keys: int
    proof: str


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """Steps that were done; what is left, each with what a person has to do; milliseconds. Nothing to scrub: empty."""

    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    took_ms: int = 0


async def erase_member(
    conn: AsyncConnection[Any], chain: ChainId, member: MemberId, at: datetime, reason: str, by: str
) -> Erased:
    """Delete a member's templates and destroy the keys; every gallery has lost them within a second of the commit.

    Inside the caller's transaction, as a late step (the audit waits for other writers). `at`: wall time.
    """
    templates = await remove_member(conn, chain, member)
    keys = await destroy_keys(conn, member)
    if not templates and not keys:
        return Erased(0, 0, "")
    detail: Detail = {
        "chain": chain,
        "reason": reason,
        "templates": len(templates),
        "keys": len(keys),
        "parts": sorted({*keys, *templates}),
    }
    event = await audit(conn, ERASED, member, detail, by, at)
    return Erased(len(templates), len(keys), event.sha256)


async def scrub(url: str, *, always: bool = False) -> Scrubbed:
    """Make erased rows leave the database's files and log. Nothing when nothing was erased since (unless `always`).

    The parts of the tables of keys and templates that held them are written anew (an eighth of the keys, a sixteenth of
    the templates waits for each); a fresh segment of the write-ahead log is begun and the older ones are removed.
    What this role or server does not allow is in `left` and in the audit, never raised. Callers wait for one another.
    """
    began = time.monotonic()
    async with _alone(url) as conn:
        upto = await _erased_upto(conn)
        since = await _scrubbed_upto(conn)
        if not always and upto <= since:
            return Scrubbed()
        done: list[str] = []
        left: list[str] = []
        templates = await template_parts(conn)
        for part in [*await key_parts(conn), *templates] if always else await _parts_to_rewrite(conn, since):
            if part not in templates or await _is_rewritable(conn, part, left):
                await _rewrite(conn, part, done, left)
        await _leave_log(conn, done, left)
        await _check_copies(conn, left)
        async with conn.transaction():
            detail: Detail = {"upto": 0 if _again(left) else upto, "done": done, "left": left}
            await audit(conn, SCRUBBED, "", detail, "scrub", datetime.now(UTC))
        return Scrubbed(tuple(done), tuple(left), round((time.monotonic() - began) * 1000))


_RETRY = "scrub again: "


def _again(left: list[str]) -> bool:
    return any(one.startswith(_RETRY) for one in left)


@asynccontextmanager
async def _alone(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as conn:
        await conn.execute("SELECT pg_advisory_lock(%s)", (SCRUB_LOCK_KEY,))
        yield conn


async def _erased_upto(conn: AsyncConnection[Any]) -> int:
    return await _number(conn, "SELECT coalesce(max(n), 0) FROM audit_event WHERE kind = %s", (ERASED,))


async def _scrubbed_upto(conn: AsyncConnection[Any]) -> int:
    """The last erasure that a scrub saw committed when it began: a later one may have a lower number than its event."""
    sql: LiteralString = "SELECT coalesce((SELECT max((detail->>'upto')::bigint) FROM audit_event WHERE kind = %s), 0)"
    return await _number(conn, sql, (SCRUBBED,))


async def left_by_scrub(conn: AsyncConnection[Any]) -> list[str]:
    """What the last scrub could not do, each with what a person has to do."""
    cursor = await conn.execute(
        "SELECT detail->'left' FROM audit_event WHERE kind = %s ORDER BY n DESC LIMIT 1", (SCRUBBED,)
    )
    row = await cursor.fetchone()
    return list(row[0]) if row is not None else []


# ---------------------------------------------------------------- files


async def _parts_to_rewrite(conn: AsyncConnection[Any], since: int) -> list[str]:
    cursor = await conn.execute(
        """SELECT DISTINCT part FROM audit_event, jsonb_array_elements_text(detail->'parts') AS part
           WHERE kind = %s AND n > %s ORDER BY part""",
        (ERASED, since),
    )
    return [row[0] for row in await cursor.fetchall()]


async def _is_rewritable(conn: AsyncConnection[Any], part: str, left: list[str]) -> bool:
    """A part of the templates that is too large is cleared for new rows alone, and named."""
    size = await _number(conn, "SELECT pg_table_size(%s::regclass)", (part,))
    if size <= REWRITE_BYTES_MAX:
        return True
    await conn.execute(SQL("VACUUM {}").format(Identifier(part)))
    left.append(
        f"{part} has {size >> 20} MiB; its free space may hold ciphertext whose keys are destroyed."
        f" In a quiet hour: VACUUM FULL {part}"
    )
    return False


async def _rewrite(conn: AsyncConnection[Any], table: str, done: list[str], left: list[str]) -> None:
    """A new file with the live rows alone. A row that an older transaction still sees would come along, so try again
    until none does."""
    kept: list[int] = []
    conn.add_notice_handler(lambda diagnostic: kept.extend(_dead_kept(diagnostic.message_detail)))
    deadline = time.monotonic() + TRIES_S_MAX
    await conn.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
    while True:
        kept.clear()
        try:
            await conn.execute(SQL("VACUUM (FULL, VERBOSE) {}").format(Identifier(table)))
            if not any(kept):
                done.append(f"{table} written anew")
                break
            why = "an older transaction still sees its deleted rows"
        except errors.LockNotAvailable:
            why = "somebody keeps it locked"
        if time.monotonic() > deadline:
            left.append(f"{_RETRY}{table} was not written anew, {why}")
            break
        await conn.execute("SELECT pg_sleep(0.2)")
    await conn.execute("RESET lock_timeout")


def _dead_kept(detail: str | None) -> list[int]:
    """`3 dead row versions cannot be removed yet.`, in whatever language the server speaks."""
    number = re.match(r"\D*(\d+)", detail or "")
    return [int(number[1])] if number else []


# ---------------------------------------------------------------- the write-ahead log


async def _leave_log(conn: AsyncConnection[Any], done: list[str], left: list[str]) -> None:
    """Begin a segment, checkpoint: every older segment is removed, where the server does not use it again."""
    if not await _next_segment(conn):
        left.append("the write-ahead log's segment could not be left; as a superuser: SELECT pg_switch_wal()")
    try:
        await conn.execute("CHECKPOINT")
    except errors.InsufficientPrivilege:
        left.append("older segments of the write-ahead log stay until a checkpoint; GRANT pg_checkpoint to this role")
        return
    if await _setting(conn, "wal_recycle") == "off":
        done.append("older segments of the write-ahead log removed")
    else:
        left.append("used segments of the write-ahead log are kept for use again: set wal_recycle = off")


async def _next_segment(conn: AsyncConnection[Any]) -> bool:
    try:
        await conn.execute("SELECT pg_switch_wal()")
    except errors.InsufficientPrivilege:  # anybody may fill a segment up, instead
        size = await _number(conn, "SELECT pg_size_bytes(current_setting('wal_segment_size'))")
        if size > SEGMENT_BYTES_MAX:
            return False
        filling = "SELECT pg_logical_emit_message(false, 'scrub', repeat(' ', 1048576)) FROM generate_series(1, %s)"
        await conn.execute(filling, (1 + size // 1048576,))
    return True


async def _check_copies(conn: AsyncConnection[Any], left: list[str]) -> None:
    """What takes the log elsewhere."""
    if await _setting(conn, "archive_mode") not in ("", "off"):
        left.append("the archive of the write-ahead log keeps wrapped keys: storeops faces rekey ends what they open")
    if await _number(conn, "SELECT count(*) FROM pg_replication_slots"):
        left.append("replicas and slots keep the log: scrub again once they have caught up, and storeops faces rekey")


async def _number(conn: AsyncConnection[Any], sql: LiteralString, values: tuple[Any, ...] = ()) -> int:
    row = await (await conn.execute(sql, values)).fetchone()
    assert row is not None
    return int(row[0])


async def _setting(conn: AsyncConnection[Any], name: str) -> str:
    row = await (await conn.execute("SELECT coalesce(current_setting(%s, true), '')", (name,))).fetchone()
    assert row is not None
    return str(row[0])
