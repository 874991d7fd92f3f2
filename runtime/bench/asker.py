"""A stream of questions for measuring outages: each is sent until it is answered, and answered once.

A question is an event without a visit (`complaint`): decoded, deduplicated, handled, committed and answered like any
other. Its reply's time is taken; afterwards the inbox must hold every question once.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uuid_utils
from psycopg import AsyncConnection

from devices.link import Delivery, LinkError
from devices.mqtt import LinkConfig, MqttLink
from devices.topics import prefix
from models.domain.ids import StoreId, TerminalId, shard_of
from runtime.plant import Plant

RESEND_S = 5.0
"""As the terminal protocol says; what is asked while a host is away waits at the broker."""
CONNECT_S_MAX = 30.0
ANSWERED_S_MAX = 60.0


@dataclass(slots=True, eq=False)
class Question:
    """One event, when it was first sent, and when its reply came (monotonic seconds)."""

    id: str
    topic: str
    payload: bytes
    sent_at: float
    answered_at: float = 0.0
    answered: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Lane:
    topic: str
    terminal: str
    boot: str = field(default_factory=lambda: str(uuid.uuid4()))
    seq: int = 0


class Asker:
    """Asks at a rate from one terminal in each of several stores. Implements `devices.link.LinkListener`."""

    def __init__(self, plant: Plant, stores: Sequence[StoreId]) -> None:
        self._plant = plant
        self.stores = stores
        self._lanes: list[_Lane] = []
        self._open: dict[str, Question] = {}
        self._replies: dict[str, bytes] = {}
        self._up = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked = 0
        self.longest_s = 0.0
        """That a question waited for its reply."""
        self.contradictions = 0
        self.heard = 0
        """Every message to a terminal of the region."""
        self._link = MqttLink(
            LinkConfig(
                host=plant.broker_host,
                port=plant.broker_port,
                client_id=f"asker-{uuid.uuid4().hex[:8]}",
                username=plant.broker_user,
                password=plant.broker_password,
                session_expiry_s=60,
                reconnect_s_min=0.1,
                reconnect_s_max=0.5,
            )
        )
        self._link.listen(self, (f"so/1/{plant.region}/+/+/+/down/#",))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Asker]:
        """Registers its terminals and connects. Raises TimeoutError."""
        async with await AsyncConnection.connect(self._plant.database_url, autocommit=True) as conn:
            for store in self.stores:
                name = f"asker-{uuid.uuid4().hex[:12]}"
                await conn.execute(
                    """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
                       VALUES (%s, %s, %s, 'face', 'dragonfly-2', '', now())""",
                    (name, store, name),
                )
                topic = prefix(self._plant.region, store, TerminalId(name))
                self._lanes.append(_Lane(f"{topic}/up/event", name))
        await self._link.start()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await self._up.wait()
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._link.stop()

    async def ask(self, lane: int = 0) -> Question:
        """Ask once and return when it is answered."""
        question = self._question(self._lanes[lane % len(self._lanes)])
        async with asyncio.timeout(ANSWERED_S_MAX):
            await self._until_answered(question)
        return question

    @asynccontextmanager
    async def asking(self, rate_hz: float) -> AsyncIterator[None]:
        """Ask at this rate while the body runs; returns when every question is answered."""
        task = asyncio.create_task(self._stream(rate_hz))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        async with asyncio.timeout(ANSWERED_S_MAX):
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    async def rows(self) -> int:
        """How many of its questions the inbox holds."""
        async with await AsyncConnection.connect(self._plant.database_url, autocommit=True) as conn:
            cursor = await conn.execute(
                "SELECT count(*) FROM inbox WHERE terminal = ANY(%s) AND reply IS NOT NULL",
                ([lane.terminal for lane in self._lanes],),
            )
            row = await cursor.fetchone()
        return 0 if row is None else int(row[0])

    # ------------------------------------------------------------ asking

    async def _stream(self, rate_hz: float) -> None:
        due = time.monotonic()
        while True:
            question = self._question(self._lanes[self.asked % len(self._lanes)])
            task = asyncio.create_task(self._until_answered(question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += 1 / rate_hz
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _question(self, lane: _Lane) -> Question:
        lane.seq += 1
        self.asked += 1
        event = {
            "v": 1,
            "id": str(uuid_utils.uuid7()),
            "boot": lane.boot,
            "seq": lane.seq,
            "ts": datetime.now(UTC).isoformat(),
            "type": "complaint",
            "session": None,
            "body": {"about": "other"},
        }
        question = Question(str(event["id"]), lane.topic, json.dumps(event).encode(), time.monotonic())
        self._open[question.id] = question
        return question

    async def _until_answered(self, question: Question) -> None:
        """As a terminal does it: the same bytes again until the reply."""
        while not question.answered.is_set():
            with suppress(LinkError):
                await self._link.publish(question.topic, question.payload)
            with suppress(TimeoutError):
                await asyncio.wait_for(question.answered.wait(), RESEND_S)

    # ------------------------------------------------------------ as the link's listener

    def delivered(self, delivery: Delivery) -> None:
        """See LinkListener."""
        self.heard += 1
        if delivery.receipt is not None:
            self._link.ack(delivery.receipt)
        if not delivery.topic.endswith("/down/reply") or delivery.correlation is None:
            return
        message = delivery.correlation.decode("ascii", "replace")
        if self._replies.setdefault(message, delivery.payload) != delivery.payload:
            self.contradictions += 1
        question = self._open.pop(message, None)
        if question is not None:
            question.answered_at = time.monotonic()
            question.answered.set()
            self.longest_s = max(self.longest_s, question.answered_at - question.sent_at)

    def connected(self, epoch: int, session_present: bool) -> None:  # noqa: ARG002 - see LinkListener
        """See LinkListener."""
        self._up.set()

    def disconnected(self, reason: str) -> None:
        """See LinkListener."""

    async def may_reconnect(self, taken_over: bool) -> bool:  # noqa: ARG002 - see LinkListener
        """See LinkListener."""
        return True


def stores_of_slots(stores: Sequence[StoreId], slots: int) -> list[StoreId]:
    """One store for each slot, in the order of the slots; slots without one are left out."""
    found: dict[int, StoreId] = {}
    for store in stores:
        found.setdefault(shard_of(store) % slots, store)
    return [found[k] for k in sorted(found)]
