"""WeChat's service orders (pay score), over the shared holds: /v3/payscore/serviceorder.

The provider vouches with the customer's credit line here: who has none is refused at the confirmation, and what was
confirmed is always collected, unless a script says that it waits.
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

from gateway.providers.simulator import holds, trades
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, fresh_no
from gateway.providers.simulator.database import moment, one
from gateway.providers.simulator.wechat_calls import WechatCall
from gateway.providers.simulator.wechat_views import service_state, service_view

Fields = dict[str, Any]
_NO_ORDER = BusinessFailure("AUTH_ORDER_NOT_EXIST", "服务订单不存在")


def create(call: WechatCall) -> Fields:
    """POST: a service order that waits for its customer. Repeated with the same content: the same order."""
    number, fen = call.number("out_order_no"), call.whole("risk_fund", "amount")
    _check_service(call)
    if call.biz.get("need_user_confirm") is not True:
        raise BadArgument("need_user_confirm")
    row = _row(call, number)
    if row is None:
        if call.forced is not None:
            raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
        call.db.execute(
            "INSERT INTO hold (auth_no, app_id, out_order_no, out_request_no, title, amount_fen, status, code, "
            "created_at, expires_at, notify_url, attach) VALUES (?, ?, ?, ?, ?, ?, 'INIT', ?, ?, ?, ?, ?)",
            (
                fresh_no(call.now, "100"),
                call.app_id,
                number,
                number,
                call.text("service_introduction", 20),
                fen,
                secrets.token_urlsafe(18),
                moment(call.now),
                moment(call.now + holds.AUTHORISE_LIFE),
                call.notify_url,
                call.optional("attach", 256) or "",
            ),
        )
    elif row["amount_fen"] != fen:
        raise BusinessFailure("INVALID_REQUEST", "the same number with other content")
    return service_view(call.db, _needed(call, number))


def query(call: WechatCall) -> Fields:
    """GET by out_order_no."""
    _check_service(call)
    row = _needed(call, call.number("out_order_no"))
    if call.forced is not None:
        raise BusinessFailure("ACQ.SYSTEM_ERROR" if call.forced == "pending" else call.forced, "injected")
    return service_view(call.db, row)


def complete(call: WechatCall) -> Fields:
    """POST …/complete: the sum is named once; the provider collects it, and vouches for nothing more."""
    _check_service(call)
    row = _needed(call, call.number("out_order_no"))
    fen, payments = call.biz.get("total_amount"), call.biz.get("post_payments")
    if type(fen) is not int or fen < 1 or not isinstance(payments, list) or len(payments) != 1:
        raise BadArgument("total_amount")
    if call.bend[0] == "hold_lapses":
        holds.lapse(call.db, str(row["auth_no"]), call.now)
        row = _needed(call, str(row["out_order_no"]))
    if service_state(call.db, row) != "DOING":
        raise BusinessFailure("ORDER_ALREADY_CLOSED", f"the order is {service_state(call.db, row)}")
    if call.forced not in {None, "pending"}:
        raise BusinessFailure(str(call.forced), "injected")
    if fen > row["amount_fen"]:
        raise BusinessFailure("AUTH_AMOUNT_NOT_ENOUGH", "more than the risk fund")
    note = str(payments[0].get("description", ""))[:30]
    call.db.execute("UPDATE hold SET note = ? WHERE auth_no = ?", (note, row["auth_no"]))
    asked = call.asking({"product_code": "PRE_AUTH", "attach": row["attach"]})
    number = f"PS{secrets.token_hex(15)}"
    trade = trades.open_order(asked, "capture", fen, number=number, auth_no=str(row["auth_no"]), complete=True)
    if call.forced is None:
        trades.complete_payment(call.db, str(trade["trade_no"]), None, call.now)
    return service_view(call.db, _needed(call, str(row["out_order_no"])))


def cancel(call: WechatCall) -> Fields:
    """POST …/cancel: ends an order that was not completed."""
    _check_service(call)
    call.text("reason", 50)
    row = _needed(call, call.number("out_order_no"))
    if service_state(call.db, row) not in {"CREATED", "DOING"}:
        raise BusinessFailure("ORDER_ALREADY_CLOSED", f"the order is {service_state(call.db, row)}")
    number = str(row["out_order_no"])
    holds.operation_cancel(call.asking({"out_order_no": number, "out_request_no": number}))
    fields = service_view(call.db, _needed(call, number))
    return {name: fields[name] for name in ("appid", "mchid", "out_order_no", "service_id", "order_id")}


def _check_service(call: WechatCall) -> None:
    merchant = one(call.db, "SELECT service_id FROM wechat_merchant WHERE mchid = ?", call.app_id)
    if merchant is None or not merchant["service_id"] or call.text("service_id", 32) != merchant["service_id"]:
        raise BusinessFailure("NO_AUTH", "商户无支付分权限")
    if call.text("appid", 32) != call.seller_id:
        raise BusinessFailure("APPID_MCHID_NOT_MATCH", "appid和mchid不匹配")


def _row(call: WechatCall, number: str) -> sqlite3.Row | None:
    return one(call.db, "SELECT * FROM hold WHERE app_id = ? AND out_order_no = ?", call.app_id, number)


def _needed(call: WechatCall, number: str) -> sqlite3.Row:
    row = _row(call, number)
    if row is None:
        raise _NO_ORDER
    return row
