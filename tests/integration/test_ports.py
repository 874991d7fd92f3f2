"""Ports that several houses on one machine want at the same time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from runtime.ports import LOOPBACK, accepts, free_port, hold_port, is_free, listens

LISTENER = """
import socket, sys
one = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_held_port_is_nobody_elses_until_it_is_let_go() -> None:
    wanted = free_port()
    port, held = hold_port(wanted)
    with held:
        assert port == wanted
        assert not is_free(port)
        other, second = hold_port(wanted)
        second.close()
        assert other > port
    assert is_free(port)


@pytest.mark.integration
def test_a_stranger_on_the_port_does_not_pass_for_our_process() -> None:
    port = free_port()
    with subprocess.Popen(
        (sys.executable, "-c", LISTENER, str(port)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"ready\n"
        assert accepts(port)
        assert listens(stranger.pid, port)
        assert not listens(os.getpid(), port)
        stranger.kill()
    assert not listens(stranger.pid, port)


def test_who_only_bound_does_not_listen() -> None:
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        port = bound.getsockname()[1]
        assert not listens(os.getpid(), port)
        bound.listen()
        assert listens(os.getpid(), port)
