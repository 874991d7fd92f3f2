"""What settlement works on: a membership as its row stands, and one call to a provider about it.

Values only; `actors.settlement` decides, `models.tables.settlement` keeps them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from models.domain.calendar import business_date
from models.domain.charging import Branch, charge_fen, due_fen, request_number
from models.domain.ids import ChainId, LegalEntityId, MemberId, MembershipId, RegionId, StoreId
from models.domain.membership import HoldState, State
from models.domain.payments import PROVIDERS, AnyAnswer
from models.domain.plans import Plan

CALL_LEASE = timedelta(seconds=60)
"""A worker that says nothing for so long is dead; a provider call ends within 10 s."""


class CallKind(StrEnum):
    """What is asked of the provider about a membership."""

    CAPTURE = "capture"
    RELEASE = "release"
    REFUND = "refund"


class CallState(StrEnum):
    """NEW: never sent, or sent by a worker that died. UNKNOWN: sent, no definite answer. ANSWERED: to be booked."""

    NEW = "NEW"
    UNKNOWN = "UNKNOWN"
    ANSWERED = "ANSWERED"
    POSTED = "POSTED"


@dataclass(frozen=True, slots=True)
class Standing:
    """A membership's row as money rules read it, with its plan. Amounts in fen, instants in UTC."""

    id: MembershipId
    enrol_key: str
    member: MemberId
    chain: ChainId
    region: RegionId
    store: StoreId
    terminal: str
    session: str
    plan: Plan
    owner: LegalEntityId
    generation: int
    state: State
    fee_fen: int
    fee_eff_fen: int
    used_fen: int
    hold_order: str
    hold_no: str
    hold_fen: int
    hold_state: HoldState
    enrolled_at: datetime
    expires_at: datetime
    cutoff_at: datetime
    charge_fen: int | None
    branch: Branch | None
    paid_fen: int
    refunded_fen: int
    receivable_fen: int
    """What was booked as owed by the member and is not collected: a receivable, or bad debt once WRITTEN_OFF."""
    captured_number: str
    attempts: int
    task_target: int | None = None
    """Purchases, or fen, that the member promised to reach; None: no task."""
    task_done: int = 0
    """How much of it is done: sales with a REGULAR use not wholly reversed, or the sum of their paid_fen."""
    guarantee: str = ""
    renews: bool = False
    """The next generation opens when this one expires."""
    first_at: datetime | None = None
    """The enrolment that began the unbroken row of generations; None: this one's own."""
    cycle: int = 1
    cancelled_by: str = ""
    provider: str = PROVIDERS[0]
    """Who holds and collects: a payment provider, or `balance` (the member's own, `models.domain.member_balance`)."""

    @property
    def row_began_at(self) -> datetime:
        """The enrolment from which periods and exemption days are counted."""
        return self.first_at or self.enrolled_at

    @property
    def preview_fen(self) -> int:
        """The charge if it were fixed now."""
        return charge_fen(self.fee_eff_fen, self.used_fen, task_target=self.task_target, task_done=self.task_done)

    @property
    def due_fen(self) -> int:
        """What the member owes now; 0 before the charge is fixed."""
        return 0 if self.charge_fen is None else due_fen(self.charge_fen, self.fee_eff_fen, self.used_fen)

    def business_date(self, at: datetime) -> str:
        """The plan owner's business date at `at`, ISO 8601."""
        return business_date(at, self.plan.zone, self.plan.cutoff_hour).isoformat()


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to be made, not before `not_before` (business time). Its number is unique for ever."""

    membership: MembershipId
    kind: CallKind
    number: str
    fen: int
    not_before: datetime
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A call as its row stands. `tries` counts claims: whoever claimed it may have reached the provider."""

    membership: MembershipId
    owner: LegalEntityId
    kind: CallKind
    number: str
    fen: int
    state: CallState
    attempt: int
    tries: int
    not_before: datetime
    lease_until: datetime | None
    answer: AnyAnswer | None
    hold_no: str
    captured_number: str
    provider: str = PROVIDERS[0]
    """Who is asked: the membership's."""
    hold_order: str = ""
    """Our number of the hold."""


def capture_call(standing: Standing, retry: int, fen: int, not_before: datetime) -> NewCall:
    """The capture under `S{id}G{generation}`, retries `…A{retry}`."""
    number = request_number(standing.id, standing.generation, retry)
    return NewCall(standing.id, CallKind.CAPTURE, number, fen, not_before, retry)


def release_call(standing: Standing, not_before: datetime) -> NewCall:
    """The hold given back, once: `U{id}G{generation}`."""
    number = f"U{standing.id}G{standing.generation}"
    return NewCall(standing.id, CallKind.RELEASE, number, standing.hold_fen, not_before)


def refund_call(standing: Standing, cause: str, fen: int, not_before: datetime) -> NewCall:
    """`fen` given back because of `cause` (a reversal's id, or the number of a capture that took too much)."""
    return NewCall(standing.id, CallKind.REFUND, refund_number(cause), fen, not_before)


def refund_number(cause: str) -> str:
    """Our number of a refund."""
    return f"R{cause}"


REFUND_OF_A_CAPTURE = "R(S.+?G[0-9]+(?:A[0-9]+)?)(?:R[0-9]+)*"
"""A refund's number that is named after a capture, whose number is the group. PostgreSQL reads it the same."""


def payment_of(call: Call) -> str:
    """Which payment a refund gives back: the capture that it is named after, else the membership's."""
    named = re.fullmatch(REFUND_OF_A_CAPTURE, call.number)
    return call.captured_number if named is None else named[1]
