"""What a terminal still waits for: sends it, and sends the same bytes again until the reply."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from devices.agent_config import AgentCounts
from devices.link import LinkError
from devices.outbox import EntryClass, Outbox
from devices.topics import Up
from models.domain.errors import Refused
from models.domain.ids import MessageId
from models.domain.screen import ReplyBody

RESEND_S_MAX = 60.0
EVENT_EXPIRY_S = 24 * 3600
FACE_EXPIRY_S = 10
TELEMETRY_EXPIRY_S = 60


@dataclass(slots=True)
class Waiting:
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


class Publish(Protocol):
    """To one of the terminal's own `up/` channels. Raises LinkError."""

    def __call__(self, channel: Up, payload: bytes, **options: Any) -> Coroutine[Any, Any, None]: ...


class Unanswered:
    """Everything without its reply, in the order in which it was made. All calls on one event loop."""

    def __init__(
        self,
        outbox: Outbox,
        counts: AgentCounts,
        publish: Publish,
        online: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], datetime],
    ) -> None:
        self._outbox = outbox
        self._counts = counts
        self._publish = publish
        self._online = online
        self._spawn = spawn
        self._now = now
        self._waiting: OrderedDict[MessageId, Waiting] = OrderedDict()
        self._work = asyncio.Event()
        self.heard_at = 0.0
        """Monotonic seconds of the last reply, or of the last moment when nothing was waited for."""

    def __len__(self) -> int:
        return len(self._waiting)

    def load(self, resend_first_s: float) -> None:
        """What an earlier process left in the outbox."""
        for entry in self._outbox.entries():
            channel = Up.TELEMETRY if entry.kind is EntryClass.TELEMETRY else Up.EVENT
            self._waiting[entry.id] = Waiting(entry.id, channel, entry.payload, None, resend_first_s)
        self.heard_at = _time()

    def add(self, waiting: Waiting, *, send: bool = True) -> None:
        """Wait for this one, and send it now if there is a connection."""
        if not self._waiting:
            self.heard_at = _time()
        self._waiting[waiting.id] = waiting
        if send:
            self._send(waiting)
        self._work.set()

    def answered(self, message_id: MessageId) -> Waiting | None:
        """Its reply came; None when nobody waited for it any more."""
        self.heard_at = _time()
        self._outbox.remove(message_id)
        return self._waiting.pop(message_id, None)

    def silent_s(self) -> float:
        """Seconds since the last reply while something that was sent waits for one; 0 when nothing does."""
        if not any(one.sends > 1 and one.channel is Up.EVENT for one in self._waiting.values()):
            self.heard_at = _time()
        return _time() - self.heard_at

    def resend_all(self) -> None:
        """After a reconnect, in the order in which they were made."""
        self.heard_at = _time()
        for waiting in list(self._waiting.values()):
            if not self._too_old(waiting):
                self._send(waiting)
        self._work.set()

    async def resend_forever(self) -> None:
        """After 5 s, doubling to 60 s, with jitter; drops what is out of date."""
        while True:
            for dropped in self._outbox.drop_old(self._now()):
                self._waiting.pop(dropped.id, None)
            now = _time()
            for waiting in list(self._waiting.values()):
                if not self._too_old(waiting) and waiting.next_at <= now:
                    self._send(waiting)
            due = min((waiting.next_at for waiting in self._waiting.values()), default=now + RESEND_S_MAX)
            self._work.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), max(0.02, due - _time()))

    def give_up(self) -> None:
        """The agent stops: nobody waits any more; the outbox keeps what it has."""
        for waiting in self._waiting.values():
            if waiting.reply is not None:
                waiting.reply.cancel()

    def _send(self, waiting: Waiting) -> None:
        # Jitter of a fifth: a shop's terminals must not repeat themselves in step. Not a secret.
        waiting.next_at = _time() + waiting.resend_s * random.uniform(0.8, 1.2)  # noqa: S311
        if not self._online():
            return
        waiting.resend_s = min(RESEND_S_MAX, waiting.resend_s * 2)
        self._counts.sent += 1
        self._counts.resent += waiting.sends > 0
        waiting.sends += 1
        if waiting.channel is Up.TELEMETRY:
            self._waiting.pop(waiting.id, None)
            self._outbox.remove(waiting.id)
        self._spawn(self._deliver(waiting))

    async def _deliver(self, waiting: Waiting) -> None:
        options: dict[str, Any] = {"expiry_s": EVENT_EXPIRY_S}
        if waiting.channel is Up.FACE:
            options = {"expiry_s": FACE_EXPIRY_S, "content_type": "image/jpeg", "properties": waiting.properties}
        elif waiting.channel is Up.TELEMETRY:
            options = {"expiry_s": TELEMETRY_EXPIRY_S, "qos": 0}
        try:
            await self._publish(waiting.channel, waiting.payload, **options)
        except LinkError as error:
            if error.code == "packet_too_large":
                self._too_large(waiting, error)

    def _too_large(self, waiting: Waiting, error: LinkError) -> None:
        """Above the broker's Maximum Packet Size it would be disconnected for it, again and again: never sent.

        Money stays, for a broker that takes it.
        """
        self._counts.too_large += 1
        entry = next((one for one in self._outbox.entries() if one.id == waiting.id), None)
        if entry is None or entry.kind is not EntryClass.MONEY:
            self._waiting.pop(waiting.id, None)
            self._outbox.remove(waiting.id)
        if waiting.reply is not None and not waiting.reply.done():
            waiting.reply.set_exception(Refused("too_large", error.message, "send less"))

    def _too_old(self, waiting: Waiting) -> bool:
        """A face is sent only within 10 s of its capture; its seq stays used."""
        if waiting.until is None or _time() < waiting.until:
            return False
        self._waiting.pop(waiting.id, None)
        self._counts.faces_too_old += 1
        return True


def _time() -> float:
    return asyncio.get_running_loop().time()
