"""WeChat's requests and refusals over the same books: fields into the shared business, its noes into v3 codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.providers.amounts import format_yuan
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call

_ORDER = re.compile(r"[0-9A-Za-z_\-|*]{6,32}")
_REFUND = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}")
_FEN_MAX = 10**12

_REFUSALS: dict[str, tuple[int, str]] = {
    "BUYER_BALANCE_NOT_ENOUGH": (403, "NOT_ENOUGH"),
    "PAYER_BALANCE_NOT_ENOUGH": (403, "NOT_ENOUGH"),
    "PAYMENT_AUTH_CODE_INVALID": (400, "AUTH_CODE_INVALID"),
    "TRADE_HAS_CLOSE": (400, "ORDER_CLOSED"),
    "TRADE_HAS_SUCCESS": (400, "ORDER_PAID"),
    "TRADE_STATUS_ERROR": (400, "ORDER_PAID"),
    "CONTEXT_INCONSISTENT": (403, "OUT_TRADE_NO_USED"),
    "TRADE_NOT_EXIST": (404, "ORDER_NOT_EXIST"),
    "AUTH_ORDER_NOT_EXIST": (404, "ORDER_NOT_EXIST"),
    "REFUND_AMT_NOT_EQUAL_TOTAL": (400, "INVALID_REQUEST"),
    "DISCORDANT_REPEAT_REQUEST": (400, "PARAM_ERROR"),
    "ORDER_ALREADY_CLOSED": (400, "INVALID_ORDER_STATE"),
    "AUTH_ORDER_HAS_FINISHED": (400, "INVALID_ORDER_STATE"),
    "AUTH_AMOUNT_NOT_ENOUGH": (400, "INVALID_REQUEST"),
    "SYSTEM_ERROR": (500, "SYSTEM_ERROR"),
    "isp.unknow-error": (500, "SYSTEM_ERROR"),
    "isp.bill_not_exist": (400, "NO_STATEMENT_EXIST"),
    "RESOURCE_NOT_EXISTS": (404, "RESOURCE_NOT_EXISTS"),
    "FREQUENCY_LIMITED": (429, "FREQUENCY_LIMITED"),
}
_MESSAGES = {"REFUND_AMT_NOT_EQUAL_TOTAL": "退款金额大于订单可退金额"}


@dataclass(frozen=True, slots=True)
class WechatCall(Call):
    """A verified v3 request: numbers in its alphabet and lengths, amounts as integers of fen."""

    def number(self, name: str) -> str:
        value = self.text(name, 64)
        pattern = _REFUND if name in {"out_refund_no", "out_request_no"} else _ORDER
        if pattern.fullmatch(value) is None:
            raise BadArgument(name)
        return value

    def whole(self, part: str, name: str) -> int:
        """An amount above 0 inside an object of the content."""
        value = self.part(part).biz.get(name)
        if type(value) is not int or not 0 < value < _FEN_MAX:
            raise BadArgument(f"{part}.{name}")
        return value

    def asking(self, biz: Mapping[str, Any]) -> WechatCall:
        """The call with other content: what the shared business asks for."""
        return replace(self, biz=biz)


def yuan(fen: int) -> str:
    """An amount for the shared business."""
    return format_yuan(fen)


def refusal(failure: BusinessFailure) -> tuple[int, str, str]:
    """HTTP status, code and message of a business refusal. A code that is none of the books' is sent as it is."""
    plain = failure.sub_code.removeprefix("ACQ.")
    status, code = _REFUSALS.get(plain, (403, plain))
    return status, code, _MESSAGES.get(plain, failure.sub_msg)


def invalid(bad: BadArgument) -> tuple[int, str, str]:
    """The answer to a wrong parameter."""
    return 400, "PARAM_ERROR", bad.sub_code
