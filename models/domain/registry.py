"""Who stands where: a terminal as the registry knows it. The registry outranks what a topic claims."""

from __future__ import annotations

from dataclasses import dataclass

from models.domain.ids import LaneId, RegionId, StoreId, TerminalId, shard_of


@dataclass(frozen=True, slots=True)
class RegisteredTerminal:
    """One MQTT client of one lane. Its secret is kept elsewhere, as a hash.

    `role` says what it does in the lane (`face`, `till`, ...), `profile` which family of hardware it is.
    """

    terminal: TerminalId
    store: StoreId
    region: RegionId
    lane: LaneId
    role: str
    profile: str
    liveness_keys: tuple[bytes, ...] = ()
    """Public Ed25519 keys, each of which may sign this terminal's liveness scores."""

    @property
    def shard(self) -> int:
        """The store's shard, 0..255."""
        return shard_of(self.store)
