"""A hostile client at the real mosquitto: by TLS and in clear, with other people's certificates and topics."""

from __future__ import annotations

import queue
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.credentials import make_csr
from devices.topics import parse
from models.domain.errors import NeedsOperator
from runtime import mqtt_probe
from runtime.authority import Authority
from runtime.broker import BrokerInfo, EmbeddedBroker, ExternalBroker, TerminalDoor, set_access
from runtime.broker_mosquitto import acl_text, find_program
from runtime.conformance import link_to
from runtime.datadir import open_data_dir
from runtime.deploy import deployed_config
from runtime.doctor import doctor
from runtime.settings import Broker as BrokerSettings
from runtime.settings import load_settings
from tests.conftest import scratch_data_dir

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_program() is None, reason="needs mosquitto: apt-get install mosquitto"),
]
WAIT_S = 30.0
QUIET_S = 0.3
NOT_AUTHORIZED = 0x87
MINE, OTHERS = "so/1/south/00/s1/t-1", "so/1/south/00/s1/t-2"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Site:
    """One mosquitto with both TLS listeners, and whoever signs for it."""

    broker: EmbeddedBroker
    folder: Path
    authority: Authority
    foreign: Authority

    @property
    def door(self) -> TerminalDoor:
        return self.broker.door

    def certificate(self, terminal: str, authority: Authority | None = None, lasts_s: int = 600) -> tuple[Path, str]:
        """A file with certificate and key for the terminal; and the serial."""
        key, csr = make_csr("whatever they say")
        signs = authority or self.authority
        issued = signs.sign_terminal(terminal, csr, datetime.now(UTC), timedelta(seconds=lasts_s))
        path = self.folder / f"{issued.serial}.pem"
        path.write_text(issued.pem + key)
        return path, issued.serial

    def context(self, certificate: Path | None = None, authority: Authority | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=(authority or self.authority).certificate_pem)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def client(self, client_id: str, port: int, tls: ssl.SSLContext | None, user: str, secret: str | None) -> Client:
        return Client(self.door.host, client_id, port, tls, user, secret)


class Client:
    """An MQTT 5 client that tells everything that it hears."""

    def __init__(
        self, host: str, client_id: str, port: int, tls: ssl.SSLContext | None, user: str, secret: str | None
    ) -> None:
        self.heard: queue.Queue[str] = queue.Queue()
        self._answers: queue.Queue[int] = queue.Queue()
        self.gone: queue.Queue[int] = queue.Queue()
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        self.paho.username_pw_set(user, secret)
        if tls is not None:
            self.paho.tls_set_context(tls)
        self.paho.on_connect = lambda _c, _u, _f, code, _p: self._answers.put(code.value)
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self._answers.put(code.value)
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self._answers.put(codes[0].value)
        self.paho.on_message = lambda _c, _u, message: self.heard.put(message.topic)
        self.paho.on_disconnect = lambda _c, _u, _f, code, _p: self.gone.put(code.value)
        self.paho.connect(host, port, 30)
        self.paho.loop_start()

    def answer(self) -> int:
        """The next CONNACK, PUBACK or SUBACK."""
        return self._answers.get(timeout=WAIT_S)

    def publish(self, topic: str, *, retain: bool = False) -> int:
        self.paho.publish(topic, b"{}", 1, retain)
        return self.answer()

    def subscribe(self, topic: str) -> int:
        self.paho.subscribe(topic, 1)
        return self.answer()

    def hears_nothing(self) -> bool:
        try:
            self.heard.get(timeout=QUIET_S)
        except queue.Empty:
            return True
        return False

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with scratch_data_dir() as folder, scratch_data_dir() as theirs, scratch_data_dir() as own:
        settings = BrokerSettings(kind="mosquitto", tls=True, tls_port=0, certificates_port=0)
        broker = EmbeddedBroker(folder, "mosquitto", tls=settings)
        broker.add_users({"t-1": "secret-1", "t-2": "secret-2"})
        try:
            broker.start()
            yield Site(broker, own, Authority(open_data_dir(folder)), Authority(open_data_dir(theirs)))
        finally:
            broker.stop()


@pytest.fixture
def host(site: Site) -> Iterator[Client]:
    info = site.broker.info
    client = site.client("host", info.port, None, info.username or "", info.password)
    assert client.answer() == 0
    yield client
    client.close()


def refusal(site: Site, certificate: Path | None, authority: Authority | None = None) -> str:
    """Why the listener for certificates ends a handshake; TLS 1.3 says so at the first read."""
    context = site.context(certificate, authority)
    with socket.create_connection((site.door.host, site.door.certificates_port), timeout=WAIT_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=site.door.host) as connection:
                connection.settimeout(QUIET_S)  # to write first would race with the broker's close
                try:
                    return "closed" if connection.recv(64) == b"" else "?"
                except TimeoutError:
                    return "let in"
        except ssl.SSLError as error:
            return str(error)
        except ConnectionResetError:
            return "reset"


def test_a_secret_opens_the_door_by_tls_and_a_wrong_one_does_not(site: Site) -> None:
    context, door = site.context(), site.door
    assert mqtt_probe.login(door.host, door.port, "t-1", "secret-1", tls=context) == mqtt_probe.SUCCESS
    assert mqtt_probe.login(door.host, door.port, "t-1", "secret-2", tls=context) == NOT_AUTHORIZED
    assert mqtt_probe.login(door.host, door.port, None, None, tls=context) == NOT_AUTHORIZED


def test_a_client_with_another_authority_does_not_go_on(site: Site) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed|self signed"):
        mqtt_probe.login(site.door.host, site.door.port, "t-1", "secret-1", tls=site.context(None, site.foreign))


def test_plain_text_at_the_tls_port_gets_no_answer(site: Site) -> None:
    try:
        reason = mqtt_probe.login(site.door.host, site.door.port, "t-1", "secret-1", 2.0)
    except OSError:
        reason = None
    assert reason is None


def test_certificates_that_are_refused_and_why(site: Site) -> None:
    right, _ = site.certificate("t-1")
    assert refusal(site, right) == "let in"
    assert "UNKNOWN_CA" in refusal(site, site.certificate("t-1", site.foreign)[0])
    assert "EXPIRED" in refusal(site, site.certificate("t-1", lasts_s=-60)[0])
    assert "CERTIFICATE_REQUIRED" in refusal(site, None)


def test_a_certificate_says_who_its_bearer_is(site: Site, host: Client) -> None:
    """The certificate's name counts, not the user name; with it other people's topics stay closed."""
    path, _ = site.certificate("t-1")
    client = site.client("t-1", site.door.certificates_port, site.context(path), "t-2", "secret-2")
    assert client.answer() == 0
    assert client.publish(f"{MINE}/up/event") == 0x10, "its own, nobody listens"
    assert client.publish(f"{OTHERS}/up/event") == NOT_AUTHORIZED
    client.close()


def test_the_access_list_against_a_hostile_client(site: Site, host: Client) -> None:
    """mosquitto 2.0 grants every SUBSCRIBE and keeps silent: what may not be read is not delivered."""
    assert host.subscribe("so/#") == 1
    client = site.client("t-1", site.door.port, site.context(), "t-1", "secret-1")
    assert client.answer() == 0
    for topic in (f"{OTHERS}/up/event", f"{OTHERS}/down/reply", f"{MINE}/down/reply", "$SYS/broker/x", "elsewhere"):
        assert client.publish(topic) == NOT_AUTHORIZED, topic
    assert client.publish(f"{OTHERS}/down/desired", retain=True) == NOT_AUTHORIZED
    assert client.publish("so/1/south/00/s1/t-1/sideways/event") == NOT_AUTHORIZED
    assert host.hears_nothing(), "nothing of that came through"
    for topic in (f"{OTHERS}/down/#", f"{OTHERS}/up/#", "so/1/+/+/+/+/down/#", "$SYS/#", "#", f"{MINE}/up/#"):
        client.subscribe(topic)
    assert host.publish(f"{OTHERS}/down/reply") in {0, 0x10}
    assert host.publish(f"{MINE}/up/event") in {0, 0x10}
    assert client.hears_nothing(), "granted, and silent"
    assert host.publish(f"{MINE}/down/reply") in {0, 0x10}
    assert client.heard.get(timeout=WAIT_S) == f"{MINE}/down/reply"
    client.close()


def test_a_revoked_certificate_is_refused_and_a_connection_that_is_there_is_mute(site: Site, host: Client) -> None:
    path, serial = site.certificate("t-1")
    client = site.client("t-1.helper", site.door.certificates_port, site.context(path), "", None)
    assert client.answer() == 0
    now = datetime.now(UTC)
    data = open_data_dir(Path(str(site.broker.log_path)).parents[1])
    assert set_access(data, {}, ["t-1"], site.authority.revocations({serial: now}, now))
    for _ in range(100):
        if client.publish(f"{MINE}/up/event") == NOT_AUTHORIZED:
            break
    else:
        pytest.fail("it may still publish")
    why = refusal(site, path)
    assert "REVOKED" in why.upper(), why
    client.close()
    assert set_access(data, {}, [], site.authority.revocations({serial: now}, now))


def test_hosts_connect_by_an_mqtts_url_with_the_authority(site: Site) -> None:
    info, door = site.broker.info, site.door
    ca = site.folder / "ca.pem"
    ca.write_text(site.authority.certificate_pem)
    url = BrokerInfo("url", door.host, door.port, info.username, info.password, tls=True).url
    assert ExternalBroker(url, ca).running
    ca.write_text(site.foreign.certificate_pem)
    assert not ExternalBroker(url, ca).running


def test_whoever_asks_a_broker_by_url_asks_with_the_authority(site: Site) -> None:
    """`storeops doctor` and `storeops conformance --broker`, as a start does."""
    info, door = site.broker.info, site.door
    ca = site.folder / "asked.pem"
    url = BrokerInfo("url", door.host, door.port, info.username, info.password, tls=True).url

    def doctors() -> tuple[bool, str]:
        settings = load_settings(None, {"broker.url": url, "broker.ca": str(ca)}, {})
        [found] = [check for check in doctor(settings, "en") if check.name == "broker"]
        return found.ok, found.detail

    for missing in (None, "no certificate"):
        if missing is not None:
            ca.write_text(missing)
        assert not doctors()[0]
        with pytest.raises(NeedsOperator) as refused:
            link_to(url, ca)
        assert refused.value.code == "broker_ca"
    ca.write_text(site.foreign.certificate_pem)
    assert not doctors()[0]
    assert "certificate verify failed" in doctors()[1]
    with pytest.raises(NeedsOperator, match="certificate verify failed"):
        link_to(url, ca)
    ca.write_text(site.authority.certificate_pem)
    assert doctors() == (True, f"{door.host}:{door.port}, TLS")
    link = link_to(url, ca)
    assert (
        mqtt_probe.login(link.host, link.port, link.username, link.password, tls=link.tls, client_id=link.client_id)
        == mqtt_probe.SUCCESS
    )


def test_topics_of_a_terminal_that_is_another_stores_reach_the_hosts_who_refuse_them(site: Site, host: Client) -> None:
    """The list knows the terminal's level alone; region, shard and store are the registry's, in the host's door."""
    assert host.subscribe("so/#") == 1
    client = site.client("t-1", site.door.port, site.context(), "t-1", "secret-1")
    assert client.answer() == 0
    assert client.publish("so/1/south/6d/another-store/t-1/up/event") in {0, 0x10}
    assert parse(host.heard.get(timeout=WAIT_S)).store == "another-store"
    client.close()


def test_the_shipped_configuration_is_the_generated_one() -> None:
    shipped = ROOT / "configs" / "deploy" / "mosquitto"
    assert (shipped / "mosquitto.conf").read_text() == deployed_config(Path("/etc/mosquitto/storeops"), 8883, 8884)
    assert (shipped / "acl").read_text() == acl_text("storeops-host", ())
