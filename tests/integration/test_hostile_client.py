"""A hostile client with the secret of one terminal, at every broker that we can start.

What a broker declares it must hold; what it does not declare is asserted as missing, so that nobody relies on it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Literal

import pytest

from runtime import mqtt_probe
from runtime.broker import EmbeddedBroker
from runtime.broker_mosquitto import find_program
from tests.conftest import running_broker
from tests.integration.test_broker import WAIT_S, Client, client

pytestmark = pytest.mark.integration
OWN, OTHERS = "so/1/r/00/s/t-1", "so/1/r/00/s/t-2"
CONNECT = mqtt_probe.connect_packet("t-1", "t-1", "first-secret")
NOISE = {
    "another protocol": b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
    "a length without an end": b"\x10" + b"\xff" * 64,
    "a CONNECT that is cut off": CONNECT[:20],
    "a packet before CONNECT": b"\x30\x07\x00\x01ax\x00\x00\x00",
    "CONNECT twice": CONNECT + CONNECT,
    "a topic that is no UTF-8": CONNECT + b"\x30\x06\x00\x02\xff\xfe\x00x",
}


@pytest.fixture(scope="module", params=["mosquitto", "iotcore"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedBroker]:
    kind: Literal["mosquitto", "iotcore"] = request.param
    if kind == "mosquitto" and find_program() is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    with running_broker(kind, {"t-1": "first-secret", "t-2": "second-secret"}) as broker:
        yield broker


@pytest.fixture
def host(server: EmbeddedBroker) -> Iterator[Client]:
    with client(server.info, "host") as one:
        one.welcome()
        one.subscribe("so/1/r/00/#")
        yield one


@pytest.fixture
def hostile(server: EmbeddedBroker) -> Iterator[Client]:
    with client(server.info, "t-1", user="t-1", secret="first-secret") as one:
        one.welcome()
        yield one


def test_another_terminals_words_reach_a_host_only_where_there_is_no_list(
    server: EmbeddedBroker, host: Client, hostile: Client
) -> None:
    hostile.publish(f"{OTHERS}/up/event", b"a sale of another till")
    hostile.publish(f"{OWN}/up/event", b"its own")
    heard = [host.received()]
    if not server.info.capabilities.acl:
        heard.append(host.received())
    missing = [] if server.info.capabilities.acl else [b"a sale of another till"]
    assert heard == [*missing, b"its own"]


def test_what_is_meant_for_another_is_heard_only_where_there_is_no_list(
    server: EmbeddedBroker, host: Client, hostile: Client
) -> None:
    for everything in ("#", f"{OTHERS}/down/#"):
        hostile.ask_for(everything)  # refused or not, it is answered
    host.publish(f"{OTHERS}/down/reply", b"a customer's name")
    assert hostile.quiet() is server.info.capabilities.acl


def test_a_command_in_the_servers_name_reaches_a_terminal_only_where_there_is_no_list(
    server: EmbeddedBroker, hostile: Client
) -> None:
    with client(server.info, "t-2", user="t-2", secret="second-secret") as victim:
        victim.welcome()
        victim.subscribe(f"{OTHERS}/down/#")
        hostile.publish(f"{OTHERS}/down/command", b"reboot")
        assert victim.quiet() is server.info.capabilities.acl


def test_a_death_in_another_terminals_name_is_told_only_where_there_is_no_list(
    server: EmbeddedBroker, host: Client
) -> None:
    will = (f"{OTHERS}/up/presence", 0)
    with client(server.info, "t-1.helper", user="t-1", secret="first-secret", will=will) as dying:
        dying.welcome()
        dying.break_off()
        assert host.quiet() is server.info.capabilities.acl


@pytest.mark.parametrize("what", NOISE)
def test_noise_ends_its_own_connection_and_nobody_elses(server: EmbeddedBroker, host: Client, what: str) -> None:
    info = server.info
    with socket.create_connection((info.host, info.port), timeout=WAIT_S) as noisy:
        noisy.sendall(NOISE[what])
    with client(info, "t-2", user="t-2", secret="second-secret") as other:
        other.welcome()
        assert other.publish(f"{OTHERS}/up/event", what.encode()) == 0
    assert host.received() == what.encode()
    assert server.running


def test_connections_that_say_nothing_keep_nobody_out(server: EmbeddedBroker, host: Client) -> None:
    info = server.info
    silent = [socket.create_connection((info.host, info.port), timeout=WAIT_S) for _ in range(50)]
    try:
        assert mqtt_probe.login(info.host, info.port, "t-2", "second-secret", WAIT_S) == mqtt_probe.SUCCESS
    finally:
        for one in silent:
            one.close()
    assert host.publish(f"{OWN}/down/reply", b"still here") == 0
