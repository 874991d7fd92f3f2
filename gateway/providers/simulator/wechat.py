"""WeChat's protocol door: verifies a merchant's signature, performs the call, signs what it answers. Under /wechat."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import IO, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.providers.signing import (
    generate_private_key,
    load_private_key,
    load_public_key,
    private_key_pem,
    public_key_pem,
    verify,
)
from gateway.providers.simulator import notices, wechat_bill, wechat_merchants, wechat_names, wechat_orders
from gateway.providers.simulator import wechat_score as score
from gateway.providers.simulator.calls import BadArgument, BusinessFailure
from gateway.providers.simulator.database import one
from gateway.providers.simulator.faults import Fault, FaultKind
from gateway.providers.simulator.protocol import BENDING, Simulator, hang
from gateway.providers.simulator.wechat_calls import WechatCall, invalid, refusal
from gateway.providers.simulator.wechat_merchants import WechatMerchant
from gateway.providers.wechat_signing import authorization_parts, is_fresh, request_text, told_headers

_ORDER, _SERVICE = r"/v3/pay/transactions/out-trade-no/(?P<out_trade_no>[^/]+)", "/v3/payscore/serviceorder"
_ONE_SERVICE = _SERVICE + "/(?P<out_order_no>[^/]+)"
_REFUNDS = "/v3/refund/domestic/refunds"
CHUNK_BYTES = 256 * 1024
Answer = tuple[int, dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class _Method:
    verb: str
    path: re.Pattern[str]
    name: str
    perform: Callable[[WechatCall], dict[str, Any] | None]


def _method(verb: str, path: str, name: str, perform: Callable[[WechatCall], dict[str, Any] | None]) -> _Method:
    return _Method(verb, re.compile(path), name, perform)


METHODS = (
    _method("POST", "/v3/pay/transactions/codepay", wechat_names.CODEPAY, wechat_orders.codepay),
    _method("POST", "/v3/pay/transactions/native", wechat_names.NATIVE, wechat_orders.native),
    _method("GET", _ORDER, wechat_names.QUERY, wechat_orders.query),
    _method("POST", _ORDER + "/close", wechat_names.CLOSE, wechat_orders.close),
    _method("POST", _ORDER + "/reverse", wechat_names.REVERSE, wechat_orders.reverse),
    _method("POST", _REFUNDS, wechat_names.REFUND, wechat_orders.refund),
    _method("GET", _REFUNDS + "/(?P<out_refund_no>[^/]+)", wechat_names.REFUND_QUERY, wechat_orders.refund_query),
    _method("POST", _SERVICE, wechat_names.CREATE, score.create),
    _method("GET", _SERVICE, wechat_names.READ, score.query),
    _method("POST", _ONE_SERVICE + "/complete", wechat_names.COMPLETE, score.complete),
    _method("POST", _ONE_SERVICE + "/cancel", wechat_names.CANCEL, score.cancel),
    _method("GET", "/v3/bill/tradebill", wechat_names.BILL, wechat_bill.trade_bill),
)


class MerchantBody(BaseModel):
    """A merchant: its number, app, certificate's serial and public key, APIv3 key and pay-score service."""

    model_config = ConfigDict(extra="forbid", strict=True)
    mchid: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")
    appid: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")
    serial_no: str = Field(pattern=r"^[0-9A-F]{8,64}$")
    api_key: str = Field(pattern=r"^[A-Za-z0-9]{32}$")
    public_key_pem: str = Field(max_length=8192)
    service_id: str = Field(default="", pattern=r"^[0-9]{0,32}$")
    name: str = Field(default="", max_length=128)


def wechat_router() -> APIRouter:
    """`/wechat/v3/…` as the real one, and `/sim/wechat/merchants` to register with it."""
    router = APIRouter()

    @router.post("/sim/wechat/merchants")
    async def register(request: Request, body: MerchantBody) -> dict[str, Any]:
        return await _register(request.app.state.simulator, body)

    @router.get(wechat_bill.DOWNLOAD_PATH)
    async def download(request: Request) -> Response:
        simulator: Simulator = request.app.state.simulator
        merchant = _signed_by(simulator, request, "")
        if isinstance(merchant, Response):
            return merchant
        with simulator.database.transaction() as db:
            now = simulator.expire(db)
            call = WechatCall(db, merchant.mchid, merchant.appid, dict(request.query_params), now, "")
            file = wechat_bill.behind(call)
        if file is None:
            return _document(simulator, merchant, (403, _refused("NO_AUTH", "the address is over")))
        return StreamingResponse(_chunks(file), media_type="application/octet-stream")

    @router.api_route("/wechat/v3/{path:path}", methods=["GET", "POST"])
    async def call(request: Request) -> Response:
        return await _serve(request.app.state.simulator, request)

    return router


async def _serve(simulator: Simulator, request: Request) -> Response:
    raw = await request.body()
    body = raw.decode("utf-8", "replace")
    merchant = _signed_by(simulator, request, body)
    if isinstance(merchant, Response):
        return merchant
    found = _found(request)
    if found is None:
        return _document(simulator, merchant, (404, _refused("NOT_FOUND", "no such path")))
    method, named = found
    try:
        biz = dict(request.query_params) if request.method == "GET" else json.loads(body)
    except (ValueError, RecursionError):
        biz = None
    if not isinstance(biz, dict):
        return _document(simulator, merchant, (400, _refused("PARAM_ERROR", "the body is no JSON object")))
    biz |= named
    numbers = biz | {"out_request_no": biz.get("out_refund_no")}
    fault = simulator.due_fault(method.name, numbers)
    if fault is not None and fault.kind is FaultKind.TIMEOUT_BEFORE:
        return await hang(request)
    answer = perform(simulator, merchant, method, biz, str(request.base_url).rstrip("/"), fault)
    if fault is not None and fault.kind is FaultKind.TIMEOUT_AFTER:
        return await hang(request)
    if fault is not None and fault.kind is FaultKind.HTTP_500:
        return Response("internal error", status_code=500)
    return _document(simulator, merchant, answer, spoil=fault is not None and fault.kind is FaultKind.BAD_SIGNATURE)


def perform(
    simulator: Simulator,
    merchant: WechatMerchant,
    method: _Method,
    biz: dict[str, Any],
    base_url: str,
    fault: Fault | None,
) -> Answer:
    """Status and content of the answer. What it says is durable when this returns."""
    forced = {FaultKind.FAIL: fault.sub_code, FaultKind.PENDING: "pending"}.get(fault.kind) if fault else None
    bend = (fault.kind.value, fault.value) if fault is not None and fault.kind in BENDING else ("", 0)
    notify_url = notices.url_of(str(biz.get("notify_url", "")))
    try:
        with simulator.database.transaction() as db:
            now = simulator.expire(db)
            call = WechatCall(db, merchant.mchid, merchant.appid, biz, now, base_url, forced, notify_url, bend)
            try:
                fields = method.perform(call)
            except BusinessFailure as failure:
                status, code, message = refusal(failure)
                return status, _refused(code, message)
    except BadArgument as bad:
        status, code, message = invalid(bad)
        return status, _refused(code, message)
    return (204, None) if fields is None else (200, fields)


def _signed_by(simulator: Simulator, request: Request, body: str) -> WechatMerchant | Response:
    """The merchant that signed the request; or the answer to one that nobody did."""
    parts = authorization_parts(request.headers.get("authorization", ""))
    merchant = simulator.wechat(parts["mchid"]) if parts is not None else None
    if parts is None or merchant is None:
        # Without a merchant there is no key of its to sign with: nobody can trust this answer, as with the real one.
        return Response(json.dumps(_refused("SIGN_ERROR", "no such merchant")), 401, media_type="application/json")
    target = request.scope["raw_path"].decode("ascii", "replace").partition("?")[0]
    target += f"?{request.url.query}" if request.url.query else ""
    text = request_text(request.method, target, parts["timestamp"], parts["nonce_str"], body)
    signed = verify(text, parts["signature"], merchant.merchant_key) and parts["serial_no"] == merchant.serial_no
    if not signed or not is_fresh(parts["timestamp"], simulator.wall()):
        return _document(simulator, merchant, (401, _refused("SIGN_ERROR", "签名错误")))
    return merchant


def _found(request: Request) -> tuple[_Method, dict[str, str]] | None:
    path = request.url.path.removeprefix("/wechat")
    for method in METHODS:
        match = method.path.fullmatch(path)
        if match is not None and method.verb == request.method:
            return method, match.groupdict()
    return None


def _refused(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


def _document(simulator: Simulator, merchant: WechatMerchant, answer: Answer, *, spoil: bool = False) -> Response:
    status, fields = answer
    body = "" if fields is None else json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    headers = told_headers(
        body + (" " if spoil else ""),
        key=merchant.platform_key,
        serial=merchant.platform_serial,
        now=simulator.wall(),
    )
    return Response(body, status, headers, "application/json" if body else None)


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    finally:
        file.close()


async def _register(simulator: Simulator, body: MerchantBody) -> dict[str, Any]:
    try:
        load_public_key(body.public_key_pem)
    except ValueError:
        raise HTTPException(422, {"code": "public_key_invalid"}) from None
    row = one(simulator.database.connection, "SELECT seller_id FROM app WHERE app_id = ?", body.mchid)
    known = wechat_merchants.is_merchant(simulator.database.connection, body.mchid)
    if row is not None and (row["seller_id"] != body.appid or not known):
        raise HTTPException(409, {"code": "merchant_has_another_app"})
    fresh_pem = "" if row else private_key_pem(await asyncio.to_thread(generate_private_key))
    with simulator.database.transaction() as db:
        fields = body.model_dump()
        wechat_merchants.register(db, **fields, fresh_private_pem=fresh_pem, now=simulator.clock())
        stored = one(
            db,
            "SELECT provider_private_pem, platform_serial FROM app JOIN wechat_merchant ON mchid = app_id "
            "WHERE mchid = ?",
            body.mchid,
        )
    assert stored is not None
    simulator.forget_app(body.mchid)
    key = load_private_key(str(stored["provider_private_pem"])).public_key()
    return {"platform_public_key_pem": public_key_pem(key), "platform_serial": stored["platform_serial"]}
