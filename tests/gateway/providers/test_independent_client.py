"""Somebody else's client, `python-alipay-sdk` from PyPI, pays, queries and refunds here: the protocol is no dialect."""

from __future__ import annotations

import asyncio
import uuid

import alipay  # type: ignore[import-untyped]
import pytest

from gateway.providers.alipay_gateway import AlipayAccount
from gateway.providers.signing import private_key_pem, public_key_pem
from gateway.providers.simulator import SimulatorAdmin


@pytest.fixture
def client(account: AlipayAccount) -> alipay.AliPay:
    theirs = alipay.AliPay(
        appid=account.app_id,
        app_private_key_string=private_key_pem(account.private_key),
        alipay_public_key_string=public_key_pem(account.provider_key),
        sign_type="RSA2",
    )
    theirs._gateway = account.gateway_url
    return theirs


async def test_it_pays_queries_and_refunds(client: alipay.AliPay, admin: SimulatorAdmin) -> None:
    order, code = uuid.uuid4().hex, await admin.payment_code("lin")
    before = (await admin.create_user("lin"))["balance_fen"]
    paid = await asyncio.to_thread(
        client.api_alipay_trade_pay, order, "bar_code", code, "咖啡 & 茶", total_amount="12.50"
    )
    assert (paid["code"], paid["total_amount"], paid["out_trade_no"]) == ("10000", "12.50", order)
    found = await asyncio.to_thread(client.api_alipay_trade_query, out_trade_no=order)
    assert (found["trade_status"], found["receipt_amount"]) == ("TRADE_SUCCESS", "12.50")
    back = await asyncio.to_thread(
        client.api_alipay_trade_refund, "2.50", out_trade_no=order, out_request_no=f"{order}R"
    )
    assert (back["code"], back["refund_fee"], back["fund_change"]) == ("10000", "2.50", "Y")
    told = await asyncio.to_thread(client.api_alipay_trade_fastpay_refund_query, f"{order}R", out_trade_no=order)
    assert told["refund_amount"] == "2.50"
    assert (await admin.user("lin"))["balance_fen"] == before - 1000


async def test_its_collection_code_is_paid_and_its_whole_refund_needs_no_number(
    client: alipay.AliPay, admin: SimulatorAdmin
) -> None:
    order = uuid.uuid4().hex
    opened = await asyncio.to_thread(client.api_alipay_trade_precreate, "茶", order, "8.00")
    await admin.pay_code("wang", qr_code=opened["qr_code"])
    back = await asyncio.to_thread(client.api_alipay_trade_refund, "8.00", out_trade_no=order)
    assert back["refund_fee"] == "8.00"
    closed = await asyncio.to_thread(client.api_alipay_trade_query, out_trade_no=order)
    assert closed["trade_status"] == "TRADE_CLOSED"


async def test_it_believes_our_signatures_and_we_do_not_believe_a_strangers(
    client: alipay.AliPay, admin: SimulatorAdmin
) -> None:
    await admin.add_fault("alipay.trade.query", "bad_signature")
    order = uuid.uuid4().hex
    await asyncio.to_thread(client.api_alipay_trade_precreate, "茶", order, "8.00")
    with pytest.raises(alipay.exceptions.AliPayValidationError):
        await asyncio.to_thread(client.api_alipay_trade_query, out_trade_no=order)
