"""Reconciliation: a statement is fetched, held against the books, and what differs is posted or waits for somebody.

Every step is one transaction and may be repeated: a run replaces what an earlier run over its day found, and takes
back what that one posted and does not stand any more. One run at a time for an account (an advisory lock).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg_pool import AsyncConnectionPool

from gateway.providers.port import Statements
from models.domain.difference_postings import (
    Remedy,
    difference_resolved,
    fee_account,
    reconciled,
    remedy_account,
    timing_account,
)
from models.domain.differences import TIMING_DAYS, FeeTerms, Finding, Key, Verdict, classify
from models.domain.errors import Bug, Refused, RetryLater
from models.domain.ids import LegalEntityId, derived_id
from models.domain.payments import Succeeded, Unknown
from models.domain.reconciliation import StatementFile, StatementLine, StatementTotals, totals_of
from models.tables import differences, reconciliation
from models.tables.business_days import closed_through
from models.tables.differences import TIMING, DayRun, Line, LineState
from models.tables.ledger import insert_transactions
from models.tables.privacy import audit
from models.tables.reconciliation import Account, LeftOver

Pool = AsyncConnectionPool[AsyncConnection[Any]]
TRACE = "reconciliation"


@dataclass(frozen=True, slots=True)
class ReconcileLimits:
    """Bounds of one run."""

    chunk_lines_max: int = 5_000
    differences_max: int = 200_000
    """More than this is not a day with differences but the wrong statement."""
    holds_max: int = 10_000
    work_mem_mb: int = 128
    repeated_days: int = 7
    """How far back a statement is looked at for a line that comes again."""


@dataclass
class _Booked:
    """What a run changes in the lines, and what it posts for that."""

    lines: list[Line] = field(default_factory=list)
    legs: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def post(self, line: Line) -> None:
        self._move(line, -1)

    def undo(self, line: Line) -> None:
        if line.posted_to:
            self._move(line, 1)

    def _move(self, line: Line, sign: int) -> None:
        account = (
            timing_account(line.provider)
            if line.posted_to == TIMING
            else remedy_account(Remedy(line.posted_to), line.provider)
        )
        self.legs[account] += sign * line.difference_fen


class Reconciler:
    """All verbs over one database. `statements` is asked for (provider, legal entity); `wall` is the wall clock."""

    def __init__(
        self,
        pool: Pool,
        statements: Callable[[str, LegalEntityId], Statements],
        *,
        terms: Mapping[str, FeeTerms] | None = None,
        limits: ReconcileLimits = ReconcileLimits(),
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._statements = statements
        self._terms = terms or {}
        self.limits = limits
        self._wall = wall

    # ------------------------------------------------------------ statements

    async def fetch(self, account: Account, day: date, progress: Callable[[int], None] = lambda _: None) -> int:
        """Fetch a day's statement from the provider and keep it; returns its lines.

        Raises RetryLater `statement_not_ready` while the provider has none, and as `keep` does.
        """
        statements = self._statements(account.provider, LegalEntityId(account.entity))
        answer = await statements.statement(day=day)
        if not isinstance(answer, Succeeded):
            why = "not ready yet" if isinstance(answer, Unknown) and answer.absent else getattr(answer, "why", answer)
            raise RetryLater(
                "statement_not_ready",
                f"no statement of {account.provider} for {account.entity} on {day}: {why}",
                "statements come on the next day; try again later",
                after_s=600,
            )
        # Its lines are this account's, for it was this account's client that was asked.
        return await self.keep(replace(answer.result, provider=account.provider, account=account.entity), progress)

    async def keep(self, file: StatementFile, progress: Callable[[int], None] = lambda _: None) -> int:
        """Keep a statement in the place of an earlier one of its day; returns its lines.

        Raises Refused `day_closed`, and `statement_incomplete` when the lines are not what the totals say: nothing
        is kept then.
        """
        account = Account(file.provider, file.account)
        summed = _Summed(file.lines, self.limits.chunk_lines_max, progress)
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await self._lock(cur, account)
            await _require_open(cur, account.entity, file.day)
            n = await reconciliation.begin_statement(cur, account, file.day, file.totals, self._wall())
            await reconciliation.copy_lines(cur, n, summed.chunks())
            if summed.totals != file.totals:
                raise Refused(
                    "statement_incomplete",
                    f"the statement of {file.day} says {file.totals} and its lines are {summed.totals}",
                    "fetch it again; if it stays so, ask the provider",
                )
        return summed.totals.payments + summed.totals.refunds

    # ------------------------------------------------------------ runs

    async def run(self, account: Account, day: date, as_of: date, *, closing: bool = False) -> DayRun:
        """Match a day and post what explains itself; the day as it stands then. `as_of`: today, by business time.

        Without a statement only what another day's statement had finds its place, and the rest stands as the day's
        difference. Raises Refused `day_closed`, `too_many_differences`.
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await self._lock(cur, account)
            if not closing:
                await _require_open(cur, account.entity, day)
            await cur.execute(f"SET LOCAL work_mem = '{self.limits.work_mem_mb}MB'")
            return await self._run(cur, account, day, as_of)

    async def _run(self, cur: AsyncCursor[Any], account: Account, day: date, as_of: date) -> DayRun:
        before = await differences.load_day(cur, account, day)
        stored = await reconciliation.load_statement(cur, account, day)
        totals = StatementTotals(0, 0, 0, 0, 0) if stored is None else stored.totals
        terms = self._terms.get(account.provider, FeeTerms())
        await reconciliation.gather_ours(cur, account, day)
        left = await self._left_over(cur, account, day, None if stored is None else stored.n, terms)
        findings = await self._classify(cur, account, day, as_of, left, terms)
        if stored is None:
            findings = [one for one in findings if one.pair_day is not None]
        fee_fen = totals.fee_fen + sum(one.difference_fen for one in findings if one.verdict is Verdict.FEE)
        runs = 1 if before is None else before.runs + 1
        booked = await self._merge(cur, account, day, findings)
        booked.legs[fee_account(account.provider)] += fee_fen - (0 if before is None else before.fee_fen)
        number = derived_id(f"{account.provider}/{account.entity}/{day.isoformat()}", f"run{runs}")
        posting = reconciled(
            number,
            entity=LegalEntityId(account.entity),
            provider=account.provider,
            legs=booked.legs,
            business_date=day,
        )
        await insert_transactions(cur, [posting], self._wall(), TRACE, into_closed=True)
        await differences.pair_lines(
            cur,
            account,
            day,
            {(one.kind, one.order_no, one.request_no): one.pair_day for one in findings if one.pair_day is not None},
        )
        await differences.ripen(cur, account, as_of, TIMING_DAYS)
        change = await reconciliation.change_of(cur, account, day)
        run = DayRun(
            provider=account.provider,
            account=account.entity,
            day=day,
            statement_lines=totals.payments + totals.refunds,
            matched=totals.payments + totals.refunds - len(left.theirs),
            statement_fen=None if stored is None else totals.net_fen,
            ledger_fen=change.fen,
            fee_fen=fee_fen,
            difference_fen=totals.net_fen - change.fen,
            runs=runs,
            run_at=self._wall(),
            lines=len(booked.lines),
            open_lines=sum(line.state is LineState.OPEN for line in booked.lines),
            open_fen=sum(line.difference_fen for line in booked.lines if line.state is LineState.OPEN),
        )
        standing_fen = sum(line.difference_fen for line in booked.lines if not line.posted_to)
        if stored is not None and standing_fen != run.difference_fen:
            raise Bug("difference_unexplained", f"{account} {day}: lines {standing_fen}, in all {run.difference_fen}")
        await differences.save_day(cur, run)
        return run

    async def _left_over(
        self, cur: AsyncCursor[Any], account: Account, day: date, file: int | None, terms: FeeTerms
    ) -> LeftOver:
        most = self.limits.differences_max
        left = await reconciliation.left_over(cur, account, day, file, terms, most + 1)
        if max(len(left.theirs), len(left.ours)) > most:
            raise Refused(
                "too_many_differences",
                f"more than {most} lines of {account.provider} for {account.entity} on {day} do not match",
                "fetch the statement of this day and account; check the provider's account in the settings",
            )
        return left

    async def _classify(
        self, cur: AsyncCursor[Any], account: Account, day: date, as_of: date, left: LeftOver, terms: FeeTerms
    ) -> Sequence[Finding]:
        one_sided = left.theirs.keys() ^ left.ours.keys()
        alone: list[Key] = [key for key, _ in left.theirs.keys() & one_sided]
        return classify(
            day,
            as_of,
            left.theirs,
            left.ours,
            carried=await reconciliation.carried(cur, account, day, sorted({key[1] for key, _ in one_sided})),
            seen=await reconciliation.seen_before(cur, account, day, alone, self.limits.repeated_days),
            holds=await reconciliation.open_holds(cur, account, day, self.limits.holds_max),
            terms=terms,
        )

    async def _merge(self, cur: AsyncCursor[Any], account: Account, day: date, findings: Sequence[Finding]) -> _Booked:
        """Lines of this run over those of the last: what stands keeps what became of it, the rest is undone."""
        standing = await differences.day_lines(cur, account, day)
        booked = _Booked()
        now = self._wall()
        for finding in findings:
            new = differences.line_of(account, day, finding, now)
            old = standing.pop(new.id, None)
            if old is not None and _same_amounts(old, new):
                kept = _kept(old, new)
                if kept.posted_to and not old.posted_to:
                    booked.post(kept)
                booked.lines.append(kept)
                continue
            if old is not None:
                booked.undo(old)
            if new.posted_to:
                booked.post(new)
            booked.lines.append(new)
        for gone in standing.values():
            booked.undo(gone)
        await differences.delete_lines(cur, list(standing))
        await differences.save_lines(cur, booked.lines)
        return booked

    # ------------------------------------------------------------ what a person decides

    async def explain(self, line: str, reason: str, by: str) -> Line:
        """An open line is explained by a sentence; nothing is booked. Raises Refused `unknown_line`, `not_open`."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            found = await _open_line(cur, line, reason)
            done = replace(found, state=LineState.EXPLAINED, reason=reason.strip(), by=by, decided_at=self._wall())
            await differences.save_lines(cur, [done])
            await _audit(conn, "reconciliation.explained", done, {"reason": done.reason}, by, self._wall())
        return done

    async def resolve(self, line: str, remedy: Remedy, reason: str, by: str) -> Line:
        """An open line's amount is booked to a remedy's account. Raises as `explain`, and `nothing_to_post`."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            found = await _open_line(cur, line, reason)
            if not found.difference_fen:
                raise Refused("nothing_to_post", "no money differs here", "explain it with a reason")
            waits = found.posted_to == TIMING
            through = await closed_through(cur, found.account)
            on = found.day
            if through is not None and through >= on:
                if not waits:
                    raise Refused("day_closed", f"{found.day} is closed", "reopen the day first")
                on = through.fromordinal(through.toordinal() + 1)
            posting = difference_resolved(
                derived_id(found.id, f"{remedy}{found.found_at.isoformat()}"),
                entity=LegalEntityId(found.account),
                provider=found.provider,
                difference_fen=found.difference_fen,
                remedy=remedy,
                waits_in_timing=waits,
                business_date=on,
            )
            await insert_transactions(cur, [posting], self._wall(), TRACE)
            done = replace(
                found,
                state=LineState.POSTED,
                posted_to=str(remedy),
                reason=reason.strip(),
                by=by,
                decided_at=self._wall(),
            )
            await differences.save_lines(cur, [done])
            if not waits:
                await differences.move_day(cur, found, found.difference_fen)
            detail = {"reason": done.reason, "remedy": str(remedy), "posting": posting.id}
            await _audit(conn, "reconciliation.posted", done, detail, by, self._wall())
        return done

    async def _lock(self, cur: AsyncCursor[Any], account: Account) -> None:
        await cur.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"reconcile/{account.provider}/{account.entity}",)
        )


class _Summed:
    """Lines in chunks, read in a thread, with their totals so far."""

    def __init__(self, lines: Any, chunk_lines: int, progress: Callable[[int], None]) -> None:
        self._lines: Iterator[StatementLine] = iter(lines)
        self._chunk_lines = chunk_lines
        self._progress = progress
        self.totals = StatementTotals(0, 0, 0, 0, 0)

    async def chunks(self) -> AsyncIterator[Sequence[StatementLine]]:
        while chunk := await asyncio.to_thread(lambda: list(islice(self._lines, self._chunk_lines))):
            one, all_ = totals_of(chunk), self.totals
            self.totals = StatementTotals(
                all_.payments + one.payments,
                all_.refunds + one.refunds,
                all_.payments_fen + one.payments_fen,
                all_.refunds_fen + one.refunds_fen,
                all_.fee_fen + one.fee_fen,
            )
            self._progress(self.totals.payments + self.totals.refunds)
            yield chunk


def _same_amounts(old: Line, new: Line) -> bool:
    return (old.provider_fen, old.ours_fen, old.hold_fen) == (new.provider_fen, new.ours_fen, new.hold_fen)


def _kept(old: Line, new: Line) -> Line:
    """The line of an earlier run as this run sees it. What a person decided, or was posted, stays."""
    kept = replace(old, verdict=new.verdict, pair_day=new.pair_day, trade_no=new.trade_no, txn=new.txn, store=new.store)
    if old.decided_at is not None:
        return kept
    if old.posted_to == TIMING and new.posted_to != TIMING:  # it waited long enough, or is another's twin by now
        return replace(kept, state=new.state, reason=new.reason)
    return replace(kept, state=new.state, reason=new.reason, posted_to=new.posted_to)


async def _require_open(cur: AsyncCursor[Any], entity: str, day: date) -> None:
    through = await closed_through(cur, entity)
    if through is not None and day <= through:
        raise Refused("day_closed", f"{day} of {entity} is closed", "reopen it: storeops day reopen")


async def _open_line(cur: AsyncCursor[Any], line: str, reason: str) -> Line:
    if not reason.strip():
        raise Refused("reason_missing", "why?", "give a reason")
    found = await differences.load_line(cur, line)
    if found is None:
        raise Refused("unknown_line", f"no line {line!r}", "see: storeops reconcile lines")
    if found.state is not LineState.OPEN:
        raise Refused("not_open", f"this line is {found.state} already", "nothing is to be done")
    return found


async def _audit(
    conn: AsyncConnection[Any], kind: str, line: Line, detail: Mapping[str, str], by: str, at: datetime
) -> None:
    said: dict[str, str | int] = {
        "provider": line.provider,
        "account": line.account,
        "day": line.day.isoformat(),
        "verdict": str(line.verdict),
        "order_no": line.order_no,
        "difference_fen": line.difference_fen,
        **detail,
    }
    await audit(conn, kind, f"line:{line.id}", said, by, at)
