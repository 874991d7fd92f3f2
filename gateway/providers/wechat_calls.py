"""What every call to WeChat Pay shares: our numbers in its 32 characters, its codes in our words, its orders checked.

Source of fields and codes: pay.weixin.qq.com, "付款码支付", "Native支付", "查询订单", "申请退款" (APIv3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gateway.providers.amounts import FEN_MAX
from gateway.providers.wechat_gateway import WechatAnswer, WechatGateway
from models.domain.payments import (
    Answer,
    Failed,
    FailReason,
    FundingPart,
    PayResult,
    Pending,
    Succeeded,
    Unknown,
    WaitsFor,
    is_request_number,
)

ORDER_NUMBER_LENGTHS = range(6, 33)
DIGEST = "*"
"""What a number begins with that was too long or too short for the provider: ours have no such letter."""
DONE_ALREADY = frozenset({"ORDER_PAID", "ORDERPAID", "OUT_TRADE_NO_USED"})
ABSENT = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST", "RESOURCE_NOT_EXISTS", "NOT_FOUND"})
USER_PAYING = "USERPAYING"
_UNCLEAR = frozenset({"SYSTEM_ERROR", "SYSTEMERROR", "BANK_ERROR", "FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED"})
_REASONS = {
    "NOT_ENOUGH": FailReason.NOT_ENOUGH_FUNDS,
    "NOTENOUGH": FailReason.NOT_ENOUGH_FUNDS,
    "AUTH_CODE_INVALID": FailReason.AUTH_INVALID,
    "AUTH_CODE_EXPIRED": FailReason.AUTH_INVALID,
    "AUTH_CODE_ERROR": FailReason.AUTH_INVALID,
    "ORDER_CLOSED": FailReason.CLOSED,
    "ORDER_REVERSED": FailReason.CLOSED,
    "ORDER_NOT_EXIST": FailReason.ORDER_UNKNOWN,
    "RESOURCE_NOT_EXISTS": FailReason.ORDER_UNKNOWN,
    "ORDER_PAID": FailReason.ALREADY_PAID,
}


class WechatCalls:
    """One merchant account's gateway, and what an order's state is, whichever call brought it."""

    def __init__(self, gateway: WechatGateway) -> None:
        self._gateway = gateway

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        wire_fen(amount_fen)
        answer = await self._order_state(number)
        if isinstance(answer, Unknown):
            return answer
        if not answer.ok:
            return no_news(answer)
        if answer.fields.get("trade_state") == "REFUND" and await self._was_cancelled(number):
            return Failed(FailReason.REVERSED, "REFUND")
        return self._payment(answer.fields, number, amount_fen)

    async def _order_state(self, number: str) -> WechatAnswer | Unknown:
        path = f"/v3/pay/transactions/out-trade-no/{order_number(number)}"
        return await self._gateway.get(path, {"mchid": self._gateway.account.mchid})

    async def _was_cancelled(self, number: str) -> bool:
        """True when the money of a paid collection code went back by our cancel, which there is a refund."""
        answer = await self._gateway.get(f"/v3/refund/domestic/refunds/{cancel_number(number)}", {})
        return not isinstance(answer, Unknown) and answer.fields.get("status") == "SUCCESS"

    def _payment(self, fields: Mapping[str, Any], number: str, amount_fen: int) -> Answer[PayResult]:
        """What an order's state says. REFUND means that it was paid and a part, or all, went back since."""
        match fields.get("trade_state"):
            case "SUCCESS" | "REFUND":
                return self._paid(fields, number, amount_fen)
            case "USERPAYING":
                return Pending(WaitsFor.PAYER_CONFIRMS)  # the answer then has nothing but the state
            case "NOTPAY" if self._is_ours(fields, number):
                return Pending(WaitsFor.PAYER_SCANS)
            case ("CLOSED" | "REVOKED" | "PAYERROR") as state if self._is_ours(fields, number):
                was_paid = state == "REVOKED" and bool(fields.get("success_time"))
                return Failed(FailReason.REVERSED if was_paid else FailReason.CLOSED, state)
            case "NOTPAY" | "CLOSED" | "REVOKED" | "PAYERROR":
                return Unknown("answer_mismatch")
        return Unknown("answer_malformed")

    def _is_ours(self, fields: Mapping[str, Any], number: str) -> bool:
        account = self._gateway.account
        named = (fields.get("mchid"), fields.get("appid", account.appid), fields.get("out_trade_no"))
        return named == (account.mchid, account.appid, order_number(number))

    def _paid(self, fields: Mapping[str, Any], number: str, amount_fen: int) -> Answer[PayResult]:
        amount, trade_no = fields.get("amount"), fields.get("transaction_id")
        if not isinstance(amount, dict) or not isinstance(trade_no, str) or not self._is_ours(fields, number):
            return Unknown("answer_mismatch")
        payer = fen_of(amount, "payer_total", amount_fen)
        parts = _promotions(fields.get("promotion_detail"))
        if fen_of(amount, "total") != amount_fen or payer is None or parts is None:
            return Unknown("answer_mismatch")
        if amount.get("currency", "CNY") != "CNY":
            return Unknown("answer_mismatch")
        funding, forgone_fen = parts
        receipt = amount_fen - forgone_fen
        if payer > amount_fen or receipt < 0:
            return Unknown("answer_mismatch")
        whole = (FundingPart("payer", str(fields.get("bank_type", "")), payer), *funding)
        return Succeeded(PayResult(amount_fen, payer, receipt, payer, whole, trade_no))


def order_number(number: str) -> str:
    """Our number as `out_trade_no` or `out_order_no`: itself, or where it does not fit a digest of it.

    The whole number travels as `attach`, which bills and notifications bring back. Raises ValueError.
    """
    if not is_request_number(number):
        raise ValueError(f"a request number is 1 to 64 letters, digits and hyphens, not {number!r}")
    if len(number) in ORDER_NUMBER_LENGTHS:
        return number
    return DIGEST + hashlib.sha256(number.encode()).hexdigest()[: ORDER_NUMBER_LENGTHS[-1] - 1]


def refund_number(number: str) -> str:
    """Our number as `out_refund_no`, which has room for it. Raises ValueError."""
    order_number(number)
    return number


def cancel_number(number: str) -> str:
    """The number of the refund by which a paid collection code is cancelled: none of ours can be it."""
    return f"{DIGEST}cancel-{hashlib.sha256(number.encode()).hexdigest()[:48]}"


def our_number(attach: object, wire: object) -> str:
    """Our number, from what came back with an order; "" where only its digest did."""
    if isinstance(attach, str) and is_request_number(attach):
        return attach
    return wire if isinstance(wire, str) and is_request_number(wire) else ""


def wire_fen(fen: int) -> int:
    """An amount of a request, above 0. Raises ValueError."""
    if not 0 < fen <= FEN_MAX:
        raise ValueError(f"a request needs an amount above 0, not {fen} fen")
    return fen


def fen_of(fields: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """An amount of the answer (an integer of fen), `default` where it is left out, None where it is no amount."""
    value = fields.get(name, default)
    return value if type(value) is int and 0 <= value <= FEN_MAX else None


def _promotions(details: object) -> tuple[tuple[FundingPart, ...], int] | None:
    """Who gave what beside the payer, and how much of it never reaches the merchant; None where it is no list.

    NOCASH coupons are a discount of the merchant's: the account gets less. CASH ones were paid for before.
    """
    if details is None:
        return (), 0
    if not isinstance(details, list):
        return None
    parts, forgone = [], 0
    for detail in details:
        fen = fen_of(detail, "amount") if isinstance(detail, dict) else None
        if fen is None:
            return None
        kind = str(detail.get("type", ""))
        provider = fen_of(detail, "wechatpay_contribute", 0) or 0
        if provider > fen:
            return None
        parts += [FundingPart("provider", kind, provider)] if provider else []
        parts += [FundingPart("merchant", kind, fen - provider)] if fen > provider else []
        forgone += fen - provider if kind == "NOCASH" else 0
    return tuple(parts), forgone


def failure(answer: WechatAnswer) -> Failed | Unknown | Pending:
    """What a refused *action* means. Only a refusal with a known meaning, or of the request itself, is definite."""
    if answer.code == USER_PAYING:
        return Pending(WaitsFor.PAYER_CONFIRMS)
    if answer.status >= 500 or answer.status == 429 or answer.code in _UNCLEAR:
        return Unknown(f"provider:{answer.code}")
    return Failed(_REASONS.get(answer.code, FailReason.REFUSED), answer.code)


def no_news(answer: WechatAnswer) -> Unknown:
    """What a refused *query* means: nothing about the money, except that an unknown number is absent."""
    if answer.code in ABSENT:
        return Unknown("not_found", absent=True)
    return Unknown(f"provider:{answer.code}")
