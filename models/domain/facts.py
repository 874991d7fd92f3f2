"""Business facts that turns save beside their state. `models.tables` maps each to rows; none is ever changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.domain.events import Purpose
from models.domain.ids import (
    LaneId,
    LegalEntityId,
    MemberId,
    MembershipId,
    MessageId,
    SaleId,
    SessionId,
    StoreId,
    TerminalId,
)
from models.domain.messages import (
    KeyRow,
    RecognitionDecision,
    ReturnedLine,
    SaleTender,
    SaleUse,
    SaleVoucher,
    TemplateRow,
)
from models.domain.points import SalePoints
from models.domain.screen import ScreenLine
from models.domain.twin import TwinFact


@dataclass(frozen=True, slots=True)
class SaleMade:
    """A paid basket. Its ledger transaction is posted in the same commit.

    gross_fen - discount_fen = due_fen; taken = sum of tender fen = due_fen - rounding_fen + suspense_fen.
    """

    id: SaleId
    receipt: str
    session: SessionId
    store: StoreId
    lane: LaneId
    terminal: TerminalId
    clerk: str | None
    entity: LegalEntityId
    business_date: str
    at: datetime
    member: MemberId | None
    membership: MembershipId | None
    gross_fen: int
    discount_fen: int
    due_fen: int
    rounding_fen: int
    suspense_fen: int
    agency_fen: int
    lines: tuple[ScreenLine, ...]
    tenders: tuple[SaleTender, ...]
    uses: tuple[SaleUse, ...]
    till_txn: str = ""
    received_at: datetime | None = None
    """When a sale made offline was heard of; None: it was made online. `at` is when it happened."""
    vouchers: tuple[SaleVoucher, ...] = ()
    points: SalePoints | None = None
    """What a member's sale earned, where the chain gives points; made offline, the member of its membership's."""


@dataclass(frozen=True, slots=True)
class SaleVoided:
    """A whole sale undone on its own business date: the mirror of its ledger transaction."""

    id: str
    sale: SaleId
    store: StoreId
    terminal: TerminalId
    at: datetime
    business_date: str
    lane: LaneId | None = None
    """Whose drawer gave the cash back; None: the one that took it."""


@dataclass(frozen=True, slots=True)
class SaleReturned:
    """The `n`-th return of a sale, from 0: money back to the original tenders, on its own date.

    `store`, `lane` and their entity `paid_by` are where the goods came back and whose drawer gives cash; `sold_at` and
    `entity`, who bears the mirror, are the sale's. None: the same.

    What went back = due_fen - rounding_fen + suspense_fen, tender by tender of the sale. `uses` are the benefits'
    parts that were reversed; they are posted by the memberships port.
    """

    id: str
    sale: SaleId
    n: int
    store: StoreId
    lane: LaneId
    terminal: TerminalId
    clerk: str | None
    entity: LegalEntityId
    business_date: str
    at: datetime
    due_fen: int
    discount_fen: int
    rounding_fen: int
    suspense_fen: int
    lines: tuple[ReturnedLine, ...]
    tenders: tuple[SaleTender, ...]
    uses: tuple[SaleUse, ...]
    reason: str
    vouchers: tuple[SaleVoucher, ...] = ()
    """What of the vouchers' discount these lines had: it stays with them."""
    sold_at: StoreId | None = None
    paid_by: LegalEntityId | None = None


@dataclass(frozen=True, slots=True)
class ConsentGiven:
    """A consent or its refusal, with the text version, for the audit."""

    id: str
    session: SessionId
    store: StoreId
    terminal: TerminalId
    purpose: Purpose
    text: str
    granted: bool
    at: datetime
    member: MemberId | None = None


@dataclass(frozen=True, slots=True)
class FaceDecided:
    """One recognition decision."""

    id: str
    session: SessionId
    store: StoreId
    at: datetime
    outcome: str
    member: MemberId | None
    decision: RecognitionDecision


@dataclass(frozen=True, slots=True)
class ConsentStands:
    """A member's standing consent to a stored template, until it is withdrawn; saved before the template."""

    id: str
    member: MemberId
    chain: str
    text: str
    session: SessionId
    store: StoreId
    terminal: TerminalId | None
    at: datetime


@dataclass(frozen=True, slots=True)
class TemplateMade:
    """A member's face template, sealed; searchable once committed."""

    template: TemplateRow
    key: KeyRow
    consent: MessageId
    chain: str
    store: StoreId
    at: datetime


UNCLEAR_MONEY = ("cancel_unclear", "payment_parked", "refund_unknown")
"""Incidents whose `detail` is an order that the provider did not answer clearly about: a person must look."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A complaint, a refused face, a failed payment: evidence for rollout gates."""

    id: str
    store: StoreId
    terminal: TerminalId
    kind: str
    at: datetime
    detail: str = ""


Fact = (
    SaleMade
    | SaleVoided
    | SaleReturned
    | ConsentGiven
    | FaceDecided
    | ConsentStands
    | TemplateMade
    | Incident
    | TwinFact
)
