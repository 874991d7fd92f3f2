"""Points as rows: every move of every account, written in the commit of the sale, void or return that caused it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow
from sqlalchemy import BigInteger, CheckConstraint, Column, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from models.domain.calendar import business_date
from models.domain.facts import Fact, SaleMade, SaleReturned, SaleVoided
from models.domain.ids import LegalEntityId, MemberId, SaleId, StoreId, derived_id
from models.domain.ledger import Place, mirror, transaction_id
from models.domain.points import POINTS, Move, MoveKind, balance, reversed_points, spendable
from models.domain.points_ledger import POINTS_MOVED, points_expired, points_moved
from models.tables.base import instant, maybe_instant
from models.tables.ledger import Booking, insert_transactions, load_transaction
from models.tables.persons import was_erased


class PointsMoveRow(SQLModel, table=True):
    """One move (models.domain.points.Move). `member` is null once the person was erased."""

    __tablename__ = "points_move"
    __table_args__ = (
        Index("points_move_member", "member", "brand"),
        Index("points_move_sale", "sale"),
        Index("points_move_expires", "expires_at"),
        CheckConstraint("points >= 0", name="points_count_up"),
    )
    id: str = Field(primary_key=True)
    brand: str
    owner: str
    member: str | None = None
    kind: str
    points: int = Field(sa_type=BigInteger)
    sale: str
    store: str
    at: datetime = instant()
    expires_at: datetime | None = maybe_instant()
    lines: list[tuple[int, int]] = Field(sa_column=Column(JSONB, nullable=False, server_default="[]"))


_COLUMNS = "id, brand, owner, member, kind, points, sale, store, at, expires_at, lines"


def _move(row: tuple[Any, ...]) -> Move:
    lines = tuple((line, fen) for line, fen in row[10])
    return Move(row[0], row[1], row[2], row[3], MoveKind(row[4]), row[5], row[6], row[7], row[8], row[9], lines)


async def load_moves(conn: AsyncConnection[Any], *, sale: str | None = None, member: str | None = None) -> list[Move]:
    """The moves of one sale, or of one member, in the order of their time."""
    column, value = ("sale", sale) if sale is not None else ("member", member)
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM points_move WHERE {column} = %s ORDER BY at, id", (value,))
    return [_move(row) for row in await cursor.fetchall()]


# ---------------------------------------------------------------- with the sale


async def moves_of(
    conn: AsyncConnection[TupleRow], facts: Sequence[tuple[Fact, str]]
) -> list[tuple[Fact, str, list[Move]]]:
    """The points that these facts move. A void or return undoes what its sale moved, which is read here; so is whose
    membership an offline sale names."""
    found: list[tuple[Fact, str, list[Move]]] = []
    for fact, trace in facts:
        moves: list[Move] = []
        if isinstance(fact, SaleMade):
            moves = sale_moves(fact, fact.member or await _member_of(conn, fact))
        elif isinstance(fact, SaleVoided | SaleReturned):
            past = await load_moves(conn, sale=fact.sale)
            if past and isinstance(fact, SaleVoided):
                moves = void_moves(fact, past)
            elif past and isinstance(fact, SaleReturned):
                moves = return_moves(fact, past, await _back_before(conn, fact))
        if moves:
            found.append((fact, trace, moves))
    return found


async def _member_of(conn: AsyncConnection[TupleRow], sale: SaleMade) -> MemberId | None:
    """Whose membership it is that an offline sale names; None when this database does not know it, or who it was is
    erased."""
    if sale.points is None or sale.membership is None:
        return None
    cursor = await conn.execute("SELECT member FROM membership WHERE id = %s", (sale.membership,))
    row = await cursor.fetchone()
    return None if row is None or await was_erased(conn, row[0]) else MemberId(row[0])


def sale_moves(sale: SaleMade, member: MemberId | None) -> list[Move]:
    """What a sale earns and burns for `member`; nothing for nobody."""
    points, burned = sale.points, sum(one.fen for one in sale.vouchers if one.voucher == POINTS)
    if points is None or member is None or not (points.earned or burned):
        return []

    def move(kind: MoveKind, count: int, expires_at: datetime | None, lines: tuple[tuple[int, int], ...]) -> Move:
        return Move(
            derived_id(sale.id, f"points_{kind}"), points.brand, points.owner, member, kind, count, sale.id,
            sale.store, sale.at, expires_at, lines,
        )  # fmt: skip

    # An EARN of 0 too: it says whose points they are, and how long what a return restores will live.
    earned = move(MoveKind.EARN, points.earned, points.expires_at, points.lines)
    return [earned, move(MoveKind.BURN, burned, None, ())] if burned else [earned]


def void_moves(void: SaleVoided, past: Sequence[Move]) -> list[Move]:
    """The whole sale undone: what it earned goes, what it burned comes back."""
    return _undone(void.id, void.store, void.at, past, _left(past, MoveKind.EARN), _left(past, MoveKind.BURN))


def return_moves(back: SaleReturned, past: Sequence[Move], before: Counter[int]) -> list[Move]:
    """A part of the sale undone. `before`: fen by line that earlier returns brought back."""
    earned = next((move for move in past if move.kind is MoveKind.EARN), None)
    if earned is None:
        return []
    came = before + Counter({line.line: line.net_fen for line in back.lines})
    gone = sum(move.points for move in past if move.kind is MoveKind.REVERSE)
    reverse = reversed_points(earned.points, earned.lines, came, gone)
    burned = sum(one.fen for one in back.vouchers if one.voucher == POINTS)
    return _undone(back.id, back.store, back.at, past, reverse, min(burned, _left(past, MoveKind.BURN)))


def _left(past: Sequence[Move], kind: MoveKind) -> int:
    """What of the sale's EARN or BURN nothing has undone yet."""
    undoes = MoveKind.REVERSE if kind is MoveKind.EARN else MoveKind.RESTORE
    return sum(move.points for move in past if move.kind is kind) - sum(
        move.points for move in past if move.kind is undoes
    )


def _undone(cause: str, store: StoreId, at: datetime, past: Sequence[Move], reverse: int, restore: int) -> list[Move]:
    first = next(move for move in past if move.kind is MoveKind.EARN)
    life = first.expires_at - first.at if first.expires_at is not None else None
    expires_at = at + life if life is not None else None
    return [
        Move(
            derived_id(cause, f"points_{kind}"), first.brand, first.owner, first.member, kind, points, first.sale,
            store, at, expires_at if kind is MoveKind.RESTORE else None,
        )
        for kind, points in ((MoveKind.REVERSE, reverse), (MoveKind.RESTORE, restore))
        if points
    ]  # fmt: skip


async def _back_before(conn: AsyncConnection[TupleRow], back: SaleReturned) -> Counter[int]:
    cursor = await conn.execute(
        """SELECT (line ->> 'line')::int, sum((line ->> 'net_fen')::bigint)::bigint
           FROM sale_return r, LATERAL jsonb_array_elements(r.lines) AS line
           WHERE r.sale = %s AND r.id <> %s GROUP BY 1""",
        (back.sale, back.id),
    )
    return Counter({row[0]: row[1] for row in await cursor.fetchall()})


async def points_bookings(
    conn: AsyncConnection[TupleRow], moved: Sequence[tuple[Fact, str, list[Move]]]
) -> list[Booking]:
    """What these moves mean in the ledger, each under the number of its sale, void or return."""
    bookings = []
    for fact, trace, moves in moved:
        if isinstance(fact, SaleMade | SaleReturned):
            place = Place(fact.store, fact.entity)
            bookings.append(Booking(points_moved(fact.id, moves, place, fact.business_date), fact.at, trace))
        elif isinstance(fact, SaleVoided):
            async with conn.cursor() as cursor:
                sale = await load_transaction(cursor, transaction_id(fact.sale, POINTS_MOVED))
            if sale is not None:
                undone = mirror(sale, fact.id, POINTS_MOVED, fact.business_date)
                bookings.append(Booking(undone, fact.at, trace))
    return bookings


async def save_moves(conn: AsyncConnection[Any], moves: Sequence[Move]) -> None:
    """Write them by one statement; a move that is known is left as it is. It may run in a pipeline."""
    if not moves:
        return
    await conn.execute(
        f"""INSERT INTO points_move ({_COLUMNS})
            SELECT {_COLUMNS} FROM json_populate_recordset(NULL::points_move, %s::json) ON CONFLICT (id) DO NOTHING""",
        (msgspec.json.encode(moves).decode(),),
    )


# ---------------------------------------------------------------- balances

# `move` is a member's rows: what is left, of it what is over at %(now)s unspent, and what open sales want to burn.
SPENDABLE = """
SELECT greatest(0, balance - greatest(0, over - taken)
                   - coalesce((SELECT sum(u.fen) FROM voucher_use u WHERE u.member = %(member)s
                               AND u.voucher = 'points' AND u.state = 'open'), 0))::bigint
FROM (SELECT coalesce(sum(CASE WHEN kind IN ('earn', 'restore') THEN points ELSE -points END), 0) AS balance,
             coalesce(sum(points) FILTER (WHERE expires_at <= %(now)s), 0) AS over,
             coalesce(sum(points) FILTER (WHERE kind NOT IN ('earn', 'restore')), 0) AS taken
      FROM points_move WHERE member = %(member)s) move
"""


async def spendable_points(cur: AsyncCursor[Any], member: str, now: datetime) -> int:
    """What this member may pay with at business time `now`: what open sales want to burn is not in it."""
    await cur.execute(SPENDABLE, {"member": member, "now": now})
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])


async def lock_points(cur: AsyncCursor[Any], member: str) -> None:
    """Nobody else reserves this member's points until the commit."""
    await cur.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"points:{member}",))


# Accounts with lots that are over and unspent. What an open sale wants to burn counts as taken: it was promised.
_OVER = """
SELECT brand, owner, member, over, taken, (over - taken - wanted)::bigint FROM (
    SELECT brand, (array_agg(owner ORDER BY at DESC, id))[1] AS owner, member,
           coalesce(sum(points) FILTER (WHERE expires_at <= %(now)s), 0)::bigint AS over,
           coalesce(sum(points) FILTER (WHERE kind NOT IN ('earn', 'restore')), 0)::bigint AS taken,
           coalesce((SELECT sum(u.fen) FROM voucher_use u WHERE u.member = m.member AND u.voucher = 'points'
                     AND u.state = 'open'), 0) AS wanted
    FROM points_move m
    WHERE (%(member)s::text IS NULL OR member = %(member)s) AND coalesce(member, '') > %(after)s
    GROUP BY brand, member) account
WHERE over > taken + wanted ORDER BY coalesce(member, ''), brand LIMIT %(limit)s
"""
EXPIRED_AT_ONCE = 500


async def expiry_day(conn: AsyncConnection[Any], now: datetime) -> date | None:
    """The business date of `now` by the zone of a store that gave points; None: no store ever did."""
    cursor = await conn.execute(
        "SELECT zone, cutoff_hour FROM store WHERE id = (SELECT store FROM points_move WHERE store <> '' LIMIT 1)"
    )
    row = await cursor.fetchone()
    return None if row is None else business_date(now, row[0], row[1])


async def expire_points(conn: AsyncConnection[Any], now: datetime) -> AsyncIterator[Move]:
    """Take what nobody spent in time, account by account, each with its posting in one commit, on `expiry_day`. A
    connection with autocommit."""
    found = await expiry_day(conn, now)
    if found is None:
        return
    day = found.isoformat()
    after = ""
    while True:
        cursor = await conn.execute(_OVER, {"now": now, "member": None, "after": after, "limit": EXPIRED_AT_ONCE})
        rows = await cursor.fetchall()
        for row in rows:
            moves = await _expire_account(conn, row[2], now, day) if row[2] is not None else []
            for move in moves:
                yield move
        if len(rows) < EXPIRED_AT_ONCE:
            return
        after = rows[-1][2] or ""


async def _expire_account(conn: AsyncConnection[Any], member: str, now: datetime, day: str) -> list[Move]:
    moves = []
    async with conn.transaction(), conn.cursor() as cur:
        await lock_points(cur, member)
        await cur.execute(_OVER, {"now": now, "member": member, "after": "", "limit": EXPIRED_AT_ONCE})
        for brand, owner, _, over, taken, points in await cur.fetchall():
            ident = derived_id(f"{brand}:{member}", f"expired:{over}:{taken}")
            nowhere = (SaleId(""), StoreId(""))
            moves.append(
                Move(ident, brand, LegalEntityId(owner), MemberId(member), MoveKind.EXPIRE, int(points), *nowhere, now)
            )
        if moves:
            await save_moves(conn, moves)
            await insert_transactions(cur, [points_expired(move, day) for move in moves], now)
    return moves


@dataclass(frozen=True, slots=True)
class Account:
    """A member's points in figures: balance = earned + restored - burned - reversed - expired."""

    brand: str
    balance: int
    spendable: int
    earned: int
    restored: int
    burned: int
    reversed: int
    expired: int
    next_expiry: datetime | None
    """When the next lot that is not over yet ends."""


async def load_accounts(conn: AsyncConnection[Any], member: str, now: datetime) -> list[Account]:
    """The member's accounts by brand; none for somebody who never had points."""
    moves = await load_moves(conn, member=member)
    return [account_of(brand, [one for one in moves if one.brand == brand], now) for brand in _brands(moves)]


def _brands(moves: Sequence[Move]) -> list[str]:
    return sorted({move.brand for move in moves})


def account_of(brand: str, moves: Sequence[Move], now: datetime) -> Account:
    """The figures of one brand's moves."""
    sums = Counter[MoveKind]()
    for move in moves:
        sums[move.kind] += move.points
    ends = [move.expires_at for move in moves if move.expires_at is not None and move.expires_at > now]
    return Account(
        brand=brand,
        balance=balance(moves),
        spendable=spendable(moves, now),
        earned=sums[MoveKind.EARN],
        restored=sums[MoveKind.RESTORE],
        burned=sums[MoveKind.BURN],
        reversed=sums[MoveKind.REVERSE],
        expired=sums[MoveKind.EXPIRE],
        next_expiry=min(ends) if ends else None,
    )
