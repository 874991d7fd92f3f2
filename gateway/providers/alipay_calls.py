"""What every call of Alipay's OpenAPI shares: our numbers in its alphabet, its codes in our words, its answers checked.

Source of fields and codes: opendocs.alipay.com, "alipay.trade.*" and "alipay.fund.auth.*" (OpenAPI 2.0, RSA2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.providers.alipay_gateway import AlipayAnswer, AlipayGateway
from gateway.providers.amounts import format_yuan, parse_yuan
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

SUCCESS, WAITING, BUSINESS_FAILURE = "10000", "10003", "40004"
REFUSALS = frozenset({"20001", "40001", "40002", "40003", "40006"})
"""The gateway rejected the request before any business: token, missing or wrong parameter, quota, rights."""

_PROVIDER_FUNDED = frozenset({"COUPON", "DISCOUNT"})
_MERCHANT_FUNDED = frozenset({"MCARD", "MCOUPON", "MDISCOUNT"})
HYPHEN_WORD = "之"
_SUBJECT_LENGTH_MAX = 256

# Sub-codes come with or without the "ACQ." prefix, by product; compared without it.
DONE_ALREADY = frozenset({"TRADE_HAS_SUCCESS", "ORDER_ALREADY_AUTHORIZED"})
ABSENT = frozenset({"TRADE_NOT_EXIST", "AUTH_ORDER_NOT_EXIST", "AUTH_OPERATION_NOT_EXIST", "USER_AGREEMENT_NOT_EXIST"})
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
    "AGREEMENT_NOT_EXIST": FailReason.AGREEMENT_GONE,
    "AGREEMENT_INVALID": FailReason.AGREEMENT_GONE,
    "USER_AGREEMENT_NOT_EXIST": FailReason.AGREEMENT_GONE,
    "BEYOND_PER_RECEIPT_SINGLE_RESTRICTION": FailReason.LIMIT_EXCEEDED,
}


class AlipayCalls:
    """One merchant account's gateway, and what a payment's answer is, whichever method brought it."""

    def __init__(self, gateway: AlipayGateway) -> None:
        self._gateway = gateway

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]:
        wire_amount(amount_fen)
        answer = await self._gateway.call(
            "alipay.trade.query",
            {"out_trade_no": wire_number(number), "query_options": ["fund_bill_list"]},
        )
        if isinstance(answer, Unknown):
            return answer
        if answer.code != SUCCESS:
            return no_news(answer)
        status = answer.fields.get("trade_status")
        if answer.fields.get("out_trade_no") != wire_number(number):
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

    def _order(self, number: str, amount_fen: int, subject: str) -> dict[str, object]:
        return {
            "out_trade_no": wire_number(number),
            "total_amount": wire_amount(amount_fen),
            "subject": wire_subject(subject),
            "seller_id": self._gateway.account.seller_id,
        }

    async def _pay(
        self, number: str, amount_fen: int, biz: Mapping[str, object], waits_for: WaitsFor
    ) -> Answer[PayResult]:
        answer = await self._gateway.call("alipay.trade.pay", biz)
        if isinstance(answer, Unknown):
            return answer
        if answer.code == BUSINESS_FAILURE and plain_code(answer.sub_code) in DONE_ALREADY:
            return await self.query_payment(number=number, amount_fen=amount_fen)
        if answer.code == WAITING:
            return Pending(waits_for)
        if answer.code != SUCCESS:
            return failure(answer)
        return self._paid(answer.fields, number, amount_fen)

    def _is_ours(self, fields: Mapping[str, Any]) -> bool:
        """Seller and app, wherever the answer names them."""
        account = self._gateway.account
        named = (fields.get("seller_id", account.seller_id), fields.get("auth_app_id", account.app_id))
        return named == (account.seller_id, account.app_id)

    def _paid(self, fields: Mapping[str, Any], number: str, amount_fen: int) -> Answer[PayResult]:
        total = fen_of(fields, "total_amount")
        receipt = fen_of(fields, "receipt_amount")
        payer = fen_of(fields, "buyer_pay_amount", total)
        invoiceable = fen_of(fields, "invoice_amount", payer)
        trade_no = fields.get("trade_no")
        funding = funding_of(fields.get("fund_bill_list"))
        if (
            fields.get("out_trade_no") != wire_number(number)
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


def wire_number(number: str) -> str:
    """Our number in the provider's alphabet (letters, digits, underscore): a bijection, hyphens to underscores."""
    if not is_request_number(number):
        raise ValueError(f"a request number is 1 to 64 letters, digits and hyphens, not {number!r}")
    return number.replace("-", "_")


def our_number(wire: str) -> str:
    """The number that `wire_number` or `worded_number` wrote."""
    return wire.replace("_", "-").replace(HYPHEN_WORD, "-")


def worded_number(number: str) -> str:
    """Our number for zhima.*, whose alphabet is letters, digits and Chinese characters: a bijection, too."""
    return wire_number(number).replace("_", HYPHEN_WORD)


def wire_amount(fen: int) -> str:
    """An amount of a request, above 0. Raises ValueError."""
    if fen <= 0:
        raise ValueError(f"a request needs an amount above 0, not {fen} fen")
    return format_yuan(fen)


def wire_subject(subject: str) -> str:
    """What the customer reads on the phone, cut to the provider's length. Raises ValueError when empty."""
    if not subject:
        raise ValueError("an order needs a subject: the customer reads it on the phone")
    return subject[:_SUBJECT_LENGTH_MAX]


def fen_of(fields: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """An amount of the answer, `default` where it is left out, None where it is no amount."""
    if name not in fields:
        return default
    try:
        return parse_yuan(fields[name])
    except ValueError:
        return None


def funding_of(bills: object) -> tuple[FundingPart, ...] | None:
    """A `fund_bill_list` in our words; None where it is not one."""
    if bills is None:
        return ()
    if not isinstance(bills, list):
        return None
    parts = []
    for bill in bills:
        fen = fen_of(bill, "amount") if isinstance(bill, dict) else None
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


def plain_code(sub_code: str) -> str:
    """A sub-code without its product's prefix."""
    return sub_code.removeprefix("ACQ.").removeprefix("aop.")


def failure(answer: AlipayAnswer) -> Failed | Unknown | Pending:
    """What a refused *action* means. Only a business failure or a rejected request is definite."""
    plain = plain_code(answer.sub_code)
    if answer.code == BUSINESS_FAILURE and plain == "ORDER_SUCCESS_PAY_INPROCESS":
        return Pending(WaitsFor.PAYER_CONFIRMS)
    if answer.code == BUSINESS_FAILURE and plain not in _UNCLEAR:
        return Failed(_REASONS.get(plain, FailReason.REFUSED), answer.sub_code or answer.code)
    if answer.code in REFUSALS:
        return Failed(FailReason.REFUSED, answer.sub_code or answer.code)
    return Unknown(f"provider:{answer.sub_code or answer.code}")


def no_news(answer: AlipayAnswer) -> Unknown:
    """What a refused *query* means: nothing about the money, except that an unknown number is absent."""
    if answer.code == BUSINESS_FAILURE and plain_code(answer.sub_code) in ABSENT:
        return Unknown("not_found", absent=True)
    return Unknown(f"provider:{answer.sub_code or answer.code}")
