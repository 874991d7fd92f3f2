"""What the seeded runs have in common: who comes to the simulated shop, and its plan."""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import cache
from pathlib import Path

import yaml

from models.domain.plans import Plan, plan_from_dict
from runtime.testing.shop import ShopSimulation
from runtime.testing.visits import shopping

PEOPLE = ["ann", "bob", "cyd", "dan"]
VISITS = 5
"""At each of the three counters."""


@cache
def shipped_plan() -> Plan:
    """The articles' plan, as shipped."""
    path = Path(__file__).parents[2] / "configs" / "plans" / "light-10.yaml"
    return plan_from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))


async def go_shopping(shop: ShopSimulation) -> None:
    """Three counters at the same time, each with customers of its own; all of it drawn from the seed."""
    numbers = itertools.count(1)
    counters = (shop.ours, shop.second, shop.tills)
    await asyncio.gather(
        *(
            shopping(
                counter, shop.wallet, PEOPLE, random.Random(f"{shop.seed}/{n}"), VISITS, lambda: f"txn-{next(numbers)}"
            )
            for n, counter in enumerate(counters)
        )
    )
