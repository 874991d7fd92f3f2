"""Vouchers as rows: what is left of their quotas, and each use from reservation to return.

A voucher with a quota is counted under its row's lock; one without takes no lock, its uses are only written down.
Definitions are in the chain's book (models.domain.voucher_reader); a row here is what they are counted by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor
from sqlalchemy import BigInteger, ForeignKeyConstraint, Index
from sqlmodel import Field, SQLModel

from models.domain.messages import SaleVoucher
from models.domain.vouchers import Voucher
from models.tables.base import fen_column, instant, maybe_instant


class VoucherRow(SQLModel, table=True):
    """One voucher of a chain. `taken`: uses reserved or booked, counted only where there is a quota."""

    __tablename__ = "voucher"
    chain: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    code: str
    quota: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    member_quota: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    taken: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})


class VoucherUseRow(SQLModel, table=True):
    """One use in one sale: open (reserved), posted, released, or returned. `over`: beyond its quota when booked."""

    __tablename__ = "voucher_use"
    __table_args__ = (
        ForeignKeyConstraint(["chain", "voucher"], ["voucher.chain", "voucher.id"]),
        Index("voucher_use_member", "chain", "voucher", "member", "state"),
    )
    id: str = Field(primary_key=True)
    chain: str
    voucher: str
    member: str | None = None
    session: str
    store: str
    sale: str = ""
    terminal: str = ""
    fen: int = fen_column()
    returned_fen: int = fen_column(default=0)
    funder: str
    state: str
    over: bool = False
    at: datetime = instant()
    expires_at: datetime | None = maybe_instant()


class VoucherReturnRow(SQLModel, table=True):
    """What of a use came back: kept also when it arrives before the use was booked."""

    __tablename__ = "voucher_return"
    id: str = Field(primary_key=True)
    use: str = Field(index=True)
    fen: int = fen_column()
    at: datetime = instant()


async def save_vouchers(cur: AsyncCursor[Any], chain: str, vouchers: Sequence[Voucher]) -> None:
    """What the book defines is counted from now on, by its newest quotas."""
    await cur.executemany(
        """INSERT INTO voucher (chain, id, code, quota, member_quota) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (chain, id) DO UPDATE SET code = excluded.code, quota = excluded.quota,
             member_quota = excluded.member_quota""",
        [(chain, one.id, one.code, one.quota, one.member_quota) for one in vouchers],
    )


@dataclass(frozen=True, slots=True)
class Quota:
    """What bounds a voucher, and how many uses are taken."""

    quota: int | None
    member_quota: int | None
    taken: int

    @property
    def counted(self) -> bool:
        """Its uses are counted under its row's lock."""
        return self.quota is not None or self.member_quota is not None


async def lock_vouchers(cur: AsyncCursor[Any], chain: str, vouchers: Sequence[str]) -> dict[str, Quota]:
    """These vouchers' bounds. Those that have any are held until the commit, in one order: nobody waits in a circle."""
    ids = sorted(set(vouchers))
    await cur.execute("SELECT id, quota, member_quota FROM voucher WHERE chain = %s AND id = ANY(%s)", (chain, ids))
    known = {row[0]: Quota(row[1], row[2], 0) for row in await cur.fetchall()}
    held = [one for one in ids if one in known and known[one].counted]
    if held:
        await cur.execute(
            "SELECT id, quota, member_quota, taken FROM voucher WHERE chain = %s AND id = ANY(%s)"
            " ORDER BY id FOR UPDATE",
            (chain, held),
        )
        known.update({row[0]: Quota(row[1], row[2], row[3]) for row in await cur.fetchall()})
    return known


async def taken_by(cur: AsyncCursor[Any], chain: str, vouchers: Sequence[str], member: str) -> Counter[str]:
    """How often this member has these vouchers, reserved or booked."""
    await cur.execute(
        "SELECT voucher, count(*) FROM voucher_use WHERE chain = %s AND voucher = ANY(%s) AND member = %s"
        " AND state IN ('open', 'posted') GROUP BY voucher",
        (chain, list(vouchers), member),
    )
    return Counter({row[0]: row[1] for row in await cur.fetchall()})


async def states_of(cur: AsyncCursor[Any], uses: Sequence[str]) -> dict[str, str]:
    """Those of these uses that are known: use -> state."""
    await cur.execute("SELECT id, state FROM voucher_use WHERE id = ANY(%s)", (list(uses),))
    return {row[0]: row[1] for row in await cur.fetchall()}


async def vouchers_of(cur: AsyncCursor[Any], uses: Sequence[str]) -> list[tuple[str, str]]:
    """Chain and voucher of those of these uses that are known."""
    await cur.execute("SELECT DISTINCT chain, voucher FROM voucher_use WHERE id = ANY(%s)", (list(uses),))
    return [(row[0], row[1]) for row in await cur.fetchall()]


# As reservations of benefits: an open question of the visit may still turn one into a use.
_EXPIRED = """
WITH gone AS (
  UPDATE voucher_use u SET state = 'released'
  WHERE u.chain = %(chain)s AND u.voucher = ANY(%(vouchers)s) AND u.state = 'open' AND u.expires_at <= %(wall_now)s
    AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.done_at IS NULL AND o.request ->> 'session' = u.session)
  RETURNING u.voucher
)
SELECT voucher, count(*) FROM gone GROUP BY voucher
"""


async def release_expired(cur: AsyncCursor[Any], chain: str, vouchers: Sequence[str], wall_now: datetime) -> None:
    """Free reservations past their wall expiry of visits with no question open. The vouchers are locked."""
    await cur.execute(_EXPIRED, {"chain": chain, "vouchers": list(vouchers), "wall_now": wall_now})
    for voucher, count in await cur.fetchall():
        await add_taken(cur, chain, voucher, -count)


async def add_taken(cur: AsyncCursor[Any], chain: str, voucher: str, uses: int) -> None:
    """Move the count of a voucher that has a quota."""
    await cur.execute(
        "UPDATE voucher SET taken = taken + %s WHERE chain = %s AND id = %s"
        " AND (quota IS NOT NULL OR member_quota IS NOT NULL)",
        (uses, chain, voucher),
    )


@dataclass(frozen=True, slots=True)
class UseOf:
    """Whose use it is, and where."""

    chain: str
    member: str | None
    session: str
    store: str
    at: datetime
    sale: str = ""
    terminal: str = ""


async def save_use(
    cur: AsyncCursor[Any],
    of: UseOf,
    voucher: SaleVoucher,
    state: str,
    *,
    returned_fen: int = 0,
    over: bool = False,
    expires_at: datetime | None = None,
) -> None:
    """Write a use, or move it to `state`; what is booked keeps what the sale says."""
    await cur.execute(
        """INSERT INTO voucher_use (id, chain, voucher, member, session, store, sale, terminal, fen, returned_fen,
             funder, state, over, at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO UPDATE SET state = excluded.state, sale = excluded.sale, terminal = excluded.terminal,
             fen = excluded.fen, returned_fen = excluded.returned_fen, over = excluded.over, at = excluded.at,
             expires_at = excluded.expires_at""",
        (
            voucher.use, of.chain, voucher.voucher, of.member, of.session, of.store, of.sale, of.terminal, voucher.fen,
            returned_fen, voucher.funder, state, over, of.at, expires_at,
        ),
    )  # fmt: skip


async def release(cur: AsyncCursor[Any], uses: Sequence[str]) -> list[tuple[str, str]]:
    """Open reservations end; gives chain and voucher of each that did. Their vouchers are locked."""
    await cur.execute(
        "UPDATE voucher_use SET state = 'released' WHERE id = ANY(%s) AND state = 'open' RETURNING chain, voucher",
        (list(uses),),
    )
    return [(row[0], row[1]) for row in await cur.fetchall()]


async def insert_return(cur: AsyncCursor[Any], return_id: str, use: str, fen: int, at: datetime) -> bool:
    """Keep what came back; False when this id is known already."""
    await cur.execute(
        'INSERT INTO voucher_return (id, use, fen, "at") VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING',
        (return_id, use, fen, at),
    )
    return cur.rowcount == 1


async def returned_fen(cur: AsyncCursor[Any], use: str) -> int:
    """What of a use came back so far, as told."""
    await cur.execute("SELECT coalesce(sum(fen), 0)::bigint FROM voucher_return WHERE use = %s", (use,))
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])


async def add_returned(cur: AsyncCursor[Any], use: str, fen: int) -> tuple[str, str] | None:
    """Note a return of a booked use; chain and voucher when all of it is back now, and its place free again."""
    await cur.execute(
        """UPDATE voucher_use SET returned_fen = least(fen, returned_fen + %(fen)s),
             state = CASE WHEN returned_fen + %(fen)s >= fen THEN 'returned' ELSE state END
           WHERE id = %(use)s AND state = 'posted' RETURNING chain, voucher, state""",
        {"use": use, "fen": fen},
    )
    row = await cur.fetchone()
    return (row[0], row[1]) if row is not None and row[2] == "returned" else None
