"""When the provider times out, fails or breaks: Unknown at first, and the query tells what really happened."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from gateway.providers.alipay import AlipayProvider
from gateway.providers.port import PaymentProvider, Scene
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.simulator.admin import SimulatorError
from models.domain.payments import (
    Answer,
    Failed,
    FailReason,
    HoldResult,
    PayResult,
    Pending,
    Succeeded,
    Unknown,
    WaitsFor,
)
from tests.gateway.providers.conftest import Shop

PAY, FREEZE = "alipay.trade.pay", "alipay.fund.auth.order.freeze"


def order_number() -> str:
    return f"O-{uuid.uuid4()}"


async def pay(provider: PaymentProvider, order: str, code: str) -> Answer[PayResult]:
    return await provider.pay(number=order, amount_fen=800, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE)


async def freeze(provider: AlipayProvider, order: str, code: str) -> Answer[HoldResult]:
    return await provider.freeze(number=order, amount_fen=800, subject="m", auth_code=code)


async def test_a_request_that_was_lost_is_absent_and_may_be_repeated(shop: Shop, hasty: PaymentProvider) -> None:
    order, code = order_number(), await shop.code("lin")
    await shop.customers.add_fault(shop.pay_method, "timeout_before")
    assert await pay(hasty, order, code) == Unknown("timeout")
    assert await shop.provider.query_payment(number=order, amount_fen=800) == Unknown("not_found", absent=True)
    assert isinstance(await pay(shop.provider, order, code), Succeeded)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("timeout_after", "timeout"), ("http_500", "http_status:500"), ("bad_signature", "answer_signature")],
)
async def test_an_answer_that_was_lost_is_found_by_the_query(
    shop: Shop, hasty: PaymentProvider, kind: str, why: str
) -> None:
    order, code = order_number(), await shop.code("lin")
    before = (await shop.customers.books())["captured_fen"]
    await shop.customers.add_fault(shop.pay_method, kind, number=shop.wire(order))
    assert await pay(hasty if why == "timeout" else shop.provider, order, code) == Unknown(why)
    found = await shop.provider.query_payment(number=order, amount_fen=800)
    assert isinstance(found, Succeeded)
    assert await pay(shop.provider, order, code) == found
    assert (await shop.customers.books())["captured_fen"] == before + 800


async def test_a_scripted_failure_is_definite_and_stays(shop: Shop) -> None:
    order, code = order_number(), await shop.code("lin")
    await shop.customers.add_fault(shop.pay_method, "fail", sub_code="ACQ.PAYMENT_FAIL")
    refused = await pay(shop.provider, order, code)
    assert isinstance(refused, Failed)
    assert (refused.reason, refused.code.removeprefix("ACQ.")) == (FailReason.REFUSED, "PAYMENT_FAIL")
    assert await pay(shop.provider, order, code) == refused
    assert isinstance(await pay(shop.provider, order_number(), code), Succeeded), "the code was not burnt"


async def test_a_pending_payment_ends_when_the_customer_confirms(shop: Shop) -> None:
    order, code = order_number(), await shop.code("lin")
    await shop.customers.add_fault(shop.pay_method, "pending")
    for _ in range(2):
        assert await pay(shop.provider, order, code) == Pending(WaitsFor.PAYER_CONFIRMS)
    assert await shop.provider.query_payment(number=order, amount_fen=800) == Pending(WaitsFor.PAYER_CONFIRMS)
    await shop.customers.pay_code("lin", trade_no=shop.trade_no(order))
    assert isinstance(await pay(shop.provider, order, code), Succeeded)


async def trade_no_of(provider: AlipayProvider, order: str) -> str:
    answer = await provider._gateway.call("alipay.trade.query", {"out_trade_no": order.replace("-", "_")})
    assert not isinstance(answer, Unknown)
    return str(answer.fields["trade_no"])


async def test_a_pending_freeze_and_a_pending_capture_end(provider: AlipayProvider, admin: SimulatorAdmin) -> None:
    order, code = order_number(), await admin.payment_code("lin")
    await admin.add_fault(FREEZE, "pending")
    assert isinstance(await freeze(provider, order, code), Pending)
    answer = await provider._gateway.call(
        "alipay.fund.auth.operation.detail.query",
        {"out_order_no": order.replace("-", "_"), "out_request_no": order.replace("-", "_")},
    )
    assert not isinstance(answer, Unknown)
    await admin.authorise_freeze("lin", auth_no=answer.fields["auth_no"])
    held = await provider.query_freeze(number=order, amount_fen=800)
    assert isinstance(held, Succeeded)
    await admin.add_fault(PAY, "pending")
    settlement = order_number()

    async def capture() -> Answer[PayResult]:
        return await provider.capture(number=settlement, hold_no=held.result.hold_no, amount_fen=500, subject="s")

    assert await capture() == Pending(WaitsFor.PROVIDER)
    await admin.pay_code("lin", trade_no=await trade_no_of(provider, settlement))
    assert isinstance(await capture(), Succeeded)
    rest = await provider.query_freeze(number=order, amount_fen=800)
    assert isinstance(rest, Succeeded)
    assert rest.result.remaining_fen == 0, "COMPLETE released the rest"


async def test_a_customer_refused_by_the_provider_may_not_authorise(
    provider: AlipayProvider, admin: SimulatorAdmin
) -> None:
    opened = await provider.freeze(number=order_number(), amount_fen=800, subject="m")
    assert isinstance(opened, Pending)
    await admin.create_user("broke", balance_fen=0, huabei_limit_fen=0)
    with pytest.raises(SimulatorError, match="PAYER_BALANCE_NOT_ENOUGH"):
        await admin.authorise_freeze("broke", code=opened.code_text)
    with pytest.raises(SimulatorError, match="ORDER_ALREADY_CLOSED"):
        await admin.authorise_freeze("lin", code=opened.code_text)
    with pytest.raises(SimulatorError, match="order_not_found"):
        await admin.pay_code("lin", qr_code="http://127.0.0.1/sim/collect/nothing")


async def test_twenty_at_once_under_one_number_take_the_money_once(shop: Shop) -> None:
    order, code = order_number(), await shop.code("lin")
    before = (await shop.customers.books())["captured_fen"]
    answers = await asyncio.gather(*(pay(shop.provider, order, code) for _ in range(20)))
    assert len(set(answers)) == 1
    assert isinstance(answers[0], Succeeded)
    assert (await shop.customers.books())["captured_fen"] == before + 800


async def test_one_code_pays_one_of_twenty_orders(shop: Shop) -> None:
    code = await shop.code("lin")
    answers = await asyncio.gather(*(pay(shop.provider, order_number(), code) for _ in range(20)))
    assert sum(isinstance(answer, Succeeded) for answer in answers) == 1
    assert sum(isinstance(answer, Failed) for answer in answers) == 19
