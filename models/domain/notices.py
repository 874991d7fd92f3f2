"""What a payment provider tells unasked, after its signature was checked: a reason to ask, never a result."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.domain.payments import AgreementResult


class NoticeKind(StrEnum):
    """What a notification is about."""

    PAYMENT = "payment"
    REFUND = "refund"
    HOLD = "hold"
    RELEASE = "release"
    AGREEMENT = "agreement"
    """Signed, expired or ended: `agreement` has its numbers, which come by no other way for some products."""
    SETTLEMENT = "settlement"
    """A credit agreement's settlement."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One verified notification: signed by the provider for this merchant account, about our own seller and app.

    `id` is the provider's, the same in every repetition. `number` is ours: the order, hold, agreement or settlement it
    speaks of; `request_no` the refund's or release's. `fen` is the amount it names, None where it names none. It may be
    late, repeated or out of order: what it means is read by a query of `number`, never from here.
    """

    id: str
    kind: NoticeKind
    account: str
    """The merchant's app at the provider that it was signed for."""
    number: str
    request_no: str
    provider_no: str
    status: str
    """The provider's own word, for the log."""
    fen: int | None
    at: datetime
    agreement: AgreementResult | None = None


@dataclass(frozen=True, slots=True)
class Distrusted:
    """A notification that proves nothing: `why` for the log and the count. Nothing was kept, nothing is answered."""

    why: str
