"""Notifications to merchants: kept with what they tell of, signed and sent until the merchant says `success`.

Sends: at once, then after 2, 10 and 10 minutes, 1, 2, 6 and 15 hours: eight within 25 hours (opendocs.alipay.com,
"异步通知说明"). The provider's own clock counts.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.providers.amounts import format_yuan
from gateway.providers.signing import notification_text, sign
from gateway.providers.simulator import faults, wechat_notices
from gateway.providers.simulator.calls import local_time
from gateway.providers.simulator.database import Database, moment, one
from gateway.providers.simulator.faults import Fault, FaultKind
from gateway.providers.simulator.wechat_merchants import WechatMerchant, is_merchant

log = structlog.get_logger()

PAUSES = tuple(timedelta(minutes=m) for m in (2, 10, 10, 60, 120, 360, 900))
SENDS_MAX = 1 + len(PAUSES)
SEND_TIMEOUT_S = 5.0
BATCH_NOTICES_MAX = 32
KEPT = timedelta(days=30)
URL_LENGTH_MAX = 256
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def url_of(text: str) -> str:
    """A `notify_url` worth calling, or ""."""
    return text if text.startswith(("http://", "https://")) and len(text) <= URL_LENGTH_MAX else ""


def announce(
    db: sqlite3.Connection, app_id: str, url: str, kind: str, number: str, fields: Mapping[str, object], now: datetime
) -> None:
    """Tell the merchant, from the moment that this transaction is committed on. Without an address: nobody."""
    if not url:
        return
    notify_id = f"{now:%Y%m%d}{secrets.token_hex(13)}"
    fault = faults.due(db, faults.NOTIFY, {"out_trade_no": number})
    late = timedelta(seconds=fault.value if fault is not None and fault.kind is FaultKind.DELAYED else 0)
    if fault is not None and fault.kind is not FaultKind.DELAYED:
        fields = {**fields, FAULT: f"{fault.kind.value}"}
    db.execute(
        "INSERT INTO notice (notify_id, app_id, url, kind, number, form, state, next_at, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?, ?)",
        (notify_id, app_id, url, kind, number, json.dumps(fields, ensure_ascii=False), moment(now + late), moment(now)),
    )


FAULT = "#fault"
"""Not a field: how the first sending goes wrong."""


def trade(db: sqlite3.Connection, row: sqlite3.Row, now: datetime, refund: sqlite3.Row | None = None) -> None:
    """An order was paid, refunded or closed."""
    if is_merchant(db, row["app_id"]):
        event = wechat_notices.trade(db, row, refund)
        if event is not None:
            announce(db, row["app_id"], row["notify_url"], event[0], row["out_trade_no"], event[1], now)
        return
    seller = one(db, "SELECT seller_id FROM app WHERE app_id = ?", row["app_id"])
    assert seller is not None
    fields: dict[str, object] = {
        "trade_no": row["trade_no"],
        "out_trade_no": row["out_trade_no"],
        "seller_id": seller["seller_id"],
        "subject": row["subject"],
        "trade_status": row["status"],
        "total_amount": format_yuan(int(row["total_fen"])),
        "gmt_create": local_time(str(row["created_at"])),
    }
    if row["paid_at"]:
        total, given = int(row["total_fen"]), int(row["promotion_fen"]) + int(row["discount_fen"])
        fields |= {
            "buyer_id": row["user_id"],
            "receipt_amount": format_yuan(total - int(row["discount_fen"])),
            "buyer_pay_amount": format_yuan(total - given),
            "invoice_amount": format_yuan(total - given),
            "gmt_payment": local_time(str(row["paid_at"])),
        }
    if refund is not None:
        fields |= {
            "out_biz_no": refund["out_request_no"],
            "refund_fee": format_yuan(int(row["refunded_fen"])),
            "gmt_refund": local_time(str(refund["at"])),
        }
    announce(db, row["app_id"], row["notify_url"], "trade_status_sync", row["out_trade_no"], fields, now)


def hold(db: sqlite3.Connection, row: sqlite3.Row, operation: str, request_no: str, fen: int, now: datetime) -> None:
    """A hold was placed, or a part of it released."""
    if is_merchant(db, row["app_id"]):
        event = wechat_notices.hold(db, row, operation)
        if event is not None:
            announce(db, row["app_id"], row["notify_url"], event[0], row["out_order_no"], event[1], now)
        return
    rest = int(row["amount_fen"]) - int(row["captured_fen"]) - int(row["released_fen"])
    fields: dict[str, object] = {
        "auth_no": row["auth_no"],
        "out_order_no": row["out_order_no"],
        "out_request_no": request_no,
        "operation_type": operation,
        "amount": format_yuan(fen),
        "status": "SUCCESS",
        "payer_user_id": row["user_id"],
        "rest_amount": format_yuan(rest if row["status"] == "AUTHORIZED" else 0),
        "gmt_create": local_time(str(row["created_at"])),
        "gmt_trans": local_time(moment(now)),
    }
    kind = f"fund_auth_{operation.lower()}"
    announce(db, row["app_id"], row["notify_url"], kind, row["out_order_no"], fields, now)


class Courier:
    """Sends what is due. One at a time, on the event loop of the database."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        key_of: Callable[[str], rsa.RSAPrivateKey | None],
        wall: Callable[[], datetime],
        wechat_of: Callable[[str], WechatMerchant | None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._key_of = key_of
        self._wall = wall
        self._wechat_of = wechat_of
        self._one_at_a_time = asyncio.Lock()
        self._http = httpx.AsyncClient(timeout=SEND_TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def deliver(self) -> int:
        """Send what is due now, oldest first; how many were sent."""
        async with self._one_at_a_time:
            due = self._database.connection.execute(
                "SELECT * FROM notice WHERE state = 'waiting' AND next_at <= ? ORDER BY next_at, id LIMIT ?",
                (moment(self._clock()), BATCH_NOTICES_MAX),
            ).fetchall()
            for row in due:
                await self._send(row)
            return len(due)

    async def _send(self, row: sqlite3.Row) -> None:
        fields: dict[str, object] = json.loads(row["form"])
        fault = Fault(FaultKind(str(fields.pop(FAULT))), "") if FAULT in fields else None
        if row["sends"]:
            fault = None  # a fault strikes the first sending; the repetitions are what heals it
        said = "lost"
        spoil = fault is not None and fault.kind is FaultKind.BAD_SIGNATURE
        merchant = self._wechat_of(str(row["app_id"]))
        if fault is None or fault.kind is not FaultKind.LOST:
            if merchant is None:
                body, headers = urlencode(self._signed(row, fields, spoil=spoil)).encode(), FORM
            else:
                body, headers = wechat_notices.message(merchant, row, fields, spoil=spoil, wall=self._wall())
            said = await self._post(str(row["url"]), body, headers)
            if fault is not None and fault.kind is FaultKind.DUPLICATE:
                said = await self._post(str(row["url"]), body, headers)
        accepted = said == "success" if merchant is None else said in wechat_notices.ACCEPTED
        self._note(row, said, accepted=accepted, pauses=PAUSES if merchant is None else wechat_notices.PAUSES)

    def _signed(self, row: sqlite3.Row, fields: dict[str, object], *, spoil: bool) -> dict[str, str]:
        now = local_time(moment(self._clock()))
        app_id = str(row["app_id"])
        form = {name: str(value) for name, value in fields.items() if value is not None}
        form |= {"notify_id": str(row["notify_id"]), "app_id": app_id, "charset": "utf-8", "sign_type": "RSA2"}
        if "msg_method" in form:
            form |= {"version": "1.1", "utc_timestamp": str(int(self._clock().timestamp() * 1000))}
        else:
            form |= {"version": "1.0", "notify_type": str(row["kind"]), "notify_time": now, "auth_app_id": app_id}
        key = self._key_of(app_id)
        assert key is not None
        form["sign"] = sign(notification_text(form) + (" " if spoil else ""), key)
        return form

    async def _post(self, url: str, content: bytes, headers: Mapping[str, str]) -> str:
        try:
            async with self._http.stream("POST", url, content=content, headers=headers) as response:
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > 64:
                        break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__
        if response.status_code != httpx.codes.OK:
            return f"http {response.status_code}"
        return body[:64].decode("utf-8", "replace")

    def _note(self, row: sqlite3.Row, said: str, *, accepted: bool, pauses: tuple[timedelta, ...]) -> None:
        sends = int(row["sends"]) + 1
        state, next_at = "waiting", str(row["next_at"])
        if accepted:
            state = "accepted"
        elif sends > len(pauses):
            state = "given_up"
        else:
            next_at = moment(self._clock() + pauses[sends - 1])
        with self._database.transaction() as db:
            db.execute(
                "UPDATE notice SET sends = ?, state = ?, next_at = ?, said = ? WHERE id = ?",
                (sends, state, next_at, said, row["id"]),
            )
            db.execute(
                "DELETE FROM notice WHERE state <> 'waiting' AND created_at < ?", (moment(self._clock() - KEPT),)
            )
        log.debug("notified", number=row["number"], kind=row["kind"], sends=sends, said=said)
