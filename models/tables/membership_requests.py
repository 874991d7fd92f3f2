"""What was asked to be done with memberships, as rows: each number once, with what was told about it.

A row is written and changed only under its membership's row lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.membership_actions import LAPSES
from models.domain.payments import PROVIDERS
from models.domain.plans import Plan
from models.tables.plans import load_plan

PENDING, RELEASING, DONE, REFUSED = "pending", "releasing", "done", "refused"

_COLUMNS = (
    "number, membership, chain, region, owner, action, by, state, code, hold_order, hold_no, hold_fen, code_text,"
    " release_order, release_no, release_fen, hold_provider, release_provider, made_at, state_until"
)


@dataclass(frozen=True, slots=True)
class MembershipRequest:
    """One request. `asked` is what, `told` what was answered. The times are business time, `state_until` wall time.

    `ended`: the plan that a change of plan ended when it took effect, and that instant (`plan_ended`); else empty.
    """

    number: str
    membership: str
    chain: str
    region: str
    owner: str
    asked: Mapping[str, Any]
    told: Mapping[str, Any]
    by: str
    state: str
    made_at: datetime
    code: str = ""
    hold_order: str = ""
    hold_no: str = ""
    hold_fen: int = 0
    code_text: str = ""
    release_order: str = ""
    release_no: str = ""
    release_fen: int = 0
    hold_provider: str = PROVIDERS[0]
    release_provider: str = PROVIDERS[0]
    state_until: datetime | None = None
    ended: Mapping[str, Any] = field(default_factory=dict)


def plan_ended(plan: Plan, now: datetime) -> dict[str, Any]:
    """What a change notes of the plan that it ends at business time `now`: its uses are worth what it promised."""
    return {"plan": plan.id, "version": plan.version, "until": now.isoformat()}


async def plans_before(cur: AsyncCursor[Any], membership: str) -> list[tuple[datetime, Plan]]:
    """Each plan that a change ended, with that instant, in their order (models.domain.charging.plan_at)."""
    await cur.execute(
        "SELECT (action #>> '{ended,until}')::timestamptz AS until, action #>> '{ended,plan}',"
        " (action #>> '{ended,version}')::int FROM membership_request"
        " WHERE membership = %s AND action #> '{ended,plan}' IS NOT NULL ORDER BY until",
        (membership,),
    )
    return [(row[0], await load_plan(cur, row[1], row[2])) for row in await cur.fetchall()]


async def insert_request(cur: AsyncCursor[Any], request: MembershipRequest) -> None:
    """A new request; its number was looked for under the membership's lock."""
    final = request.state in (DONE, REFUSED)
    await cur.execute(
        f"INSERT INTO membership_request ({_COLUMNS}, done_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            request.number, request.membership, request.chain, request.region, request.owner,
            _action(request), request.by, request.state,
            request.code, request.hold_order, request.hold_no, request.hold_fen, request.code_text,
            request.release_order, request.release_no, request.release_fen, request.hold_provider,
            request.release_provider, request.made_at, request.state_until,
            request.made_at if final else None,
        ),
    )  # fmt: skip


async def save_request(cur: AsyncCursor[Any], request: MembershipRequest, now: datetime) -> None:
    """How far the request is."""
    await cur.execute(
        "UPDATE membership_request SET action = %s, state = %s, code = %s, hold_no = %s, hold_fen = %s, code_text = %s,"
        " release_order = %s, release_no = %s, release_fen = %s, release_provider = %s, state_until = %s, done_at = %s"
        " WHERE number = %s",
        (
            _action(request), request.state, request.code, request.hold_no, request.hold_fen, request.code_text,
            request.release_order, request.release_no, request.release_fen, request.release_provider,
            request.state_until, now if request.state in (DONE, REFUSED) else None, request.number,
        ),
    )  # fmt: skip


async def load_request(cur: AsyncCursor[Any], number: str) -> MembershipRequest | None:
    """The request of that number, or None."""
    await cur.execute(f"SELECT {_COLUMNS} FROM membership_request WHERE number = %s", (number,))
    row = await cur.fetchone()
    return None if row is None else _request(row)


async def open_requests(cur: AsyncCursor[Any], chain: str, region: str, *, limit: int) -> list[MembershipRequest]:
    """Requests that wait for a provider, the nearest deadline first."""
    await cur.execute(
        f"SELECT {_COLUMNS} FROM membership_request WHERE chain = %s AND region = %s"
        " AND state IN ('pending', 'releasing') ORDER BY state_until LIMIT %s",
        (chain, region, limit),
    )
    return [_request(row) for row in await cur.fetchall()]


async def holds_in_doubt(
    cur: AsyncCursor[Any], chain: str, region: str, since: datetime, *, limit: int
) -> list[tuple[str, str, str, str, int]]:
    """Holds that a provider said something of since then, and which we still count on: (membership, owner, provider,
    our number of the hold, fen)."""
    await cur.execute(
        "SELECT DISTINCT m.id, m.owner, m.provider, m.hold_order, m.hold_fen FROM provider_notice n"
        " LEFT JOIN membership_request r ON r.hold_order = n.number AND r.chain = %(chain)s AND r.region = %(region)s"
        " JOIN membership m ON m.id = coalesce(r.membership, substr(n.number, 2))"
        " WHERE n.received_at > %(since)s AND n.kind = 'release' AND m.hold_order = n.number AND m.hold_state = 'held'"
        " AND m.chain = %(chain)s AND m.region = %(region)s AND m.state = ANY(%(states)s) LIMIT %(limit)s",
        {"chain": chain, "region": region, "since": since, "states": sorted(LAPSES), "limit": limit},
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in await cur.fetchall()]


async def requests_of(cur: AsyncCursor[Any], membership: str, *, limit: int) -> list[MembershipRequest]:
    """What was asked of one membership, the newest first."""
    await cur.execute(
        f"SELECT {_COLUMNS} FROM membership_request WHERE membership = %s ORDER BY made_at DESC, number LIMIT %s",
        (membership, limit),
    )
    return [_request(row) for row in await cur.fetchall()]


def _request(row: tuple[Any, ...]) -> MembershipRequest:
    number, membership, chain, region, owner, action, by, state, code, *rest = row
    *parts, made_at, until = rest
    told = (action["asked"], action["told"], by, state, made_at, code)
    ended = action.get("ended", {})
    return MembershipRequest(*(number, membership, chain, region, owner, *told, *parts, until, ended))


def _action(request: MembershipRequest) -> Jsonb:
    return Jsonb({"asked": dict(request.asked), "told": dict(request.told), "ended": dict(request.ended)})
