"""What the console, the API and the command line ask of the kill switches' desk, which the runtime implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from models.domain.kill_switch import KillSwitch, Scope, Switch


@dataclass(frozen=True, slots=True)
class KillOrder:
    """Throw a switch, or with `lift` lift it: the same verb. `number`: repeated, it has one effect."""

    number: str
    switch: Switch
    scope: Scope
    reason: str
    by: str
    until: datetime | None = None
    lift: bool = False


@dataclass(frozen=True, slots=True)
class DatabaseOutcome:
    """What one database said, with the regions whose stores it keeps. `code` empty: durable there."""

    regions: tuple[str, ...]
    changed: bool = False
    """False: it stood, or was lifted, already."""
    stores: int = 0
    code: str = ""
    message: str = ""
    do: str = ""

    @property
    def ok(self) -> bool:
        """Durable there."""
        return not self.code


@dataclass(frozen=True, slots=True)
class KillOutcome:
    """An order, everywhere. Not `ok`: some regions were not reached; the same order again reaches them alone."""

    order: KillOrder
    databases: tuple[DatabaseOutcome, ...]

    @property
    def ok(self) -> bool:
        """Durable in every region of the scope."""
        return all(one.ok for one in self.databases)


@dataclass(frozen=True, slots=True)
class ThrownSwitch:
    """A switch with how far the terminals of its scope are. `regions`: whose databases have it."""

    thrown: KillSwitch
    standing: bool
    regions: tuple[str, ...]
    terminals: int = 0
    connected: int = 0
    applied: int = 0
    """Connected terminals that report the document which says so."""


class KillSwitches(Protocol):
    """One deployment's.

    Raises Refused: `unknown_store`, `unknown_region`, `unknown_chain`, `reason_missing`, `reason_long`, `until_past`.
    """

    async def order(self, order: KillOrder) -> KillOutcome:
        """Durable, with its line in the audit, in each region that is reached; hosts see it within a second."""

    async def switches(self, *, limit: int = 50) -> Sequence[ThrownSwitch]:
        """Standing ones first, then past ones, the newest first. A database that is away is passed over."""

    async def of_store(self, store: str) -> Sequence[KillSwitch]:
        """What is in force in a store now, by whichever scope."""
