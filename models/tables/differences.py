"""What a run found and what became of it: lines, days, and which business days of an entity are closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from models.domain.differences import Explained, Finding, Verdict
from models.domain.ids import derived_id
from models.domain.reconciliation import LineKind
from models.tables.reconciliation import Account


class LineState(StrEnum):
    """Whether a line still keeps its day from closing."""

    OPEN = "open"
    POSTED = "posted"
    EXPLAINED = "explained"


TIMING = "timing"
"""`posted_to` of a line whose amount waits in the account `timing:{provider}` for the day of its other side."""

_COLUMNS = (
    "id, provider, account, day, verdict, kind, order_no, request_no, occurrence, trade_no, txn, store, provider_fen,"
    " ours_fen, hold_fen, pair_day, state, posted_to, reason, by, found_at, decided_at"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A stored finding, as its row stands."""

    id: str
    provider: str
    account: str
    day: date
    verdict: Verdict
    kind: LineKind
    order_no: str
    request_no: str
    occurrence: int
    trade_no: str
    txn: str
    store: str
    provider_fen: int
    ours_fen: int
    hold_fen: int
    pair_day: date | None
    state: LineState
    posted_to: str
    reason: str
    by: str
    found_at: datetime
    decided_at: datetime | None

    @property
    def difference_fen(self) -> int:
        """What the statement has beyond our account."""
        return self.provider_fen - self.ours_fen


def line_id(account: Account, day: date, finding: Finding) -> str:
    """The id of a finding's line: the same for each run over the day."""
    what = finding.verdict if finding.verdict in (Verdict.FEE, Verdict.HOLD_OPEN) else "line"
    key = f"{what}/{finding.kind}/{finding.order_no}/{finding.request_no}/{finding.occurrence}"
    return derived_id(f"{account.provider}/{account.entity}/{day.isoformat()}", key)


def line_of(account: Account, day: date, finding: Finding, found_at: datetime) -> Line:
    """A new finding as its line: timing is posted, what explains itself is explained, the rest is open."""
    state, posted_to, reason = LineState.OPEN, "", ""
    if finding.verdict is Verdict.TIMING:
        state, posted_to = LineState.POSTED, TIMING
    elif finding.explained is Explained.REVERSED:
        state, reason = LineState.EXPLAINED, str(Explained.REVERSED)
    return Line(
        id=line_id(account, day, finding),
        provider=account.provider,
        account=account.entity,
        day=day,
        verdict=finding.verdict,
        kind=finding.kind,
        order_no=finding.order_no,
        request_no=finding.request_no,
        occurrence=finding.occurrence,
        trade_no=finding.trade_no,
        txn=finding.txn,
        store=finding.store,
        provider_fen=finding.provider_fen,
        ours_fen=finding.ours_fen,
        hold_fen=finding.hold_fen,
        pair_day=finding.pair_day,
        state=state,
        posted_to=posted_to,
        reason=reason,
        by="",
        found_at=found_at,
        decided_at=None,
    )


async def day_lines(cur: AsyncCursor[Any], account: Account, day: date) -> dict[str, Line]:
    """All lines of an account and day, by id."""
    await cur.execute(
        f"SELECT {_COLUMNS} FROM reconciliation_line WHERE account = %s AND provider = %s AND day = %s",
        (account.entity, account.provider, day.isoformat()),
    )
    return {row[0]: line_from(row) for row in await cur.fetchall()}


async def load_line(cur: AsyncCursor[Any], line: str) -> Line | None:
    """One line, locked until the commit; None: no such line."""
    await cur.execute(f"SELECT {_COLUMNS} FROM reconciliation_line WHERE id = %s FOR UPDATE", (line,))
    row = await cur.fetchone()
    return None if row is None else line_from(row)


async def list_lines(
    conn: AsyncConnection[Any],
    *,
    account: str | None = None,
    provider: str | None = None,
    day: date | None = None,
    state: str | None = None,
    after: str = "",
    limit: int = 1_000,
) -> list[Line]:
    """Lines by day and order number; `after` is the last id that was seen."""
    cur = await conn.execute(
        f"SELECT {_COLUMNS} FROM reconciliation_line"
        " WHERE (%(account)s::text IS NULL OR account = %(account)s)"
        " AND (%(provider)s::text IS NULL OR provider = %(provider)s)"
        " AND (%(day)s::text IS NULL OR day = %(day)s) AND (%(state)s::text IS NULL OR state = %(state)s)"
        " AND (%(after)s = '' OR (day, order_no, id) > (SELECT day, order_no, id FROM reconciliation_line"
        "                                              WHERE id = %(after)s))"
        " ORDER BY day, order_no, id LIMIT %(limit)s",
        {
            "account": account,
            "provider": provider,
            "day": None if day is None else day.isoformat(),
            "state": state,
            "after": after,
            "limit": limit,
        },
    )
    return [line_from(row) for row in await cur.fetchall()]


def line_from(row: Sequence[Any]) -> Line:
    """A row of _COLUMNS as a value."""
    day, pair_day = date.fromisoformat(row[3]), None if row[15] is None else date.fromisoformat(row[15])
    fields = (*row[:3], day, Verdict(row[4]), LineKind(row[5]), *row[6:15], pair_day, LineState(row[16]), *row[17:])
    return Line(*fields)


async def save_lines(cur: AsyncCursor[Any], lines: Sequence[Line]) -> None:
    """Insert, or put in the place of what stands under the same ids."""
    if not lines:
        return
    names = [name.strip() for name in _COLUMNS.split(",")]
    types = {"occurrence": "smallint", "provider_fen": "bigint", "ours_fen": "bigint", "hold_fen": "bigint"} | {
        "found_at": "timestamptz",
        "decided_at": "timestamptz",
    }
    arrays = ", ".join(f"%({name})s::{types.get(name, 'text')}[]" for name in names)
    changed = ", ".join(f"{name} = excluded.{name}" for name in names if name != "id")
    await cur.execute(
        f"INSERT INTO reconciliation_line ({_COLUMNS}) SELECT {_COLUMNS} FROM unnest({arrays}) AS l({_COLUMNS})"
        f" ON CONFLICT (id) DO UPDATE SET {changed}",
        {name: [_stored(getattr(line, name)) for line in lines] for name in names},
    )


def _stored(value: object) -> object:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, StrEnum) else value


async def delete_lines(cur: AsyncCursor[Any], ids: Sequence[str]) -> None:
    """Lines that a later run does not find any more."""
    if ids:
        await cur.execute("DELETE FROM reconciliation_line WHERE id = ANY(%s)", (list(ids),))


async def pair_lines(
    cur: AsyncCursor[Any], account: Account, day: date, keys: Mapping[tuple[str, str, str], date]
) -> None:
    """The waiting lines of other days that found their other side on `day`: by (kind, order, request) and their day.

    Those that were paired with it by an earlier run and are not now wait again. A line that is not posted yet is left
    to the next run over its own day.
    """
    await cur.execute(
        "UPDATE reconciliation_line SET pair_day = NULL WHERE account = %s AND provider = %s AND pair_day = %s"
        " AND day <> %s",
        (account.entity, account.provider, day.isoformat(), day.isoformat()),
    )
    if not keys:
        return
    await cur.execute(
        "UPDATE reconciliation_line l SET pair_day = %(day)s, verdict = 'TIMING', state = 'posted'"
        " FROM unnest(%(kinds)s::text[], %(orders)s::text[], %(requests)s::text[], %(days)s::text[])"
        " AS k(kind, order_no, request_no, day)"
        " WHERE l.account = %(account)s AND l.provider = %(provider)s AND l.day = k.day AND l.kind = k.kind"
        " AND l.order_no = k.order_no AND l.request_no = k.request_no AND l.posted_to = 'timing'",
        {
            "account": account.entity,
            "provider": account.provider,
            "day": day.isoformat(),
            "kinds": [key[0] for key in keys],
            "orders": [key[1] for key in keys],
            "requests": [key[2] for key in keys],
            "days": [other.isoformat() for other in keys.values()],
        },
    )


async def ripen(cur: AsyncCursor[Any], account: Account, as_of: date, days: int) -> int:
    """Timing that waited longer than `days` is a difference: open, on the side that has it. Returns how many."""
    await cur.execute(
        "UPDATE reconciliation_line SET state = 'open',"
        " verdict = CASE WHEN txn = '' THEN 'PROVIDER_ONLY' ELSE 'OURS_ONLY' END"
        " WHERE account = %s AND provider = %s AND verdict = 'TIMING' AND pair_day IS NULL AND state = 'posted'"
        " AND day < %s",
        (account.entity, account.provider, (as_of - timedelta(days=days)).isoformat()),
    )
    return cur.rowcount


# ---------------------------------------------------------------- days


@dataclass(frozen=True, slots=True)
class DayRun:
    """The last run over one account and day, with what is open of it now. `closed`: the entity's business day is."""

    provider: str
    account: str
    day: date
    statement_lines: int
    matched: int
    statement_fen: int | None
    ledger_fen: int
    fee_fen: int
    difference_fen: int
    runs: int
    run_at: datetime
    lines: int = 0
    open_lines: int = 0
    open_fen: int = 0
    closed: bool = False


_DAY = (
    "provider, account, day, statement_lines, matched, statement_fen, ledger_fen, fee_fen, difference_fen, runs, run_at"
)


async def load_day(cur: AsyncCursor[Any], account: Account, day: date) -> DayRun | None:
    """The last run over a day, locked until the commit; None: there was none."""
    await cur.execute(
        f"SELECT {_DAY} FROM reconciliation_day WHERE provider = %s AND account = %s AND day = %s FOR UPDATE",
        (account.provider, account.entity, day.isoformat()),
    )
    row = await cur.fetchone()
    return None if row is None else _day_from(row)


async def save_day(cur: AsyncCursor[Any], run: DayRun) -> None:
    """The last run, in the place of the one before."""
    names = [name.strip() for name in _DAY.split(",")]
    changed = ", ".join(f"{name} = excluded.{name}" for name in names[3:])
    await cur.execute(
        f"INSERT INTO reconciliation_day ({_DAY}) VALUES ({', '.join(['%s'] * len(names))})"
        f" ON CONFLICT (provider, account, day) DO UPDATE SET {changed}",
        [_stored(getattr(run, name)) for name in names],
    )


async def list_days(
    conn: AsyncConnection[Any],
    *,
    account: str | None = None,
    provider: str | None = None,
    since: date | None = None,
    until: date | None = None,
    limit: int = 400,
) -> list[DayRun]:
    """Days that were run, the newest first, each with its lines as they stand now."""
    columns = ", ".join(f"d.{name.strip()}" for name in _DAY.split(","))
    cur = await conn.execute(
        f"SELECT {columns}, coalesce(l.lines, 0), coalesce(l.open, 0), coalesce(l.open_fen, 0)::bigint,"
        " coalesce(c.day >= d.day, false)"
        " FROM reconciliation_day d LEFT JOIN closed_through c ON c.entity = d.account"
        " LEFT JOIN LATERAL (SELECT count(*) AS lines, count(*) FILTER (WHERE state = 'open') AS open,"
        "   sum(provider_fen - ours_fen) FILTER (WHERE state = 'open') AS open_fen FROM reconciliation_line l"
        "   WHERE l.account = d.account AND l.provider = d.provider AND l.day = d.day) AS l ON true"
        " WHERE (%(account)s::text IS NULL OR d.account = %(account)s)"
        " AND (%(provider)s::text IS NULL OR d.provider = %(provider)s)"
        " AND (%(since)s::text IS NULL OR d.day >= %(since)s) AND (%(until)s::text IS NULL OR d.day <= %(until)s)"
        " ORDER BY d.day DESC, d.account, d.provider LIMIT %(limit)s",
        {
            "account": account,
            "provider": provider,
            "since": None if since is None else since.isoformat(),
            "until": None if until is None else until.isoformat(),
            "limit": limit,
        },
    )
    return [_day_from(row) for row in await cur.fetchall()]


def _day_from(row: Sequence[Any]) -> DayRun:
    fields = (*row[:2], date.fromisoformat(row[2]), *row[3:])
    return DayRun(*fields)


async def last_stated(cur: AsyncCursor[Any], account: Account) -> date | None:
    """The last day that was matched with a statement; None: there is none."""
    await cur.execute(
        "SELECT max(day) FROM reconciliation_day WHERE account = %s AND provider = %s AND statement_fen IS NOT NULL",
        (account.entity, account.provider),
    )
    row = await cur.fetchone()
    return None if row is None or row[0] is None else date.fromisoformat(row[0])


async def move_day(cur: AsyncCursor[Any], line: Line, fen: int) -> None:
    """The clearing account of a line's day moved by `fen`: the run's figures follow."""
    await cur.execute(
        "UPDATE reconciliation_day SET ledger_fen = ledger_fen + %s, difference_fen = difference_fen - %s"
        " WHERE provider = %s AND account = %s AND day = %s",
        (fen, fen, line.provider, line.account, line.day.isoformat()),
    )
