"""Whole lives of the case file through the real system come out as the file says, to the fen."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.domain.lives import cases
from tests.integration.money_lives import RealLife, collected_after_all
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


def features(case: dict[str, Any]) -> set[str]:
    """What a life has that some other has not: how it ends, and every kind of event in it."""
    expect = case["expect"]
    found = {f"state {expect['state']}", f"branch {expect['branch']}"}
    found |= {f"class {one}" for one in expect["classes"].values()}
    found |= {name for name in ("refunds_fen", "absorbed_fen", "given_up_fen", "refused_cancels") if expect[name]}
    answers = [event["answer"] for event in case["events"] if event["type"] == "provider"]
    found |= {f"answers {one} {two}" for one, two in pairwise(answers)}
    for event in case["events"]:
        found.add(" ".join(str(event[name]) for name in ("type", "answer", "by", "offline") if name in event))
    if collected_after_all(case):
        found.add(f"collected after all, {expect['state']}")
    return found


def sample(seed: int, count: int) -> list[int]:
    """`count` lives that have every feature of all 504 between them."""
    shuffled = random.Random(seed).sample(range(len(CASES)), len(CASES))
    found = {n: features(CASES[n]) for n in shuffled}
    missing = set().union(*found.values())
    chosen: list[int] = []
    while missing:
        chosen.append(max(shuffled, key=lambda n: len(found[n] & missing)))
        missing -= found[chosen[-1]]
    return (chosen + [n for n in shuffled if n not in chosen])[:count]


async def live_all(shop: Shop, numbers: list[int]) -> dict[str, Any]:
    """Those that came out differently, with what was expected."""
    wrong = {}
    for n in numbers:
        told = await RealLife(shop, f"{n:03d}", CASES[n]).told()
        if told != CASES[n]["expect"]:
            wrong[f"{n}: {CASES[n]['name']}"] = (told, CASES[n]["expect"])
    return wrong


async def test_lives_of_every_kind_come_out_exactly(shop: Shop) -> None:
    numbers = sample(seed=5, count=10)
    assert {CASES[n]["expect"]["state"] for n in numbers} == {case["expect"]["state"] for case in CASES}
    assert await live_all(shop, numbers) == {}


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
async def test_every_life_comes_out_exactly(shop: Shop, part: int) -> None:
    assert await live_all(shop, list(range(part, len(CASES), PARTS))) == {}
