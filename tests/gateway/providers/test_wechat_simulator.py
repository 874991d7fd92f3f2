"""WeChat's side in the box: faults over its methods, notifications with retry, its bill, and a cancel of each order."""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from sqlite3 import connect

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.providers.port import Scene
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.simulator.database import FILE_NAME
from gateway.providers.simulator.wechat_times import BEIJING
from gateway.providers.wechat import WechatProvider
from gateway.providers.wechat_calls import order_number
from gateway.providers.wechat_gateway import WechatGateway
from gateway.providers.wechat_notices import WechatNotifications, serial_of
from models.domain.notices import Notice, NoticeKind
from models.domain.payments import (
    Answer,
    CancelAction,
    CancelResult,
    Failed,
    FailReason,
    HoldResult,
    PayResult,
    Pending,
    Succeeded,
    Unknown,
    WaitsFor,
)
from models.domain.reconciliation import LineKind, StatementFile, totals_of
from tests.gateway.providers.conftest import RunningSimulator, open_wechat, serve_in_thread

PAY = "wechat.codepay"


def number(prefix: str = "P") -> str:
    return f"{prefix}{uuid.uuid4().hex}"


async def pay(provider: WechatProvider, admin: SimulatorAdmin, order: str, fen: int = 800) -> Answer[PayResult]:
    code = await admin.payment_code("lin", "wechat")
    return await provider.pay(number=order, amount_fen=fen, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE)


async def test_a_code_of_another_provider_pays_nothing(wechat: WechatProvider, admin: SimulatorAdmin) -> None:
    code = await admin.payment_code("lin")
    answer = await wechat.pay(number=number(), amount_fen=1, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE)
    assert answer == Failed(FailReason.AUTH_INVALID, "AUTH_CODE_INVALID")


def trade_no_of(running: RunningSimulator, order: str) -> str:
    """What the customer's phone knows of an order that waits for a password."""
    with closing(connect(running.data_dir / FILE_NAME)) as db:
        [(found,)] = db.execute("SELECT trade_no FROM trade WHERE out_trade_no = ?", (order_number(order),))
    return str(found)


@pytest.mark.parametrize("paid", [False, True])
async def test_a_customer_who_types_a_password_is_waited_for_and_cancelled(
    wechat: WechatProvider, admin: SimulatorAdmin, running: RunningSimulator, paid: bool
) -> None:
    order = number()
    await admin.add_fault(PAY, "pending")
    assert await pay(wechat, admin, order) == Pending(WaitsFor.PAYER_CONFIRMS)
    assert await wechat.query_payment(number=order, amount_fen=800) == Pending(WaitsFor.PAYER_CONFIRMS)
    if paid:
        await admin.pay_code("lin", trade_no=trade_no_of(running, order))
        assert isinstance(await wechat.query_payment(number=order, amount_fen=800), Succeeded)
    action = CancelAction.REVERSED if paid else CancelAction.CLOSED
    for _ in range(2):
        assert await wechat.cancel(number=order) == Succeeded(CancelResult(action))
    ended = await wechat.query_payment(number=order, amount_fen=800)
    assert ended == Failed(FailReason.REVERSED if paid else FailReason.CLOSED, "REVOKED")


async def test_a_paid_collection_code_is_cancelled_by_a_refund_of_all(
    wechat: WechatProvider, admin: SimulatorAdmin
) -> None:
    order = number()
    opened = await wechat.precreate(number=order, amount_fen=800, subject="lunch")
    assert isinstance(opened, Pending)
    await admin.pay_code("wang", qr_code=opened.code_text)
    before = (await admin.user("wang"))["balance_fen"]
    for _ in range(2):
        assert await wechat.cancel(number=order) == Succeeded(CancelResult(CancelAction.REVERSED))
    assert (await admin.user("wang"))["balance_fen"] == before + 800
    assert await wechat.query_payment(number=order, amount_fen=800) == Failed(FailReason.REVERSED, "REFUND")


async def test_a_completed_order_that_is_still_being_collected_is_pending_under_its_number(
    wechat: WechatProvider, admin: SimulatorAdmin
) -> None:
    order, settlement = number("F"), number("S")
    opened = await wechat.freeze(number=order, amount_fen=1000, subject="membership")
    assert isinstance(opened, Pending)
    await admin.authorise_freeze("lin", code=opened.code_text)
    held = await wechat.query_freeze(number=order, amount_fen=1000)
    assert isinstance(held, Succeeded)
    await admin.add_fault("wechat.payscore.complete", "pending")

    async def capture(request: str) -> Answer[PayResult]:
        return await wechat.capture(number=request, hold_no=held.result.hold_no, amount_fen=600, subject="s")

    assert await capture(settlement) == Pending(WaitsFor.PROVIDER)
    assert await wechat.query_payment(number=settlement, amount_fen=600) == Unknown("not_found", absent=True)
    assert await capture(settlement) == Pending(WaitsFor.PROVIDER), "sent again, it is the query"
    other = await capture(number("S"))
    assert isinstance(other, Failed)
    assert other.reason is FailReason.HOLD_GONE
    ended = await wechat.cancel_freeze(number=order)
    assert ended == Failed(FailReason.REFUSED, "DONE")
    rest = await wechat.query_freeze(number=order, amount_fen=1000)
    assert rest == Succeeded(HoldResult(held.result.hold_no, 1000, 0))


async def test_the_bill_is_the_books(wechat: WechatProvider, admin: SimulatorAdmin, running: RunningSimulator) -> None:
    mchid = "1900000077"
    account = replace(await open_wechat(admin, running.url, mchid), entity="chain")
    provider = WechatProvider(WechatGateway(account, clock=running.clock))
    kept, returned, reversed_ = number(), number(), number()
    for order in (kept, returned, reversed_):
        assert isinstance(await pay(provider, admin, order, 1000), Succeeded)
    refund = number("R")
    assert isinstance(
        await provider.refund(number=refund, payment_number=returned, amount_fen=300, reason="x"), Succeeded
    )
    assert isinstance(await provider.cancel(number=reversed_), Succeeded)
    day = running.clock().astimezone(BEIJING).date()
    assert await provider.statement(day=day) == Unknown("not_ready", absent=True)
    running.clock.advance(timedelta(days=1))
    answer = await provider.statement(day=day)
    assert isinstance(answer, Succeeded)
    file: StatementFile = answer.result
    lines = list(file.lines)
    assert [(line.kind, line.order_no, line.request_no, line.receipt_fen, line.fee_fen) for line in lines] == [
        (LineKind.PAYMENT, kept, "", 1000, 6),
        (LineKind.PAYMENT, returned, "", 1000, 6),
        (LineKind.PAYMENT, reversed_, "", 1000, 6),
        (LineKind.REFUND, returned, refund, 300, -1),
        (LineKind.REFUND, reversed_, "", 1000, -6),
    ]
    assert list(file.lines) == lines, "it can be read again"
    assert file.totals == totals_of(lines)
    books = await admin.books(mchid)
    assert file.totals.net_fen == books["net_fen"] - books["fees_fen"]
    await admin.add_bill_fault(day, "wrong_amount", number=order_number(kept), fen=7, app_id=mchid)
    lied = await provider.statement(day=day)
    assert isinstance(lied, Succeeded)
    assert lied.result.totals.net_fen == file.totals.net_fen + 7, "a wrong bill states the sums of its own wrong lines"
    await provider.aclose()


async def test_notifications_are_sealed_signed_and_sent_again_until_they_are_accepted(
    wechat: WechatProvider, admin: SimulatorAdmin, running: RunningSimulator
) -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    async def hook(request: Request) -> Response:
        received.append((dict(request.headers), await request.body()))
        return Response(status_code=204 if len(received) > 1 else 500)

    server, thread, url = serve_in_thread(Starlette(routes=[Route("/hook", hook, methods=["POST"])]))
    account = replace(await open_wechat(admin, running.url), notify_url=f"{url}/hook")
    provider = WechatProvider(WechatGateway(account, clock=running.clock))
    reader = WechatNotifications(
        account.mchid,
        account.appid,
        account.api_key,
        account.platform_serial,
        account.platform_key,
        clock=running.clock,
    )
    order = number()
    opened = await provider.precreate(number=order, amount_fen=800, subject="lunch")
    assert isinstance(opened, Pending)
    await admin.pay_code("wang", qr_code=opened.code_text)
    await admin.deliver()
    running.clock.advance(timedelta(seconds=15))
    await admin.deliver()
    [told] = await admin.notifications(order_number(order))
    assert (told["kind"], told["state"], told["sends"], told["said"]) == (
        "TRANSACTION.SUCCESS",
        "accepted",
        2,
        "http 204",
    )
    notices = [reader.notification(headers, body) for headers, body in received]
    for notice in notices:
        assert isinstance(notice, Notice)
        assert (notice.kind, notice.number, notice.fen, notice.status) == (NoticeKind.PAYMENT, order, 800, "SUCCESS")
    assert len({notice.id for notice in notices if isinstance(notice, Notice)}) == 1
    assert serial_of(received[0][0]) == account.platform_serial
    assert reader.accepted() == b""
    await provider.aclose()
    server.should_exit = True
    thread.join(30)
