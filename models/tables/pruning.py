"""What a host forgets of the messages that it has handled, and for how long it knows that it had."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from models.tables.layouts import HELD

INBOX_KEPT_HOURS = 72
MARKS_KEPT_DAYS = 30
MARKS_A_TERMINAL_MAX = 256
"""Boots of one terminal of which the inbox is forgotten: eight starts a day for MARKS_KEPT_DAYS."""

PruneKey = tuple[str, str, int]
"""(terminal, boot, seq) of the row that was looked at last."""
FIRST_PRUNE: PruneKey = ("", "", 0)
Held = tuple[str, int, int, int]


async def prune(
    conn: AsyncConnection[TupleRow],
    held: Held,
    mine: tuple[int, int],
    wall: datetime,
    rows_max: int,
    after: PruneKey = FIRST_PRUNE,
) -> tuple[int, PruneKey]:
    """Forget messages older than 72 h, behind a high-water mark that answers `already_processed`.

    `held`: the values of HELD; a fenced host forgets nothing. `mine`: shards with `shard % mine[0] == mine[1]`.

    Returns how many rows went, and where the next call goes on: what stands behind a gap is passed over, so that it
    keeps nobody else's rows. A mark moves only over seqs without a gap, so a message that was never seen is never
    taken for one that was. Rows behind a gap and marks go MARKS_KEPT_DAYS after they came or moved: terminals drop
    events after a day, and money has numbers of its own for ever. Of one terminal, MARKS_A_TERMINAL_MAX stay.
    """
    cursor = await conn.execute(
        f"""WITH fence AS ({HELD} FOR SHARE), old AS (
             SELECT n, terminal, boot, seq FROM inbox
             WHERE received_at < %s - make_interval(hours => %s) AND shard %% %s = %s AND reply IS NOT NULL
             AND EXISTS (SELECT 1 FROM fence) AND (terminal, boot, seq) > (%s, %s, %s)
             ORDER BY terminal, boot, seq LIMIT %s),
           run AS (
             SELECT o.*, o.seq - row_number() OVER (PARTITION BY o.terminal, o.boot ORDER BY o.seq)
               - coalesce(m.seq, 0) AS gap
             FROM old o LEFT JOIN inbox_mark m USING (terminal, boot)),
           mark AS (
             INSERT INTO inbox_mark (terminal, boot, seq, moved_at)
             SELECT terminal, boot, max(seq), %s FROM run WHERE gap = 0 GROUP BY terminal, boot
             ON CONFLICT (terminal, boot) DO UPDATE SET seq = excluded.seq, moved_at = excluded.moved_at
             RETURNING terminal),
           gone AS (DELETE FROM inbox USING run WHERE inbox.n = run.n AND run.gap = 0 RETURNING 1)
           SELECT o.terminal, o.boot, o.seq, (SELECT count(*) FROM gone), (SELECT count(*) FROM old),
             (SELECT array_agg(DISTINCT terminal) FROM mark)
           FROM old o ORDER BY o.terminal DESC, o.boot DESC, o.seq DESC LIMIT 1""",
        (*held, wall, INBOX_KEPT_HOURS, *mine, *after, rows_max, wall),
    )
    row = await cursor.fetchone()
    gone, moved, further = (0, None, FIRST_PRUNE) if row is None else (row[3], row[5], (row[0], row[1], row[2]))
    if row is None or row[4] < rows_max:
        further = FIRST_PRUNE
    await _prune_marks(conn, held, wall, rows_max, moved or [])
    cursor = await conn.execute(
        f"""WITH fence AS ({HELD} FOR SHARE)
           DELETE FROM inbox WHERE n IN (SELECT n FROM inbox WHERE received_at < %s - make_interval(days => %s)
             AND shard %% %s = %s AND EXISTS (SELECT 1 FROM fence) ORDER BY received_at LIMIT %s)""",
        (*held, wall, MARKS_KEPT_DAYS, *mine, rows_max),
    )
    return gone + cursor.rowcount, further


async def _prune_marks(
    conn: AsyncConnection[TupleRow], held: Held, wall: datetime, rows_max: int, moved: Sequence[str]
) -> None:
    """Old ones, and of the terminals whose marks moved all but the newest."""
    if moved:
        await conn.execute(
            f"""WITH fence AS ({HELD} FOR SHARE)
               DELETE FROM inbox_mark m USING (
                 SELECT terminal, boot, row_number() OVER (PARTITION BY terminal ORDER BY moved_at DESC, boot) AS place
                 FROM inbox_mark WHERE terminal = ANY(%s)) AS r
               WHERE (m.terminal, m.boot) = (r.terminal, r.boot) AND r.place > %s AND EXISTS (SELECT 1 FROM fence)""",
            (*held, list(moved), MARKS_A_TERMINAL_MAX),
        )
    await conn.execute(
        f"""WITH fence AS ({HELD} FOR SHARE)
           DELETE FROM inbox_mark WHERE (terminal, boot) IN (
             SELECT terminal, boot FROM inbox_mark WHERE moved_at < %s - make_interval(days => %s)
             AND EXISTS (SELECT 1 FROM fence) ORDER BY moved_at LIMIT %s)""",
        (*held, wall, MARKS_KEPT_DAYS, rows_max),
    )
