"""Drawers in the database: shifts, what went in and out of them by hand, and every movement of cash by a sale.

Cash is noted in the commit of the sale that brought it, with no shift yet: the next count of that drawer takes what is
there, in one statement. So each movement belongs to exactly one shift, and selling never waits for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.domain.calendar import business_date
from models.domain.drawers import Move, MoveKind, ShiftState
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, StoreId
from models.domain.ledger import Place
from models.tables.base import fen_column, instant, maybe_fen_column, maybe_instant
from models.tables.ledger import Booking


class DrawerShiftRow(SQLModel, table=True):
    """The drawer's `n`-th shift, from 1. `counted_fen`, `expected_fen` are null until it is counted.

    `entity` is the store's when it began. `next_shift`: it was handed over to that one; empty once ended: to the safe.
    """

    __tablename__ = "drawer_shift"
    __table_args__ = (
        UniqueConstraint("store", "drawer", "n"),
        Index(
            "drawer_shift_current",
            "store",
            "drawer",
            unique=True,
            postgresql_where=text("state IN ('open', 'counted')"),
        ),
        Index("drawer_shift_date", "store", "business_date"),
        CheckConstraint(
            "state IN ('open', 'counted', 'ended') AND float_fen >= 0 AND (counted_fen IS NULL) = (state = 'open')",
            name="drawer_shift_formed",
        ),
    )
    id: str = Field(primary_key=True)
    store: str
    drawer: str
    n: int
    entity: str
    business_date: str = Field(max_length=10)
    state: str
    float_fen: int = fen_column()
    opened_at: datetime = instant()
    opened_by: str
    counted_fen: int | None = maybe_fen_column()
    expected_fen: int | None = maybe_fen_column()
    counted_at: datetime | None = maybe_instant()
    counted_by: str = ""
    ended_at: datetime | None = maybe_instant()
    ended_by: str = ""
    next_shift: str = ""


class DrawerMoveRow(SQLModel, table=True):
    """Cash put in, taken out or dropped into the safe during a shift."""

    __tablename__ = "drawer_move"
    __table_args__ = (
        Index("drawer_move_shift", "shift"),
        CheckConstraint("fen > 0 AND kind IN ('paid-in', 'paid-out', 'drop')", name="drawer_move_formed"),
    )
    id: str = Field(primary_key=True)
    shift: str
    kind: str
    fen: int = fen_column()
    reason: str
    by: str
    at: datetime = instant()


class DrawerCashRow(SQLModel, table=True):
    """What one booked transaction moved in one drawer: a sale's cash, what a return or a void gave back.

    `shift` is null until the drawer is counted.
    """

    __tablename__ = "drawer_cash"
    __table_args__ = (
        Index("drawer_cash_uncounted", "store", "drawer", postgresql_where=text("shift IS NULL")),
        Index("drawer_cash_shift", "shift"),
    )
    txn: str = Field(primary_key=True)
    store: str = Field(primary_key=True)
    drawer: str = Field(primary_key=True)
    fen: int = fen_column()
    at: datetime = instant()
    shift: str | None = None


class DrawerRequestRow(SQLModel, table=True):
    """A request number that was done: asked again, it changes nothing and gets the same shift."""

    __tablename__ = "drawer_request"
    number: str = Field(primary_key=True)
    what: str
    shift: str
    at: datetime = instant()


@dataclass(frozen=True, slots=True)
class Shift:
    """One row of drawer_shift."""

    id: str
    store: str
    drawer: str
    n: int
    entity: str
    business_date: str
    state: str
    float_fen: int
    opened_at: datetime
    opened_by: str
    counted_fen: int | None
    expected_fen: int | None
    counted_at: datetime | None
    counted_by: str
    ended_at: datetime | None
    ended_by: str
    next_shift: str

    @property
    def place(self) -> Place:
        """Where its entries are booked."""
        return Place(StoreId(self.store), LegalEntityId(self.entity))


@dataclass(frozen=True, slots=True)
class MoveLine:
    """A movement by hand, as it was noted."""

    kind: MoveKind
    fen: int
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OtherTender:
    """What a lane took otherwise than in cash between two moments, net of voids: for the paper beside the count."""

    kind: str
    sales: int
    fen: int


@dataclass(frozen=True, slots=True)
class StoreNow:
    """A store at a moment: whose it is, and its business date."""

    place: Place
    business_date: str


_SHIFT = ", ".join(Shift.__dataclass_fields__)


async def note_cash(conn: AsyncConnection[Any], bookings: Sequence[Booking]) -> None:
    """Note what these transactions move in drawers, in the commit that books them; one statement, or none."""
    rows = [
        (one.transaction.id, *entry.account.split(":", 2)[1:], entry.amount_fen, one.booked_at)
        for one in bookings
        for entry in one.transaction.entries
        if entry.account.startswith("till:")
    ]
    if rows:
        await conn.execute(
            """INSERT INTO drawer_cash (txn, store, drawer, fen, at)
               SELECT t, s, d, sum(f), min(a) FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[],
               %s::timestamptz[]) AS u(t, s, d, f, a) GROUP BY t, s, d ON CONFLICT DO NOTHING""",
            [list(column) for column in zip(*rows, strict=True)],
        )


async def lock_drawer(conn: AsyncConnection[Any], store: str, drawer: str) -> Shift | None:
    """The drawer's current or last shift; until the caller's transaction ends nobody else changes the drawer."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"drawer:{store}:{drawer}",))
    async with conn.cursor(row_factory=class_row(Shift)) as cursor:
        await cursor.execute(
            f"SELECT {_SHIFT} FROM drawer_shift WHERE store = %s AND drawer = %s ORDER BY n DESC LIMIT 1",
            (store, drawer),
        )
        return await cursor.fetchone()


async def store_now(conn: AsyncConnection[Any], store: str, drawer: str, now: datetime) -> StoreNow:
    """Raises Refused `unknown_drawer`: a drawer is a lane of the store."""
    cursor = await conn.execute(
        """SELECT s.zone, s.cutoff_hour FROM store s WHERE s.id = %s
           AND EXISTS (SELECT 1 FROM terminal t WHERE t.store = s.id AND t.lane = %s)""",
        (store, drawer),
    )
    row = await cursor.fetchone()
    if row is None:
        raise Refused("unknown_drawer", f"store {store!r} has no lane {drawer!r}", "see the store's lanes")
    day = business_date(now, row[0], row[1]).isoformat()
    # Before its first date a store is its first owner's, as in StoreBook.entity_at.
    cursor = await conn.execute(
        """(SELECT entity, 0 FROM store_entity WHERE store = %s AND from_date <= %s ORDER BY from_date DESC LIMIT 1)
           UNION ALL (SELECT entity, 1 FROM store_entity WHERE store = %s ORDER BY from_date LIMIT 1) ORDER BY 2""",
        (store, day, store),
    )
    owner = await cursor.fetchone()
    if owner is None:
        raise Refused("unknown_drawer", f"nobody owns {store!r}", "see the chain's file")
    return StoreNow(Place(StoreId(store), LegalEntityId(owner[0])), day)


async def request_done(conn: AsyncConnection[Any], number: str, what: str) -> str | None:
    """The shift that this request number was about; None: it is new. Raises Refused `number_reused`."""
    cursor = await conn.execute("SELECT what, shift FROM drawer_request WHERE number = %s", (number,))
    row = await cursor.fetchone()
    if row is None:
        return None
    if row[0] != what:
        raise Refused("number_reused", f"{number} was another request", "use a new number")
    return str(row[1])


async def save_request(conn: AsyncConnection[Any], number: str, what: str, shift: str, now: datetime) -> None:
    """This number is done."""
    await conn.execute(
        "INSERT INTO drawer_request (number, what, shift, at) VALUES (%s, %s, %s, %s)", (number, what, shift, now)
    )


async def insert_shift(
    conn: AsyncConnection[Any],
    ident: str,
    drawer: str,
    n: int,
    at: StoreNow,
    float_fen: int,
    by: str,
    now: datetime,
) -> None:
    """The drawer's next shift begins."""
    await conn.execute(
        """INSERT INTO drawer_shift (id, store, drawer, n, entity, business_date, state, float_fen, opened_at,
             opened_by, counted_by, ended_by, next_shift)
           VALUES (%s, %s, %s, %s, %s, %s, 'open', %s, %s, %s, '', '', '')""",
        (ident, at.place.store, drawer, n, at.place.entity, at.business_date, float_fen, now, by),
    )


async def insert_move(conn: AsyncConnection[Any], ident: str, shift: str, move: MoveLine) -> None:
    """Something was put in or taken out by hand."""
    await conn.execute(
        "INSERT INTO drawer_move (id, shift, kind, fen, reason, by, at) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (ident, shift, move.kind.value, move.fen, move.reason, move.by, move.at),
    )


async def take_cash(conn: AsyncConnection[Any], shift: Shift) -> list[int]:
    """What sales moved in the drawer since its last count is this shift's from now on; what, movement by movement."""
    cursor = await conn.execute(
        "UPDATE drawer_cash SET shift = %s WHERE store = %s AND drawer = %s AND shift IS NULL RETURNING fen",
        (shift.id, shift.store, shift.drawer),
    )
    return [row[0] for row in await cursor.fetchall()]


async def save_count(
    conn: AsyncConnection[Any], shift: str, counted_fen: int, expected_fen: int, by: str, now: datetime
) -> None:
    """The shift was counted."""
    await conn.execute(
        "UPDATE drawer_shift SET state = 'counted', counted_fen = %s, expected_fen = %s, counted_by = %s,"
        " counted_at = %s WHERE id = %s",
        (counted_fen, expected_fen, by, now, shift),
    )


async def save_end(conn: AsyncConnection[Any], shift: str, next_shift: str, by: str, now: datetime) -> None:
    """The shift is over."""
    await conn.execute(
        "UPDATE drawer_shift SET state = 'ended', next_shift = %s, ended_by = %s, ended_at = %s WHERE id = %s",
        (next_shift, by, now, shift),
    )


async def load_shift(conn: AsyncConnection[Any], ident: str) -> Shift | None:
    """One shift, by its id."""
    async with conn.cursor(row_factory=class_row(Shift)) as cursor:
        await cursor.execute(f"SELECT {_SHIFT} FROM drawer_shift WHERE id = %s", (ident,))
        return await cursor.fetchone()


async def list_shifts(
    conn: AsyncConnection[Any], store: str, *, day: str = "", drawer: str = "", limit: int = 200
) -> list[Shift]:
    """A store's shifts, the newest first."""
    async with conn.cursor(row_factory=class_row(Shift)) as cursor:
        await cursor.execute(
            f"""SELECT {_SHIFT} FROM drawer_shift WHERE store = %s AND (%s = '' OR business_date = %s)
                AND (%s = '' OR drawer = %s) ORDER BY opened_at DESC, drawer, n DESC LIMIT %s""",
            (store, day, day, drawer, drawer, limit),
        )
        return await cursor.fetchall()


async def drawers_of(conn: AsyncConnection[Any], store: str) -> list[tuple[str, Shift | None]]:
    """Each drawer of a store (its lanes, and whatever held cash before) with its current shift, if it has one."""
    cursor = await conn.execute(
        """SELECT lane FROM terminal WHERE store = %s AND retired_at IS NULL AND revoked_at IS NULL
           UNION SELECT drawer FROM drawer_shift WHERE store = %s AND state <> 'ended'
           UNION SELECT drawer FROM drawer_cash WHERE store = %s AND shift IS NULL ORDER BY 1""",
        (store, store, store),
    )
    names = [row[0] for row in await cursor.fetchall()]
    async with conn.cursor(row_factory=class_row(Shift)) as found:
        await found.execute(f"SELECT {_SHIFT} FROM drawer_shift WHERE store = %s AND state <> 'ended'", (store,))
        current = {one.drawer: one for one in await found.fetchall()}
    return [(name, current.get(name)) for name in names]


async def moves_of(conn: AsyncConnection[Any], shift: str) -> list[MoveLine]:
    """What was put in and taken out by hand, in order."""
    cursor = await conn.execute(
        "SELECT kind, fen, reason, by, at FROM drawer_move WHERE shift = %s ORDER BY at, id", (shift,)
    )
    return [MoveLine(MoveKind(row[0]), *row[1:]) for row in await cursor.fetchall()]


async def cash_of(conn: AsyncConnection[Any], shift: Shift) -> tuple[list[int], list[int]]:
    """What sales brought, and what returns and voids took (negative), of a shift; of an open one so far."""
    cursor = await conn.execute(
        """SELECT fen FROM drawer_cash WHERE store = %s AND drawer = %s
           AND (shift = %s OR (%s AND shift IS NULL)) ORDER BY at, txn""",
        (shift.store, shift.drawer, shift.id, shift.state == ShiftState.OPEN),
    )
    moved = [row[0] for row in await cursor.fetchall()]
    return [fen for fen in moved if fen > 0], [fen for fen in moved if fen <= 0]


async def other_tenders(conn: AsyncConnection[Any], shift: Shift, until: datetime) -> list[OtherTender]:
    """What the lane took by card, code and so on while the shift had the drawer, by kind; voided sales left out."""
    cursor = await conn.execute(
        """SELECT t->>'kind', count(*), sum((t->>'fen')::bigint)::bigint
           FROM sale s, LATERAL jsonb_array_elements(s.tenders) t
           WHERE s.store = %s AND s.lane = %s AND s.at >= %s AND s.at < %s AND s.voided_at IS NULL
             AND s.business_date >= %s AND t->>'kind' NOT IN ('cash', 'coupon') GROUP BY 1 ORDER BY 1""",
        (shift.store, shift.drawer, shift.opened_at, until, shift.business_date),
    )
    return [OtherTender(*row) for row in await cursor.fetchall()]


async def uncounted(conn: AsyncConnection[Any], entity: str, day: str) -> list[str]:
    """Drawers (`store/drawer`) of an entity whose shift of that business date, or an earlier one, nobody counted."""
    cursor = await conn.execute(
        "SELECT store || '/' || drawer FROM drawer_shift WHERE entity = %s AND state = 'open' AND business_date <= %s"
        " ORDER BY 1",
        (entity, day),
    )
    return [row[0] for row in await cursor.fetchall()]


def as_moves(lines: Sequence[MoveLine]) -> list[Move]:
    """What of them a rule needs."""
    return [Move(one.kind, one.fen) for one in lines]
