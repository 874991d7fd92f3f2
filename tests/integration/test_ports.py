"""Ports that several houses on one machine want at the same time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from runtime.ports import LOOPBACK, accepts, free_port, is_free, listens, preferred_or_free

LISTENER = """
import socket, sys
one = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
"""


CLAIMER = """
import sys
from runtime.ports import preferred_or_free
print(preferred_or_free(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_a_port_that_another_house_chose_is_not_chosen_before_its_server_listens() -> None:
    wanted = free_port()
    with subprocess.Popen(
        (sys.executable, "-c", CLAIMER, str(wanted)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert int(other.stdout.readline()) == wanted
        assert is_free(wanted), "nobody listens there yet"
        assert preferred_or_free(wanted) == wanted + 1
        other.kill()
    assert preferred_or_free(wanted) == wanted
    assert preferred_or_free(wanted) == wanted, "asked again it stays ours"


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
