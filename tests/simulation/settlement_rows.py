"""Settlement's statements over rows in memory, for `SettlementRunner` as it is: thousands of schedules a minute.

A transaction sees what was committed and what it wrote, holds the rows that it wrote or locked until its end, and is
undone by an exception, as READ COMMITTED does. Each function here has the name and the promise of the statement it
stands for; `tests/integration/test_settlement_schedules.py` runs the same schedules on PostgreSQL and compares.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg_pool import AsyncConnectionPool

from actors.settlement import book_answer
from models.domain.charging import Branch, branch_of
from models.domain.ledger import Place, StoreShare, Transaction
from models.domain.membership import HoldState, State
from models.domain.payments import AnyAnswer, PayResult, ReleaseResult, Succeeded
from models.domain.plans import FeeShares
from models.domain.settlement import (
    CALL_LEASE,
    Call,
    CallKind,
    CallState,
    NewCall,
    Standing,
    capture_call,
    release_call,
)
from models.tables.control import ControlTotals
from models.tables.settlement import Cut, Mark
from models.tables.settlement_runs import Switch
from runtime import settlement as runner_of

Key = tuple[str, str]
"""Table and primary key."""
OPEN = frozenset({CallState.NEW, CallState.UNKNOWN})
COLLECTING = frozenset({State.SETTLING, State.UNKNOWN})


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """A membership's row: what money rules read of it, and when its charge was fixed."""

    standing: Standing
    settled_at: datetime | None = None
    parked_why: str = ""

    @property
    def due_at(self) -> datetime | None:
        """The generated column: when settlement looks at it next by itself."""
        match self.standing.state:
            case State.ACTIVE | State.SUSPENDED:
                return self.standing.expires_at
            case State.EXPIRED:
                return self.standing.cutoff_at
            case _:
                return None


@dataclass(frozen=True, slots=True)
class UseRow:
    """A REGULAR use and what was taken back of it."""

    id: str
    membership: str
    place: Place
    fen: int
    reversed_fen: int = 0


class Books:
    """What was committed, and who holds which row. Shaped like a connection pool."""

    def __init__(self) -> None:
        self.rows: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self.held: dict[Key, Session] = {}
        self.released: list[asyncio.Future[None]] = []

    def pool(self) -> AsyncConnectionPool[AsyncConnection[Any]]:
        """Itself, as the runner knows it."""
        return cast("AsyncConnectionPool[AsyncConnection[Any]]", self)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Session]:
        """One transaction."""
        session = Session(self)
        try:
            yield session
            for (table, key), row in session.written.items():
                self.rows[table][key] = row
        finally:
            self.held = {key: holder for key, holder in self.held.items() if holder is not session}
            waiting, self.released = self.released, []
            for one in waiting:
                if not one.done():
                    one.set_result(None)

    def memberships(self) -> list[MembershipRow]:
        """All of them."""
        return list(self.rows["membership"].values())

    def blocked(self) -> int:
        """How many transactions stand at a row that another one holds."""
        return sum(not one.done() for one in self.released)

    def calls(self) -> list[Call]:
        """All of them."""
        return list(self.rows["call"].values())

    def transactions(self) -> list[Transaction]:
        """The ledger."""
        return list(self.rows["txn"].values())

    def uses(self) -> list[UseRow]:
        """All of them."""
        return list(self.rows["use"].values())


class Session:
    """A transaction, and its own cursor."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.written: dict[Key, Any] = {}

    @asynccontextmanager
    async def cursor(self) -> AsyncIterator[Session]:
        """The same transaction."""
        yield self

    def all(self, table: str) -> Iterator[Any]:
        """Rows as they stand for this transaction, in the order of their keys."""
        rows = self._books.rows[table]
        mine = {key: row for (of, key), row in self.written.items() if of == table}
        for key in sorted(rows.keys() | mine.keys()):
            yield mine[key] if key in mine else rows[key]

    def get(self, table: str, key: str) -> Any:
        """One row, or None."""
        return self.written.get((table, key), self._books.rows[table].get(key))

    def take(self, table: str, key: str) -> bool:
        """Lock a row unless somebody else has it (SKIP LOCKED)."""
        return self._books.held.setdefault((table, key), self) is self

    async def lock(self, table: str, key: str) -> None:
        """Lock a row, after waiting for whoever has it."""
        while not self.take(table, key):
            free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._books.released.append(free)
            await free

    def put(self, table: str, key: str, row: Any) -> None:
        """Write a locked row."""
        assert self.take(table, key), f"{table} {key} is written without its lock"
        self.written[table, key] = row

    async def put_standing(self, standing: Standing, **changes: Any) -> None:
        """Write what a step decided about a membership."""
        await self.lock("membership", standing.id)
        self.put("membership", standing.id, replace(self.get("membership", standing.id), standing=standing, **changes))


def call_row(new: NewCall, standing: Standing) -> Call:
    """A call that nobody has made."""
    return Call(
        membership=new.membership, owner=standing.owner, kind=new.kind, number=new.number, fen=new.fen,
        state=CallState.NEW, attempt=new.attempt, tries=0, not_before=new.not_before, lease_until=None, answer=None,
        hold_no=standing.hold_no, captured_number="", provider=standing.provider, hold_order=standing.hold_order,
    )  # fmt: skip


# ---------------------------------------------------------------- models.tables.settlement


async def cut_off_chunk(
    cur: Session, _chain: str, _region: str, now: datetime, _wall_now: datetime, limit: int, after: Mark
) -> Cut:
    rows = [row for row in cur.all("membership") if row.due_at is not None and row.due_at <= now]
    rows.sort(key=lambda row: (row.due_at, row.standing.id))
    due = [
        row
        for row in rows
        if (row.due_at, row.standing.id) > (after.due_at, after.id) and cur.take("membership", row.standing.id)
    ][:limit]
    if not due:
        return Cut(0, 0, (), None)
    expired = cut = 0
    for row in due:
        one: Standing = row.standing
        expired += one.state is not State.EXPIRED
        if one.cutoff_at > now:
            await cur.put_standing(replace(one, state=State.EXPIRED))
            continue
        cut += 1
        charge = one.preview_fen
        asks = charge > 0 or one.hold_state is HoldState.HELD
        state = State.SETTLING if asks else State.CLOSED
        one = replace(one, state=state, charge_fen=charge, branch=branch_of(charge, one.fee_eff_fen))
        await cur.put_standing(one, settled_at=now)
        if asks:
            new = capture_call(one, 0, charge, now) if charge else release_call(one, now)
            if not await added(cur, "call", new.number, call_row(new, one)):
                raise UniqueViolation(new.number)
    return Cut(expired, cut, (), Mark(due[-1].due_at, due[-1].standing.id))


async def wake_chunk(cur: Session, _chain: str, _region: str, now: datetime, limit: int) -> int:
    woken = 0
    for call in cur.all("call"):
        one: Standing = cur.get("membership", call.membership).standing
        is_due = call.state is CallState.NEW and call.not_before <= now and call.kind is CallKind.CAPTURE
        if not is_due or one.state is not State.DUNNING or woken == limit:
            continue
        if not cur.take("membership", one.id) or not cur.take("call", call.number):
            continue
        woken += 1
        held = one.hold_state is HoldState.HELD
        await cur.put_standing(replace(one, state=State.SETTLING if one.due_fen or held else State.CLOSED))
        state = CallState.NEW if one.due_fen else CallState.POSTED
        cur.put("call", call.number, replace(call, fen=one.due_fen, state=state))
        if not one.due_fen and held:
            release = release_call(one, now)
            await added(cur, "call", release.number, call_row(release, one))
    return woken


async def claim_calls(
    cur: Session, _chain: str, _region: str, now: datetime, wall_now: datetime, limit: int
) -> list[Call]:
    claimed: list[Call] = []
    for call in sorted(cur.all("call"), key=lambda call: (call.not_before, call.number)):
        one: Standing = cur.get("membership", call.membership).standing
        free = call.lease_until is None or call.lease_until <= wall_now
        wanted = call.kind is not CallKind.CAPTURE or one.state in COLLECTING
        if call.state not in OPEN or call.not_before > now or not free or not wanted or len(claimed) == limit:
            continue
        if cur.take("call", call.number):
            cur.put("call", call.number, replace(call, tries=call.tries + 1, lease_until=wall_now + CALL_LEASE))
            claimed.append(replace(call, lease_until=None, hold_no=one.hold_no, captured_number=one.captured_number))
    return claimed


async def save_answers(
    cur: Session, answers: Sequence[tuple[Call, AnyAnswer, CallState, datetime | None]], _now: datetime
) -> None:
    for call, answer, state, lease_until in answers:
        await cur.lock("call", call.number)
        row: Call = cur.get("call", call.number)
        if row.state not in OPEN:
            continue
        cur.put("call", call.number, replace(row, state=state, answer=answer, lease_until=lease_until))
        if call.kind is CallKind.CAPTURE and state is CallState.UNKNOWN:
            await cur.lock("membership", call.membership)
            one = cur.get("membership", call.membership).standing
            if one.state is State.SETTLING:
                await cur.put_standing(replace(one, state=State.UNKNOWN))


async def lock_answered(cur: Session, _chain: str, _region: str, limit: int) -> list[tuple[Call, Standing]]:
    answered = [call for call in cur.all("call") if call.state is CallState.ANSWERED]
    answered.sort(key=lambda call: (call.membership, call.number))
    taken = [call for call in answered if cur.take("membership", call.membership) and cur.take("call", call.number)]
    return [(call, cur.get("membership", call.membership).standing) for call in taken[:limit]]


async def insert_calls(cur: Session, calls: Sequence[NewCall]) -> None:
    for new in calls:
        await added(cur, "call", new.number, call_row(new, cur.get("membership", new.membership).standing))


async def save_standings(cur: Session, standings: Sequence[tuple[Standing, str]]) -> None:
    for standing, parked_why in standings:
        await cur.put_standing(standing, parked_why=parked_why)


async def mark_posted(cur: Session, numbers: Sequence[str], _now: datetime) -> None:
    for number in numbers:
        cur.put("call", number, replace(cur.get("call", number), state=CallState.POSTED, lease_until=None))


async def next_query_at(cur: Session, _chain: str, _region: str, now: datetime) -> datetime | None:
    leases = [
        call.lease_until
        for call in cur.all("call")
        if call.state in OPEN
        and call.not_before <= now
        and call.lease_until is not None
        and (call.kind is not CallKind.CAPTURE or cur.get("membership", call.membership).standing.state in COLLECTING)
    ]
    return min(leases, default=None)


# ---------------------------------------------------------------- models.tables.closing, ledger, control


async def close_plain(cur: Session, _chain: str, _region: str, now: datetime, limit: int, _trace: str) -> int:
    plain = [call for call in cur.all("call") if call.state is CallState.ANSWERED and _as_asked(call, call.answer)]
    plain = [call for call in plain if _is_plain(cur, call)]
    plain = [call for call in plain if cur.take("membership", call.membership) and cur.take("call", call.number)]
    await _close(cur, plain[:limit], now)
    return len(plain[:limit])


async def close_asked(cur: Session, answers: Sequence[tuple[Call, AnyAnswer]], now: datetime, _trace: str) -> set[str]:
    told = {call.number: answer for call, answer in answers if _as_asked(call, answer)}
    plain = []
    for number in sorted(told):
        row: Call = cur.get("call", number)
        if row.state in OPEN and _is_plain(cur, row):
            await cur.lock("membership", row.membership)
            await cur.lock("call", number)
            row = replace(cur.get("call", number), answer=told[number])
            if row.state in OPEN and _is_plain(cur, row):
                plain.append(row)
    await _close(cur, plain, now)
    return {call.number for call in plain}


async def insert_transactions(
    cur: Session, transactions: Sequence[Transaction], _booked_at: datetime, _trace: str = ""
) -> set[str]:
    return {txn.id for txn in transactions if txn.entries and await added(cur, "txn", txn.id, txn)}


async def shares_of(cur: Session, memberships: Sequence[str]) -> dict[str, tuple[StoreShare, ...]]:
    return {one: shares for one in memberships if (shares := _shares(cur, one))}


async def load_switch(_cur: Session, _chain: str, _region: str) -> Switch:
    return Switch()


async def secured_by_credit(cur: Session, calls: Sequence[Call]) -> dict[str, Any]:
    found = {call.membership: cur.get("agreement", call.membership) for call in calls}
    return {membership: agreement for membership, agreement in found.items() if agreement is not None}


def quick_columns(_conn: Session) -> None:
    return None


async def control_totals(cur: Session, _chain: str, _region: str, batch_at: datetime) -> ControlTotals:
    batch = [row.standing for row in cur.all("membership") if row.settled_at == batch_at]
    charged = [one for one in batch if one.charge_fen]
    captured = [one for one in charged if one.captured_number]
    left = [one for one in charged if not one.captured_number]
    written_off = [one for one in left if one.state is State.WRITTEN_OFF]
    dunning = [one for one in left if one.receivable_fen and one.state is not State.WRITTEN_OFF]
    rest = [one for one in left if not one.receivable_fen and one.state is not State.WRITTEN_OFF]
    back = [one for one in rest if one.state in {State.CLOSED, State.DUNNING}]
    open_ = [one for one in rest if one.state not in {State.CLOSED, State.DUNNING}]
    booked = _booked(cur, {one.id for one in batch})
    return ControlTotals(
        len(batch), len(charged), _sum(charged, "charge_fen"),
        len(captured), _sum(captured, "charge_fen"), _sum(batch, "paid_fen") + _sum(batch, "refunded_fen"),
        len(dunning), _sum(dunning, "charge_fen"), _sum([o for o in batch if o not in written_off], "receivable_fen"),
        len(written_off), _sum(written_off, "charge_fen"), _sum(written_off, "receivable_fen"),
        len(back), _sum(back, "charge_fen"), len(open_), _sum(open_, "charge_fen"), *booked,
    )  # fmt: skip


# ---------------------------------------------------------------- inside


async def added(cur: Session, table: str, key: str, row: Any) -> bool:
    """A unique key: False when somebody else's row has it, after waiting for whoever is about to write it."""
    await cur.lock(table, key)
    if cur.get(table, key) is not None:
        return False
    cur.put(table, key, row)
    return True


def _as_asked(call: Call, answer: AnyAnswer | None) -> bool:
    match answer:
        case Succeeded(result=ReleaseResult()):
            return call.kind is CallKind.RELEASE
        case Succeeded(result=PayResult(total_fen=total_fen)):
            return call.kind is CallKind.CAPTURE and call.attempt == 0 and total_fen == call.fen
        case _:
            return False


def _is_plain(cur: Session, call: Call) -> bool:
    one: Standing = cur.get("membership", call.membership).standing
    if one.captured_number or one.receivable_fen or one.refunded_fen:
        return False
    if call.kind is CallKind.RELEASE:
        held = one.hold_state is HoldState.HELD
        return one.state is State.SETTLING and one.charge_fen == 0 and one.attempts == 0 and held
    if call.attempt or one.state not in COLLECTING or call.fen != one.due_fen:
        return False
    if one.branch is Branch.FEE:
        return one.plan.fee_shares is FeeShares.OWNER
    return call.fen == sum(share.fen for share in _shares(cur, one.id))


async def _close(cur: Session, plain: Sequence[Call], now: datetime) -> None:
    """Raises UniqueViolation for a transaction that is booked already: nothing of the chunk is."""
    for call in plain:
        one: Standing = cur.get("membership", call.membership).standing
        booking = book_answer(one, call, _shares(cur, one.id), now, provider=one.provider)
        for txn in booking.transactions:
            if txn.entries and not await added(cur, "txn", txn.id, txn):
                raise UniqueViolation(txn.id)
        await cur.put_standing(booking.standing, parked_why=booking.parked_why)
        cur.put("call", call.number, replace(call, state=CallState.POSTED, lease_until=None))


def _shares(cur: Session, membership: str) -> tuple[StoreShare, ...]:
    fens: dict[Place, int] = {}
    for use in cur.all("use"):
        if use.membership == membership:
            fens[use.place] = fens.get(use.place, 0) + use.fen - use.reversed_fen
    places = sorted(fens, key=lambda place: (place.store, place.entity))
    return tuple(StoreShare(place, fens[place]) for place in places if fens[place])


def _sum(rows: Sequence[Standing], what: str) -> int:
    return sum(getattr(one, what) or 0 for one in rows)


CHARGED = frozenset({"settled", "capture_failed", "receivable_collected", "written_off"})


def _booked(cur: Session, batch: set[str]) -> tuple[int, int, int, int]:
    """Captures, and fen in clearing, receivable and bad debt, from the entries of a batch's charges and reversals."""
    captures = {call.number for call in cur.all("call") if call.membership in batch and call.kind is CallKind.CAPTURE}
    sums: defaultdict[str, int] = defaultdict(int)
    posted = 0
    for txn in cur.all("txn"):
        of_charge = txn.kind in CHARGED and txn.request_number in captures
        if of_charge or (txn.kind == "due_reduced" and txn.memo in batch):
            posted += txn.kind in {"settled", "receivable_collected"}
            for entry in txn.entries:
                if entry.book == "posted":
                    sums[entry.account.partition(":")[0]] += entry.amount_fen
    return posted, sums["provider_clearing"], sums["member_receivable"], sums["bad_debt"]


STATEMENTS = SimpleNamespace(
    cut_off_chunk=cut_off_chunk, wake_chunk=wake_chunk, claim_calls=claim_calls, save_answers=save_answers,
    lock_answered=lock_answered, insert_calls=insert_calls, save_standings=save_standings, mark_posted=mark_posted,
    next_query_at=next_query_at,
)  # fmt: skip
"""Stands where the runner has the module `models.tables.settlement`."""


@contextmanager
def in_memory() -> Iterator[None]:
    """Within it, settlement runners work on `Books`."""
    with patch.multiple(
        runner_of, settlement=STATEMENTS, close_asked=close_asked, close_plain=close_plain,
        insert_transactions=insert_transactions, shares_of=shares_of, load_switch=load_switch,
        quick_columns=quick_columns, control_totals=control_totals, secured_by_credit=secured_by_credit,
    ):  # fmt: skip
        yield
