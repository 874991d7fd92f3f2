"""The screen document and the reply: what a terminal is told.

Field names are those of the terminal protocol; msgspec writes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from models.domain.ids import BenefitId, LeaseId, MembershipId, MessageId, SessionId


class ScreenState(StrEnum):
    """States of a visit as every screen of the lane shows them (docs: terminal protocol)."""

    OPEN = "open"
    DIGITS = "digits"
    ENROLLING = "enrolling"
    IDENTIFIED = "identified"
    BASKET = "basket"
    QUOTED = "quoted"
    PAYING = "paying"
    PAID = "paid"
    REVERSING = "reversing"
    DECLINED = "declined"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ScreenMember:
    """The greeting: a masked name."""

    name: str
    tier: str = ""


@dataclass(frozen=True, slots=True)
class ScreenLine:
    """One priced line; `why` explains a discount."""

    line: int
    code: str
    name: str
    quantity: int
    unit_fen: int
    discount_fen: int
    net_fen: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class ScreenPaid:
    """One tender that was taken."""

    kind: str
    fen: int
    payer_fen: int
    tendered_fen: int | None = None
    change_fen: int | None = None


@dataclass(frozen=True, slots=True)
class ScreenMembership:
    """Where the membership stands; `if_settled_now_fen` is the charge if it ended now."""

    plan: str
    used_fen: int
    fee_fen: int
    if_settled_now_fen: int
    uses_left: int
    expires: str


@dataclass(frozen=True, slots=True)
class ScreenVoucher:
    """A voucher that was entered: what it takes off now, and why, or why nothing."""

    code: str
    name: str
    discount_fen: int
    why: str


@dataclass(frozen=True, slots=True)
class ScreenOffer:
    """What this customer may take: a plan, by `enrol`, or with kind `voucher` a coupon, by `claim`. `plan` names it."""

    id: str
    plan: str
    fee_fen: int
    saves_now_fen: int
    guarantees: tuple[str, ...]
    kind: str = "plan"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Something the clerk may mention; only what is on the shelf."""

    code: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to ask the customer now. An unknown code: show the text."""

    code: str
    params: dict[str, str | int] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, slots=True)
class ReceiptTender:
    """A tender on the receipt."""

    kind: str
    fen: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt on the result page. `void` and `return` quote `no`."""

    no: str
    lines: tuple[ScreenLine, ...]
    tenders: tuple[ReceiptTender, ...]
    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Screen:
    """What to show: the whole document. `rev` rises per session from 1; compare (session, rev)."""

    session: SessionId
    rev: int
    state: ScreenState
    basket_rev: int = 0
    member: ScreenMember | None = None
    lines: tuple[ScreenLine, ...] = ()
    gross_fen: int = 0
    discount_fen: int = 0
    due_fen: int = 0
    cash_due_fen: int = 0
    paid: tuple[ScreenPaid, ...] | None = None
    membership: ScreenMembership | None = None
    offers: tuple[ScreenOffer, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    prompt: Prompt | None = None
    actions: tuple[str, ...] = ()
    receipt: Receipt | None = None
    v: int = 1
    vouchers: tuple[ScreenVoucher, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplyError:
    """Why an event was refused: a stable code, a sentence, and what to do next."""

    code: str
    message: str
    do: str


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """Uses of a benefit that may be given offline until `until` (ISO 8601, business time)."""

    id: LeaseId
    membership: MembershipId
    benefit: BenefitId
    uses: int
    until: str


@dataclass(frozen=True, slots=True)
class ReplyBody:
    """The one answer to one event or face. `id` is null only for bytes that could not be decoded."""

    id: MessageId | None
    ok: bool
    pending: bool = False
    session: SessionId | None = None
    error: ReplyError | None = None
    v: int = 1
    lease: LeaseGrant | None = None
