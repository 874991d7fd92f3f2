"""A socket for paho-mqtt that reads ahead and writes in one call.

paho reads a packet in three or more calls of recv (one byte, the length byte by byte, the rest) and sends each packet
by a call of its own; between processes on one machine these calls are most of a message's cost. The buffers are
bounded by what MQTT bounds: Receive Maximum both ways times the packet size.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

READ_AHEAD_BYTES = 64 * 1024


class BufferedSocket:
    """The part of a socket's interface that paho uses, over a connected non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ahead = b""
        self._at = 0
        self._out = bytearray()
        self._dead = False
        self.paused = False
        """While True, paho sees a socket without data."""

    def recv(self, buffer_size: int) -> bytes:
        """As socket.recv; raises BlockingIOError when there is nothing, or while paused."""
        if self._dead:
            return b""
        if self.paused:
            raise BlockingIOError
        if self._at >= len(self._ahead):
            self._ahead = self._sock.recv(READ_AHEAD_BYTES)
            self._at = 0
        piece = self._ahead[self._at : self._at + buffer_size]
        self._at += len(piece)
        return piece

    @property
    def readable(self) -> bool:
        """True when data waits here, where the event loop cannot see it."""
        if self._dead or self.paused:
            return False
        if self._at < len(self._ahead):
            return True
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def send(self, buffer: bytes | bytearray) -> int:
        """Take all of it; flush() sends."""
        self._out += buffer
        return len(buffer)

    def flush(self) -> bool:
        """Send what was taken. True when all is out, False when the socket is full. Raises OSError when broken."""
        try:
            while self._out and not self._dead:
                sent = self._sock.send(self._out)
                del self._out[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return False
        return True

    def kill(self) -> None:
        """Be cut off: nothing more goes out, and the next read says that the peer has gone."""
        self._dead = True
        self._out.clear()

    def close(self) -> None:
        """Send the rest if the socket takes it at once, and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self._sock.close()

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """As socket.setblocking."""
        self._sock.setblocking(flag)

    def pending(self) -> int:
        """Bytes read ahead; part of paho's interface."""
        return len(self._ahead) - self._at
