"""What WeChat Pay has no v3 call for: withholding agreements, and a credit product that counts uses with us.

Each is refused without asking, as the port says; nothing here ever touches the provider.
"""

from __future__ import annotations

from datetime import datetime

from gateway.providers.port import Guarantee, SyncAction
from models.domain.payments import (
    AgreementResult,
    Answer,
    CancelResult,
    CreditTotals,
    Failed,
    FailReason,
    PayResult,
    RefundResult,
    SyncResult,
)

_NO_AGREEMENTS = Failed(FailReason.AGREEMENT_GONE, "no_withholding")
_NO_CREDIT = Failed(FailReason.GUARANTEE_UNAVAILABLE, Guarantee.SESAME_CREDIT.value)


class WechatAbsent:
    """See `Agreements` and `Credits` for what is missing."""

    async def sign(self, *, number: str, limit_fen: int, subject: str) -> Answer[AgreementResult]:  # noqa: ARG002
        return Failed(FailReason.REFUSED, "no_withholding")

    async def query_agreement(self, *, number: str) -> Answer[AgreementResult]:  # noqa: ARG002
        return _NO_AGREEMENTS

    async def unsign(self, *, number: str, agreement_no: str) -> Answer[CancelResult]:  # noqa: ARG002
        return _NO_AGREEMENTS

    async def pay_agreement(
        self,
        *,
        number: str,  # noqa: ARG002
        agreement_no: str,  # noqa: ARG002
        amount_fen: int,  # noqa: ARG002
        subject: str,  # noqa: ARG002
    ) -> Answer[PayResult]:
        return _NO_AGREEMENTS

    async def sign_credit(self, *, number: str, fee_fen: int, subject: str) -> Answer[AgreementResult]:  # noqa: ARG002
        return _NO_CREDIT

    async def query_credit(self, *, number: str, agreement_no: str = "") -> Answer[AgreementResult]:  # noqa: ARG002
        return _NO_CREDIT

    async def sync_use(
        self,
        *,
        number: str,  # noqa: ARG002
        agreement_no: str,  # noqa: ARG002
        payer: str,  # noqa: ARG002
        action: SyncAction,  # noqa: ARG002
        totals: CreditTotals,  # noqa: ARG002
        at: datetime,  # noqa: ARG002
        reverses: str = "",  # noqa: ARG002
    ) -> Answer[SyncResult]:
        return _NO_CREDIT

    async def settle_credit(
        self,
        *,
        number: str,  # noqa: ARG002
        agreement_no: str,  # noqa: ARG002
        payer: str,  # noqa: ARG002
        settlement_no: str,  # noqa: ARG002
        amount_fen: int,  # noqa: ARG002
        totals: CreditTotals,  # noqa: ARG002
    ) -> Answer[PayResult]:
        return _NO_CREDIT

    async def refund_credit(
        self,
        *,
        number: str,  # noqa: ARG002
        agreement_no: str,  # noqa: ARG002
        payer: str,  # noqa: ARG002
        settlement_no: str,  # noqa: ARG002
        amount_fen: int,  # noqa: ARG002
        reason: str,  # noqa: ARG002
    ) -> Answer[RefundResult]:
        return _NO_CREDIT
