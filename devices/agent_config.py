"""Who a terminal is and how its agent behaves; and what the agent counts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from devices.liveness import LivenessKey
from models.domain.errors import NeedsOperator
from models.domain.ids import RegionId, StoreId, TerminalId

RESEND_FIRST_S = 5.0
WILL_DELAY_S = 15
SILENT_S_MAX = 300.0
"""Connected, something waits for a reply and none came for so long: the agent restarts itself."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How the connection to the broker is protected. Without `ca` the system's authorities count."""

    ca: Path | None = None
    certificate: Path | None = None
    """The client certificate; `key` belongs to it. Without both the terminal shows its secret."""
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A context that always checks the broker's name. Raises NeedsOperator `tls_files`."""
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise NeedsOperator("tls_files", f"the TLS files do not load: {error}", "enrol again") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Who the terminal is and where the broker. `secret` is what registration printed, once.

    `resend_first_s` and `reconnect_s_*` are the protocol's; tests make them shorter. `folder` keeps software and
    credentials; without one the terminal fetches no software and rotates nothing.
    """

    host: str
    port: int
    region: RegionId
    store: StoreId
    terminal: TerminalId
    profile: str
    secret: str | None = None
    software: str = "storeops-agent 0.1.0"
    outbox_path: Path | None = None
    folder: Path | None = None
    tls: TlsOptions | None = None
    resend_first_s: float = RESEND_FIRST_S
    reconnect_s_min: float = 1.0
    reconnect_s_max: float = 60.0
    will_delay_s: int = WILL_DELAY_S
    silent_s_max: float = SILENT_S_MAX
    liveness_key: LivenessKey | None = None
    """What this terminal's depth camera signs its scores with."""
    duties_every_s: float = 1.0
    """How often activation windows and silence are looked at."""


@dataclass(slots=True)
class AgentCounts:
    """Plain counters."""

    sent: int = 0
    resent: int = 0
    replies: int = 0
    duplicate_replies: int = 0
    refused_by_server: int = 0
    unreadable: int = 0
    foreign_commands: int = 0
    faces_too_old: int = 0
    too_large: int = 0
    takeovers: int = 0
    """Another client came with this terminal's id, as far as the broker said so."""
    short_connections: int = 0
    """Connections that ended early, one after the other: flapping, or a twin with the same id."""
    reboots: int = 0
