"""WeChat's notifications: what a merchant is told of orders, refunds and service orders, sealed under its key.

Sends: at once, then as pay.weixin.qq.com says ("支付成功回调通知"): fifteen more within 24 hours and 4 minutes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from gateway.providers.simulator.wechat_merchants import WechatMerchant
from gateway.providers.simulator.wechat_times import rfc3339
from gateway.providers.simulator.wechat_views import TYPES, paid_view, refund_fields, service_view, trade_state
from gateway.providers.wechat_signing import seal, told_headers

PAUSES = tuple(
    timedelta(seconds=s)
    for s in (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
)
ACCEPTED = frozenset({"", "http 204"})
"""What a merchant's answer is noted as when it is 200 with nothing in it, or 204."""


def trade(db: sqlite3.Connection, row: sqlite3.Row, refund: sqlite3.Row | None) -> tuple[str, dict[str, Any]] | None:
    """The event of an order that was paid or refunded; None for what nobody is told of (closings, reversals)."""
    appid = db.execute("SELECT appid FROM wechat_merchant WHERE mchid = ?", (row["app_id"],)).fetchone()["appid"]
    if refund is not None and refund["kind"] == "refund":
        told = refund_fields(row, refund) | {"mchid": row["app_id"], "refund_status": "SUCCESS"}
        return "REFUND.SUCCESS", told
    if refund is not None or not row["paid_at"] or row["status"] != "TRADE_SUCCESS":
        return None
    told = {"appid": appid, "mchid": row["app_id"], "out_trade_no": row["out_trade_no"]}
    told |= {"trade_state": trade_state(row), "trade_type": TYPES.get(str(row["kind"]), "")}
    return "TRANSACTION.SUCCESS", told | paid_view(row)


def hold(db: sqlite3.Connection, row: sqlite3.Row, operation: str) -> tuple[str, dict[str, Any]] | None:
    """The event of a service order that was confirmed."""
    return ("PAYSCORE.USER_CONFIRM", service_view(db, row)) if operation == "FREEZE" else None


def message(
    merchant: WechatMerchant, row: sqlite3.Row, told: Mapping[str, Any], *, spoil: bool, wall: datetime
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of one sending of a kept notification."""
    kind = str(row["kind"])
    document = {
        "id": str(row["notify_id"])[:36],
        "create_time": rfc3339(str(row["created_at"])),
        "resource_type": "encrypt-resource",
        "event_type": kind,
        "summary": kind,
        "resource": {"original_type": kind.partition(".")[0].lower()}
        | seal(json.dumps(told, ensure_ascii=False), api_key=merchant.api_key, associated_data="transaction"),
    }
    body = json.dumps(document, ensure_ascii=False)
    headers = told_headers(
        body + (" " if spoil else ""), key=merchant.platform_key, serial=merchant.platform_serial, now=wall
    )
    return body.encode(), headers | {"Content-Type": "application/json"}
