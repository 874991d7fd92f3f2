"""Points that nobody spent in time expire by themselves, once a business day, each account with its posting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime

import structlog
from psycopg import AsyncConnection

from models.tables import clock
from models.tables.points import expire_points, expiry_day
from runtime.plant import Plant

log = structlog.get_logger()

LOOK_EVERY_S = 60.0
"""How often the business clock is looked at for a day on which nothing was taken yet."""


class PointsExpiry:
    """The duty of a house, for each of its databases. What is late costs nobody anything: points that are over cannot
    be spent before they are taken either. Two houses over one database take them once."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self._done: dict[str, date | None] = dict.fromkeys(plant.database_url for plant in plants)

    async def watch(self) -> None:
        """For ever. A failure is logged and tried again at the next look."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> int:
        """Every database once: how many points were taken."""
        taken = 0
        for url in self._done:
            try:
                taken += await self._take(url)
            except Exception as error:  # noqa: BLE001 - the database is away: the duty waits
                log.warning("points_expiry", error=f"{error!r}"[:500])
        return taken

    async def _take(self, url: str) -> int:
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            async with conn.cursor() as cur:
                now = await clock.business_now(cur, datetime.now(UTC))
            day = await expiry_day(conn, now)
            if day is None or day == self._done[url]:
                return 0
            accounts = points = 0
            async for move in expire_points(conn, now):
                accounts, points = accounts + 1, points + move.points
        self._done[url] = day
        if accounts:
            log.info("points_expired", day=day.isoformat(), accounts=accounts, points=points)
        return points
