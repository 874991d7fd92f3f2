"""Questions and answers between processes of one machine, over Unix stream sockets.

A call of a Ray actor costs its two sides 3.5 ms of CPU, whatever it carries; this half a millisecond, with a picture
(docs/decisions/faces-through-a-desk.md). Who listens has no file: an abstract name (Linux only), random, which Ray
tells to those who may ask. Each side takes nothing from a process of another user.

A message is a number, which its answer carries too, a head for who passes it on, and a letter for who opens it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()

MESSAGE_BYTES_MAX = 1024 * 1024
"""Of one message; a picture has 192 KiB at most. Who sends more is not listened to any more."""
BUFFER_BYTES = 512 * 1024
"""Asked of the system for each socket, so that a picture goes out at once; it may give less."""
UNSENT_BYTES_MAX = 16 * 1024 * 1024
"""What waits to be sent to who does not read; beyond it nothing more is asked there."""
STALLED_S_MAX = 5.0
"""How long a worker waits for the rest of a message, or for room for its answer."""
_FRAME = struct.Struct("<QII")
"""Number, bytes of the head, bytes of the letter."""
_PEER = struct.Struct("3i")
_WAITING_MAX = 16


def offered() -> bool:
    """Whether this system has what is needed."""
    return sys.platform == "linux"


# ---------------------------------------------------------------- in an event loop


class _Framed(asyncio.Protocol):
    """Puts messages together. Ends the connection at what cannot be one."""

    def __init__(self, heard: Callable[[int, bytes, bytes], None], gone: Callable[[], None]) -> None:
        self._heard, self._gone = heard, gone
        self._transport: asyncio.Transport | None = None
        self._arrived = bytearray()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not _prepared(transport.get_extra_info("socket")):
            self.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.closed = True
        self._gone()

    def data_received(self, data: bytes) -> None:
        arrived = self._arrived
        arrived += data
        while len(arrived) >= _FRAME.size:
            number, head_bytes, letter_bytes = _FRAME.unpack_from(arrived)
            if head_bytes + letter_bytes > MESSAGE_BYTES_MAX:
                self.close()
                return
            letter_at = _FRAME.size + head_bytes
            if len(arrived) < letter_at + letter_bytes:
                return
            with memoryview(arrived) as whole:
                head, letter = bytes(whole[_FRAME.size : letter_at]), bytes(whole[letter_at : letter_at + letter_bytes])
            del arrived[: letter_at + letter_bytes]
            self._heard(number, head, letter)

    def send(self, number: int, head: bytes, letter: bytes) -> None:
        """Nothing happens when the other side is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines((_FRAME.pack(number, len(head), len(letter)), head, letter))

    @property
    def full(self) -> bool:
        """The other side does not read."""
        return self._transport is not None and self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX

    def close(self) -> None:
        """At once; who waits for an answer hears that the other side is gone."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


class Line:
    """The asking side of one connection."""

    def __init__(self) -> None:
        self.framed = _Framed(self._heard, self._gone)
        self._asked = 0
        self._open: dict[int, asyncio.Future[bytes]] = {}

    @property
    def closed(self) -> bool:
        """Nobody can be asked any more."""
        return self.framed.closed

    async def ask(self, head: bytes, letter: bytes) -> bytes:
        """The answer's letter. Raises ConnectionError when the other side went, goes meanwhile, or does not read."""
        assert len(head) + len(letter) <= MESSAGE_BYTES_MAX, len(letter)
        if self.closed:
            raise ConnectionResetError("gone")
        if self.framed.full:
            raise ConnectionError("not read")
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            self.framed.send(number, head, letter)
            return await answer
        finally:
            del self._open[number]

    def close(self) -> None:
        """At once; who waits hears ConnectionError."""
        self.framed.close()

    def _heard(self, number: int, _: bytes, letter: bytes) -> None:
        answer = self._open.get(number)
        if answer is not None and not answer.done():
            answer.set_result(letter)

    def _gone(self) -> None:
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("gone"))


Asked = Callable[[bytes, bytes, Callable[[bytes], None]], None]
"""Head, letter, and where the answer's letter goes, at any later time and once."""


async def connect(name: str) -> Line | None:
    """A line to who listens under that name; None when nobody of this machine and user does."""
    if not offered() or not name:
        return None
    line = Line()
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: line.framed, path=name)
    except OSError:
        return None
    return None if line.closed else line


class Listener:
    """The answering side, of many connections."""

    def __init__(self, asked: Asked) -> None:
        self.name = ""
        """To connect to; "" where the system does not offer it."""
        self._asked = asked
        self._connections: set[_Framed] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """The name, once somebody can connect to it."""
        if offered():
            name = _new_name()
            self._server = await asyncio.get_running_loop().create_unix_server(self._accept, path=name)
            self.name = name
        return self.name

    def close(self) -> None:
        """Everybody who asks hears that nobody is there."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()

    def _accept(self) -> asyncio.Protocol:
        def heard(number: int, head: bytes, letter: bytes) -> None:
            self._asked(head, letter, lambda answer: framed.send(number, b"", answer))

        framed = _Framed(heard, lambda: self._connections.discard(framed))
        self._connections.add(framed)
        return framed


# ---------------------------------------------------------------- in a thread


class AnsweringThread:
    """Answers one question after the other, in a thread of its own: for who looks at pictures and nothing else."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        """`answer`: of a letter; never raises."""
        self._answer = answer
        self.name = _new_name() if offered() else ""
        if self.name:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(self.name)
            listener.listen(_WAITING_MAX)
            threading.Thread(target=self._run, args=(listener,), name="questions", daemon=True).start()

    def _run(self, listener: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    assert isinstance(key.fileobj, socket.socket)
                    if key.fileobj is not listener:
                        if not self._turn(key.fileobj):
                            ready.unregister(key.fileobj)
                            key.fileobj.close()
                        continue
                    line, _ = listener.accept()
                    line.settimeout(STALLED_S_MAX)
                    if _prepared(line):
                        ready.register(line, selectors.EVENT_READ)
                    else:
                        line.close()

    def _turn(self, line: socket.socket) -> bool:
        """One question. False when its asker is gone, or sends what is none."""
        try:
            number, head_bytes, letter_bytes = _FRAME.unpack(_read(line, _FRAME.size))
            if head_bytes + letter_bytes > MESSAGE_BYTES_MAX:
                return False
            _read(line, head_bytes)
            answer = self._answer(bytes(_read(line, letter_bytes)))
            line.sendall(_FRAME.pack(number, 0, len(answer)) + answer)
        except OSError:  # it went, or stopped in the middle
            return False
        return True


def _read(line: socket.socket, size: int) -> bytearray:
    """Raises ConnectionResetError when it ends before."""
    buffer = bytearray(size)
    with memoryview(buffer) as whole:
        at = 0
        while at < size:
            count = line.recv_into(whole[at:])
            if not count:
                raise ConnectionResetError("gone")
            at += count
    return buffer


# ---------------------------------------------------------------- both


def _new_name() -> str:
    return f"\0storeops-faces-{secrets.token_hex(16)}"


def _prepared(line: socket.socket) -> bool:
    """Whether the other side is a process of our user."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    if sys.platform != "linux":
        return False
    _, user, _ = _PEER.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if user != os.geteuid():
        log.warning("face_stream_refused", user=user)
    return bool(user == os.geteuid())
