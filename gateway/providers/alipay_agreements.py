"""Alipay's withholding: alipay.user.agreement.* and alipay.trade.pay under an agreement.

The signing is a page that the customer opens, so `sign` sends nothing: it makes the signed address. Source:
opendocs.alipay.com, "alipay.user.agreement.page.sign", ".query", ".unsign"; product GENERAL_WITHHOLDING.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.providers.alipay_calls import ABSENT, SUCCESS, AlipayCalls, failure, no_news, plain_code, wire_number
from gateway.providers.amounts import format_yuan
from models.domain.payments import (
    AgreementResult,
    AgreementState,
    Answer,
    CancelAction,
    CancelResult,
    Failed,
    FailReason,
    PayResult,
    Pending,
    Succeeded,
    Unknown,
    WaitsFor,
)

PRODUCT, PERSONAL_PRODUCT, SCENE = "GENERAL_WITHHOLDING", "GENERAL_WITHHOLDING_P", "INDUSTRY|SUPERMARKET"
_AGREEMENT_NUMBER = re.compile(r"[A-Za-z0-9]{1,32}")


class AlipayAgreements(AlipayCalls):
    """See `Agreements` for the promises of each method."""

    async def sign(self, *, number: str, limit_fen: int, subject: str) -> Answer[AgreementResult]:
        known = await self.query_agreement(number=number)
        if isinstance(known, (Succeeded, Failed)):
            return known
        biz = {
            "personal_product_code": PERSONAL_PRODUCT,
            "product_code": PRODUCT,
            "sign_scene": SCENE,
            "external_agreement_no": _agreement_number(number),
            "access_params": {"channel": "QRCODE"},
            # The product bounds a payment by contract; this is what the customer reads, and we hold ourselves.
            "sub_merchant": {
                "sub_merchant_service_name": subject[:32],
                "sub_merchant_service_description": f"{subject[:64]} · 单笔最高 ¥{format_yuan(limit_fen)}",
            },
        }
        url = self._gateway.signed_url("alipay.user.agreement.page.sign", biz)
        return Pending(WaitsFor.PAYER_SCANS, url)

    async def query_agreement(self, *, number: str) -> Answer[AgreementResult]:
        answer = await self._gateway.call(
            "alipay.user.agreement.query",
            {
                "external_agreement_no": _agreement_number(number),
                "personal_product_code": PERSONAL_PRODUCT,
                "sign_scene": SCENE,
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer)
        return agreement_of(answer.fields, number)

    async def unsign(self, *, number: str, agreement_no: str) -> Answer[CancelResult]:
        answer = await self._gateway.call(
            "alipay.user.agreement.unsign",
            {"agreement_no": agreement_no, "external_agreement_no": _agreement_number(number)},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS and plain_code(answer.sub_code) not in ABSENT:
            return failure(answer)
        return Succeeded(CancelResult(CancelAction.CLOSED))

    async def pay_agreement(
        self, *, number: str, agreement_no: str, amount_fen: int, subject: str
    ) -> Answer[PayResult]:
        biz = self._order(number, amount_fen, subject) | {
            "product_code": PRODUCT,
            "agreement_params": {"agreement_no": agreement_no},
        }
        return await self._pay(number, amount_fen, biz, WaitsFor.PROVIDER)


def agreement_of(fields: Mapping[str, Any], number: str) -> Answer[AgreementResult]:
    """A withholding agreement as a query's answer shows it."""
    agreement_no, payer = fields.get("agreement_no"), fields.get("principal_id")
    if not isinstance(agreement_no, str) or not isinstance(payer, str):
        return Unknown("answer_mismatch")
    if fields.get("external_agreement_no") != number:
        return Unknown("answer_mismatch")
    status = fields.get("status")
    if status == "TEMP":
        return Unknown("not_found", absent=True)
    if status != "NORMAL":
        return Failed(FailReason.AGREEMENT_GONE, str(status))
    return Succeeded(AgreementResult(agreement_no, payer, AgreementState.ACTIVE))


def _agreement_number(number: str) -> str:
    """Raises ValueError: the provider's alphabet for agreements is smaller than for orders."""
    wire_number(number)
    if _AGREEMENT_NUMBER.fullmatch(number) is None:
        raise ValueError(f"an agreement's number is 1 to 32 letters and digits, not {number!r}")
    return number
