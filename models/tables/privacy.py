"""The audit of what was done with people's data: append-only, each event chained to the one before.

The database refuses to change or remove an event and to add one that does not follow the last (migration 0008), so a
writer that comes by another way cannot fork or edit the chain; cutting off its end is what checkpoints are for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection, Connection
from psycopg.types.json import Jsonb
from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from models.domain.privacy import GENESIS_SHA256, AuditEvent, Detail, audit_sha256, chain_fault, check_detail
from models.tables.base import document, instant, maybe_instant

AUDIT_LOCK_KEY = 0x4155444954  # "AUDIT"
VERIFY_EVENTS_MAX = 5_000
"""Events held at once while a chain is checked."""


class AuditEventRow(SQLModel, table=True):
    """One event. `n` counts from 1 without a gap; `subject` is a member's id, never a name or a number."""

    __tablename__ = "audit_event"
    __table_args__ = (Index("audit_event_subject", "subject", "n"), Index("audit_event_kind", "kind", "n"))
    n: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    at: datetime = instant()
    kind: str
    subject: str
    by: str
    detail: dict[str, object] = document()
    prev_sha256: str
    sha256: str


class MemberConsentRow(SQLModel, table=True):
    """A member's standing consent, apart from a visit's: never removed. One of a purpose lives at a time."""

    __tablename__ = "member_consent"
    __table_args__ = (
        Index("member_consent_live", "member", "purpose", unique=True, postgresql_where=text("withdrawn_at IS NULL")),
        Index("member_consent_member", "member"),
    )
    id: str = Field(primary_key=True)
    member: str
    chain: str
    purpose: str
    text: str
    session: str
    store: str
    terminal: str
    given_at: datetime = instant()
    withdrawn_at: datetime | None = maybe_instant()
    withdrawn_by: str = ""


class MemberAgeRow(SQLModel, table=True):
    """What is known of a member's age: a birth year from the profile, a clerk's mark, a guardian's consent."""

    __tablename__ = "member_age"
    member: str = Field(primary_key=True)
    birth_year: int | None = None
    under_14: bool = False
    guardian_consent: str = ""
    marked_by: str
    marked_at: datetime = instant()


class PrivacyRequestRow(SQLModel, table=True):
    """What a person asked for, or an officer for them: withdraw the face, erase, export. Done once, then kept."""

    __tablename__ = "privacy_request"
    __table_args__ = (
        Index("privacy_request_state", "state", "asked_at"),
        Index("privacy_request_member", "member"),
        Index(
            "privacy_request_open",
            "member",
            "kind",
            unique=True,
            postgresql_where=text("state IN ('open', 'approved')"),
        ),
    )
    id: str = Field(primary_key=True)
    chain: str
    member: str
    kind: str
    state: str
    via: str
    reason: str
    asked_by: str
    asked_at: datetime = instant()
    approved_by: str = ""
    approved_at: datetime | None = maybe_instant()
    done_at: datetime | None = maybe_instant()
    result: dict[str, object] | None = document(nullable=True)


class FaceDecisionDayRow(SQLModel, table=True):
    """What is left of decisions whose retention ended: how many of a store and day (UTC) ended how, of nobody."""

    __tablename__ = "face_decision_day"
    store: str = Field(primary_key=True)
    day: str = Field(primary_key=True, max_length=10)
    outcome: str = Field(primary_key=True)
    reason: str = Field(primary_key=True)
    decisions: int = Field(sa_type=BigInteger)


_HEAD = "SELECT n, sha256 FROM audit_event ORDER BY n DESC LIMIT 1"
_ADD = """INSERT INTO audit_event (n, at, kind, subject, by, detail, prev_sha256, sha256)
          VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"""
_LOCK = "SELECT pg_advisory_xact_lock(%s)"


async def audit(
    conn: AsyncConnection[Any], kind: str, subject: str, detail: Detail, by: str, at: datetime
) -> AuditEvent:
    """Append an event inside the caller's transaction; there with its commit, gone with its rollback.

    Writers wait for one another until they commit, so call it last. `subject`: a member's id, or "" for none; `at`:
    wall time. Raises TypeError or ValueError for a detail that is no plain JSON.
    """
    check_detail(detail)
    await conn.execute(_LOCK, (AUDIT_LOCK_KEY,))
    head = await (await conn.execute(_HEAD)).fetchone()
    event = _next(head, kind, subject, detail, by, at)
    await conn.execute(_ADD, _values(event))
    return event


def audit_sync(conn: Connection[Any], kind: str, subject: str, detail: Detail, by: str, at: datetime) -> AuditEvent:
    """As `audit`, for a connection of a thread."""
    check_detail(detail)
    conn.execute(_LOCK, (AUDIT_LOCK_KEY,))
    event = _next(conn.execute(_HEAD).fetchone(), kind, subject, detail, by, at)
    conn.execute(_ADD, _values(event))
    return event


def _next(head: Sequence[Any] | None, kind: str, subject: str, detail: Detail, by: str, at: datetime) -> AuditEvent:
    n, prev = (head[0] + 1, head[1]) if head is not None else (1, GENESIS_SHA256)
    at = at.astimezone(UTC)
    return AuditEvent(n, at, kind, subject, by, detail, prev, audit_sha256(n, at, kind, subject, by, detail, prev))


def _values(event: AuditEvent) -> tuple[Any, ...]:
    detail = Jsonb(dict(event.detail))
    return (event.n, event.at, event.kind, event.subject, event.by, detail, event.prev_sha256, event.sha256)


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """A walk over the whole audit. `fault` None: every event is there, unchanged, and follows the one before."""

    events: int
    head_sha256: str
    fault: str | None = None
    checkpoint: int = 0
    """The event that a checkpoint outside of the database vouches for; 0: none does, and a chain that was cut off or
    written anew as a whole would pass."""

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return self.fault is None


async def verify(conn: AsyncConnection[Any], checkpoint: tuple[int, str] | None = None) -> ChainCheck:
    """Recompute every digest, in bounded memory. `checkpoint`: (n, digest) that was kept outside of the database.

    A checkpoint that the chain does not hold is a fault: its end was cut off, or it was written anew.
    """
    n, head, upto = 0, GENESIS_SHA256, 0 if checkpoint is None else checkpoint[0]
    kept = upto == 0
    async for events in _chunks(conn):
        fault = chain_fault(events, n, head)
        if fault is not None:
            return ChainCheck(n, head, fault, upto)
        kept = kept or any((event.n, event.sha256) == checkpoint for event in events)
        n, head = events[-1].n, events[-1].sha256
    fault = None if kept else f"event {upto} is not what the checkpoint of it says"
    return ChainCheck(n, head, fault, upto)


async def _chunks(conn: AsyncConnection[Any]) -> AsyncIterator[list[AuditEvent]]:
    low = 0
    while True:
        events = await list_events(conn, after=low, limit=VERIFY_EVENTS_MAX)
        if not events:
            return
        yield events
        low = events[-1].n


async def list_events(
    conn: AsyncConnection[Any],
    *,
    after: int = 0,
    subject: str | None = None,
    kind: str | None = None,
    limit: int,
) -> list[AuditEvent]:
    """Events above `after`, rising; of one subject or kind when asked so."""
    where: LiteralString = "WHERE n > %(after)s"
    if subject is not None:
        where += " AND subject = %(subject)s"
    if kind is not None:
        where += " AND kind = %(kind)s"
    cursor = await conn.execute(
        f"""SELECT n, at, kind, subject, by, detail, prev_sha256, sha256 FROM audit_event {where}
            ORDER BY n LIMIT %(limit)s""",
        {"after": after, "subject": subject, "kind": kind, "limit": limit},
    )
    return [event_of(row) for row in await cursor.fetchall()]


def event_of(row: Sequence[Any]) -> AuditEvent:
    """The columns of the table, in its order, as an event."""
    n, at, kind, subject, by, detail, prev, digest = row
    assert isinstance(detail, Mapping)
    return AuditEvent(n, at.astimezone(UTC), kind, subject, by, detail, prev, digest)
