"""Eclipse mosquitto 2 as the embedded broker: its files, its settings, its user database.

Written for 2.0.11 (Debian 12) and newer.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
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
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
persistence true
persistence_location {folder}/
autosave_interval 30
persistent_client_expiration 2d
max_queued_messages {queued_messages}
max_queued_bytes {queued_bytes}
max_inflight_messages {inflight_messages}
max_packet_size {packet_bytes}
max_keepalive 120
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
"""

# A terminal writes and reads only what is its own; the hosts check the registry too.
ACL = """\
user {server}
topic readwrite #
topic read $SYS/#

pattern write so/1/+/+/+/%u/up/#
pattern read so/1/+/+/+/%u/down/#
"""


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

    def write_config(self, port: int) -> None:
        """Writes configuration and access list; the password file is made when missing."""
        config = CONFIG.format(
            port=port,
            folder=self._folder,
            queued_messages=QUEUED_MESSAGES_MAX,
            queued_bytes=QUEUED_BYTES_MAX,
            inflight_messages=INFLIGHT_MESSAGES_MAX,
            packet_bytes=PACKET_BYTES_MAX,
        )
        write_private(self.config_file, config, self._owner)
        write_private(self._folder / "acl", ACL.format(server=self._server_user), self._owner)
        if not (self._folder / "passwords").exists():
            self._write_lines({})

    def argv(self) -> tuple[str, ...]:
        """The command. Raises NeedsOperator (`mosquitto_missing`)."""
        program = find_program()
        if program is None:
            raise NeedsOperator("mosquitto_missing", "mosquitto is not installed", "apt-get install mosquitto")
        return (program, "-c", str(self.config_file))

    def set_users(self, users: Mapping[str, str]) -> None:
        """Adds users or replaces their secrets; atomic on disk. The server reads it at SIGHUP."""
        lines = self._read_lines()
        lines |= {name: password_line(name, secret) for name, secret in users.items()}
        self._write_lines(lines)

    def remove_users(self, names: set[str]) -> None:
        """Forgets users; unknown ones are ignored."""
        self._write_lines({name: line for name, line in self._read_lines().items() if name not in names})

    def _read_lines(self) -> dict[str, str]:
        try:
            text = (self._folder / "passwords").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        return {line.partition(":")[0]: line for line in text.splitlines() if line}

    def _write_lines(self, lines: Mapping[str, str]) -> None:
        write_private(self._folder / "passwords", "".join(f"{line}\n" for line in lines.values()), self._owner)
