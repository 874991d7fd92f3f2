"""What WeChat is said to have told: forged, altered, stale, about something else. None of it is believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.providers.port import Scene
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.wechat import WechatProvider
from gateway.providers.wechat_calls import order_number
from gateway.providers.wechat_gateway import ANSWER_BYTES_MAX, WechatAccount, WechatGateway
from gateway.providers.wechat_notices import WechatNotifications
from gateway.providers.wechat_signing import WINDOW, seal, told_headers, unseal
from models.domain.notices import Distrusted, Notice, NoticeKind
from models.domain.payments import Answer, Failed, FailReason, PayResult, Pending, Succeeded, Unknown, WaitsFor
from tests.gateway.providers.conftest import (
    API_KEY,
    KEY,
    MCHID,
    OTHER_KEY,
    WECHAT_APPID,
    MovableClock,
    RunningSimulator,
)

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
SERIAL = "PUB_KEY_ID_1"
NUMBER = "P-0123456789abcdef0123456789abcdef"
PAID = {
    "appid": WECHAT_APPID,
    "mchid": MCHID,
    "out_trade_no": order_number(NUMBER),
    "transaction_id": "42000001",
    "trade_type": "MICROPAY",
    "trade_state": "SUCCESS",
    "bank_type": "OTHERS",
    "attach": NUMBER,
    "success_time": "2026-11-22T12:00:00+08:00",
    "amount": {"total": 800, "payer_total": 750, "currency": "CNY"},
    "promotion_detail": [
        {"type": "CASH", "amount": 40, "wechatpay_contribute": 40},
        {"type": "NOCASH", "amount": 10, "merchant_contribute": 10},
    ],
}


def reply(
    fields: object, status: int = 200, *, key: rsa.RSAPrivateKey = KEY, serial: str = SERIAL, at: datetime = NOW
) -> bytes:
    body = json.dumps(fields)
    headers = told_headers(body, key=key, serial=serial, now=at)
    return _http(body.encode(), status, headers)


def _http(body: bytes, status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[WechatProvider]:
    """A provider whose every request is answered with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length:" in head.lower():
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/wechat"
    account = WechatAccount(url, MCHID, WECHAT_APPID, "AB", KEY, SERIAL, KEY.public_key(), API_KEY, service_id="5")
    provider = WechatProvider(WechatGateway(account, clock=lambda: NOW))
    try:
        yield provider
    finally:
        await provider.aclose()
        server.close()
        await server.wait_closed()


async def pay(provider: WechatProvider) -> Answer[PayResult]:
    return await provider.pay(number=NUMBER, amount_fen=800, subject="a", auth_code="13", scene=Scene.PAYMENT_CODE)


async def test_a_promotion_is_read_into_its_parts() -> None:
    async with answering(reply(PAID)) as provider:
        answer = await pay(provider)
    assert isinstance(answer, Succeeded)
    result = answer.result
    assert (result.total_fen, result.receipt_fen, result.payer_fen, result.invoiceable_fen) == (800, 790, 750, 750)
    assert [(part.who, part.fen) for part in result.funding] == [("payer", 750), ("provider", 40), ("merchant", 10)]


@pytest.mark.parametrize(
    "change",
    [
        {"out_trade_no": "another-order"},
        {"mchid": "1900000009"},
        {"appid": "wx9"},
        {"transaction_id": None},
        {"amount": {"total": 799, "payer_total": 750, "currency": "CNY"}},
        {"amount": {"total": 800.0, "payer_total": 750, "currency": "CNY"}},
        {"amount": {"total": True, "payer_total": 1, "currency": "CNY"}},
        {"amount": {"total": 800, "payer_total": 801, "currency": "CNY"}},
        {"amount": {"total": 800, "payer_total": 750, "currency": "HKD"}},
        {"amount": None},
        {"promotion_detail": "none"},
        {"promotion_detail": [{"type": "CASH", "amount": 10, "wechatpay_contribute": 11}]},
        {"trade_state": "CLOSED", "out_trade_no": "another-order"},
    ],
)
async def test_a_signed_answer_about_something_else_is_unknown(change: dict[str, object]) -> None:
    async with answering(reply(PAID | change)) as provider:
        assert await pay(provider) == Unknown("answer_mismatch")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (reply(PAID, key=OTHER_KEY), "answer_signature"),
        (reply(PAID).replace(b'"total": 800', b'"total": 900'), "answer_signature"),
        (reply(PAID, serial="PUB_KEY_ID_2"), "answer_serial"),
        (reply(PAID, at=NOW - WINDOW - timedelta(seconds=1)), "answer_stale"),
        (reply(PAID, at=NOW + WINDOW + timedelta(seconds=1)), "answer_stale"),
        (_http(json.dumps(PAID).encode(), 200, {}), "answer_serial"),
        (reply([PAID]), "answer_malformed"),
        (reply(PAID | {"trade_state": "NEW"}), "answer_malformed"),
        (reply({"code": "NOT_ENOUGH", "message": ""}, 403, key=OTHER_KEY), "http_status:403"),
        (reply({"message": ""}, 403), "http_status:403"),
        (_http(b"bad gateway", 502, {}), "http_status:502"),
        (_http(b" " * (ANSWER_BYTES_MAX + 1), 200, {}), "answer_too_large"),
        (b"not http at all\r\n\r\n", "transport:RemoteProtocolError"),
    ],
)
async def test_an_answer_that_proves_nothing_is_unknown(answer: bytes, why: str) -> None:
    async with answering(answer) as provider:
        assert await pay(provider) == Unknown(why)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "NOT_ENOUGH", Failed(FailReason.NOT_ENOUGH_FUNDS, "NOT_ENOUGH")),
        (400, "AUTH_CODE_INVALID", Failed(FailReason.AUTH_INVALID, "AUTH_CODE_INVALID")),
        (403, "RULE_LIMIT", Failed(FailReason.REFUSED, "RULE_LIMIT")),
        (401, "SIGN_ERROR", Failed(FailReason.REFUSED, "SIGN_ERROR")),
        (400, "USERPAYING", Pending(WaitsFor.PAYER_CONFIRMS)),
        (500, "SYSTEM_ERROR", Unknown("provider:SYSTEM_ERROR")),
        (429, "FREQUENCY_LIMITED", Unknown("provider:FREQUENCY_LIMITED")),
        (403, "BANK_ERROR", Unknown("provider:BANK_ERROR")),
    ],
)
async def test_codes_mean_what_the_provider_says(status: int, code: str, expected: Answer[PayResult]) -> None:
    async with answering(reply({"code": code, "message": "x"}, status)) as provider:
        assert await pay(provider) == expected


@pytest.mark.parametrize(("status", "code"), [(400, "PARAM_ERROR"), (401, "SIGN_ERROR"), (500, "SYSTEM_ERROR")])
async def test_a_refused_query_says_nothing_about_the_money(status: int, code: str) -> None:
    async with answering(reply({"code": code, "message": "x"}, status)) as provider:
        assert await provider.query_payment(number=NUMBER, amount_fen=800) == Unknown(f"provider:{code}")
        assert await provider.query_refund(number="R1", payment_number=NUMBER, amount_fen=1) == Unknown(
            f"provider:{code}"
        )
        assert await provider.query_freeze(number="F1", amount_fen=800) == Unknown(f"provider:{code}")


@pytest.mark.parametrize(
    ("status", "expected"),
    [("PROCESSING", Pending(WaitsFor.PROVIDER)), ("ABNORMAL", Unknown("refund_abnormal"))],
)
async def test_a_refund_that_is_not_done_is_not_said_to_be(status: str, expected: object) -> None:
    fields = {"out_refund_no": "R-1", "out_trade_no": order_number(NUMBER), "status": status}
    async with answering(reply(fields | {"amount": {"refund": 5}, "transaction_id": "4"})) as provider:
        assert await provider.query_refund(number="R-1", payment_number=NUMBER, amount_fen=5) == expected
        assert await provider.query_refund(number="R-1", payment_number=NUMBER, amount_fen=6) == Unknown(
            "answer_mismatch"
        )


def test_a_number_that_does_not_fit_is_sent_as_its_digest_and_never_as_one_of_ours() -> None:
    assert order_number("A-12345") == "A-12345"
    long = {order_number(f"P{n:032x}") for n in range(500)}
    assert len(long) == 500
    assert all(len(wire) == 32 and wire.startswith("*") for wire in long)
    assert order_number("P1").startswith("*"), "the provider's numbers have six letters at least"


async def test_the_provider_does_not_believe_an_altered_or_old_request(
    wechat_account: WechatAccount, admin: SimulatorAdmin, running: RunningSimulator
) -> None:
    before = (await admin.books(MCHID))["captured_fen"]
    url = f"{wechat_account.base_url}/v3/pay/transactions/codepay"
    body = json.dumps({"appid": WECHAT_APPID, "mchid": MCHID, "out_trade_no": "TTTTTTT", "description": "a"})

    async def send(account: WechatAccount, sent: str, clock: Callable[[], datetime] = running.clock) -> httpx.Response:
        gateway = WechatGateway(account, clock=clock)
        headers = gateway.headers("POST", url, body)
        await gateway.aclose()
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(url, content=sent, headers=headers)

    assert (await send(wechat_account, body)).json()["code"] == "PARAM_ERROR", "signed well, and lacking an amount"
    old = MovableClock(running.clock() - WINDOW - timedelta(seconds=1))
    for answer in (
        await send(wechat_account, body.replace('"a"', '"b"')),
        await send(wechat_account, body, old),
        await send(replace(wechat_account, private_key=OTHER_KEY), body),
        await send(replace(wechat_account, serial_no="00000000"), body),
        await send(replace(wechat_account, mchid="1999999999"), body),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, "SIGN_ERROR")
    assert (await admin.books(MCHID))["captured_fen"] == before


# ---------------------------------------------------------------- notifications


def event(told: object = PAID, kind: str = "TRANSACTION.SUCCESS", key: str = API_KEY) -> str:
    resource = seal(json.dumps(told), api_key=key, associated_data="transaction")
    fields = {"id": "EV-1", "create_time": "2026-11-22T12:00:00+08:00", "event_type": kind, "resource": resource}
    return json.dumps(fields)


def read(body: str, *, key: rsa.RSAPrivateKey = KEY, at: datetime = NOW, sent: str = "") -> Notice | Distrusted:
    reader = WechatNotifications(MCHID, WECHAT_APPID, API_KEY, SERIAL, KEY.public_key(), clock=lambda: NOW)
    return reader.notification(told_headers(body, key=key, serial=SERIAL, now=at), (sent or body).encode())


def test_a_sealed_notification_is_opened() -> None:
    notice = read(event())
    assert isinstance(notice, Notice)
    assert (notice.id, notice.kind, notice.number, notice.fen) == ("EV-1", NoticeKind.PAYMENT, NUMBER, 800)
    assert notice.account == MCHID
    refund = {"mchid": MCHID, "out_trade_no": "P-12345", "transaction_id": "4", "out_refund_no": "R-1"}
    back = read(event(refund | {"refund_status": "SUCCESS", "amount": {"refund": 5}}, "REFUND.SUCCESS"))
    assert isinstance(back, Notice)
    assert (back.kind, back.number, back.request_no, back.fen) == (NoticeKind.REFUND, "P-12345", "R-1", None)


@pytest.mark.parametrize(
    ("notice", "why"),
    [
        (read(event(), key=OTHER_KEY), "signature"),
        (read(event(), at=NOW - WINDOW - timedelta(seconds=1)), "stale"),
        (read(event(), sent=event().replace("EV-1", "EV-2")), "signature"),
        (read(event(key="f" * 32)), "seal"),
        (read(event(PAID | {"mchid": "1900000009"})), "another_seller"),
        (read(event(PAID | {"appid": "wx9"})), "another_app"),
        (read(event(kind="COUPON.USE")), "unknown_kind:COUPON.USE"),
        (read(event(PAID | {"amount": {"total": "8"}})), "malformed"),
        (read(event({})), "malformed"),
        (read("[]"), "malformed"),
        (read("{}"), "malformed"),
    ],
)
def test_a_notification_that_proves_nothing_is_distrusted(notice: Notice | Distrusted, why: str) -> None:
    assert notice == Distrusted(why)


def test_a_seal_of_another_text_or_label_does_not_open() -> None:
    resource: dict[str, object] = dict(seal("text", api_key=API_KEY, associated_data="a"))
    assert unseal(resource, api_key=API_KEY) == b"text"
    assert unseal(resource | {"associated_data": "b"}, api_key=API_KEY) is None
    assert unseal(resource | {"ciphertext": "!"}, api_key=API_KEY) is None
    assert unseal(resource | {"nonce": ""}, api_key=API_KEY) is None
    assert unseal(resource | {"algorithm": "none"}, api_key=API_KEY) is None
