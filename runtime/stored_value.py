"""Members' balances: topped up and paid out at a counter, spent and given back as a tender.

Each move is one transaction under the balance's row lock, with its ledger entries; repeated under its number it changes
nothing and answers again. To whoever asks for payments a balance answers as a provider would, and never unclearly.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from actors.ports import PaymentRequest, PayVerb
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, StoreId
from models.domain.ledger import Place, clearing
from models.domain.member_balance import (
    BALANCE,
    BalanceMove,
    BalanceStatement,
    CounterMove,
    MoveKind,
    after,
    counter_account,
    may_move,
    moved,
)
from models.domain.messages import PaymentAnswered, PaymentOutcome
from models.domain.payments import FailReason
from models.domain.privacy import Detail
from models.tables import clock
from models.tables import member_money as table
from models.tables.drawers import lock_drawer, note_cash, store_now
from models.tables.ledger import Booking, insert_transactions
from models.tables.privacy import audit
from runtime.clock import Pool, Wall, wall_now

MOVES_SHOWN = 100


class StoredValue:
    """The balances of one database. Belongs to one event loop; any number may run beside it."""

    def __init__(self, pool: Pool, wall: Wall = wall_now) -> None:
        self._pool, self._wall = pool, wall

    # ------------------------------------------------------------ at the counter

    async def show(self, member: str) -> BalanceStatement:
        """A member's balance; one who never had one has 0, owed by nobody."""
        async with self._pool.connection() as conn:
            found = await table.balance_of(conn, member)
            moves = await table.moves_of(conn, member, MOVES_SHOWN)
        return BalanceStatement(member, found.fen if found else 0, found.owner if found else "", tuple(moves))

    async def top_up(self, asked: CounterMove) -> BalanceMove:
        """Money in, against cash or a card. Raises Refused: bad_amount, balance_full, unknown_member, unknown_drawer,
        number_reused."""
        return await self._at_counter(MoveKind.TOP_UP, asked)

    async def pay_out(self, asked: CounterMove) -> BalanceMove:
        """Money back to the member. Raises Refused as `top_up`, and `balance_short`."""
        return await self._at_counter(MoveKind.PAY_OUT, asked)

    async def _at_counter(self, kind: MoveKind, asked: CounterMove) -> BalanceMove:
        may_move(asked.fen)
        async with self._pool.connection() as conn:
            await lock_drawer(conn, asked.store, asked.drawer)
            await table.begin_balance(conn, asked.member)
            balance = await table.balance_of(conn, asked.member, lock=True)
            assert balance is not None
            known = await table.move_named(conn, asked.number)
            if known is not None:
                if (known.member, known.kind, known.fen, known.store) != (asked.member, kind, asked.fen, asked.store):
                    raise Refused("number_reused", f"{asked.number} was another request", "use a new number")
                return known
            now = await self._now(conn)
            at = await store_now(conn, asked.store, asked.drawer, now)
            left = after(balance.fen, kind, asked.fen)
            move = BalanceMove(
                asked.number, asked.member, kind, asked.fen, left, "", asked.store, at.place.entity, now, asked.by
            )
            account = counter_account(at.place, asked.way, asked.drawer)
            await self._book(conn, move, balance.owner, account, at.business_date)
            said: Detail = {
                "number": move.number,
                "fen": move.fen,
                "left_fen": left,
                "store": move.store,
                "way": asked.way.value,
            }
            await audit(conn, f"balance_{kind}", asked.member, said, asked.by, self._wall())
        return move

    # ------------------------------------------------------------ as a tender

    async def ask(self, ask: str, request: PaymentRequest) -> PaymentAnswered:
        """Spend, look, take back, or refund; definite in every case."""
        async with self._pool.connection() as conn:
            code = await self._perform(conn, request)
        outcome = PaymentOutcome.FAILED if code else PaymentOutcome.SUCCEEDED
        return PaymentAnswered(
            ask,
            request.session,
            request.order,
            str(request.verb),
            outcome,
            code=code,
            trade_no="" if code else request.order,
            payer_fen=None if code else request.fen,
            receipt_fen=None if code else request.fen,
        )

    async def _perform(self, conn: AsyncConnection[Any], request: PaymentRequest) -> str:
        """Why it failed; "" when it is done."""
        before = await table.moves_of_order(conn, request.order)
        member = request.member or (before[0].member if before else None)
        if member is None:
            return FailReason.ORDER_UNKNOWN
        await table.begin_balance(conn, member)
        balance = await table.balance_of(conn, member, lock=True)
        assert balance is not None
        before = await table.moves_of_order(conn, request.order)  # as it is under the lock
        spent = next((move for move in before if move.kind is MoveKind.SPEND), None)
        undone = any(move.kind is MoveKind.UNDO for move in before)
        match request.verb:
            case PayVerb.PAY:
                if spent is not None or undone:
                    return FailReason.CLOSED if undone else ""
                return await self._spend(conn, request, member, balance)
            case PayVerb.CANCEL:
                return await self._undo(conn, request, member, balance, spent, undone=undone)
            case PayVerb.REFUND:
                return await self._refund(conn, request, balance, spent, before, undone=undone)
            case _:
                return "" if spent is not None and not undone else FailReason.CLOSED

    async def _spend(
        self, conn: AsyncConnection[Any], request: PaymentRequest, member: str, balance: table.Balance
    ) -> str:
        try:
            left = after(balance.fen, MoveKind.SPEND, request.fen)
        except Refused as refused:
            return refused.code
        await self._save(conn, request.order, MoveKind.SPEND, request.fen, left, request, member, balance)
        return ""

    async def _undo(
        self,
        conn: AsyncConnection[Any],
        request: PaymentRequest,
        member: str,
        balance: table.Balance,
        spent: BalanceMove | None,
        *,
        undone: bool,
    ) -> str:
        """An order that was never paid is ended by a move of 0: a payment that comes after it finds it closed."""
        if undone:
            return ""
        fen = 0 if spent is None else spent.fen
        await self._save(
            conn, f"{request.order}-undo", MoveKind.UNDO, fen, balance.fen + fen, request, member, balance, of=spent
        )
        return ""

    async def _refund(
        self,
        conn: AsyncConnection[Any],
        request: PaymentRequest,
        balance: table.Balance,
        spent: BalanceMove | None,
        before: list[BalanceMove],
        *,
        undone: bool,
    ) -> str:
        if spent is None or undone:
            return FailReason.ORDER_UNKNOWN if spent is None else FailReason.REVERSED
        refunds = [move for move in before if move.kind is MoveKind.REFUND]
        if any(move.number == request.refund_no for move in refunds):
            return ""
        if sum(move.fen for move in refunds) + request.fen > spent.fen:
            return FailReason.AMOUNT_EXCEEDED
        left = balance.fen + request.fen
        await self._save(
            conn, request.refund_no, MoveKind.REFUND, request.fen, left, request, spent.member, balance, of=spent
        )
        return ""

    async def _save(
        self,
        conn: AsyncConnection[Any],
        number: str,
        kind: MoveKind,
        fen: int,
        left: int,
        request: PaymentRequest,
        member: str,
        balance: table.Balance,
        of: BalanceMove | None = None,
    ) -> None:
        """What undoes a spend is booked where the spend was, whoever owns the store by now."""
        now = await self._now(conn)
        store, entity = (request.store, request.entity) if of is None else (of.store, of.entity)
        day = await table.business_day(conn, store, now)
        by = f"terminal:{request.terminal}"
        move = BalanceMove(number, member, kind, fen, left, request.order, store, entity, now, by)
        await self._book(conn, move, balance.owner, clearing(BALANCE), day)

    async def _book(
        self, conn: AsyncConnection[Any], move: BalanceMove, owner: LegalEntityId, account: str, day: str
    ) -> None:
        await table.save_move(conn, move)
        if not move.fen:
            return
        place = Place(StoreId(move.store), LegalEntityId(move.entity))
        booked = moved(move.number, move.kind, move.fen, owner=owner, place=place, account=account, business_date=day)
        async with conn.cursor() as cursor:
            await insert_transactions(cursor, [booked], move.at)
        await note_cash(conn, [Booking(booked, move.at)])

    async def _now(self, conn: AsyncConnection[Any]) -> datetime:
        async with conn.cursor() as cursor:
            return await clock.business_now(cursor, self._wall())
