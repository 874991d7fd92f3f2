"""A membership's life besides its uses: cancel, suspend, resume, renew, change of plan, holds that lapse.

Every request has a number of the caller's and one effect, under the membership's row lock, in one transaction with
its ledger entries. The provider is asked between two transactions, never inside one; what it leaves open is taken up
by `sweep`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncCursor

from gateway.providers.port import Scene
from models.domain import ledger
from models.domain.charging import CancelledBy
from models.domain.errors import NeedsOperator, Refused
from models.domain.events import ProviderAuth
from models.domain.ids import LegalEntityId, PlanId, derived_id
from models.domain.ledger import Transaction
from models.domain.member_balance import BALANCE
from models.domain.membership import HOLD_TIMEOUT, HoldState, State
from models.domain.membership_actions import (
    Action,
    Asked,
    Cancel,
    ChangePlan,
    Consequence,
    Done,
    FreezeAgain,
    LapseHold,
    Renew,
    Resume,
    Suspend,
    credit_admitted,
    foresee,
    told,
)
from models.domain.membership_guarantee import holder_of
from models.domain.payments import Answer, Failed, FailReason, HoldResult, Pending, ReleaseResult, Succeeded, Unknown
from models.domain.plans import GuaranteeKind
from models.domain.settlement import Standing
from models.tables import clock, memberships
from models.tables import membership_requests as requests
from models.tables.credit_records import load_agreements
from models.tables.ledger import insert_transactions
from models.tables.member_money import BalanceHold
from models.tables.membership_requests import DONE, PENDING, REFUSED, RELEASING, MembershipRequest
from models.tables.plans import latest_plan, load_plan
from runtime.clock import Pool, Wall, wall_now
from runtime.given_up import GivenUp, given_up, given_up_change
from runtime.held_balances import reserve
from runtime.holders import Holders
from runtime.plant import ProviderOf

REQUESTS_SWEPT_MAX = 200
RELEASE_AGAIN_AFTER = timedelta(seconds=30)
REQUESTS_SHOWN_MAX = 50
NOTICES_HEARD_FOR = timedelta(hours=1)
"""How long a notification about a hold makes us ask; it comes again for a day when nobody answers it."""

HOLD_IS_OVER = frozenset({FailReason.HOLD_GONE, FailReason.HOLD_EXHAUSTED, FailReason.ORDER_UNKNOWN})
"""A release that fails so has nothing left to give back."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A membership, and what was asked of it."""

    standing: Standing
    given_up: GivenUp
    requests: tuple[MembershipRequest, ...]


class MembershipLife:
    """Performs requests about memberships of any region of one database. Any number may run beside each other.

    `wall` is the wall clock (freezes); business time is `wall` plus the offset in the database.
    """

    def __init__(
        self,
        pool: Pool,
        providers: ProviderOf,
        *,
        wall: Wall = wall_now,
    ) -> None:
        self._pool = pool
        self._holders = Holders(pool, providers, wall=wall)
        self._wall = wall

    async def show(self, membership: str) -> Shown:
        """How it stands. Raises Refused `unknown_membership`."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await _locked(cur, membership)
            asked = await requests.requests_of(cur, membership, limit=REQUESTS_SHOWN_MAX)
            return Shown(standing, await given_up(cur, standing), tuple(asked))

    async def known(self, number: str) -> bool:
        """Whether this number was asked for before: its answer stands, whatever the membership does meanwhile."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            return await requests.load_request(cur, number) is not None

    async def foresee(self, membership: str, asked: Asked) -> Consequence:
        """What would happen now; nothing does. Raises Refused as `do`."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await _locked(cur, membership)
            now = await clock.business_now(cur, self._wall())
            return await self._foreseen(cur, standing, await _action(cur, standing, asked), now)

    async def do(
        self, number: str, membership: str, asked: Asked, *, by: str, auth: ProviderAuth | None = None
    ) -> Done:
        """Do it, once; the same number again gets the same answer, or how far it is meanwhile.

        Returns after the commit, for a hold after the provider's answer. Raises Refused with the rule's code, or
        `unknown_membership`, `number_reused`; a refusal is kept under its number too.
        """
        request, made_before = await self._begin(number, membership, asked, by)
        if request.state == PENDING:
            request = await self._freeze(request, auth, query_first=made_before)
        if request.state == RELEASING:
            request = await self._release(request)
        if request.state == REFUSED:
            raise Refused(request.code, str(request.told.get("message", "")), str(request.told.get("do", "")))
        state = DONE if request.state == RELEASING else request.state
        return Done(number, membership, asked.verb, state, request.told, request.code_text)

    async def sweep(self, chain: str, region: str) -> int:
        """Take up what a provider left open: freezes that wait, holds that go back, holds that it let end.

        Returns how many ended now.
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            waiting = await requests.open_requests(cur, chain, region, limit=REQUESTS_SWEPT_MAX)
            since = self._wall() - NOTICES_HEARD_FOR
            doubtful = await requests.holds_in_doubt(cur, chain, region, since, limit=REQUESTS_SWEPT_MAX)
        ended = 0
        for doubt in doubtful:
            ended += await self._lapsed(*doubt)
        for request in waiting:
            after = request
            if request.state == PENDING:
                after = await self._resolve(request)
            elif request.state_until is None or request.state_until <= self._wall():
                after = await self._release(request)
            ended += after.state in (DONE, REFUSED)
        return ended

    async def _lapsed(self, membership: str, owner: str, provider: str, order: str, fen: int) -> bool:
        """A notification decides nothing: only when the provider says that nothing is left, the hold has lapsed."""
        account = self._holders.account(LegalEntityId(owner), provider)
        answer = await account.query_freeze(number=order, amount_fen=fen)
        closed = isinstance(answer, Failed) and answer.reason is FailReason.CLOSED
        if not closed and not (isinstance(answer, Succeeded) and answer.result.remaining_fen == 0):
            return False
        try:
            await self.do(f"lapse:{order}", membership, Asked("lapse"), by="provider")
        except Refused:  # it was charged or released meanwhile
            return False
        return True

    # ------------------------------------------------------------ the request and its first transaction

    async def _begin(self, number: str, membership: str, asked: Asked, by: str) -> tuple[MembershipRequest, bool]:
        """The request as it stands after the first commit, and whether it was made before."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await _locked(cur, membership)
            known = await requests.load_request(cur, number)
            if known is not None:
                if (known.membership, known.asked) != (membership, asked.document()):
                    raise Refused("number_reused", f"{number} asked for something else", "use a new number")
                return known, True
            now = await clock.business_now(cur, self._wall())
            request = MembershipRequest(
                number, membership, standing.chain, standing.region, standing.owner, asked.document(), {}, by, DONE, now
            )
            try:
                action = await _action(cur, standing, asked)
                consequence = await self._foreseen(cur, standing, action, now)
            except Refused as refused:
                why = {"message": refused.message, "do": refused.do}
                request = replace(request, state=REFUSED, code=refused.code, told=why)
            else:
                request = replace(request, told=told(consequence))
                request = await self._perform(cur, request, standing, action, consequence, now)
            await requests.insert_request(cur, request)
            return request, False

    async def _foreseen(self, cur: AsyncCursor[Any], standing: Standing, action: Action, now: datetime) -> Consequence:
        if isinstance(action, ChangePlan):
            await _refuse_credit(cur, standing, action)
            self._require_holder(standing, action)
        consequence = foresee(standing, action, now)
        if isinstance(action, ChangePlan) and action.plan.id != standing.plan.id:
            await memberships.lock_member_row(cur, standing.member)
            earlier = await memberships.earlier_memberships(cur, standing.member, action.plan.id)
            if earlier.live:
                raise Refused("already_member", f"the member has a membership of {action.plan.id}", "use that one")
        return consequence

    async def _perform(
        self,
        cur: AsyncCursor[Any],
        request: MembershipRequest,
        standing: Standing,
        action: Action,
        consequence: Consequence,
        now: datetime,
    ) -> MembershipRequest:
        after = consequence.after
        match action:
            case Cancel():
                waived = await given_up(cur, standing)
                await memberships.save_cancelled(cur, after, action.by)
                date = standing.business_date(now)
                entries = given_up_change(request.number, standing, waived, await given_up(cur, after), date)
                await insert_transactions(cur, entries, now, request.number)
            case Suspend() | Resume():
                await memberships.save_state(cur, standing.id, after.state)
            case Renew():
                await memberships.save_renews(cur, standing.id, after.renews)
            case LapseHold():
                await memberships.save_hold_state(cur, standing.id, HoldState.LAPSED)
                await insert_transactions(cur, [self._hold_ended(standing, now)], now, request.number)
            case ChangePlan() | FreezeAgain():
                request = replace(request, hold_provider=after.provider)
                if consequence.new_hold_fen:
                    request = replace(
                        request,
                        state=PENDING,
                        hold_order=f"H{derived_id(request.number, 'hold')}",
                        hold_fen=consequence.new_hold_fen,
                        state_until=self._wall() + HOLD_TIMEOUT,
                    )
                    if after.provider != BALANCE:
                        return request
                    return await self._reserved(cur, request, standing, now)
                await memberships.save_terms(cur, after)
                return _releasing(_ending(request, standing, after, now), standing)
        return request

    def _require_holder(self, standing: Standing, action: ChangePlan) -> None:
        """Raises Refused: nobody takes cash here, and where the company has no account nobody holds."""
        if action.plan.fee_fen and action.guarantee is GuaranteeKind.CASH_DEPOSIT:
            raise Refused("guarantee_unavailable", "cash is taken at enrolment", "top the balance up and hold that")
        if not credit_admitted(action.guarantee, action.plan.fee_fen) and not self._holders.has(
            standing.owner, holder_of(action.guarantee)
        ):
            raise Refused("guarantee_unavailable", f"{standing.owner} has no account there", "choose another guarantee")

    async def _reserved(
        self, cur: AsyncCursor[Any], request: MembershipRequest, standing: Standing, now: datetime
    ) -> MembershipRequest:
        """The member's own balance secures the new fee, in this transaction. Raises Refused `balance_short`."""
        number, fen = request.hold_order, request.hold_fen
        hold = BalanceHold(number, standing.member, standing.owner, standing.store, fen, 0, "held")
        await reserve(
            cur.connection,
            hold,
            terminal=standing.terminal,
            by=request.by,
            cash=False,
            business_date=standing.business_date(now),
            now=now,
        )
        return await self._apply_held(cur, request, standing, HoldResult(number, fen, fen), now)

    def _hold_ended(self, standing: Standing, now: datetime) -> Transaction:
        return ledger.hold_ended(
            standing.hold_order,
            entity=standing.owner,
            provider=standing.provider,
            hold_fen=standing.hold_fen,
            business_date=standing.business_date(now),
        )

    # ------------------------------------------------------------ the new hold

    async def _freeze(
        self, request: MembershipRequest, auth: ProviderAuth | None, *, query_first: bool
    ) -> MembershipRequest:
        """One freeze under the request's own number, whatever happened to the call before."""
        provider = self._holders.account(LegalEntityId(request.owner), request.hold_provider)
        answer: Answer[HoldResult]
        if query_first:
            answer = await provider.query_freeze(number=request.hold_order, amount_fen=request.hold_fen)
            if not (isinstance(answer, Unknown) and answer.absent):
                return await self._frozen(request, answer)
        answer = await provider.freeze(
            number=request.hold_order,
            amount_fen=request.hold_fen,
            subject=str(request.told.get("subject", "")),
            auth_code=None if auth is None else auth.token,
            scene=Scene.FACE if auth is not None and not auth.token.isdigit() else Scene.PAYMENT_CODE,
        )
        return await self._frozen(request, answer)

    async def _resolve(self, request: MembershipRequest) -> MembershipRequest:
        """Ask about a freeze that waits for the member; end one whose time is over."""
        provider = self._holders.account(LegalEntityId(request.owner), request.hold_provider)
        if request.state_until is None or request.state_until > self._wall():
            answer = await provider.query_freeze(number=request.hold_order, amount_fen=request.hold_fen)
            return await self._frozen(request, answer)
        ended = await provider.cancel_freeze(number=request.hold_order)
        if not isinstance(ended, Succeeded | Failed):
            return request  # asked again by the next sweep
        return await self._frozen(request, Failed(FailReason.CLOSED, "nobody authorised it in time"))

    async def _frozen(self, request: MembershipRequest, answer: Answer[HoldResult]) -> MembershipRequest:
        """Book what became of the freeze: the new terms with their hold, a refusal, or still open."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await _locked(cur, request.membership)
            known = await requests.load_request(cur, request.number)
            assert known is not None
            if known.state != PENDING:
                return known
            now = await clock.business_now(cur, self._wall())
            after = known
            if isinstance(answer, Pending) and answer.code_text:
                after = replace(known, code_text=answer.code_text)
            elif isinstance(answer, Failed):
                after = replace(known, state=REFUSED, code="hold_refused")
            elif isinstance(answer, Succeeded):
                after = await self._apply_held(cur, known, standing, answer.result, now)
            if after is not known:
                await requests.save_request(cur, after, now)
            return after

    async def _apply_held(
        self, cur: AsyncCursor[Any], request: MembershipRequest, standing: Standing, hold: HoldResult, now: datetime
    ) -> MembershipRequest:
        """The hold is there. If the action still makes sense it takes effect, else the hold goes back."""
        placed = ledger.hold_placed(
            request.hold_order,
            entity=standing.owner,
            provider=request.hold_provider,
            hold_fen=hold.frozen_fen,
            business_date=standing.business_date(now),
        )
        await insert_transactions(cur, [placed], now, request.number)
        request = replace(request, hold_no=hold.hold_no, hold_fen=hold.frozen_fen)
        try:
            action = await _action(cur, standing, _asked(request), version=int(request.told.get("plan_version", 0)))
            after = (await self._foreseen(cur, standing, action, now)).after
        except Refused as refused:
            return replace(
                request,
                state=RELEASING,
                code=refused.code,
                release_order=request.hold_order,
                release_no=hold.hold_no,
                release_fen=hold.frozen_fen,
                release_provider=request.hold_provider,
                state_until=None,
            )
        held = replace(
            after,
            hold_order=request.hold_order,
            hold_no=hold.hold_no,
            hold_fen=hold.frozen_fen,
            hold_state=HoldState.HELD,
        )
        await memberships.save_terms(cur, held)
        return _releasing(_ending(request, standing, after, now), standing)

    # ------------------------------------------------------------ the old hold

    async def _release(self, request: MembershipRequest) -> MembershipRequest:
        """Give a hold back under a number of its own; repeated until the provider says that it is over."""
        holder = self._holders.of(LegalEntityId(request.owner), request.release_provider)
        answer: Answer[ReleaseResult] = await holder.unfreeze(
            number=f"U{request.release_order}",
            hold_no=request.release_no,
            amount_fen=request.release_fen,
            remark="plan changed",
        )
        over = isinstance(answer, Succeeded) or (isinstance(answer, Failed) and answer.reason in HOLD_IS_OVER)
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await _locked(cur, request.membership)
            known = await requests.load_request(cur, request.number)
            assert known is not None
            if known.state != RELEASING:
                return known
            now = await clock.business_now(cur, self._wall())
            after = replace(known, state_until=self._wall() + RELEASE_AGAIN_AFTER)
            if over:
                after = replace(known, state=REFUSED if known.code else DONE, state_until=None)
                ended = ledger.hold_ended(
                    known.release_order,
                    entity=standing.owner,
                    provider=known.release_provider,
                    hold_fen=known.release_fen,
                    business_date=standing.business_date(now),
                )
                await insert_transactions(cur, [ended], now, known.number)
            await requests.save_request(cur, after, now)
            return after


async def _refuse_credit(cur: AsyncCursor[Any], standing: Standing, action: ChangePlan) -> None:
    """A credit is signed at enrolment, and its provider keeps records of this membership's uses: neither moves over."""
    if await load_agreements(cur, [standing.id]):
        raise Refused("change_refused", "the provider keeps its records under this plan", "change it when it ends")
    if action.guarantee is GuaranteeKind.SESAME_CREDIT and action.plan.fee_fen:
        raise Refused("guarantee_unavailable", "a credit is signed at enrolment", "choose another guarantee")


def _ending(request: MembershipRequest, before: Standing, after: Standing, now: datetime) -> MembershipRequest:
    """Notes the plan that the action ends: what it promised until now stays promised."""
    return request if after.plan == before.plan else replace(request, ended=requests.plan_ended(before.plan, now))


def _releasing(request: MembershipRequest, before: Standing) -> MembershipRequest:
    """The action took effect; a hold that it left behind goes back."""
    if before.hold_state is not HoldState.HELD:
        return replace(request, state=DONE, state_until=None)
    return replace(
        request,
        state=RELEASING,
        release_order=before.hold_order,
        release_no=before.hold_no,
        release_fen=before.hold_fen,
        release_provider=before.provider,
        state_until=None,
    )


async def _locked(cur: AsyncCursor[Any], membership: str) -> Standing:
    standing = await memberships.lock_membership(cur, membership)
    if standing is None:
        raise Refused("unknown_membership", f"there is no membership {membership!r}", "look it up in the console")
    if standing.state is State.PARKED:
        raise NeedsOperator("membership_parked", f"{membership} is parked", "repair it first")
    return standing


def _asked(request: MembershipRequest) -> Asked:
    return Asked(**request.asked)


async def _action(cur: AsyncCursor[Any], standing: Standing, asked: Asked, version: int = 0) -> Action:
    """What is asked, as a value of the rules. Raises Refused: unknown_action, unknown_plan, guarantee_unavailable."""
    match asked.verb:
        case "cancel":
            return Cancel(_cancelled_by(asked.by))
        case "suspend":
            return Suspend()
        case "resume":
            return Resume()
        case "renew":
            return Renew(asked.on)
        case "lapse":
            return LapseHold()
        case "freeze":
            return FreezeAgain()
        case "change":
            if version:
                plan = await load_plan(cur, asked.plan, version)
            else:
                newest = await latest_plan(cur, standing.chain, PlanId(asked.plan))
                if newest is None:
                    raise Refused("unknown_plan", f"the chain has no plan {asked.plan!r}", "name one of its plans")
                plan = newest
            try:
                return ChangePlan(plan, GuaranteeKind(asked.guarantee or standing.guarantee))
            except ValueError:
                raise Refused("guarantee_unavailable", asked.guarantee, "choose another guarantee") from None
    raise Refused("unknown_action", asked.verb, "one of cancel, change, renew, suspend, resume, freeze, lapse")


def _cancelled_by(by: str) -> CancelledBy:
    try:
        return CancelledBy(by)
    except ValueError:
        raise Refused("unknown_action", f"cancelled by {by!r}", "by member or by merchant") from None
