"""One battery for every broker we can start: each declared capability is there, each other one is missing."""

from __future__ import annotations

import base64
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from models.domain.errors import NeedsOperator
from runtime import mqtt_probe
from runtime.broker import CAPABILITIES, BrokerInfo, EmbeddedBroker, ExternalBroker, open_broker, parse_url
from runtime.broker_mosquitto import find_program, password_line
from runtime.datadir import open_data_dir
from runtime.ports import free_port
from runtime.processes import wait_ended
from runtime.settings import Broker as BrokerSettings
from tests.conftest import running_broker

pytestmark = pytest.mark.integration
WAIT_S = 30.0
QUIET_S = 0.4


def _properties(packet: int) -> Any:
    return Properties(packet)  # type: ignore[no-untyped-call]


class Client:
    """A paho MQTT 5 client whose events are queues."""

    def __init__(self, info: BrokerInfo, client_id: str, *, user: str | None = None, secret: str | None = None,
                 clean: bool = True, keepalive_s: int = 30, manual_ack: bool = False,
                 will: tuple[str, int] | None = None, **connect: Any) -> None:  # fmt: skip
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.connected: queue.Queue[tuple[int, bool]] = queue.Queue()
        self.disconnected: queue.Queue[int] = queue.Queue()
        self.acknowledged: queue.Queue[int] = queue.Queue()
        self._subscribed: queue.Queue[list[int]] = queue.Queue()
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=manual_ack,
            reconnect_on_failure=False,
        )  # fmt: skip
        self.paho.username_pw_set(user or info.username, secret or info.password)
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_connect = lambda _c, _u, flags, code, _p: self.connected.put((code.value, flags.session_present))
        self.paho.on_disconnect = lambda _c, _u, _f, code, _p: self.disconnected.put(code.value)
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self._subscribed.put([c.value for c in codes])
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self.acknowledged.put(code.value)
        properties = _properties(PacketTypes.CONNECT)
        for name, value in connect.items():
            setattr(properties, name, value)
        if will is not None:
            will_properties = _properties(PacketTypes.WILLMESSAGE)
            will_properties.WillDelayInterval = will[1]
            self.paho.will_set(will[0], b"dead", qos=1, properties=will_properties)
        self.paho.connect(info.host, info.port, keepalive_s, clean_start=clean, properties=properties)
        self.paho.loop_start()

    def welcome(self) -> bool:
        """Waits for the CONNACK; True when the broker kept a session."""
        code, session_present = self.connected.get(timeout=WAIT_S)
        assert code == 0
        return session_present

    def subscribe(self, topic: str) -> None:
        assert self.ask_for(topic) == [1]

    def ask_for(self, topic: str) -> list[int]:
        """Subscribes at QoS 1 and returns the reason codes of the SUBACK: from then on it counts."""
        self.paho.subscribe(topic, qos=1)
        return self._subscribed.get(timeout=WAIT_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **properties: Any) -> int:
        """Publishes at QoS 1 and returns the reason code of the PUBACK."""
        values = _properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(values, name, value)
        self.paho.publish(topic, payload, qos=1, retain=retain, properties=values)
        return self.acknowledged.get(timeout=WAIT_S)

    def received(self, timeout_s: float = WAIT_S) -> bytes:
        return bytes(self.messages.get(timeout=timeout_s).payload)

    def quiet(self) -> bool:
        try:
            self.messages.get(timeout=QUIET_S)
        except queue.Empty:
            return True
        return False

    def break_off(self) -> None:
        """The cable is pulled: no DISCONNECT."""
        connection = self.paho.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)
        self.disconnected.get(timeout=WAIT_S)
        self.paho.loop_stop()

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@contextmanager
def client(info: BrokerInfo, client_id: str, **options: Any) -> Iterator[Client]:
    one = Client(info, client_id, **options)
    try:
        yield one
    finally:
        one.close()


def let_pass(seconds: float) -> None:
    """For promises about the broker's own wall clock, which no test can move."""
    threading.Event().wait(seconds)


@pytest.fixture(params=["mosquitto", "iotcore"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedBroker]:
    kind: Literal["mosquitto", "iotcore"] = request.param
    if kind == "mosquitto" and find_program() is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    with running_broker(kind, {"t-1": "first-secret", "t-2": "second-secret"}) as broker:
        yield broker


def test_a_message_arrives_as_it_was_sent(server: EmbeddedBroker) -> None:
    topic, body = "so/1/r/00/s/t-1/up/face", os.urandom(192 * 1024)
    with (
        client(server.info, "host") as host,
        client(server.info, "t-1", user="t-1", secret="first-secret") as terminal,
    ):
        host.welcome()
        terminal.welcome()
        host.subscribe("so/1/r/00/#")
        code = terminal.publish(
            topic, body, CorrelationData=b"0197", ContentType="image/jpeg", MessageExpiryInterval=10,
            ResponseTopic="so/1/r/00/s/t-1/up/response", UserProperty=[("boot", "b"), ("seq", "17")],
        )  # fmt: skip
        message = host.messages.get(timeout=WAIT_S)
        assert code == 0
        assert (message.topic, message.payload, message.qos) == (topic, body, 1)
        sent: Any = message.properties
        assert sent.ContentType == "image/jpeg"
        assert sent.UserProperty == [("boot", "b"), ("seq", "17")]
        assert sent.CorrelationData == b"0197"
        assert sent.ResponseTopic == "so/1/r/00/s/t-1/up/response"


def test_retained_documents_and_offline_sessions_wait_for_their_terminal(server: EmbeddedBroker) -> None:
    with client(server.info, "host") as host:
        host.welcome()
        host.publish("so/1/r/00/s/t-1/down/desired", b"gen 1", retain=True)
        options: dict[str, Any] = {
            "clean": False,
            "user": "t-1",
            "secret": "first-secret",
            "SessionExpiryInterval": 600,
        }
        with client(server.info, "t-1", **options) as terminal:
            assert terminal.welcome() is False
            terminal.subscribe("so/1/r/00/s/t-1/down/#")
            assert terminal.received() == b"gen 1"
        for number in range(50):
            host.publish("so/1/r/00/s/t-1/down/screen", f"{number}".encode())
        host.publish("so/1/r/00/s/t-1/down/command", b"stale", MessageExpiryInterval=1)
        let_pass(2.1)
        with client(server.info, "t-1", **options) as terminal:
            assert terminal.welcome() is True
            assert [terminal.received() for _ in range(50)] == [f"{number}".encode() for number in range(50)]
            assert terminal.quiet(), "a command outlived its expiry"


def test_only_who_knows_the_secret_gets_in(server: EmbeddedBroker) -> None:
    info = server.info
    declared = info.capabilities.refusal_reason
    for user, secret in [("t-1", "wrong"), ("nobody", "first-secret"), (None, None)]:
        reason = mqtt_probe.login(info.host, info.port, user, secret)
        assert (reason is not None and reason >= 0x80) if declared else reason is None
    assert mqtt_probe.login(info.host, info.port, "t-1", "first-secret") == mqtt_probe.SUCCESS


def test_the_port_is_on_the_loopback_alone(server: EmbeddedBroker) -> None:
    assert server.pid is not None
    listening = [c.laddr.ip for c in psutil.Process(server.pid).net_connections("inet") if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_a_packet_above_256_kib_ends_the_connection(server: EmbeddedBroker) -> None:
    with client(server.info, "t-1", user="t-1", secret="first-secret") as terminal, client(server.info, "h") as host:
        terminal.welcome()
        host.welcome()
        host.subscribe("so/#")
        terminal.publish("so/1/r/00/s/t-1/up/face", b"x" * 250_000)
        assert len(host.received()) == 250_000
        terminal.paho.publish("so/1/r/00/s/t-1/up/face", b"x" * 300_000, qos=1)
        assert terminal.disconnected.get(timeout=WAIT_S) != 0
        assert host.quiet()


def test_users_added_later_get_in_and_nobody_is_thrown_out(server: EmbeddedBroker) -> None:
    with client(server.info, "host") as host:
        host.welcome()
        before = server.pid
        server.add_user("t-3", "third-secret")
        assert mqtt_probe.login(server.info.host, server.info.port, "t-3", "third-secret") == mqtt_probe.SUCCESS
        server.add_user("t-3", "rotated")
        assert mqtt_probe.login(server.info.host, server.info.port, "t-3", "rotated") == mqtt_probe.SUCCESS
        assert (server.pid == before) is server.info.capabilities.reloads_users
        if server.info.capabilities.reloads_users:
            host.subscribe("so/#")
            host.publish("so/1/x", b"still here")
            assert host.received() == b"still here"
            assert host.disconnected.empty()
        else:
            host.disconnected.get(timeout=WAIT_S)


def test_a_removed_user_is_refused(server: EmbeddedBroker) -> None:
    server.remove_users({"t-2"})
    info = server.info
    deadline = threading.Event()
    for _ in range(200):
        if mqtt_probe.login(info.host, info.port, "t-2", "second-secret") != mqtt_probe.SUCCESS:
            break
        deadline.wait(0.02)
    else:
        pytest.fail("t-2 still gets in")
    assert mqtt_probe.login(info.host, info.port, "t-1", "first-secret") == mqtt_probe.SUCCESS


def test_a_terminal_reaches_its_own_topics_alone(server: EmbeddedBroker) -> None:
    with (
        client(server.info, "host") as host,
        client(server.info, "t-1", user="t-1", secret="first-secret") as terminal,
    ):
        host.welcome()
        terminal.welcome()
        host.subscribe("so/#")
        refused = [
            terminal.publish(topic, b"forged")
            for topic in ["so/1/r/00/s/t-2/up/event", "so/1/r/00/s/t-1/down/reply", "elsewhere"]
        ]
        terminal.publish("so/1/r/00/s/t-1/up/event", b"own")
        terminal.subscribe("so/1/r/00/s/+/down/#")
        declared = server.info.capabilities.acl
        assert all(code >= 0x80 for code in refused) is declared
        assert host.received() == (b"own" if declared else b"forged")
        host.publish("so/1/r/00/s/t-2/down/reply", b"for t-2")
        host.publish("so/1/r/00/s/t-1/down/reply", b"for t-1")
        assert terminal.received() == (b"for t-1" if declared else b"for t-2")


def test_receive_maximum(server: EmbeddedBroker) -> None:
    with (
        client(server.info, "slow", manual_ack=True, ReceiveMaximum=3) as slow,
        client(server.info, "host") as host,
    ):
        slow.welcome()
        host.welcome()
        slow.subscribe("so/1/burst")
        for number in range(10):
            host.publish("so/1/burst", f"{number}".encode())
        got = [slow.messages.get(timeout=WAIT_S) for _ in range(3)]
        assert slow.quiet() is server.info.capabilities.receive_maximum
        if server.info.capabilities.receive_maximum:
            slow.paho.ack(got[0].mid, got[0].qos)
            assert slow.received() == b"3"


def test_session_expiry(server: EmbeddedBroker) -> None:
    with client(server.info, "gone", clean=False, SessionExpiryInterval=1) as gone:
        gone.welcome()
        gone.subscribe("so/1/x")
    let_pass(3.0)
    with client(server.info, "gone", clean=False, SessionExpiryInterval=1) as gone:
        assert gone.welcome() is not server.info.capabilities.session_expiry


def test_will_delay(server: EmbeddedBroker) -> None:
    with client(server.info, "host") as host:
        host.welcome()
        host.subscribe("so/1/will")
        dying = Client(server.info, "dying", will=("so/1/will", 2), SessionExpiryInterval=60)
        dying.welcome()
        dying.break_off()
        assert host.quiet() is server.info.capabilities.will_delay
        assert host.received() == b"dead"


def test_orderly_restart(server: EmbeddedBroker) -> None:
    with client(server.info, "host") as host:
        host.welcome()
        host.publish("so/1/desired", b"gen 1", retain=True)
    with client(server.info, "kept", clean=False, SessionExpiryInterval=600) as kept:
        kept.welcome()
        kept.subscribe("so/1/kept")
    port = server.info.port
    assert server.stop()
    assert not server.running
    assert server.start().port == port
    with client(server.info, "kept", clean=False, SessionExpiryInterval=600) as kept:
        assert kept.welcome() is server.info.capabilities.survives_restart
        kept.subscribe("so/1/desired")
        assert kept.quiet() is not server.info.capabilities.survives_restart


def test_killed_it_starts_again_on_its_port_with_its_users(server: EmbeddedBroker) -> None:
    info, pid = server.info, server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # A broker of several threads is a zombie before all of them have ended, and only then is its end to be collected.
    deadline = time.monotonic() + WAIT_S
    while server.running:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert server.start() == info
    assert server.pid != pid
    assert mqtt_probe.login(info.host, info.port, "t-1", "first-secret") == mqtt_probe.SUCCESS


def test_keepalive_off(server: EmbeddedBroker) -> None:
    with client(server.info, "brisk", keepalive_s=1) as brisk:
        brisk.welcome()
    with client(server.info, "idle", keepalive_s=0) as idle:
        if server.info.capabilities.keepalive_off:
            idle.welcome()
        else:
            assert idle.disconnected.get(timeout=WAIT_S) != 0
            assert idle.connected.empty()


def test_secrets_are_private_and_hashed(server: EmbeddedBroker) -> None:
    assert server.pid is not None
    data = Path(server.log_path).parent.parent
    kept = [path for path in (data / "broker").iterdir() if path.is_file()]
    assert kept
    assert {path.stat().st_mode & 0o777 for path in kept} <= {0o600}
    assert (data / "broker").stat().st_mode & 0o777 == 0o700
    in_clear = any(b"first-secret" in path.read_bytes() for path in kept)
    assert in_clear is (server.info.kind == "iotcore")
    assert str(server.info.password) not in repr(server.info)


@pytest.mark.parametrize("kind", ["mosquitto", "iotcore"])
def test_no_broker_outlives_a_killed_parent(kind: str, data_dir: Path) -> None:
    if kind == "mosquitto" and find_program() is None:
        pytest.skip("mosquitto is not installed")
    script = (
        "import sys, pathlib, signal; from runtime.broker import EmbeddedBroker\n"
        "b = EmbeddedBroker(pathlib.Path(sys.argv[1]), sys.argv[2]); b.start()\n"
        "print(b.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir), kind], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert wait_ended([child], WAIT_S)


def test_a_broker_by_url_is_checked_and_passed_through(server: EmbeddedBroker) -> None:
    external = ExternalBroker(server.info.url)
    info = external.start()
    assert (info.kind, info.host, info.port, info.username) == ("url", "127.0.0.1", server.info.port, "storeops-host")
    assert external.add_users({"t-9": "x"}) is False
    with pytest.raises(NeedsOperator) as refused:
        ExternalBroker(f"mqtt://storeops-host:no@127.0.0.1:{server.info.port}").start()
    assert refused.value.code == "broker_refused"
    with pytest.raises(NeedsOperator) as away:
        ExternalBroker(f"mqtt://127.0.0.1:{free_port()}").start()
    assert away.value.code == "broker_unreachable"


def test_urls() -> None:
    info = parse_url("mqtts://u%40x:p%3A@broker.example")
    assert (info.host, info.port, info.username, info.password, info.tls) == ("broker.example", 8883, "u@x", "p:", True)
    assert parse_url(info.url) == info
    for wrong in ["http://x", "mqtt://", "mqtt://h:99999"]:
        with pytest.raises(NeedsOperator):
            parse_url(wrong)


def test_settings_choose_the_broker(data_dir: Path) -> None:
    data = open_data_dir(data_dir)
    assert isinstance(open_broker(data, BrokerSettings(kind="url", url="mqtt://h")), ExternalBroker)
    assert isinstance(open_broker(data, BrokerSettings(kind="iotcore")), EmbeddedBroker)
    assert set(CAPABILITIES) == {"mosquitto", "iotcore", "url"}
    assert not CAPABILITIES["iotcore"].production


def test_a_name_cannot_write_another_line(data_dir: Path) -> None:
    broker = EmbeddedBroker(data_dir, "iotcore")
    for name in ["a:b", "a\nroot", "", "A", "x" * 49, "#"]:
        with pytest.raises(NeedsOperator):
            broker.add_user(name, "s")


def test_password_lines_are_what_mosquitto_passwd_writes() -> None:
    # `mosquitto_passwd -b -c FILE x y` of 2.0.11 wrote exactly this line.
    digest = "as2f2++UXlmupt+dAtNw3YEIXHbU5pOw8xRnbqjV1BfblxIw8SIudI/uUAAb/WuWnSMu/SnT+qWtySHb8H2nlw=="
    expected = f"x:$7$101$B03o60Oh5lNgciB4${digest}"
    assert password_line("x", "y", base64.b64decode("B03o60Oh5lNgciB4")) == expected
