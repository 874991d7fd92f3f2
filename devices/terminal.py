"""TerminalAgent: the device side of the terminal protocol, and the reference for vendors.

It keeps each event until its reply and sends the same bytes again after 5 s, doubling to 60 s with jitter, and after
every reconnect. A face is sent again only within 10 s of its capture and never stored. The server owns the truth:
the agent shows the newest screen, applies the newest desired document and answers commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
import uuid_utils

from devices import codec, wire
from devices.agent_config import RESEND_FIRST_S, AgentConfig, AgentCounts
from devices.link import Delivery, LinkError
from devices.mqtt import LinkConfig, MqttLink, Will
from devices.outbox import EntryClass, Outbox, OutboxEntry, class_of
from devices.refusals import Undecodable
from devices.timings import Timings
from devices.topics import Down, Topic, Up, parse, prefix
from models.domain.errors import Refused, RetryLater
from models.domain.ids import MessageId, SessionId
from models.domain.screen import ReplyBody, Screen

RESEND_S_MAX = 60.0
FACE_AGE_S_MAX = 10.0
EVENT_EXPIRY_S = 24 * 3600
FACE_EXPIRY_S = 10
RESPONSE_EXPIRY_S = 30
TELEMETRY_EXPIRY_S = 60
_REMEMBERED_MAX = 64

Now = Callable[[], datetime]


def wall_now() -> datetime:
    """The device's wall clock in UTC."""
    return datetime.now(UTC)


class NoReply(RetryLater):
    """No reply in time. The event stays in the outbox and is sent again; its outcome will be on the screen."""


@dataclass(slots=True)
class _Waiting:
    """An event or face without its reply."""

    id: MessageId
    channel: Up
    payload: bytes
    reply: asyncio.Future[ReplyBody] | None
    resend_s: float
    properties: Mapping[str, str] | None = None
    next_at: float = 0.0
    until: float | None = None
    sends: int = 0


class TerminalAgent:
    """One terminal of one lane. All calls on one event loop. Implements `devices.link.LinkListener`."""

    def __init__(self, config: AgentConfig, *, outbox: Outbox | None = None, now: Now = wall_now) -> None:
        self.config = config
        self.counts = AgentCounts()
        self.timings = Timings()
        self.screen: Screen | None = None
        self.desired: Mapping[str, Any] = {}
        self.last_refusal: ReplyBody | None = None
        """The newest `id: null` reply: something that this terminal sent could not be read."""
        self.on_screen: Callable[[Screen], None] | None = None
        self.boot = str(uuid_utils.uuid4())
        self.conn = ""
        self.outbox = outbox or Outbox(config.outbox_path)
        self._now = now
        self._seq = 0
        self._topic = prefix(config.region, config.store, config.terminal)
        self._waiting: OrderedDict[MessageId, _Waiting] = OrderedDict()
        self._screen_waits: list[tuple[Callable[[Screen], bool], asyncio.Future[Screen]]] = []
        self._left_sessions: deque[SessionId] = deque(maxlen=_REMEMBERED_MAX)
        self._commands: OrderedDict[str, str] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
        self._up = asyncio.Event()
        self.link = MqttLink(
            LinkConfig(
                host=config.host,
                port=config.port,
                client_id=config.terminal,
                username=config.terminal,
                password=config.secret,
                session_expiry_s=3600,
                keepalive_s=30,
                receive_messages_max=100,
                reconnect_s_min=config.reconnect_s_min,
                reconnect_s_max=config.reconnect_s_max,
            ),
            will=self._will,
        )
        self.link.listen(self, (f"{self._topic}/down/#",))

    # ------------------------------------------------------------ life

    async def start(self, connect_timeout_s: float | None = None) -> None:
        """Open the outbox and begin to connect. With a timeout: return when connected, or raise TimeoutError."""
        await self.outbox.open()
        self.desired = msgspec.json.decode(self.outbox.setting("config") or "{}")
        self.outbox.drop_old(self._now())
        for entry in self.outbox.entries():
            channel = Up.TELEMETRY if entry.kind is EntryClass.TELEMETRY else Up.EVENT
            self._waiting[entry.id] = _Waiting(entry.id, channel, entry.payload, None, self.config.resend_first_s)
        await self.link.start()
        self._spawn(self._resend_forever())
        if connect_timeout_s is not None:
            await asyncio.wait_for(self._up.wait(), connect_timeout_s)

    async def stop(self) -> None:
        """Say that it goes, disconnect in order, keep the outbox on disk."""
        with contextlib.suppress(LinkError):
            await self._publish(Up.PRESENCE, self._death(), retain=True, timeout_s=1.0)
        await self.link.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self._waiting.values():
            if waiting.reply is not None:
                waiting.reply.cancel()
        await self.outbox.close()

    def drop(self) -> None:
        """Cut the network, as if a cable were pulled: no DISCONNECT, so the broker publishes the Will."""
        self.link.drop()

    def restore(self) -> None:
        """Plug the cable in again."""
        self.link.restore()

    @property
    def online(self) -> bool:
        """Connected, as far as the terminal can know."""
        return self.link.online

    # ------------------------------------------------------------ what a customer or clerk does

    async def request(
        self,
        event_type: str,
        body: Mapping[str, Any] | None = None,
        *,
        session: SessionId | None = None,
        clerk: str | None = None,
        timeout_s: float = 15.0,
    ) -> ReplyBody:
        """Send one event and return its one reply. `pending` in it: the outcome comes on the screen.

        A refusal is a reply with ok False, not an exception. Raises NoReply (the event is still sent until its reply
        comes), OutboxFull, ValueError above 64 KiB.
        """
        event_id, seq = self._next()
        payload = msgspec.json.encode(
            {
                "v": wire.VERSION,
                "id": event_id,
                "boot": self.boot,
                "seq": seq,
                "ts": _timestamp(self._now()),
                "mono_ms": int(self._time() * 1000),
                "type": event_type,
                "session": session,
                "clerk": clerk,
                "replay": not self.online,
                "body": body or {},
            }
        )
        if len(payload) > wire.EVENT_BYTES_MAX:
            raise ValueError(f"an event has at most {wire.EVENT_BYTES_MAX} bytes, this one {len(payload)}")
        await self.outbox.put(OutboxEntry(event_id, class_of(event_type), payload, self._now()))
        waiting = _Waiting(event_id, Up.EVENT, payload, self._future(), self.config.resend_first_s)
        return await self._ask(waiting, event_type != "complaint", timeout_s)

    async def show_face(
        self,
        jpeg: bytes,
        session: SessionId | None,
        *,
        kind: str = "frame",
        liveness: float | None = None,
        timeout_s: float = FACE_AGE_S_MAX,
    ) -> ReplyBody:
        """Send one JPEG after a customer's action, never stored, and return its reply.

        Raises NoReply, ValueError above 192 KiB (never sent: the broker would disconnect).
        """
        if len(jpeg) > wire.FACE_BYTES_MAX:
            raise ValueError(f"a face has at most {wire.FACE_BYTES_MAX} bytes, this one {len(jpeg)}")
        face_id, seq = self._next()
        properties = {"id": face_id, "boot": self.boot, "seq": str(seq), "kind": kind}
        if session is not None:
            properties["session"] = session
        if liveness is not None:
            properties["liveness"] = f"{liveness:.6f}"
        waiting = _Waiting(face_id, Up.FACE, jpeg, self._future(), self.config.resend_first_s, properties)
        waiting.until = self._time() + FACE_AGE_S_MAX
        return await self._ask(waiting, True, timeout_s)

    async def wait_screen(self, predicate: Callable[[Screen], bool], timeout_s: float = 10.0) -> Screen:
        """The present screen if it fits, else the first one that does. Raises TimeoutError."""
        if self.screen is not None and predicate(self.screen):
            return self.screen
        found: asyncio.Future[Screen] = asyncio.get_running_loop().create_future()
        self._screen_waits.append((predicate, found))
        try:
            async with asyncio.timeout(timeout_s):
                return await found
        finally:
            self._screen_waits = [wait for wait in self._screen_waits if wait[1] is not found]

    async def telemetry(self, document: Mapping[str, Any]) -> None:
        """Losable metrics: sent once; offline, kept while there is room."""
        entry_id = MessageId(str(uuid_utils.uuid7()))
        payload = msgspec.json.encode(document)
        if self.online:
            with contextlib.suppress(LinkError):
                await self._publish(Up.TELEMETRY, payload, qos=0, expiry_s=TELEMETRY_EXPIRY_S)
        else:
            await self.outbox.put(OutboxEntry(entry_id, EntryClass.TELEMETRY, payload, self._now()))
            self._waiting[entry_id] = _Waiting(entry_id, Up.TELEMETRY, payload, None, RESEND_FIRST_S)

    async def _ask(self, waiting: _Waiting, timed: bool, timeout_s: float) -> ReplyBody:
        assert waiting.reply is not None, "request() and show_face() wait for a reply"
        self._waiting[waiting.id] = waiting
        if timed:
            self.timings.sent(waiting.id, waiting.channel is Up.FACE, self._time())
        self._send(waiting)
        self._work.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting.reply
        except TimeoutError:
            raise NoReply("no_reply", f"no reply within {timeout_s} s", "wait, or look at the screen") from None

    # ------------------------------------------------------------ sending, and sending again

    def _send(self, waiting: _Waiting) -> None:
        now = self._time()
        # Jitter of a fifth: a shop's terminals must not repeat themselves in step. Not a secret.
        waiting.next_at = now + waiting.resend_s * random.uniform(0.8, 1.2)  # noqa: S311
        if not self.online:
            return
        waiting.resend_s = min(RESEND_S_MAX, waiting.resend_s * 2)
        self.counts.sent += 1
        self.counts.resent += waiting.sends > 0
        waiting.sends += 1
        if waiting.channel is Up.FACE:
            sending = self._publish(
                Up.FACE,
                waiting.payload,
                expiry_s=FACE_EXPIRY_S,
                content_type="image/jpeg",
                properties=waiting.properties,
            )
        elif waiting.channel is Up.TELEMETRY:
            self._waiting.pop(waiting.id, None)
            self.outbox.remove(waiting.id)
            sending = self._publish(Up.TELEMETRY, waiting.payload, qos=0, expiry_s=TELEMETRY_EXPIRY_S)
        else:
            sending = self._publish(Up.EVENT, waiting.payload, expiry_s=EVENT_EXPIRY_S)
        self._spawn(sending)

    def _resend_all(self) -> None:
        """In the order in which they were made."""
        for waiting in list(self._waiting.values()):
            if not self._too_old(waiting):
                self._send(waiting)

    async def _resend_forever(self) -> None:
        while True:
            for dropped in self.outbox.drop_old(self._now()):
                self._waiting.pop(dropped.id, None)
            now = self._time()
            for waiting in list(self._waiting.values()):
                if not self._too_old(waiting) and waiting.next_at <= now:
                    self._send(waiting)
            due = min((waiting.next_at for waiting in self._waiting.values()), default=now + RESEND_S_MAX)
            self._work.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), max(0.02, due - self._time()))

    def _too_old(self, waiting: _Waiting) -> bool:
        """A face is sent only within 10 s of its capture; its seq stays used."""
        if waiting.until is None or self._time() < waiting.until:
            return False
        self._waiting.pop(waiting.id, None)
        self.counts.faces_too_old += 1
        return True

    async def _publish(self, channel: Up, payload: bytes, **options: Any) -> None:
        with contextlib.suppress(LinkError):
            await self.link.publish(f"{self._topic}/up/{channel.value}", payload, **options)

    # ------------------------------------------------------------ the connection

    def _will(self) -> Will:
        self.conn = str(uuid_utils.uuid4())
        return Will(f"{self._topic}/up/{Up.PRESENCE.value}", self._death(), self.config.will_delay_s)

    def _death(self) -> bytes:
        return msgspec.json.encode({"v": wire.VERSION, "online": False, "boot": self.boot, "conn": self.conn})

    def connected(self, epoch: int, session_present: bool) -> None:  # noqa: ARG002 - replies decide, not sessions
        self._present()
        self._up.set()

    def disconnected(self, reason: str) -> None:  # noqa: ARG002 - the link tries again by itself
        self._up.clear()

    async def may_reconnect(self, taken_over: bool) -> bool:  # noqa: ARG002 - the pause grows by itself
        return True

    def _present(self) -> None:
        """Birth and report, then everything that has no reply; nothing that is asked later overtakes it."""
        self._spawn(self._announce())
        self._resend_all()
        self._work.set()

    async def _announce(self) -> None:
        birth = {
            "v": wire.VERSION,
            "online": True,
            "boot": self.boot,
            "conn": self.conn,
            "software": self.config.software,
            "profile": self.config.profile,
            "ts": _timestamp(self._now()),
        }
        await self._publish(Up.PRESENCE, msgspec.json.encode(birth), retain=True)
        await self._report()

    async def _report(self) -> None:
        reported = {
            "v": wire.VERSION,
            "applied_gen": self.applied_gen,
            "config_hash": self.outbox.setting("config_hash") or "",
            "software": self.config.software,
            "boot": self.boot,
            "health": {"outbox_bytes": self.outbox.bytes_stored, "outbox_events": len(self._waiting)},
        }
        await self._publish(Up.REPORTED, msgspec.json.encode(reported), retain=True)

    # ------------------------------------------------------------ receiving

    def delivered(self, delivery: Delivery) -> None:
        try:
            topic = parse(delivery.topic)
            self._handle(topic, delivery)
        except Undecodable:
            self.counts.unreadable += 1
        if delivery.receipt is not None:
            self.link.ack(delivery.receipt)

    def _handle(self, topic: Topic, delivery: Delivery) -> None:
        match topic.channel:
            case Down.REPLY:
                self._replied(codec.decode_reply(delivery.payload))
            case Down.SCREEN:
                self._shown(codec.decode_screen(delivery.payload))
            case Down.DESIRED:
                if delivery.payload:
                    self._desire(codec.decode_desired(delivery.payload))
            case Down.COMMAND:
                self._commanded(delivery)
            case _:
                self.counts.unreadable += 1

    def _replied(self, reply: ReplyBody) -> None:
        if reply.id is None:
            self.last_refusal = reply
            return
        self.outbox.remove(reply.id)
        waiting = self._waiting.pop(reply.id, None)
        if waiting is None:
            self.counts.duplicate_replies += 1
            return
        self.counts.replies += 1
        self.counts.refused_by_server += not reply.ok
        self.timings.replied(reply.id, reply.ok)
        if waiting.reply is not None and not waiting.reply.done():
            waiting.reply.set_result(reply)

    def _shown(self, screen: Screen) -> None:
        """Only a newer one: compare (session, rev). A visit that was left does not come back."""
        present = self.screen
        if present is not None and present.session == screen.session and screen.rev <= present.rev:
            return
        if screen.session in self._left_sessions:
            return
        if present is not None and present.session != screen.session:
            self._left_sessions.append(present.session)
        self.screen = screen
        self.timings.shown(self._time())
        for predicate, found in self._screen_waits:
            if not found.done() and predicate(screen):
                found.set_result(screen)
        if self.on_screen is not None:
            self.on_screen(screen)

    @property
    def applied_gen(self) -> int:
        """The generation of the desired document that this terminal runs."""
        return int(self.outbox.setting("applied_gen") or 0)

    def _desire(self, desired: wire.DesiredDocument) -> None:
        """A document, not a difference: the newest generation counts, older ones are ignored."""
        if desired.gen <= self.applied_gen:
            return
        self.desired = desired.config
        canonical = msgspec.json.encode(desired.config, order="sorted")
        self.outbox.set_setting("config", canonical.decode())
        self.outbox.set_setting("config_hash", sha256(canonical).hexdigest())
        self.outbox.set_setting("applied_gen", str(desired.gen))
        self._spawn(self._report())

    def _commanded(self, delivery: Delivery) -> None:
        if delivery.response_topic is None or not delivery.response_topic.startswith(f"{self._topic}/up/"):
            self.counts.foreign_commands += 1
            return
        command = codec.decode_command(delivery.payload)
        status = self._commands.get(command.id)
        if status is None:
            if command.verb == "resync":
                self._present()
                status = "done"
            else:
                status = "rejected"
            self._commands[command.id] = status
            while len(self._commands) > _REMEMBERED_MAX:
                self._commands.popitem(last=False)
        detail = "" if status == "done" else "unknown_verb"
        response = {"v": wire.VERSION, "status": status, "detail": detail}
        self._spawn(
            self._publish(
                Up.RESPONSE,
                msgspec.json.encode(response),
                expiry_s=RESPONSE_EXPIRY_S,
                correlation=delivery.correlation,
            )
        )

    # ------------------------------------------------------------ small things

    def _next(self) -> tuple[MessageId, int]:
        self._seq += 1
        return MessageId(str(uuid_utils.uuid7())), self._seq

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _future(self) -> asyncio.Future[ReplyBody]:
        return asyncio.get_running_loop().create_future()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def require_ok(reply: ReplyBody) -> ReplyBody:
    """The reply itself, or Refused with the server's code, message and advice."""
    if not reply.ok:
        error = reply.error
        raise Refused(*((error.code, error.message, error.do) if error else ("refused",)))
    return reply
