"""A foreign client: nothing but Debian's mosquitto-clients and the published terminal protocol."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

ANSWER_S_MAX = 30.0


def installed() -> bool:
    """True when both programs are on this machine."""
    return shutil.which("mosquitto_pub") is not None and shutil.which("mosquitto_sub") is not None


@dataclass(frozen=True)
class Heard:
    """One message of the terminal's `down`."""

    channel: str
    correlation: str
    document: dict[str, Any]


@dataclass
class ForeignTerminal:
    """A shell script could do the same: mosquitto_sub is the connection, mosquitto_pub its helper connections.

    `access` is what `storeops terminal add --json` printed.
    """

    access: dict[str, Any]
    profile: str
    boot: str = field(default_factory=lambda: str(uuid.uuid4()))
    seq: int = 0
    heard: list[Heard] = field(default_factory=list)

    def __enter__(self) -> ForeignTerminal:
        self._arrived: queue.Queue[Heard] = queue.Queue()
        conn = str(uuid.uuid4())
        presence = f"{self._prefix}/up/presence"
        death = json.dumps({"v": 1, "online": False, "boot": self.boot, "conn": conn})
        # Clean start false, session expiry 3600 s: the session exists from here on, so nothing is missed.
        listen = ["mosquitto_sub", *self._connection(self.access["client_id"]), "-c", "-x", "3600", "-k", "30"]
        listen += ["-t", f"{self._prefix}/down/#"]
        subprocess.run([*listen, "-E"], check=True, timeout=ANSWER_S_MAX)
        will = ["--will-topic", presence, "--will-payload", death, "--will-qos", "1", "--will-retain"]
        will += ["-D", "will", "will-delay-interval", "15"]
        # %t topic, %D correlation data, %p payload.
        self._listener = subprocess.Popen(
            [*listen, *will, "-F", "%t\\t%D\\t%p"], stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        birth = {"v": 1, "online": True, "boot": self.boot, "conn": conn, "software": "shell 1", "ts": _now()}
        self._publish(presence, json.dumps({**birth, "profile": self.profile}), "-r")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listener.terminate()
        self._listener.wait(ANSWER_S_MAX)
        self._reader.join(ANSWER_S_MAX)
        assert self._listener.stdout is not None
        self._listener.stdout.close()

    @property
    def _prefix(self) -> str:
        return str(self.access["topic_prefix"])

    def _connection(self, client: str) -> list[str]:
        access = self.access
        return [
            *("-V", "mqttv5", "-q", "1", "-i", client),
            *("-h", str(access["broker_host"]), "-p", str(access["broker_port"])),
            *("-u", str(access["username"]), "-P", str(access["secret"])),
        ]

    def _listen(self) -> None:
        assert self._listener.stdout is not None
        for line in self._listener.stdout:
            topic, correlation, payload = line.rstrip("\n").split("\t", 2)
            self._arrived.put(Heard(topic.rsplit("/", 1)[1], correlation, json.loads(payload)))

    def _publish(self, topic: str, payload: str, *options: str) -> None:
        command = ["mosquitto_pub", *self._connection(f"{self.access['client_id']}.pub"), "-t", topic, "-s", *options]
        subprocess.run(command, input=payload, text=True, encoding="utf-8", check=True, timeout=ANSWER_S_MAX)

    def wait(self, fits: Callable[[Heard], bool], what: str, *, after: int = 0) -> Heard:
        """The first message, from number `after` on, that fits: heard already or still to come."""
        for heard in self.heard[after:]:
            if fits(heard):
                return heard
        deadline = time.monotonic() + ANSWER_S_MAX
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"not heard: {what}; heard {self.heard}"
            try:
                heard = self._arrived.get(timeout=left)
            except queue.Empty:
                continue
            self.heard.append(heard)
            if fits(heard):
                return heard

    def envelope(self, kind: str, body: dict[str, Any], session: str | None) -> dict[str, Any]:
        """The next event."""
        self.seq += 1
        return {
            "v": 1,
            "id": _uuid7(),
            "boot": self.boot,
            "seq": self.seq,
            "ts": _now(),
            "mono_ms": int(time.monotonic() * 1000),
            "type": kind,
            "session": session,
            "clerk": "c-7",
            "replay": False,
            "body": body,
        }

    def send(self, envelope: dict[str, Any]) -> dict[str, Any]:
        """Send an event; its one reply, under its id as correlation data."""
        already = len(self.heard)
        self._publish(
            f"{self._prefix}/up/event",
            json.dumps(envelope),
            *("-D", "publish", "message-expiry-interval", "86400"),
            *("-D", "publish", "correlation-data", envelope["id"]),
            *("-D", "publish", "user-property", "vendor", "shell"),
        )
        reply = self.wait(
            lambda heard: heard.channel == "reply" and heard.correlation == envelope["id"],
            f"reply to {envelope['type']}",
            after=already,
        )
        assert reply.document["id"] == envelope["id"]
        return reply.document

    def act(self, kind: str, body: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """Send an event that must be accepted."""
        reply = self.send(self.envelope(kind, body, session))
        assert reply["ok"], reply
        return reply

    def screen(self, session: str, fits: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first screen of a session that fits."""
        return self.wait(
            lambda heard: heard.channel == "screen" and heard.document["session"] == session and fits(heard.document),
            what,
        ).document


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _uuid7() -> str:
    """48 bits of milliseconds, then random bits (RFC 9562)."""
    bits = (time.time_ns() // 1_000_000) << 80 | uuid.uuid4().int & (1 << 80) - 1
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=bits))
