"""The memberships port in memory: rows, reservations and usage lines, each ask with one effect.

The same promises as `runtime.memberships`, with the same rules of class and quota, and no provider behind it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from actors.ports import EnrolMember, MembershipRequest, PostUses, ReleaseUses, ReserveUses, ReverseUses
from models.domain.charging import TAKES_QUOTA, UseClass, classify_use, expiry_instant
from models.domain.ids import BenefitId, MemberId, MembershipId, UsageId, derived_id
from models.domain.messages import (
    BenefitLeft,
    EnrolAnswered,
    MembershipView,
    MemberView,
    ReleaseAnswered,
    ReserveAnswered,
    SaleUse,
    UsesPosted,
)
from models.domain.plans import Plan
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
    tombstones: dict[UsageId, int] = field(default_factory=dict)

    def row_of(self, member: MemberId) -> Row | None:
        """The membership of a member."""
        return next((row for row in self.rows.values() if row.member == member), None)

    def taken(self, membership: MembershipId, benefit: BenefitId, but: frozenset[UsageId]) -> int:
        """Places of the quota that are gone: uses not wholly reversed, and open reservations of others."""
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
        return len(used) + len(held)

    def view(self, row: Row) -> MemberView:
        """A member as a till sees it."""
        left = tuple(
            BenefitLeft(benefit.id, max(0, benefit.quota - self.taken(row.id, benefit.id, frozenset())))
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
    ) -> None:
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
            case EnrolMember():
                return self._enrol(ask_id, request, attempts)
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
                    self._reverse(use)
                return ReleaseAnswered(ask_id, request.session)

    def _enrol(self, ask_id: str, request: EnrolMember, attempts: int) -> MembershipAnswer | NotYet:
        books = self._books
        known = books.by_key.get(ask_id)
        if known is not None:
            return EnrolAnswered(ask_id, request.session, books.view(books.rows[known]))
        member = MemberId(derived_id(request.phone or ask_id, "member"))
        if books.row_of(member) is not None:
            return EnrolAnswered(ask_id, request.session, None, code="already_member")
        if (request.phone or "").endswith("0") and attempts == 0:
            return NotYet(2.0)  # the freeze has no clear answer yet
        expires = expiry_instant(request.at, books.plan)
        row = Row(MembershipId(derived_id(ask_id, "membership")), member, request.phone or "", request.at, expires)
        books.by_key[ask_id] = row.id
        books.rows[row.id] = row
        return EnrolAnswered(ask_id, request.session, books.view(row))

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
                view = self._books.view(row)
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

    def _post(self, ask_id: str, request: PostUses) -> UsesPosted:
        books = self._books
        member: MemberView | None = None
        for use in request.uses:
            row = books.rows[use.membership]
            if use.usage not in books.usage:
                reservation = books.reservations.get(use.usage)
                use_class = UseClass.REGULAR
                if reservation is None or reservation.state != "open":
                    use_class = self._class(row, use, frozenset({use.usage}), request.biz_time, offline=True)
                line = UsageLine(use, request.sale, use_class, min(use.fen, books.tombstones.get(use.usage, 0)))
                books.usage[use.usage] = line
                if use_class is UseClass.REGULAR:
                    row.used_fen += use.fen - line.reversed_fen
            self._end(use, "posted")
            member = books.view(row)
        return UsesPosted(ask_id, request.session, member)

    def _reverse(self, use: SaleUse) -> None:
        line = self._books.usage.get(use.usage)
        if line is None:
            self._books.tombstones[use.usage] = use.fen
            return
        back = use.fen - line.reversed_fen
        line.reversed_fen = use.fen
        if line.use_class is UseClass.REGULAR:
            self._books.rows[use.membership].used_fen -= back

    def _end(self, use: SaleUse, state: str) -> None:
        reservation = self._books.reservations.get(use.usage)
        if reservation is not None and reservation.state in ("open", "expired"):
            reservation.state = state

    def _class(self, row: Row, use: SaleUse, mine: frozenset[UsageId], at: datetime, *, offline: bool) -> UseClass:
        taken: dict[str, int] = {use.benefit: self._books.taken(row.id, use.benefit, mine)}
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
