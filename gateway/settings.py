"""What the gateway is told at its start, with every bound and its unit in its name."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class ServedRegion:
    """One region of the deployment and the number of its host slots."""

    name: str = "local"
    chain: str = "chain"
    slots: int = 1


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Values of one gateway process. `public_url` empty: http://host:port."""

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = ""
    regions: tuple[ServedRegion, ...] = (ServedRegion(),)
    demo: bool = False
    """Shows the "try this" panel and offers the provider simulator's face tokens."""
    provider_url: str = ""
    """Base URL of the provider simulator; only used when `demo`."""
    version: str = "0.1.0"

    session_hours: int = 12
    login_link_minutes: int = 10
    page_rows: int = 50
    page_rows_max: int = 200
    body_bytes_max: int = 256 * 1024
    event_bytes_max: int = 64 * 1024
    face_bytes_max: int = 192 * 1024
    """The terminal protocol's limit of one face."""
    stream_clients_max: int = 200
    stream_queue_events_max: int = 8
    stream_ring_events_max: int = 256
    stream_frame_s: float = 0.1
    """At most one delta per slot in this time: what moves faster is drawn together."""
    stream_keepalive_s: float = 15.0
    idempotency_keys_max: int = 1_000
    shutdown_s: int = 1

    @property
    def base_url(self) -> str:
        """What links start with, without a slash at the end."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def secure(self) -> bool:
        """Browsers reach us by TLS, so cookies may be Secure."""
        return self.base_url.startswith("https://")

    def chain_of(self, region: str) -> str:
        """The region's chain; without a region that of all, several named one after the other."""
        chains = [served.chain for served in self.regions if region in {"", served.name}]
        return ", ".join(dict.fromkeys(chains))

    @property
    def host_names(self) -> list[str]:
        """Host names that browsers may call us by: another one is a rebinding attack on the loopback."""
        names = {self.host, "127.0.0.1", "localhost", urlsplit(self.base_url).hostname or self.host}
        return sorted(names)
