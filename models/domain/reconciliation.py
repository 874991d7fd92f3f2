"""A provider's statement of one day held against our clearing account: what matches, and what each difference is.

Pure. The theorem that everything here serves: the statement's net less the change of `provider_clearing:{provider}`
of the account's entity is the sum of the findings' differences, to the fen. A day may close when none is open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from models.domain.money import require_fen


class LineKind(StrEnum):
    """Which way the money of a line went."""

    PAYMENT = "payment"
    """The provider took it for us: a payment, or a capture from a hold."""
    REFUND = "refund"
    """It went back: a refund, or a payment undone by a cancel."""

    @property
    def sign(self) -> int:
        """+1 towards us, -1 away from us."""
        return 1 if self is LineKind.PAYMENT else -1


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One movement as the provider booked it. Amounts in fen.

    `gross_fen` (what was asked) and `receipt_fen` (what reached our account) are >= 0, whatever the kind. `fee_fen`
    is what the provider kept for itself: >= 0 for a payment, <= 0 where a refund gives the fee back.
    """

    provider: str
    account: str
    """The legal entity whose merchant account it is."""
    kind: LineKind
    order_no: str
    """Our number of the payment; of a refund, the number of the payment that it gives back."""
    request_no: str
    """Our number of the refund; "" for a payment, and for a refund that the provider made by a cancel."""
    trade_no: str
    gross_fen: int
    receipt_fen: int
    fee_fen: int
    at: datetime
    business_date: date
    """The provider's day, which is the statement's."""

    def __post_init__(self) -> None:
        if require_fen(self.gross_fen, "gross_fen") < 0 or require_fen(self.receipt_fen, "receipt_fen") < 0:
            raise ValueError(f"amounts of a line are not negative: {self.order_no}")
        require_fen(self.fee_fen, "fee_fen")

    @property
    def net_fen(self) -> int:
        """What the line changed in our account with the provider: receipt with its sign, less the fee."""
        return self.kind.sign * self.receipt_fen - self.fee_fen


@dataclass(frozen=True, slots=True)
class StatementTotals:
    """The provider's own summary of a day. `net_fen` = receipts of payments - receipts of refunds - fees."""

    payments: int
    refunds: int
    payments_fen: int
    refunds_fen: int
    fee_fen: int

    @property
    def net_fen(self) -> int:
        """The change of our account with the provider."""
        return self.payments_fen - self.refunds_fen - self.fee_fen


@dataclass(frozen=True, slots=True)
class StatementFile:
    """All movements of one merchant account on one day of the provider, with the provider's own totals.

    `lines` may be parsed while it is read (a day may have a million), and can be read again from its beginning.
    Totals are the receipts, in fen. Whoever reads the lines holds them against the totals.
    """

    provider: str
    account: str
    day: date
    totals: StatementTotals
    lines: Iterable[StatementLine]


def totals_of(lines: Iterable[StatementLine]) -> StatementTotals:
    """The totals that a statement of these lines states."""
    counts = {LineKind.PAYMENT: 0, LineKind.REFUND: 0}
    receipts = {LineKind.PAYMENT: 0, LineKind.REFUND: 0}
    fee_fen = 0
    for line in lines:
        counts[line.kind] += 1
        receipts[line.kind] += line.receipt_fen
        fee_fen += line.fee_fen
    return StatementTotals(
        counts[LineKind.PAYMENT],
        counts[LineKind.REFUND],
        receipts[LineKind.PAYMENT],
        receipts[LineKind.REFUND],
        fee_fen,
    )
