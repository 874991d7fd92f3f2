"""The simulator as a process and a site: it survives SIGKILL, keeps time, guards its door and shows its pages."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayGateway
from gateway.providers.port import Scene
from gateway.providers.signing import public_key_pem
from gateway.providers.simulator import SimulatorAdmin
from gateway.providers.simulator.admin import SimulatorError
from gateway.providers.simulator.door import BODY_BYTES_MAX
from gateway.providers.simulator.texts import TEXTS
from models.domain.payments import Failed, FailReason, Pending, Succeeded
from tests.conftest import within
from tests.gateway.providers.conftest import APP_ID, OTHER_KEY, RunningSimulator, open_account

PROGRAM = """
import sys
from pathlib import Path
from gateway.providers.simulator import run_simulator
run_simulator("127.0.0.1", int(sys.argv[1]), Path(sys.argv[2]))
"""


@contextmanager
def simulator_process(data_dir: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The provider as a process of its own; it answers when this is entered."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(port), str(data_dir)])
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/sim/health", trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, "the simulator ended at once"
                assert time.monotonic() < deadline, "the simulator did not answer within 30 s"
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def ended_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds from SIGTERM to its end."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    return time.monotonic() - began


def started_and_ended_s(data_dir: Path) -> float:
    with simulator_process(data_dir) as (process, _):
        return ended_s(process)


@pytest.mark.integration
async def test_killed_and_started_again_it_remembers_everything(tmp_path: Path) -> None:
    with simulator_process(tmp_path) as (process, url):
        async with SimulatorAdmin(url) as admin:
            account = await open_account(admin, url)
            provider = AlipayProvider(AlipayGateway(account))
            code, other = await admin.payment_code("lin"), await admin.face_token("lin")
            paid = await provider.pay(
                number="P-1", amount_fen=800, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE
            )
            held = await provider.freeze(number="F-1", amount_fen=1000, subject="m", auth_code=other, scene=Scene.FACE)
            opened = await provider.precreate(number="Q-1", amount_fen=300, subject="a")
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            await provider.aclose()
    assert isinstance(paid, Succeeded)
    assert isinstance(held, Succeeded)
    assert isinstance(opened, Pending)
    with simulator_process(tmp_path) as (process, url):
        async with SimulatorAdmin(url) as admin:
            again = await open_account(admin, url)
            assert again.provider_key.public_numbers() == account.provider_key.public_numbers()
            provider = AlipayProvider(AlipayGateway(again))
            assert await provider.query_payment(number="P-1", amount_fen=800) == paid
            assert (await admin.books(APP_ID))["captured_fen"] == 800
            captured = await provider.capture(
                number="S-1", hold_no=held.result.hold_no, amount_fen=800, subject="settlement"
            )
            assert isinstance(captured, Succeeded)
            await admin.pay_code("lin", qr_code=opened.code_text)  # the code's old port does not matter
            assert isinstance(await provider.query_payment(number="Q-1", amount_fen=300), Succeeded)
            books = await admin.books(APP_ID)
            assert (books["captured_fen"], books["captured_from_holds_fen"], books["held_fen"]) == (1900, 800, 0)
            await provider.aclose()
        if ended_s(process) >= 2.0:
            within(2.0, lambda: started_and_ended_s(tmp_path))
    assert (tmp_path / "provider.sqlite3").stat().st_mode & 0o077 == 0
    assert os.listdir(tmp_path) == ["provider.sqlite3"], "a clean end leaves no write-ahead log"


async def test_codes_die_after_two_minutes_and_open_orders_after_their_time(
    running: RunningSimulator, provider: AlipayProvider, admin: SimulatorAdmin
) -> None:
    code = await admin.payment_code("lin")
    hold = await provider.freeze(number="X-F", amount_fen=100, subject="m")
    order = await provider.precreate(number="X-O", amount_fen=100, subject="a")
    assert isinstance(hold, Pending)
    assert isinstance(order, Pending)
    running.clock.advance(timedelta(minutes=2))
    late = await provider.pay(number="X-1", amount_fen=1, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE)
    assert late == Failed(FailReason.AUTH_INVALID, "ACQ.PAYMENT_AUTH_CODE_INVALID")
    running.clock.advance(timedelta(minutes=13))
    assert await provider.query_freeze(number="X-F", amount_fen=100) == Failed(FailReason.CLOSED, "CLOSED")
    with pytest.raises(SimulatorError, match="ORDER_ALREADY_CLOSED"):
        await admin.authorise_freeze("lin", code=hold.code_text)
    assert isinstance(await provider.query_payment(number="X-O", amount_fen=100), Pending)
    running.clock.advance(timedelta(minutes=75))
    assert await provider.query_payment(number="X-O", amount_fen=100) == Failed(FailReason.CLOSED, "TRADE_CLOSED")
    with pytest.raises(SimulatorError, match="TRADE_HAS_CLOSE"):
        await admin.pay_code("lin", qr_code=order.code_text)


async def test_an_app_keeps_its_provider_key_and_its_seller_while_ours_may_change(
    running: RunningSimulator, admin: SimulatorAdmin
) -> None:
    first = await open_account(admin, running.url, "rotating", "2088777")
    pem = await admin.register_app(
        app_id="rotating", seller_id="2088777", public_key_pem=public_key_pem(OTHER_KEY.public_key())
    )
    assert pem == public_key_pem(first.provider_key)
    old = AlipayProvider(AlipayGateway(first))
    assert isinstance(await old.cancel(number="c-1"), Failed), "the old key is not believed any more"
    await old.aclose()
    with pytest.raises(SimulatorError, match="app_has_another_seller"):
        await open_account(admin, running.url, "rotating", "2088778")
    with pytest.raises(SimulatorError, match="public_key_invalid"):
        await admin.register_app(app_id="bad", seller_id="1", public_key_pem="no key")


async def test_books_are_paged_and_kept_per_app(
    running: RunningSimulator, provider: AlipayProvider, admin: SimulatorAdmin
) -> None:
    account = await open_account(admin, running.url, "paged", "2088555")
    other = AlipayProvider(AlipayGateway(account))
    for n in range(5):
        code = await admin.payment_code("lin")
        await other.pay(number=f"B-{n}", amount_fen=100 + n, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE)
    await other.refund(number="R-1", payment_number="B-1", amount_fen=50, reason="return")
    await other.cancel(number="B-2")
    again = await other.refund(number="cancel", payment_number="B-2", amount_fen=102, reason="a cancel is no refund")
    assert again == Failed(FailReason.AMOUNT_EXCEEDED, "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
    await other.aclose()
    books = await admin.books("paged", limit=3)
    assert (books["captured_fen"], books["captured_count"]) == (510, 5)
    assert (books["refunded_fen"], books["reversed_fen"], books["net_fen"]) == (152, 102, 358)
    rest = await admin.books("paged", after=books["next_after"], limit=3)
    assert [order["out_trade_no"] for order in books["orders"] + rest["orders"]] == [f"B_{n}" for n in range(5)]
    assert rest["next_after"] is None
    assert (await admin.books("nobody"))["captured_fen"] == 0
    with pytest.raises(SimulatorError, match="422"):
        await admin.books("paged", limit=501)


@pytest.fixture
async def site(running: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=running.url, timeout=30.0, trust_env=False, follow_redirects=True) as client:
        yield client


async def press(site: httpx.AsyncClient, page: httpx.Response, user: str) -> httpx.Response:
    """Send the page's own form, as its button does."""
    action = re.search(r'<form method="post" action="([^"]+)"', page.text)
    code = re.search(r'name="code" value="([^"]+)"', page.text)
    assert action is not None
    assert code is not None
    return await site.post(action[1], data={"code": code[1], "user": user})


async def test_a_person_pays_and_authorises_on_the_pages(site: httpx.AsyncClient, provider: AlipayProvider) -> None:
    order = await provider.precreate(number="W-O", amount_fen=1250, subject="<script>alert(1)</script>")
    hold = await provider.freeze(number="W-F", amount_fen=1000, subject="轻会员")
    assert isinstance(order, Pending)
    assert isinstance(hold, Pending)
    assert order.code_text
    assert hold.code_text
    page = await site.get(order.code_text, params={"lang": "zh"})
    assert "¥12.50" in page.text
    assert "付款" in page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    pressed = await press(site, page, "wang")
    assert "TRADE_SUCCESS" in pressed.text
    assert isinstance(await provider.query_payment(number="W-O", amount_fen=1250), Succeeded)
    pressed = await press(site, await site.get(hold.code_text), "wang")
    assert "AUTHORIZED" in pressed.text
    assert isinstance(await provider.query_freeze(number="W-F", amount_fen=1000), Succeeded)
    overview = await site.get("/", headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert "支付机构模拟器" in overview.text
    assert "W_O" in overview.text
    token = await site.post("/page/code", data={"user": "wang", "kind": "face"})
    assert "wang: fp" in token.text
    assert (await site.get("/static/simulator.css")).headers["content-type"].startswith("text/css")
    assert (await site.get("/sim/collect/nothing")).status_code == 404
    assert "order_not_found" in (await site.post("/page/pay", data={"code": "x", "user": "wang"})).text


async def test_a_person_signs_on_the_pages_and_the_overview_shows_what_merchants_were_told(
    site: httpx.AsyncClient, provider: AlipayProvider, admin: SimulatorAdmin
) -> None:
    account = replace(provider._gateway.account, notify_url="http://127.0.0.1:9/gone", credit_template="T1")
    shop = AlipayProvider(AlipayGateway(account))
    asked = [
        await shop.sign(number=uuid.uuid4().hex, limit_fen=5_000, subject="免密支付"),
        await shop.sign_credit(number=uuid.uuid4().hex, fee_fen=1_000, subject="轻会员"),
    ]
    for one, status in zip(asked, ("NORMAL", "Y"), strict=True):
        assert isinstance(one, Pending)
        page = await site.get(await admin.open(one.code_text or ""), params={"lang": "en"})
        assert "<button>Sign</button>" in page.text
        assert status in (await press(site, page, "lin")).text
        refused = (await press(site, page, "wang")).text
        assert "USER_AGREEMENT_NOT_EXIST" in refused or "AGREEMENT_INVALID" in refused, "signed once, by one"
    assert (await site.get("/sim/notifications")).json()["notifications"]
    for lang, title in (("en", "Notifications"), ("zh", "通知")):
        overview = (await site.get("/", params={"lang": lang})).text
        assert title in overview
        assert "dut_user_sign" in overview
    await shop.aclose()


async def test_no_page_loads_anything_from_elsewhere(site: httpx.AsyncClient) -> None:
    for page in ("/", "/?lang=zh"):
        text = (await site.get(page)).text
        assert "http:" not in text
        assert "https:" not in text
        assert "style=" not in text
        assert "onclick" not in text


def test_both_languages_say_everything() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    assert all(text for texts in TEXTS.values() for text in texts.values())


async def test_the_door_refuses_foreign_pages_foreign_names_and_large_bodies(site: httpx.AsyncClient) -> None:
    token = "/sim/users/lin/face-token"
    assert (await site.post(token)).status_code == 200
    assert (await site.post(token, headers={"Origin": "https://example.org"})).status_code == 403
    assert (await site.post(token, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
    assert (await site.post(token, headers={"Host": "example.org"})).status_code == 421
    assert (await site.get("/", headers={"Host": "["})).status_code == 421
    too_large = b"x" * (BODY_BYTES_MAX + 1)

    async def chunks() -> AsyncIterator[bytes]:
        yield too_large

    async def refusal(streamed: bool) -> int:
        """The door closes while we may still be sending: then the answer is lost, and it is asked again."""
        for _ in range(5):
            with suppress(httpx.ReadError, httpx.WriteError):
                return (await site.post("/gateway.do", content=chunks() if streamed else too_large)).status_code
        return 0

    assert [await refusal(False), await refusal(True)] == [413, 413]
    assert (await site.post("/gateway.do", content=too_large[:-1])).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sim/users", {"user": "a b"}),
        ("/sim/users", {"user": "a", "balance_fen": 1.0}),
        ("/sim/users", {"user": "a", "balance_fen": -1}),
        ("/sim/users", {"user": "a", "more": 1}),
        ("/sim/users/a%20b/face-token", None),
        ("/sim/faults", {"method": "alipay.nothing", "kind": "fail"}),
        ("/sim/faults", {"method": "alipay.trade.pay", "kind": "explode"}),
        ("/sim/pay", {"qr_code": "x"}),
    ],
)
async def test_wrong_calls_are_refused(site: httpx.AsyncClient, path: str, body: object) -> None:
    assert (await site.post(path, json=body)).status_code == 422
