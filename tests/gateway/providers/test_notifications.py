"""Notifications: sent until `success`, believed only when signed for us. Late, doubled, lost or forged: no harm."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qsl, urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayAccount, AlipayGateway
from gateway.providers.alipay_notices import AlipayNotifications, account_of
from gateway.providers.port import Scene
from gateway.providers.signing import notification_text, public_key_pem, sign
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.simulator.notices import PAUSES
from models.domain.notices import Distrusted, Notice, NoticeKind
from models.domain.payments import AgreementState, Pending, Succeeded
from tests.gateway.providers.conftest import (
    APP_ID,
    KEY,
    OTHER_KEY,
    SELLER_ID,
    RunningSimulator,
    open_account,
    serve_in_thread,
)

WAIT_S = 10.0


class Shop:
    """A merchant's endpoint: keeps what it is told, and says what the test wants."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answer = "success"
        server, self.thread, self.url = serve_in_thread(
            Starlette(routes=[Route("/notify", self._notify, methods=["POST"])])
        )
        self.server = server

    async def _notify(self, request: Request) -> PlainTextResponse:
        self.bodies.append(await request.body())
        return PlainTextResponse(self.answer)

    def about(self, number: str) -> list[bytes]:
        return [body for body in self.bodies if number.replace("-", "_").encode() in body]

    async def wait_for(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not ready():
            assert time.monotonic() < deadline, "nobody told us within 10 s"
            await asyncio.sleep(0.01)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    yield shop
    shop.server.should_exit = True
    shop.thread.join(30)


@pytest.fixture
async def told(admin: SimulatorAdmin, running: RunningSimulator, shop: Shop) -> AsyncIterator[AlipayProvider]:
    await admin.register_app(
        app_id=APP_ID,
        seller_id=SELLER_ID,
        public_key_pem=_public(),
        notify_url=f"{shop.url}/notify",
    )
    account = replace(await open_account(admin, running.url), notify_url=f"{shop.url}/notify")
    provider = AlipayProvider(AlipayGateway(account))
    yield provider
    await provider.aclose()


def _public() -> str:
    return public_key_pem(KEY.public_key())


def reader_of(account: AlipayAccount) -> AlipayNotifications:
    return AlipayNotifications(account.app_id, account.seller_id, account.provider_key)


def read(provider: AlipayProvider, body: bytes) -> Notice:
    notice = reader_of(provider._gateway.account).notification({}, body)
    assert isinstance(notice, Notice), notice
    return notice


async def paid(provider: AlipayProvider, admin: SimulatorAdmin, fen: int = 800) -> str:
    order = f"O-{uuid.uuid4()}"
    answer = await provider.pay(
        number=order,
        amount_fen=fen,
        subject="咖啡 & 茶",
        auth_code=await admin.payment_code("lin"),
        scene=Scene.PAYMENT_CODE,
    )
    assert isinstance(answer, Succeeded)
    return order


async def row_of(admin: SimulatorAdmin, order: str) -> dict[str, object]:
    rows = await admin.notifications(order.replace("-", "_"))
    return rows[-1]


async def test_payment_and_refund_are_told_and_read(told: AlipayProvider, admin: SimulatorAdmin, shop: Shop) -> None:
    order = await paid(told, admin)
    await shop.wait_for(lambda: len(shop.about(order)) == 1)
    notice = read(told, shop.about(order)[0])
    assert (notice.kind, notice.number, notice.fen, notice.status) == (NoticeKind.PAYMENT, order, 800, "TRADE_SUCCESS")
    refund = f"R-{uuid.uuid4()}"
    await told.refund(number=refund, payment_number=order, amount_fen=300, reason="return")
    await shop.wait_for(lambda: len(shop.about(order)) == 2)
    notice = read(told, shop.about(order)[1])
    assert (notice.kind, notice.number, notice.request_no) == (NoticeKind.REFUND, order, refund)
    assert account_of(shop.bodies[0]) == APP_ID


async def test_holds_and_agreements_are_told(told: AlipayProvider, admin: SimulatorAdmin, shop: Shop) -> None:
    order, ours = f"F-{uuid.uuid4()}", uuid.uuid4().hex
    await told.freeze(
        number=order, amount_fen=1000, subject="m", auth_code=await admin.face_token("lin"), scene=Scene.FACE
    )
    await shop.wait_for(lambda: len(shop.about(order)) == 1)
    notice = read(told, shop.about(order)[0])
    assert (notice.kind, notice.number, notice.fen) == (NoticeKind.HOLD, order, 1000)
    asked = await told.sign(number=ours, limit_fen=100, subject="m")
    assert isinstance(asked, Pending)
    agreement_no = await admin.sign_agreement("lin", await admin.open(asked.code_text or ""))
    await shop.wait_for(lambda: len(shop.about(ours)) == 1)
    agreement = read(told, shop.about(ours)[0]).agreement
    assert agreement is not None
    assert (agreement.agreement_no, agreement.payer, agreement.state) == (agreement_no, "lin", AgreementState.ACTIVE)


async def test_a_credit_membership_brings_its_numbers_by_message(
    told: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator, shop: Shop
) -> None:
    account = replace(told._gateway.account, credit_template="T1")
    await admin.register_app(
        app_id=APP_ID, seller_id=SELLER_ID, public_key_pem=_public(), notify_url=f"{shop.url}/notify"
    )
    credit = AlipayProvider(AlipayGateway(account))
    ours = f"M-{uuid.uuid4()}"
    asked = await credit.sign_credit(number=ours, fee_fen=1000, subject="m")
    assert isinstance(asked, Pending)
    agreement_no = await admin.sign_credit("lin", await admin.open(asked.code_text or ""))
    plan_no = await admin.lapse_credit(agreement_no)
    await shop.wait_for(lambda: sum(agreement_no.encode() in body for body in shop.bodies) == 2)
    first, second = (read(told, body) for body in shop.bodies if agreement_no.encode() in body)
    assert (first.number, first.agreement and first.agreement.state) == (ours, AgreementState.ACTIVE)
    assert second.agreement is not None
    assert (second.agreement.state, second.agreement.settlement_no) == (AgreementState.EXPIRED, plan_no)
    await credit.aclose()


async def test_eight_sends_within_25_hours_and_no_more(
    told: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator, shop: Shop
) -> None:
    shop.answer = "ok"  # anything but the word counts as not received
    order = await paid(told, admin)
    await shop.wait_for(lambda: len(shop.about(order)) == 1)
    await admin.deliver()  # behind the first sending, which notes its answer and the next time before it ends
    for n, pause in enumerate(PAUSES, start=1):
        running.clock.advance(pause - timedelta(seconds=2))
        await admin.deliver()
        assert len(shop.about(order)) == n, "not before its time"
        running.clock.advance(timedelta(seconds=3))
        await admin.deliver()
        assert len(shop.about(order)) == n + 1
    running.clock.advance(timedelta(days=3))
    await admin.deliver()
    assert len(shop.about(order)) == 8
    assert sum(PAUSES, timedelta()) < timedelta(hours=25)
    assert (await row_of(admin, order))["state"] == "given_up"
    assert len({read(told, body).id for body in shop.about(order)}) == 1, "each repetition has the id of the first"


async def test_success_ends_it(
    told: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator, shop: Shop
) -> None:
    order = await paid(told, admin)
    await shop.wait_for(lambda: len(shop.about(order)) == 1)
    running.clock.advance(timedelta(hours=1))
    await admin.deliver()
    assert len(shop.about(order)) == 1
    assert (await row_of(admin, order))["state"] == "accepted"


@pytest.mark.parametrize(("kind", "sent"), [("lost", 0), ("duplicate", 2), ("bad_signature", 1), ("delayed", 0)])
async def test_a_notification_goes_wrong_on_demand_and_is_healed(
    told: AlipayProvider, admin: SimulatorAdmin, running: RunningSimulator, shop: Shop, kind: str, sent: int
) -> None:
    await admin.add_fault("notify", kind, value=60 if kind == "delayed" else 0)
    if kind == "bad_signature":
        shop.answer = "fail"
    order = await paid(told, admin)
    other = await paid(told, admin)
    await shop.wait_for(lambda: len(shop.about(other)) == 1)
    await admin.deliver()
    assert len(shop.about(order)) == sent, "the later one came first" if not sent else kind
    if kind == "bad_signature":
        assert reader_of(told._gateway.account).notification({}, shop.about(order)[0]) == Distrusted("signature")
    shop.answer = "success"
    running.clock.advance(timedelta(minutes=3))
    await shop.wait_for(lambda: len(shop.about(order)) == sent + (kind != "duplicate"))
    assert read(told, shop.about(order)[-1]).number == order


def forged(changes: dict[str, str | None], key: object = OTHER_KEY) -> bytes:
    form: dict[str, str] = {
        "notify_time": "2026-11-22 12:00:00",
        "notify_type": "trade_status_sync",
        "notify_id": "n1",
        "app_id": APP_ID,
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "trade_no": "2026112222001",
        "out_trade_no": "O_1",
        "seller_id": SELLER_ID,
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "8.00",
    }
    form = {name: value for name, value in (form | changes).items() if value is not None}
    form["sign"] = sign(notification_text(form), key)  # type: ignore[arg-type]
    return urlencode(form).encode()


READER = AlipayNotifications(APP_ID, SELLER_ID, OTHER_KEY.public_key())


def test_a_right_one_is_read() -> None:
    notice = READER.notification({}, forged({}))
    assert isinstance(notice, Notice)
    assert (notice.number, notice.fen, notice.account) == ("O-1", 800, APP_ID)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (forged({}, KEY), "signature"),
        (forged({}).replace(b"8.00", b"9.00"), "signature"),
        (forged({"sign_type": "RSA"}), "signature"),
        (forged({"app_id": "2026000000000009"}), "another_app"),
        (forged({"auth_app_id": "2026000000000009"}), "another_app"),
        (forged({"seller_id": "2088000000000009"}), "another_seller"),
        (forged({"total_amount": "8"}), "malformed"),
        (forged({"out_trade_no": None}), "malformed"),
        (forged({"notify_time": "yesterday"}), "malformed"),
        (forged({"notify_type": "something"}), "unknown_kind:something"),
        (forged({"msg_method": "zhima.other", "biz_content": "{}"}), "unknown_kind:zhima.other"),
        (forged({"msg_method": "zhima.credit.pe.zmgo.agreement.signed", "biz_content": "["}), "malformed"),
        (forged({"msg_method": "zhima.credit.pe.zmgo.agreement.signed", "biz_content": "[1]"}), "malformed"),
        (forged({}) + b"&sign=x", "malformed"),
        (b"", "signature"),
        (b"\xff", "malformed"),
        (b"a=" + b"x" * 40_000, "malformed"),
        (b"&".join(b"f%d=1" % n for n in range(100)), "malformed"),
    ],
)
def test_what_proves_nothing_is_not_believed(body: bytes, why: str) -> None:
    assert READER.notification({}, body) == Distrusted(why)


def test_the_signature_covers_every_field() -> None:
    body = forged({})
    for name, value in parse_qsl(body.decode()):
        if name not in {"sign", "sign_type"}:
            bent = urlencode([(n, v + "1" if n == name else v) for n, v in parse_qsl(body.decode())]).encode()
            assert READER.notification({}, bent) == Distrusted("signature"), (name, value)
