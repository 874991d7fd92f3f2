"""The memberships port in memory: rows, reservations and usage lines, each ask with one effect.

The same promises as `runtime.memberships`, with the same rules of class and quota, and no provider behind it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

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
from models.domain.charging import TAKES_QUOTA, UseClass, classify_use, expiry_instant
from models.domain.ids import BenefitId, LeaseId, MemberId, MembershipId, StoreId, UsageId, derived_id
from models.domain.leases import SYNC_WINDOW, LeaseStanding, lease_until
from models.domain.messages import (
    BenefitLeft,
    EnrolAnswered,
    FaceWithdrawn,
    LeaseEnded,
    LeaseGranted,
    MemberFound,
    MembershipView,
    MemberView,
    ReleaseAnswered,
    ReserveAnswered,
    SaleUse,
    UsesPosted,
)
from models.domain.plans import Plan
from models.domain.screen import LeaseGrant
from runtime.member_views import NotYet
from runtime.memberships import MembershipAnswer
from runtime.uses import RESERVED_FOR


@dataclass(slots=True)
class Reservation:
    """A use that is held until it is posted, released or forgotten."""

    use: SaleUse
    until: datetime
    state: str = "open"


@dataclass(slots=True)
class UsageLine:
    """A use that happened."""

    use: SaleUse
    sale: str
    use_class: UseClass
    reversed_fen: int = 0


@dataclass(slots=True)
class Row:
    """One membership."""

    id: MembershipId
    member: MemberId
    phone: str
    enrolled_at: datetime
    expires_at: datetime
    used_fen: int = 0


@dataclass(slots=True)
class MemberBooks:
    """What survives every crash."""

    plan: Plan
    by_key: dict[str, MembershipId] = field(default_factory=dict)
    rows: dict[MembershipId, Row] = field(default_factory=dict)
    reservations: dict[UsageId, Reservation] = field(default_factory=dict)
    usage: dict[UsageId, UsageLine] = field(default_factory=dict)
    reversals: dict[str, tuple[UsageId, int]] = field(default_factory=dict)
    leases: dict[LeaseId, LeaseStanding] = field(default_factory=dict)

    def row_of(self, member: MemberId) -> Row | None:
        """The membership of a member."""
        return next((row for row in self.rows.values() if row.member == member), None)

    def taken(self, membership: MembershipId, benefit: BenefitId, but: frozenset[UsageId], now: datetime) -> int:
        """Places of the quota that are gone: uses not wholly reversed, open reservations of others, and leases."""
        used = [
            line
            for line in self.usage.values()
            if (line.use.membership, line.use.benefit) == (membership, benefit)
            and line.use_class in TAKES_QUOTA
            and line.reversed_fen < line.use.fen
        ]
        held = [
            one
            for one in self.reservations.values()
            if (one.use.membership, one.use.benefit, one.state) == (membership, benefit, "open")
            and one.use.usage not in but
        ]
        leased = [
            lease.uses - lease.used
            for lease in self.leases.values()
            if (lease.membership, lease.benefit, lease.open) == (membership, benefit, True) and now < lease.lapses_at
        ]
        return len(used) + len(held) + sum(leased)

    def view(self, row: Row, now: datetime) -> MemberView:
        """A member as a till sees it."""
        left = tuple(
            BenefitLeft(benefit.id, max(0, benefit.quota - self.taken(row.id, benefit.id, frozenset(), now)))
            for benefit in self.plan.benefits
        )
        membership = MembershipView(
            row.id, self.plan.id, self.plan.version, self.plan.fee_fen, row.used_fen, left, row.expires_at
        )
        return MemberView(row.member, "张*", membership)


class MemoryMemberships:
    """Answers membership asks of one host. `trouble` says, in thousandths, how often the database is away."""

    def __init__(
        self,
        books: MemberBooks,
        wall: Callable[[], datetime],
        rng: random.Random,
        point: Callable[[str], None],
        trouble: int = 0,
        on_the_way: Callable[[LeaseId], bool] = lambda _: False,
    ) -> None:
        """`on_the_way`: is there a sale whose uses of this lease are not posted yet?"""
        self._on_the_way = on_the_way
        self._books = books
        self._wall = wall
        self._rng = rng
        self._point = point
        self._trouble = trouble

    async def ask(self, ask_id: str, request: MembershipRequest, attempts: int = 0) -> MembershipAnswer | NotYet:
        """See runtime.memberships.Memberships."""
        name = type(request).__name__
        self._point(f"before_{name}")
        self._maybe_away()
        await asyncio.sleep(self._rng.uniform(0.001, 0.02))
        answer = self._do(ask_id, request, attempts)
        self._point(f"after_{name}")
        await asyncio.sleep(self._rng.uniform(0.001, 0.02))
        self._maybe_away()
        return answer

    def _maybe_away(self) -> None:
        if self._trouble and self._rng.randrange(1000) < self._trouble:
            raise ConnectionError("the database is away")

    def _do(self, ask_id: str, request: MembershipRequest, attempts: int) -> MembershipAnswer | NotYet:
        match request:
            case FindMember():
                found = next((row for row in self._books.rows.values() if row.phone == request.value), None)
                view = self._books.view(found, self._wall()) if found is not None else None
                return MemberFound(ask_id, request.session, view)
            case EnrolMember():
                return self._enrol(ask_id, request, attempts)
            case GrantLease():
                return self._grant(ask_id, request)
            case EndLease():
                return self._end_lease(ask_id, request)
            case ReserveUses():
                return self._reserve(ask_id, request)
            case PostUses():
                return self._post(ask_id, request)
            case ReleaseUses():
                for use in request.uses:
                    self._end(use, "released")
                return ReleaseAnswered(ask_id, request.session)
            case ReverseUses():
                for use in request.uses:
                    self._reverse(derived_id(ask_id, use.usage), use)
                return ReleaseAnswered(ask_id, request.session)
            case WithdrawFace():
                return FaceWithdrawn(ask_id, request.session, 1)

    def _enrol(self, ask_id: str, request: EnrolMember, attempts: int) -> MembershipAnswer | NotYet:
        books = self._books
        known = books.by_key.get(ask_id)
        if known is not None:
            return EnrolAnswered(ask_id, request.session, books.view(books.rows[known], self._wall()))
        member = MemberId(derived_id(request.phone or ask_id, "member"))
        if books.row_of(member) is not None:
            return EnrolAnswered(ask_id, request.session, None, code="already_member")
        if (request.phone or "").endswith("0") and attempts == 0:
            return NotYet(2.0)  # the freeze has no clear answer yet
        expires = expiry_instant(request.at, books.plan)
        row = Row(MembershipId(derived_id(ask_id, "membership")), member, request.phone or "", request.at, expires)
        books.by_key[ask_id] = row.id
        books.rows[row.id] = row
        return EnrolAnswered(ask_id, request.session, books.view(row, self._wall()))

    def _forget_expired(self) -> None:
        for reservation in self._books.reservations.values():
            if reservation.state == "open" and reservation.until <= self._wall():
                reservation.state = "expired"

    def _reserve(self, ask_id: str, request: ReserveUses) -> ReserveAnswered:
        self._forget_expired()
        row = self._books.rows[request.membership]
        mine = frozenset(use.usage for use in request.uses)
        for use in request.uses:
            if self._class(row, use, mine, request.at, offline=False) is not UseClass.REGULAR:
                view = self._books.view(row, self._wall())
                return ReserveAnswered(ask_id, request.session, ok=False, code="benefit_gone", member=view)
        for use in request.uses:
            until: datetime = self._wall() + RESERVED_FOR
            old = self._books.reservations.get(use.usage)
            if old is None:
                made = Reservation(use, until)
                made.state = "posted" if use.usage in self._books.usage else "open"  # a till may be quicker
                self._books.reservations[use.usage] = made
            elif old.state in ("open", "expired"):
                old.state, old.until = "open", max(old.until, until)
        return ReserveAnswered(ask_id, request.session, ok=True)

    def _grant(self, ask_id: str, request: GrantLease) -> LeaseGranted:
        self._forget_expired()
        books, made = self._books, LeaseId(derived_id(ask_id, "lease"))
        row = books.rows[request.membership]
        lease = books.leases.get(made)
        benefit = books.plan.benefit(request.benefit)
        taken = books.taken(row.id, request.benefit, frozenset(), self._wall())
        if lease is None and benefit is not None and taken + request.uses <= benefit.quota:
            until = lease_until(request.at, row.expires_at)
            lapses = until + SYNC_WINDOW
            lease = LeaseStanding(
                made, row.id, request.benefit, request.store, request.uses, 0, True, until, lapses, request.at
            )
            books.leases[made] = lease
        view = books.view(row, self._wall())
        if lease is None:
            return LeaseGranted(ask_id, request.session, None, "benefit_gone", view)
        grant = LeaseGrant(lease.id, lease.membership, lease.benefit, lease.uses, lease.until.isoformat())
        return LeaseGranted(ask_id, request.session, grant, member=view)

    def _end_lease(self, ask_id: str, request: EndLease) -> LeaseEnded | NotYet:
        lease = self._books.leases.get(request.lease)
        if lease is None or lease.store != request.store:
            return LeaseEnded(ask_id, request.session, "unknown_lease")
        if self._on_the_way(lease.id):
            return NotYet(1.0)
        self._books.leases[lease.id] = replace(lease, open=False)
        return LeaseEnded(ask_id, request.session)

    def _post(self, ask_id: str, request: PostUses) -> UsesPosted:
        books = self._books
        self._forget_expired()
        member: MemberView | None = None
        unknown = 0
        for use in request.uses:
            row = books.rows.get(use.membership)
            benefit = books.plan.benefit(use.benefit)
            if row is None or benefit is None:
                unknown += 1
                continue
            if use.usage not in books.usage:
                use_class = self._posted_class(row, use, request)
                back = sum(fen for usage, fen in books.reversals.values() if usage == use.usage)
                given = replace(use, fen=min(use.fen, benefit.value_fen))
                line = UsageLine(given, request.sale, use_class, min(given.fen, back))
                books.usage[use.usage] = line
                if use_class is UseClass.REGULAR:
                    row.used_fen += given.fen - line.reversed_fen
            self._end(use, "posted")
            member = books.view(row, self._wall())
        return UsesPosted(ask_id, request.session, member, unknown, request.terminal)

    def _posted_class(self, row: Row, use: SaleUse, request: PostUses) -> UseClass:
        books = self._books
        lease = books.leases.get(use.lease) if use.lease is not None else None
        benefit = books.plan.benefit(use.benefit)
        if benefit is None or use.fen > benefit.value_fen:
            return UseClass.OVERUSE
        if lease is not None and self._covers(lease, use, request.store, request.biz_time):
            books.leases[lease.id] = replace(lease, used=lease.used + 1)
            return UseClass.REGULAR
        reservation = books.reservations.get(use.usage)
        if reservation is not None and reservation.state == "open":
            return UseClass.REGULAR
        return self._class(row, use, frozenset({use.usage}), request.biz_time, offline=True)

    def _covers(self, lease: LeaseStanding, use: SaleUse, store: StoreId, biz_time: datetime) -> bool:
        return lease.covers(use.membership, use.benefit, store, biz_time, self._wall())

    def _reverse(self, reversal: str, use: SaleUse) -> None:
        """A part or the whole; one that comes before its use is kept, a repeated one does nothing."""
        if reversal in self._books.reversals:
            return
        self._books.reversals[reversal] = (use.usage, use.fen)
        line = self._books.usage.get(use.usage)
        if line is None:
            return
        back = min(use.fen, line.use.fen - line.reversed_fen)
        line.reversed_fen += back
        if line.use_class is UseClass.REGULAR:
            self._books.rows[use.membership].used_fen -= back

    def _end(self, use: SaleUse, state: str) -> None:
        reservation = self._books.reservations.get(use.usage)
        if reservation is not None and reservation.state in ("open", "expired"):
            reservation.state = state

    def _class(self, row: Row, use: SaleUse, mine: frozenset[UsageId], at: datetime, *, offline: bool) -> UseClass:
        taken: dict[str, int] = {use.benefit: self._books.taken(row.id, use.benefit, mine, self._wall())}
        return classify_use(
            self._books.plan,
            taken,
            use.benefit,
            enrolled_at=row.enrolled_at,
            expiry=row.expires_at,
            cut_off=False,
            biz_time=at,
            offline=offline,
        )
