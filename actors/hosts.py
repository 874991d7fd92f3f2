"""The port through which the gateway and settlement talk to hosts; implemented over Ray handles in runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from models.domain.ids import RegionId, TerminalId
from models.domain.live import Changes

COMMAND_CHANNEL = "command"
"""An administrator's CommandAsked as JSON; answered by an OrderResult as JSON, once it is durable."""
DESIRED_CHANNEL = "desired"
"""The same for a DesiredAsked; the host fills in `base`."""
RATE_OVER_S = 10
"""Seconds over which a host's `messages_lately` counts."""
REGISTRY_CHANNEL = "registry"
"""The registry has changed: the terminal's host reads it again within a second. No payload, no answer."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One wire message for a terminal of ours, as if it had come by MQTT: `event` or `face` channel bytes.

    Or what is meant for the terminal itself, on the channels above.

    The message's own id is the idempotency key: after a crash the caller delivers the same bytes again.
    """

    terminal: TerminalId
    channel: str
    payload: bytes
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The reply document and the lane's newest screen, both as wire JSON bytes (screen empty: none yet)."""

    reply: bytes
    screen: bytes


class Hosts(Protocol):
    """What the console needs of the hosts of a region."""

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        """Handle these as one batch. Returns after the commit; RetryLater when a host is restarting."""
        ...

    async def changes(self, region: RegionId, slot: int, epoch: int, since: int) -> Changes:
        """Tiles changed after `since` of `epoch`; waits up to 20 s for one. RetryLater when a host is restarting."""
        ...

    async def screen(self, region: RegionId, terminal: TerminalId, session: str, rev: int) -> bytes:
        """The lane's screen once it is newer than (session, rev), as wire JSON; waits up to 20 s, then the same."""
        ...

    async def slots(self, region: RegionId) -> int:
        """How many hosts the region has now, dedicated ones included. RetryLater while nobody can say."""
        ...

    async def health(self, region: RegionId, slot: int) -> Mapping[str, object]:
        """A host's plain figures: its counters and what it holds. RetryLater when it is restarting."""
        ...
