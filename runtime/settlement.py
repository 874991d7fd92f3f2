"""Settlement of one chain in one region: every step is one commit per chunk, and running again repairs a crash.

Steps: expire, cut off, wake dunning, claim, ask the provider, answer, book; then the control totals. Nothing is kept
in memory between steps that the rows do not say too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg_pool import AsyncConnectionPool

from actors.settlement import Step, book_answer, next_step, send_after_query, shared_out, state_after
from models.domain.charging import Branch
from models.domain.ids import ChainId, LegalEntityId, RegionId
from models.domain.ledger import Transaction
from models.domain.payments import AnyAnswer
from models.domain.settlement import Call, CallKind, CallState, NewCall, Standing, payment_of
from models.tables import settlement
from models.tables.closing import close_asked, close_plain
from models.tables.columns import quick_columns
from models.tables.control import ControlTotals, control_totals, shares_of
from models.tables.ledger import insert_transactions
from models.tables.settlement import Mark
from models.tables.settlement_runs import fixed_here, load_switch
from runtime.credits import Secured, secured_by_credit
from runtime.credits import settle as settle_credit
from runtime.holders import Holder, Holders
from runtime.plant import WECHAT, ProviderOf

SUBJECT = "轻会员到期结算 Light membership settlement"
TRACE = "settlement"
QUERY_AGAIN_AFTER = timedelta(seconds=3)
QUERY_AGAIN_MAX = timedelta(minutes=10)
CLAIMED_S_MAX = 20.0
"""A worker claims no more calls than it can send in so long: their leases end after 60 s."""


@dataclass(frozen=True, slots=True)
class SettlementLimits:
    """Bounds of one runner. Rates and calls in flight are per merchant account (legal entity)."""

    chunk_memberships_max: int = 5_000
    chunk_calls_max: int = 1_000
    calls_in_flight_max: int = 16
    calls_per_s_max: float = 200.0
    plain_by_statement: bool = True
    """False: every answer is decided one by one; the same rows come out (for the test that compares them)."""
    patience_s: float = 10.0
    """How long a run waits for calls without a definite answer before it leaves them to the next run."""


@dataclass(frozen=True, slots=True)
class SettlementProgress:
    """How far a run is: memberships expired, cut off and woken so far, and calls that have their definite answer.

    What was answered is booked in the same run, failures after all the others were asked.
    """

    expired: int
    cut_off: int
    woken: int
    booked: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would fix now, by the statements of the run. Amounts in fen; `calls` to the provider."""

    chain: str
    region: str
    now: datetime
    expired: int
    cut_off: int
    reserved: int
    calls: int
    nothing: int
    """Memberships that would be charged nothing."""
    fee: int
    fee_fen: int
    clawback: int
    clawback_fen: int


@dataclass(frozen=True, slots=True)
class SettlementReport:
    """What one run did, and the control totals of the batch that it cut off.

    `day`: those of its whole business date so far, for a run that goes on where others stopped; None where nobody knows
    the date. Runs and their totals are kept by `runtime.settlement_desk`, which does.
    """

    chain: str
    region: str
    now: datetime
    expired: int
    cut_off: int
    woken: int
    booked: int
    reserved: int
    """Due for cutoff, but with an open reservation: the next run takes them."""
    open_calls: bool
    """Some call has no definite answer yet: run again."""
    totals: ControlTotals
    paused: bool = False
    """An operator stopped it between two chunks, or before it began; the next run goes on from there."""
    day: ControlTotals | None = None

    @property
    def ok(self) -> bool:
        """True when the batch's totals agree with the ledger, and the day's."""
        return self.totals.agree and (self.day is None or self.day.agree)


class Paused(Exception):
    """An operator stopped the region's settlement."""


class _Account:
    """One merchant account's pace: calls in flight, and calls a second."""

    def __init__(self, limits: SettlementLimits) -> None:
        self._in_flight = asyncio.Semaphore(limits.calls_in_flight_max)
        self._gap_s = 1 / limits.calls_per_s_max
        self._next_at = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._in_flight:
            at = asyncio.get_running_loop().time()
            start = max(at, self._next_at)
            self._next_at = start + self._gap_s
            if start > at:
                await asyncio.sleep(start - at)
            yield


@dataclass(slots=True)
class _Counts:
    expired: int = 0
    cut_off: int = 0
    woken: int = 0
    booked: int = 0
    reserved: int = 0
    answered: int = 0
    unbooked: int = 0
    """Definite answers that wait to be booked."""

    def progress(self) -> SettlementProgress:
        """As a follower sees it."""
        return SettlementProgress(self.expired, self.cut_off, self.woken, self.booked + self.unbooked)

    def take_answered(self) -> int:
        """Calls that got a definite answer since this was asked last."""
        answered, self.answered = self.answered, 0
        return answered


async def _no_hook(_step: str) -> None:
    return None


class SettlementRunner:
    """Settles what is due. One per (chain, region) is enough; several at once do no harm.

    `wall` is the wall clock, for leases. `between_steps` is awaited at each step boundary with its name; whatever it
    raises ends the run there, as a crash would.
    """

    def __init__(
        self,
        chain: ChainId,
        region: RegionId,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        providers: ProviderOf,
        limits: SettlementLimits = SettlementLimits(),
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        between_steps: Callable[[str], Awaitable[None]] = _no_hook,
    ) -> None:
        self._chain = chain
        self._region = region
        self._pool = pool
        self._holders = Holders(pool, providers, wall=wall)
        self._limits = limits
        self._wall = wall
        self._between_steps = between_steps
        self._accounts: dict[tuple[LegalEntityId, str], _Account] = {}

    async def run(
        self, now: datetime, progress: Callable[[SettlementProgress], None] = lambda _: None
    ) -> SettlementReport:
        """Settle everything due at business time `now`. Returns when nothing is left to do now.

        Repeating it, also after a crash, changes nothing that was done. Raises what the database raises.
        """
        counts = _Counts()
        try:
            await self._settle(now, counts, progress)
        except Paused:
            return await self._report(now, counts, paused=True)
        return await self._report(now, counts)

    async def forecast(self, now: datetime) -> Forecast:
        """What `run` would charge at `now`: the same statements, each chunk rolled back. Nobody is asked anything.

        It locks the rows of one chunk at a time, as a run does; dunning attempts are not part of it.
        """
        expired = cut_off = 0
        reserved: set[str] = set()
        branches: dict[str, list[int]] = {}
        mark: Mark | None = Mark()
        while mark is not None:
            async with self._pool.connection() as conn, conn.cursor() as cur, conn.transaction(force_rollback=True):
                quick_columns(conn)
                cut = await settlement.cut_off_chunk(
                    cur, self._chain, self._region, now, self._wall(), self._limits.chunk_memberships_max, mark
                )
                for branch, *sums in await fixed_here(cur, self._chain, self._region, now):
                    branches[branch] = [a + b for a, b in zip(branches.get(branch, [0, 0, 0]), sums, strict=True)]
            mark = cut.mark
            expired += cut.expired
            cut_off += cut.cut_off
            reserved.update(cut.reserved)
        fee, clawback, nothing = (branches.get(name, [0, 0, 0]) for name in (Branch.FEE, Branch.CLAWBACK, ""))
        return Forecast(
            self._chain, self._region, now, expired, cut_off, len(reserved), fee[2] + clawback[2] + nothing[2],
            nothing[0], fee[0], fee[1], clawback[0], clawback[1],
        )  # fmt: skip

    async def _settle(self, now: datetime, counts: _Counts, progress: Callable[[SettlementProgress], None]) -> None:
        deadline = asyncio.get_running_loop().time() + self._limits.patience_s
        while True:
            moved = await self._cut_off(now, counts) + await self._wake(now, counts)
            moved += await self._book(now, counts)  # answers of workers that died before the commit
            progress(counts.progress())
            while await self._ask(now, counts):
                progress(counts.progress())
            moved += counts.take_answered() + await self._book(now, counts)
            if not moved and not await self._wait_for_leases(now, deadline):
                return

    async def _go_on(self) -> None:
        """Between two chunks. Raises Paused when an operator wants it to stop."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            if (await load_switch(cur, self._chain, self._region)).paused:
                raise Paused

    # ------------------------------------------------------------ steps; each returns how many rows it moved

    async def _cut_off(self, now: datetime, counts: _Counts) -> int:
        """Expiries and cutoffs, a chunk by one commit each."""
        total = 0
        reserved: set[str] = set()
        mark: Mark | None = Mark()
        while mark is not None:
            await self._go_on()
            async with self._pool.connection() as conn, conn.cursor() as cur:
                quick_columns(conn)
                cut = await settlement.cut_off_chunk(
                    cur, self._chain, self._region, now, self._wall(), self._limits.chunk_memberships_max, mark
                )
                await self._between_steps("cut_off")
            await self._between_steps("cut_off committed")
            mark = cut.mark
            reserved.update(cut.reserved)
            counts.expired += cut.expired
            counts.cut_off += cut.cut_off
            total += cut.expired + cut.cut_off
        counts.reserved = len(reserved)
        return total

    async def _wake(self, now: datetime, counts: _Counts) -> int:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            moved = await settlement.wake_chunk(cur, self._chain, self._region, now, self._limits.chunk_memberships_max)
            await self._between_steps("wake")
        counts.woken += moved
        return moved

    async def _ask(self, now: datetime, counts: _Counts) -> bool:
        """Claims calls, asks the provider, keeps what it said. False: nothing can be asked now."""
        await self._go_on()
        at_once = min(self._limits.chunk_calls_max, max(1, int(self._limits.calls_per_s_max * CLAIMED_S_MAX)))
        async with self._pool.connection() as conn, conn.cursor() as cur:
            calls = await settlement.claim_calls(cur, self._chain, self._region, now, self._wall(), at_once)
            secured = await secured_by_credit(cur, calls)
        if not calls:
            return False
        await self._between_steps("claimed")
        answers = await asyncio.gather(*(self._answer(call, now, secured) for call in calls))
        await self._between_steps("asked")
        await self._keep(list(zip(calls, answers, strict=True)), now, counts)
        return True

    async def _keep(self, answers: Sequence[tuple[Call, AnyAnswer]], now: datetime, counts: _Counts) -> None:
        """What the provider said. Plain answers are booked by the commit that keeps them, the others by `_book`."""
        booked: set[str] = set()
        if self._limits.plain_by_statement:
            with suppress(UniqueViolation):  # a part was booked before: one by one, where the ledger says so
                async with self._pool.connection() as conn, conn.cursor() as cur:
                    quick_columns(conn)
                    booked = await close_asked(cur, answers, now, TRACE)
                    await self._between_steps("answer")
        rows = [
            (call, answer, state_after(answer), self._query_again_at(call, answer))
            for call, answer in answers
            if call.number not in booked
        ]
        if rows:
            async with self._pool.connection() as conn, conn.cursor() as cur:
                await settlement.save_answers(cur, rows, now)
                await self._between_steps("answer")
        await self._between_steps("answered")
        definite = sum(1 for _, _, state, _ in rows if state is CallState.ANSWERED)
        counts.booked += len(booked)
        counts.unbooked += definite
        counts.answered += len(booked) + definite

    def _query_again_at(self, call: Call, answer: AnyAnswer) -> datetime | None:
        if state_after(answer) is CallState.ANSWERED:
            return None
        return self._wall() + min(QUERY_AGAIN_AFTER * (1 << min(call.tries, 10)), QUERY_AGAIN_MAX)

    async def _answer(self, call: Call, now: datetime, secured: Secured) -> AnyAnswer:
        """One call: sent at the first claim, queried at every later one, sent again if the provider never had it."""
        provider = self._holders.of(call.owner, call.provider)
        account = self._accounts.setdefault((call.owner, call.provider), _Account(self._limits))
        if call.membership in secured:
            async with account.turn():
                account_there = self._holders.account(call.owner, call.provider)
                return await settle_credit(account_there, call, *secured[call.membership], now)
        if next_step(call, now, self._wall()) is Step.QUERY:
            async with account.turn():
                known = await _query(provider, call)
            if not send_after_query(known):
                return known
        async with account.turn():
            return await _send(provider, call)

    async def _book(self, now: datetime, counts: _Counts) -> int:
        """The closing commit per chunk: entries, states, further calls, then the calls are POSTED."""
        total = await self._book_plain(now) if self._limits.plain_by_statement else 0
        while True:
            async with self._pool.connection() as conn, conn.cursor() as cur:
                answered = await settlement.lock_answered(
                    cur, self._chain, self._region, self._limits.chunk_memberships_max
                )
                if not answered:
                    break
                transactions, standings, calls = await self._decide(cur, answered, now)
                await insert_transactions(cur, transactions, now, TRACE)
                await settlement.save_standings(cur, standings)
                await settlement.insert_calls(cur, calls)
                await settlement.mark_posted(cur, [call.number for call, _ in answered], now)
                await self._between_steps("book")
            await self._between_steps("booked")
            total += len(answered)
        counts.booked += total
        counts.unbooked = 0
        return total

    async def _book_plain(self, now: datetime) -> int:
        """The common answers, a chunk by one statement each; what is left is decided one by one."""
        total, limit = 0, self._limits.chunk_memberships_max
        while True:
            try:
                async with self._pool.connection() as conn, conn.cursor() as cur:
                    quick_columns(conn)
                    booked = await close_plain(cur, self._chain, self._region, now, limit, TRACE)
                    await self._between_steps("book")
            except UniqueViolation:  # a part was booked before: one by one, where the ledger says so
                return total
            if not booked:
                return total
            await self._between_steps("booked")
            total += booked

    async def _decide(
        self, cur: Any, answered: Sequence[tuple[Call, Standing]], now: datetime
    ) -> tuple[list[Transaction], list[tuple[Standing, str]], list[NewCall]]:
        shared = [standing.id for call, standing in answered if call.kind is CallKind.CAPTURE and shared_out(standing)]
        shares = await shares_of(cur, shared)
        transactions: list[Transaction] = []
        standings: dict[str, tuple[Standing, str]] = {}
        calls: list[NewCall] = []
        for call, read in answered:
            # A membership may have several answers in one chunk: each starts from what the one before left.
            standing = standings[read.id][0] if read.id in standings else read
            booking = book_answer(standing, call, shares.get(read.id, ()), now, provider=standing.provider)
            parked_why = booking.parked_why or (standings[read.id][1] if read.id in standings else "")
            standings[read.id] = (booking.standing, parked_why)
            transactions += booking.transactions
            calls += booking.calls
        return transactions, list(standings.values()), calls

    # ------------------------------------------------------------ the end of a run

    async def _wait_for_leases(self, now: datetime, deadline: float) -> bool:
        """Waits for the earliest lease or query that is due, as far as patience goes; False: stop here."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            free_at = await settlement.next_query_at(cur, self._chain, self._region, now)
        if free_at is None:
            return False
        wait_s = max((free_at - self._wall()).total_seconds(), 0.05)
        if asyncio.get_running_loop().time() + wait_s > deadline:
            return False
        await asyncio.sleep(wait_s)
        return True

    async def _report(self, now: datetime, counts: _Counts, *, paused: bool = False) -> SettlementReport:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            open_calls = await settlement.next_query_at(cur, self._chain, self._region, now) is not None
            totals = await control_totals(cur, self._chain, self._region, now)
        return SettlementReport(
            chain=self._chain,
            region=self._region,
            now=now,
            expired=counts.expired,
            cut_off=counts.cut_off,
            woken=counts.woken,
            booked=counts.booked,
            reserved=counts.reserved,
            open_calls=open_calls,
            totals=totals,
            paused=paused,
        )


async def _send(provider: Holder, call: Call) -> AnyAnswer:
    match call.kind:
        case CallKind.CAPTURE:
            return await provider.capture(
                number=call.number, hold_no=call.hold_no, amount_fen=call.fen, subject=SUBJECT, complete=True
            )
        case CallKind.RELEASE:
            return await provider.unfreeze(
                number=call.number, hold_no=call.hold_no, amount_fen=call.fen, remark="settled"
            )
        case CallKind.REFUND:
            return await provider.refund(
                number=call.number, payment_number=_payment_of(call), amount_fen=call.fen, reason="use reversed"
            )


async def _query(provider: Holder, call: Call) -> AnyAnswer:
    match call.kind:
        case CallKind.CAPTURE:
            return await provider.query_payment(number=call.number, amount_fen=call.fen)
        case CallKind.RELEASE:
            return await provider.query_unfreeze(number=call.number, hold_no=call.hold_no, amount_fen=call.fen)
        case CallKind.REFUND:
            return await provider.query_refund(
                number=call.number, payment_number=_payment_of(call), amount_fen=call.fen
            )


def _payment_of(call: Call) -> str:
    """A capture has a number of its own; what WeChat's service order collects has its order's."""
    return call.hold_order if call.provider == WECHAT else payment_of(call)
