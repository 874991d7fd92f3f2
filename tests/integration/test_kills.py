"""A real SIGKILL, once per process, in the middle of a small story: it still ends with the same money."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import psutil
import pytest

from devices.simulator import SimulatedTerminal, till_line
from gateway.auth import csrf_token
from models.domain.errors import Refused
from models.domain.screen import Screen, ScreenState
from runtime import administration
from runtime.photos import Photographs
from tests.integration.house import NOODLES, WATER, House, Note
from tests.integration.wire import Sender, Wire, open_wire

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

VISITS = 3
"""Per lane; the kill comes after the first sale, while the other lanes are anywhere."""
PATIENCE_S = 90.0
PLAN = "light-10"
LOOKS_MAX = 10


@dataclass
class Story:
    """Four lanes with a customer each, at the same time: cash, the provider's face payment, a till, new members."""

    house: House
    name: str
    sold: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the first sale of any lane."""
    paid: list[Screen] = field(default_factory=list)

    async def play(self) -> None:
        places = (
            ("sz-yantian", "cash", "face", self._cash),
            ("sz-yantian", "token", "face", self._token),
            ("zs-shiqi", "till", "till", self._till),
            ("gz-huadu", "member", "face", self._member),
        )
        async with AsyncExitStack() as stack:
            visits = []
            for store, lane, role, visit in places:
                terminal = await stack.enter_async_context(self.house.terminal(store, f"{self.name}-{lane}", role))
                terminal.screen_timeout_s = terminal.reply_timeout_s = PATIENCE_S
                visits.append((terminal, visit))
            async with asyncio.TaskGroup() as lanes:
                for terminal, visit in visits:
                    lanes.create_task(self._lane(terminal, visit))

    async def _lane(self, at: SimulatedTerminal, visit: Callable[[SimulatedTerminal, int], Awaitable[Screen]]) -> None:
        for n in range(VISITS):
            screen = await visit(at, n)
            assert screen.state is ScreenState.PAID, screen
            self.paid.append(screen)
            self.sold.set()

    async def _cash(self, at: SimulatedTerminal, _n: int) -> Screen:
        await at.open_session()
        await at.scan(WATER[0], 2)
        return await at.pay_cash(500)

    async def _token(self, at: SimulatedTerminal, n: int) -> Screen:
        await at.open_session()
        await at.scan(NOODLES[0])
        screen = await at.pay_face(f"{self.name}-{n}")
        if screen.prompt is not None and screen.prompt.code == "not_paid":
            # The request died on its way and stayed unclear for a minute: cancelled, and the customer pays again.
            screen = await at.pay_face(f"{self.name}-{n}")
        return screen

    async def _till(self, at: SimulatedTerminal, n: int) -> Screen:
        await at.basket([till_line(1, "4006381333931", "Pen", 415, 3)], till_txn=f"{self.name}-{n}")
        await at.confirm(collect="till")
        screen = await at.agent.wait_screen(lambda s: s.prompt is not None and "paid" in s.actions, PATIENCE_S)
        return await at.paid([{"kind": "cash", "fen": screen.cash_due_fen}])

    async def _member(self, at: SimulatedTerminal, n: int) -> Screen:
        await at.open_session()
        await at.consent("membership")
        await at.enrol(
            PLAN, phone=f"138{sum(map(ord, self.name)):04d}{n:04d}", user=f"{self.name}-m{n}", timeout_s=PATIENCE_S
        )
        screen = await at.scan(NOODLES[0])
        assert (screen.gross_fen, screen.discount_fen, screen.due_fen) == (1590, 800, 790)
        return await at.pay_cash()

    def check(self) -> None:
        """Each visit is one sale of the right amount, whatever was sent again."""
        sales = self.house.rows(
            "SELECT lane, gross_fen, discount_fen, due_fen FROM sale WHERE starts_with(lane, %s) ORDER BY lane",
            (f"{self.name}-",),
        )
        assert sales == [
            *[(f"{self.name}-cash", 400, 0, 400)] * VISITS,
            *[(f"{self.name}-member", 1590, 800, 790)] * VISITS,
            *[(f"{self.name}-till", 1245, 0, 1245)] * VISITS,
            *[(f"{self.name}-token", 1590, 0, 1590)] * VISITS,
        ]
        receipts = [screen.receipt.no for screen in self.paid if screen.receipt is not None]
        assert len(set(receipts)) == len(receipts) == 4 * VISITS
        uses = self.house.rows(
            "SELECT count(*), sum(u.fen)::bigint FROM usage u JOIN sale s ON s.id = u.sale WHERE s.lane = %s",
            (f"{self.name}-member",),
        )
        assert uses == [(VISITS, VISITS * 800)]


@asynccontextmanager
async def told(house: House, name: str) -> AsyncIterator[tuple[Story, Wire]]:
    """Plays the story; the body runs after the first sale. Afterwards everything is counted."""
    story = Story(house, name)
    before = await house.check_provider()
    async with open_wire(house.plant) as ear:
        async with asyncio.timeout(PATIENCE_S * 2), asyncio.TaskGroup() as playing:
            playing.create_task(story.play())
            await story.sold.wait()
            yield story, ear
        assert not ear.contradictions()
    await asyncio.to_thread(house.check_books)
    story.check()
    assert await house.check_provider() - before == VISITS * NOODLES[1]


async def outage(house: House, ear: Wire, lane: str, victim: psutil.Process) -> float:
    """Kill it, then ask at once: seconds until an event sent after the kill is answered."""
    sender = Sender(house.plant, await house.register("gz-baiyun", lane))
    await sender.begin(ear)
    loop = asyncio.get_running_loop()
    victim.kill()
    began = loop.time()
    question = sender.event("complaint", {"about": "other"})
    await sender.until_answered(ear, question)
    return loop.time() - began


async def test_the_host_is_killed(house: House, note: Note) -> None:
    victim = house.host()
    async with told(house, "kill-host") as (_, ear):
        note("outage_s", await outage(house, ear, "kill-host-probe", victim))
    assert house.host().pid != victim.pid


async def test_the_broker_is_killed(house: House, note: Note) -> None:
    victim = house.broker()
    async with told(house, "kill-broker") as (_, ear):
        note("outage_s", await outage(house, ear, "kill-broker-probe", victim))
    assert house.broker().pid != victim.pid


async def test_the_database_is_killed(house: House, note: Note) -> None:
    victim = house.postmaster()
    async with told(house, "kill-database") as (_, ear):
        note("outage_s", await outage(house, ear, "kill-database-probe", victim))
    assert house.postmaster().pid != victim.pid


async def test_the_provider_is_killed(house: House, note: Note) -> None:
    victim = house.provider()
    async with told(house, "kill-provider"), httpx.AsyncClient(timeout=20.0, trust_env=False) as http:
        victim.kill()

        async def answers() -> bool:
            try:
                return (await http.get(f"{house.plant.provider_url}/sim/health")).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        note("outage_s", await until(answers))
    assert house.provider().pid != victim.pid


async def test_the_gateway_is_killed(house: House, note: Note) -> None:
    """A virtual terminal in a browser sends the same bytes again: the same reply, one effect."""
    victim = house.gateway()
    till = await house.register("gz-baiyun", "kill-gateway-probe")
    sender = Sender(house.plant, till)
    async with told(house, "kill-gateway"), browser(house) as http:

        async def post(envelope: dict[str, object]) -> httpx.Response | None:
            try:
                answer = await http.post(f"/api/v1/terminals/{sender.terminal}/events", json=envelope)
            except httpx.TransportError:
                return None
            return answer if answer.status_code == httpx.codes.OK else None

        opened = sender.event("session.open", {})
        first = await post(opened)
        assert first is not None
        victim.kill()

        async def answered() -> bool:
            again = await post(opened)
            return again is not None and again.json()["reply"] == first.json()["reply"]

        note("outage_s", await until(answered))
    assert house.gateway().pid != victim.pid
    assert house.rows("SELECT count(*) FROM inbox WHERE terminal = %s", (sender.terminal,)) == [(1,)]


async def test_the_face_worker_is_killed(house: House, people: Photographs, note: Note) -> None:
    """Members are recognised again by their stored templates; the story beside it does not even notice."""
    person = people.members[0]
    victim = house.face_worker()
    async with told(house, "kill-faces"), house.terminal("gz-tianhe", "kill-faces-probe") as at:
        at.screen_timeout_s = at.reply_timeout_s = PATIENCE_S
        await at.open_session()
        await at.consent("recognise")
        await at.consent("membership")
        shots = [shot.read_bytes() for shot in person.shots]
        enrolled = await at.enrol(PLAN, phone="13700000001", user="kill-faces", shots=shots, timeout_s=PATIENCE_S)
        assert enrolled.member is not None
        await at.cancel()

        await at.open_session()
        await at.consent("recognise")
        loop = asyncio.get_running_loop()
        victim.kill()
        began = loop.time()
        seen = at.screen
        for _ in range(LOOKS_MAX):
            with contextlib.suppress(Refused):  # face_lost: look again
                seen = await at.show(person.probes[0].read_bytes())
            if seen.member is not None:
                break
        note("outage_s", loop.time() - began)
        assert seen.member == enrolled.member
    assert house.face_worker().pid != victim.pid


async def until(holds: Callable[[], Awaitable[bool]], every_s: float = 0.02) -> float:
    """Seconds until it holds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(every_s)
    return loop.time() - began


@asynccontextmanager
async def browser(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """Signed in by the one-time link, as a person would."""
    base = f"http://127.0.0.1:{house.plant.gateway_port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=20.0) as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == httpx.codes.OK

        await until(ready)
        await http.get(await administration.login_link(house.plant))
        [secret] = http.cookies.values()
        http.headers["x-csrf-token"] = csrf_token(secret)
        yield http
