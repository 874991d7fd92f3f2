"""A shop in a box: the real host, engine and actors over a lossy broker, a journal and a provider in memory.

One thread, virtual time, one seed: a run that fails is the same when it is run again. The host is killed wherever
a process may die, and started again with nothing but its journal; the auditor looks after every step.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from psycopg import OperationalError

from actors.effects import Ask
from devices.bridge import Bridge
from models.domain.book import ChainBook, ConsentText, StoreBook
from models.domain.events import Purpose
from models.domain.ids import SHARDS_TOTAL, ChainId, LaneId, LegalEntityId, RegionId, StoreId, TerminalId
from models.domain.plans import Plan, Text
from models.domain.pricing import Item
from models.domain.registry import RegisteredTerminal
from models.tables.journal import Commit
from runtime.directory import Directory
from runtime.host import StoreHost
from runtime.pending import OUTBOX_ROWS_A_STORE_MAX
from runtime.states import ENTITIES_MAX
from runtime.testing.broker import CALM, Faults, LossyBroker, MemoryLink
from runtime.testing.clock import VirtualLoop
from runtime.testing.invariants import Auditor, InvariantBroken
from runtime.testing.journal import MemoryConnection, MemoryDatabase, MemoryJournal
from runtime.testing.memberships import MemberBooks, MemoryMemberships
from runtime.testing.ports import MemoryPorts, ScriptedFaces
from runtime.testing.provider import MemoryProvider, ProviderFaults
from runtime.testing.terminal import Counter, SimulatedDevice
from runtime.testing.twins import MemoryTwins
from runtime.testing.visits import Wallet

PROMPT = ProviderFaults()
BEGINS = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)
REGION = RegionId("north")
STORY_S_MAX = 6 * 3600.0
"""Virtual time after which somebody must be waiting for ever."""
QUIET_S = 20 * 60.0
"""Longer than any timer of a session: until then everything has come to its end."""

ITEMS = {
    item.code: item
    for item in (
        Item("tea", Text(zh="茶", en="Tea"), 1200),
        Item("roll", Text(zh="饭团", en="Rice roll"), 653),
        Item("gum", Text(zh="口香糖", en="Gum"), 3),
        Item("smokes", Text(zh="香烟", en="Cigarettes"), 2500, frozenset({"tobacco"})),
        Item("beer", Text(zh="啤酒", en="Beer"), 800, frozenset({"age_18"})),
    )
}


class Killed(BaseException):
    """The process is dead: no handler of its own may see this."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes wrong while the story is told. In thousandths, per place or message; spans in seconds."""

    broker: Faults = CALM
    provider: ProviderFaults = PROMPT
    kill: int = 0
    database_away: int = 0
    """Per virtual second: the database becomes unreachable for a while."""
    commit_unclear: int = 0
    """Per virtual second: the connection breaks around the next commit."""
    memberships_away: int = 0
    faces_silent: int = 0


FAIR = Weather()
FOUL = Weather(
    Faults(duplicate=100, drop_connection=15, lose_down=60, forget=300, delay_s=(0.001, 1.5)),
    ProviderFaults(lost_before=100, lost_after=100, pending=100, slow_s=(0.01, 4.0)),
    kill=4,
    database_away=15,
    commit_unclear=30,
    memberships_away=60,
    faces_silent=60,
)


@dataclass(slots=True, eq=False)
class _Incarnation:
    """One life of the host's process."""

    n: int
    dead: bool = False
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    link: MemoryLink | None = None


_living: contextvars.ContextVar[_Incarnation | None] = contextvars.ContextVar("incarnation", default=None)


class _MemoryDirectory(Directory):
    """The registry of the simulated shop."""

    def __init__(self, records: list[RegisteredTerminal], books: dict[StoreId, StoreBook]) -> None:
        super().__init__(REGION)
        self._records, self._books = records, books

    async def load(self, conn: Any) -> None:
        self._terminals = {record.terminal: record for record in self._records}
        self._lanes = {}
        for record in self._records:
            self._lanes.setdefault((record.store, record.lane), []).append(record)
        self._stores = self._books
        self._versions = {(ChainId("acme"), book.version): book.chain_book for book in self._books.values()}

    async def refresh_owners(self, conn: Any) -> None:
        """Nobody sells a simulated shop."""

    async def refresh_switches(self, conn: Any, now: datetime) -> list[StoreId]:
        """Nobody throws a switch there."""
        return []


class ShopSimulation:
    """One run. `kill_at` kills at the n-th place where a process may die; `weather` makes the rest go wrong."""

    def __init__(
        self,
        seed: int,
        plan: Plan,
        *,
        weather: Weather = FAIR,
        kill_at: int | None = None,
        entities_max: int = ENTITIES_MAX,
        outbox_rows_a_store_max: int = OUTBOX_ROWS_A_STORE_MAX,
    ) -> None:
        self._bounds = (entities_max, outbox_rows_a_store_max)
        self.seed = seed
        self.rng = random.Random(seed)
        self.weather = weather
        self.kill_at = kill_at
        self.points: list[str] = []
        self.kills: list[str] = []
        self.database = MemoryDatabase()
        self.members = MemberBooks(plan)
        self.provider = MemoryProvider(random.Random(seed + 1), weather.provider, lambda _: None)
        self.auditor = Auditor(self.database, self.members, self.provider)
        self.broken: list[str] = []
        self._records = [
            RegisteredTerminal(TerminalId(name), StoreId(store), REGION, LaneId(lane), role, "simulated")
            for name, store, lane, role in (
                ("s1-a", "s1", "l1", "face"),
                ("s1-b", "s1", "l2", "face"),
                ("s2-a", "s2", "l1", "face"),
                ("s2-till", "s2", "l1", "till"),
            )
        ]
        consents = tuple(ConsentText(purpose, "v1", "同意", "I agree") for purpose in Purpose)
        chain = ChainBook(ChainId("acme"), 1, ITEMS, {plan.id: plan}, consents)
        self._books = {
            StoreId(store): StoreBook(
                chain, StoreId(store), REGION, LegalEntityId("franchisee"), "Asia/Shanghai", 4, owner
            )
            for store, owner in (("s1", "storeops"), ("s2", "pos"))
        }
        self._life = _Incarnation(0, dead=True)
        self._calm = False

    # ------------------------------------------------------------ running

    def run(self, script: Callable[[ShopSimulation], Coroutine[Any, Any, None]]) -> ShopSimulation:
        """Tell the story, let it become quiet, and audit. Raises InvariantBroken, naming seed and virtual time."""
        problems: list[str] = []

        def collect(_: Any, __: str, event: Any) -> Any:
            if event.get("event") in ("host_loop", "background", "batch_refused", "message_refused"):
                problems.append(f"{event['event']}: {event.get('exception', event.get('error', ''))}")
            raise structlog.DropEvent

        configured = structlog.get_config()
        structlog.configure(processors=[structlog.processors.format_exc_info, collect])
        loop = VirtualLoop()
        try:
            loop.set_task_factory(_factory)
            loop.set_exception_handler(self._unhandled)
            loop.run_until_complete(self._run(script, problems))
        except InvariantBroken:
            raise
        except Exception as error:
            raise InvariantBroken(f"{self._where(loop)}: {type(error).__name__}: {error}") from error
        finally:
            _end(loop)
            structlog.configure(**configured)
        return self

    async def _run(self, script: Callable[[ShopSimulation], Coroutine[Any, Any, None]], problems: list[str]) -> None:
        loop = asyncio.get_running_loop()
        self.broker = LossyBroker(random.Random(self.seed + 2), self._down, self.weather.broker)
        self.broker.known_session = True
        devices = {
            record.terminal: SimulatedDevice(
                record, self.broker.publish_up, random.Random(f"{self.seed}{record.terminal}"), self.wall
            )
            for record in self._records
        }
        self._devices = devices
        self.ours = Counter(devices[TerminalId("s1-a")])
        self.second = Counter(devices[TerminalId("s1-b")])
        self.tills = Counter(devices[TerminalId("s2-a")], devices[TerminalId("s2-till")])
        self.wallet = Wallet(self.provider, random.Random(self.seed + 3))
        self._boot()
        for device in devices.values():
            device.birth()
        story = loop.create_task(script(self))
        trouble = loop.create_task(self._trouble())
        while not story.done():
            await asyncio.sleep(1.0)
            self._check(problems)
            if loop.time() > STORY_S_MAX:
                story.cancel()
                waits = {name: list(device.waiting) for name, device in devices.items() if device.waiting}
                raise InvariantBroken(f"{self._where(loop)}: somebody waits for ever: {waits}")
        trouble.cancel()
        self._clear_up()
        story.result()
        await self._become_quiet(problems)
        try:
            self.auditor.quiet(self.wall(), [self.ours, self.second, self.tills])
        except InvariantBroken as error:
            raise InvariantBroken(f"{self._where(loop)}: {error}") from error

    def _clear_up(self) -> None:
        """The weather is fair from now on: what is still open must come to its end."""
        self._calm = True
        self.broker.faults = CALM
        self.provider.faults = PROMPT
        self.weather = FAIR
        self.database.unreachable = False
        self.database.lose_next_commit = ""
        self.broker.drop()

    async def _become_quiet(self, problems: list[str]) -> None:
        until = asyncio.get_running_loop().time() + QUIET_S
        while asyncio.get_running_loop().time() < until and not self._is_quiet():
            await asyncio.sleep(30.0)
            self._check(problems)
            for device in self._devices.values():
                device.resend()  # whoever asked may have gone; the terminal keeps an event until its reply
        self._end_life(self._life)
        await asyncio.sleep(0)

    def _is_quiet(self) -> bool:
        answered = not any(device.waiting for device in self._devices.values())
        return answered and self.auditor.is_quiet(self.wall())

    def _check(self, problems: list[str]) -> None:
        found = [*self.broken, *problems]
        if found:
            raise InvariantBroken(f"{self._where(asyncio.get_running_loop())}: {found[0]}")

    def _where(self, loop: asyncio.AbstractEventLoop) -> str:
        return f"seed {self.seed}, {loop.time():.3f} s, killed at {self.kills or 'no point'}"

    def wall(self) -> datetime:
        """The simulated wall clock."""
        return BEGINS + timedelta(seconds=asyncio.get_running_loop().time())

    def _down(self, topic: str, payload: bytes) -> None:
        self._devices[TerminalId(topic.split("/")[5])].heard(topic, payload)

    # ------------------------------------------------------------ lives and deaths of the host

    def _boot(self) -> None:
        """Start the process anew: a new epoch, and nothing in memory."""
        life = self._life = _Incarnation(self._life.n + 1)
        token = _living.set(life)
        try:
            asyncio.get_running_loop().create_task(self._live(life))
        finally:
            _living.reset(token)

    async def _live(self, life: _Incarnation) -> None:
        def point(name: str) -> None:
            self._point(life, name)

        def audited(check: Callable[..., None]) -> Callable[..., None]:
            def run(*args: Any) -> None:
                try:
                    check(*args)
                except InvariantBroken as error:
                    self.broken.append(str(error))

            return run

        async def connect() -> Any:
            if self.database.unreachable:
                raise OperationalError("nobody listens")
            return MemoryConnection(self.database)

        life.link = link = MemoryLink(self.broker, point)
        link.on_publish, link.on_ack = audited(self.auditor.published), audited(self.auditor.acknowledged)
        self.provider.point = point
        away, on_the_way = self.weather.memberships_away, self.database.lease_on_the_way
        memberships = MemoryMemberships(self.members, self.wall, self.rng, point, away, on_the_way)
        faces = ScriptedFaces(self.database, self.rng, self.weather.faces_silent)
        asked: Callable[[Ask], None] = audited(self.auditor.asked)
        committed: Callable[[Commit], None] = audited(self.auditor.committed)
        self.host = host = StoreHost(
            REGION,
            k=0,
            slots=1,
            connect=connect,
            bridge=lambda owner, _: Bridge(link, REGION, range(SHARDS_TOTAL), owner),
            ports=MemoryPorts(self.database, self.members, self.provider, memberships, faces, point, asked, self.wall),
            holder=f"life {life.n}",
            fenced=lambda: self._end_life(life),
            journal=MemoryJournal(point, committed, self.broken.append),
            directory=_MemoryDirectory(self._records, self._books),
            twins=MemoryTwins(),
            wall=self.wall,
            entities_max=self._bounds[0],
            outbox_rows_a_store_max=self._bounds[1],
        )
        await host.start()

    def _point(self, life: _Incarnation, name: str) -> None:
        """A place where the process may die."""
        if life.dead:
            raise Killed(name)
        self.points.append(name)
        chance = self.weather.kill
        if len(self.points) == self.kill_at or (chance and self.rng.randrange(1000) < chance):
            self.kills.append(f"{name} (#{len(self.points)})")
            self._end_life(life)
            asyncio.get_running_loop().call_later(self.rng.uniform(0.3, 3.0), self._boot)
            raise Killed(name)

    def _end_life(self, life: _Incarnation) -> None:
        if life.dead:
            return
        life.dead = True
        if life.link is not None:
            life.link.kill()
        for task in list(life.tasks):
            asyncio.get_running_loop().call_soon(task.cancel)

    async def _trouble(self) -> None:
        """The database goes away and comes back; a connection breaks around a commit."""
        while True:
            await asyncio.sleep(1.0)
            if self.rng.randrange(1000) < self.weather.commit_unclear:
                self.database.lose_next_commit = self.rng.choice(["before", "after"])
            if self.rng.randrange(1000) < self.weather.database_away:
                self.database.unreachable = True
                await asyncio.sleep(self.rng.uniform(0.5, 12.0))
                self.database.unreachable = False

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed | asyncio.CancelledError):
            self.broken.append(f"unhandled: {context.get('message')}: {type(error).__name__}: {error}")


def _factory(
    loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    """Tasks that a host's process starts die with it; requests that have left it do not."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context)
    life = _living.get() if context is None else context.get(_living)
    if life is not None and getattr(coro, "__name__", "") != "arrive":
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)
    return task


def _end(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:  # gathering nothing would make another loop, which nobody closes
        with suppress(BaseException):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
