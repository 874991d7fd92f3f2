"""What payment providers told unasked: each notification once, and the poll of the order it speaks of comes at once.

A notification decides nothing. It is kept, and what waits for its number asks the provider now instead of later.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from models.domain.notices import Notice
from models.tables.base import document, instant, maybe_fen_column

KEPT = timedelta(days=90)
"""Longer than any provider repeats one, and longer than a statement is argued about."""
POLLS_MAX = 100
"""A session polls one order less often (actors/paying)."""


class ProviderNoticeRow(SQLModel, table=True):
    """A verified notification. `repeats` counts how often it came again; `hastened`: a poll was waiting for it."""

    __tablename__ = "provider_notice"
    __table_args__ = (Index("provider_notice_number", "number"), Index("provider_notice_received", "received_at"))
    provider: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    account: str
    kind: str
    number: str
    request_no: str
    provider_no: str
    status: str
    fen: int | None = maybe_fen_column()
    at: datetime = instant()
    agreement: dict[str, object] | None = document(nullable=True)
    received_at: datetime = instant()
    repeats: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    hastened: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


_WAITING = (
    # A settlement's call without a clear answer: the next run asks at once, whoever asked last.
    """UPDATE settlement_call SET lease_until = %(now)s
       WHERE request_number = %(number)s AND state = 'UNKNOWN' AND fen = %(fen)s AND lease_until > %(now)s""",
    # A withholding agreement that is being signed.
    """UPDATE member_agreement SET look_at = %(now)s
       WHERE number = %(number)s AND state = 'signing' AND look_at > %(now)s""",
)
"""What else waits for a number of ours, and is asked about at `now`. Every sweep asks about a membership's freeze: it
needs no hint."""


async def keep_notice(conn: AsyncConnection[Any], provider: str, notice: Notice, now: datetime) -> bool:
    """Keep a notification and hasten what waits for its number; True when something was. Repeated: counted, too.

    Only an order of ours, over the amount that we asked for, is hastened: the timer of its poll is due at once, by the
    same row that would have fired by itself. The caller commits: then, and only then, it is durable.
    """
    cursor = await conn.execute(
        """UPDATE timer SET due_at = %(now)s
           WHERE n IN (
             SELECT t.n FROM timer t JOIN entity e
               ON (e.region, e.store, e.kind, e.id) = (t.region, t.store, t.entity_kind, t.entity_id)
             WHERE t.clock = 'wall' AND t.kind = 'poll' AND t.ref = ANY(%(refs)s::text[])
             AND t.due_at > %(now)s AND jsonb_path_exists(
               e.state, '$.**.payment ? (@.order == $order).tenders[*] ? (@.fen == $fen)', %(vars)s))""",
        {
            "now": now,
            "refs": [f"{notice.number}:{n}" for n in range(POLLS_MAX)],
            "vars": Jsonb({"order": notice.number, "fen": notice.fen}),
        },
    )
    hastened = cursor.rowcount > 0
    for waiting in _WAITING:
        cursor = await conn.execute(waiting, {"now": now, "number": notice.number, "fen": notice.fen})
        hastened |= cursor.rowcount > 0
    await conn.execute(
        """INSERT INTO provider_notice (provider, id, account, kind, number, request_no, provider_no, status, fen, at,
             agreement, received_at, hastened)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (provider, id) DO UPDATE SET repeats = provider_notice.repeats + 1,
             hastened = provider_notice.hastened OR excluded.hastened""",
        (
            provider,
            notice.id,
            notice.account,
            str(notice.kind),
            notice.number,
            notice.request_no,
            notice.provider_no,
            notice.status,
            notice.fen,
            notice.at,
            None if notice.agreement is None else Jsonb(asdict(notice.agreement)),
            now,
            hastened,
        ),
    )
    return hastened


async def forget_notices(conn: AsyncConnection[Any], now: datetime, rows_max: int = 1_000) -> int:
    """Forget notifications older than KEPT, the oldest first; how many."""
    cursor = await conn.execute(
        """DELETE FROM provider_notice WHERE (provider, id) IN (
             SELECT provider, id FROM provider_notice WHERE received_at < %s ORDER BY received_at LIMIT %s)""",
        (now - KEPT, rows_max),
    )
    return cursor.rowcount
