"""Renewal: when a generation expires and renews, the next one opens at that instant, with its own hold or signature.

The one before settles by itself, after its grace days. The next one's row is committed before the provider is asked,
under an enrolment key that derives from the one before; so it opens once. A hold waits 15 minutes for the member, who
scans its code; then it is ABANDONED like any enrolment, and nothing of it is left: the wish is gone with it, the one
before settles as ever, what was authorised too late goes back. Wished for again, it is tried again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor

from models.domain.charging import cutoff_instant, cycle_at, expiry_instant
from models.domain.ids import MemberId, MembershipId, derived_id
from models.domain.membership import HoldState, State
from models.domain.membership_actions import Asked, credit_admitted
from models.domain.membership_guarantee import holder_of
from models.domain.periods import FixedDate
from models.domain.plans import GuaranteeKind, Plan, Rule
from models.domain.settlement import Standing
from models.tables import clock, memberships
from models.tables.membership_requests import DONE, MembershipRequest, insert_request
from models.tables.plans import latest_plan
from runtime.clock import Pool, Wall
from runtime.enrolment import Enrolment

RENEWED_PER_SWEEP_MAX = 200


class Renewals:
    """Opens the generations that follow. Any number may run beside each other."""

    def __init__(self, pool: Pool, enrolment: Enrolment, *, wall: Wall) -> None:
        self._pool = pool
        self._enrolment = enrolment
        self._wall = wall

    async def sweep(self, chain: str, region: str) -> int:
        """Open what is due to renew; returns how many. Each hold is asked for after the commit.

        The code by which the member authorises it stands in `membership_request` of the new generation.
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            now = await clock.business_now(cur, self._wall())
            due = await memberships.lock_renewals(cur, chain, region, now, limit=RENEWED_PER_SWEEP_MAX)
            following = [await self._follow(cur, standing, now) for standing in due]
        for standing in following:
            if standing is not None and (code := await self._enrolment.secure_renewal(standing)):
                await self._offer(standing, code)
        return sum(standing is not None for standing in following)

    async def open_of(self, member: MemberId) -> bool:
        """Open what is due of one member and asks no provider, before the sweep comes by. True: something opened."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            now = await clock.business_now(cur, self._wall())
            due = await memberships.lock_renewals_of(cur, member, now)
            return any([await self.open_due(cur, standing, now) for standing in due])

    async def open_due(self, cur: AsyncCursor[Any], before: Standing, now: datetime) -> bool:
        """The next generation of `before`, which is locked, if it is due and needs nobody's word."""
        due = before.renews and before.expires_at <= now and before.state in memberships.RENEWS_FROM
        if not due or _opening_state(before.guarantee, before.plan.fee_fen) is not State.ACTIVE:
            return False
        return await self._follow(cur, before, now) is not None

    async def _offer(self, standing: Standing, code: str) -> None:
        request = MembershipRequest(
            standing.enrol_key,
            standing.id,
            standing.chain,
            standing.region,
            standing.owner,
            Asked("renew").document(),
            {},
            "renewal",
            DONE,
            standing.enrolled_at,
            hold_order=standing.hold_order,
            hold_fen=standing.fee_fen,
            code_text=code,
        )
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await insert_request(cur, request)

    async def _follow(self, cur: AsyncCursor[Any], before: Standing, now: datetime) -> Standing | None:
        """The next generation's row; None when the member has it already, owes, or nothing can follow."""
        await memberships.save_renews(cur, before.id, False)  # the wish goes over to the next one
        if before.state in (State.ACTIVE, State.SUSPENDED):
            await memberships.save_state(cur, before.id, State.EXPIRED)
        await memberships.lock_member_row(cur, before.member)
        earlier = await memberships.earlier_memberships(cur, before.member, before.plan.id, renewing=before.id)
        plan = await latest_plan(cur, before.chain, before.plan.id)
        key = memberships.next_renewal_key(before.id, await memberships.renewed_as(cur, before.id))
        if plan is None or earlier.live or earlier.owing or isinstance(plan.period, FixedDate) or key is None:
            return None
        opens_at = _opens_at(before, plan, now)
        cycle = cycle_at(before.row_began_at, plan, opens_at)
        expiry = expiry_instant(before.row_began_at, plan, cycle)
        membership = MembershipId(derived_id(key, "membership"))
        standing = replace(
            before,
            id=membership,
            enrol_key=key,
            session="",
            plan=plan,
            owner=plan.owner_entity,
            generation=earlier.generations + 1,
            state=_opening_state(before.guarantee, plan.fee_fen),
            fee_fen=plan.fee_fen,
            fee_eff_fen=plan.fee_fen,
            used_fen=0,
            hold_order=f"H{membership}",
            hold_no="",
            hold_fen=0,
            hold_state=HoldState.NONE,
            enrolled_at=opens_at,
            expires_at=expiry,
            cutoff_at=cutoff_instant(expiry, plan),
            charge_fen=None,
            branch=None,
            paid_fen=0,
            refunded_fen=0,
            receivable_fen=0,
            captured_number="",
            attempts=0,
            task_target=plan.task_target,
            task_done=0,
            renews=plan.rule is Rule.CYCLE,
            provider=holder_of(GuaranteeKind(before.guarantee)),
            first_at=before.row_began_at,
            cycle=cycle,
            cancelled_by="",
        )
        await self._enrolment.open(cur, standing)
        return standing


def _opens_at(before: Standing, plan: Plan, now: datetime) -> datetime:
    """The expiry of the one before, so that no instant lies between them. Now, if that one was owed for meanwhile, if
    its next period is over too, or if it was settled before anybody wanted another.
    """
    owed, late_wish = before.attempts > 1, before.state is State.CLOSED and plan.rule is not Rule.CYCLE
    next_cycle = cycle_at(before.row_began_at, plan, before.expires_at)
    if owed or late_wish or now >= expiry_instant(before.row_began_at, plan, next_cycle):
        return now
    return before.expires_at


def _opening_state(guarantee: str, fee_fen: int) -> State:
    """ACTIVE where nobody is asked; else it waits for the member's hold, or signature."""
    if fee_fen and guarantee == GuaranteeKind.SESAME_CREDIT:
        return State.ADMITTING
    return State.ACTIVE if credit_admitted(guarantee, fee_fen) else State.HOLD_PENDING
