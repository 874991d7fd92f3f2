"""What the tests of this folder share: terminals, a listener that remembers, a small host, polling with a deadline."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from devices import codec
from devices.agent_config import AgentConfig
from devices.bridge import Bridge, Inbound
from devices.link import Delivery, LinkError
from devices.mqtt import LinkConfig, MqttLink
from devices.refusals import Undecodable
from devices.topics import Up
from models.domain.events import Event
from models.domain.ids import SHARDS_TOTAL, LaneId, RegionId, SessionId, StoreId, TerminalId
from models.domain.presence import Birth, Death
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, Screen, ScreenState
from runtime.broker import EmbeddedBroker

JPEG = b"\xff\xd8\xff\xe0" + b"photo" * 200
REGION = RegionId("south")


def registered(
    terminal: str = "t-1", store: str = "s-1", profile: str = "dragonfly-2", role: str = "face"
) -> RegisteredTerminal:
    return RegisteredTerminal(TerminalId(terminal), StoreId(store), REGION, LaneId("lane-1"), role, profile)


def fresh(profile: str = "dragonfly-2") -> RegisteredTerminal:
    """A terminal that no other test knows."""
    return registered(f"t-{uuid.uuid4().hex[:12]}", f"s-{uuid.uuid4().hex[:12]}", profile)


def event_document(event_type: str = "scan", body: Any = ..., **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "v": 1,
        "id": str(uuid.uuid4()),
        "boot": str(uuid.uuid4()),
        "seq": 17,
        "ts": "2026-11-22T04:00:00.123Z",
        "mono_ms": 81234,
        "type": event_type,
        "session": None,
        "clerk": None,
        "replay": False,
        "body": {"code": "6901234567892", "quantity": 1} if body is ... else body,
    }
    document.update(changes)
    return document


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return once the condition holds; fail after the deadline, which is far above what a stalled machine takes."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what we wait for is a counter of another task
            await asyncio.sleep(0.005)


@dataclass
class Recorder:
    """A listener that remembers. `acks`: acknowledge at once."""

    acks: bool = True
    reconnects: bool = True
    link: MqttLink | None = None
    deliveries: list[Delivery] = field(default_factory=list)
    connections: list[tuple[int, bool]] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)

    def delivered(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.acks and delivery.receipt is not None and self.link is not None:
            self.link.ack(delivery.receipt)

    def connected(self, epoch: int, session_present: bool) -> None:
        self.connections.append((epoch, session_present))

    def disconnected(self, reason: str) -> None:
        self.losses.append(reason)

    async def may_reconnect(self, taken_over: bool) -> bool:
        self.asked.append(taken_over)
        return self.reconnects


def link_config(broker: EmbeddedBroker, client_id: str | None = None, **changes: Any) -> LinkConfig:
    settings: dict[str, Any] = {"reconnect_s_min": 0.02, "reconnect_s_max": 0.2, "publish_timeout_s": 30.0}
    settings.update(changes)
    info = broker.info
    return LinkConfig(
        host=info.host,
        port=info.port,
        client_id=client_id or f"c-{uuid.uuid4().hex[:12]}",
        username=info.username,
        password=info.password,
        **settings,
    )


@asynccontextmanager
async def linked(config: LinkConfig, *filters: str, recorder: Recorder | None = None) -> AsyncIterator[MqttLink]:
    """A connected link; its recorder's `link` is set."""
    recorder = recorder or Recorder()
    link = MqttLink(config)
    recorder.link = link
    link.listen(recorder, filters)
    await link.start()
    try:
        await until(lambda: bool(recorder.connections))
        yield link
    finally:
        await link.stop()


def agent_config(broker: EmbeddedBroker, terminal: RegisteredTerminal, **changes: Any) -> AgentConfig:
    """A terminal that the broker knows, with short pauses."""
    settings: dict[str, Any] = {
        "secret": uuid.uuid4().hex,
        "resend_first_s": 30.0,  # a slow machine must not look like a lost message
        "reconnect_s_min": 0.02,
        "reconnect_s_max": 0.1,
        "will_delay_s": 1,
    }
    settings.update(changes)
    broker.add_user(terminal.terminal, settings["secret"])
    return AgentConfig(
        host=broker.info.host,
        port=broker.info.port,
        region=terminal.region,
        store=terminal.store,
        terminal=terminal.terminal,
        profile=terminal.profile,
        **settings,
    )


class SmallHost:
    """Answers every event of one terminal with a reply and a screen, and remembers what it saw."""

    def __init__(self, broker: EmbeddedBroker, terminal: RegisteredTerminal, client_id: str | None = None) -> None:
        self.terminal = terminal
        self.events: list[Event] = []
        self.payloads: list[bytes] = []
        self.presence: list[Birth | Death] = []
        self.other: list[Inbound] = []
        self.refusals: list[Undecodable] = []
        self.connections: list[bool] = []
        self.answering = True
        self.acking = True
        self.replies_each = 1
        self.rev = 0
        self.session = SessionId("visit-1")
        self.link = MqttLink(link_config(broker, client_id))
        self.bridge = Bridge(self.link, terminal.region, [terminal.shard], self)
        self._task: asyncio.Task[None] | None = None

    def connected(self, epoch: int, session_present: bool) -> None:
        self.connections.append(session_present)

    def disconnected(self, reason: str) -> None:
        pass

    async def may_reconnect(self, taken_over: bool) -> bool:
        return True

    async def __aenter__(self) -> SmallHost:
        await self.bridge.start()
        await until(lambda: bool(self.connections))
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.bridge.stop()

    async def _serve(self) -> None:
        while True:
            for inbound in await self.bridge.batch():
                if inbound.topic.terminal == self.terminal.terminal:
                    try:
                        await self._handle(inbound)
                    except LinkError:
                        continue  # the connection ended: the message comes again
                if self.acking:
                    self.bridge.ack(inbound)

    async def _handle(self, inbound: Inbound) -> None:
        try:
            if inbound.topic.channel is Up.EVENT:
                self.payloads.append(inbound.payload)
                await self._answer(codec.decode_event(inbound.payload, self.terminal))
            elif inbound.topic.channel is Up.FACE:
                now = datetime.now(UTC)
                await self._answer(codec.decode_face(inbound.payload, inbound.properties, self.terminal, now))
            elif inbound.topic.channel is Up.PRESENCE:
                self.presence.append(codec.decode_presence(inbound.payload))
            else:
                self.other.append(inbound)
        except Undecodable as refusal:
            self.refusals.append(refusal)
            await self.bridge.publish_undecodable(self.terminal, refusal)

    async def _answer(self, event: Event) -> None:
        self.events.append(event)
        if not self.answering:
            return
        for _ in range(self.replies_each):
            await self.bridge.publish_reply(self.terminal, ReplyBody(event.id, ok=True, session=self.session))
        self.rev += 1
        await self.show()

    async def show(self) -> None:
        screen = Screen(session=self.session, rev=self.rev, state=ScreenState.BASKET)
        await self.bridge.publish_screen(self.terminal, screen)


ALL_SHARDS = range(SHARDS_TOTAL)
