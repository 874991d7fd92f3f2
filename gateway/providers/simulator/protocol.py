"""The provider's one gateway URL: verifies a merchant's signature, performs the method, signs the answer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import APIRouter, Request, Response

from gateway.providers.signing import (
    NODE_SUFFIX,
    load_private_key,
    load_public_key,
    sign,
    signing_text,
    verify,
)
from gateway.providers.simulator import holds, trades
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call
from gateway.providers.simulator.database import Database, one

FORM_FIELDS_MAX = 32
HANG_S_MAX = 30.0

METHODS: dict[str, Callable[[Call], dict[str, object]]] = {
    "alipay.trade.pay": trades.pay,
    "alipay.trade.precreate": trades.precreate,
    "alipay.trade.query": trades.query,
    "alipay.trade.cancel": trades.cancel,
    "alipay.trade.refund": trades.refund,
    "alipay.trade.fastpay.refund.query": trades.refund_query,
    "alipay.fund.auth.order.freeze": holds.freeze,
    "alipay.fund.auth.order.voucher.create": holds.voucher_create,
    "alipay.fund.auth.order.unfreeze": holds.unfreeze,
    "alipay.fund.auth.operation.detail.query": holds.detail_query,
    "alipay.fund.auth.operation.cancel": holds.operation_cancel,
}
_NUMBERS = ("out_request_no", "out_trade_no", "out_order_no")


class FaultKind(StrEnum):
    """What can be made to go wrong with a call."""

    TIMEOUT_BEFORE = "timeout_before"
    """No answer, no effect."""
    TIMEOUT_AFTER = "timeout_after"
    """No answer, but the effect happened."""
    FAIL = "fail"
    """A definite business failure with `sub_code`; a payment's or freeze's number stays refused."""
    PENDING = "pending"
    """Payment, capture and freeze wait for the customer; other methods answer SYSTEM_ERROR."""
    HTTP_500 = "http_500"
    """The effect happened; the answer is a server error."""
    BAD_SIGNATURE = "bad_signature"
    """The effect happened; the answer's signature is of another text."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that was due for this call."""

    kind: FaultKind
    sub_code: str


@dataclass(frozen=True, slots=True)
class MerchantApp:
    """A merchant's app with its keys, parsed once."""

    app_id: str
    seller_id: str
    merchant_key: rsa.RSAPublicKey
    provider_key: rsa.RSAPrivateKey


class Simulator:
    """The running provider: its database, its clock and its apps' keys. Everything happens on one event loop."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self.database = database
        self.clock = clock
        self._apps: dict[str, MerchantApp] = {}

    def app(self, app_id: str) -> MerchantApp | None:
        """A registered app, its keys cached until it is registered again."""
        if app_id not in self._apps:
            row = one(self.database.connection, "SELECT * FROM app WHERE app_id = ?", app_id)
            if row is None:
                return None
            self._apps[app_id] = MerchantApp(
                app_id,
                str(row["seller_id"]),
                load_public_key(str(row["merchant_public_pem"])),
                load_private_key(str(row["provider_private_pem"])),
            )
        return self._apps[app_id]

    def forget_app(self, app_id: str) -> None:
        """Read this app's keys again at its next call."""
        self._apps.pop(app_id, None)

    def expire(self, db: sqlite3.Connection) -> datetime:
        """Close what nobody paid or authorised in time; the moment of this transaction."""
        now = self.clock()
        trades.expire(db, now)
        holds.expire(db, now)
        return now

    def due_fault(self, method: str, biz: dict[str, Any]) -> Fault | None:
        """The oldest fault scripted for this method and number, counted down."""
        numbers = [biz[name] for name in _NUMBERS if isinstance(biz.get(name), str)]
        marks = ",".join("?" * len(numbers))
        with self.database.transaction() as db:
            row = one(
                db,
                f"SELECT * FROM fault WHERE method = ? AND times_left > 0 AND number IN ('', {marks or 'NULL'}) "
                "ORDER BY id LIMIT 1",
                method,
                *numbers,
            )
            if row is None:
                return None
            db.execute("UPDATE fault SET times_left = times_left - 1 WHERE id = ?", (row["id"],))
        return Fault(FaultKind(row["kind"]), str(row["sub_code"]))

    def perform(
        self, app: MerchantApp, method: str, biz: dict[str, Any], base_url: str, forced: str | None
    ) -> dict[str, object]:
        """The answer's node. What it says is durable when this returns."""
        try:
            with self.database.transaction() as db:
                now = self.expire(db)
                try:
                    fields = METHODS[method](Call(db, app.app_id, app.seller_id, biz, now, base_url, forced))
                except BusinessFailure as failure:
                    return {
                        "code": "40004",
                        "msg": "Business Failed",
                        "sub_code": failure.sub_code,
                        "sub_msg": failure.sub_msg,
                    }
                except trades.Waiting as waiting:
                    return {"code": "10003", "msg": "order success pay inprocess"} | waiting.fields
        except BadArgument as bad:
            return _invalid(bad.sub_code)
        return {"code": "10000", "msg": "Success"} | fields


def _invalid(sub_code: str) -> dict[str, object]:
    return {"code": "40002", "msg": "Invalid Arguments", "sub_code": sub_code, "sub_msg": sub_code}


def _document(node: str, fields: dict[str, object], key: rsa.RSAPrivateKey | None, spoil: str = "") -> Response:
    raw = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    signature = "" if key is None else f',"sign":"{sign(raw + spoil, key)}"'
    return Response(f'{{"{node}":{raw}{signature}}}', media_type="application/json;charset=utf-8")


def _form(query: str, body: bytes) -> dict[str, str] | None:
    """The parameters. Like the real gateway: some clients put a part, or all, into the query string."""
    try:
        pairs = parse_qsl(
            "&".join(part for part in (query, body.decode("ascii")) if part),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )
    except ValueError:
        return None
    form = dict(pairs)
    return form if len(form) == len(pairs) else None


def _check_envelope(form: dict[str, str], app: MerchantApp) -> str | None:
    """The sub-code of what is wrong with a form, None when it is signed and well-formed."""
    if form.get("sign_type") != "RSA2":
        return "isv.invalid-signature-type"
    if not verify(signing_text(form), form.get("sign", ""), app.merchant_key):
        return "isv.invalid-signature"
    expected = {"charset": "utf-8", "version": "1.0"}
    for name, value in expected.items():
        if form.get(name) != value:
            return f"isv.invalid-{name}"
    if form.get("format", "JSON") != "JSON":
        return "isv.invalid-format"
    try:
        datetime.strptime(form.get("timestamp", ""), "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007  # shape only
    except ValueError:
        return "isv.invalid-timestamp"
    return None if form.get("method") in METHODS else "isv.invalid-method"


def gateway_router() -> APIRouter:
    """`/gateway.do`, by POST or GET. A GET is signed like any other call, so no foreign page can make one."""
    router = APIRouter()

    @router.api_route("/gateway.do", methods=["POST", "GET"])
    async def gateway(request: Request) -> Response:
        simulator: Simulator = request.app.state.simulator
        form = _form(request.url.query, await request.body())
        if form is None:
            return _document("error_response", _invalid("isv.invalid-parameter"), None)
        app = simulator.app(form.get("app_id", ""))
        if app is None:
            # No app, no key to sign with: the merchant cannot trust this answer, as with the real one.
            return _document("error_response", _invalid("isv.invalid-app-id"), None)
        method = form.get("method", "")
        wrong = _check_envelope(form, app)
        node = method.replace(".", "_") + NODE_SUFFIX if method in METHODS else "error_response"
        if wrong is not None:
            return _document(node, _invalid(wrong), app.provider_key)
        try:
            biz = json.loads(form.get("biz_content", ""))
        except (ValueError, RecursionError):
            biz = None
        if not isinstance(biz, dict):
            return _document(node, _invalid("isv.invalid-biz-content"), app.provider_key)
        fault = simulator.due_fault(method, biz)
        if fault is not None and fault.kind is FaultKind.TIMEOUT_BEFORE:
            return await _hang(request)
        forced = {FaultKind.FAIL: fault.sub_code, FaultKind.PENDING: "pending"}.get(fault.kind) if fault else None
        fields = simulator.perform(app, method, biz, str(request.base_url).rstrip("/"), forced)
        if fault is not None and fault.kind is FaultKind.TIMEOUT_AFTER:
            return await _hang(request)
        if fault is not None and fault.kind is FaultKind.HTTP_500:
            return Response("internal error", status_code=500)
        spoil = " " if fault is not None and fault.kind is FaultKind.BAD_SIGNATURE else ""
        return _document(node, fields, app.provider_key, spoil)

    return router


async def _hang(request: Request) -> Response:
    """Say nothing until the merchant gives up, HANG_S_MAX at most."""
    try:
        async with asyncio.timeout(HANG_S_MAX):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass
    return Response(status_code=504)
