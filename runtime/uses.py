"""Uses of benefits: reserved, posted, released, reversed. Each under its membership's row lock, in one transaction
with its ledger entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncCursor

from actors.ports import PostUses, ReleaseUses, ReserveUses, ReverseUses
from actors.settlement import after_reversal, shared_out
from models.domain import ledger
from models.domain.benefits import bound_fen, holds_at
from models.domain.charging import TAKES_QUOTA, UseClass, classify_use, plan_at
from models.domain.errors import Bug
from models.domain.ids import LegalEntityId, derived_id
from models.domain.leases import LeaseStanding
from models.domain.membership import State
from models.domain.messages import ReleaseAnswered, ReserveAnswered, SaleUse, UsesPosted
from models.domain.plans import Plan, Rule
from models.domain.settlement import Standing
from models.tables import clock, leases, membership_requests, memberships, settlement, usage
from models.tables.control import fee_received
from models.tables.ledger import insert_transactions
from runtime.clock import Pool, Wall
from runtime.credits import note_born_reversed, note_reversal, note_use
from runtime.given_up import given_up, given_up_change
from runtime.member_views import member_view
from runtime.renewal import Renewals

RESERVED_FOR = timedelta(minutes=2)
GENERATIONS_MAX = 24
"""So many a use is moved by: a terminal was not away for longer."""


class Uses:
    """Moves benefits from quote to ledger. `wall` times the reservations."""

    def __init__(self, pool: Pool, *, wall: Wall, renewals: Renewals) -> None:
        self._pool = pool
        self._renewals = renewals
        self._wall = wall

    async def reserve(self, ask_id: str, request: ReserveUses) -> ReserveAnswered:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await self._locked(cur, request.membership)
            wall_now = self._wall()
            await usage.release_expired(cur, [standing.id], wall_now)
            if await self._reservable(cur, standing, request):
                await usage.save_reservations(
                    cur,
                    request.uses,
                    session=request.session,
                    store=request.store,
                    biz_time=request.at,
                    expires_at=wall_now + RESERVED_FOR,
                )
                return ReserveAnswered(ask_id, request.session, ok=True)
            await self._renewals.open_due(cur, standing, await clock.business_now(cur, wall_now))
        view = await member_view(self._pool, standing, self._wall())
        return ReserveAnswered(ask_id, request.session, ok=False, code="benefit_gone", member=view)

    async def _reservable(self, cur: AsyncCursor[Any], standing: Standing, request: ReserveUses) -> bool:
        """True when every use of the quote would be REGULAR now and here, at no more than its benefit is worth."""
        if standing.state is not State.ACTIVE:
            return False
        store = await memberships.load_store(cur, request.store)
        assert store is not None
        now = await clock.business_now(cur, self._wall())
        taken = await memberships.quota_taken(cur, standing.id, now, tuple(use.usage for use in request.uses))
        for use in request.uses:
            if use.membership != standing.id:
                raise Bug("foreign_use", f"use {use.usage} is not of membership {standing.id}")
            benefit = standing.plan.benefit(use.benefit)
            if benefit is None or not 0 < use.fen <= bound_fen(benefit):
                return False
            if not _holds(standing, use, store, request.at):
                return False
            if _class_of(standing, taken, use, request.at, offline=False) is not UseClass.REGULAR:
                return False
            taken[use.benefit] = taken.get(use.benefit, 0) + 1
        return True

    async def post(self, ask_id: str, request: PostUses) -> UsesPosted:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            store = await memberships.load_store(cur, request.store)
            assert store is not None
            now = await clock.business_now(cur, self._wall())
            if request.unreserved:
                uses = tuple([await self._in_its_generation(cur, use, request.biz_time, now) for use in request.uses])
                request = replace(request, uses=uses)
            keys = sorted({use.membership for use in request.uses})
            locked = [await memberships.lock_membership(cur, key) for key in keys]
            # What a terminal reports for a membership that this chain does not have is nobody's.
            standings = [standing for standing in locked if standing is not None and standing.chain == store.chain]
            if not request.unreserved and len(standings) < len(keys):
                raise Bug("unknown_membership", f"a session used one of the unknown memberships {keys}")
            unknown = sum(use.membership not in {one.id for one in standings} for use in request.uses)
            for standing in standings:
                unknown += await self._post_uses(cur, ask_id, standing, request, store, now)
        member = await member_view(self._pool, standings[0], self._wall()) if standings else None
        return UsesPosted(ask_id, request.session, member, unknown, request.terminal)

    async def _in_its_generation(
        self, cur: AsyncCursor[Any], use: SaleUse, biz_time: datetime, now: datetime
    ) -> SaleUse:
        """A terminal that was offline knows one generation; the use belongs to the one of its moment."""
        standing = await memberships.lock_membership(cur, use.membership)
        for _ in range(GENERATIONS_MAX):
            if standing is None:
                return use
            if standing.enrolled_at <= biz_time < standing.expires_at:
                known = standing.state not in memberships.NEVER_ACTIVE
                return replace(use, membership=standing.id) if known else use
            if biz_time < standing.enrolled_at:
                standing = await memberships.lock_membership(cur, memberships.renewal_of(standing))
            else:
                await self._renewals.open_due(cur, standing, now)
                standing = await memberships.renewed_as(cur, standing.id)
        return use

    async def _post_uses(
        self,
        cur: AsyncCursor[Any],
        ask_id: str,
        standing: Standing,
        request: PostUses,
        store: memberships.StoreRecord,
        now: datetime,
    ) -> int:
        """Returns how many were of benefits that the membership never had."""
        uses = [use for use in request.uses if use.membership == standing.id]
        usages = [use.usage for use in uses]
        known = await usage.known_uses(cur, usages)
        reserved = await usage.reservations_of(cur, usages)
        taken = await memberships.quota_taken(cur, standing.id, now, tuple(usages))
        leased = await leases.load_leases(cur, [use.lease for use in uses if use.lease is not None])
        booked_on = store.business_date(request.biz_time).isoformat()
        place = await memberships.place_of(cur, request.store, booked_on)
        transactions: list[ledger.Transaction] = []
        waived = await given_up(cur, standing)
        used_fen = unknown = 0
        plans_before = await membership_requests.plans_before(cur, standing.id)
        for reported in uses:
            state, reservation = reserved.get(reported.usage, ("", None))
            biz_time = request.biz_time if reservation is None else reservation.biz_time
            then = _promised_by(plans_before, standing, leased.get(reported.lease or ""), biz_time)
            promised = reservation if state == "open" else None
            use = replace(reported, fen=_funded_fen(then, reported, promised))
            unknown += then.plan.benefit(use.benefit) is None and promised is None
            if use.usage in known or not use.fen:
                continue
            # The sale happened, so nothing is refused any more: what was not reserved is judged as an offline use.
            use_class = UseClass.REGULAR
            holds = promised is not None or _holds(then, reported, store, biz_time)
            lease = _lease_of(then, leased, reported, request, now) if holds else None
            if lease is not None:
                leased[lease.id] = replace(lease, used=lease.used + 1)
                await leases.add_lease_use(cur, lease.id)
                taken[use.benefit] -= 1  # the place that it held is the use's own now
            elif promised is None or standing.charge_fen is not None:
                use_class = _class_of(then, taken, reported, biz_time, offline=True) if holds else UseClass.OVERUSE
            tombstones = await usage.tombstones_of(cur, use.usage)
            reversed_fen = min(use.fen, sum(fen for _, fen in tombstones))
            line = usage.UsageLine(
                use, use_class, reversed_fen, request.paid_fen, biz_time, now, place, request.terminal,
                request.sale, request.seq, request.clerk,
            )  # fmt: skip
            await usage.insert_use(cur, line)
            funder = plan_at(plans_before, standing.plan, biz_time).funder_entity
            transactions += _booked(use, tombstones, use_class, funder, place, booked_on)
            if use_class in TAKES_QUOTA and reversed_fen < use.fen:
                taken[use.benefit] = taken.get(use.benefit, 0) + 1
            if use_class is UseClass.REGULAR:
                used_fen += use.fen - reversed_fen
                wall_now = self._wall()
                await note_use(cur, standing, use.usage, request.sale, use.fen, request.paid_fen, biz_time, wall_now)
                await note_born_reversed(cur, standing, use.usage, use.fen, tombstones, biz_time, wall_now)
        if used_fen:
            await usage.add_used(cur, standing.id, used_fen)
        after = replace(standing, used_fen=standing.used_fen + used_fen, task_done=await _task_done(cur, standing))
        number = derived_id(ask_id, standing.id)
        transactions += given_up_change(
            number, standing, waived, await given_up(cur, after), standing.business_date(now)
        )
        await insert_transactions(cur, transactions, now, ask_id)
        await usage.end_reservations(cur, usages, "posted")
        return unknown

    async def release(self, ask_id: str, request: ReleaseUses) -> ReleaseAnswered:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            for membership in sorted({use.membership for use in request.uses}):
                await self._locked(cur, membership)
            await usage.end_reservations(cur, [use.usage for use in request.uses], "released")
        return ReleaseAnswered(ask_id, request.session)

    async def reverse(self, ask_id: str, request: ReverseUses) -> ReleaseAnswered:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            homes = await usage.homes_of(cur, [use.usage for use in request.uses])
            uses = [replace(use, membership=homes.get(use.usage, use.membership)) for use in request.uses]
            for membership in sorted({use.membership for use in uses}):
                standing = await memberships.lock_membership(cur, membership)
                if standing is None:
                    continue  # a terminal made it up: nothing was posted, nothing comes back
                for use in uses:
                    if use.membership == membership:
                        reversal = derived_id(ask_id, use.usage)
                        standing = await self._reverse_one(cur, ask_id, standing, use, reversal, request)
        return ReleaseAnswered(ask_id, request.session)

    async def _reverse_one(
        self,
        cur: AsyncCursor[Any],
        ask_id: str,
        standing: Standing,
        use: SaleUse,
        reversal: str,
        request: ReverseUses,
    ) -> Standing:
        """Take `fen` of one use back: its line, u, its entries, and what the member gets back if it was charged."""
        if not await usage.insert_reversal(cur, reversal, use.usage, use.fen, request.at):
            return standing
        known = (await usage.known_uses(cur, [use.usage])).get(use.usage)
        if known is None:
            return standing  # a tombstone: the use will be born reversed
        back_fen = min(use.fen, known.fen - known.reversed_fen)
        if back_fen == 0:
            return standing
        waived = await given_up(cur, standing)
        await usage.save_reversed(cur, use.usage, known.reversed_fen + back_fen)
        store = await memberships.load_store(cur, request.store)
        assert store is not None
        booked_on = store.business_date(request.at).isoformat()
        plan = plan_at(await membership_requests.plans_before(cur, standing.id), standing.plan, known.biz_time)
        transactions = [
            ledger.benefit_reversed(
                reversal,
                use.usage,
                place=known.place,
                fen=back_fen,
                use_class=known.use_class,
                funder=plan.funder_entity,
                business_date=booked_on,
            )
        ]
        after = standing
        if known.use_class is UseClass.REGULAR:
            whole = known.reversed_fen + back_fen == known.fen
            await note_reversal(cur, standing, reversal, use.usage, back_fen, whole, request.at, self._wall())
            await usage.add_used(cur, standing.id, -back_fen)
            shared = await fee_received(cur, standing.id) if shared_out(standing) else ()
            step = after_reversal(
                standing, reversal, back_fen, known.place, request.at, provider=standing.provider, fee_received=shared
            )
            after = replace(step.standing, task_done=await _task_done(cur, standing))
            transactions += step.transactions
            date = standing.business_date(request.at)
            transactions += given_up_change(reversal, standing, waived, await given_up(cur, after), date)
            await settlement.save_standings(cur, [(after, "")])
            await settlement.insert_calls(cur, step.calls)
        now = await clock.business_now(cur, self._wall())
        await insert_transactions(cur, transactions, now, ask_id)
        return after

    @staticmethod
    async def _locked(cur: AsyncCursor[Any], membership: str) -> Standing:
        standing = await memberships.lock_membership(cur, membership)
        if standing is None:
            raise Bug("unknown_membership", f"a session used the unknown membership {membership}")
        return standing


async def _task_done(cur: AsyncCursor[Any], standing: Standing) -> int:
    """The task's progress as the lines say now; it stands still once the charge is fixed."""
    if standing.task_target is None or standing.charge_fen is not None:
        return standing.task_done
    return await usage.count_task(cur, standing.id, in_fen=standing.plan.rule is Rule.TASK_AMOUNT)


def _lease_of(
    standing: Standing, leased: dict[str, LeaseStanding], use: SaleUse, request: PostUses, now: datetime
) -> LeaseStanding | None:
    """The lease that this use is from: then it is REGULAR, whatever happened to the membership meanwhile."""
    lease = leased.get(use.lease or "")
    if lease is None or standing.charge_fen is not None or _worth_too_much(standing, use):
        return None
    if request.biz_time < standing.enrolled_at:  # not before it: a clock that was set back is the terminal's
        return None
    covers = lease.covers(standing.id, use.benefit, request.store, request.biz_time, now)
    return lease if covers else None


def _promised_by(
    plans_before: Sequence[tuple[datetime, Plan]], standing: Standing, lease: LeaseStanding | None, biz_time: datetime
) -> Standing:
    """The standing with the plan of the use's moment, of a lease's uses with that of its grant: a change of plan takes
    back nothing that was promised before it."""
    at = biz_time if lease is None or lease.membership != standing.id else lease.granted_at
    return replace(standing, plan=plan_at(plans_before, standing.plan, at))


def _funded_fen(standing: Standing, use: SaleUse, promised: usage.Reserved | None) -> int:
    """What was promised of it: who funds it owes a store's entity no more, whatever its terminal reports."""
    if promised is not None:
        return min(use.fen, promised.fen)
    benefit = standing.plan.benefit(use.benefit)
    return 0 if benefit is None else min(use.fen, bound_fen(benefit))


def _holds(standing: Standing, use: SaleUse, store: memberships.StoreRecord, at: datetime) -> bool:
    """Whether the benefit is one of this store, the way it sells, and this hour there: a terminal may say anything."""
    benefit = standing.plan.benefit(use.benefit)
    return benefit is not None and holds_at(
        benefit.scope, store=store.id, channel=store.channel, at=at, zone=store.zone
    )


def _worth_too_much(standing: Standing, use: SaleUse) -> bool:
    """More than the benefit gives: a member never bears what a terminal made up."""
    benefit = standing.plan.benefit(use.benefit)
    return benefit is None or use.fen > bound_fen(benefit)


def _class_of(
    standing: Standing, taken: dict[str, int], use: SaleUse, biz_time: datetime, *, offline: bool
) -> UseClass:
    if offline and _worth_too_much(standing, use):
        return UseClass.OVERUSE
    return classify_use(
        standing.plan,
        taken,
        use.benefit,
        enrolled_at=standing.enrolled_at,
        expiry=standing.expires_at,
        cut_off=standing.charge_fen is not None,
        biz_time=biz_time,
        offline=offline,
    )


def _booked(
    use: SaleUse,
    tombstones: list[tuple[str, int]],
    use_class: UseClass,
    funder: LegalEntityId,
    place: ledger.Place,
    booked_on: str,
) -> list[ledger.Transaction]:
    """A use's entries, and those of reversals that came before it; together they take back no more than it gave."""
    transactions = [
        ledger.benefit_used(
            use.usage, place=place, fen=use.fen, use_class=use_class, funder=funder, business_date=booked_on
        )
    ]
    left_fen = use.fen
    for reversal, fen in tombstones:
        back_fen = min(fen, left_fen)
        left_fen -= back_fen
        transactions.append(
            ledger.benefit_reversed(
                reversal,
                use.usage,
                place=place,
                fen=back_fen,
                use_class=use_class,
                funder=funder,
                business_date=booked_on,
            )
        )
    return transactions
