"""The port of a payment provider: what every provider must do, in our own terms (money.md).

Steps to add one: a file beside `alipay.py` that implements `PaymentProvider`, one line where the composition root
chooses providers, and its factory in the contract battery of tests/gateway/providers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from models.domain.payments import (
    Answer,
    CancelResult,
    CreditResult,
    HoldResult,
    PayResult,
    RefundResult,
    ReleaseResult,
)


class Scene(StrEnum):
    """How the customer authorised a payment at the counter."""

    PAYMENT_CODE = "payment_code"
    """The code on the customer's phone, scanned by the terminal."""
    FACE = "face"
    """A token of the provider's own face payment. Our recognition never yields one."""


class Guarantee(StrEnum):
    """What secures a membership's fee (wire.md, `enrol`)."""

    SESAME_CREDIT = "sesame_credit"
    HUABEI_HOLD = "huabei_hold"
    BALANCE_HOLD = "balance_hold"
    MERCHANT_TRUST = "merchant_trust"
    CASH_DEPOSIT = "cash_deposit"


class PaymentProvider(Protocol):
    """One merchant account at one provider.

    `number` is ours, unique for its merchant account and kind (orders, refunds, holds, releases), 1 to 64 letters,
    digits and hyphens. Every call is idempotent by its number: repeated, it has one effect and gives the answer of
    the first, or a later state of it. Amounts are fen, > 0. Nothing raises for what the provider or the network
    does: that is `Unknown`. ValueError is for a number or an amount that could never be sent. A call returns within
    the provider's own time limit; whoever gets `Unknown` or `Pending` queries with the same number.
    """

    async def consult_credit(self, *, number: str, guarantee: Guarantee, fee_fen: int) -> Answer[CreditResult]:
        """May this guarantee be offered for a fee? GUARANTEE_UNAVAILABLE when the provider does not have it."""

    async def freeze(
        self,
        *,
        number: str,
        amount_fen: int,
        subject: str,
        auth_code: str | None = None,
        scene: Scene = Scene.PAYMENT_CODE,
    ) -> Answer[HoldResult]:
        """Hold an amount on the customer's credit line. Without an auth code: Pending with a code to scan."""

    async def unfreeze(self, *, number: str, hold_no: str, amount_fen: int, remark: str) -> Answer[ReleaseResult]:
        """Give back a part of a hold, or its rest."""

    async def cancel_freeze(self, *, number: str) -> Answer[CancelResult]:
        """End a freeze whose outcome is open: closed if not yet authorised, released if it was."""

    async def capture(
        self, *, number: str, hold_no: str, amount_fen: int, subject: str, complete: bool = True
    ) -> Answer[PayResult]:
        """Take money from a hold, never above what remains. `complete` releases the rest in the same step."""

    async def pay(
        self, *, number: str, amount_fen: int, subject: str, auth_code: str, scene: Scene
    ) -> Answer[PayResult]:
        """Take a payment at the counter with the customer's payment code or face token."""

    async def precreate(self, *, number: str, amount_fen: int, subject: str) -> Answer[PayResult]:
        """Open an order that the customer pays by scanning: Pending with the code's text."""

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        """What became of a pay, capture or precreate."""

    async def query_freeze(self, *, number: str, amount_fen: int) -> Answer[HoldResult]:
        """What became of a freeze, and what remains of the hold now."""

    async def query_unfreeze(self, *, number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]:
        """What became of an unfreeze."""

    async def query_refund(self, *, number: str, payment_number: str, amount_fen: int) -> Answer[RefundResult]:
        """What became of a refund."""

    async def cancel(self, *, number: str) -> Answer[CancelResult]:
        """End a payment whose outcome is open. After success no money is kept, and a late pay is refused."""

    async def refund(self, *, number: str, payment_number: str, amount_fen: int, reason: str) -> Answer[RefundResult]:
        """Give back a part of a payment, or all. The sum of refunds never exceeds the payment."""

    async def aclose(self) -> None:
        """Close connections. The provider cannot be used afterwards."""
