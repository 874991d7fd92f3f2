"""The simulated terminal plays whole visits against the real session machine, broker and provider simulator."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from devices.customers import load_customers
from devices.interactive import run_terminal
from devices.simulator import ProviderUsers, SimulatedTerminal, till_line
from devices.terminal import TerminalAgent
from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayGateway
from gateway.providers.simulator import SimulatorAdmin, create_simulator_app
from models.domain.errors import Refused, StoreOpsError
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ScreenState
from runtime.broker import EmbeddedBroker
from tests.devices.lane_host import BLURRED, BUSY, MASKED, STRAIGHT, STRANGER, TURNED, UNSURE, LaneHost
from tests.devices.support import JPEG, agent_config, fresh
from tests.gateway.providers.conftest import open_account, serve_in_thread

TILL_LINES = [till_line(1, "tea", "Tea", 1200), till_line(2, "gum", "Gum", 3)]


@pytest.fixture(scope="module")
def provider_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, thread, url = serve_in_thread(create_simulator_app(tmp_path_factory.mktemp("provider")))
    yield url
    server.should_exit = True
    thread.join(30)


@pytest.fixture
async def provider(provider_url: str) -> AsyncIterator[AlipayProvider]:
    async with SimulatorAdmin(provider_url) as admin:
        account = await open_account(admin, provider_url)
    merchant = AlipayProvider(AlipayGateway(account))
    yield merchant
    await merchant.aclose()


@pytest.fixture
async def users(provider_url: str) -> AsyncIterator[ProviderUsers]:
    async with httpx.AsyncClient(timeout=30.0) as http:
        yield ProviderUsers(http, provider_url)


@asynccontextmanager
async def standing(
    broker: EmbeddedBroker, terminal: RegisteredTerminal, users: ProviderUsers | None = None
) -> AsyncIterator[SimulatedTerminal]:
    simulated = SimulatedTerminal(TerminalAgent(agent_config(broker, terminal)), users)
    await simulated.agent.start(connect_timeout_s=30.0)
    try:
        yield simulated
    finally:
        await simulated.agent.stop()


async def test_a_member_is_recognised_and_pays_by_the_providers_face(
    shared_broker: EmbeddedBroker, provider: AlipayProvider, users: ProviderUsers
) -> None:
    terminal = fresh()
    async with LaneHost(shared_broker, [terminal], provider) as host, standing(shared_broker, terminal, users) as at:
        opened = await at.open_session()
        assert opened.prompt is not None
        assert opened.prompt.code == "welcome"
        asked = await at.consent("recognise", text="v1")
        assert asked.prompt is not None
        assert asked.prompt.code == "look_at_camera"
        known = await at.show(JPEG)
        assert known.member is not None
        quoted = await at.scan("tea")
        assert (quoted.state, quoted.due_fen) == (ScreenState.QUOTED, 400)
        done = await at.pay_face("zhang-san")
        assert done.state is ScreenState.PAID
        assert done.receipt is not None
        assert [(sale.due_fen, len(sale.uses)) for sale in host.lane.sales] == [(400, 1)]
        assert len(at.agent.timings.face_to_screen_ms) == 1
        assert len(at.agent.timings.event_to_screen_ms) == 4


@pytest.mark.parametrize(("busy", "known"), [(2, True), (3, False)])
async def test_a_customer_looks_again_when_nobody_had_the_time(
    shared_broker: EmbeddedBroker, provider: AlipayProvider, users: ProviderUsers, busy: int, known: bool
) -> None:
    terminal = fresh()
    async with LaneHost(shared_broker, [terminal], provider) as host, standing(shared_broker, terminal, users) as at:
        host.busy_left = busy
        await at.open_session()
        await at.consent("recognise", text="v1")
        seen = await at.show(BUSY)
        assert (seen.member is not None) is known
        if not known:
            assert seen.prompt is not None
            assert seen.prompt.code == "face_busy"


async def test_a_customer_refuses_the_face_and_pays_by_qr(
    shared_broker: EmbeddedBroker, provider: AlipayProvider, users: ProviderUsers
) -> None:
    terminal = fresh()
    async with LaneHost(shared_broker, [terminal], provider) as host, standing(shared_broker, terminal, users) as at:
        await at.open_session()
        await at.consent("recognise", granted=False, text="v1")
        with pytest.raises(Refused) as caught:
            await at.show(JPEG)
        assert caught.value.code == "consent_missing"
        await at.scan("roll", 2)
        done = await at.pay_qr("li-si")
        assert done.state is ScreenState.PAID
        assert [tender.kind for tender in host.lane.sales[0].tenders] == ["qr"]


async def test_enrolment_shows_the_shots_that_the_screen_asks_for(
    shared_broker: EmbeddedBroker, provider: AlipayProvider, users: ProviderUsers
) -> None:
    terminal = fresh()
    async with LaneHost(shared_broker, [terminal], provider) as host, standing(shared_broker, terminal, users) as at:
        await at.open_session()
        await at.consent("recognise", text="v1")
        assert (await at.show(STRANGER)).member is None
        await at.consent("membership", text="v1")
        shots = [MASKED, BLURRED, MASKED, JPEG]
        done = await at.enrol("light-10", phone="13800001234", user="wang-wu", shots=shots)
        assert done.member is not None
        assert done.prompt is not None
        assert done.prompt.code == "member_ready"
        assert host.lane.session.enrolment is None


async def test_an_enrolment_without_enough_shots_stays_a_membership_without_a_face(
    shared_broker: EmbeddedBroker, users: ProviderUsers
) -> None:
    terminal = fresh()
    async with LaneHost(shared_broker, [terminal]) as host, standing(shared_broker, terminal, users) as at:
        await at.open_session()
        await at.consent("recognise", text="v1")
        await at.consent("membership", text="v1")
        done = await at.enrol("light-10", user="zhao-liu", shots=[JPEG])
        assert done.state is not ScreenState.ENROLLING
        assert done.member is not None
        assert host.lane.session.enrolment is None


async def test_a_customer_turns_the_head_as_the_screen_asks_or_types_digits(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with LaneHost(shared_broker, [terminal]), standing(shared_broker, terminal) as at:
        await at.open_session()
        await at.consent("recognise", text="v1")
        alone = await at.show(STRAIGHT)
        assert alone.prompt is not None
        assert alone.prompt.code == "turn_head", "nothing answers by itself"
        assert (await at.show(TURNED)).member is not None
        await at.cancel()
        await at.open_session()
        await at.consent("recognise", text="v1")
        assert (await at.show(STRAIGHT, turned={"left": TURNED})).member is not None
        await at.cancel()
        await at.open_session()
        await at.consent("recognise", text="v1")
        assert (await at.show(STRAIGHT, turned={"right": TURNED})).state is ScreenState.DIGITS
        assert (await at.digits("1234")).member is not None


async def test_digits_then_cash_with_change_then_void(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with LaneHost(shared_broker, [terminal]) as host, standing(shared_broker, terminal) as at:
        await at.open_session()
        await at.consent("recognise", text="v1")
        assert (await at.show(UNSURE)).state is ScreenState.DIGITS
        assert (await at.digits("1234")).member is not None
        await at.scan("roll")
        await at.remove(1)
        await at.scan("roll", 2)
        done = await at.pay_cash(tendered_fen=1000)
        assert done.paid is not None
        assert done.paid[0].change_fen == 1000 - done.cash_due_fen
        assert (await at.complain("price")).ok
        with pytest.raises(Refused, match=r".") as caught:
            await at.scan("no-such-code")
        assert caught.value.do
        assert host.lane.sales[0].due_fen == done.due_fen


async def test_a_till_sends_its_basket_collects_and_says_so(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh("till")
    till = RegisteredTerminal(
        terminal.terminal, terminal.store, terminal.region, terminal.lane, "till", terminal.profile
    )
    async with LaneHost(shared_broker, [till], basket_owner="pos") as host, standing(shared_broker, till) as at:
        await at.basket(TILL_LINES[:1], till_txn="T-1")
        quoted = await at.basket(TILL_LINES)
        assert (quoted.basket_rev, quoted.due_fen) == (2, 1203)
        await at.confirm(collect="till")
        done = await at.paid([{"kind": "card", "fen": 1203}])
        assert done.state is ScreenState.PAID
        assert host.lane.sales[0].till_txn == "T-1"
        # The next customer is another transaction of the till.
        again = await at.basket(TILL_LINES[:1], till_txn="T-2")
        assert (again.session != done.session, again.basket_rev) == (True, 1)
        assert (await at.cancel()).state is ScreenState.CLOSED


async def test_a_face_terminal_joins_the_tills_visit(shared_broker: EmbeddedBroker) -> None:
    face, till = fresh(), fresh("till")
    till = RegisteredTerminal(till.terminal, face.store, face.region, face.lane, "till", "till")
    async with (
        LaneHost(shared_broker, [face, till], basket_owner="pos") as host,
        standing(shared_broker, face) as customer,
        standing(shared_broker, till) as clerk,
    ):
        await clerk.basket(TILL_LINES, till_txn="T-1")
        await customer.join()
        await customer.consent("recognise", text="v1")
        await customer.show(JPEG)
        adjusted = await clerk.agent.wait_screen(lambda s: s.discount_fen == 800)
        assert adjusted == await customer.agent.wait_screen(lambda s: s.rev == adjusted.rev)
        await clerk.confirm(collect="till")
        await clerk.paid([{"kind": "cash", "fen": 400, "tendered_fen": 500}])
        sale = host.lane.sales[0]
        assert (sale.due_fen, sale.rounding_fen) == (403, 3)


async def test_the_laptop_terminal_plays_what_is_typed(
    shared_broker: EmbeddedBroker,
    provider: AlipayProvider,
    provider_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("devices.simulator.SCREEN_TIMEOUT_S", 2.0)
    for name in ("Ada", "Bao"):
        (tmp_path / name).mkdir()
        for n in range(2):
            (tmp_path / name / f"{n}.jpg").write_bytes(JPEG)
    (tmp_path / "empty").mkdir()
    terminal = fresh()
    typed = "who\nwho bao\nwho nobody\nopen\nnonsense\nscan 'unclosed\nscan\nscan tea 2\npay qr\npay cash\nquit\n"
    output = io.StringIO()
    async with LaneHost(shared_broker, [terminal], provider) as host:
        await run_terminal(
            agent_config(shared_broker, terminal),
            tmp_path,
            language="en",
            provider_url=provider_url,
            console=Console(file=output, width=100),
            commands=io.StringIO(typed),
        )
        assert [tender.kind for tender in host.lane.sales[0].tenders] == ["qr"]
    shown = output.getvalue()
    for text in ("Ada, Bao -> Bao", "nobody is called nobody", "not understood", "due", "paid", "no answer yet"):
        assert text in shown


async def test_a_parking_gate_takes_an_amount_for_a_plate_and_opens(
    shared_broker: EmbeddedBroker, provider: AlipayProvider, provider_url: str
) -> None:
    gate = replace(fresh("parking"), role="self")
    output = io.StringIO()
    async with LaneHost(shared_broker, [gate], provider, basket_owner="none") as host:
        await run_terminal(
            agent_config(shared_broker, gate),
            language="en",
            provider_url=provider_url,
            console=Console(file=output, width=100),
            commands=io.StringIO("amount 1500 A-12345\npay code\nquit\n"),
        )
        [sale] = host.lane.sales
    assert (sale.due_fen, sale.till_txn, [tender.kind for tender in sale.tenders]) == (1500, "A-12345", ["code"])
    assert "opens" in output.getvalue()
    assert "Amount" not in output.getvalue(), "it has no lines"


def test_photographs_are_folders_of_jpegs(tmp_path: Path) -> None:
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "notes.txt").write_text("x")
    with pytest.raises(StoreOpsError) as caught:
        load_customers(tmp_path)
    assert caught.value.code == "no_photos"
