"""What moves on the console: one small tile per terminal and per store, sent as deltas."""

from __future__ import annotations

from dataclasses import dataclass

from models.domain.ids import LaneId, StoreId, TerminalId


@dataclass(frozen=True, slots=True)
class TerminalTile:
    """One cell of the wall. `state` is the lane's screen state, or "" before any visit."""

    terminal: TerminalId
    store: StoreId
    lane: LaneId
    role: str
    profile: str
    online: bool
    state: str = ""
    prompt: str = ""
    member: str = ""
    due_fen: int = 0
    changed_ms: int = 0
    """Wall time of the change, milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class StoreTile:
    """One store's figures since its business day began."""

    store: StoreId
    sales: int
    takings_fen: int
    discount_fen: int
    incidents: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Tiles that changed after `since`. `full`: the ring has moved on (or another epoch): replace all you hold."""

    epoch: int
    version: int
    full: bool
    terminals: tuple[TerminalTile, ...]
    stores: tuple[StoreTile, ...]
    business_now: str
    """The business clock, ISO 8601 UTC."""
