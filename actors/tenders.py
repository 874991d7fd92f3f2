"""A tender that a provider took: whose it was, and what the sale keeps of it."""

from __future__ import annotations

from models.domain.events import Tender, TenderKind
from models.domain.member_balance import BALANCE
from models.domain.messages import PaymentAnswered, SaleTender
from models.domain.payments import PROVIDERS


def provider_of(tender: Tender) -> str:
    """The one that its authorisation names; a collection code may name one, too, and its token is not read."""
    if tender.kind is TenderKind.BALANCE:
        return BALANCE
    return PROVIDERS[0] if tender.auth is None else tender.auth.provider


def as_taken(tender: Tender, order: str, answer: PaymentAnswered) -> SaleTender:
    """What the provider took, with what its own promotions changed: the price stays what the screen showed."""
    said = (answer.payer_fen, answer.receipt_fen, answer.invoiceable_fen)
    payer, receipt, invoice = (None if fen == tender.fen else fen for fen in said)
    by = provider_of(tender)
    return SaleTender(
        tender.kind,
        tender.fen,
        order,
        answer.trade_no,
        payer_fen=payer,
        receipt_fen=receipt,
        invoiceable_fen=invoice,
        provider=by,
    )
