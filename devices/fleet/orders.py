"""What one process of the fleet is told to play: plain values that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from models.domain.ids import RegionId, StoreId, TerminalId


class Chaos(StrEnum):
    """What can go wrong. The first nine are the terminals' own doing, the last four are kills of the house's parts."""

    OFFLINE = "offline"
    """Underground shops: away for a while, they sell at the till, and send everything when they come back."""
    FLAPPING = "flapping"
    DUPLICATES = "duplicates"
    REORDERING = "reordering"
    LYING = "lying"
    """Well-formed and untrue: wrong totals, stale revisions, other stores' topics, deaths of other connections."""
    BROKEN = "broken"
    """Not well-formed: garbage, too much, gaps in seq, an id used twice."""
    SLOW = "slow"
    """Terminals that stop reading for seconds."""
    TAKEOVER = "takeover"
    """A second client comes with the terminal's name."""
    STRANGERS = "strangers"
    """Clients with a wrong secret knock."""
    BROKER = "broker"
    HOST = "host"
    DATABASE = "database"
    GATEWAY = "gateway"


KILLS = (Chaos.BROKER, Chaos.HOST, Chaos.DATABASE, Chaos.GATEWAY)
"""Only in a house that the fleet started itself."""


class Fault(StrEnum):
    """What is wrong with a simulated terminal in a rollout."""

    NONE = "none"
    REFUSES = "refuses"
    """It answers "failed"."""
    SILENT = "silent"
    """It never comes to the new version."""
    UNWELL = "unwell"
    """It runs the new version and is not healthy with it."""
    SAYS_DONE = "says_done"
    """It answers "done" and goes on with the old version; for configuration: our generation, the old hash."""
    OLD_BOOT = "old_boot"
    """It reports the new version without having started anew."""
    FLAPS = "flaps"
    """It starts again and again with the new version."""
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class FleetTerminal:
    """One registered terminal. `role` is face, till or kiosk. `fault`: with any software but what it came with."""

    terminal: TerminalId
    role: str
    profile: str
    secret: str
    fault: Fault = Fault.NONE


@dataclass(frozen=True, slots=True)
class FleetLane:
    """A counter and when its shop is open, in hours of the day. `pos`: the till owns the basket."""

    store: StoreId
    pos: bool
    opens_h: float
    closes_h: float
    terminals: tuple[FleetTerminal, ...]


@dataclass(frozen=True, slots=True)
class Article:
    """Something on the shelf."""

    code: str
    name: str
    unit_fen: int


@dataclass(frozen=True, slots=True)
class CrewOrder:
    """The share of one process. `connect_s`: the terminals connect spread over so many seconds."""

    crew: int
    seed: int
    region: RegionId
    broker_host: str
    broker_port: int
    provider_url: str
    plan: str
    articles: tuple[Article, ...]
    lanes: tuple[FleetLane, ...]
    chaos: tuple[Chaos, ...] = ()
    connect_s: float = 10.0
    resend_first_s: float = 5.0
    reconnect_s_min: float = 1.0
    reconnect_s_max: float = 60.0
    think_s: float = 0.4
    """Mean pause of a customer between two actions, in the compressed day."""
    vouchers: tuple[str, ...] = ()
    """Codes that customers bring; without any they bring none."""
    cash_only: bool = False
    """Scans, cash and cancels alone: no provider, no members. For measurements."""
    software: str = ""
    """What the terminals were delivered with, and then take other software; "": they take none."""


@dataclass(frozen=True, slots=True)
class Day:
    """How long and how much: `rate_per_s` is the mean over the day, in events of this crew."""

    seconds: float
    rate_per_s: float
    flat: bool = False
    """The same rate all the time, every shop open: for measurements."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Where a crew stands; `events`, `replies`, `sales` count since its start."""

    crew: int
    online: int
    events: int
    replies: int
    waiting: int
    """Events without a reply."""
    visits: int
    busy: int
    """Lanes with a customer."""
    sales: int
    failed: int
    """Visits that ended otherwise than the customer wanted: an outage, a refusal."""
    hour: float
    reply_p50_ms: float
    """Of the newest 512 replies."""


@dataclass(frozen=True, slots=True)
class Runs:
    """What one terminal runs at this moment, and what it says."""

    terminal: TerminalId
    version: str
    """The truth."""
    reported: str
    applied_gen: int
    config_hash: str
    boots: int
