"""StoreHost: keeps the entities of its shards alive. One batch after another, and nothing leaves before its commit.

decode at the door -> dedupe read -> pure turns -> ONE transaction -> publish -> ack -> ask. A plain class: Ray is
applied in hosting.py, and the simulator runs the same engine over a lossy broker and a journal that crashes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from actors.effects import Ask
from actors.hosts import RATE_OVER_S, Delivered, Delivery
from devices.bridge import Bridge
from models.domain.errors import Fenced
from models.domain.ids import RegionId, TerminalId, derived_id
from models.domain.live import Changes
from models.domain.messages import Address, TimerFired
from models.domain.registry import RegisteredTerminal
from models.tables import journal as postgres_journal
from models.tables import terminals as postgres_twins
from models.tables.journal import Read, Slot
from models.tables.pruning import FIRST_PRUNE
from runtime.afterwards import Afterwards
from runtime.ask_desk import AskDesk
from runtime.asks import AskPorts, VisitMemory
from runtime.clock import wall_now
from runtime.deliveries import Deliveries
from runtime.directory import Directory
from runtime.door import Door, Source
from runtime.engine import Engine, Item, Work, decode_state
from runtime.host_database import Connect, HostDatabase, is_outage
from runtime.intake import Intake
from runtime.journal_port import Journal
from runtime.observed import Observed
from runtime.orders import Orders
from runtime.outgoing import decode_request
from runtime.pending import OUTBOX_ROWS_A_STORE_MAX, Pending
from runtime.publisher import Publisher
from runtime.states import ENTITIES_MAX, GENERATION_S, States
from runtime.switching import Switching
from runtime.telemetry import HostCounts
from runtime.terminal_care import TerminalCare
from runtime.tiles import Tiles, Wall
from runtime.twin_port import TwinStore

log = structlog.get_logger()

BATCH_MESSAGES_MAX = 256
COLLECT_S = 0.002
COLLECT_FROM_MESSAGES = 3
"""A batch as large as this is followed by one that is collected for COLLECT_S; when little comes nobody waits."""
TICK_S = 1.0
WOKEN_A_PAGE_MAX = 1_000
TIMERS_A_BATCH_MAX = 1_000
SWEEP_ASKS_MAX = 256
ASK_LEASE_S = 15.0
RESOLVE_EVERY_TICKS = 3
PRUNE_EVERY_TICKS, PRUNED_ROWS_MAX = 60, 5_000
PASSIVATE_EVERY_TICKS = int(GENERATION_S / TICK_S)
OWNERS_EVERY_TICKS = 30
"""A store that changes hands does so from a business date on; hosts know it half a minute after it was said."""


class StoreHost:
    """One slot's host. `start()` returns when it owns its shards and listens; `stop()` leaves nothing half done."""

    def __init__(
        self,
        region: RegionId,
        *,
        k: int,
        slots: int,
        connect: Connect,
        bridge: Callable[[StoreHost, Slot], Bridge],
        ports: AskPorts,
        holder: str,
        fenced: Callable[[], None],
        journal: Journal = postgres_journal,
        directory: Directory | None = None,
        wall: Callable[[], datetime] = wall_now,
        twins: TwinStore = postgres_twins,
        entities_max: int = ENTITIES_MAX,
        outbox_rows_a_store_max: int = OUTBOX_ROWS_A_STORE_MAX,
    ) -> None:
        """`fenced` is called once when another host has taken the slot: the process must exit.

        A simulation hands in its own journal, directory and wall clock; its event loop's clock is the monotonic one.
        """
        self.counts = HostCounts()
        self._region, self._k, self._slots, self._holder = region, k, slots, holder
        self._new_bridge = bridge
        self._ports = ports
        self._fenced = fenced
        self._journal = journal
        self._wall = wall
        self._directory = directory or Directory(region)
        self._db = HostDatabase(connect, self.counts)
        self._pending = Pending(outbox_rows_a_store_max)
        self._engine = Engine(self._directory.book_of, self._pending.full)
        memory = VisitMemory()
        self._states = States(entities_max)
        observed = Observed(self.counts, wall, self._put, self._states.skew_of)
        self._door = Door(self._directory, memory, self.counts, observed)
        self._publisher = Publisher(
            self._directory, self.counts, lambda store, lane: self._states.visit(region, store, lane)
        )
        self._desk = AskDesk(ports, memory, self.counts, self._put)
        self._care = TerminalCare(
            self._directory, self._publisher, self.counts, self._states, observed, twins, put=self._put, wall=wall
        )
        self._intake = Intake(twins, self.counts)
        self._switching = Switching(self._directory, self._states, self._care, self._put)
        self._orders = Orders(self._care, self._states, self._put)
        self._internal: deque[Item] = deque()
        self._deliveries = Deliveries(
            self._directory,
            self._door,
            self._publisher,
            self.counts,
            connect,
            self._care,
            self._orders,
            put=self._put,
            waiting=lambda: len(self._internal),
        )
        self._after = Afterwards(
            self.counts,
            bridge=lambda: self._bridge,
            publisher=self._publisher,
            desk=self._desk,
            door=self._door,
            care=self._care,
            orders=self._orders,
            wall=lambda: self._wall_tiles,
            spawn=self._spawn,
        )
        self._wake = asyncio.Event()
        self._offset = timedelta(0)
        self._ticks = 0
        self._pruned = FIRST_PRUNE
        self._flooded = 0
        self._messages_then: deque[int] = deque([0], maxlen=RATE_OVER_S)
        self._many = False
        self._stopping = False
        self._loop_task: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Claim the slot (the host before is fenced from now on), load the directory, connect, begin."""
        await self._db.open()
        self._slot = await self._journal.claim(self._db.conn, self._region, self._k, self._slots, self._holder)
        self.tiles = Tiles(self._slot.epoch)
        self._wall_tiles = Wall(self.tiles, self._directory, self._states, self._publisher)
        await self._directory.load(self._db.conn)
        self._offset = timedelta(microseconds=(await self._journal.read_batch(self._db.conn, [], [])).offset_us)
        self._pending.begin(await self._journal.pending_asks(self._db.conn, self._slot))
        await self._wake_entities()
        self._bridge = self._new_bridge(self, self._slot)
        await self._bridge.start()
        self._loop_task = asyncio.create_task(self._run(), name=f"host-{self._k}")

    async def stop(self) -> None:
        """Finish the batch that runs, disconnect in order, end the asks in flight (the outbox repeats them)."""
        self._stopping = True
        self._db.give_up()
        self._wake.set()
        if self._loop_task is not None:
            await asyncio.gather(self._loop_task, return_exceptions=True)
        await self._after.finish()
        await self._door.stop()
        await self._bridge.stop()
        await self._publisher.stop()
        await self._desk.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._db.close()

    async def _wake_entities(self) -> None:
        """Stores, terminals and the visits that were alive: shown again on the wall and on the screens."""
        after: Address | None = None
        while True:
            page = await self._journal.standing_entities(self._db.conn, self._slot, after, WOKEN_A_PAGE_MAX)
            for address, stored in page:
                self._states.woken(address, decode_state(address.kind, stored.state), stored.version)
            if len(page) < WOKEN_A_PAGE_MAX:
                break
            after = page[-1][0]
        self._wall_tiles.begin(self._slot)
        self.counts.passivated += self._states.admit([], asyncio.get_running_loop().time())[0]

    # ------------------------------------------------------------ what the bridge tells (BridgeOwner)

    def connected(self, epoch: int, session_present: bool) -> None:
        """Show live screens again; a broker that forgot us is told everything anew and terminals are asked."""
        log.info("broker_connected", epoch=epoch, session_present=session_present)
        self._spawn(self._publisher.show_again(self._bridge, self._directory.terminals()))
        self._care.connected(self._slot)
        if not session_present:
            self._spawn(self._care.resync(self._bridge, self._slot))

    def disconnected(self, reason: str) -> None:
        """The bridge comes back by itself; what was not acknowledged comes again."""
        log.warning("broker_disconnected", reason=reason)

    async def may_reconnect(self, taken_over: bool) -> bool:
        """A host that lost its slot must not fight for the client id."""
        async with await self._db.connect() as conn:
            if await self._journal.still_holds(conn, self._slot):
                return True
        log.error("fenced", taken_over=taken_over)
        self._fenced()
        return False

    # ------------------------------------------------------------ the loop

    async def _run(self) -> None:
        monotonic = asyncio.get_running_loop().time
        next_tick = 0.0
        while not self._stopping:
            now = monotonic()
            try:
                due: list[Item] = []
                if now >= next_tick:  # before anything is taken: a refused statement here costs no message
                    due = await self._tick()
                    # A backlog (a pause, a jump of the business clock) goes on at once, in due order.
                    next_tick = monotonic() + (TICK_S if len(due) < TIMERS_A_BATCH_MAX else 0.0)
                wait_s = 0.0 if due else min(max(0.0, next_tick - monotonic()), self._intake.wait_s(now))
                items = [*due, *await self._collect(wait_s)]
                if items:
                    await self._cycle(items)
            except Fenced as error:
                log.exception("fenced", why=error.message)
                self._fenced()
                return
            except asyncio.CancelledError:
                raise
            except Exception:
                # A bug outside a turn: say so and live on; terminals repeat what has no reply, the sweep repeats asks.
                log.exception("host_loop")
                await self._db.reopen()

    async def _collect(self, wait_s: float) -> list[Item]:
        """The next batch: at least one message or `wait_s` over; then 2 ms more when many come, 256 at most."""
        if not self._internal and not self._bridge.waiting:
            self._wake.clear()
            waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._bridge.arrival())]
            try:
                await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()
        if self._many and (self._internal or self._bridge.waiting):
            await asyncio.sleep(COLLECT_S)
        room = BATCH_MESSAGES_MAX - min(self._bridge.waiting, BATCH_MESSAGES_MAX // 2)  # thousands of our own never
        items = [self._internal.popleft() for _ in range(min(room, len(self._internal)))]  # keep customers waiting
        for inbound in self._bridge.take(BATCH_MESSAGES_MAX - len(items)):
            item = await self._door.admit(inbound, self._bridge, self._look_up)
            if item is not None:
                items.append(item)
        self._many = len(items) >= COLLECT_FROM_MESSAGES
        ready = await self._intake.sort(items, asyncio.get_running_loop().time(), self._db.run, self._leave)
        forgotten, refused = self._states.admit(ready, asyncio.get_running_loop().time())
        self.counts.passivated += forgotten
        self.counts.refused_entities += refused
        return ready

    def _leave(self, item: Item) -> None:
        """Nobody handles this message: off the broker's books, and its image is not kept."""
        if isinstance(item.source, Source) and item.source.inbound is not None:
            self._bridge.ack(item.source.inbound)
        self._door.forget_images([item], [])

    async def _look_up(self, terminal: TerminalId) -> RegisteredTerminal | None:
        return await self._db.run(lambda conn: self._directory.look_up(conn, terminal))

    async def _tick(self) -> list[Item]:
        """Each second: kill switches, timers that are due, asks that nobody holds, and old inbox rows."""
        wall = self._wall()
        await self._switching.look(self._db.run, self._slot, wall)
        timers = await self._db.run(
            lambda conn: self._journal.due_timers(conn, self._slot, wall, wall + self._offset, TIMERS_A_BATCH_MAX)
        )
        self.counts.timers += len(timers)
        asks_max = min(self._desk.free, SWEEP_ASKS_MAX)
        if asks_max:
            swept = await self._db.run(
                lambda conn: self._journal.sweep_outbox(conn, self._slot, wall, ASK_LEASE_S, asks_max)
            )
            for entry in swept:
                ask = Ask(entry.id, decode_request(entry.verb, entry.request))
                self._desk.dispatch(entry.address, ask, entry.attempts)
        self._spawn(self._care.publish(self._bridge, await self._care.tick(self._db.run, self._slot)))
        self._spawn(self._publisher.show_owed(self._bridge))
        flooded, self._flooded = self._bridge.counts.flooded - self._flooded, self._bridge.counts.flooded
        if flooded:
            self.counts.flooded += flooded
            log.warning("terminals_flood", messages=flooded)
        self._ticks += 1
        self._messages_then.append(self.counts.messages)
        if self._ticks % RESOLVE_EVERY_TICKS == 0:
            self._spawn(self._resolve())
        if self._ticks % OWNERS_EVERY_TICKS == 0:
            await self._db.run(self._directory.refresh_owners)
        if self._ticks % PASSIVATE_EVERY_TICKS == 0:
            self.counts.passivated += len(self._states.passivate())
        if self._ticks % PRUNE_EVERY_TICKS == 0:
            _, self._pruned = await self._db.run(
                lambda conn: self._journal.prune_inbox(conn, self._slot, wall, PRUNED_ROWS_MAX, self._pruned)
            )
            self._pending.begin(await self._db.run(lambda conn: self._journal.pending_asks(conn, self._slot)))
        return [
            Item(
                timer.address,
                TimerFired(timer.kind, timer.ref, timer.due_at),
                derived_id(f"{timer.address}:{timer.kind}", f"{timer.ref}:{timer.due_at.isoformat()}"),
                timer=timer,
            )
            for timer in timers
        ]

    async def _resolve(self) -> None:
        """Enrolments that waited for a phone and ended: told to the lane, dropped there if the visit is over."""
        for terminal, answer in await self._ports.resolved():
            record = self._directory.terminal(terminal)
            if record is not None:
                address = Address.session(record.region, record.store, record.lane)
                self._put(Item(address, answer, derived_id(answer.ask, "resolved")))

    async def _cycle(self, items: list[Item]) -> None:
        """One batch, all the way: read, turns, commit, publish, acknowledge, ask."""
        try:
            work = await self._db.run(lambda conn: self._attempt(conn, items))
        except Fenced:
            raise
        except Exception as error:
            if is_outage(error):  # the host stops
                raise
            await self._isolate(items, error)
            return
        await self._after.begin(items, work)

    async def _attempt(self, conn: AsyncConnection[TupleRow], items: list[Item]) -> Work:
        keys = [item.key for item in items if item.key is not None]
        read: Read = await self._journal.read_batch(conn, keys, self._states.missing(items))
        self._offset = timedelta(microseconds=read.offset_us)
        wall = self._wall()
        work = self._engine.run(items, read, self._states, wall + self._offset, wall)
        if not work.commit.empty:
            try:
                await self._journal.commit_batch(conn, self._slot, work.commit, ASK_LEASE_S, wall)
            except BaseException:
                self._states.doubt(items)
                raise
        self._pending.committed(work.commit)
        self._states.committed(items, read, work, self._directory)
        return work

    async def _isolate(self, items: list[Item], error: Exception) -> None:
        """A batch that cannot be written: find the message by halves; alone it becomes a dead letter."""
        if len(items) > 1:
            log.error("batch_refused", error=str(error), messages=len(items))
            half = len(items) // 2
            await self._cycle(items[:half])
            await self._cycle(items[half:])
            return
        item = items[0]
        log.error("message_refused", error=str(error), trace=item.cause, store=item.address.store)
        wall = self._wall()

        async def bury(conn: AsyncConnection[TupleRow]) -> Work:
            work = self._engine.bury(item, error, wall)
            await self._journal.commit_batch(conn, self._slot, work.commit, ASK_LEASE_S, wall)
            return work

        buried = await self._db.run(bury)
        await self._after.begin(items, buried)

    def _put(self, item: Item) -> None:
        self._internal.append(item)
        self._wake.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("background")

        task = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # ------------------------------------------------------------ Hosts port

    async def deliver(self, batch: Sequence[Delivery]) -> list[Delivered]:
        """See Deliveries."""
        return await self._deliveries.deliver(batch)

    async def changes(self, epoch: int, since: int) -> Changes:
        """Tiles changed after `since` of `epoch`."""
        return await self.tiles.changes(epoch, since, self._wall() + self._offset)

    async def screen(self, terminal: TerminalId, session: str, rev: int) -> bytes:
        """See Deliveries."""
        return await self._deliveries.screen(terminal, session, rev)

    def health(self) -> dict[str, int | str]:
        """One snapshot of plain figures."""
        counts: dict[str, int | str] = dict(msgspec.to_builtins(self.counts))
        return counts | {
            "slot": f"{self._region}/{self._k}",
            "epoch": self._slot.epoch,
            "entities": len(self._states),
            "waiting": len(self._internal) + self._bridge.waiting,
            "bad_topics": self._bridge.counts.bad_topics,
            "asking": self._desk.in_flight,
            "held": self._intake.waiting,
            "terminals": len(self._directory.terminals()),
            "outbox": len(self._pending),
            "messages_lately": self.counts.messages - self._messages_then[0],
        }
