"""Devices with exactly one fault each: our own agent, with one rule of the protocol left out."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from devices import wire
from devices.agent_config import AgentConfig
from devices.link import Delivery
from devices.liveness import LivenessKey
from devices.mqtt import MqttLink, Will
from devices.terminal import TerminalAgent
from devices.topics import Topic, Up
from models.domain.ids import MessageId
from models.domain.screen import ReplyBody, Screen

KEY = LivenessKey.make()
"""Of every device's depth camera."""
Sent = tuple[bytes, dict[str, Any]]
Mangle = Callable[[Up, bytes, dict[str, Any]], Sent | None]


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the only rule that must fail for it; `rule` None: nothing is wrong."""

    name: str
    rule: str | None
    device: type[TerminalAgent] = TerminalAgent
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of its AgentConfig."""


# ---------------------------------------------------------------- what it connects with


def _linked(**changes: Any) -> type[TerminalAgent]:
    class Linked(TerminalAgent):
        def _new_link(self, config: AgentConfig) -> MqttLink:
            link = MqttLink(replace(super()._new_link(config).config, **changes), will=self._will)
            link.listen(self, (f"{self._topic}/down/#",))
            return link

    return Linked


class NoWill(TerminalAgent):
    def _new_link(self, config: AgentConfig) -> MqttLink:
        link = MqttLink(super()._new_link(config).config)
        link.listen(self, (f"{self._topic}/down/#",))
        return link

    async def _announce(self) -> None:
        self.conn = str(uuid.uuid4())
        await super()._announce()


class WillWithoutConn(TerminalAgent):
    def _death(self) -> bytes:
        return json.dumps({"v": 1, "online": False, "boot": self.boot}).encode()


class OneConnForEver(TerminalAgent):
    def _will(self) -> Will:
        before = self.conn
        will = super()._will()
        if before:
            self.conn = before
        return replace(will, payload=self._death())


class SubscribesOnce(TerminalAgent):
    def connected(self, epoch: int, session_present: bool) -> None:
        super().connected(epoch, session_present)
        self.link._filters = ()


class ComesBackAtOnce(TerminalAgent):
    async def start(self, connect_timeout_s: float | None = None) -> None:
        async def at_once(attempt: int) -> None:
            return

        self.link._pause = at_once  # type: ignore[method-assign]
        await super().start(connect_timeout_s)


# ---------------------------------------------------------------- what it sends


def _mangled(mangle: Callable[[], Mangle]) -> type[TerminalAgent]:
    class Mangled(TerminalAgent):
        def __init__(self, config: AgentConfig) -> None:
            self._mangle = mangle()
            super().__init__(config)

        async def publish(self, channel: Up, payload: bytes, **options: Any) -> None:
            sent = self._mangle(channel, payload, options)
            if sent is not None:
                await super().publish(channel, sent[0], **sent[1])

    return Mangled


def _new_id_when_sent_again() -> Mangle:
    known: set[int] = set()

    def mangle(channel: Up, payload: bytes, options: dict[str, Any]) -> Sent:
        if channel is not Up.EVENT:
            return payload, options
        document = json.loads(payload)
        if document["seq"] in known:
            document["id"] = str(uuid.uuid4())
        known.add(document["seq"])
        return json.dumps(document).encode(), options

    return mangle


def _with(channel: Up, **changes: Any) -> Callable[[], Mangle]:
    return lambda: lambda found, payload, options: (payload, options | changes if found is channel else options)


def _no_birth() -> Mangle:
    return lambda channel, payload, options: None if channel is Up.PRESENCE else (payload, options)


def _large_face() -> Mangle:
    return lambda channel, payload, options: (payload + b"x" * (200 * 1024 if channel is Up.FACE else 0), options)


def _signs_another_picture() -> Mangle:
    return lambda channel, payload, options: (payload + (b"\0" if channel is Up.FACE else b""), options)


def _all_is_done() -> Mangle:
    return lambda channel, payload, options: (payload.replace(b'"rejected"', b'"done"'), options)


class Mute(LivenessKey):
    """A camera that has a key and does not use it."""

    def __init__(self) -> None:
        super().__init__(KEY._private)

    def sign(self, topic: str, properties: Mapping[str, str], jpeg: bytes) -> None:
        return None


class SeqStandsStill(TerminalAgent):
    def _next(self) -> tuple[MessageId, int]:
        return super()._next()[0], 1


class SeqJumps(TerminalAgent):
    def _next(self) -> tuple[MessageId, int]:
        self._seq += 1
        return super()._next()


class NeverSendsAgain(TerminalAgent):
    async def start(self, connect_timeout_s: float | None = None) -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        self.unanswered.resend_forever = never  # type: ignore[method-assign]
        await super().start(connect_timeout_s)


class ForgetsWhenCutOff(TerminalAgent):
    def disconnected(self, reason: str) -> None:
        super().disconnected(reason)
        self.unanswered._waiting.clear()


class NeverForgets(TerminalAgent):
    def _replied(self, reply: ReplyBody) -> None:
        """Takes no reply."""


class ShowsFacesUnasked(TerminalAgent):
    asked = False

    async def _announce(self) -> None:
        await super()._announce()
        if not self.asked:
            self.asked = True
            face, seq = self._next()
            properties = {"id": face, "boot": self.boot, "seq": str(seq), "kind": "frame"}
            await self.publish(Up.FACE, b"\xff\xd8\xff", expiry_s=10, content_type="image/jpeg", properties=properties)


class KeepsFaces(TerminalAgent):
    async def start(self, connect_timeout_s: float | None = None) -> None:
        self.unanswered._too_old = lambda waiting: False  # type: ignore[method-assign]
        await super().start(connect_timeout_s)


# ---------------------------------------------------------------- what it makes of what it is sent


class TakesOlderConfiguration(TerminalAgent):
    def _handle(self, topic: Topic, delivery: Delivery) -> None:
        self.duties.twin.gen = min(self.duties.twin.gen, 0) if topic.channel == "desired" else self.duties.twin.gen
        super()._handle(topic, delivery)


class TakesNoConfiguration(TerminalAgent):
    def _handle(self, topic: Topic, delivery: Delivery) -> None:
        if topic.channel != "desired":
            super()._handle(topic, delivery)


class ObeysAnyone(TerminalAgent):
    def _handle(self, topic: Topic, delivery: Delivery) -> None:
        if topic.channel == "command" and delivery.payload.startswith(b"{"):
            delivery = replace(delivery, response_topic=f"{self._topic}/up/response")
        super()._handle(topic, delivery)


class ShowsTheLastScreen(TerminalAgent):
    def _shown(self, screen: Screen) -> None:
        self.screen = None
        super()._shown(screen)


class KnowsItsPrompts(TerminalAgent):
    def _shown(self, screen: Screen) -> None:
        if screen.prompt is not None and screen.prompt.code == "welcome":
            super()._shown(screen)


class KnowsItsFields(TerminalAgent):
    def _handle(self, topic: Topic, delivery: Delivery) -> None:
        if b"added_later" not in delivery.payload:
            super()._handle(topic, delivery)


class HasSmallBuffers(TerminalAgent):
    def delivered(self, delivery: Delivery) -> None:
        if len(delivery.payload) <= 16 * 1024:
            super().delivered(delivery)


class FallsOverGarbage(TerminalAgent):
    def delivered(self, delivery: Delivery) -> None:
        super().delivered(delivery)
        if delivery.payload and not delivery.payload.startswith(b"{"):
            self.link._loop.call_soon(self.link._abort)


UNSIGNED = {"liveness_key": None}
"""Sends no score: a changed picture, or a visit that it never learned of, would break its signature as well."""

FAULTS = (
    Fault("none", None),
    Fault("client id of its own", "connect.identity", _linked(client_id=f"acme-{uuid.uuid4().hex[:8]}")),
    Fault("clean start", "connect.clean_start", _linked(clean_start=True)),
    Fault("no session expiry", "connect.session_expiry", _linked(session_expiry_s=0)),
    Fault("keepalive 60 s", "connect.keepalive", _linked(keepalive_s=60)),
    Fault("no will", "will.form", NoWill),
    Fault("will without conn", "will.conn", WillWithoutConn),
    Fault("one conn for ever", "will.fresh_conn", OneConnForEver),
    Fault("will without delay", "will.delay", settings={"will_delay_s": 0}),
    Fault("subscribes once", "subscribe.reconnect", SubscribesOnce),
    Fault("no birth", "birth", _mangled(_no_birth)),
    Fault("birth not retained", "birth", _mangled(_with(Up.PRESENCE, retain=False))),
    Fault("report not retained", "reported", _mangled(_with(Up.REPORTED, retain=False))),
    Fault("takes no configuration", "desired.applied", TakesNoConfiguration),
    Fault("takes an older configuration", "desired.stale", TakesOlderConfiguration),
    Fault("answers without correlation", "command.answered", _mangled(_with(Up.RESPONSE, correlation=None))),
    Fault("says done to anything", "command.unknown", _mangled(_all_is_done)),
    Fault("obeys anyone", "command.foreign", ObeysAnyone),
    Fault("events at QoS 0", "event.form", _mangled(_with(Up.EVENT, qos=0))),
    Fault("events without expiry", "event.form", _mangled(_with(Up.EVENT, expiry_s=None))),
    Fault("seq stands still", "event.seq", SeqStandsStill),
    Fault("seq jumps", "event.seq", SeqJumps),
    Fault("never sends again", "event.resent", NeverSendsAgain),
    Fault("sends again at once", "event.resent", settings={"resend_first_s": 0.1}),
    Fault("a new id when sent again", "event.same_bytes", _mangled(_new_id_when_sent_again)),
    Fault("forgets when cut off", "event.replayed", ForgetsWhenCutOff, UNSIGNED),
    Fault("never forgets", "event.stops", NeverForgets, UNSIGNED),
    Fault("shows faces unasked", "face.action", ShowsFacesUnasked),
    Fault("large faces", "face.form", _mangled(_large_face), UNSIGNED),
    Fault("keeps faces", "face.late", KeepsFaces),
    Fault("signs another picture", "face.signed", _mangled(_signs_another_picture)),
    Fault("signs nothing", "face.signed", settings={"liveness_key": Mute()}),
    Fault("shows the last screen", "screen.order", ShowsTheLastScreen),
    Fault("knows its prompts only", "screen.unknown_prompt", KnowsItsPrompts),
    Fault("knows its fields only", "fields.unknown", KnowsItsFields),
    Fault("small buffers", "packet.large", HasSmallBuffers),
    Fault("falls over garbage", "garbage", FallsOverGarbage),
    Fault("comes back at once", "reconnect.backoff", ComesBackAtOnce),
)

assert wire.VERSION == 1, "the documents above are of version 1"
