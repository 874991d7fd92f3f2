"""TerminalAgent: the device side of the terminal protocol, and the reference for vendors.

It keeps each event until its reply and sends the same bytes again after 5 s, doubling to 60 s with jitter, and after
every reconnect (`devices.sending`). A face is sent again only within 10 s of its capture and never stored. The server
owns the truth: the agent shows the newest screen, applies the newest desired document and answers commands
(`devices.duties`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import uuid_utils

from devices import codec, wire
from devices.agent_config import RESEND_FIRST_S, AgentConfig, AgentCounts
from devices.duties import Duties
from devices.link import Delivery, LinkError
from devices.liveness import face_properties
from devices.mqtt import LinkConfig, MqttLink, Will
from devices.outbox import EntryClass, Outbox, OutboxEntry, OutboxFull, class_of
from devices.refusals import Undecodable
from devices.sending import TELEMETRY_EXPIRY_S, Unanswered, Waiting
from devices.timings import Timings
from devices.topics import Down, Topic, Up, parse, prefix
from models.domain.errors import Refused, RetryLater
from models.domain.ids import MessageId, SessionId
from models.domain.screen import ReplyBody, Screen

FACE_AGE_S_MAX = 10.0
SHORT_CONNECTIONS_ALARM = 3
SHORT_CONNECTION_S = 10.0
_REMEMBERED_MAX = 64

Now = Callable[[], datetime]


def wall_now() -> datetime:
    """The device's wall clock in UTC."""
    return datetime.now(UTC)


class NoReply(RetryLater):
    """No reply in time. The event stays in the outbox and is sent again; its outcome will be on the screen."""


class TerminalAgent:
    """One terminal of one lane. All calls on one event loop. Implements `devices.link.LinkListener`."""

    def __init__(self, config: AgentConfig, *, outbox: Outbox | None = None, now: Now = wall_now) -> None:
        self.config = config
        self.counts = AgentCounts()
        self.timings = Timings()
        self.screen: Screen | None = None
        self.last_refusal: ReplyBody | None = None
        """The newest `id: null` reply: something that this terminal sent could not be read."""
        self.alarm = ""
        """What an operator must know of this connection; empty when all is well. Also in the reported health."""
        self.on_screen: Callable[[Screen], None] | None = None
        self.on_text: Callable[[str], None] | None = None
        """What the operator wants shown or printed."""
        self.on_late_reply: Callable[[ReplyBody], None] | None = None
        """A reply for which nobody waits any more: the outcome of an earlier boot's event, or of a `NoReply`."""
        self.on_desired: Callable[[Mapping[str, Any]], None] | None = None
        self.boot = str(uuid_utils.uuid4())
        self.conn = ""
        self.outbox = outbox or Outbox(config.outbox_path)
        self.now = now
        self._seq = 0
        self._topic = prefix(config.region, config.store, config.terminal)
        self._screen_waits: list[tuple[Callable[[Screen], bool], asyncio.Future[Screen]]] = []
        self._left_sessions: deque[SessionId] = deque(maxlen=_REMEMBERED_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._connected_at = 0.0
        self.unanswered = Unanswered(
            self.outbox, self.counts, self.publish, lambda: self.link.online, self.spawn, self.now
        )
        self.duties = Duties(self)
        self.link = self._new_link(config)

    def _new_link(self, config: AgentConfig) -> MqttLink:
        link = self._link(
            LinkConfig(
                host=config.host,
                port=config.port,
                client_id=config.terminal,
                username=config.terminal,
                password=config.secret,
                tls=None if config.tls is None else config.tls.context(),
                session_expiry_s=3600,
                keepalive_s=30,
                receive_messages_max=100,
                reconnect_s_min=config.reconnect_s_min,
                reconnect_s_max=config.reconnect_s_max,
            )
        )
        link.listen(self, (f"{self._topic}/down/#",))
        return link

    def _link(self, config: LinkConfig) -> MqttLink:
        return MqttLink(config, will=self._will)

    # ------------------------------------------------------------ life

    async def start(self, connect_timeout_s: float | None = None) -> None:
        """Open the outbox and begin to connect. With a timeout: return when connected, or raise TimeoutError."""
        await self.outbox.open()
        self.duties.twin.load()
        self.outbox.drop_old(self.now())
        self.unanswered.load(self.config.resend_first_s)
        await self.duties.boot()
        await self.link.start()
        self.spawn(self.unanswered.resend_forever())
        self.spawn(self.duties.every())
        if connect_timeout_s is not None:
            await asyncio.wait_for(self._up.wait(), connect_timeout_s)

    async def stop(self) -> None:
        """Say that it goes, disconnect in order, keep the outbox on disk."""
        await self.duties.stop()
        await self._leave()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.unanswered.give_up()
        await self.outbox.close()

    async def _leave(self) -> None:
        with contextlib.suppress(LinkError):
            await self.publish(Up.PRESENCE, self._death(), retain=True, timeout_s=1.0)
        await self.link.stop()
        self._up.clear()

    async def reboot(self, reason: str) -> None:
        """Begin a new boot in order: a new boot id, `seq` from 1, a new connection, a report that says why.

        What waits for its reply keeps its bytes, and so the boot that it was made in.
        """
        await self.duties.note(reason)
        await self._leave()
        self.counts.reboots += 1
        self.boot = str(uuid_utils.uuid4())
        self._seq = 0
        await self.duties.boot()
        self.link = self._new_link(self.config)
        await self.link.start()

    async def reconnect(self, config: AgentConfig, timeout_s: float) -> bool:
        """Connect with another credential; False when the broker does not let it in within `timeout_s`."""
        await self._leave()
        self.config = replace(self.config, host=config.host, port=config.port, secret=config.secret, tls=config.tls)
        self.link = self._new_link(self.config)
        await self.link.start()
        return await self.connected_within(timeout_s)

    async def connected_within(self, timeout_s: float) -> bool:
        """Return True as soon as there is a connection, False after the time-out."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def drop(self) -> None:
        """Cut the network, as if a cable were pulled: no DISCONNECT, so the broker publishes the Will."""
        self.link.drop()

    async def gone(self) -> None:
        """Return once there is no connection."""
        if self.online:
            await self._down.wait()

    def restore(self) -> None:
        """Plug the cable in again."""
        self.link.restore()

    @property
    def online(self) -> bool:
        """Connected, as far as the terminal can know."""
        return self.link.online

    def silent_s(self) -> float:
        """Seconds without a reply although something that was sent waits for one."""
        return self.unanswered.silent_s()

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
        comes), OutboxFull, Refused `too_large` (above the broker's packet size), ValueError above 64 KiB.
        """
        waiting = await self._stored(event_type, body, session, clerk, replay=not self.online, future=self._future())
        return await self._ask(waiting, event_type != "complaint", timeout_s)

    async def store(self, event_type: str, body: Mapping[str, Any], *, clerk: str | None = None) -> MessageId:
        """Keep an event that was made offline: marked `replay`, sent once there is a connection, until its reply.

        Money is on the disk when this returns. Raises OutboxFull and ValueError as `request` does.
        """
        waiting = await self._stored(event_type, body, None, clerk, replay=True, future=None)
        self.unanswered.add(waiting)
        return waiting.id

    async def _stored(
        self,
        event_type: str,
        body: Mapping[str, Any] | None,
        session: SessionId | None,
        clerk: str | None,
        *,
        replay: bool,
        future: asyncio.Future[ReplyBody] | None,
    ) -> Waiting:
        event_id, seq = self._next()
        payload = msgspec.json.encode(
            {
                "v": wire.VERSION,
                "id": event_id,
                "boot": self.boot,
                "seq": seq,
                "ts": _timestamp(self.now()),
                "mono_ms": int(self._time() * 1000),
                "type": event_type,
                "session": session,
                "clerk": clerk,
                "replay": replay,
                "body": body or {},
            }
        )
        if len(payload) > wire.EVENT_BYTES_MAX:
            self._seq -= 1  # never sent: no gap that money would wait for
            raise ValueError(f"an event has at most {wire.EVENT_BYTES_MAX} bytes, this one {len(payload)}")
        try:
            await self.outbox.put(OutboxEntry(event_id, class_of(event_type), payload, self.now()))
        except OutboxFull:
            self._seq -= 1
            raise
        return Waiting(event_id, Up.EVENT, payload, future, self.config.resend_first_s)

    async def show_face(
        self,
        jpeg: bytes,
        session: SessionId | None,
        *,
        kind: str = "frame",
        liveness: float | None = None,
        timeout_s: float = FACE_AGE_S_MAX,
    ) -> ReplyBody:
        """Send one JPEG after a customer's action, never stored, and return its reply. With a key `liveness` is signed.

        Raises NoReply, Refused `too_large`, ValueError above 192 KiB (never sent: the broker would disconnect).
        """
        if len(jpeg) > wire.FACE_BYTES_MAX:
            raise ValueError(f"a face has at most {wire.FACE_BYTES_MAX} bytes, this one {len(jpeg)}")
        face_id, seq = self._next()
        head = {"id": face_id, "boot": self.boot, "seq": str(seq), "kind": kind, "session": session}
        topic = f"{self._topic}/up/{Up.FACE.value}"
        properties = face_properties(topic, jpeg, head, liveness, self.config.liveness_key)
        waiting = Waiting(face_id, Up.FACE, jpeg, self._future(), self.config.resend_first_s, properties)
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
        payload = msgspec.json.encode(document)
        if self.online:
            with contextlib.suppress(LinkError):
                await self.publish(Up.TELEMETRY, payload, qos=0, expiry_s=TELEMETRY_EXPIRY_S)
            return
        entry_id = MessageId(str(uuid_utils.uuid7()))
        await self.outbox.put(OutboxEntry(entry_id, EntryClass.TELEMETRY, payload, self.now()))
        self.unanswered.add(Waiting(entry_id, Up.TELEMETRY, payload, None, RESEND_FIRST_S), send=False)

    async def _ask(self, waiting: Waiting, timed: bool, timeout_s: float) -> ReplyBody:
        assert waiting.reply is not None, "request() and show_face() wait for a reply"
        if timed:
            self.timings.sent(waiting.id, waiting.channel is Up.FACE, self._time())
        self.unanswered.add(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting.reply
        except TimeoutError:
            raise NoReply("no_reply", f"no reply within {timeout_s} s", "wait, or look at the screen") from None

    # ------------------------------------------------------------ the connection

    async def publish(self, channel: Up, payload: bytes, **options: Any) -> None:
        """To one of this terminal's own topics; returns at the broker's PUBACK. Raises LinkError."""
        await self.link.publish(f"{self._topic}/up/{channel.value}", payload, **options)

    def _will(self) -> Will:
        self.conn = str(uuid_utils.uuid4())
        return Will(f"{self._topic}/up/{Up.PRESENCE.value}", self._death(), self.config.will_delay_s)

    def _death(self) -> bytes:
        return msgspec.json.encode({"v": wire.VERSION, "online": False, "boot": self.boot, "conn": self.conn})

    def connected(self, epoch: int, session_present: bool) -> None:  # noqa: ARG002 - replies decide, not sessions
        self._connected_at = self._time()
        self.present()
        self._down.clear()
        self._up.set()

    def disconnected(self, reason: str) -> None:  # noqa: ARG002 - the link tries again by itself
        self._up.clear()
        self._down.set()

    async def may_reconnect(self, taken_over: bool) -> bool:
        """Always, but later and later; two clients with one id push each other out, and must say so."""
        early = self._time() - self._connected_at < SHORT_CONNECTION_S
        self.counts.short_connections = self.counts.short_connections + 1 if early else 0
        self.counts.takeovers += taken_over
        if taken_over:
            self.alarm = "client_id_taken: another client connects as this terminal"
        elif self.counts.short_connections >= SHORT_CONNECTIONS_ALARM:
            self.alarm = f"short_connections: {self.counts.short_connections} in a row; a twin, or a flapping network"
        elif not early:
            self.alarm = ""
        return True

    def present(self) -> None:
        """Birth and report, then everything that has no reply; nothing that is asked later overtakes it."""
        self.spawn(self._announce())
        self.unanswered.resend_all()

    async def _announce(self) -> None:
        birth = {
            "v": wire.VERSION,
            "online": True,
            "boot": self.boot,
            "conn": self.conn,
            "software": self.duties.running,
            "profile": self.duties.profile,
            "ts": _timestamp(self.now()),
        }
        with contextlib.suppress(LinkError):
            await self.publish(Up.PRESENCE, msgspec.json.encode(birth), retain=True)
        await self.report()
        if self.online:
            await self.duties.proved()

    async def report(self) -> None:
        """Say what runs, and how it is."""
        health: dict[str, Any] = {"outbox_bytes": self.outbox.bytes_stored, "outbox_events": len(self.unanswered)}
        health |= self.duties.health()
        if self.alarm:
            health["alarm"] = self.alarm
        reported = {
            "v": wire.VERSION,
            "applied_gen": self.applied_gen,
            "config_hash": self.duties.twin.config_hash,
            "software": self.duties.running,
            "boot": self.boot,
            "health": health,
        }
        with contextlib.suppress(LinkError):
            await self.publish(Up.REPORTED, msgspec.json.encode(reported), retain=True)

    # ------------------------------------------------------------ receiving

    def delivered(self, delivery: Delivery) -> None:
        try:
            self._handle(parse(delivery.topic), delivery)
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
                    desired = codec.decode_desired(delivery.payload)
                    self.spawn(self.duties.desire(delivery.payload, desired))
            case Down.COMMAND if (delivery.response_topic or "").startswith(f"{self._topic}/up/"):
                self.duties.command(delivery)
            case Down.COMMAND:
                self.counts.foreign_commands += 1
            case _:
                self.counts.unreadable += 1

    def _replied(self, reply: ReplyBody) -> None:
        if reply.id is None:
            self.last_refusal = reply
            return
        waiting = self.unanswered.answered(reply.id)
        if waiting is None:
            self.counts.duplicate_replies += 1
            return
        self.counts.replies += 1
        self.counts.refused_by_server += not reply.ok
        self.timings.replied(reply.id, reply.ok)
        if waiting.reply is not None and not waiting.reply.done():
            waiting.reply.set_result(reply)
        elif self.on_late_reply is not None:
            self.on_late_reply(reply)

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
        return self.duties.twin.gen

    @property
    def desired(self) -> Mapping[str, Any]:
        """The configuration that this terminal runs."""
        return self.duties.twin.config

    def configured(self) -> None:
        """A newer configuration is in force."""
        if self.on_desired is not None:
            self.on_desired(self.desired)

    def say(self, text: str) -> None:
        """Something of the operator's to show or print."""
        if self.on_text is not None:
            self.on_text(text)

    # ------------------------------------------------------------ small things

    def _next(self) -> tuple[MessageId, int]:
        self._seq += 1
        return MessageId(str(uuid_utils.uuid7())), self._seq

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _future(self) -> asyncio.Future[ReplyBody]:
        return asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; it ends with the agent."""
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
