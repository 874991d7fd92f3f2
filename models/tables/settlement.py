"""Settlement's statements: one per chunk, never the ORM. The database guards, not the worker.

Every claim is a lease on the wall clock; every due date is business time. Rows that another worker holds are
skipped, so several workers may run the same chain and region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.payments import AnyAnswer, answer_document, answer_from_document
from models.domain.settlement import CALL_LEASE, Call, CallKind, CallState, NewCall, Standing
from models.tables.memberships import STANDING_COLUMNS, standing_from
from models.tables.usage import release_expired

# Rows that a statement before has locked are found by their places and by indexes. A planner that reads the whole table
# for five thousand of its rows is right while the table is small, and keeps that plan when it has grown.
BY_PLACE = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"

# What is due in the order of its index, which is that of the ids among what is due at one instant: each chunk finds its
# neighbours on the pages of every index that begins with an id. A chunk goes on after the last one: what stays due
# (an open reservation, somebody else's lock) is not read again.
_LOCK_DUE = """
SELECT ctid::text, id, due_at, cutoff_at <= %(now)s, state <> 'EXPIRED' FROM membership
WHERE chain = %(chain)s AND region = %(region)s AND due_at <= %(now)s AND (due_at, id) > (%(after_at)s, %(after_id)s)
ORDER BY due_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""

_EXPIRE = "UPDATE membership SET state = 'EXPIRED' WHERE ctid = ANY(%(rows)s::tid[])"

_RESERVED = """
SELECT membership FROM reservation WHERE membership = ANY(%(ids)s::text[]) AND state = 'open'
UNION ALL
SELECT membership FROM lease WHERE membership = ANY(%(ids)s::text[]) AND state = 'open' AND used < uses
    AND lapses_at > %(now)s
UNION ALL
SELECT membership FROM credit_use WHERE membership = ANY(%(ids)s::text[]) AND state <> 'done'
"""

# The rows were locked by a statement before, so what was read of reservations since then saw every one that was made
# under the lock; a locked row stays where it is, so it is found by its place.
_CUT_OFF = """
WITH moved AS (
    UPDATE membership m SET
        charge_fen = {charge},
        branch = CASE WHEN {charge} = 0 THEN NULL WHEN {charge} = m.fee_eff_fen THEN 'FEE' ELSE 'CLAWBACK' END,
        state = CASE WHEN {charge} = 0 AND m.hold_state <> 'held' THEN 'CLOSED' ELSE 'SETTLING' END,
        settled_at = %(now)s
    WHERE m.ctid = ANY(%(rows)s::tid[])
    RETURNING m.id, m.chain, m.region, m.owner, m.generation, m.charge_fen, m.hold_fen, m.hold_state
), calls AS (
    INSERT INTO settlement_call (membership, chain, region, owner, kind, request_number, fen, state, attempt, tries,
                                 not_before)
    SELECT m.id, m.chain, m.region, m.owner, c.kind, c.letter || m.id || 'G' || m.generation, c.fen, 'NEW', 0, 0,
           %(now)s
    FROM moved m, LATERAL (
        SELECT CASE WHEN m.charge_fen > 0 THEN 'capture' ELSE 'release' END AS kind,
               CASE WHEN m.charge_fen > 0 THEN 'S' ELSE 'U' END AS letter,
               CASE WHEN m.charge_fen > 0 THEN m.charge_fen ELSE m.hold_fen END AS fen
    ) AS c
    WHERE m.charge_fen > 0 OR m.hold_state = 'held'
)
SELECT count(*) FROM moved
""".format(charge="CASE WHEN m.task_done >= m.task_target THEN 0 ELSE least(m.fee_eff_fen, m.used_fen) END")

# A dunning attempt is never the first: those of the day's cutoff are not looked at. It takes what is due now; with
# nothing due it ends the membership, by way of its hold if there is one.
_WAKE = """
WITH due AS (
    SELECT c.request_number AS number, m.id, m.hold_state, m.hold_fen, m.generation, m.chain, m.region, m.owner,
           least(m.charge_fen, m.fee_eff_fen, m.used_fen) AS fen
    FROM settlement_call c JOIN membership m ON m.id = c.membership
    WHERE c.chain = %(chain)s AND c.region = %(region)s AND c.state = 'NEW' AND c.not_before <= %(now)s
      AND c.kind = 'capture' AND c.attempt > 0 AND m.state = 'DUNNING'
    ORDER BY m.id LIMIT %(limit)s FOR UPDATE OF m, c SKIP LOCKED
), moved AS (
    UPDATE membership m SET
        state = CASE WHEN due.fen > 0 OR due.hold_state = 'held' THEN 'SETTLING' ELSE 'CLOSED' END
    FROM due WHERE m.id = due.id
), attempts AS (
    UPDATE settlement_call c SET
        fen = due.fen,
        state = CASE WHEN due.fen > 0 THEN 'NEW' ELSE 'POSTED' END,
        posted_at = CASE WHEN due.fen > 0 THEN NULL ELSE %(now)s::timestamptz END
    FROM due WHERE c.request_number = due.number
), releases AS (
    INSERT INTO settlement_call (membership, chain, region, owner, kind, request_number, fen, state, attempt, tries,
                                 not_before)
    SELECT due.id, due.chain, due.region, due.owner, 'release', r.number, due.hold_fen, 'NEW', 0, 0, %(now)s
    FROM due, LATERAL (SELECT 'U' || due.id || 'G' || due.generation AS number) AS r
    WHERE due.fen = 0 AND due.hold_state = 'held'
    ON CONFLICT (request_number) DO NOTHING
)
SELECT count(*) FROM due
"""

_CLAIM = """
WITH open AS MATERIALIZED (
    SELECT c.ctid AS row, m.hold_no, m.captured_number, m.provider, m.hold_order
    FROM settlement_call c JOIN membership m ON m.id = c.membership
    WHERE c.chain = %(chain)s AND c.region = %(region)s AND c.state IN ('NEW', 'UNKNOWN') AND c.not_before <= %(now)s
      AND (c.lease_until IS NULL OR c.lease_until <= %(wall_now)s)
      AND (c.kind <> 'capture' OR m.state IN ('SETTLING', 'UNKNOWN'))
    ORDER BY c.not_before, c.request_number LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED
)
UPDATE settlement_call c SET tries = c.tries + 1, lease_until = %(lease_until)s
FROM open m WHERE c.ctid = m.row
RETURNING {columns}
"""

CALL_COLUMNS = (
    "c.membership, c.owner, c.kind, c.request_number, c.fen, c.state, c.attempt, c.tries, c.not_before,"
    " c.lease_until, c.answer, m.hold_no, m.captured_number, m.provider, m.hold_order"
)

_CLAIMED_COLUMNS = CALL_COLUMNS.replace("c.tries", "c.tries - 1").replace("c.lease_until", "NULL::timestamptz")

_ANSWER = """
UPDATE settlement_call c SET state = a.state, answer = a.answer, answered_at = %(now)s, lease_until = a.lease_until
FROM unnest(%(numbers)s::text[], %(states)s::text[], %(answers)s::jsonb[], %(leases)s::timestamptz[])
    AS a(number, state, answer, lease_until)
WHERE c.request_number = a.number AND c.state IN ('NEW', 'UNKNOWN')
RETURNING c.membership, c.kind, c.state
"""

_INSERT_CALLS = """
INSERT INTO settlement_call (membership, chain, region, owner, kind, request_number, fen, state, attempt, tries,
                             not_before)
SELECT n.membership, m.chain, m.region, m.owner, n.kind, n.number, n.fen, 'NEW', n.attempt, 0, n.not_before
FROM unnest(%(memberships)s::text[], %(kinds)s::text[], %(numbers)s::text[], %(fens)s::bigint[],
            %(attempts)s::int[], %(befores)s::timestamptz[])
    AS n(membership, kind, number, fen, attempt, not_before)
JOIN membership m ON m.id = n.membership
ON CONFLICT (request_number) DO NOTHING
"""

_SAVE_STANDINGS = """
UPDATE membership m SET state = s.state, paid_fen = s.paid_fen, refunded_fen = s.refunded_fen,
    receivable_fen = s.receivable_fen, captured_number = s.captured_number, hold_state = s.hold_state,
    attempts = s.attempts,
    parked_why = CASE WHEN s.state = 'PARKED' AND s.parked_why = '' THEN m.parked_why ELSE s.parked_why END
FROM unnest(%(ids)s::text[], %(states)s::text[], %(paid)s::bigint[], %(refunded)s::bigint[], %(receivable)s::bigint[],
            %(captured)s::text[], %(holds)s::text[], %(attempts)s::int[], %(parked)s::text[])
    AS s(id, state, paid_fen, refunded_fen, receivable_fen, captured_number, hold_state, attempts, parked_why)
WHERE m.id = s.id
"""


EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Mark:
    """The last row that was looked at, in the order of what is due. A run begins before everything."""

    due_at: datetime = EVER
    id: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """What one chunk came to. `mark` is None when nothing is due after it."""

    expired: int
    cut_off: int
    reserved: tuple[str, ...]
    """Due for cutoff, but with an open reservation or lease, or a use that the provider was not told of yet: they are
    EXPIRED, the next run takes them."""
    mark: Mark | None


async def cut_off_chunk(
    cur: AsyncCursor[Any], chain: str, region: str, now: datetime, wall_now: datetime, limit: int, after: Mark
) -> Cut:
    """Past their expiry memberships become EXPIRED, past their cutoff they get their charge and their call.

    What is past both does both at once. In the caller's transaction, at most `limit` rows after `after`. Expired
    reservations are released first, under the membership's lock.
    """
    await cur.execute(BY_PLACE)
    await cur.execute(
        _LOCK_DUE,
        {
            "chain": chain, "region": region, "now": now, "limit": limit, "after_at": after.due_at,
            "after_id": after.id,
        },
    )  # fmt: skip
    due = await cur.fetchall()
    if not due:
        return Cut(0, 0, (), None)
    ids = [row[1] for row in due if row[3]]
    reserved = await _reserved(cur, ids, now, wall_now) if ids else frozenset()
    fixed = [row[0] for row in due if row[3] and row[1] not in reserved]
    ends = [row[0] for row in due if row[4] and (not row[3] or row[1] in reserved)]
    if fixed:
        await cur.execute(_CUT_OFF, {"rows": fixed, "now": now})
    if ends:
        await cur.execute(_EXPIRE, {"rows": ends})
    last = due[-1]
    return Cut(sum(row[4] for row in due), len(fixed), tuple(reserved), Mark(last[2], last[1]))


async def _reserved(cur: AsyncCursor[Any], ids: list[str], now: datetime, wall_now: datetime) -> frozenset[str]:
    await cur.execute(_RESERVED, {"ids": ids, "now": now})
    reserved = {row[0] for row in await cur.fetchall()}
    if reserved and await release_expired(cur, sorted(reserved), wall_now):
        await cur.execute(_RESERVED, {"ids": sorted(reserved), "now": now})
        reserved = {row[0] for row in await cur.fetchall()}
    return frozenset(reserved)


async def wake_chunk(cur: AsyncCursor[Any], chain: str, region: str, now: datetime, limit: int) -> int:
    """DUNNING whose day has come: the next attempt opens for what is due now. Returns how many."""
    await cur.execute(_WAKE, {"chain": chain, "region": region, "now": now, "limit": limit})
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])


async def claim_calls(
    cur: AsyncCursor[Any], chain: str, region: str, now: datetime, wall_now: datetime, limit: int
) -> list[Call]:
    """Take calls that are due and nobody's, with a lease; commit before asking the provider.

    They come as they were before the claim: `tries` says how often somebody may have asked already.
    """
    await cur.execute(BY_PLACE)
    await cur.execute(
        _CLAIM.format(columns=_CLAIMED_COLUMNS),
        {
            "chain": chain,
            "region": region,
            "now": now,
            "wall_now": wall_now,
            "lease_until": wall_now + CALL_LEASE,
            "limit": limit,
        },
    )
    return [call_from(row) for row in await cur.fetchall()]


async def save_answers(
    cur: AsyncCursor[Any], answers: Sequence[tuple[Call, AnyAnswer, CallState, datetime | None]], now: datetime
) -> None:
    """What the provider said, into the rows: (call, answer, its new state, wall time of the next query).

    A capture without a definite answer makes its membership UNKNOWN. A row that has its definite answer keeps it.
    """
    await cur.execute(
        _ANSWER,
        {
            "now": now,
            "numbers": [call.number for call, _, _, _ in answers],
            "states": [state.value for _, _, state, _ in answers],
            "answers": [Jsonb(answer_document(answer)) for _, answer, _, _ in answers],
            "leases": [lease_until for _, _, _, lease_until in answers],
        },
    )
    unknown = [row[0] for row in await cur.fetchall() if row[1] == CallKind.CAPTURE and row[2] == CallState.UNKNOWN]
    if unknown:
        await cur.execute(
            "UPDATE membership SET state = 'UNKNOWN' WHERE id = ANY(%s) AND state = 'SETTLING'", (unknown,)
        )


async def lock_answered(cur: AsyncCursor[Any], chain: str, region: str, limit: int) -> list[tuple[Call, Standing]]:
    """Answered calls that are not booked, with their memberships, both locked until the commit."""
    await cur.execute(
        f"SELECT {CALL_COLUMNS}, {', '.join(f'm.{name.strip()}' for name in STANDING_COLUMNS.split(','))}"
        " FROM settlement_call c JOIN membership m ON m.id = c.membership"
        " WHERE c.chain = %s AND c.region = %s AND c.state = 'ANSWERED'"
        " ORDER BY m.id, c.request_number LIMIT %s FOR UPDATE OF m, c SKIP LOCKED",
        (chain, region, limit),
    )
    rows = await cur.fetchall()
    width = len(CALL_COLUMNS.split(","))
    return [(call_from(row[:width]), await standing_from(cur, row[width:])) for row in rows]


async def calls_of(cur: AsyncCursor[Any], membership: str) -> list[Call]:
    """Every call about a membership, in the order of their answers; those without one come last."""
    await cur.execute(
        f"SELECT {CALL_COLUMNS} FROM settlement_call c JOIN membership m ON m.id = c.membership WHERE m.id = %s"
        " ORDER BY c.answered_at NULLS LAST, c.request_number",
        (membership,),
    )
    return [call_from(row) for row in await cur.fetchall()]


async def insert_calls(cur: AsyncCursor[Any], calls: Sequence[NewCall]) -> None:
    """New calls; a number that exists already stays as it is."""
    if not calls:
        return
    await cur.execute(
        _INSERT_CALLS,
        {
            "memberships": [call.membership for call in calls],
            "kinds": [call.kind.value for call in calls],
            "numbers": [call.number for call in calls],
            "fens": [call.fen for call in calls],
            "attempts": [call.attempt for call in calls],
            "befores": [call.not_before for call in calls],
        },
    )


async def save_standings(cur: AsyncCursor[Any], standings: Sequence[tuple[Standing, str]]) -> None:
    """The states and amounts that a step decided, each with why it was parked (empty: it was not, or it was before)."""
    if not standings:
        return
    await cur.execute(
        _SAVE_STANDINGS,
        {
            "ids": [s.id for s, _ in standings],
            "states": [s.state.value for s, _ in standings],
            "paid": [s.paid_fen for s, _ in standings],
            "refunded": [s.refunded_fen for s, _ in standings],
            "receivable": [s.receivable_fen for s, _ in standings],
            "captured": [s.captured_number for s, _ in standings],
            "holds": [s.hold_state.value for s, _ in standings],
            "attempts": [s.attempts for s, _ in standings],
            "parked": [why for _, why in standings],
        },
    )


async def fix_charge(cur: AsyncCursor[Any], standing: Standing, now: datetime) -> None:
    """The charge of one that a person settles before its cutoff did."""
    await cur.execute(
        "UPDATE membership SET charge_fen = %s, branch = %s, settled_at = %s WHERE id = %s AND charge_fen IS NULL",
        (standing.charge_fen, standing.branch, now, standing.id),
    )


async def mark_posted(cur: AsyncCursor[Any], numbers: Sequence[str], now: datetime) -> None:
    """These calls are booked: the last statement of the closing commit."""
    await cur.execute(
        "UPDATE settlement_call SET state = 'POSTED', posted_at = %s, lease_until = NULL"
        " WHERE request_number = ANY(%s)",
        (now, list(numbers)),
    )


async def next_query_at(cur: AsyncCursor[Any], chain: str, region: str, now: datetime) -> datetime | None:
    """Wall time at which the next leased or unclear call may be claimed; None when none is open and due."""
    await cur.execute(
        "SELECT min(c.lease_until) FROM settlement_call c JOIN membership m"
        " ON m.id = c.membership WHERE c.chain = %s AND c.region = %s AND c.state IN ('NEW', 'UNKNOWN')"
        " AND c.not_before <= %s AND (c.kind <> 'capture' OR m.state IN ('SETTLING', 'UNKNOWN'))"
        " AND c.lease_until IS NOT NULL",
        (chain, region, now),
    )
    row = await cur.fetchone()
    assert row is not None
    free_at: datetime | None = row[0]
    return free_at


def call_from(row: tuple[Any, ...]) -> Call:
    """A row of CALL_COLUMNS as a value."""
    answer = None if row[10] is None else answer_from_document(row[10])
    fields = (*row[:2], CallKind(row[2]), *row[3:5], CallState(row[5]), *row[6:10], answer, *row[11:])
    return Call(*fields)
