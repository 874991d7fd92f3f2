"""What the hosts count, for the System page: asked of each host, which has a second to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.hosts import RATE_OVER_S, Hosts
from gateway.queries.registry import SlotState
from models.domain.errors import StoreOpsError
from models.domain.ids import RegionId

ANSWER_S_MAX = 1.0
REFUSED_BUSY = ("refused_full", "refused_entities", "refused_outbox", "too_fast")


@dataclass(frozen=True, slots=True)
class HostFigures:
    """Of one host since it was started."""

    messages: int
    messages_per_s: float
    """Of the last RATE_OVER_S seconds."""
    refused_busy: int
    """Refused or put off because of a bound: of a queue, of entities, of open asks, of a terminal's speed."""
    outbox: int
    entities: int


async def look(hosts: Hosts | None, slots: Sequence[SlotState]) -> dict[tuple[str, int], HostFigures]:
    """By region and slot; a host that does not answer within ANSWER_S_MAX is left out."""
    if hosts is None:
        return {}

    async def one(slot: SlotState) -> HostFigures | None:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return figures(await hosts.health(RegionId(slot.region), slot.k))
        except (StoreOpsError, TimeoutError):
            return None

    found = await asyncio.gather(*(one(slot) for slot in slots))
    return {(slot.region, slot.k): told for slot, told in zip(slots, found, strict=True) if told is not None}


def figures(health: Mapping[str, object]) -> HostFigures | None:
    """None of a process that waits for its turn: it counts nothing."""

    def count(key: str) -> int:
        value = health.get(key, 0)
        return value if isinstance(value, int) else 0

    if "messages" not in health:
        return None
    return HostFigures(
        count("messages"),
        count("messages_lately") / RATE_OVER_S,
        sum(count(key) for key in REFUSED_BUSY),
        count("outbox"),
        count("entities"),
    )
