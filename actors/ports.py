"""What entities may ask of the world. Requests are frozen values; runtime binds each port to its implementation.

Faces and look-ups are volatile (a restart asks again or says `look again`); memberships and payments have an
outside effect, so the host writes them to the outbox in the same commit and repeats them under the same number.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from models.domain.device_score import DeviceScore
from models.domain.events import ProviderAuth, TenderKind
from models.domain.ids import (
    BenefitId,
    LaneId,
    LeaseId,
    LegalEntityId,
    MemberId,
    MembershipId,
    PlanId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
)
from models.domain.liveness import NO_CHALLENGE, PLAIN, Challenge, LivenessPolicy
from models.domain.messages import SaleUse, SaleVoucher
from models.domain.payments import PROVIDERS


class Port(StrEnum):
    """Whom to ask."""

    FACES = "faces"
    SALES = "sales"
    MEMBERSHIPS = "memberships"
    PAYMENTS = "payments"
    VOUCHERS = "vouchers"


@dataclass(frozen=True, slots=True)
class IdentifyFace:
    """Who is this? Consent to recognise was given in this session: `consent` is the event that granted it."""

    port: ClassVar[Port] = Port.FACES
    durable: ClassVar[bool] = False
    session: SessionId
    store: StoreId
    consent: str
    image: str
    """The message id of the face; its bytes live only in the host's memory."""
    kind: str
    liveness_ppm: int | None = None
    digits_required: bool = False
    """The terminal's family never accepts a face alone (the first generation of face terminals)."""
    amount_fen: int | None = None
    """Of the basket as it stands, before any member's benefit."""
    liveness: LivenessPolicy = PLAIN
    challenge: Challenge = NO_CHALLENGE
    device_score: DeviceScore = DeviceScore.NONE
    """What became of the device's own liveness score."""


@dataclass(frozen=True, slots=True)
class RescoreFace:
    """Score the sealed probe again, inside the members whose phone ends in `tail`."""

    port: ClassVar[Port] = Port.FACES
    durable: ClassVar[bool] = False
    session: SessionId
    store: StoreId
    consent: str
    sealed: bytes
    tail: str


@dataclass(frozen=True, slots=True)
class TakeShot:
    """One enrolment shot: quality, and the embedding sealed under the visit's key."""

    port: ClassVar[Port] = Port.FACES
    durable: ClassVar[bool] = False
    session: SessionId
    store: StoreId
    consent: str
    image: str
    kind: str
    membership: str
    """The event that consented to the membership: a shot is more than a probe."""
    mask_asked: bool = False
    """The customer was asked to take off a mask, and shows the face again."""


@dataclass(frozen=True, slots=True)
class EnrolFace:
    """Make the member's template from three shots that agree."""

    port: ClassVar[Port] = Port.FACES
    durable: ClassVar[bool] = False
    session: SessionId
    store: StoreId
    consent: str
    member: MemberId
    shots: tuple[bytes, ...]
    membership: str


@dataclass(frozen=True, slots=True)
class FindSale:
    """A sale of the chain by its receipt number or its own id, and a claim to it: no other lane may return of it.

    Without `lane` it is looked at only. The claim ends when the lane does.
    """

    port: ClassVar[Port] = Port.SALES
    durable: ClassVar[bool] = False
    store: StoreId
    receipt: str
    lane: LaneId | None = None
    approver: str = ""
    """Who approves of cash in the place of a refused refund; their permission at `store` is looked up. "": nobody."""


@dataclass(frozen=True, slots=True)
class FindMember:
    """The member of the chain behind a phone number, a card or a code. Kept nowhere: the number is the customer's.

    `by` tail: `member`, if the last four digits of their phone are `value`.
    """

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = False
    session: SessionId
    store: StoreId
    by: str
    value: str
    member: MemberId | None = None


@dataclass(frozen=True, slots=True)
class EnrolMember:
    """Make a member (or find one by phone) and a light membership, with its guarantee. Idempotent by the ask's id."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    terminal: TerminalId
    plan: PlanId
    guarantee: str
    at: datetime
    phone: str | None
    auth: ProviderAuth | None
    member: MemberId | None
    clerk: str | None = None


@dataclass(frozen=True, slots=True)
class ReserveUses:
    """Reserve the benefits of one quote for two minutes, under the membership's row lock."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    membership: MembershipId
    uses: tuple[SaleUse, ...]
    at: datetime
    rev: int


@dataclass(frozen=True, slots=True)
class PostUses:
    """The sale is paid: reserved uses become usage lines. `unreserved`: taken without one, surplus is OVERUSE."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    terminal: TerminalId
    sale: SaleId
    paid_fen: int
    uses: tuple[SaleUse, ...]
    biz_time: datetime
    seq: int
    clerk: str | None
    unreserved: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseUses:
    """The sale did not happen: give the reservation back."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    uses: tuple[SaleUse, ...]


@dataclass(frozen=True, slots=True)
class ReverseUses:
    """The sale was voided, or goods came back: take `fen` of each use back. Reversal ids derive from the ask's id."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    sale: SaleId
    uses: tuple[SaleUse, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class ReserveVouchers:
    """Reserve one quote's vouchers for two minutes, those with a quota under their row lock."""

    port: ClassVar[Port] = Port.VOUCHERS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    member: MemberId | None
    vouchers: tuple[SaleVoucher, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class PostVouchers:
    """The sale is paid: its vouchers are used, whether they were reserved or are beyond their quota."""

    port: ClassVar[Port] = Port.VOUCHERS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    terminal: TerminalId
    sale: SaleId
    member: MemberId | None
    vouchers: tuple[SaleVoucher, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class ReleaseVouchers:
    """The sale did not happen: give the reservation back."""

    port: ClassVar[Port] = Port.VOUCHERS
    durable: ClassVar[bool] = True
    session: SessionId
    vouchers: tuple[SaleVoucher, ...]


@dataclass(frozen=True, slots=True)
class ReturnVouchers:
    """The sale was voided, or goods came back: a use all of whose `fen` came back is free again. By the ask's id."""

    port: ClassVar[Port] = Port.VOUCHERS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    vouchers: tuple[SaleVoucher, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Keep so many uses of a benefit for a terminal that goes offline, under the membership's row lock."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    terminal: TerminalId
    membership: MembershipId
    benefit: BenefitId
    uses: int
    at: datetime


@dataclass(frozen=True, slots=True)
class EndLease:
    """Give back what was not used. Uses of the lease that are on their way are posted first."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    lease: LeaseId
    at: datetime


@dataclass(frozen=True, slots=True)
class WithdrawFace:
    """The member took their consent back at a terminal: end it for good, and erase every template of theirs."""

    port: ClassVar[Port] = Port.MEMBERSHIPS
    durable: ClassVar[bool] = True
    session: SessionId
    store: StoreId
    terminal: TerminalId
    member: MemberId
    at: datetime


class PayVerb(StrEnum):
    """What to ask the provider about an order."""

    PAY = "pay"
    PRECREATE = "precreate"
    QUERY = "query"
    CANCEL = "cancel"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """One request about one order number of ours; repeating it with the same number has one effect."""

    port: ClassVar[Port] = Port.PAYMENTS
    durable: ClassVar[bool] = True
    verb: PayVerb
    session: SessionId
    entity: LegalEntityId
    """Whose merchant account collects."""
    store: StoreId
    terminal: TerminalId
    order: str
    fen: int
    kind: TenderKind
    subject: str = ""
    auth: ProviderAuth | None = None
    refund_no: str = ""
    provider: str = PROVIDERS[0]
    member: MemberId | None = None
    """Whose balance or agreement pays."""


FaceRequest = IdentifyFace | RescoreFace | TakeShot | EnrolFace
MembershipRequest = (
    FindMember | EnrolMember | ReserveUses | PostUses | ReleaseUses | ReverseUses | GrantLease | EndLease | WithdrawFace
)
VoucherRequest = ReserveVouchers | PostVouchers | ReleaseVouchers | ReturnVouchers
AskRequest = FaceRequest | FindSale | MembershipRequest | VoucherRequest | PaymentRequest
