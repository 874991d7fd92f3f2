"""`storeops bench money`, tiny: every part comes up, the books agree, and each promise can be missed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from runtime.bench import money, money_captures
from runtime.bench.money import Ground
from runtime.bench.money_captures import Captures
from runtime.bench.money_ledger import Side, rows
from runtime.postgres import EmbeddedPostgres

BARE = Side(1_000_000, 20.0, 20.0)
TWO = Side(1_000_000, 28.0, 50.0)
PAIR = (Side(50_000, 1.0, 2.0), Side(50_000, 1.7, 2.0))
AT_PACE = (Side(4_000, 0.5, 1.0, asking_s=9.5), Side(4_000, 0.5, 1.0, asking_s=16.5))


def test_the_promises_of_the_ledger_side() -> None:
    made = rows(BARE, TWO, PAIR, AT_PACE)
    assert [one.target for one in made] == ["<= 30", ">= 0.5 x", None, ">= 1.6 x", ">= 1.6 x"]
    assert all(one.ok for one in made)


@pytest.mark.parametrize(
    ("two", "pair", "at_pace", "missed"),
    [
        (Side(1_000_000, 31.0, 60.0), PAIR, AT_PACE, [0]),
        (Side(1_000_000, 41.0, 80.0), PAIR, AT_PACE, [0, 1]),
        (TWO, (PAIR[0], Side(50_000, 1.5, 1.5)), AT_PACE, [3]),
        (TWO, PAIR, (AT_PACE[0], Side(4_000, 0.5, 1.0, asking_s=14.5)), [4]),
    ],
)
def test_each_can_be_missed(two: Side, pair: tuple[Side, Side], at_pace: tuple[Side, Side], missed: list[int]) -> None:
    assert [n for n, one in enumerate(rows(BARE, two, pair, at_pace)) if not one.ok] == missed


def test_captures_are_told_beside_the_adapters_and_signing_beside_the_workers_cpu() -> None:
    alone, settled = Captures(800, 800, 2.0, 1.0), Captures(900, 800, 4.0, 1.8)
    rates, shares = money_captures.rows(alone, settled, signatures_a_core=1_000.0)
    assert (rates.value, rates.baseline_value, rates.ratio) == (200, 400, 0.5)
    assert (shares.value, shares.baseline_value, shares.ratio) == (1_000, 2_000, 0.5), "microseconds a call"


@pytest.mark.parametrize("name", money.PARTS)
def test_each_part_is_a_module_of_the_form(name: str) -> None:
    part = importlib.import_module(money.PARTS[name])
    assert part.STEPS >= 1
    assert callable(part.measure)


@pytest.mark.soak
def test_every_part_tiny(embedded_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    steps: list[str] = []
    parts = [importlib.import_module(name) for name in money.PARTS.values()]
    made = [one for part in parts for one in part.measure(Ground(tmp_path, embedded_postgres, 160), steps.append)]
    assert len(steps) == sum(part.STEPS for part in parts)
    assert all(one.value >= 0 for one in made)
