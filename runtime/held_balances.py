"""A membership's fee secured by the member's own money: reserved in the balance, or taken in cash by the clerk.

It is reserved in the transaction that opens the membership, so nobody waits for anybody. To settlement it then answers
as a provider would, and never unclearly: the charge is captured once, the rest goes to the balance in the same commit.
Every move has a number of its own; asked again it changes nothing and answers again.
"""

from __future__ import annotations

from datetime import datetime

from models.domain.drawers import ShiftState, may_move
from models.domain.ids import StoreId
from models.domain.ledger import Place, Transaction, clearing
from models.domain.member_balance import (
    BALANCE,
    BalanceMove,
    MoneyWay,
    MoveKind,
    after,
    counter_account,
    moved,
    reserved,
)
from models.domain.payments import (
    Answer,
    Failed,
    FailReason,
    PayResult,
    RefundResult,
    ReleaseResult,
    Succeeded,
    Unknown,
)
from models.tables import clock
from models.tables import member_money as table
from models.tables.drawers import lock_drawer, note_cash, store_now
from models.tables.ledger import Booking, insert_transactions
from models.tables.member_money import BalanceHold, Connection
from runtime.clock import Pool, Wall

BY = "settlement"
_ABSENT = Unknown("never_asked", absent=True)


async def reserve(
    conn: Connection, hold: BalanceHold, *, terminal: str, by: str, cash: bool, business_date: str, now: datetime
) -> None:
    """Secure `hold` in the caller's transaction: out of the balance, or as cash into the drawer beside `terminal`.

    `business_date` is the plan owner's; cash is booked on its store's. Unlike a sale a deposit waits for a shift:
    nobody has to take it now, and somebody has to answer for it. Raises Refused: balance_short, unknown_drawer,
    no_open_shift, unknown_member.
    """
    kind = MoveKind.DEPOSIT if cash else MoveKind.HOLD
    drawer, place = "", Place(StoreId(hold.store), hold.entity)
    if cash:
        drawer = await table.lane_of(conn, hold.store, terminal)
        shift = await lock_drawer(conn, hold.store, drawer)
        may_move(None if shift is None else ShiftState(shift.state))
        at = await store_now(conn, hold.store, drawer, now)
        place, business_date = at.place, at.business_date
    await table.begin_balance(conn, hold.member)
    balance = await table.balance_of(conn, hold.member, lock=True)
    assert balance is not None
    left = after(balance.fen, kind, hold.fen)
    move = BalanceMove(hold.number, hold.member, kind, hold.fen, left, hold.number, hold.store, place.entity, now, by)
    if cash:
        account = counter_account(place, MoneyWay.CASH, drawer)
        booked = moved(
            hold.number, kind, hold.fen, owner=balance.owner, place=place, account=account, business_date=business_date
        )
    else:
        booked = reserved(hold.number, kind, hold.fen, owner=balance.owner, business_date=business_date)
    await table.insert_hold(conn, hold, now)
    await _book(conn, move, booked)


async def _book(conn: Connection, move: BalanceMove, booked: Transaction) -> None:
    await table.save_move(conn, move)
    async with conn.cursor() as cursor:
        await insert_transactions(cursor, [booked], move.at)
    await note_cash(conn, [Booking(booked, move.at)])


class HeldBalances:
    """What members' own money secures, of one database; see runtime.holders.Holder. Any number may run beside it."""

    def __init__(self, pool: Pool, wall: Wall) -> None:
        self._pool, self._wall = pool, wall

    async def capture(
        self,
        *,
        number: str,
        hold_no: str,
        amount_fen: int,
        subject: str,  # noqa: ARG002 - the move names the membership's hold
        complete: bool = True,
    ) -> Answer[PayResult]:
        """The charge, and the rest back to the balance."""
        assert complete, "a membership is charged once"
        async with self._pool.connection() as conn:
            hold = await table.hold_named(conn, hold_no, lock=True)
            if hold is None:
                return Failed(FailReason.ORDER_UNKNOWN, hold_no)
            if await table.move_named(conn, number) is not None:
                return _paid(number, amount_fen)
            if hold.state != "held":
                return Failed(FailReason.HOLD_GONE, hold.state)
            if amount_fen > hold.fen:
                return Failed(FailReason.HOLD_EXHAUSTED, str(hold.fen))
            now, day = await self._now(conn, hold)
            balance = await table.balance_of(conn, hold.member)
            assert balance is not None
            move = _move(hold, number, MoveKind.CAPTURE, amount_fen, balance.fen, now)
            place = Place(StoreId(hold.store), hold.entity)
            await _book(
                conn,
                move,
                moved(
                    number,
                    move.kind,
                    amount_fen,
                    owner=balance.owner,
                    place=place,
                    account=clearing(BALANCE),
                    business_date=day,
                ),
            )
            if hold.fen > amount_fen:
                await self._back(conn, hold, f"{number}-rest", hold.fen - amount_fen, now, day)
            await table.end_hold(conn, hold_no, amount_fen)
        return _paid(number, amount_fen)

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        """What became of a capture."""
        async with self._pool.connection() as conn:
            known = await table.move_named(conn, number)
        return _ABSENT if known is None else _paid(number, amount_fen)

    async def unfreeze(
        self,
        *,
        number: str,
        hold_no: str,
        amount_fen: int,
        remark: str,  # noqa: ARG002 - nobody reads it
    ) -> Answer[ReleaseResult]:
        """All of it back to the balance."""
        async with self._pool.connection() as conn:
            hold = await table.hold_named(conn, hold_no, lock=True)
            if hold is None:
                return Failed(FailReason.ORDER_UNKNOWN, hold_no)
            if await table.move_named(conn, number) is not None:
                return Succeeded(ReleaseResult(hold_no, amount_fen))
            if hold.state != "held":
                return Failed(FailReason.HOLD_GONE, hold.state)
            now, day = await self._now(conn, hold)
            await self._back(conn, hold, number, hold.fen, now, day)
            await table.end_hold(conn, hold_no, 0)
        return Succeeded(ReleaseResult(hold_no, amount_fen))

    async def query_unfreeze(self, *, number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]:
        """What became of a release."""
        async with self._pool.connection() as conn:
            known = await table.move_named(conn, number)
        return _ABSENT if known is None else Succeeded(ReleaseResult(hold_no, amount_fen))

    async def refund(
        self,
        *,
        number: str,
        payment_number: str,
        amount_fen: int,
        reason: str,  # noqa: ARG002 - nobody reads it
    ) -> Answer[RefundResult]:
        """A part of what was captured, to the balance; never more than that."""
        async with self._pool.connection() as conn:
            captured = await table.move_named(conn, payment_number)
            hold = None if captured is None else await table.hold_named(conn, captured.order, lock=True)
            if captured is None or hold is None or captured.kind is not MoveKind.CAPTURE:
                return Failed(FailReason.ORDER_UNKNOWN, payment_number)
            if await table.move_named(conn, number) is not None:
                return Succeeded(RefundResult(number, amount_fen))
            moves = await table.moves_of_order(conn, hold.number)
            back_fen = sum(move.fen for move in moves if move.kind is MoveKind.REFUND)
            if back_fen + amount_fen > captured.fen:
                return Failed(FailReason.AMOUNT_EXCEEDED, str(captured.fen - back_fen))
            now, day = await self._now(conn, hold)
            balance = await table.balance_of(conn, hold.member)
            assert balance is not None
            kind = MoveKind.REFUND
            move = _move(hold, number, kind, amount_fen, after(balance.fen, kind, amount_fen), now)
            place = Place(StoreId(hold.store), hold.entity)
            account = clearing(BALANCE)
            await _book(
                conn,
                move,
                moved(number, kind, amount_fen, owner=balance.owner, place=place, account=account, business_date=day),
            )
        return Succeeded(RefundResult(number, amount_fen))

    async def query_refund(self, *, number: str, payment_number: str, amount_fen: int) -> Answer[RefundResult]:  # noqa: ARG002
        """What became of a refund."""
        async with self._pool.connection() as conn:
            known = await table.move_named(conn, number)
        return _ABSENT if known is None else Succeeded(RefundResult(number, amount_fen))

    async def _back(self, conn: Connection, hold: BalanceHold, number: str, fen: int, now: datetime, day: str) -> None:
        balance = await table.balance_of(conn, hold.member)
        assert balance is not None
        move = _move(hold, number, MoveKind.RELEASE, fen, after(balance.fen, MoveKind.RELEASE, fen), now)
        await _book(conn, move, reserved(number, move.kind, fen, owner=balance.owner, business_date=day))

    async def _now(self, conn: Connection, hold: BalanceHold) -> tuple[datetime, str]:
        async with conn.cursor() as cursor:
            now = await clock.business_now(cursor, self._wall())
        return now, await table.business_day(conn, hold.store, now)


def _move(hold: BalanceHold, number: str, kind: MoveKind, fen: int, left_fen: int, now: datetime) -> BalanceMove:
    return BalanceMove(number, hold.member, kind, fen, left_fen, hold.number, hold.store, hold.entity, now, BY)


def _paid(number: str, fen: int) -> Succeeded[PayResult]:
    return Succeeded(PayResult(fen, fen, fen, fen, (), number))
