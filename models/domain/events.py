"""What terminals send: the event bodies of the wire protocol, one to one, and the envelope around them.

`devices.codec` makes them from bytes and refuses the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.domain.device_score import Signature
from models.domain.ids import BenefitId, LeaseId, MembershipId, MessageId, PlanId, SessionId, TerminalId


class Purpose(StrEnum):
    """What a consent is for; one purpose each, never bundled (docs: terminal protocol)."""

    RECOGNISE = "recognise"
    MEMBERSHIP = "membership"
    MARKETING = "marketing"


class TenderKind(StrEnum):
    """How a customer pays. `face` is the provider's face payment: our recognition never moves money."""

    FACE = "face"
    CODE = "code"
    QR = "qr"
    AGREEMENT = "agreement"
    CARD = "card"
    CASH = "cash"
    BALANCE = "balance"
    COUPON = "coupon"


@dataclass(frozen=True, slots=True)
class ProviderAuth:
    """A token that the payment provider gave to the customer's device or to the terminal."""

    provider: str
    token: str


@dataclass(frozen=True, slots=True)
class Tender:
    """One part of a payment. `tendered_fen` is the cash handed over, when more than `fen`."""

    kind: TenderKind
    fen: int
    auth: ProviderAuth | None = None
    tendered_fen: int | None = None


@dataclass(frozen=True, slots=True)
class SessionOpen:
    """A customer stepped up."""

    till_txn: str | None = None


@dataclass(frozen=True, slots=True)
class Digits:
    """Last four digits of the phone."""

    tail: str


@dataclass(frozen=True, slots=True)
class Consent:
    """One purpose granted or refused, with the version of the text that was shown."""

    purpose: Purpose
    text: str
    granted: bool


@dataclass(frozen=True, slots=True)
class Enrol:
    """Become a member under a plan."""

    plan: PlanId
    guarantee: str
    phone: str | None = None
    auth: ProviderAuth | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """A barcode."""

    code: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a line out of our basket."""

    line: int


@dataclass(frozen=True, slots=True)
class TillLine:
    """A line of a basket that the till owns, as the till priced it."""

    line: int
    code: str
    name: str
    quantity: int
    unit_fen: int
    net_fen: int
    weight_g: int | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Basket:
    """The till's whole basket, with a rising revision."""

    till_txn: str
    rev: int
    lines: tuple[TillLine, ...]
    total_fen: int


@dataclass(frozen=True, slots=True)
class Confirm:
    """Pay exactly what screen revision `rev` showed. `collect="till"`: the till collects by itself."""

    rev: int
    tenders: tuple[Tender, ...]
    collect: str | None = None


@dataclass(frozen=True, slots=True)
class Paid:
    """The till collected by itself. Never refused: money was taken."""

    till_txn: str
    rev: int
    tenders: tuple[Tender, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the question that is open, or the whole visit."""


@dataclass(frozen=True, slots=True)
class Void:
    """Undo a whole sale of this shift, by its receipt number."""

    receipt: str


@dataclass(frozen=True, slots=True)
class Identify:
    """A member without face or phone: `by` phone, card or code, `value` as typed, tapped or scanned."""

    by: str
    value: str


@dataclass(frozen=True, slots=True)
class Amount:
    """Amount only: the clerk typed what is to be paid."""

    till_txn: str
    fen: int


@dataclass(frozen=True, slots=True)
class Voucher:
    """A voucher's code."""

    code: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Take an offered coupon."""

    offer: str


@dataclass(frozen=True, slots=True)
class AgeCheck:
    """A clerk looked at the customer; never estimated from a face."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """Reserve so many uses of the member's benefit for selling offline."""

    benefit: BenefitId
    uses: int


@dataclass(frozen=True, slots=True)
class LeaseEnd:
    """Give back what was not used of a lease."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class ReturnLine:
    """So many pieces of one line of a receipt."""

    line: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Return:
    """Goods brought back: money to the original tenders, benefits reversed in fen."""

    receipt: str
    lines: tuple[ReturnLine, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class SaleBenefit:
    """A benefit that was given offline, `fen` off the lines' total; with the lease it was taken from, if any."""

    lease: LeaseId | None
    membership: MembershipId
    benefit: BenefitId
    fen: int


@dataclass(frozen=True, slots=True)
class SaleVoucherClaim:
    """A voucher that a till took offline: its code, and what it gave."""

    code: str
    fen: int


@dataclass(frozen=True, slots=True)
class OfflineSale:
    """A whole sale made offline. `total_fen` is the sum of the lines' net_fen, before `benefits` and
    `vouchers`."""

    lines: tuple[TillLine, ...]
    tenders: tuple[Tender, ...]
    total_fen: int
    benefits: tuple[SaleBenefit, ...] = ()
    till_txn: str | None = None
    vouchers: tuple[SaleVoucherClaim, ...] = ()


@dataclass(frozen=True, slots=True)
class Complaint:
    """A customer complained; counted by the rollout gates."""

    about: str


@dataclass(frozen=True, slots=True)
class FaceShown:
    """One JPEG, sent after a customer's action. Lives in memory only, until its embedding is made."""

    jpeg: bytes
    kind: str
    liveness: float | None = None
    signature: Signature = Signature.NO_KEY
    """Of the score, as the door found it."""


EventBody = (
    SessionOpen
    | Digits
    | Consent
    | Enrol
    | Scan
    | Remove
    | Basket
    | Confirm
    | Paid
    | Cancel
    | Void
    | Complaint
    | FaceShown
    | Identify
    | Amount
    | Voucher
    | Claim
    | AgeCheck
    | Lease
    | LeaseEnd
    | Return
    | OfflineSale
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What the sending terminal can do, as far as a visit must know it. From its profile; added at the door."""

    digits_required: bool = False
    """Recognition always asks for four phone digits (the first generation of face terminals)."""
    takes_line_adjustments: bool = True
    """Accepts prices that we adjusted; one that does not gets the benefit as a `coupon` tender."""
    vouches_liveness: bool = False
    """Its liveness scores come from a sensor of depth of its own; those of any other family are not read."""
    shows_prompts: bool = True
    """Can ask the customer who stands before its camera to turn the head."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event or face of a terminal, decoded, its topic checked against the registry."""

    id: MessageId
    boot: str
    seq: int
    ts: datetime
    terminal: TerminalId
    role: str
    session: SessionId | None
    clerk: str | None
    replay: bool
    body: EventBody
    traits: Traits = Traits()
