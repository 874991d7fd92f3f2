"""What the HTTP API shows and takes of prices, plans and vouchers. Amounts in fen, texts in both languages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.views import View

Fen = Annotated[int, Field(ge=0, le=1_000_000_000)]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PreviewLine(_Asked):
    """One line. `unit_fen` None: the price of the chain's book."""

    code: Annotated[str, Field(min_length=1, max_length=48)]
    quantity: Annotated[int, Field(ge=1, le=99)] = 1
    unit_fen: Fen | None = None


class PreviewMembership(_Asked):
    """A membership whose benefit may be used: the newest version of `plan`, everything left but what was used."""

    plan: Name
    used_fen: Fen = 0
    task_done: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Purchases, or fen, of the plan's task that are done."""


class PreviewRequest(_Asked):
    """A basket. `store`: whose book, hours and channel count. `at` None: now."""

    store: Name
    lines: Annotated[list[PreviewLine], Field(min_length=1, max_length=100)]
    vouchers: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=40)] = []
    membership: PreviewMembership | None = None
    at: datetime | None = None


class WordsView(View):
    """One text in both languages."""

    zh: str
    en: str


class PreviewLineView(View):
    """A priced line; `why` explains its discount."""

    line: int
    code: str
    name: WordsView
    quantity: int
    unit_fen: int
    discount_fen: int
    net_fen: int
    why: WordsView | None


class TakenView(View):
    """A voucher that is taken: what it gives, and who bears it."""

    code: str
    name: WordsView
    fen: int
    funder: str


class UseView(View):
    """A use of the membership's benefit."""

    benefit: str
    fen: int


class NotTakenView(View):
    """A voucher that takes nothing off: refused as a till refuses it (`reason` is the refusal's code), or left out."""

    code: str
    name: WordsView | None
    reason: str
    why: WordsView


class PreviewView(View):
    """The production price function's answer. effective_fen = due_fen + later_fen, what the membership will charge
    more at its end because of this sale. `optimal` false: the search for the best set was cut short."""

    lines: list[PreviewLineView]
    gross_fen: int
    discount_fen: int
    due_fen: int
    cash_due_fen: int
    later_fen: int
    effective_fen: int
    optimal: bool
    taken: list[TakenView]
    uses: list[UseView]
    not_taken: list[NotTakenView]


class BenefitView(View):
    """A benefit of a plan, in words."""

    id: str
    name: WordsView
    words: WordsView
    quota: int


class PlanView(View):
    """One version of a plan; the newest is what new members get."""

    id: str
    version: int
    newest: bool
    name: WordsView
    owner: str
    fee_fen: int
    fee: WordsView
    period: WordsView
    benefits: list[BenefitView]


class VoucherView(View):
    """A voucher of the newest book: what it gives, in words, and how often it was used here."""

    id: str
    code: str
    name: WordsView
    words: WordsView
    funder: str
    valid_from: datetime | None
    valid_until: datetime | None
    quota: int | None
    member_quota: int | None
    offered: bool
    reserved: int
    used: int
    given_fen: int


class OffersView(View):
    """What a chain offers now."""

    chain: str
    book_version: int
    plans: list[PlanView]
    vouchers: list[VoucherView]
