"""Alipay's notifications: a signed form, believed only with the provider's key, and only about our own seller and app.

Two shapes (opendocs.alipay.com, "异步通知", "消息服务"): `notify_type` with its fields beside it (trade_status_sync,
fund_auth_*, dut_user_*), and `msg_method` with `biz_content` for messages that belong to no request. The names of the
credit product's messages are not in the official SDK: zhima.credit.pe.zmgo.agreement.signed, .expired, .settled are
the ones that the simulator sends; others are refused by name until they are added here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.providers.alipay_calls import fen_of, our_number
from gateway.providers.alipay_gateway import PROVIDER_ZONE
from gateway.providers.signing import notification_text, verify
from models.domain.notices import Distrusted, Notice, NoticeKind
from models.domain.payments import AgreementResult, AgreementState

FIELDS_MAX = 64
BODY_BYTES_MAX = 32 * 1024
_ZMGO = "zhima.credit.pe.zmgo.agreement."
_ZMGO_STATES = {
    "signed": AgreementState.ACTIVE,
    "expired": AgreementState.EXPIRED,
    "settled": AgreementState.ENDED,
}
_KINDS = {
    "trade_status_sync": NoticeKind.PAYMENT,
    "fund_auth_freeze": NoticeKind.HOLD,
    "fund_auth_unfreeze": NoticeKind.RELEASE,
    "dut_user_sign": NoticeKind.AGREEMENT,
    "dut_user_unsign": NoticeKind.AGREEMENT,
}


class AlipayNotifications:
    """Reads the notifications of one merchant account. See `Notifications` for the promises."""

    def __init__(self, app_id: str, seller_id: str, provider_key: rsa.RSAPublicKey) -> None:
        self._app_id = app_id
        self._seller_id = seller_id
        self._provider_key = provider_key

    def notification(self, headers: Mapping[str, str], body: bytes) -> Notice | Distrusted:  # noqa: ARG002 - the port's
        form = _form(body)
        if form is None:
            return Distrusted("malformed")
        if form.get("sign_type") != "RSA2" or not verify(
            notification_text(form), form.get("sign", ""), self._provider_key
        ):
            return Distrusted("signature")
        if form.get("app_id") != self._app_id or form.get("auth_app_id", self._app_id) != self._app_id:
            return Distrusted("another_app")
        if form.get("seller_id", self._seller_id) != self._seller_id:
            return Distrusted("another_seller")
        try:
            return self._credit(form) if "msg_method" in form else self._notice(form)
        except (AttributeError, KeyError, ValueError, TypeError):
            return Distrusted("malformed")

    def accepted(self) -> bytes:
        return b"success"

    def _notice(self, form: dict[str, str]) -> Notice | Distrusted:
        kind = _KINDS.get(form["notify_type"])
        if kind is None:
            return Distrusted(f"unknown_kind:{form['notify_type'][:64]}")
        number, request_no, provider_no, amount, agreement = "", "", "", "amount", None
        match kind:
            case NoticeKind.PAYMENT:
                number, provider_no, amount = form["out_trade_no"], form["trade_no"], "total_amount"
                if "out_biz_no" in form or "refund_fee" in form:
                    # refund_fee is the sum of the order's refunds, so it is no amount of this one.
                    kind, request_no, amount = NoticeKind.REFUND, form.get("out_biz_no", ""), ""
            case NoticeKind.HOLD | NoticeKind.RELEASE:
                number, request_no, provider_no = form["out_order_no"], form["out_request_no"], form["auth_no"]
            case _:
                number, provider_no, amount = form["external_agreement_no"], form["agreement_no"], ""
                state = AgreementState.ACTIVE if form["status"] == "NORMAL" else AgreementState.ENDED
                agreement = AgreementResult(provider_no, form["alipay_user_id"], state)
        return Notice(
            id=form["notify_id"],
            kind=kind,
            account=self._app_id,
            number=our_number(number),
            request_no=our_number(request_no),
            provider_no=provider_no,
            status=form.get("trade_status") or form.get("status", ""),
            fen=_needed_fen(form, amount) if amount else None,
            at=_moment(form["notify_time"]),
            agreement=agreement,
        )

    def _credit(self, form: dict[str, str]) -> Notice | Distrusted:
        event = form["msg_method"].removeprefix(_ZMGO)
        if event not in _ZMGO_STATES or not form["msg_method"].startswith(_ZMGO):
            return Distrusted(f"unknown_kind:{form['msg_method'][:64]}")
        content: dict[str, Any] = json.loads(form["biz_content"])
        plan_no = content.get("withhold_plan_no")
        settled = event == "settled"
        return Notice(
            id=form["notify_id"],
            kind=NoticeKind.SETTLEMENT if settled else NoticeKind.AGREEMENT,
            account=self._app_id,
            number=our_number(content["settle_request_no"] if settled else content["out_request_no"]),
            request_no="",
            provider_no=str(content["agreement_id"]),
            status=str(content["settle_status"] if settled else content["agreement_status"]),
            fen=_needed_fen(content, "pay_amount") if settled else None,
            at=datetime.fromtimestamp(int(form["utc_timestamp"]) / 1000, UTC),
            agreement=AgreementResult(
                str(content["agreement_id"]),
                str(content["alipay_user_id"]),
                _ZMGO_STATES[event],
                settlement_no=None if plan_no is None else str(plan_no),
            ),
        )


def account_of(body: bytes) -> str | None:
    """The app that a notification says it is for; not verified. None when it names none."""
    form = _form(body)
    return None if form is None else form.get("app_id")


def _form(body: bytes) -> dict[str, str] | None:
    if len(body) > BODY_BYTES_MAX:
        return None
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        return None
    form = dict(pairs)
    return form if len(form) == len(pairs) else None


def _needed_fen(fields: Mapping[str, Any], name: str) -> int:
    fen = fen_of(fields, name)
    if fen is None:
        raise ValueError(name)
    return fen


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=PROVIDER_ZONE).astimezone(UTC)
