"""Questions over a Unix stream: each answer to its asker, whatever goes meanwhile, and no stranger."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from runtime.face_stream import MESSAGE_BYTES_MAX, UNSENT_BYTES_MAX, AnsweringThread, Line, Listener, connect, offered

pytestmark = pytest.mark.skipif(not offered(), reason="abstract names are Linux's")

PICTURE = os.urandom(150_000)
STRANGER = """
import os, socket, sys
os.setuid(65534)
line = socket.socket(socket.AF_UNIX)
line.connect(chr(0) + sys.argv[1])
try:
    line.sendall(bytes.fromhex(sys.argv[2]))
    print(len(line.recv(1)))
except OSError:
    print(0)
"""


def backwards(letter: bytes) -> bytes:
    return letter[::-1]


def framed(letter: bytes) -> bytes:
    return struct.pack("<QII", 1, 0, len(letter)) + letter


async def opened(listener: Listener) -> Line:
    line = await connect(await listener.open())
    assert line is not None
    return line


async def ended(listener: Listener, *lines: Line) -> None:
    for line in lines:
        line.close()
    listener.close()
    for _ in range(3):  # transports close in the loop's next turns
        await asyncio.sleep(0)


def asked_by_nobody(name: str) -> int:
    """How much the process of another user is answered."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", STRANGER, name[1:], framed(b"who").hex()],
        stdout=subprocess.PIPE,
        check=True,
        timeout=20,
    )
    return int(done.stdout)


async def test_each_asker_hears_its_own_answer_whoever_is_answered_first() -> None:
    waiting: list[tuple[bytes, bytes, Callable[[bytes], None]]] = []

    def asked(head: bytes, letter: bytes, reply: Callable[[bytes], None]) -> None:
        waiting.append((head, letter, reply))
        if len(waiting) == 8:
            for head, letter, reply in reversed(waiting):
                reply(head + letter)

    listener = Listener(asked)
    first = await opened(listener)
    second = await connect(listener.name)
    assert second is not None
    both = [first, second]
    letters = [PICTURE[n:] for n in range(8)]
    answers = await asyncio.gather(*(both[n % 2].ask(b"%d" % n, letters[n]) for n in range(8)))
    assert answers == [b"%d" % n + letters[n] for n in range(8)]
    await ended(listener, *both)


async def test_a_thread_answers_one_after_the_other_and_outlives_those_who_go() -> None:
    thread = AnsweringThread(backwards)
    with (
        socket.socket(socket.AF_UNIX) as half,
        socket.socket(socket.AF_UNIX) as gone,
        socket.socket(socket.AF_UNIX) as huge,
    ):
        for one in (half, gone, huge):
            one.connect(thread.name)
        gone.sendall(framed(PICTURE))
        half.sendall(framed(PICTURE)[:1_000])
        huge.sendall(struct.pack("<QII", 1, 0, MESSAGE_BYTES_MAX + 1))
        for one in (half, gone):
            one.close()
        huge.settimeout(5)
        assert huge.recv(1) == b"", "no such message is waited for"
    line = await connect(thread.name)
    assert line is not None
    answers = await asyncio.gather(*(line.ask(b"", PICTURE[n:]) for n in range(4)))
    assert answers == [backwards(PICTURE[n:]) for n in range(4)]
    line.close()
    await asyncio.sleep(0)


async def test_who_waits_hears_that_the_other_side_is_gone() -> None:
    listener = Listener(lambda head, letter, reply: None)
    line = await opened(listener)
    waiting = asyncio.ensure_future(line.ask(b"", b"?"))
    for _ in range(3):  # until it has gone out
        await asyncio.sleep(0)
    listener.close()
    with pytest.raises(ConnectionError):
        await waiting
    with pytest.raises(ConnectionError):
        await line.ask(b"", b"?")
    assert await connect(listener.name) is None
    await ended(listener, line)


async def test_what_waits_for_who_does_not_read_is_bounded() -> None:
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind("\0storeops-faces-" + os.urandom(8).hex())
        frozen.listen()
        line = await connect(frozen.getsockname().decode())
        assert line is not None
        asked = [asyncio.ensure_future(line.ask(b"", PICTURE)) for _ in range(2 * UNSENT_BYTES_MAX // len(PICTURE))]
        await asyncio.sleep(0)
        refused = [one for one in asked if one.done()]
        assert len(asked) / 3 < len(refused) < len(asked)
        line.close()
        heard = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, ConnectionError) for one in heard)


async def test_nobody_listens_under_another_name() -> None:
    assert await connect("\0storeops-faces-nobody") is None
    assert await connect("") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_process_of_another_user_is_not_answered() -> None:
    listener = Listener(lambda head, letter, reply: reply(letter))
    await listener.open()
    thread = AnsweringThread(backwards)
    assert await asyncio.to_thread(asked_by_nobody, listener.name) == 0
    assert await asyncio.to_thread(asked_by_nobody, thread.name) == 0
    await ended(listener)
