"""What a customer waits for at one counter, and in the same run the barest thing that could do it.

Real terminals over the house's own broker, one customer at a time. Each event is followed by one bare MQTT round
trip and one bare commit, each face by one bare look: what the machine does meanwhile hits all of them alike.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from psycopg import AsyncConnection

from devices.agent_config import AgentConfig
from devices.link import Delivery
from devices.mqtt import LinkConfig, MqttLink
from devices.simulator import ProviderUsers, SimulatedTerminal
from models.domain.errors import NeedsOperator
from models.domain.face_quality import DEMO, FaceKind, LookPurpose
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.recognition import Seen
from models.domain.screen import ScreenState
from models.faces.pipeline import FacePipeline
from runtime.photos import Person
from runtime.plant import Plant

CONNECT_S_MAX = 30.0
EVENT_BYTES = 320
"""As a scan on the wire."""
SCREEN_BYTES = 700
"""As a screen with some lines."""
SCANS_A_VISIT = 7
ACCEPTED_PART_MIN = 0.9
PLAN = "light-10"


@dataclass(frozen=True, slots=True)
class Counter:
    """A registered face terminal and its secret."""

    terminal: str
    store: str
    secret: str


@dataclass(slots=True)
class Waits:
    """Samples in milliseconds."""

    event_to_screen: list[float] = field(default_factory=list)
    mqtt_round_trip: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)
    face_to_screen: list[float] = field(default_factory=list)
    bare_look: list[float] = field(default_factory=list)
    accepted: int = 0


class Echo:
    """Two bare links on the house's broker: one asks, the other answers, both QoS 1 and acknowledged."""

    def __init__(self, plant: Plant) -> None:
        self._ask, self._answer = (self._link(plant, name) for name in ("bench-ask", "bench-answer"))
        self._back: asyncio.Future[None] | None = None
        self._replies: set[asyncio.Task[None]] = set()
        self._heard = (_Heard(self._ask, self._arrived), _Heard(self._answer, self._asked))
        self._ask.listen(self._heard[0], ("bench/back",))
        self._answer.listen(self._heard[1], ("bench/there",))

    @staticmethod
    def _link(plant: Plant, name: str) -> MqttLink:
        return MqttLink(
            LinkConfig(
                host=plant.broker_host,
                port=plant.broker_port,
                client_id=name,
                username=plant.broker_user,
                password=plant.broker_password,
                session_expiry_s=0,
            )
        )

    async def start(self) -> None:
        """Connect both. Raises TimeoutError."""
        await asyncio.gather(self._ask.start(), self._answer.start())
        async with asyncio.timeout(CONNECT_S_MAX):
            await asyncio.gather(*(heard.up.wait() for heard in self._heard))

    async def stop(self) -> None:
        """Disconnect in order."""
        await asyncio.gather(self._ask.stop(), self._answer.stop())

    async def round_trip_ms(self) -> float:
        """There and back again."""
        self._back = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        publishing = asyncio.create_task(self._ask.publish("bench/there", b"e" * EVENT_BYTES))
        async with asyncio.timeout(5.0):
            await self._back
        took_ms = (time.perf_counter() - began) * 1000
        await publishing
        return took_ms

    def _asked(self) -> None:
        task = asyncio.create_task(self._answer.publish("bench/back", b"s" * SCREEN_BYTES))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    def _arrived(self) -> None:
        if self._back is not None and not self._back.done():
            self._back.set_result(None)


class _Heard:
    """A listener that only passes on that something came."""

    def __init__(self, link: MqttLink, heard: Callable[[], None]) -> None:
        self._link, self._heard = link, heard
        self.up = asyncio.Event()

    def delivered(self, delivery: Delivery) -> None:
        self._heard()
        if delivery.receipt is not None:
            self._link.ack(delivery.receipt)

    def connected(self, epoch: int, session_present: bool) -> None:  # noqa: ARG002
        self.up.set()

    def disconnected(self, reason: str) -> None:
        """The next round trip runs into its time-out."""

    async def may_reconnect(self, taken_over: bool) -> bool:  # noqa: ARG002 - nobody else uses these ids
        return True


class Commits:
    """A table of one column in the house's own PostgreSQL: one row, one commit, on disk when it returns."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def start(self) -> None:
        """Connect. Raises NeedsOperator when the server does not wait for its disk: then it is no baseline."""
        self._conn: AsyncConnection[Any] = await AsyncConnection.connect(self._url, autocommit=True)
        await self._conn.execute("CREATE TABLE IF NOT EXISTS bench_commit (n bigint)")
        for name in ("fsync", "synchronous_commit"):
            cursor = await self._conn.execute("SELECT current_setting(%s)", (name,))
            value = await cursor.fetchone()
            if value is None or value[0] != "on":
                raise NeedsOperator("not_durable", f"{name} is off", "measure on a durable database")

    async def stop(self) -> None:
        """Leave nothing."""
        await self._conn.execute("DROP TABLE bench_commit")
        await self._conn.close()

    async def commit_ms(self) -> float:
        """One row."""
        began = time.perf_counter()
        await self._conn.execute("INSERT INTO bench_commit VALUES (1)")
        return (time.perf_counter() - began) * 1000


class OneCustomer:
    """Plays visits at one counter and keeps the samples."""

    def __init__(self, plant: Plant, counters: Sequence[Counter], folder: Path, tick: Callable[[], None]) -> None:
        """`tick` is called once for each event and face."""
        self.waits = Waits()
        self._tick = tick
        self._http = httpx.AsyncClient(timeout=10.0, trust_env=False)
        self._echo, self._commits = Echo(plant), Commits(plant.database_url)
        self._pipeline = FacePipeline.from_cache(plant.faces_cache)
        provider = ProviderUsers(self._http, plant.provider_url)
        self._terminals = [
            SimulatedTerminal.of(
                AgentConfig(
                    host=plant.broker_host,
                    port=plant.broker_port,
                    region=RegionId(plant.region),
                    store=StoreId(one.store),
                    terminal=TerminalId(one.terminal),
                    profile="dragonfly-2",
                    secret=one.secret,
                    outbox_path=folder / f"{one.terminal}.sqlite",
                ),
                provider,
            )
            for one in counters
        ]

    async def start(self) -> None:
        """Connect everything, and wait until each terminal has its configuration."""
        await asyncio.gather(
            self._echo.start(),
            self._commits.start(),
            *(one.agent.start(CONNECT_S_MAX) for one in self._terminals),
        )
        async with asyncio.timeout(CONNECT_S_MAX):
            for one in self._terminals:
                while not one.agent.applied_gen:  # noqa: ASYNC110 - the agent tells nobody
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Disconnect in order."""
        await asyncio.gather(*(one.agent.stop() for one in self._terminals), return_exceptions=True)
        await asyncio.gather(self._echo.stop(), self._commits.stop(), return_exceptions=True)
        await self._http.aclose()

    # ------------------------------------------------------------ events

    async def events(self, codes: Sequence[str], count: int) -> None:
        """Whole visits paid in cash, until `count` events were timed. The first visits warm up and do not count."""
        for warm in self._terminals:
            await self._visit(warm, codes, timed=False)
        self._clear()
        visits = 0
        while len(self.waits.event_to_screen) < count:
            await self._visit(self._terminals[visits % len(self._terminals)], codes, timed=True)
            visits += 1

    async def _visit(self, at: SimulatedTerminal, codes: Sequence[str], timed: bool) -> None:
        await at.open_session()
        await self._between(at, timed)
        for n in range(SCANS_A_VISIT):
            await at.scan(codes[n % len(codes)])
            await self._between(at, timed)
        await at.remove(1)
        await self._between(at, timed)
        await at.pay_cash()
        await self._between(at, timed)

    async def _between(self, at: SimulatedTerminal, timed: bool) -> None:
        round_trip_ms = await self._echo.round_trip_ms()
        commit_ms = await self._commits.commit_ms()
        fresh = _take(at.agent.timings.event_to_screen_ms)
        if timed and fresh:
            self.waits.event_to_screen += fresh
            self.waits.mqtt_round_trip.append(round_trip_ms)
            self.waits.commit.append(commit_ms)
            self._tick()

    # ------------------------------------------------------------ faces

    async def enrol(self, people: Sequence[Person]) -> None:
        """Make members of them: a gallery to be found in."""
        at = self._terminals[0]
        for n, person in enumerate(people):
            await at.open_session()
            await at.consent("recognise")
            await at.consent("membership")
            shots = [shot.read_bytes() for shot in person.shots]
            screen = await at.enrol(PLAN, phone=f"137{n:08d}", user=f"bench-{person.name}", shots=shots)
            if screen.member is None:
                raise NeedsOperator("bench_enrol", f"{person.name} was not enrolled: {screen.prompt}", "see the logs")
            await at.cancel()

    async def faces(self, people: Sequence[Person], count: int) -> None:
        """Members come back and look into the camera, `count` times; one look more before them warms up.

        Raises NeedsOperator `bench_faces` when too few were recognised: then something else was timed.
        """
        photographs = [probe.read_bytes() for person in people for probe in person.probes]
        for n in range(count + 1):
            await self._look(self._terminals[n % len(self._terminals)], photographs[n % len(photographs)], n > 0)
        if self.waits.accepted < ACCEPTED_PART_MIN * count:
            raise NeedsOperator("bench_faces", f"{self.waits.accepted} of {count} were recognised", "see the logs")

    async def _look(self, at: SimulatedTerminal, jpeg: bytes, timed: bool) -> None:
        await at.open_session()
        await at.consent("recognise")
        at.agent.timings.face_to_screen_ms.clear()
        screen = await at.show(jpeg)
        fresh = _take(at.agent.timings.face_to_screen_ms)
        await at.cancel()
        began = time.perf_counter()
        seen = self._pipeline.look(jpeg, kind=FaceKind.FRAME, purpose=LookPurpose.PROBE, policy=DEMO)
        bare_ms = (time.perf_counter() - began) * 1000
        if timed:
            assert isinstance(seen, Seen), "every probe passes the gates"
            self.waits.accepted += screen.member is not None and screen.state is ScreenState.IDENTIFIED
            self.waits.face_to_screen += fresh
            self.waits.bare_look.append(bare_ms)
            self._tick()

    def _clear(self) -> None:
        for one in self._terminals:
            one.agent.timings.event_to_screen_ms.clear()


def _take(samples: deque[float]) -> list[float]:
    taken = list(samples)
    samples.clear()
    return taken
