"""The server's side of a conformance run: what is sent to the device, step by step, and what is looked at.

Judgements are in `judge`; here is only who says what and when. Each step leaves its marks in the Record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from devices.agent_config import RESEND_FIRST_S
from devices.conformance import judge
from devices.conformance.operators import Act, Operator
from devices.conformance.packets import Connect, Publish, Subscribe
from devices.conformance.record import Record
from devices.conformance.rules import Finding
from devices.conformance.tap import Tap
from devices.link import Delivery, LinkError
from devices.mqtt import LinkConfig, MqttLink
from devices.terminal import FACE_AGE_S_MAX
from devices.topics import up_filters

GENERATION = 1_000_000
"""Above what any device has applied in real life."""
LARGE_LINES = 400
TAKEOVERS = 4
FACE_RESENDS = 3.6
"""A face that is kept is sent again after 5 s and, a fifth of jitter included, not later than 18 s: watched so long."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is waited. The protocol's own times; a proof with our agent runs them faster."""

    start_s: float = 300.0
    act_s: float = 120.0
    answer_s: float = 10.0
    resend_s: float = RESEND_FIRST_S
    face_age_s: float = FACE_AGE_S_MAX
    reconnect_s: float = 1.0
    """Four takeovers in less than this is no backing off."""
    reconnect_s_max: float = 90.0


@dataclass(frozen=True, slots=True)
class Examined:
    """The device under examination. `secret` None: the two-connections check is left out."""

    prefix: str
    terminal: str
    secret: str | None = None
    liveness_key: bytes | None = None
    """With which it signs its liveness scores."""


@dataclass(slots=True)
class Examiner:
    """One run. `link` is the server's connection to the broker, not through the tap."""

    tap: Tap
    link: LinkConfig
    device: Examined
    operator: Operator
    pace: Pace = field(default_factory=Pace)
    say: Callable[[str], None] = lambda _: None
    record: Record = field(init=False)
    _mqtt: MqttLink = field(init=False)
    _answers: bool = True

    async def run(self) -> list[Finding]:
        """Every rule's outcome, in the order of the list. Raises nothing for what a device does wrong."""
        self.record = Record(self.tap, self.device.prefix, self.device.terminal, self.device.liveness_key)
        self._mqtt = MqttLink(self.link)
        listener = _Listener()
        self._mqtt.listen(listener, up_filters(self.device.prefix))
        await self._mqtt.start()
        try:
            await asyncio.wait_for(listener.up.wait(), self.pace.answer_s)
            await self._steps()
        finally:
            with contextlib.suppress(LinkError):
                await self._mqtt.publish(f"{self.device.prefix}/down/desired", b"", retain=True)
            await self._mqtt.stop()
        return judge.findings(self.record, self.pace.resend_s, self.pace.reconnect_s)

    async def _steps(self) -> None:
        if not await self._connected():
            return
        for step in (
            self._desired,
            self._commands,
            self._unanswered_event,
            self._answered_event,
            self._face,
            self._screens,
            self._nonsense,
            self._two_clients,
        ):
            self.say(step.__name__.strip("_").replace("_", " "))
            await step()

    # ------------------------------------------------------------ steps

    async def _connected(self) -> bool:
        await self.operator.do(Act.START)
        found = await self.tap.first(Connect, lambda _: True, timeout_s=self.pace.start_s)
        if found is None:
            return False
        self.record.connects.append(found)
        connect = self.tap.seen[found].packet
        assert isinstance(connect, Connect), "first() looks for a CONNECT"
        if connect.level != 5:
            return False
        await self.tap.first(Subscribe, lambda _: True, timeout_s=self.pace.answer_s)
        await self._published("presence", after=found)
        await self._published("reported", after=found)
        return True

    async def _desired(self) -> None:
        """A new generation, then an older one; a resync in between and after says what the device holds."""
        record = self.record
        mark = len(self.tap.seen)
        await self._send("desired", _desired(GENERATION, "new"), retain=True)
        record.applied = await self._reported(lambda gen: gen == GENERATION, mark)
        await self._send("desired", _desired(GENERATION - 1, "old"), retain=True)
        record.stale_from = len(self.tap.seen)
        await self._sync()
        await self._reported(lambda _: True, record.stale_from)

    async def _commands(self) -> None:
        record = self.record
        record.resync_from = len(self.tap.seen)
        record.resync_id = await self._command("resync")
        record.answered = await self._response(record.resync_id)
        await self._published("reported", after=record.resync_from)
        record.foreign_id = await self._command("resync", respond_to=_foreign(self.device.prefix))
        record.unknown_id = await self._command("conformance-unknown")
        record.unknown = await self._response(record.unknown_id)

    async def _unanswered_event(self) -> None:
        """No reply: sent again after 5 s; the cable pulled: sent again after the reconnect; then the reply."""
        record = self.record
        await self.operator.do(Act.EVENT)
        record.event = await self._published("event", after=len(self.tap.seen), timeout_s=self.pace.act_s)
        if record.event is None:
            return
        record.resend = await self._again(record.event, record.event + 1, self.pace.resend_s * 3)
        self.tap.cut()
        cut = len(self.tap.seen)
        connect = await self.tap.first(Connect, lambda _: True, after=cut, timeout_s=self.pace.reconnect_s_max)
        if connect is None:
            return
        record.connects.append(connect)
        record.replay = await self._again(record.event, connect, self.pace.resend_s * 0.8)
        await self._published("presence", after=connect)
        await self._reply(record.event)
        await self._sync()
        record.replied_from = len(self.tap.seen)

    async def _answered_event(self) -> None:
        mark = len(self.tap.seen)
        await self.operator.do(Act.EVENT)
        found = await self._published("event", after=mark, timeout_s=self.pace.act_s)
        if found is not None:
            await self._reply(found)

    async def _face(self) -> None:
        """Asked for once; not answered within its life, so that it would be sent again if it were kept."""
        record = self.record
        record.face_from = len(self.tap.seen)
        if not self.operator.has_camera:
            return
        await self.operator.do(Act.FACE)
        record.face = await self._published("face", after=record.face_from, timeout_s=self.pace.act_s)
        if record.face is None:
            return
        await self._later_face(record.face)
        await self._reply(record.face)

    async def _later_face(self, face: int) -> None:
        """Watch past the second repetition; one that is too late is enough to know."""
        began = self.tap.seen[face].at_s
        looked = face + 1
        until = began + self.pace.resend_s * FACE_RESENDS
        while (left := until - asyncio.get_running_loop().time()) > 0:
            found = await self._published("face", after=looked, timeout_s=left)
            if found is None:
                return
            looked = found + 1
            if self.tap.seen[found].at_s > began + self.pace.face_age_s * 1.05:
                self.record.late_face = found
                return

    async def _screens(self) -> None:
        record, session = self.record, str(uuid.uuid4())
        await self._screen(session, 5, "conformance 5")
        await self._screen(session, 5, "conformance 5")
        await self._screen(session, 4, "conformance 4")
        await self._sync()
        record.keeps_newer = await self.operator.sees("conformance 5")
        await self._screen(session, 6, "conformance 6", code="conformance_unknown")
        await self._sync()
        record.shows_unknown = await self.operator.sees("conformance 6")
        await self._screen(session, 7, "conformance 7", added_later={"in": "a later version"})
        await self._sync()
        record.ignores_fields = await self.operator.sees("conformance 7")
        lines = [_line(number) for number in range(1, LARGE_LINES + 1)]
        life = len(self.tap.lives)
        await self._screen(session, 8, "conformance 8", lines=lines)
        await self._sync()
        shown = await self.operator.sees("conformance 8")
        record.takes_large = shown if shown is False or len(self.tap.lives) == life else False

    async def _nonsense(self) -> None:
        life = len(self.tap.lives)
        for channel, payload in (("screen", b"\xff\xfe"), ("reply", b"{"), ("command", b"[]"), ("desired", b"null")):
            await self._send(channel, payload)
        null = {"v": 1, "id": None, "ok": False, "error": {"code": "bad_json", "message": "conformance", "do": "-"}}
        await self._send("reply", json.dumps(null).encode())
        record = self.record
        answered = await self._sync()
        record.survives = len(self.tap.lives) == life and (answered or not self._answers)

    async def _two_clients(self) -> None:
        """Take its client id over, again each time it comes back, and see how fast it does."""
        if self.device.secret is None:
            return
        connect = self.record.connect
        assert connect is not None, "steps run after a connect"
        for _ in range(TAKEOVERS):
            mark = len(self.tap.seen)
            lost = await self._take_over(connect.client_id)
            found = await self.tap.first(Connect, lambda _: True, after=mark, timeout_s=self.pace.reconnect_s_max)
            if lost is None or found is None:
                return
            self.record.pauses_s.append(self.tap.seen[found].at_s - lost)
            # Connected for good: it goes on talking.
            await self.tap.first(object, lambda _: True, after=found + 1, timeout_s=self.pace.answer_s)

    async def _take_over(self, client_id: str) -> float | None:
        """Connect under the device's name; when its connection had ended, or None."""
        life = self.tap.lives[-1]
        config = LinkConfig(
            self.link.host,
            self.link.port,
            client_id,
            username=self.device.terminal,
            password=self.device.secret,
            session_expiry_s=3600,
        )
        other, listener = MqttLink(config), _Listener()
        other.listen(listener, (f"{self.device.prefix}/down/#",))
        await other.start()
        try:
            async with asyncio.timeout(self.pace.answer_s):
                await listener.up.wait()
                while life.ended_s is None:  # noqa: ASYNC110 - the tap's own socket, not an event of ours
                    await asyncio.sleep(0.001)
        except TimeoutError:
            return None
        finally:
            await other.stop()
        return life.ended_s

    # ------------------------------------------------------------ saying and hearing

    async def _send(self, channel: str, payload: bytes, *, retain: bool = False) -> None:
        expiry_s = None if retain else 30
        with contextlib.suppress(LinkError):
            topic = f"{self.device.prefix}/down/{channel}"
            await self._mqtt.publish(topic, payload, retain=retain, expiry_s=expiry_s)

    async def _command(self, verb: str, respond_to: str | None = None) -> str:
        command = str(uuid.uuid4())
        payload = json.dumps({"v": 1, "id": command, "verb": verb, "args": {}}).encode()
        with contextlib.suppress(LinkError):
            await self._mqtt.publish(
                f"{self.device.prefix}/down/command",
                payload,
                expiry_s=30,
                correlation=command.encode(),
                response_topic=respond_to or f"{self.device.prefix}/up/response",
            )
        return command

    async def _reply(self, index: int) -> None:
        message = judge.message_id(self.tap.seen[index].packet)
        if message is not None:
            reply = {"v": 1, "id": message, "ok": True, "session": str(uuid.uuid4())}
            with contextlib.suppress(LinkError):
                topic = f"{self.device.prefix}/down/reply"
                await self._mqtt.publish(topic, json.dumps(reply).encode(), expiry_s=60, correlation=message.encode())

    async def _screen(self, session: str, rev: int, text: str, code: str = "welcome", **more: Any) -> None:
        screen = {**_SCREEN, "session": session, "rev": rev, "prompt": {"code": code, "params": {}, "text": text}}
        await self._send("screen", json.dumps({**screen, **more}).encode())

    async def _sync(self) -> bool:
        """Returns once the device has handled what was sent before: it answers a command that came after it."""
        mark = len(self.tap.seen)
        command = await self._command("resync")
        timeout_s = self.pace.answer_s if self._answers else self.pace.answer_s / 10
        self._answers = await self._published("response", after=mark, timeout_s=timeout_s) is not None
        return self._answers and bool(command)

    async def _response(self, command: str) -> int | None:
        return await self._published(
            "response", lambda packet: packet.correlation == command.encode(), after=self.record.resync_from
        )

    async def _published(
        self,
        channel: str,
        fits: Callable[[Publish], bool] = lambda _: True,
        *,
        after: int,
        timeout_s: float | None = None,
    ) -> int | None:
        topic = f"{self.device.prefix}/up/{channel}"
        wait_s = self.pace.answer_s if timeout_s is None else timeout_s
        return await self.tap.first(
            Publish, lambda packet: packet.topic == topic and fits(packet), after=after, timeout_s=wait_s
        )

    async def _again(self, event: int, after: int, timeout_s: float) -> int | None:
        """The same event once more: by its id, or by its place in its boot."""
        first = self.tap.seen[event].packet
        return await self._published(
            "event", lambda packet: judge.same_event(first, packet), after=after, timeout_s=timeout_s
        )

    async def _reported(self, fits: Callable[[int], bool], after: int) -> int | None:
        def applied(packet: Publish) -> bool:
            found = judge.document(packet).get("applied_gen")
            return isinstance(found, int) and fits(found)

        return await self._published("reported", applied, after=after)


class _Listener:
    """Hears nothing: the tap does. Implements `devices.link.LinkListener`."""

    def __init__(self) -> None:
        self.up = asyncio.Event()

    def delivered(self, delivery: Delivery) -> None:
        """Acknowledged by nobody: QoS 1 messages stay the broker's, bounded by Receive Maximum."""

    def connected(self, epoch: int, session_present: bool) -> None:  # noqa: ARG002
        self.up.set()

    def disconnected(self, reason: str) -> None:
        """The link connects again by itself."""

    async def may_reconnect(self, taken_over: bool) -> bool:
        return not taken_over


_SCREEN: dict[str, Any] = {
    "v": 1,
    "basket_rev": 0,
    "state": "open",
    "member": None,
    "lines": [],
    "gross_fen": 0,
    "discount_fen": 0,
    "due_fen": 0,
    "cash_due_fen": 0,
    "membership": None,
    "offers": [],
    "suggestions": [],
    "actions": ["scan"],
    "receipt": None,
}


def _line(number: int) -> dict[str, Any]:
    return {
        "line": number,
        "code": f"{6_901_234_000_000 + number}",
        "name": f"conformance {number} " + "长" * 40,
        "quantity": 1,
        "unit_fen": 100,
        "discount_fen": 0,
        "net_fen": 100,
        "why": "",
    }


def _desired(gen: int, mark: str) -> bytes:
    config = {"consents": [], "conformance": mark}
    return json.dumps({"v": 1, "gen": gen, "config": config, "software": None}).encode()


def _foreign(prefix: str) -> str:
    """A response topic of another terminal of the same store."""
    head, _, terminal = prefix.rpartition("/")
    return f"{head}/{terminal[:40]}-other/up/response"
