"""Uses of benefits as rows: reserved, posted, reversed. All under the membership's row lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor

from models.domain.charging import UseClass
from models.domain.ids import LegalEntityId, MembershipId, StoreId
from models.domain.ledger import Place
from models.domain.messages import SaleUse

# An open question of the visit (payment or posting) may still turn the reservation into a use.
_RESOLVE = """
UPDATE reservation r SET state = 'released'
WHERE r.membership = ANY(%(memberships)s) AND r.state = 'open' AND r.expires_at <= %(wall_now)s
  AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.done_at IS NULL AND o.request ->> 'session' = r.session)
"""


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation that is open: its class and the moment it was classed at."""

    fen: int
    use_class: UseClass
    biz_time: datetime


async def release_expired(cur: AsyncCursor[Any], memberships: Sequence[str], wall_now: datetime) -> int:
    """Free reservations past their wall expiry of visits with no question open; returns how many."""
    await cur.execute(_RESOLVE, {"memberships": list(memberships), "wall_now": wall_now})
    return cur.rowcount


async def reservations_of(cur: AsyncCursor[Any], usages: Sequence[str]) -> dict[str, tuple[str, Reserved]]:
    """Reservations of these uses: usage -> (state, what was reserved)."""
    await cur.execute(
        "SELECT usage, state, fen, class, biz_time FROM reservation WHERE usage = ANY(%s)", (list(usages),)
    )
    return {row[0]: (row[1], Reserved(row[2], UseClass(row[3]), row[4])) for row in await cur.fetchall()}


async def save_reservations(
    cur: AsyncCursor[Any],
    uses: Sequence[SaleUse],
    *,
    session: str,
    store: str,
    biz_time: datetime,
    expires_at: datetime,
) -> None:
    """Reserve, or renew until `expires_at` (wall time). A reservation that became a use stays as it is."""
    await cur.execute(
        "INSERT INTO reservation (usage, membership, benefit, fen, session, store, state, class, biz_time, expires_at)"
        " SELECT usage, membership, benefit, fen, %(session)s, %(store)s, 'open', 'REGULAR', %(biz_time)s, %(until)s"
        " FROM unnest(%(usages)s::text[], %(memberships)s::text[], %(benefits)s::text[], %(fens)s::bigint[])"
        " AS u(usage, membership, benefit, fen)"
        " ON CONFLICT (usage) DO UPDATE SET state = 'open', expires_at = excluded.expires_at"
        " WHERE reservation.state <> 'posted'",
        {
            "session": session,
            "store": store,
            "biz_time": biz_time,
            "until": expires_at,
            "usages": [use.usage for use in uses],
            "memberships": [use.membership for use in uses],
            "benefits": [use.benefit for use in uses],
            "fens": [use.fen for use in uses],
        },
    )


async def end_reservations(cur: AsyncCursor[Any], usages: Sequence[str], state: str) -> None:
    """Open reservations end as `posted` or `released`."""
    await cur.execute(
        "UPDATE reservation SET state = %s WHERE usage = ANY(%s) AND state <> 'posted'", (state, list(usages))
    )


# ---------------------------------------------------------------- uses


@dataclass(frozen=True, slots=True)
class UsageLine:
    """One use as it is kept."""

    use: SaleUse
    use_class: UseClass
    reversed_fen: int
    paid_fen: int
    biz_time: datetime
    received_at: datetime
    place: Place
    terminal: str
    sale: str
    seq: int
    clerk: str | None


async def insert_use(cur: AsyncCursor[Any], line: UsageLine) -> None:
    """A new line. The caller has looked for its id under the membership's lock."""
    use = line.use
    await cur.execute(
        "INSERT INTO usage (id, membership, benefit, fen, class, paid_fen, reversed_fen, biz_time, received_at,"
        " entity, store, terminal, sale, seq, clerk, lease)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            use.usage, use.membership, use.benefit, use.fen, line.use_class, line.paid_fen, line.reversed_fen,
            line.biz_time, line.received_at, line.place.entity, line.place.store, line.terminal, line.sale,
            line.seq, line.clerk, use.lease,
        ),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownUse:
    """What a reversal needs to know of a use."""

    use_class: UseClass
    fen: int
    reversed_fen: int
    place: Place
    biz_time: datetime


async def known_uses(cur: AsyncCursor[Any], usages: Sequence[str]) -> dict[str, KnownUse]:
    """Those of these uses that have arrived."""
    await cur.execute(
        "SELECT id, class, fen, reversed_fen, store, entity, biz_time FROM usage WHERE id = ANY(%s)", (list(usages),)
    )
    return {
        row[0]: KnownUse(UseClass(row[1]), row[2], row[3], Place(StoreId(row[4]), LegalEntityId(row[5])), row[6])
        for row in await cur.fetchall()
    }


async def homes_of(cur: AsyncCursor[Any], usages: Sequence[str]) -> dict[str, MembershipId]:
    """Whose these uses are, of those that have arrived: a terminal may name another generation."""
    await cur.execute("SELECT id, membership FROM usage WHERE id = ANY(%s)", (list(usages),))
    return {row[0]: MembershipId(row[1]) for row in await cur.fetchall()}


async def insert_reversal(cur: AsyncCursor[Any], reversal: str, usage: str, fen: int, at: datetime) -> bool:
    """Keep a reversal; False when this id is known already and must be ignored."""
    await cur.execute(
        'INSERT INTO usage_reversal (id, usage, fen, "at") VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING',
        (reversal, usage, fen, at),
    )
    return cur.rowcount == 1


async def tombstones_of(cur: AsyncCursor[Any], usage: str) -> list[tuple[str, int]]:
    """Reversals that arrived before their use: (id, fen), in order of arrival."""
    await cur.execute('SELECT id, fen FROM usage_reversal WHERE usage = %s ORDER BY "at", id', (usage,))
    return [(row[0], row[1]) for row in await cur.fetchall()]


async def save_reversed(cur: AsyncCursor[Any], usage: str, reversed_fen: int) -> None:
    """The sum of a use's reversals, capped at its fen."""
    await cur.execute("UPDATE usage SET reversed_fen = %s WHERE id = %s", (reversed_fen, usage))


async def add_used(cur: AsyncCursor[Any], membership: str, fen: int) -> None:
    """Move u by `fen`, up for a REGULAR use, down for its reversal."""
    await cur.execute("UPDATE membership SET used_fen = used_fen + %s WHERE id = %s", (fen, membership))


async def count_task(cur: AsyncCursor[Any], membership: str, *, in_fen: bool) -> int:
    """The task's progress from the lines, kept in the row: sales with a REGULAR use that is not wholly reversed, or
    (`in_fen`) the sum of what those sales took.
    """
    done = "coalesce(sum(paid_fen), 0)" if in_fen else "count(*)"
    await cur.execute(
        f"UPDATE membership SET task_done = (SELECT {done} FROM (SELECT max(paid_fen) AS paid_fen FROM usage"
        " WHERE membership = %(id)s AND class = 'REGULAR' AND reversed_fen < fen GROUP BY sale) AS sales)"
        " WHERE id = %(id)s RETURNING task_done",
        {"id": membership},
    )
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])
