"""Answers that must not be believed: forged, altered, about something else, broken, late. Each is Unknown."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import ANSWER_BYTES_MAX, AlipayAccount, AlipayAnswer, AlipayGateway
from gateway.providers.port import Scene
from gateway.providers.signing import sign
from gateway.providers.simulator import SimulatorAdmin
from models.domain.payments import Answer, Failed, FailReason, PayResult, Pending, Succeeded, Unknown, WaitsFor
from tests.gateway.providers.conftest import APP_ID, KEY, OTHER_KEY, SELLER_ID

PAY_NODE = "alipay_trade_pay_response"
PAID = {
    "code": "10000",
    "msg": "Success",
    "trade_no": "2026112222001",
    "out_trade_no": "O_1",
    "total_amount": "8.00",
    "receipt_amount": "7.90",
    "buyer_pay_amount": "7.50",
    "invoice_amount": "7.50",
    "seller_id": SELLER_ID,
    "fund_bill_list": [
        {"fund_channel": "ALIPAYACCOUNT", "amount": "7.50"},
        {"fund_channel": "COUPON", "amount": "0.40"},
        {"fund_channel": "MDISCOUNT", "amount": "0.10"},
    ],
}


def signed(fields: object, *, node: str = PAY_NODE, key: object = KEY) -> bytes:
    raw = json.dumps(fields, ensure_ascii=False)
    return f'{{"{node}":{raw},"sign":"{sign(raw, key)}"}}'.encode()  # type: ignore[arg-type]


def http(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def answering(reply: bytes | None, *, provider_key: object = KEY) -> AsyncIterator[AlipayProvider]:
    """A provider whose gateway answers every request with these bytes (None: never)."""
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if reply is None:
            await ended.wait()
        else:
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/gateway.do"
    account = AlipayAccount(url, APP_ID, SELLER_ID, KEY, provider_key.public_key())  # type: ignore[attr-defined]
    provider = AlipayProvider(AlipayGateway(account, call_timeout_s=0.5 if reply is None else 10.0))
    try:
        yield provider
    finally:
        ended.set()
        await provider.aclose()
        server.close()
        await server.wait_closed()


async def pay(provider: AlipayProvider) -> Answer[PayResult]:
    return await provider.pay(number="O-1", amount_fen=800, subject="a", auth_code="28", scene=Scene.PAYMENT_CODE)


async def test_a_promotion_is_read_into_its_parts() -> None:
    async with answering(http(signed(PAID))) as provider:
        answer = await pay(provider)
    assert isinstance(answer, Succeeded)
    result = answer.result
    assert (result.total_fen, result.receipt_fen, result.payer_fen, result.invoiceable_fen) == (800, 790, 750, 750)
    assert [(part.who, part.fen) for part in result.funding] == [("payer", 750), ("provider", 40), ("merchant", 10)]


@pytest.mark.parametrize(
    "change",
    [
        {"out_trade_no": "O_2"},
        {"total_amount": "7.99"},
        {"total_amount": 8.0},
        {"total_amount": "8"},
        {"receipt_amount": "8.01"},
        {"seller_id": "2088000000000009"},
        {"auth_app_id": "2026000000000009"},
        {"trade_no": None},
        {"fund_bill_list": [{"fund_channel": "ALIPAYACCOUNT", "amount": 8}]},
        {"fund_bill_list": "none"},
    ],
)
async def test_a_signed_answer_about_something_else_is_unknown(change: dict[str, object]) -> None:
    async with answering(http(signed(PAID | change))) as provider:
        assert await pay(provider) == Unknown("answer_mismatch")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (http(signed(PAID, key=OTHER_KEY)), "answer_signature"),
        (http(signed(PAID).replace(b'"8.00"', b'"9.00"')), "answer_signature"),
        (http(signed(PAID).replace(b'"msg": ', b'"msg":  ')), "answer_signature"),
        (http(signed(PAID, node="alipay_trade_query_response")), "answer_malformed"),
        (http(b'{"error_response":{"code":"40002","sub_code":"isv.invalid-app-id"}}'), "answer_malformed"),
        (http(signed(PAID | {"code": 10000})), "answer_malformed"),
        (http(b"\xff\xfe"), "answer_malformed"),
        (http(b""), "answer_malformed"),
        (http(b" " * (ANSWER_BYTES_MAX + 1)), "answer_too_large"),
        (http(signed(PAID), "500 Internal Server Error"), "http_status:500"),
        (http(signed(PAID), "302 Found"), "http_status:302"),
        (b"not http at all\r\n\r\n", "transport:RemoteProtocolError"),
        (b"", "transport:RemoteProtocolError"),
        (None, "timeout"),
    ],
)
async def test_an_answer_that_proves_nothing_is_unknown(reply: bytes | None, why: str) -> None:
    async with answering(reply) as provider:
        assert await pay(provider) == Unknown(why)


async def test_nobody_there_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    account = AlipayAccount(f"http://127.0.0.1:{port}/gateway.do", APP_ID, SELLER_ID, KEY, KEY.public_key())
    provider = AlipayProvider(AlipayGateway(account))
    assert await pay(provider) == Unknown("transport:ConnectError")
    await provider.aclose()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"code": "10003"}, Pending(WaitsFor.PAYER_CONFIRMS)),
        (
            {"code": "40004", "sub_code": "ACQ.BUYER_BALANCE_NOT_ENOUGH"},
            Failed(FailReason.NOT_ENOUGH_FUNDS, "ACQ.BUYER_BALANCE_NOT_ENOUGH"),
        ),
        ({"code": "40004", "sub_code": "ACQ.SOMETHING_NEW"}, Failed(FailReason.REFUSED, "ACQ.SOMETHING_NEW")),
        ({"code": "40006", "sub_code": "isv.insufficient-isv-permissions"}, None),
        ({"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"}, Unknown("provider:ACQ.SYSTEM_ERROR")),
        ({"code": "20000", "sub_code": "aop.ACQ.SYSTEM_ERROR"}, Unknown("provider:aop.ACQ.SYSTEM_ERROR")),
        ({"code": "99999"}, Unknown("provider:99999")),
    ],
)
async def test_codes_mean_what_the_provider_says(fields: dict[str, str], expected: Answer[PayResult] | None) -> None:
    async with answering(http(signed(fields))) as provider:
        answer = await pay(provider)
    assert answer == (expected or Failed(FailReason.REFUSED, "isv.insufficient-isv-permissions"))


@pytest.mark.parametrize("code", ["20000", "40002", "40004", "40006"])
async def test_a_refused_query_says_nothing_about_the_money(code: str) -> None:
    body = signed({"code": code, "sub_code": "x"}, node="alipay_trade_query_response")
    async with answering(http(body)) as provider:
        assert await provider.query_payment(number="O-1", amount_fen=800) == Unknown("provider:x")


def tamper_amount(form: dict[str, str]) -> dict[str, str]:
    return form | {"biz_content": form["biz_content"].replace("8.00", "0.01")}


def drop_signature(form: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in form.items() if name != "sign"}


def other_method(form: dict[str, str]) -> dict[str, str]:
    return form | {"method": "alipay.trade.cancel"}


def weaker_type(form: dict[str, str]) -> dict[str, str]:
    return form | {"sign_type": "RSA"}


@pytest.mark.parametrize("tamper", [tamper_amount, drop_signature, other_method, weaker_type])
async def test_the_provider_does_not_believe_an_altered_request(
    account: AlipayAccount, admin: SimulatorAdmin, tamper: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    before = (await admin.books())["captured_fen"]
    gateway = AlipayGateway(account)
    code = await admin.payment_code("lin")
    biz = {"out_trade_no": "T1", "total_amount": "8.00", "subject": "a", "scene": "bar_code", "auth_code": code}
    form = gateway.signed_form("alipay.trade.pay", biz)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(account.gateway_url, data=tamper(form))
    await gateway.aclose()
    assert '"sub_code":"isv.invalid-signature' in answer.text
    assert (await admin.books())["captured_fen"] == before


async def test_the_provider_knows_its_merchants_apart(account: AlipayAccount, admin: SimulatorAdmin) -> None:
    unknown = AlipayProvider(AlipayGateway(replace(account, app_id="2026000000000404")))
    assert await unknown.query_payment(number="O-1", amount_fen=1) == Unknown("answer_malformed")
    foreign = AlipayProvider(AlipayGateway(replace(account, seller_id="2088000000000009")))
    answer = await foreign.precreate(number="seller-1", amount_fen=100, subject="a")
    assert answer == Failed(FailReason.REFUSED, "ACQ.SELLER_NOT_MATCH")
    thief = AlipayProvider(AlipayGateway(replace(account, private_key=OTHER_KEY)))
    assert await thief.cancel(number="O-1") == Failed(FailReason.REFUSED, "isv.invalid-signature")
    for provider in (unknown, foreign, thief):
        await provider.aclose()


@pytest.mark.parametrize("in_query", [("method", "app_id"), ("biz_content", "sign")])
async def test_parameters_may_stand_in_the_query_string(account: AlipayAccount, in_query: tuple[str, ...]) -> None:
    gateway = AlipayGateway(account)
    form = gateway.signed_form("alipay.trade.query", {"out_trade_no": "nothing"})
    await gateway.aclose()
    query = {name: form[name] for name in in_query}
    body = {name: value for name, value in form.items() if name not in query}
    async with httpx.AsyncClient(trust_env=False) as client:
        split = await client.post(account.gateway_url, params=query, data=body)
        whole = await client.get(account.gateway_url, params=form)
        twice = await client.post(account.gateway_url, params=query, data=form)
    assert split.json()["alipay_trade_query_response"]["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert whole.text == split.text
    assert twice.json()["error_response"]["code"] == "40002"


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"app_id=" + APP_ID.encode(),
        b"app_id=a&app_id=b",
        b"\xff\xff",
        b"a=" + b"&a=1" * 100,
        b"app_id=%ff",
    ],
)
async def test_garbage_at_the_gateway_is_refused_by_name(account: AlipayAccount, form: bytes) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(account.gateway_url, content=form)
    assert answer.status_code == 200
    assert answer.json()["error_response"]["code"] == "40002"


@pytest.mark.parametrize(
    ("biz", "sub_code"),
    [
        ({}, "isv.missing-total-amount"),
        ({"total_amount": 8}, "isv.missing-total-amount"),
        ({"total_amount": "8"}, "isv.invalid-total-amount"),
        ({"total_amount": "0.00"}, "isv.invalid-total-amount"),
        ({"total_amount": "8.00", "out_trade_no": "a-b"}, "isv.invalid-out-trade-no"),
        ({"total_amount": "8.00", "out_trade_no": "x"}, "isv.missing-auth-code"),
        (
            {"total_amount": "8.00", "out_trade_no": "x", "auth_code": "28", "scene": "bar_code"},
            "isv.missing-subject",
        ),
    ],
)
async def test_wrong_parameters_are_named(account: AlipayAccount, biz: dict[str, object], sub_code: str) -> None:
    gateway = AlipayGateway(account)
    answer = await gateway.call("alipay.trade.pay", biz)
    await gateway.aclose()
    assert isinstance(answer, AlipayAnswer)
    assert (answer.code, answer.sub_code) == ("40002", sub_code)
