"""One MQTT 5 handshake by hand: is this broker there, does it let this user in?

A CONNECT and its CONNACK (OASIS MQTT 5.0, 3.1 and 3.2) need no client library, no thread and no loop.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import struct
from contextlib import ExitStack

SUCCESS = 0x00
CONNACK_BYTES_MAX = 4096


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("!H", len(data)) + data


def _variable_length(length: int) -> bytes:
    out = bytearray()
    while True:
        length, low = divmod(length, 128)
        out.append(low | (0x80 if length else 0))
        if not length:
            return bytes(out)


def connect_packet(client_id: str, username: str | None, password: str | None, keepalive_s: int = 10) -> bytes:
    """A CONNECT with clean start, no will and no properties."""
    flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = _text("MQTT") + bytes([5, flags]) + struct.pack("!H", keepalive_s) + b"\x00" + _text(client_id)
    body += b"".join(_text(value) for value in (username, password) if value is not None)
    return b"\x10" + _variable_length(len(body)) + body


def login(
    host: str,
    port: int,
    username: str | None,
    password: str | None,
    timeout_s: float = 2.0,
    tls: ssl.SSLContext | None = None,
    client_id: str | None = None,
) -> int | None:
    """The broker's reason code (0 = welcome, >= 0x80 = refused), or None when it closed without one.

    A `client_id` that is connected is thrown out: a session has one connection. Raises OSError when nobody answers
    there, or what answers does not speak MQTT.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((host, port), timeout=timeout_s))
        if tls is not None:
            connection = stack.enter_context(tls.wrap_socket(connection, server_hostname=host))
        connection.settimeout(timeout_s)
        connection.sendall(connect_packet(client_id or f"probe-{secrets.token_hex(6)}", username, password))
        received = b""
        while len(received) < 4:
            try:
                part = connection.recv(CONNACK_BYTES_MAX)
            except ConnectionResetError:
                part = b""
            if not part:
                if received:
                    break
                return None
            received += part
        if len(received) < 4 or received[0] != 0x20:
            raise OSError(f"{host}:{port} does not speak MQTT")
        start = 2
        while received[start - 1] & 0x80 and start < len(received) - 2:  # remaining length of several bytes
            start += 1
        connection.sendall(b"\xe0\x00")  # DISCONNECT, so that no will and no session stays
        return received[start + 1]
