"""Twins as stored: presence for pages, desired documents, commands and their answers, telemetry samples.

All but the telemetry is written in a host's commit. Telemetry is losable; a fenced host writes none either. The
tables are in twins.py: a host, which is to start fast, imports no SQLModel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from models.domain.ids import LaneId, RegionId, StoreId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.domain.twin import (
    CommandAnswered,
    CommandRecord,
    DesiredRecord,
    FamilyChanged,
    PresenceRecord,
    SoftwareVersion,
    TerminalRetired,
    TwinFact,
)

TELEMETRY_SAMPLES_MAX = 60
"""A terminal's ring: one sample a minute, one hour."""
COMMANDS_KEPT_DAYS = 30

Connection = AsyncConnection[TupleRow]


# ---------------------------------------------------------------- in a host's commit


async def save_twin(conn: Connection, fact: TwinFact) -> None:
    """Write one fact; statements only, so that it may run in a pipeline."""
    match fact:
        case DesiredRecord():
            software = None if fact.software is None else Jsonb(asdict(fact.software))
            await conn.execute(
                """INSERT INTO desired (terminal, gen, config, config_hash, software, set_at)
                   VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (terminal) DO UPDATE SET gen = excluded.gen,
                   config = excluded.config, config_hash = excluded.config_hash, software = excluded.software,
                   set_at = excluded.set_at WHERE desired.gen < excluded.gen""",
                (fact.terminal, fact.gen, fact.config, fact.config_hash, software, fact.at),
            )
        case CommandRecord(command=command):
            await conn.execute(
                """INSERT INTO command (id, terminal, store, verb, args, asked_at, deadline_at, status, detail)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, '') ON CONFLICT (id) DO NOTHING""",
                (
                    command.id,
                    fact.terminal,
                    fact.store,
                    command.verb,
                    Jsonb(dict(command.args)),
                    fact.at,
                    command.deadline_at,
                    str(command.status),
                ),
            )
        case CommandAnswered(late=True):
            await conn.execute(
                "UPDATE command SET late_status = %s, detail = %s, answered_at = %s WHERE id = %s",
                (str(fact.status), fact.detail, fact.at, fact.command),
            )
        case CommandAnswered():
            await conn.execute(
                "UPDATE command SET status = %s, detail = %s, answered_at = %s WHERE id = %s",
                (str(fact.status), fact.detail, fact.at, fact.command),
            )
        case FamilyChanged():
            await conn.execute(
                """UPDATE terminal SET profile = %(profile)s::text, delivered_profile = CASE
                     WHEN %(profile)s::text = coalesce(nullif(delivered_profile, ''), profile) THEN ''
                     ELSE coalesce(nullif(delivered_profile, ''), profile) END WHERE id = %(terminal)s""",
                {"profile": fact.profile, "terminal": fact.terminal},
            )
        case TerminalRetired():
            for table in ("presence", "desired", "telemetry"):
                await conn.execute(f"DELETE FROM {table} WHERE terminal = %s", (fact.terminal,))


async def write_presence(conn: Connection, rows: Mapping[TerminalId, PresenceRecord], now: datetime) -> None:
    """A batch's presence in one statement."""
    records = list(rows.values())
    await conn.execute(
        """INSERT INTO presence (terminal, store, online, known, software, boot, gen, applied_gen, config_hash, sync,
             behind_since, skew_ms, skew_alarm, takeovers, takeover_at, gaps, health, changed_at)
           SELECT u.*, %s FROM unnest(%s::text[], %s::text[], %s::bool[], %s::bool[], %s::text[], %s::text[],
             %s::int[], %s::int[], %s::text[], %s::text[], %s::timestamptz[], %s::bigint[], %s::bool[], %s::int[],
             %s::timestamptz[], %s::int[], %s::text[]) AS u
           ON CONFLICT (terminal) DO UPDATE SET store = excluded.store, online = excluded.online,
             known = excluded.known, software = excluded.software, boot = excluded.boot, gen = excluded.gen,
             applied_gen = excluded.applied_gen, config_hash = excluded.config_hash, sync = excluded.sync,
             behind_since = excluded.behind_since, skew_ms = excluded.skew_ms, skew_alarm = excluded.skew_alarm,
             takeovers = excluded.takeovers, takeover_at = excluded.takeover_at, gaps = excluded.gaps,
             health = excluded.health, changed_at = CASE WHEN presence.online = excluded.online
             AND presence.boot = excluded.boot THEN presence.changed_at ELSE excluded.changed_at END""",
        (
            now,
            list(rows),
            [one.store for one in records],
            [one.online for one in records],
            [one.known for one in records],
            [one.software for one in records],
            [one.boot for one in records],
            [one.gen for one in records],
            [one.applied_gen for one in records],
            [one.config_hash for one in records],
            [str(one.sync) for one in records],
            [one.behind_since for one in records],
            [one.skew_ms for one in records],
            [one.skew_alarm for one in records],
            [one.takeovers for one in records],
            [one.takeover_at for one in records],
            [one.gaps for one in records],
            [one.health for one in records],
        ),
    )


# ---------------------------------------------------------------- what a host's care reads and writes beside


@dataclass(frozen=True, slots=True)
class DesiredDocument:
    """A stored desired document, as it is published."""

    terminal: TerminalId
    gen: int
    config: str
    software: SoftwareVersion | None


async def load_desired(conn: Connection, terminals: Sequence[TerminalId]) -> list[DesiredDocument]:
    """The newest documents of these terminals; none for those that were given none yet."""
    cursor = await conn.execute(
        "SELECT terminal, gen, config, software FROM desired WHERE terminal = ANY(%s)", (list(terminals),)
    )
    return [
        DesiredDocument(TerminalId(row[0]), row[1], row[2], None if row[3] is None else SoftwareVersion(**row[3]))
        for row in await cursor.fetchall()
    ]


async def registry_mark(conn: Connection, region: RegionId) -> str:
    """Changes when a terminal of the region is registered, retired or revoked, a chain's book has a new version,
    a store another one, a layer of a chain's configuration changed, an image of software was recorded or removed, or a
    key for signed liveness was added or ended."""
    cursor = await conn.execute(
        """SELECT (SELECT count(*) || ' '
                     || coalesce(max(greatest(t.registered_at, t.retired_at, t.revoked_at))::text, '')
                   FROM terminal t JOIN store s ON s.id = t.store WHERE s.region = %s)
               || (SELECT ' ' || count(*) || ' ' || count(*) FILTER (WHERE candidate) || ' '
                     || coalesce(max(created_at)::text, '') FROM book)
               || (SELECT ' ' || coalesce(sum(gen), 0) || ' ' || coalesce(max(changed_at)::text, '') FROM store_book)
               || (SELECT ' ' || count(*) || ' ' || coalesce(sum(version), 0) || ' '
                     || coalesce(max(changed_at)::text, '') FROM config_layer)
               || (SELECT ' ' || count(*) || ' ' || coalesce(max(added_at)::text, '') FROM software_image)
               || (SELECT ' ' || count(*) || ' ' || coalesce(max(greatest(added_at, ended_at))::text, '')
                   FROM liveness_key)""",
        (region,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


async def load_departed(conn: Connection, region: RegionId) -> list[RegisteredTerminal]:
    """Retired terminals whose retained topics nobody has cleared yet: their desired document is still there."""
    cursor = await conn.execute(
        """SELECT t.id, t.store, t.lane, t.role, t.profile FROM terminal t JOIN store s ON s.id = t.store
           JOIN desired d ON d.terminal = t.id WHERE s.region = %s
             AND (t.retired_at IS NOT NULL OR t.revoked_at IS NOT NULL)""",
        (region,),
    )
    return [
        RegisteredTerminal(TerminalId(row[0]), StoreId(row[1]), region, LaneId(row[2]), row[3], row[4])
        for row in await cursor.fetchall()
    ]


async def newest_seqs(conn: Connection, before: Sequence[tuple[TerminalId, str, int]]) -> list[int]:
    """For each (terminal, boot, seq) the newest seq below it that was committed, by inbox or mark; 0 for none."""
    cursor = await conn.execute(
        """SELECT greatest(0, (SELECT max(i.seq) FROM inbox i WHERE i.terminal = k.t AND i.boot = k.b AND i.seq < k.s),
             (SELECT m.seq FROM inbox_mark m WHERE m.terminal = k.t AND m.boot = k.b))
           FROM unnest(%s::text[], %s::text[], %s::bigint[]) WITH ORDINALITY AS k(t, b, s, n) ORDER BY k.n""",
        ([one[0] for one in before], [one[1] for one in before], [one[2] for one in before]),
    )
    return [row[0] for row in await cursor.fetchall()]


async def save_telemetry(
    conn: Connection, fence: tuple[str, int, int, int], samples: Mapping[TerminalId, Mapping[str, Any]], at: datetime
) -> None:
    """One sample a terminal into its ring. `fence`: the slot's region, layout, k, epoch; a fenced host writes none."""
    await conn.execute(
        """WITH held AS (SELECT 1 FROM slot WHERE region = %s AND layout = %s AND k = %s AND epoch = %s FOR SHARE)
           INSERT INTO telemetry (terminal, minute, at, doc)
           SELECT t, %s, %s, d FROM unnest(%s::text[], %s::jsonb[]) AS u(t, d) WHERE EXISTS (SELECT 1 FROM held)
           ON CONFLICT (terminal, minute) DO UPDATE SET at = excluded.at, doc = excluded.doc""",
        (*fence, at.minute % TELEMETRY_SAMPLES_MAX, at, list(samples), [Jsonb(dict(doc)) for doc in samples.values()]),
    )


async def prune_commands(conn: Connection, fence: tuple[str, int, int, int], now: datetime, rows_max: int) -> None:
    """Forget commands older than 30 days."""
    await conn.execute(
        """WITH held AS (SELECT 1 FROM slot WHERE region = %s AND layout = %s AND k = %s AND epoch = %s FOR SHARE)
           DELETE FROM command WHERE EXISTS (SELECT 1 FROM held) AND id IN (
             SELECT id FROM command WHERE asked_at < %s - make_interval(days => %s) ORDER BY asked_at LIMIT %s)""",
        (*fence, now, COMMANDS_KEPT_DAYS, rows_max),
    )
