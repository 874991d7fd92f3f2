"""`POST /terminals/enrol` and `POST /terminals/rotate`: a one-time code becomes a credential. No console session.

Nothing that is sent or answered here is logged: both hold secrets.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from gateway.edge import EdgeOf
from gateway.enrolment import EnrolRequest
from gateway.errors import PROBLEM_JSON, status_of
from models.domain.errors import Refused, RetryLater, StoreOpsError

router = APIRouter(include_in_schema=False)

BODY_BYTES_MAX = 16 * 1024
_DECODER = msgspec.json.Decoder(EnrolRequest)

# code -> ((detail, what to do) in Chinese, the same in English); an empty detail: the error's own.
TEXTS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "code_unknown": (("没有这个注册码", "请索取新的注册码"), ("there is no such code", "ask for a new code")),
    "code_used": (("该注册码已使用", "请索取新的注册码"), ("this code has done its work", "ask for a new code")),
    "code_expired": (("注册码已过期", "请索取新的注册码"), ("this code has expired", "ask for a new code")),
    "csr_missing": (
        ("该注册码用于客户端证书", "请附上 csr，或索取另一种注册码"),
        ("this code is for a client certificate", "send csr, or ask for another code"),
    ),
    "csr_unexpected": (
        ("该注册码用于密钥", "请去掉 csr，或索取另一种注册码"),
        ("this code is for a secret", "leave csr out, or ask for another code"),
    ),
    "bad_csr": (
        ("证书请求无法使用", "请用 P-256、P-384 或 2048 至 4096 位 RSA 密钥签发的 PEM 请求"),
        ("that certificate request cannot be used", "send a PEM request of a P-256, P-384 or RSA-2048 to 4096 key"),
    ),
    "rotation_running": (
        ("上一次更换尚未确认", "请稍后再试"),
        ("another rotation is not confirmed yet", "wait for it, then rotate again"),
    ),
    "too_many_credentials": (
        ("未确认的凭证过多", "请用新的注册码重新注册"),
        ("too many credentials without a confirmation", "enrol it again with a new code"),
    ),
    "too_many_attempts": (
        ("错误的注册码过多", "请等待后再试"),
        ("too many wrong codes from this address", "wait, then try again"),
    ),
    "bad_request": (("请求格式不对", "请按终端协议发送"), ("that is no enrolment", "send what the protocol says")),
    "too_large": (("请求过大", "不超过 16 KiB"), ("the request is too large", "16 KiB at most")),
    "starting": (("系统正在启动", "请稍后再试"), ("still starting", "try again in a moment")),
    "busy": (("系统繁忙", "请稍后再试"), ("too many at once", "try again in a moment")),
}


@router.post("/terminals/enrol")
async def enrol(request: Request, edge: EdgeOf) -> Response:
    """A new terminal, or one that is set up anew."""
    return await _answer(request, edge, rotates=False)


@router.post("/terminals/rotate")
async def rotate(request: Request, edge: EdgeOf) -> Response:
    """A terminal that was told to `rotate`."""
    return await _answer(request, edge, rotates=True)


async def _answer(request: Request, edge: EdgeOf, *, rotates: bool) -> Response:
    address = request.client.host if request.client is not None else ""
    limit = edge.guesses
    try:
        if limit.full():
            raise RetryLater("busy", "too many at once", "try again in a moment", after_s=2)
        if (wait_s := limit.barred_s(address)) > 0:
            return _problem(request, 429, "too_many_attempts", retry_after_s=wait_s)
        if edge.enrols is None:
            raise RetryLater("starting", "still starting", "try again in a moment", after_s=1)
        wanted = await _read(request)
        if wanted is None:
            return _problem(request, 413, "too_large")
        enrolled = await edge.enrols.redeem(wanted, address, rotates=rotates)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _problem(request, 400, "bad_request")
    except StoreOpsError as error:
        if isinstance(error, Refused) and error.code == "code_unknown":
            limit.wrong(address)
        after_s = error.after_s if isinstance(error, RetryLater) else None
        return _problem(request, status_of(error), error.code, error, after_s)
    return Response(msgspec.json.encode(enrolled), media_type="application/json", headers={"Cache-Control": "no-store"})


async def _read(request: Request) -> EnrolRequest | None:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            return None
    return _DECODER.decode(body)


def _problem(
    request: Request, status: int, code: str, error: StoreOpsError | None = None, retry_after_s: float | None = None
) -> Response:
    """RFC 9457, in the language that the terminal asks for."""
    chinese = request.headers.get("accept-language", "").lower().startswith("zh")
    said = (error.message, error.do) if error is not None else ("", "")
    detail, do = TEXTS[code][0 if chinese else 1] if code in TEXTS else said
    headers = {"Cache-Control": "no-store", "Content-Language": "zh" if chinese else "en"}
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    body: dict[str, Any] = {
        "type": "about:blank",
        "status": status,
        "title": code.replace("_", " "),
        "code": code,
        "detail": detail,
        "do": do,
    }
    return JSONResponse(body, status, headers=headers, media_type=PROBLEM_JSON)
