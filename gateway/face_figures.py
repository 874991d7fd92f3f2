"""What the face desks say of themselves and their workers, for the System page; each has a second to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.domain.errors import StoreOpsError

ANSWER_S_MAX = 1.5
AskDesk = Callable[[str], Awaitable[Mapping[str, Any]]]
"""A region's desk, as plain values (`storeops faces workers --json`). Raises RetryLater while it is away."""


@dataclass(frozen=True, slots=True)
class FaceWorkerFigures:
    """One worker."""

    n: int
    state: str
    device: str
    answered: int
    deaths: int


@dataclass(frozen=True, slots=True)
class FaceDeskFigures:
    """One region's desk, counted since it was started."""

    region: str
    waiting: int
    oldest_ms: int
    look_ms: float
    asked: int
    busy: int
    """Told that it is busy, at once or after they had waited."""
    workers: tuple[FaceWorkerFigures, ...]


async def look(ask: AskDesk | None, regions: Sequence[str]) -> list[FaceDeskFigures]:
    """Of each region's desk; one that does not answer within ANSWER_S_MAX is left out."""
    if ask is None:
        return []

    async def one(region: str) -> FaceDeskFigures | None:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return figures(await ask(region))
        except (StoreOpsError, TimeoutError):
            return None

    found = await asyncio.gather(*(one(region) for region in regions))
    return [desk for desk in found if desk is not None]


def figures(told: Mapping[str, Any]) -> FaceDeskFigures:
    """From a desk's plain values."""
    workers = tuple(
        FaceWorkerFigures(one["n"], one["state"], one.get("device", ""), one["answered"], one["deaths"])
        for one in told["workers"]
    )
    busy = told["shed"] + told["expired"]
    return FaceDeskFigures(
        told["region"], told["waiting"], told["oldest_ms"], told["look_ms"], told["asked"], busy, workers
    )
