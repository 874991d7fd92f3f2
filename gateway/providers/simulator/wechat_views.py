"""Orders, refunds and service orders as WeChat's answers and notifications show them."""

from __future__ import annotations

import sqlite3
from typing import Any

from gateway.providers.simulator.database import one
from gateway.providers.simulator.wechat_times import rfc3339

TYPES = {"pay": "MICROPAY", "precreate": "NATIVE", "capture": "AUTO"}
Fields = dict[str, Any]


def order_view(row: sqlite3.Row, mchid: str, appid: str) -> Fields:
    """An order as every answer and notification shows it."""
    state = trade_state(row)
    if state == "USERPAYING":
        return {"trade_state": state}
    fields: Fields = {
        "appid": appid,
        "mchid": mchid,
        "out_trade_no": row["out_trade_no"],
        "trade_state": state,
        "trade_state_desc": state,
        "trade_type": TYPES.get(str(row["kind"]), ""),
    }
    return fields | paid_view(row) if row["paid_at"] else fields


def paid_view(row: sqlite3.Row) -> Fields:
    """What is known of an order once it was paid."""
    total, promotion, discount = int(row["total_fen"]), int(row["promotion_fen"]), int(row["discount_fen"])
    fields: Fields = {
        "transaction_id": row["trade_no"],
        "attach": row["attach"],
        "bank_type": "OTHERS",
        "success_time": rfc3339(str(row["paid_at"])),
        "payer": {"openid": row["user_id"]},
        "amount": {
            "total": total,
            "payer_total": total - promotion - discount,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    }
    parts = [_promotion(promotion, "CASH", "wechatpay_contribute")] if promotion else []
    parts += [_promotion(discount, "NOCASH", "merchant_contribute")] if discount else []
    return fields | {"promotion_detail": parts} if parts else fields


def refund_fields(row: sqlite3.Row, made: sqlite3.Row) -> Fields:
    """A refund of an order, without what answers and notifications name differently."""
    return {
        "refund_id": f"5{made['id']:027d}",
        "out_refund_no": made["out_request_no"],
        "transaction_id": row["trade_no"],
        "out_trade_no": row["out_trade_no"],
        "success_time": rfc3339(str(made["at"])),
        "amount": {"total": row["total_fen"], "refund": made["fen"], "payer_total": row["total_fen"]},
    }


def trade_state(row: sqlite3.Row) -> str:
    """`trade_state`."""
    if row["status"] == "WAIT_BUYER_PAY":
        return "NOTPAY" if row["kind"] == "precreate" else "USERPAYING"
    if row["cancel_action"]:
        return "REVOKED"
    if row["paid_at"]:
        return "REFUND" if row["refunded_fen"] else "SUCCESS"
    return "PAYERROR" if row["failure"] else "CLOSED"


def service_view(db: sqlite3.Connection, row: sqlite3.Row) -> Fields:
    """A service order as every answer and notification shows it."""
    merchant = one(db, "SELECT * FROM wechat_merchant WHERE mchid = ?", row["app_id"])
    assert merchant is not None
    state = service_state(db, row)
    fields: Fields = {
        "appid": merchant["appid"],
        "mchid": row["app_id"],
        "service_id": merchant["service_id"],
        "out_order_no": row["out_order_no"],
        "order_id": row["auth_no"],
        "service_introduction": row["title"],
        "attach": row["attach"],
        "state": state,
        "risk_fund": {"name": "ESTIMATE_ORDER_COST", "amount": row["amount_fen"]},
    }
    if state == "CREATED":
        fields["package"] = row["code"]
    if row["frozen_at"]:
        fields["openid"] = row["user_id"]
    trade = _collecting(db, row)
    if trade is not None:
        fen, paid = trade["total_fen"], bool(trade["paid_at"])
        collection = {
            "state": "USER_PAID" if paid else "USER_PAYING",
            "total_amount": fen,
            "paid_amount": fen if paid else 0,
            "paying_amount": 0 if paid else fen,
            "details": [{"seq": 1, "amount": fen, "transaction_id": trade["trade_no"]}] if paid else [],
        }
        payment = {"name": row["title"], "description": row["note"], "amount": fen}
        fields |= {"total_amount": fen, "need_collection": True, "collection": collection, "post_payments": [payment]}
    return fields


def service_state(db: sqlite3.Connection, row: sqlite3.Row) -> str:
    """`state` of a service order."""
    if row["cancel_action"]:
        return "REVOKED"
    if _collecting(db, row) is not None:
        return "DONE"
    return {"INIT": "CREATED", "AUTHORIZED": "DOING"}.get(str(row["status"]), "EXPIRED")


def _promotion(fen: int, kind: str, who: str) -> Fields:
    return {"coupon_id": "1", "name": "promotion", "scope": "GLOBAL", "type": kind, "amount": fen, who: fen}


def _collecting(db: sqlite3.Connection, row: sqlite3.Row) -> sqlite3.Row | None:
    return one(db, "SELECT * FROM trade WHERE auth_no = ? AND failure IS NULL", row["auth_no"])
