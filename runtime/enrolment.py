"""Enrolment: an application, its freeze at the provider, and the membership that opens with it.

The application's row is committed before the provider is asked, under a number that derives from the ask; so a
crash at any point leaves a row whose freeze can be queried.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor

from actors.ports import EnrolMember, FindMember
from gateway.providers.port import Guarantee, Scene
from models.domain import ledger
from models.domain.charging import cutoff_instant, expiry_instant
from models.domain.errors import Bug, Refused
from models.domain.events import ProviderAuth
from models.domain.ids import MemberId, MembershipId, SessionId, StoreId, derived_id
from models.domain.membership import HOLD_TIMEOUT, HoldState, State, apply_for, guarantees_instead
from models.domain.membership_guarantee import holder_of
from models.domain.messages import EnrolAnswered, MemberFound
from models.domain.payments import (
    PROVIDERS,
    AgreementResult,
    Answer,
    CreditOutcome,
    Failed,
    HoldResult,
    Pending,
    Succeeded,
    Unknown,
)
from models.domain.plans import HOLD_GUARANTEES, OWN_HOLDS, GuaranteeKind, Plan, Rule
from models.domain.settlement import Standing, release_call
from models.tables import clock, memberships, settlement
from models.tables.ledger import insert_transactions
from models.tables.member_money import BalanceHold
from models.tables.plans import latest_plan
from runtime.clock import Pool, Wall
from runtime.credits import Credits
from runtime.held_balances import reserve
from runtime.holders import Holders
from runtime.member_views import NotYet, member_view
from runtime.plant import ProviderOf

PENDING_SWEPT_MAX = 200
_WAITING = frozenset({State.ADMITTING, State.HOLD_PENDING})
_ADMITTED = {
    CreditOutcome.HOLD_NEEDED: State.HOLD_PENDING,
    CreditOutcome.REFUSED: State.REJECTED,
}
_TOLD = frozenset({"balance_short", "no_open_shift"})
"""Why the member's own money cannot secure the fee, where member or clerk can do something about it."""
RETRY_AFTER_S = 2.0


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
    digits = "".join(char for char in number if char in "0123456789")
    digits = digits[2:] if len(digits) == 13 and digits.startswith("86") else digits
    if not 5 <= len(digits) <= 15:
        raise Refused("bad_phone", "a phone number has 5 to 15 digits", "enter it again")
    return memberships.Phone(hmac.new(pepper, digits.encode(), hashlib.sha256).hexdigest(), digits[-4:])


def scene_of(auth: ProviderAuth) -> Scene:
    """Payment codes are 16 to 24 digits, face tokens are not (opendocs.alipay.com, alipay.trade.pay, auth_code)."""
    return Scene.PAYMENT_CODE if auth.token.isdigit() else Scene.FACE


class NotSecured(Refused):
    """This guarantee cannot be had; `instead`: those of the plan that may be."""

    def __init__(self, code: str, message: str, instead: tuple[str, ...]) -> None:
        super().__init__(code, message, "choose another guarantee")
        self.instead = instead


class Enrolment:
    """Opens memberships, one per ask. `wall` times the freezes; business time is `wall` plus the stored offset."""

    def __init__(
        self,
        pool: Pool,
        providers: ProviderOf,
        *,
        pepper: bytes,
        wall: Wall,
        credits_: Credits,
    ) -> None:
        self._pool = pool
        self._holders = Holders(pool, providers, wall=wall)
        self._credits = credits_
        self._pepper = pepper
        self._wall = wall

    async def find(self, question: str, request: FindMember) -> MemberFound:
        """Who this number is of, with the membership that is open now; nobody when it is no number at all."""
        value = request.value
        if request.by == "phone":
            try:
                value = phone_of(value, self._pepper).digest
            except Refused:
                return MemberFound(question, request.session, None)
        view = None
        async with self._pool.connection() as conn:
            async with conn.cursor() as cur:
                store = await memberships.load_store(cur, request.store)
                assert store is not None
                if request.by == "tail":
                    member = await memberships.member_with_tail(cur, request.member or "", value)
                else:
                    member = await memberships.find_member(cur, store.chain, request.by, value)
                now = await clock.business_now(cur, self._wall())
            if member is not None:
                view = await memberships.load_member_view(conn, member, now)
        return MemberFound(question, request.session, view)

    async def enrol(self, ask_id: str, request: EnrolMember, attempts: int) -> EnrolAnswered | NotYet:
        try:
            async with self._pool.connection() as conn, conn.cursor() as cur:
                standing = await memberships.find_by_enrol_key(cur, ask_id)
                made_before = standing is not None or attempts > 0
                if standing is None:
                    standing = await self._apply(cur, ask_id, request)
        except NotSecured as refused:
            return EnrolAnswered(ask_id, request.session, None, code=refused.code, instead=refused.instead)
        except Refused as refused:
            return EnrolAnswered(ask_id, request.session, None, code=refused.code)
        answer: Answer[HoldResult] | Answer[AgreementResult] | None = None
        if standing.state is State.ADMITTING:
            standing, answer = await self._admitted(standing, request.phone or "")
        if standing.state is State.HOLD_PENDING:
            answer = await self._freeze(standing, request.auth, query_first=made_before)
            standing = await self._admit(ask_id, answer)
        return await self._enrolled(standing, answer)

    async def _apply(self, cur: AsyncCursor[Any], ask_id: str, request: EnrolMember) -> Standing:
        """The application's row, committed before the provider is asked. Raises Refused."""
        store = await memberships.load_store(cur, request.store)
        if store is None:
            raise Bug("unknown_store", f"a terminal of the unknown store {request.store} enrolled a member")
        plan = await latest_plan(cur, store.chain, request.plan, request.store)
        if plan is None:
            raise Refused("unknown_plan", request.plan)
        guarantee = self._guarantee_of(request, plan)
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
        _check_application(plan, guarantee, membership, earlier, request.at)
        state = _first_state(guarantee, plan.fee_fen)
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
            state=state,
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
            task_target=plan.task_target,
            guarantee=guarantee.value,
            provider=holder_of(guarantee),
            renews=plan.rule is Rule.CYCLE,
        )
        await self.open(cur, standing, request.clerk)
        if standing.fee_fen and guarantee in OWN_HOLDS:
            return await self._reserved(cur, standing, request.clerk, await clock.business_now(cur, self._wall()))
        return standing

    def _guarantee_of(self, request: EnrolMember, plan: Plan) -> GuaranteeKind:
        """What was chosen, if it can be had. Raises NotSecured `guarantee_unavailable`, `clerk_missing`."""
        kinds = {str(kind): kind for kind in plan.guarantees}
        kind = kinds.get(request.guarantee)
        if kind is None:
            raise NotSecured("guarantee_unavailable", request.guarantee, tuple(kinds))
        instead = tuple(str(one) for one in guarantees_instead(plan, kind))
        if not plan.fee_fen or kind is GuaranteeKind.MERCHANT_TRUST:
            return kind
        if kind is GuaranteeKind.SESAME_CREDIT and not request.phone:
            raise NotSecured("guarantee_unavailable", "a credit is asked about somebody: the phone is missing", instead)
        if kind is GuaranteeKind.BALANCE_HOLD and request.member is None:
            raise NotSecured("guarantee_unavailable", "nobody yet, so nobody's balance", instead)
        if kind is GuaranteeKind.CASH_DEPOSIT and request.clerk is None:
            raise NotSecured("clerk_missing", "a clerk takes the cash", instead)
        holder = holder_of(kind)
        elsewhere = request.auth is not None and holder in PROVIDERS and request.auth.provider not in ("", holder)
        if elsewhere or not self._holders.has(plan.owner_entity, holder):
            raise NotSecured("guarantee_unavailable", f"{holder} cannot hold for {plan.owner_entity}", instead)
        return kind

    async def _reserved(self, cur: AsyncCursor[Any], standing: Standing, clerk: str | None, now: datetime) -> Standing:
        """The member's own money secures it, in the transaction that opens it. Raises NotSecured `balance_short`,
        `no_open_shift`, …

        A deposit is cash that a clerk takes; where none stands (a renewal), it comes out of the balance.
        """
        kind = GuaranteeKind(standing.guarantee)
        cash = kind is GuaranteeKind.CASH_DEPOSIT and clerk is not None
        hold = BalanceHold(
            standing.hold_order, standing.member, standing.owner, standing.store, standing.fee_fen, 0, "held"
        )
        try:
            await reserve(
                cur.connection, hold, terminal=standing.terminal, cash=cash, now=now,
                by="member" if clerk is None else f"clerk:{clerk}", business_date=standing.business_date(now),
            )  # fmt: skip
        except Refused as refused:
            instead = tuple(str(one) for one in guarantees_instead(standing.plan, kind))
            code = refused.code if refused.code in _TOLD else "guarantee_unavailable"
            raise NotSecured(code, refused.message, instead) from refused
        return await self._held(cur, standing, HoldResult(hold.number, hold.fen, hold.fen), now)

    async def open(self, cur: AsyncCursor[Any], standing: Standing, clerk: str | None = None) -> None:
        """A new application, or a membership that needs no provider's word; with its wall timer when it waits."""
        await memberships.insert_membership(cur, standing, clerk=clerk)
        if standing.state in _WAITING:
            await memberships.save_admission(cur, standing.id, standing.state, self._wall() + HOLD_TIMEOUT)

    async def secure_renewal(self, standing: Standing) -> str:
        """Ask for the hold, or the signature, of a renewal that waits for one; the text of the code that the member
        scans, or nothing. Asked again, the same code while it is open.
        """
        if standing.state is State.ADMITTING:
            _, signing = await self._sign(standing)
            return (signing.code_text or "") if isinstance(signing, Pending) else ""
        if standing.state is not State.HOLD_PENDING:
            return ""
        if GuaranteeKind(standing.guarantee) in OWN_HOLDS:
            await self._secured(standing.enrol_key)
            return ""
        answer = await self._freeze(standing, None, query_first=False)
        await self._admit(standing.enrol_key, answer)
        return (answer.code_text or "") if isinstance(answer, Pending) else ""

    async def _secured(self, enrol_key: str) -> Standing | None:
        """A renewal out of the balance, as soon as there is enough of it. None: not yet."""
        try:
            async with self._pool.connection() as conn, conn.cursor() as cur:
                standing = await memberships.find_by_enrol_key(cur, enrol_key)
                if standing is None or standing.state is not State.HOLD_PENDING:
                    return standing
                return await self._reserved(cur, standing, None, await clock.business_now(cur, self._wall()))
        except NotSecured:
            return None

    async def _admitted(self, standing: Standing, phone: str) -> tuple[Standing, Answer[AgreementResult] | None]:
        """Credit: first the provider says whether it vouches for the member, then the member signs with it."""
        agreement = await self._credits.agreement(standing.id)
        if agreement is None:
            standing, vouched = await self._consult(standing, phone)
            if not vouched:
                return standing, None
        elif agreement.agreement_no:
            return await self._signed(standing.enrol_key), None
        return await self._sign(standing)

    async def _sign(self, standing: Standing) -> tuple[Standing, Answer[AgreementResult]]:
        answer = await self._credits.sign(standing)
        if not isinstance(answer, Failed):
            return standing, answer
        async with self._pool.connection() as conn, conn.cursor() as cur:
            current = await memberships.find_by_enrol_key(cur, standing.enrol_key)
            assert current is not None
            if current.state is not State.ADMITTING:
                return current, answer
            await memberships.save_admission(cur, current.id, State.REJECTED)
            return replace(current, state=State.REJECTED), answer

    async def _signed(self, enrol_key: str) -> Standing:
        """The member has signed: ACTIVE, unless its time was over before."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.find_by_enrol_key(cur, enrol_key)
            assert standing is not None
            if standing.state is not State.ADMITTING:
                return standing
            await memberships.save_admission(cur, standing.id, State.ACTIVE)
            return replace(standing, state=State.ACTIVE)

    async def _consult(self, standing: Standing, phone: str) -> tuple[Standing, bool]:
        """Ask the provider whether it vouches for this person's fee; nothing is frozen. An open answer leaves it
        ADMITTING until the same ask comes again: the phone itself is kept nowhere. True: it does.
        """
        answer = await self._holders.account(standing.owner).consult_credit(
            number=f"C{standing.id}", guarantee=Guarantee(standing.guarantee), fee_fen=standing.fee_fen, payer=phone
        )
        if not isinstance(answer, Succeeded | Failed):
            return standing, False
        outcome = answer.result.outcome if isinstance(answer, Succeeded) else CreditOutcome.REFUSED
        async with self._pool.connection() as conn, conn.cursor() as cur:
            current = await memberships.find_by_enrol_key(cur, standing.enrol_key)
            assert current is not None
            if current.state is not State.ADMITTING or outcome is CreditOutcome.ADMITTED:
                return current, current.state is State.ADMITTING
            state = _ADMITTED[outcome]
            until = self._wall() + HOLD_TIMEOUT if state in _WAITING else None
            await memberships.save_admission(cur, current.id, state, until)
            return replace(current, state=state), False

    async def _freeze(self, standing: Standing, auth: ProviderAuth | None, query_first: bool) -> Answer[HoldResult]:
        """One freeze under the membership's own number, whatever happened to the call before."""
        provider = self._holders.account(standing.owner, standing.provider)
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
            return await self._held(cur, standing, answer.result, now)

    async def _held(self, cur: AsyncCursor[Any], standing: Standing, hold: HoldResult, now: datetime) -> Standing:
        """The fee is secured: the membership is ACTIVE, or it was too late and the hold goes back."""
        await memberships.save_hold(cur, standing.id, hold.hold_no, hold.frozen_fen)
        held = replace(standing, hold_no=hold.hold_no, hold_fen=hold.frozen_fen, hold_state=HoldState.HELD)
        placed = ledger.hold_placed(
            held.hold_order,
            entity=held.owner,
            provider=held.provider,
            hold_fen=held.hold_fen,
            business_date=held.business_date(now),
        )
        await insert_transactions(cur, [placed], now, held.enrol_key)
        if held.state is not State.HOLD_PENDING:  # too late to be of use: it goes back at once
            await settlement.insert_calls(cur, [release_call(held, now)])
            return held
        await memberships.save_admission(cur, held.id, State.ACTIVE)
        return replace(held, state=State.ACTIVE)

    async def _enrolled(
        self, standing: Standing, answer: Answer[HoldResult] | Answer[AgreementResult] | None
    ) -> EnrolAnswered | NotYet:
        ask_id, session = standing.enrol_key, SessionId(standing.session)
        match standing.state:
            case State.ADMITTING | State.HOLD_PENDING if isinstance(answer, Pending):
                return EnrolAnswered(ask_id, session, None, pending=True, code_text=answer.code_text or "")
            case State.ADMITTING | State.HOLD_PENDING:
                return NotYet(RETRY_AFTER_S)
            case State.REJECTED:
                instead = guarantees_instead(standing.plan, GuaranteeKind(standing.guarantee))
                named = tuple(str(kind) for kind in instead)
                return EnrolAnswered(ask_id, session, None, code="enrol_refused", instead=named)
            case State.ABANDONED:
                return EnrolAnswered(ask_id, session, None, code="enrol_refused")
            case _:
                return EnrolAnswered(ask_id, session, await member_view(self._pool, standing, self._wall()))

    async def sweep(self, chain: str, region: str) -> list[EnrolResolved]:
        """Ask about freezes that wait for the customer; end those past 15 min. Call every few seconds of wall time.

        Returns those that ended now: ACTIVE (with the member), or ABANDONED and REJECTED (`enrol_refused`).
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            waiting = await memberships.pending_holds(cur, chain, region, limit=PENDING_SWEPT_MAX)
        resolved: list[EnrolResolved] = []
        for enrol_key, until in waiting:
            standing = await self._resolve(enrol_key, expired=until is not None and until <= self._wall())
            # Nobody stands at a terminal for a renewal: it belongs to no visit.
            if standing is not None and standing.state not in _WAITING and standing.session:
                answer = await self._enrolled(standing, None)
                assert isinstance(answer, EnrolAnswered)
                resolved.append(EnrolResolved(standing.store, standing.terminal, answer))
        return resolved

    async def _resolve(self, enrol_key: str, *, expired: bool) -> Standing | None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.find_by_enrol_key(cur, enrol_key)
        if standing is None or standing.state not in _WAITING:
            return None
        number = standing.hold_order
        if standing.state is State.ADMITTING:
            agreement = await self._credits.agreement(standing.id)
            if agreement is not None and agreement.agreement_no:
                return await self._signed(enrol_key)
            return await self._abandon(enrol_key) if expired else None
        if GuaranteeKind(standing.guarantee) in OWN_HOLDS:
            return await self._abandon(enrol_key) if expired else await self._secured(enrol_key)
        provider = self._holders.account(standing.owner, standing.provider)
        if not expired:
            return await self._admit(enrol_key, await provider.query_freeze(number=number, amount_fen=standing.fee_fen))
        ended = await provider.cancel_freeze(number=number)
        if not isinstance(ended, Succeeded | Failed):
            return None  # asked again by the next sweep
        return await self._abandon(enrol_key)

    async def _abandon(self, enrol_key: str) -> Standing | None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.find_by_enrol_key(cur, enrol_key)
            if standing is None or standing.state not in _WAITING:
                return None
            await memberships.save_admission(cur, standing.id, State.ABANDONED)
            return replace(standing, state=State.ABANDONED)


def _first_state(guarantee: GuaranteeKind, fee_fen: int) -> State:
    """ACTIVE at once where nobody is asked: nothing to secure, or the merchant's own trust."""
    if fee_fen == 0 or guarantee is GuaranteeKind.MERCHANT_TRUST:
        return State.ACTIVE
    return State.HOLD_PENDING if guarantee in HOLD_GUARANTEES else State.ADMITTING


def _check_application(
    plan: Plan, guarantee: GuaranteeKind, membership: MembershipId, earlier: memberships.Earlier, at: datetime
) -> None:
    if earlier.live:
        raise Refused("already_member", f"there is a membership of {plan.id}", "use its benefits")
    if earlier.owing:
        raise Refused("enrol_refused", "an earlier membership is not paid", "pay it first")
    try:
        apply_for(membership, plan, guarantee, at, last_ended_at=earlier.last_ended_at)
    except Refused as refused:
        if refused.code in ("enrol_too_soon", "plan_over"):
            raise Refused("enrol_refused", refused.message, refused.do) from refused
        raise
