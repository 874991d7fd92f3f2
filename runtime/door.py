"""The door of a host: registry check, then decoding, once. Past it nobody sees a dict or an image."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from actors.effects import Ask
from actors.hosts import Delivery
from actors.ports import IdentifyFace, TakeShot
from devices import codec
from devices.bridge import Bridge, Inbound
from devices.link import LinkError
from devices.refusals import Undecodable, WireCode
from devices.topics import Topic, Up
from models.domain.device_score import Signature
from models.domain.events import Event, FaceShown
from models.domain.ids import LaneId, TerminalId, derived_id, event_cause
from models.domain.messages import Address
from models.domain.presence import Birth
from models.domain.registry import RegisteredTerminal
from models.tables.journal import InboxKey
from runtime.asks import VisitMemory
from runtime.directory import Directory
from runtime.engine import Item
from runtime.observed import Observed
from runtime.telemetry import HostCounts

log = structlog.get_logger()

REFUSAL_PUBLISH_S_MAX = 1.0
ANSWERS_IN_FLIGHT_MAX = 64
CLEAR_EVERY_S = 10.0
STRANGERS_MAX = 10_000

LookUp = Callable[[TerminalId], Awaitable[RegisteredTerminal | None]]


@dataclass(slots=True)
class Source:
    """Where an item came from: what to acknowledge once it is committed."""

    inbound: Inbound | None = None


class Door:
    """Admits messages of registered terminals as items for the engine; refuses the rest with a code."""

    def __init__(self, directory: Directory, memory: VisitMemory, counts: HostCounts, observed: Observed) -> None:
        self._directory = directory
        self._memory = memory
        self._counts = counts
        self._observed = observed
        self._cleared: OrderedDict[TerminalId, float] = OrderedDict()
        self._answering: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Give up the answers that are on their way: what was not acknowledged comes again."""
        answering = list(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def admit(self, inbound: Inbound, bridge: Bridge, look_up: LookUp) -> Item | None:
        """Registry check, then decoding. What cannot be decoded is answered, counted and acknowledged."""
        topic = inbound.topic
        record = self._directory.terminal(topic.terminal)
        if record is None:
            record = await look_up(topic.terminal)
        if record is None:
            self._counts.unknown_terminals += 1
            bridge.ack(inbound)
            if topic.channel in (Up.PRESENCE, Up.REPORTED):
                self._clear_after(topic, bridge)
            return None
        if record.store != topic.store:
            self._counts.wrong_store += 1
            self._refuse_bytes(
                bridge,
                record,
                inbound,
                Undecodable(WireCode.WRONG_STORE, "this terminal is registered elsewhere", "use the registered topic"),
            )
            return None
        try:
            item = self._decode(record, topic.channel, inbound)
        except Undecodable as refusal:
            self._refuse_bytes(bridge, record, inbound, refusal)
            return None
        if item is None:
            bridge.ack(inbound)
        return item

    def _clear_after(self, topic: Topic, bridge: Bridge) -> None:
        """What a broker retains of a terminal that was retired: its Will comes after the end. Now and then for each."""
        now = asyncio.get_running_loop().time()
        if now - self._cleared.get(topic.terminal, float("-inf")) < CLEAR_EVERY_S:
            return
        self._cleared[topic.terminal] = now
        self._cleared.move_to_end(topic.terminal)
        if len(self._cleared) > STRANGERS_MAX:
            self._cleared.popitem(last=False)
        stranger = RegisteredTerminal(topic.terminal, topic.store, topic.region, LaneId(""), "", "")
        self._say(bridge.clear_retained(stranger), lambda: None)

    def _say(self, publishing: Coroutine[Any, Any, object], then: Callable[[], object]) -> None:
        """Publish without holding up the batch; `then` follows, however it ended. Over the bound nothing is said."""
        if len(self._answering) >= ANSWERS_IN_FLIGHT_MAX:
            publishing.close()
            self._counts.publish_failures += 1
            then()
            return

        async def say() -> None:
            try:
                async with asyncio.timeout(REFUSAL_PUBLISH_S_MAX):
                    await publishing
            except (LinkError, TimeoutError):
                self._counts.publish_failures += 1
            then()

        task = asyncio.create_task(say(), name="refusal")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def admit_delivery(self, delivery: Delivery, record: RegisteredTerminal) -> Item:
        """A wire message that came through the gateway. Raises Undecodable."""
        if delivery.channel == "face":
            event = codec.decode_face(delivery.payload, delivery.properties, record, datetime.now(UTC))
        else:
            event = self._observed.event(record, codec.decode_event(delivery.payload, record))
        return self._event_item(event, record, Source())

    def _decode(self, record: RegisteredTerminal, channel: Any, inbound: Inbound) -> Item | None:
        source = Source(inbound)
        match channel:
            case Up.EVENT:
                event = self._observed.event(record, codec.decode_event(inbound.payload, record))
                return self._event_item(event, record, source)
            case Up.FACE:
                event = codec.decode_face(inbound.payload, inbound.properties, record, datetime.now(UTC))
                return self._event_item(event, record, source)
            case Up.PRESENCE:
                message: Any = codec.decode_presence(inbound.payload)
                if isinstance(message, Birth) and not inbound.retained:
                    self._observed.clock(record, message.ts)
            case Up.REPORTED:
                message = codec.decode_reported(inbound.payload)
            case Up.RESPONSE:
                message = codec.decode_response(inbound.payload, inbound.correlation)
            case _:
                self._observed.telemetry(record, codec.decode_telemetry(inbound.payload))
                return None
        cause = derived_id(record.terminal, f"{channel}:{time.time_ns()}")
        address = Address(record.region, record.store, "terminal", record.terminal)
        return Item(address, message, cause, terminal=record, source=source)

    def _event_item(self, event: Event, record: RegisteredTerminal, source: Source) -> Item:
        if isinstance(event.body, FaceShown):
            self._memory.put_image(event_cause(event.terminal, event.id), event.body.jpeg)
            self._count_score(event, event.body)
            event = replace(event, body=replace(event.body, jpeg=b""))
        address = Address.session(record.region, record.store, record.lane)
        key = InboxKey(record.terminal, event.boot, event.seq, event.id)
        kind = type(event.body).__name__
        return Item(address, event, event.id, key=key, kind=kind, terminal=record, source=source)

    def _count_score(self, event: Event, body: FaceShown) -> None:
        """A key that is registered and never signs, or signs what does not fit, is somebody's mistake or worse."""
        if body.liveness is None:
            return
        self._counts.scores_signed += body.signature is Signature.VALID
        self._counts.scores_not_signed += body.signature is Signature.MISSING
        self._counts.scores_badly_signed += body.signature is Signature.INVALID
        if body.signature in (Signature.MISSING, Signature.INVALID):
            log.info("score_not_signed", trace=event.id, terminal=event.terminal, signature=str(body.signature))

    def _refuse_bytes(self, bridge: Bridge, record: RegisteredTerminal, inbound: Inbound, refusal: Undecodable) -> None:
        self._counts.undecodable += 1
        self._counts.unsupported_versions += refusal.code == WireCode.UNSUPPORTED_VERSION
        log.info("undecodable", trace=refusal.id, terminal=record.terminal, store=record.store, code=refusal.code)
        self._say(bridge.publish_undecodable(record, refusal), lambda: bridge.ack(inbound))

    def forget_images(self, items: Sequence[Item], asks: Sequence[tuple[Address, Ask]]) -> None:
        """A frame that nobody asks about (refused, or a duplicate) is not kept a moment longer."""
        wanted = {ask.request.image for _, ask in asks if isinstance(ask.request, IdentifyFace | TakeShot)}
        for item in items:
            face = isinstance(item.message, Event) and isinstance(item.message.body, FaceShown)
            if face and item.cause not in wanted:
                self._memory.take_image(item.cause)
