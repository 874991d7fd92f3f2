"""The port of a payment provider: what every provider must do, in our own terms (money.md).

Steps to add one: a file beside `alipay.py` that implements `PaymentProvider`, one line where the composition root
chooses providers, and its factory in the contract battery of tests/gateway/providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

from models.domain.notices import Distrusted, Notice
from models.domain.payments import (
    AgreementResult,
    Answer,
    CancelResult,
    CreditResult,
    CreditTotals,
    HoldResult,
    PayResult,
    RefundResult,
    ReleaseResult,
    SyncResult,
)
from models.domain.reconciliation import StatementFile


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
    PAY_SCORE = "pay_score"
    MERCHANT_TRUST = "merchant_trust"
    CASH_DEPOSIT = "cash_deposit"


class Capability(StrEnum):
    """What not every provider has. Whoever lacks one refuses the calls for it without asking anybody."""

    FACE_TOKENS = "face_tokens"
    """A face payment has a token of its own; elsewhere its device yields a payment code like the phone's."""
    HOLDS = "holds"
    """Freeze, capture, unfreeze."""
    HOLD_PARTS = "hold_parts"
    """A hold is captured and released in parts, by a code's authorisation too; else once, whole, and confirmed."""
    AGREEMENTS = "agreements"
    CREDIT = "credit"
    TELLS_REFUNDED = "tells_refunded"
    """A payment's query says REVERSED once its refunds make all of it; elsewhere only after a cancel."""


class SyncAction(StrEnum):
    """What is told to a provider that keeps its own records of an agreement's uses."""

    USE = "use"
    REVERSAL = "reversal"


class Payments(Protocol):
    """Money at the counter, and what remains of holds."""

    async def pay(
        self, *, number: str, amount_fen: int, subject: str, auth_code: str, scene: Scene
    ) -> Answer[PayResult]:
        """Take a payment at the counter with the customer's payment code or face token."""

    async def precreate(self, *, number: str, amount_fen: int, subject: str) -> Answer[PayResult]:
        """Open an order that the customer pays by scanning: Pending with the code's text."""

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        """What became of a pay, a payment by agreement, a capture or a precreate."""

    async def cancel(self, *, number: str) -> Answer[CancelResult]:
        """End a payment whose outcome is open. After success no money is kept, and a late pay is refused."""

    async def close(self, *, number: str) -> Answer[CancelResult]:
        """Close an order that nobody has paid; unlike `cancel` it gives nothing back.

        Failed for an order that is paid, and for a number that was never seen (which stays usable): where the outcome
        is open, cancel.
        """

    async def refund(self, *, number: str, payment_number: str, amount_fen: int, reason: str) -> Answer[RefundResult]:
        """Give back a part of a payment, or all. The sum of refunds never exceeds the payment."""

    async def query_refund(self, *, number: str, payment_number: str, amount_fen: int) -> Answer[RefundResult]:
        """What became of a refund."""


class Holds(Protocol):
    """Amounts frozen on a customer's credit line or balance."""

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

    async def query_freeze(self, *, number: str, amount_fen: int) -> Answer[HoldResult]:
        """What became of a freeze, and what remains of the hold now."""

    async def query_unfreeze(self, *, number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]:
        """What became of an unfreeze."""


class Agreements(Protocol):
    """Withholding: the customer signs once with the provider, and we may take payments up to a limit."""

    async def sign(self, *, number: str, limit_fen: int, subject: str) -> Answer[AgreementResult]:
        """Ask the customer for a withholding agreement: Pending with a code's text that opens the provider's page.

        `number` is ours for the agreement. Repeated after it was signed: Succeeded with its agreement_no.
        """

    async def query_agreement(self, *, number: str) -> Answer[AgreementResult]:
        """What became of a `sign`. One that ended is Failed AGREEMENT_GONE; unsigned so far: Unknown, absent."""

    async def unsign(self, *, number: str, agreement_no: str) -> Answer[CancelResult]:
        """End an agreement. Nothing can be withheld under it any more; one that ended already answers the same."""

    async def pay_agreement(
        self, *, number: str, agreement_no: str, amount_fen: int, subject: str
    ) -> Answer[PayResult]:
        """Take a payment under an agreement; the customer is not asked. The second factor is the caller's duty."""


class Credits(Protocol):
    """A fee secured by the provider's credit: nothing is frozen, the provider keeps its own record of every use.

    At the end the merchant names the sums, the provider compares them with its records and collects the charge. A
    provider without this product answers Failed GUARANTEE_UNAVAILABLE to `consult_credit` and `sign_credit`.
    """

    async def consult_credit(
        self, *, number: str, guarantee: Guarantee, fee_fen: int, payer: str | None = None
    ) -> Answer[CreditResult]:
        """May this guarantee be offered for a fee? GUARANTEE_UNAVAILABLE when the provider does not have it.

        `payer`: the provider's number of the customer, or the phone; without either only the product is asked about.
        """

    async def sign_credit(self, *, number: str, fee_fen: int, subject: str) -> Answer[AgreementResult]:
        """Ask the customer for a credit agreement over a fee: Pending with a code's text, as `sign`."""

    async def query_credit(self, *, number: str, agreement_no: str = "") -> Answer[AgreementResult]:
        """What became of a `sign_credit`. Some providers know a signed agreement by agreement_no only."""

    async def sync_use(
        self,
        *,
        number: str,
        agreement_no: str,
        payer: str,
        action: SyncAction,
        totals: CreditTotals,
        at: datetime,
        reverses: str = "",
    ) -> Answer[SyncResult]:
        """Tell the provider of one REGULAR use (`totals` of it alone), or of a reversal of the use numbered `reverses`.

        LATE and OVERUSE are never told: they do not touch the member. `at`: when it happened.
        """

    async def settle_credit(
        self, *, number: str, agreement_no: str, payer: str, settlement_no: str, amount_fen: int, totals: CreditTotals
    ) -> Answer[PayResult]:
        """Collect a credit agreement's charge. `settlement_no` comes with the expiry's notification.

        The provider compares `totals` with its records: RECORDS_DIFFER when they are not equal. The amount is fixed
        once it was accepted; asking again under the same number is the query.
        """

    async def refund_credit(
        self, *, number: str, agreement_no: str, payer: str, settlement_no: str, amount_fen: int, reason: str
    ) -> Answer[RefundResult]:
        """Give back a part of a collected charge. Asking again under the same number is the query."""


class Statements(Protocol):
    """What the provider says it did."""

    async def statement(self, *, day: date) -> Answer[StatementFile]:
        """The provider's statement of one of its own days (the provider's zone), fetched and checked whole.

        Unknown `not_ready`, absent: the provider has none (yet; they come on the next day). `lines` are parsed while
        they are read, from a file that lives as long as they do: read them off the event loop, for a day may be long.
        """


class Notifications(Protocol):
    """Reads what the provider sends unasked to one merchant account."""

    def notification(self, headers: Mapping[str, str], body: bytes) -> Notice | Distrusted:
        """The notification, verified with the provider's key for this account. Never raises for what was sent."""

    def accepted(self) -> bytes:
        """The exact body by which the provider knows that it need not send again."""


class PaymentProvider(Payments, Holds, Agreements, Credits, Statements, Protocol):
    """One merchant account at one provider.

    `number` is ours, unique for its merchant account and kind (orders, refunds, holds, releases, agreements, uses), 1
    to 64 letters, digits and hyphens. Every call is idempotent by its number: repeated, it has one effect and gives the
    answer of the first, or a later state of it. Amounts are fen, > 0. Nothing raises for what the provider or the
    network does: that is `Unknown`. ValueError is for a number or an amount that could never be sent. A call returns
    within the provider's own time limit; whoever gets `Unknown` or `Pending` queries with the same number.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this account at this provider has of what not every one has."""

    async def aclose(self) -> None:
        """Close connections. The provider cannot be used afterwards."""
