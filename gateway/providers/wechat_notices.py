"""WeChat Pay's notifications: signed JSON, its resource sealed; believed only about our own merchant and app.

Source: pay.weixin.qq.com, "支付成功回调通知", "退款结果回调通知", "支付分订单回调通知". Accepted by HTTP 200 or 204.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.providers.wechat_calls import fen_of, our_number
from gateway.providers.wechat_signing import distrust, unseal
from models.domain.notices import Distrusted, Notice, NoticeKind

BODY_BYTES_MAX = 32 * 1024
_KINDS = {
    "TRANSACTION.SUCCESS": NoticeKind.PAYMENT,
    "REFUND.SUCCESS": NoticeKind.REFUND,
    "REFUND.ABNORMAL": NoticeKind.REFUND,
    "REFUND.CLOSED": NoticeKind.REFUND,
    "PAYSCORE.USER_CONFIRM": NoticeKind.HOLD,
    "PAYSCORE.USER_PAID": NoticeKind.HOLD,
}


class WechatNotifications:
    """Reads the notifications of one merchant account. See `Notifications` for the promises."""

    def __init__(
        self,
        mchid: str,
        appid: str,
        api_key: str,
        platform_serial: str,
        platform_key: rsa.RSAPublicKey,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._mchid = mchid
        self._appid = appid
        self._api_key = api_key
        self._serial = platform_serial
        self._key = platform_key
        self._clock = clock

    def notification(self, headers: Mapping[str, str], body: bytes) -> Notice | Distrusted:
        if len(body) > BODY_BYTES_MAX:
            return Distrusted("malformed")
        why = distrust(headers, body, key=self._key, serial=self._serial, now=self._clock())
        if why:
            return Distrusted(why)
        try:
            event: dict[str, Any] = json.loads(body)
            plain = unseal(event["resource"], api_key=self._api_key)
            if plain is None:
                return Distrusted("seal")
            return self._notice(event, json.loads(plain))
        except (AttributeError, KeyError, ValueError, TypeError, RecursionError):
            return Distrusted("malformed")

    def accepted(self) -> bytes:
        return b""

    def _notice(self, event: Mapping[str, Any], told: Mapping[str, Any]) -> Notice | Distrusted:
        kind = _KINDS.get(event["event_type"])
        if kind is None:
            return Distrusted(f"unknown_kind:{str(event['event_type'])[:64]}")
        if told["mchid"] != self._mchid:
            return Distrusted("another_seller")
        if told.get("appid", self._appid) != self._appid:
            return Distrusted("another_app")
        match kind:
            case NoticeKind.PAYMENT:
                order, provider_no, status = told["out_trade_no"], told["transaction_id"], told["trade_state"]
                fen = fen_of(told["amount"], "total")
            case NoticeKind.REFUND:
                order, provider_no, status = told["out_trade_no"], told["transaction_id"], told["refund_status"]
                fen = None  # as of an order's refunds in other protocols: what it means is read by the query
            case _:
                order, provider_no, status = told["out_order_no"], told["order_id"], told["state"]
                fen = fen_of(told["risk_fund"], "amount")
        if kind is not NoticeKind.REFUND and fen is None:
            return Distrusted("malformed")
        return Notice(
            id=str(event["id"]),
            kind=kind,
            account=self._mchid,
            number=our_number(told.get("attach"), order),
            request_no=our_number(None, told.get("out_refund_no")),
            provider_no=str(provider_no),
            status=str(status),
            fen=fen,
            at=datetime.fromisoformat(event["create_time"]).astimezone(UTC),
        )


def serial_of(headers: Mapping[str, str]) -> str:
    """The key that a notification says it was signed with; not verified. It is one merchant's."""
    return {name.lower(): value for name, value in headers.items()}.get("wechatpay-serial", "")
