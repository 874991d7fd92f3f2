"""The state of one lane's session: what is known of the visit that is at the lane now.

One entity per lane: a new visit replaces the one before, whose facts are tables by then. So a lane can never
hold two customers, and there are as many session rows as lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.domain.events import Purpose, ReturnLine, Tender, Traits
from models.domain.ids import (
    LaneId,
    LegalEntityId,
    MemberId,
    MessageId,
    PlanId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
    VoucherId,
)
from models.domain.kill_switch import Switch
from models.domain.liveness import Side
from models.domain.messages import MemberView, SaleTender, SaleUse, SaleVoucher
from models.domain.pricing import Flag
from models.domain.returns import Back
from models.domain.screen import Prompt, Receipt, ScreenPaid, ScreenState


@dataclass(frozen=True, slots=True)
class OpenReply:
    """An event whose answer waits for the turn that ends its question."""

    id: MessageId
    terminal: TerminalId


@dataclass(frozen=True, slots=True)
class GivenConsent:
    """A consent granted in this session; `event` is the message that granted it, `text` the version it agreed to."""

    purpose: Purpose
    event: MessageId
    text: str = ""
    terminal: TerminalId | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A basket line before pricing. Till-owned lines bring their own name and price."""

    line: int
    code: str
    name: str
    quantity: int
    unit_fen: int
    flags: tuple[str, ...] = ()
    base_fen: int | None = None
    """The till's net price of the line; None: quantity * unit_fen."""


@dataclass(frozen=True, slots=True)
class Question:
    """The one face question that is open; answers to any other are dropped."""

    id: str
    kind: str
    reply: OpenReply | None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Becoming a member: the membership is made first, then the shots."""

    ask: str
    wants_face: bool
    reply: OpenReply | None
    member: MemberId | None = None
    shots: tuple[bytes, ...] = ()
    rounds: int = 0
    plan: PlanId | None = None
    consent: str = ""
    """The event that consented to the membership: a template is made under it and the consent to recognise."""
    mask_asked: bool = False
    """The customer was asked to take off a mask. Once is enough: some bare faces measure as masked."""


@dataclass(frozen=True, slots=True)
class Instead:
    """A guarantee was refused to this customer: what the plan takes in its place."""

    plan: PlanId
    guarantees: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turning:
    """A turn of the head that is waited for. `first`: the frame before it, sealed under the visit's key."""

    first: bytes
    asked: Side
    question: str


class Phase(StrEnum):
    """Where a payment stands."""

    RESERVING = "reserving"
    ASKING = "asking"
    COLLECTING = "collecting"
    AT_TILL = "at_till"
    REVERSING = "reversing"


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment in progress. `order` is our number with the provider, new for each attempt and each of its tenders."""

    sale: SaleId
    order: str
    phase: Phase
    terminal: TerminalId
    seq: int
    tenders: tuple[Tender, ...]
    uses: tuple[SaleUse, ...]
    reply: OpenReply | None
    rev: int = 0
    at_till: bool = False
    polls: int = 0
    reserve: str = ""
    """The ask that reserves the vouchers or the uses: no other answer counts."""
    vouchers: tuple[SaleVoucher, ...] = ()
    vouchers_kept: bool = False
    """The vouchers are reserved."""
    code_shown: bool = False
    """The collection code is on the screen: from now on the order is queried."""
    cancel_reply: OpenReply | None = None
    cancels: int = 0
    """Cancels without a clear answer."""
    taken: tuple[SaleTender, ...] = ()
    """What providers took already, in the order in which they were asked: all of the tenders, or none in the end."""
    undoing: bool = False
    """A later tender was not paid: what was taken goes back, the last first, and nothing is collected any more."""


@dataclass(frozen=True, slots=True)
class Voiding:
    """A void or a return in progress: find the sale, refund it, then book the mirror, whole or of some lines."""

    question: str
    receipt: str
    terminal: TerminalId
    reply: OpenReply | None
    sale: SaleId | None = None
    entity: LegalEntityId | None = None
    """Whose sale it was: its merchant account gives back."""
    sold_at: StoreId | None = None
    """The store of the sale, which may be another one."""
    uses: tuple[SaleUse, ...] = ()
    taken_fen: int = 0
    discount_fen: int = 0
    refunds: tuple[SaleTender, ...] = ()
    tries: int = 0
    lines: tuple[ReturnLine, ...] = ()
    """What is brought back; empty: the whole sale is undone."""
    reason: str = ""
    clerk: str | None = None
    n: int = 0
    """Returns of the sale before this one."""
    back: Back | None = None
    vouchers: tuple[SaleVoucher, ...] = ()


@dataclass(frozen=True, slots=True)
class Leasing:
    """A lease that is asked for, or given back. Without `reply` the terminal was told `pending`: it will not use it."""

    ask: str
    reply: OpenReply | None


@dataclass(frozen=True, slots=True)
class Switched:
    """Kill switches have moved: up to revision `rev` the screens were drawn under `off`."""

    rev: int
    off: tuple[Switch, ...]


@dataclass(frozen=True, slots=True)
class PaidTxn:
    """A till transaction that was paid, by its number for ever, and how much it said."""

    number: str
    fen: int


@dataclass(frozen=True, slots=True)
class Former:
    """What a terminal could do when the visit began."""

    terminal: TerminalId
    traits: Traits


@dataclass(frozen=True, slots=True)
class Session:
    """One customer at one lane, from the first tap to the receipt. `id` None: nobody came yet."""

    lane: LaneId
    id: SessionId | None = None
    state: ScreenState = ScreenState.CLOSED
    rev: int = 0
    book_version: int = 0
    till_txn: str = ""
    basket_rev: int = 0
    clerk: str | None = None
    consents: tuple[GivenConsent, ...] = ()
    member: MemberView | None = None
    proved: MemberId | None = None
    """Whom a face, card or code named in this visit. A phone number names somebody, too, and proves nothing."""
    confirmed: MemberId | None = None
    """Whose digits were given in this visit: beside `proved` the second factor."""
    lines: tuple[Line, ...] = ()
    question: Question | None = None
    probe: bytes | None = None
    """The probe sealed under the visit's key, while digits are asked for."""
    digits_tries: int = 0
    turning: Turning | None = None
    turns: int = 0
    """Turns of the head that were asked for."""
    enrolment: Enrolment | None = None
    instead: Instead | None = None
    payment: Payment | None = None
    voiding: Voiding | None = None
    prompt: Prompt | None = None
    paid: tuple[ScreenPaid, ...] | None = None
    receipt: Receipt | None = None
    receipts: int = 0
    """Receipts of this lane so far: the next number."""
    paid_txns: tuple[PaidTxn, ...] = ()
    """The till transactions that were paid last in this lane, oldest first: a second `paid` changes nothing."""
    age_ok: bool = False
    """A clerk has looked at this customer."""
    identify_tries: int = 0
    misses: int = 0
    """Numbers of nobody that were tried at this lane since `misses_since`, whatever visit it was."""
    misses_since: datetime | None = None
    leasing: tuple[Leasing, ...] = ()
    vouchers: tuple[VoucherId, ...] = ()
    """Vouchers that were entered, each as often as it was."""
    points: int = 0
    """Loyalty points that the customer pays with, as far as the basket goes."""
    opened_at: datetime | None = None
    """When the visit began: benefits that hold at some hours are judged by it, so that a price stays what it was."""
    off: tuple[Switch, ...] = ()
    """Kill switches that the screen was drawn under; the store's own may be ahead while money is on its way."""
    switched: tuple[Switched, ...] = ()
    """When they moved in this visit, oldest first."""
    former: tuple[Former, ...] = ()
    """Terminals that became another family in this visit."""

    def consent(self, purpose: Purpose) -> GivenConsent | None:
        """The consent given in this session for a purpose."""
        return next((given for given in self.consents if given.purpose == purpose), None)

    @property
    def two_factors(self) -> bool:
        """The member proved who they are, and gave their digits: they may pay with what is theirs."""
        return self.member is not None and self.proved == self.confirmed == self.member.id

    @property
    def live(self) -> bool:
        """A visit that may still receive events."""
        return self.id is not None and self.state is not ScreenState.CLOSED

    @property
    def resting_state(self) -> ScreenState:
        """The state when no question is open: paid, quoted with lines (basket while something is missing), else
        identified or open."""
        if self.paid is not None:
            return ScreenState.PAID
        if self.lines:
            return ScreenState.BASKET if self.age_missing else ScreenState.QUOTED
        return ScreenState.IDENTIFIED if self.member is not None else ScreenState.OPEN

    @property
    def age_missing(self) -> bool:
        """Something in the basket may be sold to adults only, and no clerk has looked yet."""
        return not self.age_ok and any(Flag.AGE_18 in line.flags for line in self.lines)

    @property
    def busy(self) -> bool:
        """Money is on its way: nobody else may step up."""
        return self.payment is not None or self.voiding is not None
