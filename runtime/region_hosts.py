"""The Hosts port over several regions: each region's own, found by the name that every call carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.hosts import Delivered, Delivery, Hosts
from models.domain.errors import Refused
from models.domain.ids import RegionId, TerminalId
from models.domain.live import Changes


class RegionHosts:
    """Implements `actors.hosts.Hosts`."""

    def __init__(self, regions: Mapping[RegionId, Hosts]) -> None:
        self._regions = dict(regions)

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        return await self._of(region).deliver(region, batch)

    async def changes(self, region: RegionId, slot: int, epoch: int, since: int) -> Changes:
        return await self._of(region).changes(region, slot, epoch, since)

    async def screen(self, region: RegionId, terminal: TerminalId, session: str, rev: int) -> bytes:
        return await self._of(region).screen(region, terminal, session, rev)

    async def slots(self, region: RegionId) -> int:
        return await self._of(region).slots(region)

    async def health(self, region: RegionId, slot: int) -> Mapping[str, object]:
        return await self._of(region).health(region, slot)

    def _of(self, region: RegionId) -> Hosts:
        """A region that the database knows and this deployment does not serve is refused, not asked for ever."""
        if region not in self._regions:
            raise Refused(
                "region_not_served", f"region {region!r} is not served here", f"one of {', '.join(self._regions)}"
            )
        return self._regions[region]
