"""Which buttons a membership's detail has. Whether an action is allowed is decided when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.membership import HoldState, State
from models.domain.membership_guarantee import HOLDS
from models.tables.members import MembershipRow, PlanRow

RENEWS = (State.ACTIVE, State.SUSPENDED, State.EXPIRED, State.SETTLING, State.UNKNOWN, State.CLOSED)


@dataclass(frozen=True, slots=True)
class Act:
    """One button: the verb, what goes with it, and the name of its text."""

    verb: str
    name: str
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanOffered:
    """A plan that the membership may change to."""

    id: str
    name: dict[str, str]
    fee_fen: int


@dataclass(frozen=True, slots=True)
class Buttons:
    """A membership, its buttons, and the plans of its owner that it does not have."""

    membership: MembershipRow
    acts: tuple[Act, ...]
    plans: tuple[PlanOffered, ...]


async def buttons(session: AsyncSession, membership: str) -> Buttons | None:
    """What makes sense in its state; None for no such membership."""
    row = await session.get(MembershipRow, membership)
    if row is None:
        return None
    plans = await _plans(session, row) if row.state == State.ACTIVE else ()
    return Buttons(row, tuple(_acts(row, bool(plans))), plans)


def _acts(row: MembershipRow, can_change: bool) -> list[Act]:
    state = State(row.state)
    acts: list[Act] = []
    if state is State.ACTIVE and can_change:
        acts.append(Act("change", "change"))
    if state in RENEWS and not row.cancelled_by:
        acts.append(Act("renew", "stop" if row.renews else "renew", {"on": not row.renews}))
    if state in HOLDS and row.hold_state == HoldState.LAPSED:
        acts.append(Act("freeze", "freeze"))
    if state is State.ACTIVE:
        acts.append(Act("suspend", "suspend"))
    if state is State.SUSPENDED:
        acts.append(Act("resume", "resume"))
    if state in (State.ACTIVE, State.SUSPENDED):
        acts += [Act("cancel", by, {"by": by}) for by in ("member", "merchant")]
    return acts


async def _plans(session: AsyncSession, row: MembershipRow) -> tuple[PlanOffered, ...]:
    """The newest version of each other plan of the chain that belongs to the same legal entity."""
    rows = await session.exec(
        select(PlanRow)
        .where(PlanRow.chain == row.chain, PlanRow.owner == row.owner, PlanRow.id != row.plan)
        .order_by(col(PlanRow.id), col(PlanRow.version))
    )
    documents: dict[str, dict[str, Any]] = {plan.id: plan.doc for plan in rows if plan.doc}
    return tuple(PlanOffered(name, dict(doc["name"]), int(doc["fee_fen"])) for name, doc in documents.items())
