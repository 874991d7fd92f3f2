"""The simulated shop's plan, and which seeds are run."""

from __future__ import annotations

import os

import pytest

from models.domain.plans import Plan
from tests.simulation.shops import shipped_plan

SEEDS = 50


def seeds(count: int, first: int = 0) -> list[int]:
    """`STOREOPS_SEED` runs that one alone."""
    one = os.environ.get("STOREOPS_SEED")
    return list(range(first, first + count)) if one is None else [int(one)]


@pytest.fixture(scope="session")
def plan() -> Plan:
    """The articles' plan, as shipped."""
    return shipped_plan()
