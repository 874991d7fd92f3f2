"""What the console asks of settlement besides a run: how it stands, its switch, a forecast, and what waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from actors.settlement_items import Action
from models.tables.settlement_runs import Item, Status, Switch


class Settlements(Protocol):
    """One deployment's, each call for one region. Raises Refused with what to do; what changes something is audited."""

    async def status(self, region: str) -> Status:
        """The switch, what is due, what waits for people, and the last runs."""

    async def forecast(self, region: str) -> Mapping[str, object]:
        """What a run would charge now (runtime.settlement.Forecast); nothing changes, nobody is asked."""

    async def switch(self, region: str, paused: bool, by: str, why: str) -> Switch:
        """Pause or resume."""

    async def items(self, region: str, stage: str) -> Sequence[Item]:
        """`parked`, or `owing`: dunning and written off."""

    async def resolve(self, region: str, membership: str, action: Action, reason: str, by: str) -> str:
        """One action with a parked membership; returns its state after."""
