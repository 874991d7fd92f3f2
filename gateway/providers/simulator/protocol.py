"""The provider's one gateway URL: verifies a merchant's signature, performs the method, signs the answer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.providers.signing import (
    NODE_SUFFIX,
    load_private_key,
    load_public_key,
    sign,
    signing_text,
    verify,
)
from gateway.providers.simulator import (
    agreements,
    bill,
    credit,
    faults,
    holds,
    notices,
    settings,
    settling,
    trades,
    wechat_merchants,
    wechat_names,
)
from gateway.providers.simulator.calls import BadArgument, BusinessFailure, Call
from gateway.providers.simulator.database import Database, one
from gateway.providers.simulator.faults import Fault, FaultKind

FORM_FIELDS_MAX = 32
HANG_S_MAX = 30.0

METHODS: dict[str, Callable[[Call], dict[str, object]]] = {
    "alipay.trade.pay": trades.pay,
    "alipay.trade.precreate": trades.precreate,
    "alipay.trade.query": trades.query,
    "alipay.trade.cancel": trades.cancel,
    "alipay.trade.close": trades.close,
    "alipay.trade.refund": trades.refund,
    "alipay.trade.fastpay.refund.query": trades.refund_query,
    "alipay.fund.auth.order.freeze": holds.freeze,
    "alipay.fund.auth.order.voucher.create": holds.voucher_create,
    "alipay.fund.auth.order.unfreeze": holds.unfreeze,
    "alipay.fund.auth.operation.detail.query": holds.detail_query,
    "alipay.fund.auth.operation.cancel": holds.operation_cancel,
    "alipay.user.agreement.page.sign": agreements.page_sign,
    "alipay.user.agreement.query": agreements.query,
    "alipay.user.agreement.unsign": agreements.unsign,
    "zhima.credit.pe.zmgo.pre.consult": credit.pre_consult,
    "zhima.credit.pe.zmgo.sign.apply": credit.sign_apply,
    "zhima.credit.pe.zmgo.agreement.query": credit.agreement_query,
    "zhima.merchant.zmgo.cumulate.sync": credit.cumulate_sync,
    "zhima.credit.pe.zmgo.settle.apply": settling.settle_apply,
    "zhima.credit.pe.zmgo.settle.refund": settling.settle_refund,
    "alipay.data.dataservice.bill.downloadurl.query": bill.download_url,
}
FAULTY = frozenset(METHODS) | wechat_names.NAMES
"""What faults may strike, at either provider."""
PAGES = frozenset({"alipay.user.agreement.page.sign", "zhima.credit.pe.zmgo.sign.apply"})
"""Methods that a customer's browser opens: answered by sending it to the page."""
BENDING = frozenset({FaultKind.PROMOTION, FaultKind.DISCOUNT, FaultKind.HOLD_LAPSES})


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
        self._clock = clock
        self._ahead = timedelta(seconds=settings.get(database.connection, "clock_offset_s"))
        self.courier = notices.Courier(database, self.clock, self._key_of, clock, self.wechat)
        self._apps: dict[str, MerchantApp] = {}
        self._wechat: dict[str, wechat_merchants.WechatMerchant | None] = {}

    def clock(self) -> datetime:
        """Now, by the provider's own clock."""
        return self._clock() + self._ahead

    def wall(self) -> datetime:
        """Now, as signatures are stamped: the time that nobody moves on."""
        return self._clock()

    def wechat(self, mchid: str) -> wechat_merchants.WechatMerchant | None:
        """A registered WeChat merchant, its keys cached until it is registered again."""
        if mchid not in self._wechat:
            self._wechat[mchid] = wechat_merchants.load(self.database.connection, mchid)
        return self._wechat[mchid]

    def advance(self, by: timedelta) -> datetime:
        """Move the clock on; what became due meanwhile expires. Raises ValueError beyond ten years."""
        with self.database.transaction() as db:
            settings.put(db, "clock_offset_s", int((self._ahead + by).total_seconds()))
        self._ahead += by
        with self.database.transaction() as db:
            return self.expire(db)

    def _key_of(self, app_id: str) -> rsa.RSAPrivateKey | None:
        app = self.app(app_id)
        return None if app is None else app.provider_key

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
        self._wechat.pop(app_id, None)

    def expire(self, db: sqlite3.Connection) -> datetime:
        """Close what nobody paid or authorised in time; the moment of this transaction."""
        now = self.clock()
        trades.expire(db, now)
        holds.expire(db, now)
        agreements.expire(db, now)
        credit.expire(db, now)
        return now

    def due_fault(self, method: str, biz: dict[str, Any]) -> Fault | None:
        """The fault for this call, if one is due; counted."""
        with self.database.transaction() as db:
            return faults.due(db, method, biz)

    def perform(
        self, app: MerchantApp, method: str, biz: dict[str, Any], base_url: str, notify_url: str, fault: Fault | None
    ) -> dict[str, object]:
        """The answer's node. What it says is durable when this returns."""
        forced = {FaultKind.FAIL: fault.sub_code, FaultKind.PENDING: "pending"}.get(fault.kind) if fault else None
        bend = (fault.kind.value, fault.value) if fault is not None and fault.kind in BENDING else ("", 0)
        try:
            with self.database.transaction() as db:
                now = self.expire(db)
                try:
                    call = Call(db, app.app_id, app.seller_id, biz, now, base_url, forced, notify_url, bend)
                    fields = METHODS[method](call)
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
            return await hang(request)
        base_url, notify_url = str(request.base_url).rstrip("/"), notices.url_of(form.get("notify_url", ""))
        fields = simulator.perform(app, method, biz, base_url, notify_url, fault)
        if method in PAGES and "page" in fields:
            return RedirectResponse(str(fields["page"]), status_code=303)
        if fault is not None and fault.kind is FaultKind.TIMEOUT_AFTER:
            return await hang(request)
        if fault is not None and fault.kind is FaultKind.HTTP_500:
            return Response("internal error", status_code=500)
        spoil = " " if fault is not None and fault.kind is FaultKind.BAD_SIGNATURE else ""
        return _document(node, fields, app.provider_key, spoil)

    return router


async def hang(request: Request) -> Response:
    """Say nothing until the merchant gives up, HANG_S_MAX at most."""
    try:
        async with asyncio.timeout(HANG_S_MAX):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass
    return Response(status_code=504)
