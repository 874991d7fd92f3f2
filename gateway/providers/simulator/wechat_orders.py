"""WeChat's orders and refunds, over the shared trades: /v3/pay/transactions and /v3/refund/domestic/refunds."""

from __future__ import annotations

import sqlite3
from typing import Any

from gateway.providers.simulator import trades
from gateway.providers.simulator.calls import BadArgument, BusinessFailure
from gateway.providers.simulator.database import one
from gateway.providers.simulator.users import WECHAT_SCENE
from gateway.providers.simulator.wechat_calls import WechatCall, yuan
from gateway.providers.simulator.wechat_views import order_view, refund_fields

ORDER_LIFE = "2h"
Fields = dict[str, Any]


def codepay(call: WechatCall) -> Fields:
    """POST /v3/pay/transactions/codepay: the customer's payment code."""
    biz = _order(call) | {"auth_code": call.part("payer").text("auth_code", 32), "scene": WECHAT_SCENE}
    asked = call.asking(biz)
    try:
        trades.pay(asked)
    except trades.Waiting:
        return {"trade_state": "USERPAYING"}
    return order_view(_needed(call), call.app_id, call.seller_id)


def native(call: WechatCall) -> Fields:
    """POST /v3/pay/transactions/native: a code that any customer may pay."""
    if not call.notify_url:
        raise BadArgument("notify_url")
    return {"code_url": trades.precreate(call.asking(_order(call)))["qr_code"]}


def query(call: WechatCall) -> Fields:
    """GET /v3/pay/transactions/out-trade-no/{out_trade_no}."""
    row = _needed(call)
    _maybe_fail(call)
    return order_view(row, call.app_id, call.seller_id)


def close(call: WechatCall) -> None:
    """POST …/close: an order that nobody has paid. Answered by 204."""
    trades.close(call)


def reverse(call: WechatCall) -> Fields:
    """POST …/reverse: of code payments only; closes, or gives the money back."""
    row = _needed(call)
    if row["kind"] != "pay":
        raise BusinessFailure("INVALID_REQUEST", "订单的支付场景不支持该请求")
    trades.cancel(call)
    return {"appid": call.seller_id, "mchid": call.app_id, "out_trade_no": row["out_trade_no"]}


def refund(call: WechatCall) -> Fields:
    """POST /v3/refund/domestic/refunds: a part or all; idempotent by out_refund_no."""
    refund_no, fen = call.number("out_refund_no"), call.whole("amount", "refund")
    row = _refunded_order(call)
    if call.whole("amount", "total") != row["total_fen"]:
        raise BusinessFailure("PARAM_ERROR", "订单金额与原订单不一致")
    known = _refund_row(call, refund_no)
    if known is not None and known["trade_no"] != row["trade_no"]:
        raise BusinessFailure("INVALID_REQUEST", "the refund number belongs to another order")
    if not row["paid_at"]:
        raise BusinessFailure("INVALID_REQUEST", "订单未支付")
    biz = {"out_trade_no": row["out_trade_no"], "out_request_no": refund_no, "refund_amount": yuan(fen)}
    trades.give_back_part(call.asking(biz), row, refund_no, fen)
    return _refund_view(call, refund_no)


def refund_query(call: WechatCall) -> Fields:
    """GET /v3/refund/domestic/refunds/{out_refund_no}."""
    refund_no = call.number("out_refund_no")
    if _refund_row(call, refund_no) is None:
        raise BusinessFailure("RESOURCE_NOT_EXISTS", "退款单不存在")
    _maybe_fail(call)
    return _refund_view(call, refund_no)


def _order(call: WechatCall) -> Fields:
    if call.text("appid", 32) != call.seller_id or call.text("mchid", 32) != call.app_id:
        raise BusinessFailure("APPID_MCHID_NOT_MATCH", "appid和mchid不匹配")
    return {
        "out_trade_no": call.number("out_trade_no"),
        "total_amount": yuan(call.whole("amount", "total")),
        "subject": call.text("description", 127),
        "attach": call.optional("attach", 128) or "",
        "timeout_express": ORDER_LIFE,
    }


def _needed(call: WechatCall) -> sqlite3.Row:
    row = trades.by_number(call, call.number("out_trade_no"))
    if row is None:
        raise BusinessFailure("ACQ.TRADE_NOT_EXIST", "订单不存在")
    return row


def _refunded_order(call: WechatCall) -> sqlite3.Row:
    """By our number or by the provider's: what a service order collected has only the latter."""
    transaction = call.optional("transaction_id", 32)
    row = (
        trades.by_number(call, call.number("out_trade_no"))
        if transaction is None
        else one(call.db, "SELECT * FROM trade WHERE app_id = ? AND trade_no = ?", call.app_id, transaction)
    )
    if row is None:
        raise BusinessFailure("RESOURCE_NOT_EXISTS", "订单不存在")
    return row


def _refund_row(call: WechatCall, refund_no: str) -> sqlite3.Row | None:
    return one(
        call.db,
        "SELECT r.* FROM refund r JOIN trade t USING (trade_no) "
        "WHERE t.app_id = ? AND r.kind = 'refund' AND r.out_request_no = ?",
        call.app_id,
        refund_no,
    )


def _refund_view(call: WechatCall, refund_no: str) -> Fields:
    made = _refund_row(call, refund_no)
    assert made is not None
    row = trades.by_trade_no(call.db, str(made["trade_no"]))
    return refund_fields(row, made) | {"channel": "ORIGINAL", "status": "SUCCESS"}


def _maybe_fail(call: WechatCall) -> None:
    if call.forced is not None:
        raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
