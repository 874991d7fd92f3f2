"""Members and their light memberships, and what a charge follows from."""

from __future__ import annotations

from sqlalchemy import func, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.paging import cut, decode_cursor, decode_instant, encode_cursor
from gateway.queries.ledger import entries_of
from gateway.queries.registry import Scope
from gateway.views import CallView, ExplanationView, MembershipView, MemberView, Page, TextView, UsageView
from models.domain import charging, explaining
from models.domain.charging import UseClass
from models.domain.explaining import Task
from models.domain.membership import State
from models.domain.plans import Rule
from models.tables.members import MemberRow, MembershipRow, PlanRow, ReversalRow, SettlementCallRow, UsageRow
from models.tables.memberships import masked_name
from models.tables.sales import ReturnRow, SaleRow

LINES_MAX = 500
"""Usage lines or calls of one membership that a page shows."""

FINAL = (State.CLOSED, State.WRITTEN_OFF)
OPEN = (State.ADMITTING, State.HOLD_PENDING, State.ACTIVE, State.SUSPENDED)
SETTLING = (State.EXPIRED, State.SETTLING, State.UNKNOWN, State.DUNNING)
OTHER = (State.REJECTED, State.ABANDONED, State.PARKED)

STATE_GROUPS: dict[str, tuple[State, ...]] = {"open": OPEN, "settling": SETTLING, "closed": FINAL, "other": OTHER}
"""What the console's filter calls the states."""


def _member_view(row: MemberRow) -> MemberView:
    return MemberView(
        id=row.id,
        name=masked_name(row.name, row.phone_tail),
        phone_tail=row.phone_tail,
        home_store=row.home_store,
        joined_at=row.joined_at,
    )


async def list_members(
    session: AsyncSession, scope: Scope, limit: int, cursor: str | None, q: str = ""
) -> Page[MemberView]:
    """Members, the newest first. `q`: the exact id, or the last four digits of the phone."""
    query = select(MemberRow).order_by(col(MemberRow.joined_at).desc(), col(MemberRow.id).desc()).limit(limit + 1)
    if scope.region:
        query = query.where(col(MemberRow.region) == scope.region)
    if scope.store:
        query = query.where(col(MemberRow.home_store) == scope.store)
    if q:
        query = query.where((col(MemberRow.id) == q) | (col(MemberRow.phone_tail) == q))
    if key := decode_cursor(cursor, 2):
        query = query.where(
            tuple_(col(MemberRow.joined_at), col(MemberRow.id)) < (decode_instant(key[0]), key[1]),
        )
    rows, more = cut((await session.exec(query)).all(), limit)
    views = [_member_view(row) for row in rows]
    return Page(items=views, next=encode_cursor([views[-1].joined_at.isoformat(), views[-1].id]) if more else None)


def membership_view(row: MembershipRow, name: str, phone_tail: str) -> MembershipView:
    """What is shown of a membership; due and saving by the same rules that settle it."""
    preview = charging.charge_fen(row.fee_eff_fen, row.used_fen, task_target=row.task_target, task_done=row.task_done)
    due = preview if row.charge_fen is None else min(row.charge_fen, preview)
    return MembershipView(
        id=row.id,
        member=row.member,
        member_name=masked_name(name, phone_tail),
        plan=row.plan,
        plan_version=row.plan_version,
        store=row.store,
        state=row.state,
        guarantee=row.guarantee,
        fee_fen=row.fee_fen,
        fee_eff_fen=row.fee_eff_fen,
        used_fen=row.used_fen,
        due_fen=due,
        charge_fen=row.charge_fen,
        paid_fen=row.paid_fen,
        refunded_fen=row.refunded_fen,
        saved_fen=max(0, row.used_fen - due),
        enrolled_at=row.enrolled_at,
        expires_at=row.expires_at,
        cutoff_at=row.cutoff_at,
        settled_at=row.settled_at,
    )


async def list_memberships(
    session: AsyncSession,
    scope: Scope,
    limit: int,
    cursor: str | None,
    group: str = "",
    q: str = "",
) -> Page[MembershipView]:
    """Memberships, the newest first. `group`: a key of STATE_GROUPS; `q`: an exact id, or four phone digits."""
    query = (
        select(MembershipRow, MemberRow.name, MemberRow.phone_tail)
        .join(MemberRow, col(MemberRow.id) == col(MembershipRow.member))
        .order_by(col(MembershipRow.enrolled_at).desc(), col(MembershipRow.id).desc())
        .limit(limit + 1)
    )
    if scope.region:
        query = query.where(col(MembershipRow.region) == scope.region)
    if scope.store:
        query = query.where(col(MembershipRow.store) == scope.store)
    if group in STATE_GROUPS:
        query = query.where(col(MembershipRow.state).in_([str(state) for state in STATE_GROUPS[group]]))
    if q:
        query = query.where(
            (col(MembershipRow.id) == q) | (col(MembershipRow.member) == q) | (col(MemberRow.phone_tail) == q)
        )
    if key := decode_cursor(cursor, 2):
        query = query.where(
            tuple_(col(MembershipRow.enrolled_at), col(MembershipRow.id)) < (decode_instant(key[0]), key[1]),
        )
    rows, more = cut((await session.exec(query)).all(), limit)
    views = [membership_view(*row) for row in rows]
    return Page(items=views, next=encode_cursor([views[-1].enrolled_at.isoformat(), views[-1].id]) if more else None)


async def get_membership(session: AsyncSession, membership: str) -> MembershipView | None:
    """One membership."""
    found = await session.exec(
        select(MembershipRow, MemberRow.name, MemberRow.phone_tail)
        .join(MemberRow, col(MemberRow.id) == col(MembershipRow.member))
        .where(col(MembershipRow.id) == membership)
    )
    row = found.first()
    return None if row is None else membership_view(*row)


async def explain(session: AsyncSession, membership: str) -> ExplanationView | None:
    """One sentence in both languages and the lines it follows from; None for no such membership."""
    view = await get_membership(session, membership)
    if view is None:
        return None
    text = explaining.explain(
        view.fee_fen,
        view.used_fen,
        fee_eff_fen=view.fee_eff_fen,
        refunded_fen=view.refunded_fen,
        settled=view.charge_fen is not None,
        task=await _task(session, view),
    )
    bought_fen = await _bought_fen(session, membership)
    enjoyed_fen = await _enjoyed_fen(session, membership)
    without = explaining.without_membership(bought_fen, enjoyed_fen, view.due_fen)
    usage = await session.exec(
        select(UsageRow, SaleRow.receipt)
        .outerjoin(SaleRow, col(SaleRow.id) == col(UsageRow.sale))
        .where(col(UsageRow.membership) == membership)
        .order_by(col(UsageRow.biz_time), col(UsageRow.id))
        .limit(LINES_MAX)
    )
    lines = [_usage_view(row, receipt) for row, receipt in usage.all()]
    calls = (
        await session.exec(
            select(SettlementCallRow)
            .where(col(SettlementCallRow.membership) == membership)
            .order_by(col(SettlementCallRow.not_before), col(SettlementCallRow.request_number))
            .limit(LINES_MAX)
        )
    ).all()
    reversals = (
        await session.exec(
            select(ReversalRow.id).where(col(ReversalRow.usage).in_([line.id for line in lines])).limit(LINES_MAX)
        )
    ).all()
    hold_order = (await session.exec(select(MembershipRow.hold_order).where(MembershipRow.id == membership))).one()
    calls_and_uses = [*(call.request_number for call in calls), *(line.id for line in lines)]
    return ExplanationView(
        membership=view,
        sentence=TextView(zh=text.zh, en=text.en),
        without_membership=TextView(zh=without.zh, en=without.en),
        bought_fen=bought_fen,
        enjoyed_fen=enjoyed_fen,
        usage=lines,
        entries=await entries_of(session, [hold_order, *calls_and_uses, *reversals]),
        calls=[
            CallView(
                request_number=call.request_number,
                kind=call.kind,
                fen=call.fen,
                state=call.state,
                answered_at=call.answered_at,
            )
            for call in calls
        ],
    )


async def _task(session: AsyncSession, view: MembershipView) -> Task | None:
    row = await session.get_one(MembershipRow, view.id)
    if row.task_target is None:
        return None
    plan = await session.get_one(PlanRow, (row.plan, row.plan_version))
    return Task(Rule(str(plan.doc["rule"])), row.task_target, row.task_done)


async def _bought_fen(session: AsyncSession, membership: str) -> int:
    """Paid at the counter for what stands of the membership's sales."""
    sold = select(func.coalesce(func.sum(SaleRow.due_fen), 0)).where(
        col(SaleRow.membership) == membership, col(SaleRow.voided_at).is_(None)
    )
    back = (
        select(func.coalesce(func.sum(ReturnRow.due_fen), 0))
        .join(SaleRow, col(SaleRow.id) == col(ReturnRow.sale))
        .where(col(SaleRow.membership) == membership, col(SaleRow.voided_at).is_(None))
    )
    return int((await session.exec(sold)).one()) - int((await session.exec(back)).one())


async def _enjoyed_fen(session: AsyncSession, membership: str) -> int:
    """All benefits that were not taken back, the merchant's own among them."""
    given = select(func.coalesce(func.sum(col(UsageRow.fen) - col(UsageRow.reversed_fen)), 0)).where(
        col(UsageRow.membership) == membership, col(UsageRow.class_) != UseClass.REFUSED
    )
    return int((await session.exec(given)).one())


def _usage_view(row: UsageRow, receipt: str | None) -> UsageView:
    counts = row.fen - row.reversed_fen if row.class_ == UseClass.REGULAR else 0
    return UsageView(
        id=row.id,
        benefit=row.benefit,
        use_class=row.class_,
        fen=row.fen,
        reversed_fen=row.reversed_fen,
        counts_fen=counts,
        store=row.store,
        sale=row.sale,
        receipt=receipt,
        at=row.biz_time,
    )
