"""Every crash point of settlement, with a provider that does everything a provider does: money.md's invariants hold.

252 schedules in `make test`, from four seeds; all that can be enumerated, and more drawn ones, with `make soak`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.simulation.settlement_rows import in_memory
from tests.simulation.settlement_schedules import Schedule, play
from tests.simulation.settlement_world import MemoryWorld, drawn, enumerated

DRAWN = 252
DRAWN_IN_SOAK = 10_000
ENUMERATED_MIN = 10_000


@pytest.fixture(autouse=True)
def rows_in_memory() -> Iterator[None]:
    with in_memory():
        yield


async def played(schedules: list[Schedule]) -> set[str]:
    begun: set[str] = set()
    for schedule in schedules:
        begun |= (await play(schedule, MemoryWorld())).begun
    return begun


@pytest.mark.parametrize("seed", range(4))
def test_settlement_ends_right_whatever_dies_on_the_way(seed: int) -> None:
    rng = random.Random(seed)
    begun = asyncio.run(played([drawn(rng) for _ in range(DRAWN // 4)]))
    assert begun == {"crash", "early", "reversal", "beside"}, "nothing of the schedules happened"


@pytest.mark.soak
def test_every_crash_point_of_settlement() -> None:
    async def all_of_them() -> int:
        count = 0
        async for schedule in enumerated():
            await play(schedule, MemoryWorld())
            count += 1
        return count

    assert asyncio.run(all_of_them()) >= ENUMERATED_MIN


@pytest.mark.soak
def test_anything_together_with_anything() -> None:
    rng = random.Random(2027)
    asyncio.run(played([drawn(rng) for _ in range(DRAWN_IN_SOAK)]))
