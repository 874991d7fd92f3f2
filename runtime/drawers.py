"""Drawers of one database: each verb is one transaction under the drawer's lock, booked in the same commit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from gateway.drawers import Drawer, ReportMove, ReportTender, ShiftReport
from models.domain import drawer_postings, drawers
from models.domain.drawers import MoveKind, ShiftState
from models.domain.errors import Refused
from models.domain.ids import derived_id
from models.domain.ledger import Transaction
from models.tables import clock
from models.tables import drawers as table
from models.tables.drawers import Shift, StoreNow
from models.tables.ledger import insert_transactions
from runtime.clock import Pool, Wall, wall_now

REPORTS_MAX = 400


class DrawersOfADatabase:
    """Implements gateway.drawers.Drawers over one pool."""

    def __init__(self, pool: Pool, wall: Wall = wall_now) -> None:
        self._pool = pool
        self._wall = wall

    async def drawers(self, store: str) -> Sequence[Drawer]:
        """The drawers of a store, each with its current shift."""
        async with self._pool.connection() as conn:
            found = await table.drawers_of(conn, store)
            return [Drawer(name, None if one is None else await _report(conn, one)) for name, one in found]

    async def open_shift(self, number: str, store: str, drawer: str, float_fen: int, by: str) -> ShiftReport:
        """A shift begins, with change from the safe."""
        drawers.require_amount(float_fen)
        what = f"open {store}/{drawer} {float_fen}"
        async with self._pool.connection() as conn:
            last = await table.lock_drawer(conn, store, drawer)
            done = await table.request_done(conn, number, what)
            if done is None:
                drawers.may_open(_state(last))
                now = await self._now(conn)
                at = await table.store_now(conn, store, drawer, now)
                done = await _begin(conn, number, last, at, drawer, float_fen, by, now)
                booking = drawer_postings.float_placed(
                    number, place=at.place, drawer=drawer, fen=float_fen, business_date=at.business_date
                )
                await _book(conn, booking, now)
                await table.save_request(conn, number, what, done, now)
            return await _of(conn, done)

    async def move(
        self, number: str, store: str, drawer: str, kind: MoveKind, fen: int, reason: str, by: str
    ) -> ShiftReport:
        """Cash goes in, out, or to the safe."""
        drawers.require_amount(fen, least=1)
        said = reason.strip() if kind is MoveKind.DROP and not reason.strip() else drawers.require_reason(reason)
        what = f"{kind} {store}/{drawer} {fen} {said}"
        async with self._pool.connection() as conn:
            last = await table.lock_drawer(conn, store, drawer)
            done = await table.request_done(conn, number, what)
            if done is None:
                drawers.may_move(_state(last))
                assert last is not None
                now = await self._now(conn)
                at = await table.store_now(conn, store, drawer, now)
                line = table.MoveLine(kind, fen, said, by, now)
                await table.insert_move(conn, derived_id(number, "move"), last.id, line)
                booking = drawer_postings.drawer_moved(
                    number, place=last.place, drawer=drawer, kind=kind, fen=fen, reason=said,
                    business_date=at.business_date,
                )  # fmt: skip
                await _book(conn, booking, now)
                done = last.id
                await table.save_request(conn, number, what, done, now)
            return await _of(conn, done)

    async def count(self, number: str, store: str, drawer: str, counted_fen: int, by: str) -> ShiftReport:
        """Takes what sales moved since the last count, works out what there should be, and books the difference."""
        drawers.require_amount(counted_fen)
        what = f"count {store}/{drawer} {counted_fen}"
        async with self._pool.connection() as conn:
            last = await table.lock_drawer(conn, store, drawer)
            done = await table.request_done(conn, number, what)
            if done is None:
                drawers.may_count(_state(last))
                assert last is not None
                now = await self._now(conn)
                at = await table.store_now(conn, store, drawer, now)
                cash = await table.take_cash(conn, last)
                moves = table.as_moves(await table.moves_of(conn, last.id))
                expected = drawers.expected_fen(last.float_fen, cash, moves)
                await table.save_count(conn, last.id, counted_fen, expected, by, now)
                booking = drawer_postings.drawer_counted(
                    number, place=last.place, drawer=drawer, business_date=at.business_date,
                    over_short=drawers.over_short_fen(counted_fen, expected),
                )  # fmt: skip
                await _book(conn, booking, now)
                done = last.id
                await table.save_request(conn, number, what, done, now)
            return await _of(conn, done)

    async def hand_over(self, number: str, store: str, drawer: str, by: str) -> ShiftReport:
        """Nothing is booked: the money stays in the drawer. What was sold since the count is the next shift's."""
        what = f"hand-over {store}/{drawer}"
        async with self._pool.connection() as conn:
            last = await table.lock_drawer(conn, store, drawer)
            done = await table.request_done(conn, number, what)
            if done is None:
                counted_fen = _counted(last)
                assert last is not None
                now = await self._now(conn)
                at = await table.store_now(conn, store, drawer, now)
                if at.place.entity != last.entity:
                    raise Refused(
                        "store_changed_hands", f"{store} is {at.place.entity}'s now", "close the drawer, open it anew"
                    )
                await table.save_end(conn, last.id, derived_id(number, "shift"), by, now)
                done = await _begin(conn, number, last, at, drawer, counted_fen, by, now)
                await table.save_request(conn, number, what, done, now)
            return await _of(conn, done)

    async def close(self, number: str, store: str, drawer: str, by: str) -> ShiftReport:
        """The counted money goes to the safe."""
        what = f"close {store}/{drawer}"
        async with self._pool.connection() as conn:
            last = await table.lock_drawer(conn, store, drawer)
            done = await table.request_done(conn, number, what)
            if done is None:
                counted_fen = _counted(last)
                assert last is not None
                now = await self._now(conn)
                at = await table.store_now(conn, store, drawer, now)
                await table.save_end(conn, last.id, "", by, now)
                booking = drawer_postings.drawer_emptied(
                    number, place=last.place, drawer=drawer, fen=counted_fen, business_date=at.business_date
                )
                await _book(conn, booking, now)
                done = last.id
                await table.save_request(conn, number, what, done, now)
            return await _of(conn, done)

    async def report(self, shift: str) -> ShiftReport:
        """Raises Refused `unknown_shift`."""
        async with self._pool.connection() as conn:
            return await _of(conn, shift)

    async def reports(self, store: str, *, day: str = "", drawer: str = "", limit: int = 50) -> Sequence[ShiftReport]:
        """A store's shifts, the newest first."""
        async with self._pool.connection() as conn:
            found = await table.list_shifts(conn, store, day=day, drawer=drawer, limit=min(limit, REPORTS_MAX))
            return [await _report(conn, one) for one in found]

    async def _now(self, conn: AsyncConnection[Any]) -> datetime:
        async with conn.cursor() as cursor:
            return await clock.business_now(cursor, self._wall())


def _state(shift: Shift | None) -> ShiftState | None:
    return None if shift is None else ShiftState(shift.state)


def _counted(shift: Shift | None) -> int:
    drawers.may_end(_state(shift))
    assert shift is not None
    assert shift.counted_fen is not None
    return shift.counted_fen


async def _begin(
    conn: AsyncConnection[Any],
    number: str,
    last: Shift | None,
    at: StoreNow,
    drawer: str,
    float_fen: int,
    by: str,
    now: datetime,
) -> str:
    ident = derived_id(number, "shift")
    await table.insert_shift(conn, ident, drawer, 1 if last is None else last.n + 1, at, float_fen, by, now)
    return ident


async def _book(conn: AsyncConnection[Any], booking: Transaction, now: datetime) -> None:
    async with conn.cursor() as cursor:
        await insert_transactions(cursor, [booking], now)


async def _of(conn: AsyncConnection[Any], ident: str) -> ShiftReport:
    shift = await table.load_shift(conn, ident)
    if shift is None:
        raise Refused("unknown_shift", f"no shift {ident!r}", "see the store's shifts")
    return await _report(conn, shift)


async def _report(conn: AsyncConnection[Any], shift: Shift) -> ShiftReport:
    """An open shift's says nothing from which what the drawer should hold could be worked out."""
    moves = await table.moves_of(conn, shift.id)
    counted = shift.counted_at is not None
    paid, back = await table.cash_of(conn, shift) if counted else ([], [])
    others = await table.other_tenders(conn, shift, shift.counted_at) if shift.counted_at is not None else []
    over_short = None
    if shift.counted_fen is not None and shift.expected_fen is not None:
        over_short = drawers.over_short_fen(shift.counted_fen, shift.expected_fen)
    by_kind = {kind: sum(one.fen for one in moves if one.kind is kind) for kind in MoveKind}
    return ShiftReport(
        kind="Z" if counted else "X",
        shift=shift.id,
        store=shift.store,
        drawer=shift.drawer,
        n=shift.n,
        entity=shift.entity,
        business_date=shift.business_date,
        state=shift.state,
        opened_at=shift.opened_at,
        opened_by=shift.opened_by,
        float_fen=shift.float_fen,
        paid_in_fen=by_kind[MoveKind.PAID_IN],
        paid_out_fen=by_kind[MoveKind.PAID_OUT],
        drops_fen=by_kind[MoveKind.DROP],
        moves=tuple(ReportMove(one.kind.value, one.fen, one.reason, one.by, one.at) for one in moves),
        sales=len(paid) if counted else None,
        returns=len(back) if counted else None,
        cash_sales_fen=sum(paid) if counted else None,
        cash_returns_fen=-sum(back) if counted else None,
        expected_fen=shift.expected_fen,
        counted_fen=shift.counted_fen,
        over_short_fen=over_short,
        counted_at=shift.counted_at,
        counted_by=shift.counted_by,
        ended_at=shift.ended_at,
        ended_by=shift.ended_by,
        next_shift=shift.next_shift,
        other_tenders=tuple(ReportTender(one.kind, one.sales, one.fen) for one in others),
    )
