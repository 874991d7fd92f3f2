"""A member's own means of payment as rows: the balance and its moves, withholding agreements and what they paid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from models.domain.calendar import business_date
from models.domain.errors import Refused
from models.domain.events import TenderKind
from models.domain.ids import LegalEntityId
from models.domain.member_balance import BalanceMove, MoveKind
from models.tables.base import fen_column, instant, maybe_instant

Connection = AsyncConnection[Any]


class MemberBalanceRow(SQLModel, table=True):
    """What a member has with us; its row is the lock under which it changes. `owner` owes it, for good."""

    __tablename__ = "member_balance"
    __table_args__ = (CheckConstraint("fen >= 0", name="member_balance_not_negative"),)
    member: str = Field(primary_key=True)
    chain: str
    owner: str
    fen: int = fen_column()


class BalanceMoveRow(SQLModel, table=True):
    """One change of a balance (models.domain.member_balance). An UNDO of 0 ends an order that was never paid."""

    __tablename__ = "balance_move"
    __table_args__ = (
        Index("balance_move_member", "member", "at"),
        Index("balance_move_order", "order", postgresql_where=text("\"order\" <> ''")),
        CheckConstraint("fen >= 0 AND left_fen >= 0", name="balance_move_counts_up"),
    )
    number: str = Field(primary_key=True)
    member: str
    kind: str
    fen: int = fen_column()
    left_fen: int = fen_column()
    order: str
    store: str
    entity: str
    at: datetime = instant()
    by: str


class BalanceHoldRow(SQLModel, table=True):
    """A member's own money that stands behind a membership (account member_deposit). It changes under the balance's
    lock. `number` is ours of the hold, `entity` whose membership it is, `taken_fen` what was captured.
    """

    __tablename__ = "balance_hold"
    __table_args__ = (
        Index("balance_hold_held", "member", postgresql_where=text("state = 'held'")),
        CheckConstraint("fen > 0 AND taken_fen >= 0 AND taken_fen <= fen", name="balance_hold_covers"),
        CheckConstraint("state IN ('held', 'over')", name="balance_hold_formed"),
    )
    number: str = Field(primary_key=True)
    member: str
    entity: str
    store: str
    fen: int = fen_column()
    taken_fen: int = fen_column()
    state: str
    at: datetime = instant()


class MemberAgreementRow(SQLModel, table=True):
    """A member's withholding agreement with the merchant account of one company. One lives at a time.

    `look_at`: when the provider is asked next whether it was signed. The limits are ours, below the provider's own.
    """

    __tablename__ = "member_agreement"
    __table_args__ = (
        Index(
            "member_agreement_live",
            "member",
            "entity",
            "provider",
            unique=True,
            postgresql_where=text("state IN ('signing', 'active')"),
        ),
        Index("member_agreement_signing", "look_at", postgresql_where=text("state = 'signing'")),
        CheckConstraint("payment_fen_max > 0 AND day_fen_max >= payment_fen_max", name="member_agreement_limits"),
    )
    number: str = Field(primary_key=True, max_length=32)
    chain: str
    member: str
    entity: str
    provider: str
    agreement_no: str
    payer: str
    payment_fen_max: int = fen_column()
    day_fen_max: int = fen_column()
    state: str
    code_text: str
    look_at: datetime = instant()
    asked_at: datetime = instant()
    asked_by: str
    signed_at: datetime | None = maybe_instant()
    ended_at: datetime | None = maybe_instant()


class AgreementPaymentRow(SQLModel, table=True):
    """A payment under an agreement, written before the provider is asked. `freed`: nothing was taken under it."""

    __tablename__ = "agreement_payment"
    __table_args__ = (Index("agreement_payment_day", "agreement", "day"),)
    order: str = Field(primary_key=True)
    agreement: str
    fen: int = fen_column()
    day: str = Field(max_length=10)
    at: datetime = instant()
    freed: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


@dataclass(frozen=True, slots=True)
class Balance:
    """A member's balance, and whose debt it is."""

    owner: LegalEntityId
    fen: int


@dataclass(frozen=True, slots=True)
class BalanceHold:
    """What is reserved for one membership; over once it was captured or released."""

    number: str
    member: str
    entity: LegalEntityId
    store: str
    fen: int
    taken_fen: int
    state: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """A withholding agreement; `state` is signing, active or ended."""

    number: str
    chain: str
    member: str
    entity: LegalEntityId
    provider: str
    agreement_no: str
    payer: str
    payment_fen_max: int
    day_fen_max: int
    state: str
    code_text: str
    asked_at: datetime
    signed_at: datetime | None
    ended_at: datetime | None


# ---------------------------------------------------------------- balances


async def balance_of(conn: Connection, member: str, *, lock: bool = False) -> Balance | None:
    """None: the member never had one. With `lock` nobody else moves it until the commit."""
    cursor = await conn.execute(
        f"SELECT owner, fen FROM member_balance WHERE member = %s{' FOR UPDATE' if lock else ''}", (member,)
    )
    row = await cursor.fetchone()
    return None if row is None else Balance(*row)


async def begin_balance(conn: Connection, member: str) -> None:
    """Have one, of 0. The company that owns the chain's plans owes it, else that of the member's home store.

    Raises Refused `unknown_member`.
    """
    cursor = await conn.execute(
        """INSERT INTO member_balance (member, chain, owner, fen)
           SELECT m.id, m.chain, coalesce(
             (SELECT p.owner FROM plan p WHERE p.chain = m.chain ORDER BY p.id, p.version DESC LIMIT 1),
             (SELECT e.entity FROM store_entity e WHERE e.store = m.home_store ORDER BY e.from_date DESC LIMIT 1)), 0
           FROM member m WHERE m.id = %s ON CONFLICT (member) DO NOTHING""",
        (member,),
    )
    if not cursor.rowcount and await balance_of(conn, member) is None:
        raise Refused("unknown_member", f"there is no member {member!r}", "look them up in the console")


async def save_move(conn: Connection, move: BalanceMove) -> None:
    """Write a move, and what it leaves. The caller holds the balance's lock."""
    await conn.execute(
        """INSERT INTO balance_move (number, member, kind, fen, left_fen, "order", store, entity, at, by)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            move.number, move.member, str(move.kind), move.fen, move.left_fen, move.order, move.store, move.entity,
            move.at, move.by,
        ),
    )  # fmt: skip
    await conn.execute("UPDATE member_balance SET fen = %s WHERE member = %s", (move.left_fen, move.member))


_MOVE = 'number, member, kind, fen, left_fen, "order", store, entity, at, by'


async def move_named(conn: Connection, number: str) -> BalanceMove | None:
    """The move of this number; None: there is none yet."""
    cursor = await conn.execute(f"SELECT {_MOVE} FROM balance_move WHERE number = %s", (number,))
    row = await cursor.fetchone()
    return None if row is None else _move(row)


async def moves_of_order(conn: Connection, order: str) -> list[BalanceMove]:
    """A payment's spend and what undid it."""
    cursor = await conn.execute(f'SELECT {_MOVE} FROM balance_move WHERE "order" = %s ORDER BY at', (order,))
    return [_move(row) for row in await cursor.fetchall()]


async def moves_of(conn: Connection, member: str, limit: int) -> list[BalanceMove]:
    """A member's moves, the newest first."""
    cursor = await conn.execute(
        f"SELECT {_MOVE} FROM balance_move WHERE member = %s AND fen > 0 ORDER BY at DESC, number LIMIT %s",
        (member, limit),
    )
    return [_move(row) for row in await cursor.fetchall()]


def _move(row: tuple[Any, ...]) -> BalanceMove:
    return BalanceMove(row[0], row[1], MoveKind(row[2]), *row[3:])


async def business_day(conn: Connection, store: str, now: datetime) -> str:
    """The store's business date at business time `now`."""
    cursor = await conn.execute("SELECT zone, cutoff_hour FROM store WHERE id = %s", (store,))
    row = await cursor.fetchone()
    if row is None:
        raise Refused("unknown_store", f"there is no store {store!r}", "see the chain's file")
    return business_date(now, row[0], row[1]).isoformat()


# ---------------------------------------------------------------- what stands behind memberships


async def hold_named(conn: Connection, number: str, *, lock: bool = False) -> BalanceHold | None:
    """The hold of this number. With `lock` neither it nor its member's balance moves until the commit."""
    if lock:
        await conn.execute(
            "SELECT 1 FROM member_balance b JOIN balance_hold h ON h.member = b.member WHERE h.number = %s"
            " FOR UPDATE OF b",
            (number,),
        )
    cursor = await conn.execute(
        "SELECT number, member, entity, store, fen, taken_fen, state FROM balance_hold WHERE number = %s", (number,)
    )
    row = await cursor.fetchone()
    return None if row is None else BalanceHold(*row)


async def insert_hold(conn: Connection, hold: BalanceHold, at: datetime) -> None:
    """A hold that was not there before."""
    await conn.execute(
        "INSERT INTO balance_hold (number, member, entity, store, fen, taken_fen, state, at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (hold.number, hold.member, hold.entity, hold.store, hold.fen, hold.taken_fen, hold.state, at),
    )


async def end_hold(conn: Connection, number: str, taken_fen: int) -> None:
    """It is over, and this much of it was captured."""
    await conn.execute("UPDATE balance_hold SET state = 'over', taken_fen = %s WHERE number = %s", (taken_fen, number))


async def lane_of(conn: Connection, store: str, terminal: str) -> str:
    """The drawer beside a terminal. Raises Refused `unknown_drawer`."""
    cursor = await conn.execute("SELECT lane FROM terminal WHERE id = %s AND store = %s", (terminal, store))
    row = await cursor.fetchone()
    if row is None:
        raise Refused("unknown_drawer", f"{terminal!r} is no terminal of {store!r}", "register it")
    return str(row[0])


# ---------------------------------------------------------------- agreements

_AGREEMENT = ", ".join(Agreement.__dataclass_fields__)


async def _agreements(conn: Connection, where: str, *values: object) -> list[Agreement]:
    async with conn.cursor(row_factory=class_row(Agreement)) as cursor:
        await cursor.execute(f"SELECT {_AGREEMENT} FROM member_agreement WHERE {where}", values)
        return await cursor.fetchall()


async def agreement_named(conn: Connection, number: str) -> Agreement | None:
    """By our number."""
    return next(iter(await _agreements(conn, "number = %s", number)), None)


async def agreements_of(conn: Connection, member: str) -> list[Agreement]:
    """A member's, the newest first."""
    return await _agreements(conn, "member = %s ORDER BY asked_at DESC LIMIT 50", member)


async def live_agreement(conn: Connection, member: str, entity: str, *, lock: bool = False) -> Agreement | None:
    """The one that is signed, or being signed, with this company; with `lock` nobody else pays under it meanwhile."""
    where = "member = %s AND entity = %s AND state IN ('signing', 'active')" + (" FOR UPDATE" if lock else "")
    return next(iter(await _agreements(conn, where, member, entity)), None)


async def add_agreement(conn: Connection, one: Agreement, by: str) -> None:
    """Write it before the provider is asked. One that lives already is left alone: UniqueViolation."""
    await conn.execute(
        f"""INSERT INTO member_agreement ({_AGREEMENT}, look_at, asked_by)
            VALUES ({", ".join(["%s"] * (len(Agreement.__dataclass_fields__) + 2))})""",
        (*(getattr(one, name) for name in Agreement.__dataclass_fields__), one.asked_at, by),
    )


async def note_code(conn: Connection, number: str, code_text: str) -> None:
    """What the member scans to sign."""
    await conn.execute("UPDATE member_agreement SET code_text = %s WHERE number = %s", (code_text, number))


async def note_signed(conn: Connection, number: str, agreement_no: str, payer: str, at: datetime) -> None:
    """The provider says that it was signed."""
    await conn.execute(
        """UPDATE member_agreement SET state = 'active', agreement_no = %s, payer = %s, signed_at = %s
           WHERE number = %s AND state = 'signing'""",
        (agreement_no, payer, at, number),
    )


async def note_ended(conn: Connection, number: str, at: datetime) -> None:
    """Nothing can be taken under it any more."""
    await conn.execute(
        "UPDATE member_agreement SET state = 'ended', ended_at = %s WHERE number = %s AND state <> 'ended'",
        (at, number),
    )


async def claim_signing(
    conn: Connection, chain: str, now: datetime, again: timedelta, rows_max: int = 20
) -> list[Agreement]:
    """Those of which the provider is asked now; by nobody else until `again` is over."""
    cursor = await conn.execute(
        """UPDATE member_agreement SET look_at = %s WHERE number IN (
             SELECT number FROM member_agreement WHERE state = 'signing' AND look_at <= %s AND chain = %s
             ORDER BY look_at LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING number""",
        (now + again, now, chain, rows_max),
    )
    numbers = [row[0] for row in await cursor.fetchall()]
    return await _agreements(conn, "number = ANY(%s)", numbers) if numbers else []


async def payment_under(conn: Connection, order: str) -> bool | None:
    """Whether the payment of this order was freed; None: there is none."""
    cursor = await conn.execute('SELECT freed FROM agreement_payment WHERE "order" = %s', (order,))
    row = await cursor.fetchone()
    return None if row is None else bool(row[0])


async def paid_on(conn: Connection, agreement: str, day: str) -> int:
    """What was taken under it, or may be, on one business date. Refunds do not make room again."""
    cursor = await conn.execute(
        "SELECT coalesce(sum(fen), 0)::bigint FROM agreement_payment WHERE agreement = %s AND day = %s AND NOT freed",
        (agreement, day),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def add_payment(conn: Connection, order: str, agreement: str, fen: int, day: str, at: datetime) -> None:
    """Count it before the provider is asked; the caller holds the agreement's lock."""
    await conn.execute(
        'INSERT INTO agreement_payment ("order", agreement, fen, day, at) VALUES (%s, %s, %s, %s, %s)',
        (order, agreement, fen, day, at),
    )


async def free_payment(conn: Connection, order: str) -> None:
    """Nothing was taken: it counts no more."""
    await conn.execute('UPDATE agreement_payment SET freed = true WHERE "order" = %s', (order,))


async def require_settled(conn: Connection, member: str) -> None:
    """Raises Refused `money_left`: who is owed money, or may be charged, cannot be forgotten."""
    balance = await balance_of(conn, member, lock=True)
    if balance is not None and balance.fen:
        raise Refused("money_left", f"{member} has a balance of {balance.fen} fen", "pay it out first")
    held = await conn.execute("SELECT 1 FROM balance_hold WHERE member = %s AND state = 'held' LIMIT 1", (member,))
    if await held.fetchone() is not None:
        raise Refused("money_left", f"{member} has money behind a membership", "let it be settled first")
    if any(one.state != "ended" for one in await agreements_of(conn, member)):
        raise Refused("money_left", f"{member} has a withholding agreement", "end it first")


# ---------------------------------------------------------------- for a visit


async def own_tenders(conn: Connection, member: str) -> tuple[TenderKind, ...]:
    """What of their own a member may pay with."""
    cursor = await conn.execute(
        """SELECT EXISTS (SELECT 1 FROM member_balance WHERE member = %(member)s AND fen > 0),
                  EXISTS (SELECT 1 FROM member_agreement WHERE member = %(member)s AND state = 'active')""",
        {"member": member},
    )
    row = await cursor.fetchone()
    assert row is not None
    return tuple(kind for kind, has in zip((TenderKind.BALANCE, TenderKind.AGREEMENT), row, strict=True) if has)
