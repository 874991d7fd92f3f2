"""The memberships port: enrol, reserve, post, release, reverse. Each ask has one effect, however often it is made.

Every effect happens under the membership's row lock, in one transaction with its ledger entries. The provider is
asked between two transactions, never inside one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg_pool import AsyncConnectionPool

from actors.ports import EnrolMember, MembershipRequest, PostUses, ReleaseUses, ReserveUses, ReverseUses
from actors.settlement import after_reversal
from gateway.providers.port import PaymentProvider, Scene
from models.domain import ledger
from models.domain.charging import TAKES_QUOTA, UseClass, classify_use, cutoff_instant, expiry_instant
from models.domain.errors import Bug, Refused
from models.domain.ids import LegalEntityId, MemberId, MembershipId, SessionId, StoreId, derived_id
from models.domain.membership import HOLD_TIMEOUT, HoldState, State, apply_for
from models.domain.messages import (
    EnrolAnswered,
    MemberView,
    ProviderAuth,
    ReleaseAnswered,
    ReserveAnswered,
    SaleUse,
    UsesPosted,
)
from models.domain.payments import Answer, Failed, HoldResult, Pending, Succeeded, Unknown
from models.domain.plans import GuaranteeKind, Plan
from models.domain.settlement import Standing, release_call
from models.tables import clock, memberships, settlement, usage
from models.tables.ledger import insert_transactions
from models.tables.plans import latest_plan

RESERVED_FOR = timedelta(minutes=2)
PENDING_SWEPT_MAX = 200
RETRY_AFTER_S = 2.0
PROVIDER = "alipay"
"""The provider whose accounts the ledger names; the slice has one."""

MembershipAnswer = EnrolAnswered | ReserveAnswered | UsesPosted | ReleaseAnswered


@dataclass(frozen=True, slots=True)
class NotYet:
    """The outcome is open: make the same ask again after `after_s` seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class EnrolResolved:
    """An enrolment whose answer was `pending` ended after all; for the terminal's screen, if the visit still lives."""

    store: StoreId
    terminal: str
    answer: EnrolAnswered


def phone_of(number: str, pepper: bytes) -> memberships.Phone:
    """A phone number as it is kept: HMAC-SHA-256 under the deployment's pepper, and the last four digits.

    Spaces, hyphens and a leading +86 do not make another number. Raises Refused `bad_phone`.
    """
    digits = "".join(char for char in number if char.isdigit())
    digits = digits[2:] if len(digits) == 13 and digits.startswith("86") else digits
    if not 5 <= len(digits) <= 15:
        raise Refused("bad_phone", "a phone number has 5 to 15 digits", "enter it again")
    return memberships.Phone(hmac.new(pepper, digits.encode(), hashlib.sha256).hexdigest(), digits[-4:])


def scene_of(auth: ProviderAuth) -> Scene:
    """Payment codes are 16 to 24 digits, face tokens are not (opendocs.alipay.com, alipay.trade.pay, auth_code)."""
    return Scene.PAYMENT_CODE if auth.token.isdigit() else Scene.FACE


class Memberships:
    """Answers membership asks from the rows. Belongs to one event loop; any number may run beside it.

    `wall` is the wall clock (reservations, freezes); business time is `wall` plus the offset in the database.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        providers: Callable[[LegalEntityId], PaymentProvider],
        *,
        pepper: bytes,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        provider_name: str = PROVIDER,
    ) -> None:
        self._pool = pool
        self._providers = providers
        self._pepper = pepper
        self._wall = wall
        self._provider_name = provider_name

    async def ask(self, ask_id: str, request: MembershipRequest, attempts: int = 0) -> MembershipAnswer | NotYet:
        """Do what is asked, once; asked again with the same id, answer again. `attempts`: how often it was made before.

        Returns after the commit. Raises what the database raises; nothing happened then, or all of it.
        """
        match request:
            case EnrolMember():
                return await self._enrol(ask_id, request, attempts)
            case ReserveUses():
                return await self._reserve(ask_id, request)
            case PostUses():
                return await self._post(ask_id, request)
            case ReleaseUses():
                return await self._release(ask_id, request)
            case ReverseUses():
                return await self._reverse(ask_id, request)

    # ------------------------------------------------------------ enrolment

    async def _enrol(self, ask_id: str, request: EnrolMember, attempts: int) -> EnrolAnswered | NotYet:
        try:
            async with self._pool.connection() as conn, conn.cursor() as cur:
                standing = await memberships.find_by_enrol_key(cur, ask_id)
                made_before = standing is not None or attempts > 0
                if standing is None:
                    standing = await self._apply(cur, ask_id, request)
        except Refused as refused:
            return EnrolAnswered(ask_id, request.session, None, code=refused.code)
        answer: Answer[HoldResult] | None = None
        if standing.state is State.HOLD_PENDING:
            answer = await self._freeze(standing, request.auth, query_first=made_before)
            standing = await self._admit(ask_id, answer)
        return await self._enrolled(standing, answer)

    async def _apply(self, cur: AsyncCursor[Any], ask_id: str, request: EnrolMember) -> Standing:
        """The application's row, committed before the provider is asked. Raises Refused."""
        store = await memberships.load_store(cur, request.store)
        if store is None:
            raise Bug("unknown_store", f"a terminal of the unknown store {request.store} enrolled a member")
        plan = await latest_plan(cur, store.chain, request.plan)
        if plan is None:
            raise Refused("unknown_plan", request.plan)
        if request.guarantee != GuaranteeKind.HUABEI_HOLD:
            raise Refused("guarantee_unavailable", request.guarantee)
        member = await memberships.lock_member(
            cur,
            store,
            new_id=MemberId(derived_id(ask_id, "member")),
            member=request.member,
            phone=None if request.phone is None else phone_of(request.phone, self._pepper),
            at=request.at,
        )
        if member is None:
            raise Refused("enrol_refused", "there is no such member")
        twin = await memberships.find_by_enrol_key(cur, ask_id)  # the same ask, made at the same time
        if twin is not None:
            return twin
        earlier = await memberships.earlier_memberships(cur, member, plan.id)
        membership = MembershipId(derived_id(ask_id, "membership"))
        _check_application(plan, membership, earlier, request.at)
        needs_hold = plan.fee_fen > 0
        expiry = expiry_instant(request.at, plan)
        standing = Standing(
            id=membership,
            enrol_key=ask_id,
            member=member,
            chain=store.chain,
            region=store.region,
            store=store.id,
            terminal=request.terminal,
            session=request.session,
            plan=plan,
            owner=plan.owner_entity,
            generation=earlier.generations + 1,
            state=State.HOLD_PENDING if needs_hold else State.ACTIVE,
            fee_fen=plan.fee_fen,
            fee_eff_fen=plan.fee_fen,
            used_fen=0,
            hold_order=f"H{membership}",
            hold_no="",
            hold_fen=0,
            hold_state=HoldState.NONE,
            enrolled_at=request.at,
            expires_at=expiry,
            cutoff_at=cutoff_instant(expiry, plan),
            charge_fen=None,
            branch=None,
            paid_fen=0,
            refunded_fen=0,
            receivable_fen=0,
            captured_number="",
            attempts=0,
        )
        await memberships.insert_membership(cur, standing, guarantee=request.guarantee, clerk=request.clerk)
        if needs_hold:
            await memberships.save_admission(cur, membership, State.HOLD_PENDING, self._wall() + HOLD_TIMEOUT)
        return standing

    async def _freeze(self, standing: Standing, auth: ProviderAuth | None, query_first: bool) -> Answer[HoldResult]:
        """One freeze under the membership's own number, whatever happened to the call before."""
        provider = self._providers(standing.owner)
        number, fee = standing.hold_order, standing.fee_fen
        if query_first:
            known = await provider.query_freeze(number=number, amount_fen=fee)
            if not (isinstance(known, Unknown) and known.absent):
                return known
        return await provider.freeze(
            number=number,
            amount_fen=fee,
            subject=standing.plan.name.zh,
            auth_code=None if auth is None else auth.token,
            scene=Scene.PAYMENT_CODE if auth is None else scene_of(auth),
        )

    async def _admit(self, ask_id: str, answer: Answer[HoldResult]) -> Standing:
        """Book what became of the freeze: ACTIVE with its hold, REJECTED, or still open."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.find_by_enrol_key(cur, ask_id)
            assert standing is not None
            if isinstance(answer, Failed) and standing.state is State.HOLD_PENDING:
                await memberships.save_admission(cur, standing.id, State.REJECTED)
                return replace(standing, state=State.REJECTED)
            if not isinstance(answer, Succeeded) or standing.hold_state is not HoldState.NONE:
                return standing
            now = await clock.business_now(cur, self._wall())
            hold = answer.result
            await memberships.save_hold(cur, standing.id, hold.hold_no, hold.frozen_fen)
            held = replace(standing, hold_no=hold.hold_no, hold_fen=hold.frozen_fen, hold_state=HoldState.HELD)
            placed = ledger.hold_placed(
                held.hold_order,
                entity=held.owner,
                provider=self._provider_name,
                hold_fen=held.hold_fen,
                business_date=held.business_date(now),
            )
            await insert_transactions(cur, [placed], now, held.enrol_key)
            if held.state is not State.HOLD_PENDING:  # too late to be of use: it goes back at once
                await settlement.insert_calls(cur, [release_call(held, now)])
                return held
            await memberships.save_admission(cur, held.id, State.ACTIVE)
            return replace(held, state=State.ACTIVE)

    async def _enrolled(self, standing: Standing, answer: Answer[HoldResult] | None) -> EnrolAnswered | NotYet:
        ask_id, session = standing.enrol_key, SessionId(standing.session)
        match standing.state:
            case State.HOLD_PENDING if isinstance(answer, Pending):
                return EnrolAnswered(ask_id, session, None, pending=True)
            case State.HOLD_PENDING:
                return NotYet(RETRY_AFTER_S)
            case State.REJECTED | State.ABANDONED:
                return EnrolAnswered(ask_id, session, None, code="enrol_refused")
            case _:
                return EnrolAnswered(ask_id, session, await self._view(standing))

    async def sweep(self, chain: str, region: str) -> list[EnrolResolved]:
        """Ask about freezes that wait for the customer; end those past 15 min. Call every few seconds of wall time.

        Returns those that ended now: ACTIVE (with the member), or ABANDONED and REJECTED (`enrol_refused`).
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            waiting = await memberships.pending_holds(cur, chain, region, limit=PENDING_SWEPT_MAX)
        resolved: list[EnrolResolved] = []
        for enrol_key, until in waiting:
            standing = await self._resolve(enrol_key, expired=until is not None and until <= self._wall())
            if standing is not None and standing.state is not State.HOLD_PENDING:
                answer = await self._enrolled(standing, None)
                assert isinstance(answer, EnrolAnswered)
                resolved.append(EnrolResolved(standing.store, standing.terminal, answer))
        return resolved

    async def _resolve(self, enrol_key: str, *, expired: bool) -> Standing | None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.find_by_enrol_key(cur, enrol_key)
        if standing is None or standing.state is not State.HOLD_PENDING:
            return None
        provider = self._providers(standing.owner)
        number = standing.hold_order
        if not expired:
            return await self._admit(enrol_key, await provider.query_freeze(number=number, amount_fen=standing.fee_fen))
        ended = await provider.cancel_freeze(number=number)
        if not isinstance(ended, Succeeded | Failed):
            return None  # asked again by the next sweep
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.find_by_enrol_key(cur, enrol_key)
            if standing is None or standing.state is not State.HOLD_PENDING:
                return None
            await memberships.save_admission(cur, standing.id, State.ABANDONED)
            return replace(standing, state=State.ABANDONED)

    # ------------------------------------------------------------ uses

    async def _reserve(self, ask_id: str, request: ReserveUses) -> ReserveAnswered:
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
        view = await self._view(standing)
        return ReserveAnswered(ask_id, request.session, ok=False, code="benefit_gone", member=view)

    async def _reservable(self, cur: AsyncCursor[Any], standing: Standing, request: ReserveUses) -> bool:
        """True when every use of the quote would be REGULAR now, at no more than its benefit is worth."""
        if standing.state is not State.ACTIVE:
            return False
        taken = await memberships.quota_taken(cur, standing.id, tuple(use.usage for use in request.uses))
        for use in request.uses:
            if use.membership != standing.id:
                raise Bug("foreign_use", f"use {use.usage} is not of membership {standing.id}")
            benefit = standing.plan.benefit(use.benefit)
            if benefit is None or not 0 < use.fen <= benefit.value_fen:
                return False
            if _class_of(standing, taken, use, request.at, offline=False) is not UseClass.REGULAR:
                return False
            taken[use.benefit] = taken.get(use.benefit, 0) + 1
        return True

    async def _post(self, ask_id: str, request: PostUses) -> UsesPosted:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standings = [await self._locked(cur, key) for key in sorted({use.membership for use in request.uses})]
            now = await clock.business_now(cur, self._wall())
            for standing in standings:
                await self._post_uses(cur, ask_id, standing, request, now)
        member = await self._view(standings[0]) if standings else None
        return UsesPosted(ask_id, request.session, member)

    async def _post_uses(
        self, cur: AsyncCursor[Any], ask_id: str, standing: Standing, request: PostUses, now: datetime
    ) -> None:
        uses = [use for use in request.uses if use.membership == standing.id]
        usages = [use.usage for use in uses]
        known = await usage.known_uses(cur, usages)
        reserved = await usage.reservations_of(cur, usages)
        taken = await memberships.quota_taken(cur, standing.id, tuple(usages))
        store = await memberships.load_store(cur, request.store)
        assert store is not None
        booked_on = store.business_date(request.biz_time).isoformat()
        place = await memberships.place_of(cur, request.store, booked_on)
        transactions: list[ledger.Transaction] = []
        used_fen = 0
        for use in uses:
            if use.usage in known:
                continue
            state, reservation = reserved.get(use.usage, ("", None))
            biz_time = request.biz_time if reservation is None else reservation.biz_time
            # The sale happened, so nothing is refused any more: what was not reserved is judged as an offline use.
            use_class = UseClass.REGULAR
            if reservation is None or state != "open" or standing.charge_fen is not None:
                use_class = _class_of(standing, taken, use, biz_time, offline=True)
            tombstones = await usage.tombstones_of(cur, use.usage)
            reversed_fen = min(use.fen, sum(fen for _, fen in tombstones))
            line = usage.UsageLine(
                use, use_class, reversed_fen, request.paid_fen, biz_time, now, place, request.terminal,
                request.sale, request.seq, request.clerk,
            )  # fmt: skip
            await usage.insert_use(cur, line)
            transactions.append(
                ledger.benefit_used(
                    use.usage,
                    place=place,
                    fen=use.fen,
                    use_class=use_class,
                    funder=standing.plan.funder_entity,
                    business_date=booked_on,
                )
            )
            transactions += _born_reversed(use, tombstones, use_class, standing.plan, place, booked_on)
            if use_class in TAKES_QUOTA and reversed_fen < use.fen:
                taken[use.benefit] = taken.get(use.benefit, 0) + 1
            if use_class is UseClass.REGULAR:
                used_fen += use.fen - reversed_fen
        await insert_transactions(cur, transactions, now, ask_id)
        await usage.end_reservations(cur, usages, "posted")
        if used_fen:
            await usage.add_used(cur, standing.id, used_fen)

    async def _release(self, ask_id: str, request: ReleaseUses) -> ReleaseAnswered:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            for membership in sorted({use.membership for use in request.uses}):
                await self._locked(cur, membership)
            await usage.end_reservations(cur, [use.usage for use in request.uses], "released")
        return ReleaseAnswered(ask_id, request.session)

    async def _reverse(self, ask_id: str, request: ReverseUses) -> ReleaseAnswered:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            for membership in sorted({use.membership for use in request.uses}):
                standing = await self._locked(cur, membership)
                for use in request.uses:
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
        """Take one use back wholly: its line, u, its entries, and what the member gets back if it was charged."""
        if not await usage.insert_reversal(cur, reversal, use.usage, use.fen, request.at):
            return standing
        known = (await usage.known_uses(cur, [use.usage])).get(use.usage)
        if known is None:
            return standing  # a tombstone: the use will be born reversed
        back_fen = min(use.fen, known.fen - known.reversed_fen)
        if back_fen == 0:
            return standing
        await usage.save_reversed(cur, use.usage, known.reversed_fen + back_fen)
        store = await memberships.load_store(cur, request.store)
        assert store is not None
        booked_on = store.business_date(request.at).isoformat()
        transactions = [
            ledger.benefit_reversed(
                reversal,
                use.usage,
                place=known.place,
                fen=back_fen,
                use_class=known.use_class,
                funder=standing.plan.funder_entity,
                business_date=booked_on,
            )
        ]
        after = standing
        if known.use_class is UseClass.REGULAR:
            await usage.add_used(cur, standing.id, -back_fen)
            step = after_reversal(standing, reversal, back_fen, known.place, request.at, provider=self._provider_name)
            after = step.standing
            transactions += step.transactions
            await settlement.save_standings(cur, [(after, "")])
            await settlement.insert_calls(cur, step.calls)
        now = await clock.business_now(cur, self._wall())
        await insert_transactions(cur, transactions, now, ask_id)
        return after

    # ------------------------------------------------------------ shared

    @staticmethod
    async def _locked(cur: AsyncCursor[Any], membership: str) -> Standing:
        standing = await memberships.lock_membership(cur, membership)
        if standing is None:
            raise Bug("unknown_membership", f"a session used the unknown membership {membership}")
        return standing

    async def _view(self, standing: Standing) -> MemberView | None:
        async with self._pool.connection() as conn:
            async with conn.cursor() as cur:
                now = await clock.business_now(cur, self._wall())
            return await memberships.load_member_view(conn, standing.member, now, standing.plan.id)


def _check_application(plan: Plan, membership: MembershipId, earlier: memberships.Earlier, at: datetime) -> None:
    if earlier.live:
        raise Refused("already_member", f"there is a membership of {plan.id}", "use its benefits")
    if earlier.owing:
        raise Refused("enrol_refused", "an earlier membership is not paid", "pay it first")
    try:
        apply_for(membership, plan, GuaranteeKind.HUABEI_HOLD, at, last_ended_at=earlier.last_ended_at)
    except Refused as refused:
        if refused.code == "enrol_too_soon":
            raise Refused("enrol_refused", refused.message, refused.do) from refused
        raise


def _class_of(
    standing: Standing, taken: dict[str, int], use: SaleUse, biz_time: datetime, *, offline: bool
) -> UseClass:
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


def _born_reversed(
    use: SaleUse,
    tombstones: list[tuple[str, int]],
    use_class: UseClass,
    plan: Plan,
    place: ledger.Place,
    booked_on: str,
) -> list[ledger.Transaction]:
    """The entries of reversals that came before their use; together they take back no more than it gave."""
    left_fen = use.fen
    transactions = []
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
                funder=plan.funder_entity,
                business_date=booked_on,
            )
        )
    return transactions
