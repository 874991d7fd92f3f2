"""Alipay as a `PaymentProvider`: which method says what, and what its codes mean to us.

Source of methods, fields and codes: opendocs.alipay.com, "alipay.trade.*" and "alipay.fund.auth.*" (OpenAPI 2.0,
RSA2). Every answer is checked for number, amount, seller and app before it may be called a success; one that fails
the check is `Unknown`, for the money may well have moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from gateway.providers.alipay_gateway import AlipayAnswer, AlipayGateway
from gateway.providers.amounts import format_yuan, parse_yuan
from gateway.providers.port import Guarantee, Scene
from models.domain.payments import (
    Answer,
    CancelAction,
    CancelResult,
    CreditOutcome,
    CreditResult,
    Failed,
    FailReason,
    FundingPart,
    HoldResult,
    PayResult,
    Pending,
    ProviderResult,
    RefundResult,
    ReleaseResult,
    Succeeded,
    Unknown,
    WaitsFor,
    is_request_number,
)

SUCCESS, WAITING, BUSINESS_FAILURE = "10000", "10003", "40004"
REFUSALS = frozenset({"20001", "40001", "40002", "40003", "40006"})
"""The gateway rejected the request before any business: token, missing or wrong parameter, quota, rights."""

_SCENES = {Scene.PAYMENT_CODE: "bar_code", Scene.FACE: "security_code"}
_PROVIDER_FUNDED = frozenset({"COUPON", "DISCOUNT"})
_MERCHANT_FUNDED = frozenset({"MCARD", "MCOUPON", "MDISCOUNT"})
_SUBJECT_LENGTH_MAX = 256

# Sub-codes come with or without the "ACQ." prefix, by product; compared without it.
_DONE_ALREADY = frozenset({"TRADE_HAS_SUCCESS", "ORDER_ALREADY_AUTHORIZED"})
_ABSENT = frozenset({"TRADE_NOT_EXIST", "AUTH_ORDER_NOT_EXIST", "AUTH_OPERATION_NOT_EXIST"})
# Business "failures" that leave open whether money moved: never answered as Failed.
_UNCLEAR = frozenset({"SYSTEM_ERROR", "CONTEXT_INCONSISTENT", "DISCORDANT_REPEAT_REQUEST"})
_REASONS = {
    "BUYER_BALANCE_NOT_ENOUGH": FailReason.NOT_ENOUGH_FUNDS,
    "BUYER_BANKCARD_BALANCE_NOT_ENOUGH": FailReason.NOT_ENOUGH_FUNDS,
    "PAYER_BALANCE_NOT_ENOUGH": FailReason.NOT_ENOUGH_FUNDS,
    "PAYMENT_AUTH_CODE_INVALID": FailReason.AUTH_INVALID,
    "TRADE_HAS_CLOSE": FailReason.CLOSED,
    "ORDER_ALREADY_CLOSED": FailReason.CLOSED,
    "AUTH_AMOUNT_NOT_ENOUGH": FailReason.HOLD_EXHAUSTED,
    "AUTH_ORDER_HAS_FINISHED": FailReason.HOLD_GONE,
    "AUTH_ORDER_NOT_EXIST": FailReason.ORDER_UNKNOWN,
    "TRADE_NOT_EXIST": FailReason.ORDER_UNKNOWN,
    "REFUND_AMT_NOT_EQUAL_TOTAL": FailReason.AMOUNT_EXCEEDED,
}

T = TypeVar("T", bound=ProviderResult)


class AlipayProvider:
    """One merchant account at Alipay. See `PaymentProvider` for the promises of each method."""

    def __init__(self, gateway: AlipayGateway) -> None:
        self._gateway = gateway

    async def aclose(self) -> None:
        await self._gateway.aclose()

    async def consult_credit(self, *, number: str, guarantee: Guarantee, fee_fen: int) -> Answer[CreditResult]:
        _wire_number(number)
        format_yuan(fee_fen)
        if guarantee is Guarantee.HUABEI_HOLD:
            # A hold asks nobody's opinion beforehand: the freeze itself is the answer.
            return Succeeded(CreditResult(CreditOutcome.HOLD_NEEDED))
        return Failed(FailReason.GUARANTEE_UNAVAILABLE, guarantee.value)

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
            "out_order_no": _wire_number(number),
            "out_request_no": _wire_number(number),
            "order_title": _subject(subject),
            "amount": _amount(amount_fen),
            "product_code": "PRE_AUTH",
            "payee_user_id": self._gateway.account.seller_id,
            "pay_timeout": "15m",
            "enable_pay_channels": json.dumps([{"payChannelType": "PCREDIT_PAY"}]),
        }
        if auth_code is None:
            answer = await self._gateway.call("alipay.fund.auth.order.voucher.create", biz)
        else:
            biz |= {"auth_code": auth_code, "auth_code_type": _SCENES[scene]}
            answer = await self._gateway.call("alipay.fund.auth.order.freeze", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code == BUSINESS_FAILURE and _plain(answer.sub_code) in _DONE_ALREADY:
            return await self.query_freeze(number=number, amount_fen=amount_fen)
        if answer.code == WAITING:
            return Pending(WaitsFor.PAYER_CONFIRMS)
        if answer.code != SUCCESS:
            return _failure(answer)
        if auth_code is not None:
            return self._hold(answer.fields, number, amount_fen)
        code = answer.fields.get("code_value")
        if not isinstance(code, str) or answer.fields.get("out_order_no") != _wire_number(number):
            return Unknown("answer_mismatch")
        return Pending(WaitsFor.PAYER_SCANS, code)

    async def query_freeze(self, *, number: str, amount_fen: int) -> Answer[HoldResult]:
        _amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.fund.auth.operation.detail.query",
            {
                "out_order_no": _wire_number(number),
                "out_request_no": _wire_number(number),
                "operation_type": "FREEZE",
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _no_news(answer)
        return self._hold(answer.fields, number, amount_fen)

    async def unfreeze(self, *, number: str, hold_no: str, amount_fen: int, remark: str) -> Answer[ReleaseResult]:
        answer = await self._gateway.call(
            "alipay.fund.auth.order.unfreeze",
            {
                "auth_no": hold_no,
                "out_request_no": _wire_number(number),
                "amount": _amount(amount_fen),
                "remark": remark[:100],
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _failure(answer)
        return self._release(answer.fields, number, hold_no, amount_fen)

    async def query_unfreeze(self, *, number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]:
        _amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.fund.auth.operation.detail.query",
            {"auth_no": hold_no, "out_request_no": _wire_number(number), "operation_type": "UNFREEZE"},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _no_news(answer)
        return self._release(answer.fields, number, hold_no, amount_fen)

    async def cancel_freeze(self, *, number: str) -> Answer[CancelResult]:
        answer = await self._gateway.call(
            "alipay.fund.auth.operation.cancel",
            {
                "out_order_no": _wire_number(number),
                "out_request_no": _wire_number(number),
                "remark": "cancelled",
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _failure(answer)
        if answer.fields.get("out_order_no") != _wire_number(number):
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
            "scene": _SCENES[scene],
            "auth_code": auth_code,
        }
        return await self._pay(number, amount_fen, biz, WaitsFor.PAYER_CONFIRMS)

    async def precreate(self, *, number: str, amount_fen: int, subject: str) -> Answer[PayResult]:
        biz = self._order(number, amount_fen, subject) | {"product_code": "FACE_TO_FACE_PAYMENT"}
        answer = await self._gateway.call("alipay.trade.precreate", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code == BUSINESS_FAILURE and _plain(answer.sub_code) in _DONE_ALREADY:
            return await self.query_payment(number=number, amount_fen=amount_fen)
        if answer.code != SUCCESS:
            return _failure(answer)
        code = answer.fields.get("qr_code")
        if not isinstance(code, str) or answer.fields.get("out_trade_no") != _wire_number(number):
            return Unknown("answer_mismatch")
        return Pending(WaitsFor.PAYER_SCANS, code)

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        _amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.trade.query",
            {"out_trade_no": _wire_number(number), "query_options": ["fund_bill_list"]},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _no_news(answer)
        status = answer.fields.get("trade_status")
        if answer.fields.get("out_trade_no") != _wire_number(number):
            return Unknown("answer_mismatch")
        if status in {"TRADE_SUCCESS", "TRADE_FINISHED"}:
            return self._paid(answer.fields, number, amount_fen)
        if status == "WAIT_BUYER_PAY":
            return Pending(WaitsFor.PAYER_CONFIRMS)
        if status == "TRADE_CLOSED":
            # The same status for "never paid" and "paid, all of it refunded"; only the latter has a pay date.
            was_paid = bool(answer.fields.get("send_pay_date"))
            return Failed(FailReason.REVERSED if was_paid else FailReason.CLOSED, "TRADE_CLOSED")
        return Unknown("answer_malformed")

    async def cancel(self, *, number: str) -> Answer[CancelResult]:
        answer = await self._gateway.call("alipay.trade.cancel", {"out_trade_no": _wire_number(number)})
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _no_news(answer) if _plain(answer.sub_code) in _ABSENT else _failure(answer)
        if answer.fields.get("out_trade_no") != _wire_number(number):
            return Unknown("answer_mismatch")
        if answer.fields.get("retry_flag") == "Y":
            return Unknown("cancel_must_be_repeated")
        reversed_ = answer.fields.get("action") == "refund"
        return Succeeded(CancelResult(CancelAction.REVERSED if reversed_ else CancelAction.CLOSED))

    async def refund(self, *, number: str, payment_number: str, amount_fen: int, reason: str) -> Answer[RefundResult]:
        answer = await self._gateway.call(
            "alipay.trade.refund",
            {
                "out_trade_no": _wire_number(payment_number),
                "out_request_no": _wire_number(number),
                "refund_amount": _amount(amount_fen),
                "refund_reason": reason[:256],
            },
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _failure(answer)
        # The answer's refund_fee is the sum of all refunds of the trade, and fund_change is N for a repetition:
        # neither proves this one request. Its own record does.
        return await self.query_refund(number=number, payment_number=payment_number, amount_fen=amount_fen)

    async def query_refund(self, *, number: str, payment_number: str, amount_fen: int) -> Answer[RefundResult]:
        _amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.trade.fastpay.refund.query",
            {"out_trade_no": _wire_number(payment_number), "out_request_no": _wire_number(number)},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return _no_news(answer)
        fields = answer.fields
        if "refund_status" not in fields and "refund_amount" not in fields:
            return Unknown("not_found", absent=True)  # the documented answer to an unknown refund number
        if (
            fields.get("refund_status") != "REFUND_SUCCESS"
            or fields.get("out_trade_no") != _wire_number(payment_number)
            or fields.get("out_request_no") != _wire_number(number)
            or _fen(fields, "refund_amount") != amount_fen
        ):
            return Unknown("answer_mismatch")
        return Succeeded(RefundResult(str(fields.get("trade_no", "")), amount_fen))

    def _order(self, number: str, amount_fen: int, subject: str) -> dict[str, object]:
        return {
            "out_trade_no": _wire_number(number),
            "total_amount": _amount(amount_fen),
            "subject": _subject(subject),
            "seller_id": self._gateway.account.seller_id,
        }

    async def _pay(
        self, number: str, amount_fen: int, biz: Mapping[str, object], waits_for: WaitsFor
    ) -> Answer[PayResult]:
        answer = await self._gateway.call("alipay.trade.pay", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code == BUSINESS_FAILURE and _plain(answer.sub_code) in _DONE_ALREADY:
            return await self.query_payment(number=number, amount_fen=amount_fen)
        if answer.code == WAITING:
            return Pending(waits_for)
        if answer.code != SUCCESS:
            return _failure(answer)
        return self._paid(answer.fields, number, amount_fen)

    def _is_ours(self, fields: Mapping[str, Any]) -> bool:
        """Seller and app, wherever the answer names them."""
        account = self._gateway.account
        named = (fields.get("seller_id", account.seller_id), fields.get("auth_app_id", account.app_id))
        return named == (account.seller_id, account.app_id)

    def _paid(self, fields: Mapping[str, Any], number: str, amount_fen: int) -> Answer[PayResult]:
        total = _fen(fields, "total_amount")
        receipt = _fen(fields, "receipt_amount")
        payer = _fen(fields, "buyer_pay_amount", total)
        invoiceable = _fen(fields, "invoice_amount", payer)
        trade_no = fields.get("trade_no")
        funding = _funding(fields.get("fund_bill_list"))
        if (
            fields.get("out_trade_no") != _wire_number(number)
            or total != amount_fen
            or receipt is None
            or payer is None
            or invoiceable is None
            or funding is None
            or max(receipt, payer, invoiceable) > amount_fen
            or not isinstance(trade_no, str)
            or not self._is_ours(fields)
        ):
            return Unknown("answer_mismatch")
        return Succeeded(PayResult(amount_fen, payer, receipt, invoiceable, funding, trade_no))

    def _hold(self, fields: Mapping[str, Any], number: str, amount_fen: int) -> Answer[HoldResult]:
        hold_no, status = fields.get("auth_no"), fields.get("status")
        remaining = _fen(fields, "rest_amount") if "rest_amount" in fields else None
        if (
            fields.get("out_order_no") != _wire_number(number)
            or fields.get("out_request_no") != _wire_number(number)
            or fields.get("payee_user_id", self._gateway.account.seller_id) != self._gateway.account.seller_id
        ):
            return Unknown("answer_mismatch")
        if status == "CLOSED":
            return Failed(FailReason.CLOSED, "CLOSED")
        if _fen(fields, "amount") != amount_fen or (remaining is not None and remaining > amount_fen):
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
            or fields.get("out_request_no") != _wire_number(number)
            or _fen(fields, "amount") != amount_fen
            or fields.get("status") != "SUCCESS"
        ):
            return Unknown("answer_mismatch")
        return Succeeded(ReleaseResult(hold_no, amount_fen))


def _wire_number(number: str) -> str:
    """Our number in the provider's alphabet (letters, digits, underscore): a bijection, hyphens to underscores."""
    if not is_request_number(number):
        raise ValueError(f"a request number is 1 to 64 letters, digits and hyphens, not {number!r}")
    return number.replace("-", "_")


def _amount(fen: int) -> str:
    if fen <= 0:
        raise ValueError(f"a request needs an amount above 0, not {fen} fen")
    return format_yuan(fen)


def _subject(subject: str) -> str:
    if not subject:
        raise ValueError("an order needs a subject: the customer reads it on the phone")
    return subject[:_SUBJECT_LENGTH_MAX]


def _fen(fields: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """An amount of the answer, `default` where it is left out, None where it is no amount."""
    if name not in fields:
        return default
    try:
        return parse_yuan(fields[name])
    except ValueError:
        return None


def _funding(bills: object) -> tuple[FundingPart, ...] | None:
    if bills is None:
        return ()
    if not isinstance(bills, list):
        return None
    parts = []
    for bill in bills:
        fen = _fen(bill, "amount") if isinstance(bill, dict) else None
        if fen is None:
            return None
        channel = str(bill.get("fund_channel", ""))
        who = "payer"
        if channel in _PROVIDER_FUNDED:
            who = "provider"
        elif channel in _MERCHANT_FUNDED:
            who = "merchant"
        parts.append(FundingPart(who, channel, fen))
    return tuple(parts)


def _plain(sub_code: str) -> str:
    return sub_code.removeprefix("ACQ.").removeprefix("aop.")


def _failure(answer: AlipayAnswer) -> Failed | Unknown | Pending:
    """What a refused *action* means. Only a business failure or a rejected request is definite."""
    plain = _plain(answer.sub_code)
    if answer.code == BUSINESS_FAILURE and plain == "ORDER_SUCCESS_PAY_INPROCESS":
        return Pending(WaitsFor.PAYER_CONFIRMS)
    if answer.code == BUSINESS_FAILURE and plain not in _UNCLEAR:
        return Failed(_REASONS.get(plain, FailReason.REFUSED), answer.sub_code or answer.code)
    if answer.code in REFUSALS:
        return Failed(FailReason.REFUSED, answer.sub_code or answer.code)
    return Unknown(f"provider:{answer.sub_code or answer.code}")


def _no_news(answer: AlipayAnswer) -> Unknown:
    """What a refused *query* means: nothing about the money, except that an unknown number is absent."""
    if answer.code == BUSINESS_FAILURE and _plain(answer.sub_code) in _ABSENT:
        return Unknown("not_found", absent=True)
    return Unknown(f"provider:{answer.sub_code or answer.code}")
