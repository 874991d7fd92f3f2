"""Who may connect as which terminal: one-time codes, credentials, and the log of what became of them.

Hashes, serials and certificates only; no secret and no code is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import instant, maybe_instant

Connection = AsyncConnection[Any]

CURRENT, NEXT, ENDED, REVOKED = "current", "next", "ended", "revoked"


class EnrolmentCodeRow(SQLModel, table=True):
    """A one-time code, by its HMAC under the deployment's pepper. `command`: the rotation that carries it."""

    __tablename__ = "enrolment_code"
    __table_args__ = (UniqueConstraint("code_hmac"), Index("enrolment_code_terminal", "terminal"))
    id: str = Field(primary_key=True)
    terminal: str
    code_hmac: str
    rotates: bool = False
    certificate: bool = False
    command: str = ""
    made_at: datetime = instant()
    expires_at: datetime = instant()
    used_at: datetime | None = maybe_instant()
    answers: int = 0
    credential: str = ""


class CredentialRow(SQLModel, table=True):
    """A secret or a certificate. `state`: current, next (a rotation not confirmed), ended or revoked.

    `in_force`: of a terminal's secrets the one that the broker's password file holds; `moved_at`: since when.
    """

    __tablename__ = "credential"
    __table_args__ = (
        Index("credential_terminal", "terminal"),
        Index("credential_next", "terminal", postgresql_where=text("state = 'next'")),
    )
    id: str = Field(primary_key=True)
    terminal: str
    kind: str
    secret_sha256: str = ""
    broker_hash: str = ""
    serial: str = ""
    certificate: str = ""
    key_sha256: str = ""
    made_at: datetime = instant()
    expires_at: datetime | None = maybe_instant()
    state: str
    in_force: bool = False
    moved_at: datetime = instant()
    ended_at: datetime | None = maybe_instant()


class CredentialEventRow(SQLModel, table=True):
    """What happened to a terminal's credentials, when and from which address: the audit."""

    __tablename__ = "credential_event"
    __table_args__ = (Index("credential_event_terminal", "terminal", "at"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    terminal: str
    at: datetime = instant()
    what: str
    detail: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """A stored code."""

    id: str
    terminal: str
    rotates: bool
    certificate: bool
    command: str
    expires_at: datetime
    used_at: datetime | None
    answers: int
    credential: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored credential."""

    id: str
    terminal: str
    kind: str
    secret_sha256: str
    broker_hash: str
    serial: str
    certificate: str
    key_sha256: str
    made_at: datetime
    expires_at: datetime | None
    state: str
    in_force: bool
    moved_at: datetime


@dataclass(frozen=True, slots=True)
class Registered:
    """What an enrolment answers of the registry."""

    terminal: str
    store: str
    region: str
    profile: str
    secret_sha256: str
    retired: bool


@dataclass(frozen=True, slots=True)
class Pending:
    """A rotation that is not confirmed, and what is known of the terminal meanwhile."""

    credential: Stored
    status: str
    """Of its command; empty when there is none."""
    online: bool
    changed_at: datetime | None


_STORED = (
    "id, terminal, kind, secret_sha256, broker_hash, serial, certificate, key_sha256, made_at, expires_at, state, "
    "in_force, moved_at"
)


async def registered(conn: Connection, terminal: str, *, lock: bool = False) -> Registered | None:
    """A terminal of the registry; with `lock` whoever changes its credentials waits for this transaction."""
    cursor = conn.cursor(row_factory=class_row(Registered))
    await cursor.execute(
        """SELECT t.id AS terminal, t.store, s.region, t.profile, t.secret_sha256, t.retired_at IS NOT NULL AS retired
           FROM terminal t JOIN store s ON s.id = t.store WHERE t.id = %s"""
        + (" FOR UPDATE OF t" if lock else ""),
        (terminal,),
    )
    return await cursor.fetchone()


async def add_code(conn: Connection, row: EnrolmentCodeRow) -> None:
    """A new code; the terminal's unused codes of the same purpose end with it, and what is long over goes."""
    await conn.execute(
        "DELETE FROM enrolment_code WHERE (terminal = %s AND rotates = %s AND used_at IS NULL) OR expires_at < %s"
        " - interval '30 days'",
        (row.terminal, row.rotates, row.made_at),
    )
    await conn.execute(
        """INSERT INTO enrolment_code (id, terminal, code_hmac, rotates, certificate, command, made_at, expires_at,
             answers, credential) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 0, '')""",
        (
            row.id,
            row.terminal,
            row.code_hmac,
            row.rotates,
            row.certificate,
            row.command,
            row.made_at,
            row.expires_at,
        ),
    )


async def find_code(conn: Connection, code_hmac: str, *, lock: bool = False) -> Code | None:
    """A code, whatever became of it."""
    cursor = conn.cursor(row_factory=class_row(Code))
    await cursor.execute(
        """SELECT id, terminal, rotates, certificate, command, expires_at, used_at, answers, credential
           FROM enrolment_code WHERE code_hmac = %s"""
        + (" FOR UPDATE" if lock else ""),
        (code_hmac,),
    )
    return await cursor.fetchone()


async def answered(conn: Connection, code: str, credential: str, now: datetime) -> None:
    """The code was used (once more)."""
    await conn.execute(
        """UPDATE enrolment_code SET used_at = coalesce(used_at, %s), answers = answers + 1, credential = %s
           WHERE id = %s""",
        (now, credential, code),
    )


async def add_credential(conn: Connection, one: Stored) -> None:
    """A new credential; the same id again changes nothing."""
    await conn.execute(
        f"""INSERT INTO credential ({_STORED}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (id) DO NOTHING""",
        (
            one.id,
            one.terminal,
            one.kind,
            one.secret_sha256,
            one.broker_hash,
            one.serial,
            one.certificate,
            one.key_sha256,
            one.made_at,
            one.expires_at,
            one.state,
            one.in_force,
            one.moved_at,
        ),
    )


async def live(conn: Connection, terminal: str) -> list[Stored]:
    """A terminal's credentials that are neither ended nor revoked, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Stored))
    await cursor.execute(
        f"SELECT {_STORED} FROM credential WHERE terminal = %s AND state IN ('current', 'next') ORDER BY made_at, id",
        (terminal,),
    )
    return await cursor.fetchall()


async def pending(conn: Connection, rows_max: int) -> list[Pending]:
    """Rotations that are not confirmed, with their command's status and the terminal's presence."""
    cursor = await conn.execute(
        f"""SELECT {", ".join("c." + name for name in _STORED.split(", "))},
              coalesce(o.status, ''), coalesce(p.online AND p.known, false), p.changed_at
            FROM credential c LEFT JOIN enrolment_code e ON e.credential = c.id
            LEFT JOIN command o ON o.id = e.command LEFT JOIN presence p ON p.terminal = c.terminal
            WHERE c.state = 'next' ORDER BY c.made_at LIMIT %s""",
        (rows_max,),
    )
    return [Pending(Stored(*row[:13]), row[13], row[14], row[15]) for row in await cursor.fetchall()]


async def confirm(conn: Connection, one: Stored, now: datetime) -> None:
    """This one stays, the terminal's others end."""
    await end(conn, one.terminal, ENDED, now, but=one.id)
    await conn.execute("UPDATE credential SET state = 'current', in_force = true WHERE id = %s", (one.id,))
    await conn.execute("UPDATE terminal SET secret_sha256 = %s WHERE id = %s", (one.secret_sha256 or "-", one.terminal))


async def end(conn: Connection, terminal: str, state: str, now: datetime, *, but: str = "", only: str = "") -> None:
    """A terminal's live credentials end; `but` one, or `only` one."""
    await conn.execute(
        """UPDATE credential SET state = %s, in_force = false, ended_at = %s WHERE terminal = %s
           AND state IN ('current', 'next') AND id <> %s AND (%s = '' OR id = %s)""",
        (state, now, terminal, but, only, only),
    )


async def put_in_force(conn: Connection, one: Stored, now: datetime) -> None:
    """This secret is the one that the broker holds from now on."""
    await conn.execute(
        "UPDATE credential SET in_force = (id = %s), moved_at = %s WHERE terminal = %s AND kind = 'secret'"
        " AND state IN ('current', 'next')",
        (one.id, now, one.terminal),
    )


async def mark_revoked(conn: Connection, terminal: str, now: datetime | None) -> None:
    """Its hosts do not know it any more, in a second; None: they know it again."""
    await conn.execute(
        "UPDATE terminal SET revoked_at = %s, registered_at = CASE WHEN %s THEN now() ELSE registered_at END"
        " WHERE id = %s AND (revoked_at IS NULL) = %s",
        (now, now is None, terminal, now is not None),
    )


async def note(conn: Connection, terminal: str, at: datetime, what: str, detail: str = "", address: str = "") -> None:
    """One line of the audit."""
    await conn.execute(
        "INSERT INTO credential_event (terminal, at, what, detail, address) VALUES (%s, %s, %s, %s, %s)",
        (terminal, at, what, detail[:200], address[:64]),
    )


async def revoked_serials(conn: Connection, now: datetime) -> dict[str, datetime]:
    """Certificates that count no more although they have not run out."""
    cursor = await conn.execute(
        """SELECT serial, coalesce(ended_at, made_at) FROM credential WHERE kind = 'certificate'
           AND state IN ('ended', 'revoked') AND expires_at > %s""",
        (now,),
    )
    return dict(await cursor.fetchall())


async def refused_terminals(conn: Connection) -> list[str]:
    """Terminals that no broker should let do anything: revoked or retired ones."""
    cursor = await conn.execute("SELECT id FROM terminal WHERE revoked_at IS NOT NULL OR retired_at IS NOT NULL")
    return [row[0] for row in await cursor.fetchall()]


async def broker_hashes(conn: Connection, terminals: Sequence[str] | None = None) -> dict[str, str]:
    """The password file's line of each terminal whose secret is in force; of all or of these."""
    cursor = await conn.execute(
        """SELECT terminal, broker_hash FROM credential WHERE kind = 'secret' AND in_force AND broker_hash <> ''
           AND state IN ('current', 'next') AND (%s::text[] IS NULL OR terminal = ANY(%s::text[]))""",
        (None if terminals is None else list(terminals), None if terminals is None else list(terminals)),
    )
    return dict(await cursor.fetchall())
