"""Whole lives of the case file through the real system come out as the file says, to the fen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.domain.lives import cases
from tests.integration.money_lives import RealLife
from tests.integration.money_shop import RunningSimulator, Shop, open_shop, running_simulator

CASES = cases()
PARTS = 16


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
async def shop(migrated_database_url: str, simulator: RunningSimulator) -> AsyncIterator[Shop]:
    async with open_shop(migrated_database_url, simulator) as shop:
        yield shop


async def live_all(shop: Shop, numbers: list[int]) -> dict[str, Any]:
    """Those that came out differently, with what was expected."""
    wrong = {}
    for n in numbers:
        told = await RealLife(shop, f"{n:03d}", CASES[n]).told()
        if told != CASES[n]["expect"]:
            wrong[f"{n}: {CASES[n]['name']}"] = (told, CASES[n]["expect"])
    return wrong


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
async def test_every_life_comes_out_exactly(shop: Shop, part: int) -> None:
    assert await live_all(shop, list(range(part, len(CASES), PARTS))) == {}
