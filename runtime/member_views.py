"""What the memberships port's parts share: the fresh view of a member, and the answer that is none yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.domain.messages import MemberView
from models.domain.settlement import Standing
from models.tables import clock
from models.tables.memberships import load_member_view
from runtime.clock import Pool


@dataclass(frozen=True, slots=True)
class NotYet:
    """The outcome is open: make the same ask again after `after_s` seconds."""

    after_s: float


async def member_view(pool: Pool, standing: Standing, wall_now: datetime) -> MemberView | None:
    """The membership's member as committed now, with this plan's membership."""
    async with pool.connection() as conn:
        async with conn.cursor() as cur:
            now = await clock.business_now(cur, wall_now)
        return await load_member_view(conn, standing.member, now, standing.plan.id)
