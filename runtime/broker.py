"""The MQTT broker: mosquitto or iotcore started by us, or any MQTT 5 broker by URL, behind one silhouette."""

from __future__ import annotations

import os
import re
import signal
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import quote, unquote, urlsplit

import psutil

from models.domain.errors import NeedsOperator
from runtime import mqtt_probe
from runtime.authority import Authority
from runtime.broker_iotcore import Iotcore
from runtime.broker_mosquitto import Mosquitto, TlsListeners, find_program
from runtime.datadir import DataDir, open_data_dir
from runtime.ports import LOOPBACK, is_free, preferred_or_free
from runtime.processes import ChildProcess, ProcessSpec, kill_all
from runtime.settings import Broker as BrokerSettings
from runtime.settings import masked

HOST_USER = "storeops-host"
"""The user that our own hosts connect as; it may read and write every topic."""
START_TIMEOUT_S = 15.0
RELOAD_TIMEOUT_S = 5.0
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - addresses to listen on, which no certificate names
USERNAME = re.compile(r"[a-z0-9-]{1,48}")

Kind = Literal["mosquitto", "iotcore", "url"]


@dataclass(frozen=True, slots=True)
class BrokerCapabilities:
    """What wire.md asks of a broker. One test battery asserts each: there, or missing as declared."""

    receive_maximum: bool
    """Sends no more unacknowledged messages than the client's Receive Maximum."""
    session_expiry: bool
    """Forgets a session after its expiry interval."""
    will_delay: bool
    """Waits the Will Delay before it publishes a will."""
    acl: bool
    """Each terminal reaches its own topics alone."""
    reloads_users: bool
    """New users without a restart."""
    survives_restart: bool
    """Sessions and retained messages outlive an orderly restart."""
    refusal_reason: bool
    """A refused CONNECT is answered with a reason code, not only closed."""
    keepalive_off: bool
    """Accepts a CONNECT with keepalive 0."""
    production: bool


CAPABILITIES: Mapping[str, BrokerCapabilities] = {
    "mosquitto": BrokerCapabilities(
        receive_maximum=True,
        session_expiry=True,
        will_delay=True,
        acl=True,
        reloads_users=True,
        survives_restart=True,
        refusal_reason=True,
        keepalive_off=True,
        production=True,
    ),
    "iotcore": BrokerCapabilities(
        receive_maximum=False,
        session_expiry=False,  # a session stays until the broker ends
        will_delay=True,
        acl=False,
        reloads_users=False,
        survives_restart=False,
        refusal_reason=False,
        keepalive_off=False,
        production=False,
    ),
    # By URL we rely on what the operator chose: a full MQTT 5 broker. Its users and ACL are its own matter.
    "url": BrokerCapabilities(
        receive_maximum=True,
        session_expiry=True,
        will_delay=True,
        acl=False,
        reloads_users=False,
        survives_restart=True,
        refusal_reason=True,
        keepalive_off=True,
        production=True,
    ),
}


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """How to reach the broker as the host user."""

    kind: Kind
    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    tls: bool = False
    ca: str | None = None
    """PEM of the authority that signed the broker's certificate; None: the system's count."""

    @property
    def url(self) -> str:
        """mqtt[s]://user:password@host:port; holds the secret."""
        user = quote(self.username or "", safe="")
        secret = f":{quote(self.password, safe='')}" if self.password is not None else ""
        at = f"{user}{secret}@" if self.username is not None else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{at}{host}:{self.port}"

    @property
    def capabilities(self) -> BrokerCapabilities:
        return CAPABILITIES[self.kind]

    def tls_context(self) -> ssl.SSLContext | None:
        """How a client checks this broker; None: it speaks in clear."""
        return ssl.create_default_context(cadata=self.ca) if self.tls else None


@dataclass(frozen=True, slots=True)
class TerminalDoor:
    """Where terminals come in. `certificates_port` 0: a certificate opens nothing there."""

    host: str
    port: int
    tls: bool = False
    ca: str | None = None
    certificates_port: int = 0


class BrokerServer(Protocol):
    """What the composition root holds, whichever broker it is. All calls block."""

    @property
    def info(self) -> BrokerInfo: ...
    @property
    def door(self) -> TerminalDoor: ...
    @property
    def running(self) -> bool: ...
    @property
    def pid(self) -> int | None: ...
    def start(self) -> BrokerInfo: ...
    def stop(self, timeout_s: float = 1.0) -> bool: ...
    def add_users(self, users: Mapping[str, str]) -> bool: ...
    def remove_users(self, names: set[str]) -> bool: ...


def parse_url(url: str, ca: str | None = None) -> BrokerInfo:
    """mqtt://user:password@host:1883 (mqtts: TLS, 8883). Raises NeedsOperator (`broker_url`)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise NeedsOperator("broker_url", f"{error}", "mqtt://user:password@host:1883") from error
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
        raise NeedsOperator("broker_url", f"not a broker URL: {masked(url)}", "mqtt://user:password@host:1883")
    tls = parts.scheme == "mqtts"
    return BrokerInfo(
        "url",
        parts.hostname,
        port or (8883 if tls else 1883),
        unquote(parts.username) if parts.username is not None else None,
        unquote(parts.password) if parts.password is not None else None,
        tls,
        ca if tls else None,
    )


def read_ca(path: Path | None) -> str | None:
    """The authorities' PEM text; None: the system's own count. Raises NeedsOperator `broker_ca`."""
    try:
        return None if path is None else path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise NeedsOperator("broker_ca", f"{path}: {error}", "name the authority's PEM file in broker.ca") from error


def check_login(info: BrokerInfo, timeout_s: float = 5.0) -> None:
    """One handshake as `info`'s user. Raises NeedsOperator: `broker_ca`, `broker_unreachable`, `broker_refused`."""
    try:
        tls = info.tls_context()
    except (ssl.SSLError, ValueError) as error:
        raise NeedsOperator("broker_ca", f"no certificate: {error}", "name a PEM file in broker.ca") from error
    try:
        reason = mqtt_probe.login(info.host, info.port, info.username, info.password, timeout_s, tls)
    except OSError as error:
        raise NeedsOperator(
            "broker_unreachable", f"{info.host}:{info.port}: {error}", "check broker.url and that the broker runs"
        ) from error
    if reason != mqtt_probe.SUCCESS:
        shown = "closed the connection" if reason is None else f"reason code 0x{reason:02x}"
        raise NeedsOperator(
            "broker_refused", f"{info.host}:{info.port} refused {info.username!r}: {shown}", "check user and password"
        )


class ExternalBroker:
    """A broker that somebody else runs. Its users are made there, not here."""

    def __init__(self, url: str, ca: Path | None = None, certificates_port: int = 0) -> None:
        self._certificates_port = certificates_port
        self._info = parse_url(url, read_ca(ca))

    @property
    def info(self) -> BrokerInfo:
        return self._info

    @property
    def door(self) -> TerminalDoor:
        one = self._info
        return TerminalDoor(one.host, one.port, one.tls, one.ca, self._certificates_port or one.port * one.tls)

    @property
    def running(self) -> bool:
        try:
            check_login(self._info, timeout_s=2.0)
        except NeedsOperator:
            return False
        return True

    @property
    def pid(self) -> int | None:
        return None

    def start(self) -> BrokerInfo:
        """Checks the connection. Raises as `check_login`."""
        check_login(self._info)
        return self._info

    def stop(self, timeout_s: float = 1.0) -> bool:  # noqa: ARG002 - nothing of ours runs
        return True

    def add_users(self, users: Mapping[str, str]) -> bool:  # noqa: ARG002
        """False: the operator enters them into that broker."""
        return False

    def remove_users(self, names: set[str]) -> bool:  # noqa: ARG002
        return False


class EmbeddedBroker:
    """mosquitto when installed, else iotcore, as a child process that dies with us, on 127.0.0.1.

    A killed broker is started again by `start()`, on the same port and with the same users.
    """

    def __init__(
        self,
        data_dir: Path | DataDir | None = None,
        kind: Literal["auto", "mosquitto", "iotcore"] = "auto",
        port: int = 0,
        start_timeout_s: float = START_TIMEOUT_S,
        tls: BrokerSettings | None = None,
    ) -> None:
        """`tls`: listen for terminals by TLS too, as these settings say; mosquitto only."""
        self._data = data_dir if isinstance(data_dir, DataDir) else open_data_dir(data_dir)
        self._folder = self._data.server_folder("broker")
        if kind == "auto":
            kind = "mosquitto" if find_program() else "iotcore"
        self._driver: Mosquitto | Iotcore
        if kind == "mosquitto":
            self._driver = Mosquitto(self._folder, self._data.service_user, HOST_USER)
        else:
            self._driver = Iotcore(self._folder)
        self._kind: Literal["mosquitto", "iotcore"] = kind
        if tls is not None and kind != "mosquitto":
            raise NeedsOperator(
                "broker_tls", "TLS needs mosquitto", "apt-get install mosquitto, or set broker.tls: false"
            )
        self._wish = tls
        self._tls: TlsListeners | None = None
        self._preferred_port = port
        self._port: int | None = None
        self._start_timeout_s = start_timeout_s
        self._child: ChildProcess | None = None
        self.log_path = self._data.logs / f"{kind}.log"

    @property
    def info(self) -> BrokerInfo:
        assert self._port is not None, "the broker was not started"
        return BrokerInfo(self._kind, LOOPBACK, self._port, HOST_USER, self._data.secret("broker-host"))

    @property
    def door(self) -> TerminalDoor:
        if self._tls is None or self._wish is None:
            return TerminalDoor(LOOPBACK, self.info.port)
        host = self._wish.public_host or self._wish.tls_host
        return TerminalDoor(host, self._tls.secrets_port, True, self._tls.ca, self._tls.certificates_port)

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.running else None

    def start(self) -> BrokerInfo:
        """Returns when the host user is let in. Nothing happens when it runs already.

        Raises NeedsOperator with the end of its log when it does not come up, `no_free_port`,
        `mosquitto_missing`.
        """
        if self.running:
            return self.info
        self._stop_left_behind()
        if self._port is None or not is_free(self._port):
            self._port = preferred_or_free(self._preferred_port)
        self._driver.set_users({HOST_USER: self._data.secret("broker-host")})
        if isinstance(self._driver, Mosquitto):
            self._driver.write_config(self._port, self._listeners(self._driver))
        else:
            self._driver.write_config(self._port)
        mosquitto = self._kind == "mosquitto"
        self._child = ChildProcess(
            ProcessSpec(
                self._kind,
                self._driver.argv(),
                self.log_path,
                cwd=Path("/"),
                # iotcore lives in our own interpreter's folder, which the servers' user may not reach.
                run_as=self._data.service_user if mosquitto else None,
                # Without SIGTERM mosquitto would not save its sessions; iotcore has none to save.
                stop_signal=signal.SIGTERM if mosquitto else signal.SIGKILL,
            )
        )
        self._pid_file.write_text(f"{self._child.start()}\n", encoding="ascii")
        self._child.wait_ready(lambda: self._lets_in(HOST_USER, self.info.password), self._start_timeout_s)
        return self.info

    def _listeners(self, driver: Mosquitto) -> TlsListeners | None:
        """TLS as the settings wish it, on the same ports after each start; the certificates are the deployment's."""
        wish, was = self._wish, self._tls
        if wish is None:
            return None
        authority, now = Authority(self._data), datetime.now(UTC)
        names = (wish.public_host or wish.tls_host, wish.tls_host, "localhost", LOOPBACK)
        certificate, key = authority.server([name for name in names if name not in EVERYWHERE], now)
        if not driver.has_revocations:
            driver.set_revoked((), authority.revocations({}, now))
        first = was.secrets_port if was is not None else preferred_or_free(wish.tls_port, wish.tls_host)
        second = was.certificates_port if was is not None else preferred_or_free(wish.certificates_port, wish.tls_host)
        self._tls = TlsListeners(wish.tls_host, first, second, authority.certificate_pem, certificate, key)
        return self._tls

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Orderly stop, killed after `timeout_s`; True when it ended by itself. Safe to call twice."""
        child, self._child = self._child, None
        self._pid_file.unlink(missing_ok=True)
        return True if child is None else child.stop(timeout_s)

    def add_user(self, name: str, secret: str) -> bool:
        """As `add_users`, for one."""
        return self.add_users({name: secret})

    def add_users(self, users: Mapping[str, str]) -> bool:
        """Lets `users` (name -> secret) in, from the return on; before `start` they count from the start on.

        Existing names get the new secret. iotcore is restarted for that. Raises NeedsOperator (`user_name`,
        `users_not_loaded`).
        """
        for name in users:
            if not USERNAME.fullmatch(name):
                raise NeedsOperator("user_name", f"{name!r} is no terminal id", "use a-z, 0-9 and -, 48 at most")
        if not users:
            return True
        self._driver.set_users(users)
        self._reload()
        name, secret = next(reversed(list(users.items())))
        deadline = time.monotonic() + RELOAD_TIMEOUT_S
        while self.running and not self._lets_in(name, secret):
            if time.monotonic() > deadline:
                raise NeedsOperator("users_not_loaded", f"the broker does not let {name!r} in", f"see {self.log_path}")
            time.sleep(0.02)
        return True

    def remove_users(self, names: set[str]) -> bool:
        """Refuses `names` from the next connection on."""
        self._driver.remove_users(names - {HOST_USER})
        self._reload()
        return True

    def _reload(self) -> None:
        if not self.running or self._child is None:
            return
        if self._driver.reloads_users:
            self._child.signal(signal.SIGHUP)
        else:
            self.stop()
            self.start()

    def _lets_in(self, username: str, password: str | None) -> bool:
        try:
            return mqtt_probe.login(LOOPBACK, self.info.port, username, password, 1.0) == mqtt_probe.SUCCESS
        except OSError:
            return False

    @property
    def _pid_file(self) -> Path:
        return self._data.root / "broker.pid"

    def _stop_left_behind(self) -> None:
        """Ends a broker of this folder that outlived a killed parent (where the kernel cannot tell it)."""
        with suppress(FileNotFoundError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pid_file.read_text(encoding="ascii")))
            if str(self._driver.config_file) in process.cmdline():
                kill_all([process])


def let_in(data_dir: DataDir, name: str, secret: str) -> bool:
    """Lets one more user into the embedded broker that another process runs; True when it counts at once."""
    return let_all_in(data_dir, {name: secret})


def let_all_in(data_dir: DataDir, users: Mapping[str, str]) -> bool:
    """The same for many at once, by name.

    False: they count from the broker's next start (iotcore reads its users only then).
    """
    folder = data_dir.server_folder("broker")
    pid_file = data_dir.root / "broker.pid"
    program = psutil.Process(int(pid_file.read_text(encoding="ascii"))).name() if pid_file.exists() else ""
    if "mosquitto" not in program:
        Iotcore(folder).set_users(users)
        return False
    driver = Mosquitto(folder, data_dir.service_user, HOST_USER)
    driver.set_users(users)
    driver.allow(users)
    os.kill(int(pid_file.read_text(encoding="ascii")), signal.SIGHUP)
    return True


def let_out(data_dir: DataDir, name: str) -> bool:
    """Refuses a user of the embedded broker that another process runs; True when it counts at once, as `let_in`."""
    folder = data_dir.server_folder("broker")
    pid_file = data_dir.root / "broker.pid"
    program = psutil.Process(int(pid_file.read_text(encoding="ascii"))).name() if pid_file.exists() else ""
    if "mosquitto" not in program:
        Iotcore(folder).remove_users({name})
        return False
    Mosquitto(folder, data_dir.service_user, HOST_USER).remove_users({name})
    os.kill(int(pid_file.read_text(encoding="ascii")), signal.SIGHUP)
    return True


def set_access(data_dir: DataDir, lines: Mapping[str, str | None], refused: Iterable[str], crl_pem: str) -> bool:
    """Tell the embedded mosquitto that another process runs who may come in, by hashed lines (None: nobody more).

    `refused` terminals can do nothing from now on. False: it is not mosquitto that runs here.
    """
    pid_file = data_dir.root / "broker.pid"
    if not pid_file.exists():
        return False
    pid = int(pid_file.read_text(encoding="ascii"))
    if "mosquitto" not in psutil.Process(pid).name():
        return False
    driver = Mosquitto(data_dir.server_folder("broker"), data_dir.service_user, HOST_USER)
    driver.set_hashes(lines)
    driver.set_revoked(refused, crl_pem)
    os.kill(pid, signal.SIGHUP)
    return True


def user_hashes(data_dir: DataDir) -> dict[str, str]:
    """The embedded mosquitto's users, each with its line of the password file."""
    return Mosquitto(data_dir.server_folder("broker"), data_dir.service_user, HOST_USER).hashes()


def open_broker(data_dir: DataDir, settings: BrokerSettings) -> BrokerServer:
    """The broker that the settings ask for, not started yet."""
    if settings.kind == "url":
        assert settings.url is not None
        return ExternalBroker(settings.url, settings.ca, settings.certificates_port if settings.ca else 0)
    return EmbeddedBroker(data_dir, settings.kind, settings.port, tls=settings if settings.tls else None)
