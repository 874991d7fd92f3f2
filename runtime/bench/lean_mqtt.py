"""A bare MQTT 5 client for load: fixed packets, no properties read, no checks.

Not for anything else. The client of `devices` costs its user as much as the host's own; a generator that shares the
host's two cores must cost a fraction of what it measures, so it writes PUBLISH packets that were made beforehand and
looks at nothing in those that it gets but the topic.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP = 2, 3, 4, 9, 13
CONNECT_S_MAX = 10.0
KEEPALIVE_S = 60
RECEIVE_MESSAGES_MAX = 2_000


def varint(number: int) -> bytes:
    """MQTT 5 section 1.5.5."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    """A string with its length in two bytes before it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


class LeanClient(asyncio.Protocol):
    """One connection. `heard(topic, payload)` is called for every PUBLISH, after its PUBACK was queued."""

    def __init__(self, heard: Callable[[bytes, bytes], None]) -> None:
        self._heard = heard
        self._buffer = b""
        self._out: list[bytes] = []
        self._mid = 0
        self._scheduled = False
        self.puback_errors = 0
        self.in_flight = 0
        self.closed = False

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        client_id: str,
        username: str | None,
        password: str | None,
        topics: Sequence[str],
        heard: Callable[[bytes, bytes], None],
    ) -> LeanClient:
        """Connected and subscribed with QoS 1. Raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: cls(heard), host, port)
        flags = 0x02 | (0x80 if username else 0) | (0x40 if password else 0)
        properties = b"\x21" + struct.pack("!H", RECEIVE_MESSAGES_MAX)
        body = text("MQTT") + bytes((5, flags)) + struct.pack("!H", KEEPALIVE_S)
        body += varint(len(properties)) + properties + text(client_id)
        body += (text(username) if username else b"") + (text(password) if password else b"")
        async with asyncio.timeout(CONNECT_S_MAX):
            await client._exchange(b"\x10" + varint(len(body)) + body, CONNACK)
            for first in range(0, len(topics), 100):
                filters = b"".join(text(topic) + b"\x01" for topic in topics[first : first + 100])
                await client._exchange(b"\x82" + varint(len(filters) + 3) + b"\x00\x01\x00" + filters, SUBACK)
        return client

    async def _exchange(self, packet: bytes, answer: int) -> None:
        self._awaited: tuple[int, asyncio.Future[None]] = (answer, asyncio.get_running_loop().create_future())
        self._transport.write(packet)
        await self._awaited[1]

    def publish(self, prefix: bytes, payload: bytes) -> None:
        """QoS 1, no properties. `prefix` is the topic with its length, from `text(topic)`."""
        self._mid = self._mid % 65_535 + 1
        self.in_flight += 1
        self._send(
            b"".join(
                (
                    b"\x32",
                    varint(len(prefix) + 3 + len(payload)),
                    prefix,
                    self._mid.to_bytes(2, "big"),
                    b"\x00",
                    payload,
                )
            )
        )

    def close(self) -> None:
        """DISCONNECT."""
        self._transport.write(b"\xe0\x00")
        self._transport.close()

    def _send(self, packet: bytes) -> None:
        self._out.append(packet)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._transport.write(b"".join(self._out))
        self._out.clear()

    # ------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asyncio.get_running_loop().call_later(KEEPALIVE_S / 2, self._ping)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - who waits runs into its time-out
        self.closed = True

    def _ping(self) -> None:
        if not self.closed:
            self._transport.write(b"\xc0\x00")
            asyncio.get_running_loop().call_later(KEEPALIVE_S / 2, self._ping)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, size = 0, len(buffer)
        while size - at >= 2:
            length, shift, body = 0, 0, at + 1
            while body < size:
                byte = buffer[body]
                length |= (byte & 0x7F) << shift
                shift += 7
                body += 1
                if byte < 0x80:
                    break
            else:
                break
            if buffer[body - 1] >= 0x80 or size - body < length:
                break
            self._packet(buffer[at], buffer, body, body + length)
            at = body + length
        self._buffer = buffer[at:]

    def _packet(self, first: int, buffer: bytes, at: int, end: int) -> None:
        kind = first >> 4
        if kind == PUBLISH:
            name_end = at + 2 + (buffer[at] << 8 | buffer[at + 1])
            topic = buffer[at + 2 : name_end]
            if first & 0x06:
                self._send(b"\x40\x02" + buffer[name_end : name_end + 2])
                name_end += 2
            properties = buffer[name_end]
            # Ours are under 128 bytes: one length byte. A longer list would need two.
            skip = 1 + properties if properties < 0x80 else 2 + (properties & 0x7F | buffer[name_end + 1] << 7)
            self._heard(topic, buffer[name_end + skip : end])
        elif kind == PUBACK:
            self.in_flight -= 1
            if end - at > 2 and buffer[at + 2] >= 0x80:
                self.puback_errors += 1
        elif kind in (CONNACK, SUBACK):
            refused = buffer[at + 1] >= 0x80 if kind == CONNACK else any(code >= 0x80 for code in buffer[at + 3 : end])
            if refused:
                self._awaited[1].set_exception(ConnectionRefusedError(f"the broker refused: {buffer[at:end].hex()}"))
            elif not self._awaited[1].done():
                self._awaited[1].set_result(None)
