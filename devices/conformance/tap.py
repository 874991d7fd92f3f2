"""A tap: the device connects to it, it passes every byte on to the broker and writes down what the device sends.

What a broker keeps to itself (clean start, session expiry, the Will, who subscribed when) is visible here, and the
network can be cut as if a cable were pulled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from devices.conformance.packets import NotMqtt, Packet, PacketReader

P = TypeVar("P")
_READ_BYTES = 64 * 1024
SEEN_PACKETS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet of the device: when, on which of its connections (from 0), and how long it was."""

    at_s: float
    connection: int
    packet: Packet
    length_bytes: int


@dataclass(slots=True)
class Life:
    """One TCP connection of the device."""

    began_s: float
    ended_s: float | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Tap:
    """Listens for one device. All on one event loop."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """The broker's address; `tls`: how to speak to it, the device itself is always spoken to in clear."""
        self._host, self._port, self._tls = host, port, tls
        self._server: asyncio.Server | None = None
        self._moved = asyncio.Event()
        self.seen: list[Seen] = []
        self.lives: list[Life] = []
        self.not_mqtt: list[str] = []

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, host, port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def stop(self) -> None:
        """Listen no more and end what runs."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*(task for life in self.lives for task in life.tasks), return_exceptions=True)

    def cut(self) -> None:
        """Pull the cable: every connection ends without a word. The next one is accepted at once."""
        for life in self.lives:
            for task in life.tasks:
                task.cancel()

    async def first(self, kind: type[P], fits: Callable[[P], bool], *, after: int = 0, timeout_s: float) -> int | None:
        """The index of the first packet from `after` on that fits; None when there was none in time."""
        looked = after
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    while looked < len(self.seen):
                        packet = self.seen[looked].packet
                        if isinstance(packet, kind) and fits(packet):
                            return looked
                        looked += 1
                    self._moved.clear()
                    await self._moved.wait()
        return None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        number, life = len(self.lives), Life(loop.time())
        self.lives.append(life)
        task = asyncio.current_task()
        assert task is not None, "the server runs each connection as a task"
        life.tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            from_broker, upstream = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._listen(number, reader, upstream))
                down = group.create_task(_pass_on(from_broker, writer))
                life.tasks |= {up, down}
        except* (OSError, asyncio.CancelledError, _Ended):
            pass
        finally:
            life.ended_s = loop.time()
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()
            self._moved.set()

    async def _listen(self, number: int, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        packets = PacketReader()
        readable = True
        while data := await reader.read(_READ_BYTES):
            if readable:
                try:
                    self._note(number, packets.feed(data))
                except NotMqtt as error:
                    self.not_mqtt.append(str(error))
                    readable = False
            upstream.write(data)
            await upstream.drain()
        raise _Ended

    def _note(self, number: int, packets: list[tuple[Packet, int]]) -> None:
        now = asyncio.get_running_loop().time()
        for packet, length in packets:
            if len(self.seen) < SEEN_PACKETS_MAX:
                self.seen.append(Seen(now, number, packet, length))
        if packets:
            self._moved.set()


class _Ended(Exception):
    """No error: one side has gone, so the other direction ends too."""


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ_BYTES):
        writer.write(data)
        await writer.drain()
    raise _Ended
