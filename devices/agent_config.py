"""Who a terminal is and how its agent behaves; and what the agent counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.domain.ids import RegionId, StoreId, TerminalId

RESEND_FIRST_S = 5.0
WILL_DELAY_S = 15


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Who the terminal is and where the broker. `secret` is what registration printed, once.

    `resend_first_s` and `reconnect_s_*` are the protocol's; tests make them shorter.
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
    resend_first_s: float = RESEND_FIRST_S
    reconnect_s_min: float = 1.0
    reconnect_s_max: float = 60.0
    will_delay_s: int = WILL_DELAY_S


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
