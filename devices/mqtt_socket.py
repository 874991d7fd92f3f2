"""A socket for paho-mqtt that reads ahead, takes packets apart and writes in one call.

paho reads a packet in three or more calls of recv (one byte, the length byte by byte, the rest) and sends each packet
by a call of its own; between processes on one machine these calls are most of a message's cost. Here whole packets are
cut from what one call read: `MqttLink` takes the busy kinds itself, and paho sees the others one at a time. The
buffers are bounded by what MQTT bounds: Receive Maximum both ways times the packet size.
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
        self.ahead = b""
        """What was read and not yet taken begins at `at`."""
        self.at = 0
        self._for_paho = 0
        self._out = bytearray()
        self._dead = False
        self.paused = False

    def fill(self) -> bool:
        """Read what there is, one call; True when there may be more at once. The peer's end shows in `ended`."""
        try:
            data = self._sock.recv(READ_AHEAD_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            data = b""
        if not data:
            self._dead = True
            return False
        self.ahead = self.ahead[self.at :] + data if self.at < len(self.ahead) else data
        self.at = 0
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    @property
    def ended(self) -> bool:
        """True when nothing will be read any more: paho's next read says so."""
        return self._dead

    def give_to_paho(self, end: int) -> None:
        """Let paho read up to there, and see a socket without data after it."""
        self._for_paho = end

    def recv(self, buffer_size: int) -> bytes:
        """For paho, as socket.recv; raises BlockingIOError when nothing was given to it."""
        if self._dead:
            return b""
        if self.at >= self._for_paho:
            raise BlockingIOError
        piece = self.ahead[self.at : min(self.at + buffer_size, self._for_paho)]
        self.at += len(piece)
        return piece

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
        return len(self.ahead) - self.at
