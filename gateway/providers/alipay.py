"""Alipay as a `PaymentProvider`: which method says what, and what its codes mean to us.

Source of methods, fields and codes: opendocs.alipay.com, "alipay.trade.*" and "alipay.fund.auth.*" (OpenAPI 2.0,
RSA2). Every answer is checked for number, amount, seller and app before it may be called a success; one that fails
the check is `Unknown`, for the money may well have moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.providers.alipay_agreements import AlipayAgreements
from gateway.providers.alipay_calls import (
    ABSENT,
    BUSINESS_FAILURE,
    DONE_ALREADY,
    SUCCESS,
    WAITING,
    failure,
    fen_of,
    no_news,
    plain_code,
    wire_amount,
    wire_number,
    wire_subject,
)
from gateway.providers.alipay_credit import AlipayCredits
from gateway.providers.alipay_statements import AlipayStatements
from gateway.providers.port import Capability, Scene
from models.domain.payments import (
    Answer,
    CancelAction,
    CancelResult,
    Failed,
    FailReason,
    HoldResult,
    PayResult,
    Pending,
    RefundResult,
    ReleaseResult,
    Succeeded,
    Unknown,
    WaitsFor,
)

SCENES = {Scene.PAYMENT_CODE: "bar_code", Scene.FACE: "security_code"}


class AlipayProvider(AlipayAgreements, AlipayCredits, AlipayStatements):
    """One merchant account at Alipay. See `PaymentProvider` for the promises of each method."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        without = set() if self._gateway.account.credit_template else {Capability.CREDIT}
        return frozenset(Capability) - without

    async def aclose(self) -> None:
        await self._gateway.aclose()

    async def freeze(
        self,
        *,
        number: str,
        amount_fen: int,
        subject: str,
        auth_code: str | None = None,
        scene: Scene = Scene.PAYMENT_CODE,
    ) -> Answer[HoldResult]:
        biz: dict[str, object] = {
            "out_order_no": wire_number(number),
            "out_request_no": wire_number(number),
            "order_title": wire_subject(subject),
            "amount": wire_amount(amount_fen),
            "product_code": "PRE_AUTH",
            "payee_user_id": self._gateway.account.seller_id,
            "pay_timeout": "15m",
            "enable_pay_channels": json.dumps([{"payChannelType": "PCREDIT_PAY"}]),
        }
        if auth_code is None:
            answer = await self._gateway.call("alipay.fund.auth.order.voucher.create", biz)
        else:
            biz |= {"auth_code": auth_code, "auth_code_type": SCENES[scene]}
            answer = await self._gateway.call("alipay.fund.auth.order.freeze", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code == BUSINESS_FAILURE and plain_code(answer.sub_code) in DONE_ALREADY:
            return await self.query_freeze(number=number, amount_fen=amount_fen)
        if answer.code == WAITING:
            return Pending(WaitsFor.PAYER_CONFIRMS)
        if answer.code != SUCCESS:
            return failure(answer)
        if auth_code is not None:
            return self._hold(answer.fields, number, amount_fen)
        code = answer.fields.get("code_value")
        if not isinstance(code, str) or answer.fields.get("out_order_no") != wire_number(number):
            return Unknown("answer_mismatch")
        return Pending(WaitsFor.PAYER_SCANS, code)

    async def query_freeze(self, *, number: str, amount_fen: int) -> Answer[HoldResult]:
        wire_amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.fund.auth.operation.detail.query",
            {
                "out_order_no": wire_number(number),
                "out_request_no": wire_number(number),
                "operation_type": "FREEZE",
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer)
        return self._hold(answer.fields, number, amount_fen)

    async def unfreeze(self, *, number: str, hold_no: str, amount_fen: int, remark: str) -> Answer[ReleaseResult]:
        answer = await self._gateway.call(
            "alipay.fund.auth.order.unfreeze",
            {
                "auth_no": hold_no,
                "out_request_no": wire_number(number),
                "amount": wire_amount(amount_fen),
                "remark": remark[:100],
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return failure(answer)
        return self._release(answer.fields, number, hold_no, amount_fen)

    async def query_unfreeze(self, *, number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]:
        wire_amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.fund.auth.operation.detail.query",
            {"auth_no": hold_no, "out_request_no": wire_number(number), "operation_type": "UNFREEZE"},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer)
        return self._release(answer.fields, number, hold_no, amount_fen)

    async def cancel_freeze(self, *, number: str) -> Answer[CancelResult]:
        answer = await self._gateway.call(
            "alipay.fund.auth.operation.cancel",
            {
                "out_order_no": wire_number(number),
                "out_request_no": wire_number(number),
                "remark": "cancelled",
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return failure(answer)
        if answer.fields.get("out_order_no") != wire_number(number):
            return Unknown("answer_mismatch")
        released = answer.fields.get("action") == "unfreeze"
        return Succeeded(CancelResult(CancelAction.REVERSED if released else CancelAction.CLOSED))

    async def capture(
        self, *, number: str, hold_no: str, amount_fen: int, subject: str, complete: bool = True
    ) -> Answer[PayResult]:
        biz = self._order(number, amount_fen, subject) | {
            "product_code": "PRE_AUTH",
            "auth_no": hold_no,
            "auth_confirm_mode": "COMPLETE" if complete else "NOT_COMPLETE",
        }
        return await self._pay(number, amount_fen, biz, WaitsFor.PROVIDER)

    async def pay(
        self, *, number: str, amount_fen: int, subject: str, auth_code: str, scene: Scene
    ) -> Answer[PayResult]:
        biz = self._order(number, amount_fen, subject) | {
            "product_code": "FACE_TO_FACE_PAYMENT",
            "scene": SCENES[scene],
            "auth_code": auth_code,
        }
        return await self._pay(number, amount_fen, biz, WaitsFor.PAYER_CONFIRMS)

    async def precreate(self, *, number: str, amount_fen: int, subject: str) -> Answer[PayResult]:
        biz = self._order(number, amount_fen, subject) | {"product_code": "FACE_TO_FACE_PAYMENT"}
        answer = await self._gateway.call("alipay.trade.precreate", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code == BUSINESS_FAILURE and plain_code(answer.sub_code) in DONE_ALREADY:
            return await self.query_payment(number=number, amount_fen=amount_fen)
        if answer.code != SUCCESS:
            return failure(answer)
        code = answer.fields.get("qr_code")
        if not isinstance(code, str) or answer.fields.get("out_trade_no") != wire_number(number):
            return Unknown("answer_mismatch")
        return Pending(WaitsFor.PAYER_SCANS, code)

    async def cancel(self, *, number: str) -> Answer[CancelResult]:
        answer = await self._gateway.call("alipay.trade.cancel", {"out_trade_no": wire_number(number)})
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer) if plain_code(answer.sub_code) in ABSENT else failure(answer)
        if answer.fields.get("out_trade_no") != wire_number(number):
            return Unknown("answer_mismatch")
        if answer.fields.get("retry_flag") == "Y":
            return Unknown("cancel_must_be_repeated")
        reversed_ = answer.fields.get("action") == "refund"
        return Succeeded(CancelResult(CancelAction.REVERSED if reversed_ else CancelAction.CLOSED))

    async def close(self, *, number: str) -> Answer[CancelResult]:
        answer = await self._gateway.call("alipay.trade.close", {"out_trade_no": wire_number(number)})
        if isinstance(answer, Unknown):
            return answer
        plain = plain_code(answer.sub_code)
        if answer.code == BUSINESS_FAILURE and plain == "TRADE_STATUS_ERROR":
            return Failed(FailReason.ALREADY_PAID, answer.sub_code)
        if answer.code == BUSINESS_FAILURE and plain == "TRADE_HAS_CLOSE":
            return Succeeded(CancelResult(CancelAction.CLOSED))
        if answer.code != SUCCESS:
            return failure(answer)
        if answer.fields.get("out_trade_no") != wire_number(number):
            return Unknown("answer_mismatch")
        return Succeeded(CancelResult(CancelAction.CLOSED))

    async def refund(self, *, number: str, payment_number: str, amount_fen: int, reason: str) -> Answer[RefundResult]:
        answer = await self._gateway.call(
            "alipay.trade.refund",
            {
                "out_trade_no": wire_number(payment_number),
                "out_request_no": wire_number(number),
                "refund_amount": wire_amount(amount_fen),
                "refund_reason": reason[:256],
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return failure(answer)
        # The answer's refund_fee is the sum of all refunds of the trade, and fund_change is N for a repetition:
        # neither proves this one request. Its own record does.
        return await self.query_refund(number=number, payment_number=payment_number, amount_fen=amount_fen)

    async def query_refund(self, *, number: str, payment_number: str, amount_fen: int) -> Answer[RefundResult]:
        wire_amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.trade.fastpay.refund.query",
            {"out_trade_no": wire_number(payment_number), "out_request_no": wire_number(number)},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer)
        fields = answer.fields
        if "refund_status" not in fields and "refund_amount" not in fields:
            return Unknown("not_found", absent=True)  # the documented answer to an unknown refund number
        if (
            fields.get("refund_status") != "REFUND_SUCCESS"
            or fields.get("out_trade_no") != wire_number(payment_number)
            or fields.get("out_request_no") != wire_number(number)
            or fen_of(fields, "refund_amount") != amount_fen
        ):
            return Unknown("answer_mismatch")
        return Succeeded(RefundResult(str(fields.get("trade_no", "")), amount_fen))

    def _hold(self, fields: Mapping[str, Any], number: str, amount_fen: int) -> Answer[HoldResult]:
        hold_no, status = fields.get("auth_no"), fields.get("status")
        remaining = fen_of(fields, "rest_amount") if "rest_amount" in fields else None
        if (
            fields.get("out_order_no") != wire_number(number)
            or fields.get("out_request_no") != wire_number(number)
            or fields.get("payee_user_id", self._gateway.account.seller_id) != self._gateway.account.seller_id
        ):
            return Unknown("answer_mismatch")
        if status == "CLOSED":
            return Failed(FailReason.CLOSED, "CLOSED")
        if fen_of(fields, "amount") != amount_fen or (remaining is not None and remaining > amount_fen):
            return Unknown("answer_mismatch")
        if status == "INIT":
            return Pending(WaitsFor.PAYER_CONFIRMS)
        if status != "SUCCESS" or not isinstance(hold_no, str):
            return Unknown("answer_malformed")
        return Succeeded(HoldResult(hold_no, amount_fen, remaining))

    @staticmethod
    def _release(fields: Mapping[str, Any], number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]:
        if (
            fields.get("auth_no") != hold_no
            or fields.get("out_request_no") != wire_number(number)
            or fen_of(fields, "amount") != amount_fen
            or fields.get("status") != "SUCCESS"
        ):
            return Unknown("answer_mismatch")
        return Succeeded(ReleaseResult(hold_no, amount_fen))
