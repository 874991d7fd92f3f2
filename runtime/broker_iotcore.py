"""iotcore (rumqttd in a wheel) as the embedded broker where mosquitto is not installed. Development only.

Its users live in its configuration in clear (0600) and are read at its start alone; it has no access list.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from models.domain.errors import NeedsOperator
from runtime.broker_mosquitto import INFLIGHT_MESSAGES_MAX, PACKET_BYTES_MAX
from runtime.datadir import write_private

# Its per-packet trace goes to Python's logging as errors; the listener's own failures end the process anyway.
PROGRAM = (
    "import logging, sys; logging.disable(logging.CRITICAL); "
    "from iotcore.iotcore import IotCoreBroker; IotCoreBroker(config_path=sys.argv[1]).run_forever()"
)

CONFIG = """\
# Generated at each start; edit nothing here. MQTT 5 needs a [v5.x] listener.
id = 0
[router]
id = 0
max_connections = 4000
max_outgoing_packet_count = 1000
max_segment_size = 67108864
max_segment_count = 4
[v5.1]
name = "v5-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = {packet_bytes}
max_inflight_count = {inflight_messages}
dynamic_filters = true
[v5.1.connections.auth]
"""


class Iotcore:
    """The files in one folder."""

    kind = "iotcore"
    reloads_users = False

    def __init__(self, folder: Path) -> None:
        self._users_file = folder / "iotcore-users.json"
        self.config_file = folder / "iotcore.toml"

    def write_config(self, port: int) -> None:
        """Writes the configuration with all users."""
        text = CONFIG.format(port=port, packet_bytes=PACKET_BYTES_MAX, inflight_messages=INFLIGHT_MESSAGES_MAX)
        # JSON strings are TOML basic strings.
        text += "".join(f"{json.dumps(name)} = {json.dumps(secret)}\n" for name, secret in self._read().items())
        write_private(self.config_file, text)

    def argv(self) -> tuple[str, ...]:
        """The command. Raises NeedsOperator (`broker_missing`)."""
        if importlib.util.find_spec("iotcore") is None:
            raise NeedsOperator("broker_missing", "neither mosquitto nor iotcore is installed", "run `make install`")
        return (sys.executable, "-P", "-c", PROGRAM, str(self.config_file))

    def set_users(self, users: Mapping[str, str]) -> None:
        """Adds users or replaces their secrets; the server reads them at its next start."""
        write_private(self._users_file, json.dumps(self._read() | dict(users)))

    def remove_users(self, names: set[str]) -> None:
        """Forgets users; unknown ones are ignored."""
        kept = {name: secret for name, secret in self._read().items() if name not in names}
        write_private(self._users_file, json.dumps(kept))

    def _read(self) -> dict[str, str]:
        try:
            users: dict[str, str] = json.loads(self._users_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return users
