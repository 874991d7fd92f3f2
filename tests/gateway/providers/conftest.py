"""A real simulator behind a real socket, and a merchant of its."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import connect

import pytest
import uvicorn

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_calls import wire_number
from gateway.providers.alipay_gateway import AlipayAccount, AlipayGateway
from gateway.providers.port import Capability, PaymentProvider, Scene
from gateway.providers.signing import generate_private_key, load_public_key, public_key_pem
from gateway.providers.simulator import SimulatorAdmin, create_simulator_app
from gateway.providers.simulator.database import FILE_NAME
from gateway.providers.wechat import WechatProvider
from gateway.providers.wechat_calls import order_number
from gateway.providers.wechat_gateway import WechatAccount, WechatGateway

APP_ID, SELLER_ID = "2026000000000001", "2088000000000001"
MCHID, WECHAT_APPID, WECHAT_SERIAL = "1900000001", "wx0000000000000001", "5157F09EFDC096DE15EBE81A47057A72"
API_KEY, SERVICE_ID = "0123456789abcdef0123456789abcdef", "500001"
IMPATIENT_S = 1.0
"""Only for calls that are scripted to get no answer: everything else waits as long as the product does."""
KEY = generate_private_key()
OTHER_KEY = generate_private_key()


@dataclass
class MovableClock:
    """The simulator's clock, moved by the test."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 22, 4, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


@dataclass(frozen=True)
class RunningSimulator:
    url: str
    clock: MovableClock
    data_dir: Path


def serve_in_thread(app: object) -> tuple[uvicorn.Server, threading.Thread, str]:
    """A server on a free loopback port; it listens when this returns."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended at once"
        assert time.monotonic() < deadline, "the server did not start within 30 s"
        thread.join(0.01)
    return server, thread, f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    data_dir = tmp_path_factory.mktemp("provider")
    clock = MovableClock()
    server, thread, url = serve_in_thread(create_simulator_app(data_dir, clock=clock))
    yield RunningSimulator(url, clock, data_dir)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
async def admin(running: RunningSimulator) -> AsyncIterator[SimulatorAdmin]:
    async with SimulatorAdmin(running.url) as client:
        yield client
        await client.clear_faults()


async def open_account(admin: SimulatorAdmin, url: str, app_id: str = APP_ID, seller: str = SELLER_ID) -> AlipayAccount:
    pem = await admin.register_app(
        app_id=app_id, seller_id=seller, public_key_pem=public_key_pem(KEY.public_key()), name="shop"
    )
    return AlipayAccount(f"{url}/gateway.do", app_id, seller, KEY, load_public_key(pem))


@pytest.fixture
async def account(running: RunningSimulator, admin: SimulatorAdmin) -> AlipayAccount:
    return await open_account(admin, running.url)


@pytest.fixture
async def provider(account: AlipayAccount) -> AsyncIterator[AlipayProvider]:
    provider = AlipayProvider(AlipayGateway(account))
    yield provider
    await provider.aclose()


async def open_wechat(admin: SimulatorAdmin, url: str, mchid: str = MCHID) -> WechatAccount:
    pem, serial = await admin.register_wechat(
        mchid=mchid,
        appid=WECHAT_APPID,
        serial_no=WECHAT_SERIAL,
        api_key=API_KEY,
        public_key_pem=public_key_pem(KEY.public_key()),
        service_id=SERVICE_ID,
        name="shop",
    )
    return WechatAccount(
        base_url=f"{url}/wechat",
        mchid=mchid,
        appid=WECHAT_APPID,
        serial_no=WECHAT_SERIAL,
        private_key=KEY,
        platform_serial=serial,
        platform_key=load_public_key(pem),
        api_key=API_KEY,
        notify_url="http://127.0.0.1:9/api/v1/providers/wechat/notify",
        service_id=SERVICE_ID,
        confirm_url=f"{url}/sim/authorise/",
    )


@pytest.fixture
async def wechat_account(running: RunningSimulator, admin: SimulatorAdmin) -> WechatAccount:
    return await open_wechat(admin, running.url)


@pytest.fixture
async def wechat(running: RunningSimulator, wechat_account: WechatAccount) -> AsyncIterator[WechatProvider]:
    provider = WechatProvider(WechatGateway(wechat_account, clock=running.clock))
    yield provider
    await provider.aclose()


@dataclass(frozen=True)
class Shop:
    """A provider under test, and what its customers can do. `name` is the provider's, in tenders and faults."""

    name: str
    provider: PaymentProvider
    customers: SimulatorAdmin
    account: str
    """The merchant's app or number, as the provider's books call it."""
    data_dir: Path
    pay_method: str
    """What faults call a payment by code."""

    def wire(self, order: str) -> str:
        """Our number as the provider's books have it."""
        return order_number(order) if self.name == "wechat" else wire_number(order)

    def trade_no(self, order: str) -> str:
        """What the customer's phone knows of an order that waits for it."""
        with closing(connect(self.data_dir / FILE_NAME)) as db:
            [(found,)] = db.execute("SELECT trade_no FROM trade WHERE out_trade_no = ?", (self.wire(order),))
        return str(found)

    async def code(self, user: str, scene: Scene = Scene.PAYMENT_CODE) -> str:
        """What the customer shows, or what the face device yields: a code like the phone's, where it has no other."""
        if scene is Scene.FACE and Capability.FACE_TOKENS in self.provider.capabilities:
            return await self.customers.face_token(user)
        return await self.customers.payment_code(user, self.name)


@pytest.fixture(params=["alipay", "wechat"])
async def shop(
    request: pytest.FixtureRequest,
    running: RunningSimulator,
    provider: AlipayProvider,
    wechat: WechatProvider,
    admin: SimulatorAdmin,
) -> Shop:
    if request.param == "alipay":
        return Shop("alipay", provider, admin, APP_ID, running.data_dir, "alipay.trade.pay")
    return Shop("wechat", wechat, admin, MCHID, running.data_dir, "wechat.codepay")


@pytest.fixture
async def hasty(
    shop: Shop, running: RunningSimulator, account: AlipayAccount, wechat_account: WechatAccount
) -> AsyncIterator[PaymentProvider]:
    """The same merchant, which gives a call up after IMPATIENT_S."""
    provider: PaymentProvider
    if shop.name == "alipay":
        provider = AlipayProvider(AlipayGateway(account, call_timeout_s=IMPATIENT_S))
    else:
        provider = WechatProvider(WechatGateway(wechat_account, clock=running.clock, call_timeout_s=IMPATIENT_S))
    yield provider
    await provider.aclose()


def needs(shop: Shop, capability: Capability) -> None:
    """Skip what this provider says that it has not; `test_what_is_missing_is_refused` holds it to that."""
    if capability not in shop.provider.capabilities:
        pytest.skip(f"{shop.name} has no {capability}")
