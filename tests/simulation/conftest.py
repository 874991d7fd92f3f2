"""The simulated shop's plan, and which seeds are run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from models.domain.plans import Plan, plan_from_dict

SEEDS = 50
SOAK_SEEDS = int(os.environ.get("STOREOPS_SOAK_SEEDS", "100"))


def seeds(count: int, first: int = 0) -> list[int]:
    """`STOREOPS_SEED` runs that one alone."""
    one = os.environ.get("STOREOPS_SEED")
    return list(range(first, first + count)) if one is None else [int(one)]


@pytest.fixture(scope="session")
def plan() -> Plan:
    """The articles' plan, as shipped."""
    path = Path(__file__).parents[2] / "configs" / "plans" / "light-10.yaml"
    return plan_from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))
