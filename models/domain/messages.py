"""What entities receive: events decoded at the door, answers of ports, timers. Frozen values, no dicts.

The event bodies mirror the wire protocol's table one to one; `devices.codec` makes them from bytes and
refuses the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.domain.device_score import DeviceScore
from models.domain.events import Event, TenderKind, Traits
from models.domain.ids import (
    BenefitId,
    LaneId,
    LeaseId,
    LegalEntityId,
    MemberId,
    MembershipId,
    PlanId,
    RegionId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
    UsageId,
    VoucherId,
)
from models.domain.liveness import Liveness
from models.domain.presence import TerminalMessage
from models.domain.screen import LeaseGrant, ScreenLine

# ---------------------------------------------------------------- what ports know about a member


@dataclass(frozen=True, slots=True)
class BenefitLeft:
    """One benefit of an active membership and how many uses are left."""

    benefit: BenefitId
    uses_left: int


@dataclass(frozen=True, slots=True)
class MembershipView:
    """An active membership as the till needs it. u (`used_fen`) counts REGULAR uses net of reversals."""

    id: MembershipId
    plan: PlanId
    plan_version: int
    fee_fen: int
    used_fen: int
    benefits: tuple[BenefitLeft, ...]
    expires_at: datetime
    task_target: int | None = None
    """Purchases, or fen, that the member promised; None: no task."""
    task_done: int = 0
    """How much of it is done: kept, the membership costs nothing."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """Who was recognised, as much as a screen may show. `name` is masked."""

    id: MemberId
    name: str
    membership: MembershipView | None
    face_permitted: bool = True
    """False: known to be under 14 without a guardian's consent; no shot is taken."""
    points: int = 0
    """Loyalty points that may be paid with."""
    tenders: tuple[TenderKind, ...] = ()
    """What of their own they may pay with: a balance, a withholding agreement."""


# ---------------------------------------------------------------- answers of ports


class FaceOutcome(StrEnum):
    """What a face worker says of one image."""

    ACCEPTED = "accepted"
    DIGITS = "digits"
    NOT_RECOGNISED = "not_recognised"
    QUALITY = "quality"
    SHOT_TAKEN = "shot_taken"
    ENROLLED = "enrolled"
    SHOTS_DISAGREE = "shots_disagree"
    CHALLENGE = "challenge"
    """Somebody was found; before it counts, the head is to be turned (`sealed`: the first frame)."""
    LOST = "lost"
    """The worker or the visit's key is gone, or the image was corrupt: look again."""
    BUSY = "busy"
    """Nobody looked: too many ask at once. Says nothing about the face; go on by phone number, code or cash."""


@dataclass(frozen=True, slots=True)
class RecognitionDecision:
    """Why a face was accepted or not: recorded for every decision, never a frame (faces.md, 1:N is a budget).

    Scores and thresholds are cosines in millionths: the record must be exact and comparable. It holds all that
    the decision weighed; `models.domain.recognition.reason_of` finds `reason` again from the other fields.
    """

    templates_searched: int
    threshold_ppm: int
    best_ppm: int
    second_ppm: int
    net_sha256: str
    reason: str
    scope: str = "region"
    """How far this decision looked: store, region, or the chain's bucket of digits."""
    looks: int = 1
    """Looks that share the budget: the threshold is that of looks x templates_searched. The scopes' number; ten times
    as many for a face that seemed covered."""
    floor_ppm: int = 360_000
    margin_ppm: int = 80_000
    liveness: Liveness = Liveness.NOT_CHECKED
    partial: bool = False
    digits_given: bool = False
    digits_required: bool = False
    amount_limited: bool = False
    elsewhere: bool = False
    calibration: str = "table"
    device_score: DeviceScore = DeviceScore.NONE
    """What became of the device's own liveness score. After digits: of the face before them."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key of one member, wrapped by the master key of an epoch. Whoever destroys it has erased what it seals."""

    id: str
    member: MemberId
    epoch: int
    wrapped: bytes


class TemplateKind(StrEnum):
    """Where a template comes from: three shots, the change of a net, or a visit after a second factor."""

    ENROLMENT = "enrolment"
    MIGRATED = "migrated"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """A face template at rest: ciphertext under the key `key_id`, which is stored apart from it."""

    id: str
    member: MemberId
    net_sha256: str
    ciphertext: bytes
    key_id: str
    policy: str
    kind: TemplateKind = TemplateKind.ENROLMENT


@dataclass(frozen=True, slots=True)
class SealedTemplate:
    """A template on its way to its table, and the key on its way to another."""

    template: TemplateRow
    key: KeyRow


@dataclass(frozen=True, slots=True)
class FaceAnswered:
    """The answer to one face question; dropped unless the session still waits for `question`."""

    session: SessionId
    question: str
    outcome: FaceOutcome
    member: MemberView | None = None
    reason: str = ""
    sealed: bytes | None = None
    """A probe or shot sealed under the visit's key: readable only while this host lives."""
    decision: RecognitionDecision | None = None
    templates: tuple[SealedTemplate, ...] = ()


@dataclass(frozen=True, slots=True)
class EnrolAnswered:
    """A membership was made (`member` set), needs the customer's act (`pending`), or was refused.

    `code_text`: what the customer scans to act; empty when their phone asks by itself. `instead`: the guarantees that
    this member may offer in place of the one that was refused.
    """

    ask: str
    session: SessionId
    member: MemberView | None
    pending: bool = False
    code: str = ""
    code_text: str = ""
    instead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReserveAnswered:
    """The benefits of one quote are reserved, or are not there any more."""

    ask: str
    session: SessionId
    ok: bool
    code: str = ""
    member: MemberView | None = None
    """The membership as it stands now, when the reservation was refused: price again with it."""
    gone: tuple[VoucherId, ...] = ()
    """Vouchers that have no use left, when theirs was refused: price again without them."""


@dataclass(frozen=True, slots=True)
class UsesPosted:
    """Reserved uses became usage lines; the membership as it stands now."""

    ask: str
    session: SessionId
    member: MemberView | None
    unknown: int = 0
    """Uses that were reported for a membership that nobody has: the sale stands, nothing was posted for them."""
    terminal: TerminalId | None = None


@dataclass(frozen=True, slots=True)
class MemberFound:
    """The member behind a phone, card or code; None: not recognised."""

    question: str
    session: SessionId
    member: MemberView | None


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """Uses are kept for a terminal that goes offline, or refused with `code`."""

    ask: str
    session: SessionId
    lease: LeaseGrant | None
    code: str = ""
    member: MemberView | None = None


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """What a lease had left is free again; `code` when there is no such lease."""

    ask: str
    session: SessionId
    code: str = ""


@dataclass(frozen=True, slots=True)
class FaceWithdrawn:
    """The member's standing consent is over and their templates are erased."""

    ask: str
    session: SessionId
    templates: int


@dataclass(frozen=True, slots=True)
class SwitchesMoved:
    """The store's kill switches are not those of the visit's screen: the turn obeys and shows a new one."""


@dataclass(frozen=True, slots=True)
class FamilyMoved:
    """A terminal of the lane is another family from now on; what it could do when the visit began was `traits`."""

    terminal: TerminalId
    traits: Traits


@dataclass(frozen=True, slots=True)
class ReleaseAnswered:
    """Reserved uses were given back, or the uses of a voided sale reversed; or a sale's vouchers were booked."""

    ask: str
    session: SessionId


class PaymentOutcome(StrEnum):
    """What became of a payment request at the provider."""

    SUCCEEDED = "succeeded"
    PENDING = "pending"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    """It answers, and knows nothing under this number: the request died on its way there."""


@dataclass(frozen=True, slots=True)
class PaymentAnswered:
    """The provider's answer to one request about `order`.

    `verb` is what was asked: pay, precreate, query, cancel or refund.
    """

    ask: str
    session: SessionId
    order: str
    verb: str
    outcome: PaymentOutcome
    code: str = ""
    trade_no: str = ""
    payer_fen: int | None = None
    receipt_fen: int | None = None
    collection_code: str = ""
    invoiceable_fen: int | None = None


@dataclass(frozen=True, slots=True)
class SaleUse:
    """A benefit that was used in a sale: which line's discount it was, in fen."""

    usage: UsageId
    membership: MembershipId
    benefit: BenefitId
    fen: int
    lease: LeaseId | None = None
    """The lease it was taken from, offline."""


@dataclass(frozen=True, slots=True)
class SaleVoucher:
    """A voucher that was used in a sale: what it took off which line, and who bears it. `use` is its own number."""

    use: UsageId
    voucher: VoucherId
    fen: int
    funder: LegalEntityId
    lines: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SaleTender:
    """A tender of a sale as it was booked. `order` is our number with the provider, if any.

    `payer_fen` and `receipt_fen` where a promotion at the provider made them differ from `fen`: what the customer paid,
    and what reaches the merchant's account. None: all of it.
    """

    kind: TenderKind
    fen: int
    order: str = ""
    trade_no: str = ""
    tendered_fen: int | None = None
    change_fen: int | None = None
    payer_fen: int | None = None
    receipt_fen: int | None = None
    invoiceable_fen: int | None = None
    """What an invoice may state of it, where the provider says less than `fen`."""
    provider: str = ""
    """Whose order it is; "" means the first of PROVIDERS, or none where there is no order."""


@dataclass(frozen=True, slots=True)
class ReturnedLine:
    """What of a line came back, with its share of the price and of the discount."""

    line: int
    quantity: int
    net_fen: int
    discount_fen: int


@dataclass(frozen=True, slots=True)
class PastReturn:
    """A return that was booked: lines, what went back per tender of the sale (in its order), and per use."""

    lines: tuple[ReturnedLine, ...]
    tenders: tuple[SaleTender, ...]
    uses: tuple[SaleUse, ...]
    vouchers: tuple[SaleVoucher, ...] = ()


@dataclass(frozen=True, slots=True)
class SaleFound:
    """A sale as a void or a return needs it."""

    question: str
    sale: SaleId | None
    receipt: str
    store: StoreId | None = None
    business_date: str = ""
    voided: bool = False
    gross_fen: int = 0
    discount_fen: int = 0
    rounding_fen: int = 0
    """Cash rounding that the customer was let off: due_fen less what was taken, >= 0."""
    tenders: tuple[SaleTender, ...] = ()
    uses: tuple[SaleUse, ...] = ()
    entity: LegalEntityId | None = None
    """Whose sale it was, and whose merchant account collected."""
    agency_fen: int = 0
    lines: tuple[ScreenLine, ...] = ()
    returns: tuple[PastReturn, ...] = ()
    busy: bool = False
    """Another lane, of this store or another, brings back goods of it or undoes it at this moment."""
    vouchers: tuple[SaleVoucher, ...] = ()
    approved: bool = False
    """Whoever approved of cash has the permission to (models.domain.permissions)."""


# ---------------------------------------------------------------- timers and notes between entities


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A wake that an earlier turn asked for. `ref` names what it was about; stale ones are ignored."""

    kind: str
    ref: str
    due: datetime


@dataclass(frozen=True, slots=True)
class SaleNoted:
    """Told to the store: a sale was closed in one of its lanes, or voided (negative count)."""

    sales: int
    takings_fen: int
    discount_fen: int


@dataclass(frozen=True, slots=True)
class IncidentNoted:
    """Told to the store: a complaint, a refusal of the face, a failed payment; counted for the gates."""

    kind: str


@dataclass(frozen=True, slots=True)
class VoidBegun:
    """Told to the store: a lane voids or takes back this receipt. The store refuses when another does so already."""

    receipt: str
    lane: LaneId


@dataclass(frozen=True, slots=True)
class VoidEnded:
    """Told to the store: the lane is done with this receipt, voided or not."""

    receipt: str
    lane: LaneId


SessionMessage = (
    Event
    | FaceAnswered
    | EnrolAnswered
    | ReserveAnswered
    | UsesPosted
    | ReleaseAnswered
    | PaymentAnswered
    | SaleFound
    | MemberFound
    | LeaseGranted
    | LeaseEnded
    | FaceWithdrawn
    | SwitchesMoved
    | FamilyMoved
    | TimerFired
)
StoreMessage = SaleNoted | IncidentNoted | VoidBegun | VoidEnded
Message = SessionMessage | TerminalMessage | StoreMessage


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Which entity: region / store / kind / id. A session's id is its lane: one visit at a time."""

    region: RegionId
    store: StoreId
    kind: str
    id: str

    @staticmethod
    def session(region: RegionId, store: StoreId, lane: LaneId) -> Address:
        """The visit at one lane."""
        return Address(region, store, "session", lane)
