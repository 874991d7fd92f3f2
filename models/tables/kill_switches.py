"""Kill switches: one row for each time that one was thrown, kept for ever; at most one stands for a switch and scope.

What holds is what is neither lifted nor expired by the database's reader's wall clock: hosts look every second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from models.domain.kill_switch import CONFIG_KEY, KillSwitch, Scope, ScopeKind, Switch
from models.tables.base import instant, maybe_instant
from models.tables.privacy import audit

Connection = AsyncConnection[Any]


class KillSwitchRow(SQLModel, table=True):
    """One switch that was thrown. `at`, `until`, `lifted_at`: wall time. An expired one is closed by the next throw."""

    __tablename__ = "kill_switch"
    __table_args__ = (
        Index(
            "kill_switch_standing",
            "switch",
            "scope_kind",
            "scope_name",
            unique=True,
            postgresql_where=text("lifted_at IS NULL"),
        ),
        Index("kill_switch_at", "at"),
        CheckConstraint(
            "switch IN ('face', 'benefits', 'offers') AND scope_kind IN ('store', 'region', 'chain')"
            " AND length(reason) BETWEEN 1 AND 400 AND length(lifted_reason) <= 400",
            name="kill_switch_formed",
        ),
    )
    id: str = Field(primary_key=True)
    switch: str
    scope_kind: str
    scope_name: str
    reason: str
    by: str
    at: datetime = instant()
    until: datetime | None = maybe_instant()
    lifted_at: datetime | None = maybe_instant()
    lifted_by: str = ""
    lifted_reason: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """Terminals of a scope: how many are connected, and how many of those run a document that says so."""

    terminals: int
    connected: int
    applied: int


_COLUMNS = "id, switch, scope_kind, scope_name, reason, by, at, until, lifted_at, lifted_by, lifted_reason"
_STANDING = f"SELECT {_COLUMNS} FROM kill_switch WHERE lifted_at IS NULL ORDER BY at, id"
_IN_SCOPE = """CASE %(kind)s WHEN 'store' THEN s.id WHEN 'region' THEN s.region ELSE s.chain END = %(name)s"""


async def load_standing(conn: Connection) -> list[KillSwitch]:
    """Every switch that nobody lifted, the expired among them: the reader's clock decides."""
    cursor = await conn.execute(_STANDING)
    return [_switch(row) for row in await cursor.fetchall()]


async def list_switches(conn: Connection, limit: int) -> list[KillSwitch]:
    """The newest first: standing and past."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM kill_switch ORDER BY at DESC, id LIMIT %s", (limit,))
    return [_switch(row) for row in await cursor.fetchall()]


async def throw(conn: Connection, asked: KillSwitch) -> tuple[KillSwitch, bool]:
    """Throw a switch, with its line in the audit, inside the caller's transaction. Returns what stands, and whether
    that is new.

    The same id asked again is the same throw. One that stands already keeps its own reason and time, and takes the
    new `until` and reason where they differ.
    """
    known = await _by_id(conn, asked.id)
    if known is not None:
        return known, False
    await conn.execute(
        """UPDATE kill_switch SET lifted_at = until, lifted_by = 'expiry'
           WHERE switch = %s AND scope_kind = %s AND scope_name = %s AND lifted_at IS NULL AND until <= %s""",
        (asked.switch, asked.scope.kind, asked.scope.name, asked.at),
    )
    cursor = await conn.execute(
        """INSERT INTO kill_switch (id, switch, scope_kind, scope_name, reason, by, at, until, lifted_by, lifted_reason)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, '', '')
           ON CONFLICT (switch, scope_kind, scope_name) WHERE lifted_at IS NULL DO NOTHING RETURNING id""",
        (
            asked.id,
            asked.switch,
            asked.scope.kind,
            asked.scope.name,
            asked.reason,
            asked.by,
            asked.at,
            asked.until,
        ),
    )
    if await cursor.fetchone() is not None:
        await audit(conn, "kill_switch.thrown", str(asked.scope), _detail(asked), asked.by, asked.at)
        return asked, True
    standing = await _standing(conn, asked)
    if (standing.reason, standing.until) == (asked.reason, asked.until):
        return standing, False
    cursor = await conn.execute(
        f"UPDATE kill_switch SET reason = %s, until = %s WHERE id = %s RETURNING {_COLUMNS}",
        (asked.reason, asked.until, standing.id),
    )
    row = await cursor.fetchone()
    assert row is not None
    changed = _switch(row)
    await audit(conn, "kill_switch.changed", str(asked.scope), _detail(changed), asked.by, asked.at)
    return changed, True


async def lift(
    conn: Connection, switch: Switch, scope: Scope, reason: str, by: str, at: datetime
) -> tuple[KillSwitch | None, bool]:
    """Lift what stands, with its line in the audit, inside the caller's transaction. None: nothing stood."""
    cursor = await conn.execute(
        f"""UPDATE kill_switch SET lifted_at = %s, lifted_by = %s, lifted_reason = %s
            WHERE switch = %s AND scope_kind = %s AND scope_name = %s AND lifted_at IS NULL RETURNING {_COLUMNS}""",
        (at, by, reason, switch, scope.kind, scope.name),
    )
    row = await cursor.fetchone()
    if row is None:
        return None, False
    lifted = _switch(row)
    detail: Mapping[str, Any] = {"switch": str(switch), "id": lifted.id, "reason": reason}
    await audit(conn, "kill_switch.lifted", str(scope), detail, by, at)
    return lifted, True


async def stores_in(conn: Connection, scope: Scope) -> int:
    """How many stores of this database a scope reaches."""
    cursor = await conn.execute(
        f"SELECT count(*) FROM store s WHERE {_IN_SCOPE}", {"kind": scope.kind, "name": scope.name}
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def applied(conn: Connection, switch: Switch, scope: Scope, now: datetime) -> Applied:
    """How far the terminals of a scope are: what they report is the document that says of the switch what stands.

    Thousands of terminals run few documents: each is looked into once.
    """
    cursor = await conn.execute(
        f"""WITH document AS MATERIALIZED (
                SELECT config_hash, config ~ %(said)s AS told
                FROM (SELECT min(terminal) AS terminal FROM desired GROUP BY config_hash) AS one
                JOIN desired USING (terminal))
            SELECT count(*), count(*) FILTER (WHERE online), count(*) FILTER (WHERE online AND reports AND told = off)
            FROM (
                SELECT coalesce(p.online, false) AS online,
                  coalesce(d.gen = p.applied_gen AND d.config_hash = p.config_hash, false) AS reports,
                  coalesce(c.told, false) AS told,
                  EXISTS (
                    SELECT 1 FROM kill_switch k WHERE k.switch = %(switch)s AND k.lifted_at IS NULL
                      AND (k.until IS NULL OR k.until > %(now)s) AND k.scope_name =
                        CASE k.scope_kind WHEN 'store' THEN s.id WHEN 'region' THEN s.region ELSE s.chain END) AS off
                FROM terminal t JOIN store s ON s.id = t.store
                LEFT JOIN presence p ON p.terminal = t.id LEFT JOIN desired d ON d.terminal = t.id
                LEFT JOIN document c ON c.config_hash = d.config_hash
                WHERE t.retired_at IS NULL AND t.revoked_at IS NULL AND {_IN_SCOPE}) AS one""",
        {
            "said": f'"{CONFIG_KEY}":\\[[a-z",]*"{switch}"',
            "switch": switch,
            "now": now,
            "kind": scope.kind,
            "name": scope.name,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return Applied(*row)


async def _by_id(conn: Connection, number: str) -> KillSwitch | None:
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM kill_switch WHERE id = %s", (number,))
    row = await cursor.fetchone()
    return None if row is None else _switch(row)


async def _standing(conn: Connection, asked: KillSwitch) -> KillSwitch:
    cursor = await conn.execute(
        f"""SELECT {_COLUMNS} FROM kill_switch
            WHERE switch = %s AND scope_kind = %s AND scope_name = %s AND lifted_at IS NULL FOR UPDATE""",
        (asked.switch, asked.scope.kind, asked.scope.name),
    )
    row = await cursor.fetchone()
    assert row is not None, "a conflict names a row that stands"
    return _switch(row)


def _detail(thrown: KillSwitch) -> dict[str, Any]:
    until = thrown.until.astimezone(UTC).isoformat() if thrown.until is not None else None
    return {"switch": str(thrown.switch), "id": thrown.id, "reason": thrown.reason, "until": until}


def _switch(row: Sequence[Any]) -> KillSwitch:
    number, switch, kind, name, reason, by, at, until, lifted_at, lifted_by, lifted_reason = row
    scope = Scope(ScopeKind(kind), name)
    return KillSwitch(number, Switch(switch), scope, reason, by, at, until, lifted_at, lifted_by, lifted_reason)
