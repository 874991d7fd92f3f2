"""Eclipse mosquitto 2 as the embedded broker: its files, its settings, its user database.

Written for 2.0.11 (Debian 12) and newer.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.domain.errors import NeedsOperator
from runtime.datadir import ServiceUser, write_private

HASH_ITERATIONS = 101
"""mosquitto 2.0's own default. PBKDF2 slows guessing of what people choose; our secrets are 256 random bits."""

PACKET_BYTES_MAX = 262_144
INFLIGHT_MESSAGES_MAX = 1_000
QUEUED_MESSAGES_MAX = 200_000
"""Per client: ten minutes (a host's session expiry) at 300 messages/s. The default of 1000 acknowledges and drops."""
QUEUED_BYTES_MAX = 256 * 1024 * 1024

CONFIG = """\
# Generated at each start; edit nothing here.
{bounds}
persistence_location {folder}/
log_dest stderr
listener {port} 127.0.0.1
"""

BOUNDS = f"""\
allow_anonymous false
persistence true
autosave_interval 30
persistent_client_expiration 2d
max_queued_messages {QUEUED_MESSAGES_MAX}
max_queued_bytes {QUEUED_BYTES_MAX}
max_inflight_messages {INFLIGHT_MESSAGES_MAX}
max_packet_size {PACKET_BYTES_MAX}
max_keepalive 120
set_tcp_nodelay true
log_type error
log_type warning
log_type notice
connection_messages false
password_file {{folder}}/passwords
acl_file {{folder}}/acl"""
"""What every mosquitto of ours is told, here and in a deployment."""

SECRETS_LISTENER = """\
# Terminals with a secret, and the hosts.
listener {port} {address}
cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server-key.pem
tls_version tlsv1.2
"""

CERTIFICATES_LISTENER = """\
# Terminals with a certificate: its CN is the user name, whatever they say.
listener {port} {address}
cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server-key.pem
crlfile {folder}/crl.pem
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
"""

# A terminal writes and reads only what is its own; the hosts check the registry too.
ACL = """\
user {server}
topic readwrite #
topic read $SYS/#

pattern write so/1/+/+/+/%u/up/#
pattern read so/1/+/+/+/%u/down/#
"""


@dataclass(frozen=True, slots=True)
class TlsListeners:
    """Where terminals come in by TLS, and the PEM texts that the listeners need."""

    address: str
    secrets_port: int
    certificates_port: int
    ca: str
    certificate: str
    key: str


def tls_listeners(folder: Path, address: str, secrets_port: int, certificates_port: int) -> str:
    """Their part of a configuration. An address of "" is all of them."""
    return SECRETS_LISTENER.format(port=secrets_port, address=address, folder=folder) + CERTIFICATES_LISTENER.format(
        port=certificates_port, address=address, folder=folder
    )


def acl_text(server: str, refused: Iterable[str]) -> str:
    """The access list. `refused` terminals may do nothing: that counts for connections that are there already."""
    denials = "".join(f"\nuser {name}\ntopic deny #\n" for name in sorted(refused))
    return ACL.format(server=server) + denials


def find_program() -> str | None:
    """Path of mosquitto; Debian puts it into sbin, which is not on every PATH."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")


def password_line(username: str, secret: str, salt: bytes | None = None) -> str:
    """One line of a mosquitto password file: `$7$` PBKDF2-HMAC-SHA512, 64 bytes, as mosquitto_passwd writes it."""
    salt = secrets.token_bytes(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode("utf-8"), salt, HASH_ITERATIONS, 64)
    coded = (base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return f"{username}:$7${HASH_ITERATIONS}$" + "$".join(coded)


class Mosquitto:
    """The files in one folder. The password file is the truth about users: it holds hashes only."""

    kind = "mosquitto"
    reloads_users = True

    def __init__(self, folder: Path, owner: ServiceUser | None, server_user: str) -> None:
        self._folder = folder
        self._owner = owner
        self._server_user = server_user
        self.config_file = folder / "mosquitto.conf"

    def write_config(self, port: int, tls: TlsListeners | None = None) -> None:
        """Writes configuration and access list; the password file is made when missing."""
        config = CONFIG.format(port=port, folder=self._folder, bounds=BOUNDS.format(folder=self._folder))
        if tls is not None:
            config += tls_listeners(self._folder, tls.address, tls.secrets_port, tls.certificates_port)
            for name, text in (("ca.pem", tls.ca), ("server.pem", tls.certificate), ("server-key.pem", tls.key)):
                write_private(self._folder / name, text, self._owner)
        write_private(self.config_file, config, self._owner)
        with self._locked():
            write_private(self._folder / "acl", acl_text(self._server_user, self._refused()), self._owner)
            if not (self._folder / "passwords").exists():
                self._write_lines({})

    @property
    def has_revocations(self) -> bool:
        """There is a list of revoked certificates: a listener that asks for certificates needs one."""
        return (self._folder / "crl.pem").exists()

    def set_revoked(self, refused: Iterable[str], crl_pem: str) -> bool:
        """Whom to refuse from the next SIGHUP on, and the list of revoked certificates. False: that changes nothing."""
        names = sorted(set(refused))
        with self._locked():
            path, crl = self._folder / "refused.json", self._folder / "crl.pem"
            write_private(crl, crl_pem, self._owner)
            if self._refused() == names:
                return False
            write_private(path, json.dumps(names), self._owner)
            write_private(self._folder / "acl", acl_text(self._server_user, names), self._owner)
            return True

    def allow(self, names: Iterable[str]) -> None:
        """Whoever was refused and is registered again is as any other."""
        with self._locked():
            refused = self._refused()
            kept = [name for name in refused if name not in set(names)]
            if kept != refused:
                write_private(self._folder / "refused.json", json.dumps(kept), self._owner)
                write_private(self._folder / "acl", acl_text(self._server_user, kept), self._owner)

    def _refused(self) -> list[str]:
        try:
            names: list[str] = json.loads((self._folder / "refused.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return names

    def argv(self) -> tuple[str, ...]:
        """The command. Raises NeedsOperator (`mosquitto_missing`)."""
        program = find_program()
        if program is None:
            raise NeedsOperator("mosquitto_missing", "mosquitto is not installed", "apt-get install mosquitto")
        return (program, "-c", str(self.config_file))

    def set_users(self, users: Mapping[str, str]) -> None:
        """Adds users or replaces their secrets; atomic on disk. The server reads it at SIGHUP."""
        self.set_hashes({name: password_line(name, secret) for name, secret in users.items()})

    def set_hashes(self, lines: Mapping[str, str | None]) -> bool:
        """The same with lines as `password_line` makes them; None: this user is forgotten. False: nothing changed."""
        with self._locked():
            present = self._read_lines()
            wanted = {name: line for name, line in (present | dict(lines)).items() if line is not None}
            if wanted != present:
                self._write_lines(wanted)
            return wanted != present

    def hashes(self) -> dict[str, str]:
        """Each user's line."""
        return self._read_lines()

    def remove_users(self, names: set[str]) -> None:
        """Forgets users; unknown ones are ignored."""
        self.set_hashes(dict.fromkeys(names))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The house, the gateway and the command line change the same files."""
        handle = os.open(self._folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read_lines(self) -> dict[str, str]:
        try:
            text = (self._folder / "passwords").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        return {line.partition(":")[0]: line for line in text.splitlines() if line}

    def _write_lines(self, lines: Mapping[str, str]) -> None:
        write_private(self._folder / "passwords", "".join(f"{line}\n" for line in lines.values()), self._owner)
