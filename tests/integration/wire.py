"""A raw MQTT 5 client for tests: any bytes to any topic, once each, and every reply that was published."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uuid_utils

from devices.link import Delivery, LinkError
from devices.mqtt import LinkConfig, MqttLink
from devices.topics import prefix
from models.domain.ids import RegionId, StoreId, TerminalId
from runtime.plant import Plant

REPLY_S_MAX = 30.0
RESEND_S = 1.0


@dataclass(frozen=True)
class Reply:
    """One message on a `down/reply`, as it came."""

    terminal: str
    payload: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.payload)
        return document

    @property
    def id(self) -> str | None:
        found: str | None = self.document["id"]
        return found

    @property
    def code(self) -> str | None:
        """The refusal's code; None when it is none."""
        return (self.document.get("error") or {}).get("code")


class Wire:
    """Implements `devices.link.LinkListener`. Sends nothing twice by itself."""

    def __init__(self, link: MqttLink) -> None:
        self.link = link
        self.replies: list[Reply] = []
        self._up = asyncio.Event()
        self._moved = asyncio.Event()

    async def send(self, topic: str, payload: bytes, properties: Mapping[str, str] | None = None) -> None:
        """Once; returns at the broker's PUBACK."""
        await self.link.publish(topic, payload, properties=properties)

    async def reply(self, fits: Callable[[Reply], bool], timeout_s: float = REPLY_S_MAX, *, after: int = 0) -> Reply:
        """The first reply, from number `after` on, that fits. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = next((one for one in self.replies[after:] if fits(one)), None)
                if found is not None:
                    return found
                self._moved.clear()
                await self._moved.wait()

    def contradictions(self) -> list[str]:
        """Ids that were answered in two ways."""
        answers: dict[str, set[bytes]] = {}
        for reply in self.replies:
            if reply.id is not None:
                answers.setdefault(reply.id, set()).add(reply.payload)
        return [message for message, payloads in answers.items() if len(payloads) > 1]

    async def online(self) -> None:
        """Returns once connected and subscribed."""
        await self._up.wait()

    def delivered(self, delivery: Delivery) -> None:
        *_, terminal, _way, channel = delivery.topic.split("/")
        if channel == "reply":
            self.replies.append(Reply(terminal, delivery.payload))
            self._moved.set()
        if delivery.receipt is not None:
            self.link.ack(delivery.receipt)

    def connected(self, epoch: int, session_present: bool) -> None:
        self._up.set()

    def disconnected(self, reason: str) -> None:
        self._up.clear()

    async def may_reconnect(self, taken_over: bool) -> bool:
        return True


@asynccontextmanager
async def open_wire(plant: Plant, access: Mapping[str, Any] | None = None) -> AsyncIterator[Wire]:
    """As the host user, who hears every reply and may write anywhere; or as one terminal, who may not."""
    user = plant.broker_user if access is None else str(access["username"])
    secret = plant.broker_password if access is None else str(access["secret"])
    config = LinkConfig(
        plant.broker_host,
        plant.broker_port,
        f"{user}.{uuid.uuid4().hex[:8]}",
        username=user,
        password=secret,
        session_expiry_s=60,
        reconnect_s_min=0.1,
        reconnect_s_max=0.5,
    )
    wire = Wire(MqttLink(config))
    heard = f"so/1/{plant.region}/+/+/+/down/reply" if access is None else f"{access['topic_prefix']}/down/reply"
    wire.link.listen(wire, (heard,))
    await wire.link.start()
    try:
        async with asyncio.timeout(REPLY_S_MAX):
            await wire.online()
        yield wire
    finally:
        await wire.link.stop()


class Sender:
    """One boot of a terminal: makes its messages, with ids and sequence numbers as the protocol says."""

    def __init__(self, plant: Plant, access: Mapping[str, Any]) -> None:
        self.terminal = str(access["username"])
        self.boot = str(uuid_utils.uuid4())
        self.seq = 0
        self.topic = prefix(RegionId(plant.region), StoreId(access["store"]), TerminalId(self.terminal))

    @property
    def up(self) -> str:
        """Where its events go."""
        return f"{self.topic}/up/event"

    def event(self, kind: str, body: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The next event's envelope; `changes` overwrite its fields."""
        self.seq += 1
        envelope = {
            "v": 1,
            "id": new_id(),
            "boot": self.boot,
            "seq": self.seq,
            "ts": datetime.now(UTC).isoformat(),
            "type": kind,
            "session": None,
            "body": dict(body),
        }
        return envelope | changes

    def face(self, session: str | None = None) -> dict[str, str]:
        """The next face's user properties."""
        self.seq += 1
        properties = {"id": new_id(), "boot": self.boot, "seq": str(self.seq), "kind": "frame"}
        return properties | ({} if session is None else {"session": session})

    async def begin(self, wire: Wire) -> str:
        """Open a visit and return its session."""
        reply = await self.ask(wire, self.event("session.open", {}))
        assert reply.document["ok"], reply.document
        return str(reply.document["session"])

    async def ask(self, wire: Wire, envelope: Mapping[str, Any]) -> Reply:
        """Send an event and return the reply that follows."""
        already = len(wire.replies)
        await wire.send(self.up, json.dumps(envelope).encode())
        return await wire.reply(lambda reply: reply.id == envelope["id"], after=already)

    async def until_answered(self, wire: Wire, envelope: Mapping[str, Any], timeout_s: float = 60.0) -> Reply:
        """As a terminal does it: the same bytes again until the reply, across lost connections."""
        already = len(wire.replies)
        async with asyncio.timeout(timeout_s):
            while True:
                with contextlib.suppress(LinkError, TimeoutError):
                    await wire.send(self.up, json.dumps(envelope).encode())
                with contextlib.suppress(TimeoutError):
                    return await wire.reply(lambda reply: reply.id == envelope["id"], RESEND_S, after=already)


def new_id() -> str:
    """A message id."""
    return str(uuid_utils.uuid7())
