"""What is forgotten of messages that were handled and of the galleries' feed, and how that stays known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from models.tables.layouts import HELD
from models.tables.templates import PRUNED, WINDOW_CHANGES

INBOX_KEPT_HOURS = 72
MARKS_KEPT_DAYS = 30
MARKS_A_TERMINAL_MAX = 256
"""Boots of one terminal of which the inbox is forgotten: eight starts a day for MARKS_KEPT_DAYS."""

FEED_KEPT_CHANGES = 16 * WINDOW_CHANGES
"""The newest of each chain, whatever their age: a reader in step is never more than one window behind."""
FEED_KEPT_HOURS = 24
"""A keeper that was away for less, and a snapshot that is younger, go on from where they were."""
FEED_PRUNED_AT_ONCE = 20_000

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


# ---------------------------------------------------------------- the galleries' feed


async def prune_feed(conn: AsyncConnection[TupleRow], wall: datetime) -> int:
    """Forget changes of galleries that no reader in step can need; how many went. Call again until 0.

    Of each chain FEED_KEPT_CHANGES stay, and what is younger than FEED_KEPT_HOURS. The highest number that goes becomes
    the chain's mark (`pruned`): who reads from below sees it first, and loads the templates themselves.
    """
    chains = await (await conn.execute("SELECT DISTINCT chain FROM gallery_change")).fetchall()
    return sum([await _prune_chain(conn, chain, wall) for (chain,) in chains])


async def _prune_chain(conn: AsyncConnection[TupleRow], chain: str, wall: datetime) -> int:
    cursor = await conn.execute(
        """WITH edge AS (
             SELECT n FROM gallery_change WHERE chain = %(chain)s ORDER BY n DESC OFFSET %(kept)s LIMIT 1),
           low AS (
             SELECT n, kind, at < %(wall)s - make_interval(hours => %(hours)s) AS old FROM gallery_change
             WHERE chain = %(chain)s AND n <= (SELECT n FROM edge) ORDER BY n LIMIT %(rows)s),
           upto AS (
             SELECT max(n) AS n FROM low WHERE n < ALL (SELECT n FROM low WHERE NOT old) AND kind <> %(pruned)s),
           mark AS (
             UPDATE gallery_change SET kind = %(pruned)s, member = '', template = ''
             WHERE n = (SELECT n FROM upto) RETURNING n)
           DELETE FROM gallery_change WHERE chain = %(chain)s AND n < (SELECT n FROM mark)""",
        {
            "chain": chain,
            "kept": FEED_KEPT_CHANGES,
            "wall": wall,
            "hours": FEED_KEPT_HOURS,
            "rows": FEED_PRUNED_AT_ONCE,
            "pruned": PRUNED,
        },
    )
    return cursor.rowcount
