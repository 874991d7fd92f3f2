"""What holds a host's every way out behind its epoch: rows, messages, and calls to the provider.

A host that was frozen (SIGSTOP, a suspended machine, a lost node that comes back) thaws in the middle of whatever it
did, while a successor serves. Rows are exact: each transaction begins with the epoch's row, locked. What leaves this
process cannot be in a transaction with it; so it leaves only if the epoch was seen to be ours at most FRESH_S ago, and
a freeze makes that older than it is allowed to be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from actors.effects import Ask
from devices.link import Delivery, DeliveryReceipt, Link, LinkError, LinkListener, Outgoing
from devices.topics import ROOT, up_filters
from gateway.providers.port import PaymentProvider
from models.domain.errors import Fenced, RetryLater
from models.domain.ids import LegalEntityId, StoreId, TerminalId
from models.domain.messages import EnrolAnswered
from models.domain.payments import PROVIDERS
from models.tables.journal import Slot, held, still_holds
from models.tables.layouts import HELD
from runtime.asks import Answered, AskPorts, VisitMemory
from runtime.plant import ProviderOf, limit_transactions

log = structlog.get_logger()

FRESH_S = 2.0
LOOK_EVERY_S = 0.5
LAG_LOOKS = 10

Connect = Callable[[], Awaitable[AsyncConnection[TupleRow]]]


def clock_of_freezes() -> float:
    """Seconds that go on while a process is stopped and, where the system can tell, while the machine sleeps."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Fence:
    """Knows whether the slot is still ours. `fenced` ends the process; it is called at the first look that says no."""

    def __init__(
        self, connect: Connect, fenced: Callable[[], None], clock: Callable[[], float] = clock_of_freezes
    ) -> None:
        self._connect = connect
        self._fenced = fenced
        self._clock = clock
        self._slot: Slot | None = None
        self._seen_at = float("-inf")
        self._conn: AsyncConnection[TupleRow] | None = None
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._lags_ms: list[int] = []

    @property
    def slot(self) -> Slot:
        """The slot that was claimed. Raises RetryLater before the claim and after the end."""
        if self._slot is None:
            raise RetryLater("host_restarting", "the host holds no slot now", "try again", after_s=1.0)
        return self._slot

    @property
    def lag_ms(self) -> int:
        """How late the event loop was at worst in the last seconds."""
        return max(self._lags_ms, default=0)

    def begin(self, slot: Slot) -> None:
        """The slot was claimed just now."""
        self._slot = slot
        self._seen_at = float("-inf")
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="fence")

    async def end(self) -> None:
        """The host has stopped in order: nothing may leave any more."""
        self._slot = None
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._conn is not None:
            await self._conn.close()
            self._conn = None

    async def hold(self) -> None:
        """Return if the slot is ours as of FRESH_S ago, looking if need be.

        Raises Fenced when it is not, and RetryLater `fence_unknown` when the database cannot say.
        """
        if self._clock() - self._seen_at > FRESH_S:
            await self._look()

    async def _look(self, fresh_s: float = FRESH_S) -> None:
        async with self._looking:
            if self._clock() - self._seen_at <= fresh_s:
                return
            asked_at = self._clock()
            try:
                if self._conn is None:
                    self._conn = await self._connect()
                ours = await still_holds(self._conn, self.slot)
            except RetryLater:
                raise
            except Exception as error:
                conn, self._conn = self._conn, None
                if conn is not None:
                    await conn.close()
                raise RetryLater("fence_unknown", f"the epoch cannot be read: {error}", "try again") from error
            if not ours:
                self.lost()
            self._seen_at = asked_at

    def lost(self) -> None:
        """The slot is another's: end the process. Raises Fenced where `fenced` returns."""
        log.error("fenced", slot=None if self._slot is None else self._slot.k)
        self._seen_at = float("-inf")
        self._fenced()
        raise Fenced("fenced", "another host holds the slot")

    async def _watch(self) -> None:
        """Keeps it fresh, so that nothing has to wait for a look; ends an idle host that was fenced."""
        while True:
            due = self._clock() + LOOK_EVERY_S
            try:
                await self._look(fresh_s=LOOK_EVERY_S / 2)
            except Fenced:
                return
            except RetryLater as error:
                log.warning("fence_unknown", error=error.message)
            await asyncio.sleep(max(0.0, due - self._clock()))
            self._lags_ms = [*self._lags_ms[1 - LAG_LOOKS :], max(0, round((self._clock() - due) * 1000))]


class FencedPool(AsyncConnectionPool[AsyncConnection[Any]]):
    """Connections of a host's ports. Each use is a transaction whose first statement locks the epoch's row."""

    fence: Fence

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection[Any]]:  # noqa: ASYNC109 - the pool's own signature
        """See AsyncConnectionPool. Raises Fenced, and the process ends, when another host has claimed the slot."""
        async with super().connection(timeout) as conn:
            cursor = await conn.execute(f"{HELD} FOR SHARE", held(self.fence.slot))
            if await cursor.fetchone() is None:
                self.fence.lost()
            yield conn


def fenced_pool(fence: Fence, database_url: str, options: str, connections_max: int) -> FencedPool:
    """Opened by the caller. `options` bound a transaction's time: a frozen one must not hold the epoch's row."""
    pool = FencedPool(
        database_url,
        kwargs={"options": options},
        min_size=1,
        max_size=connections_max,
        open=False,
        configure=limit_transactions,
        check=AsyncConnectionPool.check_connection,
    )
    pool.fence = fence
    return pool


class _FencedProvider:
    """Every call of a provider, held before it is sent."""

    def __init__(self, provider: PaymentProvider, fence: Fence) -> None:
        self._provider = provider
        self._fence = fence

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._provider, verb)

        async def call(**arguments: Any) -> Any:
            await self._fence.hold()
            return await method(**arguments)

        return call


def fenced_providers(provider_of: ProviderOf, fence: Fence) -> ProviderOf:
    """The same providers, each call held behind the fence."""

    def fenced(entity: LegalEntityId, provider: str = PROVIDERS[0]) -> PaymentProvider:
        return cast(PaymentProvider, _FencedProvider(provider_of(entity, provider), fence))

    return fenced


class FencedPorts:
    """The ports of a host; no ask begins behind the fence."""

    def __init__(self, ports: AskPorts, fence: Fence) -> None:
        self._ports = ports
        self._fence = fence

    async def ask(self, ask: Ask, attempts: int, memory: VisitMemory) -> Answered:
        await self._fence.hold()
        return await self._ports.ask(ask, attempts, memory)

    async def resolved(self) -> list[tuple[TerminalId, EnrolAnswered]]:
        await self._fence.hold()
        return await self._ports.resolved()


class FencedLink:
    """A host's link to the broker: subscribes what the slot owns, drops what it does not, sends nothing when fenced.

    Implements `devices.link.Link`, and stands before the bridge as its `LinkListener`.
    """

    def __init__(self, link: Link, fence: Fence, slot: Slot) -> None:
        self._link = link
        self._fence = fence
        self._slot = slot
        self._listener: LinkListener | None = None
        self.apart_messages = 0
        """Messages of dedicated stores that a shard filter brought here: acknowledged, and left to their own host."""

    def listen(self, listener: LinkListener, filters: Sequence[str]) -> None:
        self._listener = listener
        self._link.listen(self, slot_filters(self._slot, filters))

    async def start(self) -> None:
        await self._link.start()

    async def stop(self) -> None:
        await self._link.stop()

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        correlation: bytes | None = None,
        response_topic: str | None = None,
        content_type: str | None = None,
        properties: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        try:
            await self._fence.hold()
        except RetryLater as error:
            raise LinkError(error.code, error.message, error.do) from error
        await self._link.publish(
            topic,
            payload,
            qos=qos,
            retain=retain,
            expiry_s=expiry_s,
            correlation=correlation,
            response_topic=response_topic,
            content_type=content_type,
            properties=properties,
            timeout_s=timeout_s,
        )

    async def publish_all(self, messages: Sequence[Outgoing]) -> int:
        try:
            await self._fence.hold()
        except RetryLater:
            return len(messages)
        return await self._link.publish_all(messages)

    def ack(self, receipt: DeliveryReceipt) -> bool:
        return self._link.ack(receipt)

    def pause_reading(self) -> None:
        self._link.pause_reading()

    def resume_reading(self) -> None:
        self._link.resume_reading()

    # ------------------------------------------------------------ as the link's listener

    def delivered(self, delivery: Delivery) -> None:
        assert self._listener is not None
        if self._slot.apart and _store_of(delivery.topic) in self._slot.apart:
            self.apart_messages += 1
            if delivery.receipt is not None:
                self._link.ack(delivery.receipt)
            return
        self._listener.delivered(delivery)

    def connected(self, epoch: int, session_present: bool) -> None:
        assert self._listener is not None
        self._listener.connected(epoch, session_present)

    def disconnected(self, reason: str) -> None:
        assert self._listener is not None
        self._listener.disconnected(reason)

    async def may_reconnect(self, taken_over: bool) -> bool:
        assert self._listener is not None
        return await self._listener.may_reconnect(taken_over)


def slot_filters(slot: Slot, shard_filters: Sequence[str]) -> tuple[str, ...]:
    """What a slot subscribes: its shards, or the one store of a dedicated slot."""
    if slot.store is None:
        return tuple(shard_filters)
    return up_filters(f"{ROOT}/{slot.region}/{slot.shards[0]:02x}/{slot.store}/+")


def _store_of(topic: str) -> StoreId:
    levels = topic.split("/", 5)
    return StoreId(levels[4] if len(levels) > 4 else "")
