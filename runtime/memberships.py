"""The memberships port: find, enrol, reserve, post, release, reverse, lease. Each ask has one effect, however often
it is made.

Every effect happens under the membership's row lock, in one transaction with its ledger entries. The provider is
asked between two transactions, never inside one.
"""

from __future__ import annotations

import stamina
from psycopg.errors import DeadlockDetected

from actors.ports import (
    EndLease,
    EnrolMember,
    FindMember,
    GrantLease,
    MembershipRequest,
    PostUses,
    ReleaseUses,
    ReserveUses,
    ReverseUses,
    WithdrawFace,
)
from models.domain.ids import derived_id
from models.domain.messages import (
    EnrolAnswered,
    FaceWithdrawn,
    LeaseEnded,
    LeaseGranted,
    MemberFound,
    ReleaseAnswered,
    ReserveAnswered,
    UsesPosted,
)
from runtime.clock import Pool, Wall, wall_now
from runtime.credits import Credits
from runtime.enrolment import Enrolment, EnrolResolved
from runtime.late_money import LateMoney
from runtime.leases import Leases
from runtime.member_views import NotYet
from runtime.membership_life import MembershipLife
from runtime.plant import ProviderOf
from runtime.privacy import templates_of, withdraw_in
from runtime.renewal import Renewals
from runtime.uses import Uses

__all__ = ["EnrolResolved", "MembershipAnswer", "Memberships", "NotYet"]

MembershipAnswer = (
    MemberFound
    | EnrolAnswered
    | ReserveAnswered
    | UsesPosted
    | ReleaseAnswered
    | LeaseGranted
    | LeaseEnded
    | FaceWithdrawn
)


DEADLOCK_TRIES_MAX = 5


class Memberships:
    """Answers membership asks from the rows. Belongs to one event loop; any number may run beside it.

    `pepper` keys the digests of phone numbers and never changes in a deployment. `wall` is the wall clock
    (reservations, freezes); business time is `wall` plus the offset in the database. `life`: what is done
    with memberships besides using them.
    """

    def __init__(
        self,
        pool: Pool,
        providers: ProviderOf,
        *,
        pepper: bytes,
        wall: Wall = wall_now,
    ) -> None:
        self._credits = Credits(pool, providers, wall=wall)
        self._late_money = LateMoney(pool, providers, wall=wall)
        self._enrolment = Enrolment(pool, providers, pepper=pepper, wall=wall, credits_=self._credits)
        self._renewals = Renewals(pool, self._enrolment, wall=wall)
        self.life = MembershipLife(pool, providers, wall=wall)
        self._leases = Leases(pool, wall=wall)
        self._pool, self._wall = pool, wall
        self._uses = Uses(pool, wall=wall, renewals=self._renewals)

    async def ask(self, ask_id: str, request: MembershipRequest, attempts: int = 0) -> MembershipAnswer | NotYet:
        """Do what is asked, once; asked again with the same id, answer again. `attempts`: how often it was made before.

        Returns after the commit. Raises what the database raises; nothing happened then, or all of it.
        """
        # The same ask at the same time can end in a deadlock of the row's locks: nothing happened, so it is made again.
        async for attempt in stamina.retry_context(
            on=DeadlockDetected, attempts=DEADLOCK_TRIES_MAX, wait_initial=0.01, wait_jitter=0.05
        ):
            with attempt:
                answer = await self._ask(ask_id, request, attempts)
        return answer

    async def _ask(self, ask_id: str, request: MembershipRequest, attempts: int) -> MembershipAnswer | NotYet:
        match request:
            case FindMember():
                return await self._find(ask_id, request)
            case GrantLease():
                return await self._leases.grant(ask_id, request)
            case EndLease():
                return await self._leases.end(ask_id, request)
            case EnrolMember():
                return await self._enrolment.enrol(ask_id, request, attempts)
            case ReserveUses():
                return await self._uses.reserve(ask_id, request)
            case PostUses():
                return await self._uses.post(ask_id, request)
            case ReleaseUses():
                return await self._uses.release(ask_id, request)
            case ReverseUses():
                return await self._uses.reverse(ask_id, request)
            case WithdrawFace():
                return await self._withdraw(ask_id, request)

    async def _find(self, ask_id: str, request: FindMember) -> MemberFound:
        """Who it is; a generation that is over a moment ago has been followed by the next one."""
        found = await self._enrolment.find(ask_id, request)
        over = found.member is not None and found.member.membership is None
        if over and found.member is not None and await self._renewals.open_of(found.member.id):
            return await self._enrolment.find(ask_id, request)
        return found

    async def _withdraw(self, ask_id: str, request: WithdrawFace) -> FaceWithdrawn:
        """In this transaction templates and keys go; the bytes in the database's files follow (Privacy.scrub_due)."""
        async with self._pool.connection() as conn:
            done = await withdraw_in(
                conn,
                request.member,
                at=self._wall(),
                by=f"terminal:{request.terminal}",
                via="terminal",
                reason=f"consent taken back in visit {request.session}",
                request_id=derived_id(ask_id, "request"),
            )
        return FaceWithdrawn(ask_id, request.session, templates_of(done))

    async def sweep(self, chain: str, region: str) -> list[EnrolResolved]:
        """Ask about freezes that wait for the customer; end those past 15 min. Call every few seconds of wall time.

        Returns the enrolments that ended now: ACTIVE (with the member), or ABANDONED and REJECTED (`enrol_refused`).
        Renewals that are due open, what changes of plan left with the provider is taken up, and providers that keep
        records of uses are told of them.
        """
        await self.life.sweep(chain, region)
        await self._credits.sweep(chain, region)
        await self._late_money.sweep(chain, region)
        await self._renewals.sweep(chain, region)
        return await self._enrolment.sweep(chain, region)
