"""What the HTTP API shows: closed documents with their units in the names. Never a table row itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

Fen = Annotated[int, Field(description="integer fen, 100 to the yuan")]


class View(BaseModel):
    """A document that leaves the gateway."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldProblemView(View):
    """One field of a request and what is wrong with it; of a text that was sent along, where it stands (from 1)."""

    field: str
    problem: str
    line: int | None = None
    column: int | None = None


class ProblemView(View):
    """RFC 9457 problem details. `code` is stable; `do` says what to do next."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    do: str
    errors: list[FieldProblemView] | None = None


class Page(View, Generic[T]):
    """One page of a list. `next` is the cursor of the following page; null on the last one."""

    items: list[T]
    next: str | None = None


class StoreView(View):
    """A store and its legal entity as of today."""

    id: str
    region: str
    name_zh: str
    name_en: str
    zone: str
    basket_owner: str
    entity: str | None
    terminals: int
    labels: dict[str, str]
    """What rollouts select by: city, district, format …"""


class TerminalView(View):
    """A registered terminal, with the last presence that was recorded."""

    id: str
    store: str
    region: str
    lane: str
    role: str
    profile: str
    online: bool
    software: str
    changed_at: datetime | None
    revoked: bool
    """Its credentials are void: no broker and no host lets it do anything."""


class TextView(View):
    """One sentence in the two languages of equal rank."""

    zh: str
    en: str


class MemberView(View):
    """A member of the chain; the name is masked."""

    id: str
    name: str
    phone_tail: str
    home_store: str
    joined_at: datetime


class PrivacyRequestView(View):
    """What was asked for a member's data; the name is masked."""

    id: str
    member: str
    member_name: str
    kind: str
    state: str
    via: str
    reason: str
    asked_by: str
    asked_at: datetime
    approved_by: str
    done_at: datetime | None


class AuditEventView(View):
    """One line of the audit; `subject` is a member's id, `sha256` chains it to the line before."""

    n: int
    at: datetime
    kind: str
    subject: str
    by: str
    detail: dict[str, object]
    sha256: str


class AuditCheckView(View):
    """A walk over one database's audit; `fault` null: whole. `checkpoint`: the event that a signed line outside of the
    database vouches for; 0: none does yet, and what was cut off or written anew as a whole would not be found."""

    events: int
    head_sha256: str
    fault: str | None
    checkpoint: int


class MembershipView(View):
    """A light membership. `used_fen` is u; `charge_fen` is null until it is fixed at the cutoff."""

    id: str
    member: str
    member_name: str
    plan: str
    plan_version: int
    store: str
    state: str
    guarantee: str
    fee_fen: Fen
    fee_eff_fen: Fen
    used_fen: Fen
    due_fen: Fen
    charge_fen: Fen | None
    paid_fen: Fen
    refunded_fen: Fen
    saved_fen: Fen
    enrolled_at: datetime
    expires_at: datetime
    cutoff_at: datetime
    settled_at: datetime | None


class UsageView(View):
    """One use of a benefit. Only REGULAR uses net of reversals count towards the charge."""

    id: str
    benefit: str
    use_class: str
    fen: Fen
    reversed_fen: Fen
    counts_fen: Fen
    store: str
    sale: str
    receipt: str | None
    at: datetime


class EntryView(View):
    """One leg of a ledger transaction: debit positive, credit negative."""

    transaction: str
    kind: str
    leg: int
    entity: str
    account: str
    amount_fen: Fen
    business_date: str
    book: str


class CallView(View):
    """One call to the provider about a membership."""

    request_number: str
    kind: str
    fen: Fen
    state: str
    answered_at: datetime | None


class ExplanationView(View):
    """A member's charge in one sentence, what the same goods cost without it, and the lines that it follows from."""

    membership: MembershipView
    sentence: TextView
    without_membership: TextView
    bought_fen: Fen
    enjoyed_fen: Fen
    usage: list[UsageView]
    entries: list[EntryView]
    calls: list[CallView]


class SaleView(View):
    """A paid basket."""

    id: str
    receipt: str
    store: str
    lane: str
    terminal: str
    business_date: str
    at: datetime
    member: str | None
    membership: str | None
    gross_fen: Fen
    discount_fen: Fen
    due_fen: Fen
    tenders: list[str]
    voided_at: datetime | None


class BalanceView(View):
    """The sum of one account of one legal entity."""

    entity: str
    account: str
    book: str
    amount_fen: Fen


class LedgerView(View):
    """Balances, and the check: every sum must be 0."""

    balances: list[BalanceView]
    transactions: int
    sum_fen: Fen
    unbalanced_transactions: int


class ClockView(View):
    """The business clock."""

    business_now: datetime
    wall_now: datetime
    offset_s: float
    movable: bool


class SettlementRunView(View):
    """What one settlement run did: control totals, named with their unit."""

    totals: dict[str, int | str]
    regions: dict[str, dict[str, int | str]] | None = None
    """Each region's own, where several were settled."""


class SessionView(View):
    """The signed-in session: send `csrf` as X-CSRF-Token with every request that has an effect."""

    csrf: str


class FaceTokenRequest(View):
    """Which simulated user shows their face to the provider's own service."""

    user: Annotated[str, Field(min_length=1, max_length=64)]


class FaceTokenView(View):
    """A face-payment token of the provider simulator."""

    user: str
    token: str


class PayCodeRequest(View):
    """Which simulated user pays which collection code."""

    user: Annotated[str, Field(min_length=1, max_length=64)]
    qr_code: Annotated[str, Field(min_length=1, max_length=512)]


class PaidCodeView(View):
    """A collection code that was paid."""

    user: str
    fen: Fen
