"""`storeops bench rollouts`: each promise can be missed, and a small chain is measured on a real database."""

from __future__ import annotations

import pytest

from runtime.bench.rollouts import Measured, Times, measure, plant, rows
from runtime.postgres import EmbeddedPostgres
from tests.conftest import fresh_database


def measured(**slow: Times | list[float]) -> Measured:
    quick = {name: Times([20.0], [50.0]) for name in ("still", "lively", "first", "rules", "bare")}
    return Measured(**{**quick, "rehearsed_s": [4.0], **slow})  # type: ignore[arg-type]


def test_the_promises() -> None:
    made = rows(measured(), 1_000)
    assert [one.target for one in made] == ["<= 100"] * 4 + [None] * 2 + ["<= 100", "<= 30"]
    assert all(one.ok for one in made)


@pytest.mark.parametrize(
    ("slow", "missed"),
    [
        ({"still": Times([101.0], [120.0])}, [0, 1]),
        ({"lively": Times([90.0], [101.0])}, [3]),
        ({"rules": Times([101.0], [101.0])}, [6]),
        ({"rehearsed_s": [31.0]}, [7]),
    ],
)
def test_each_can_be_missed(slow: dict[str, Times | list[float]], missed: list[int]) -> None:
    assert [n for n, one in enumerate(rows(measured(**slow), 1_000)) if not one.ok] == missed


@pytest.mark.soak
async def test_a_small_chain(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> None:
    with fresh_database(embedded_postgres, migrated_template) as url:
        plant(url, 120)
        found = await measure(url, 9)
    assert [len(one.cpu_ms) for one in (found.still, found.lively, found.bare, found.rules, found.first)] == [9] * 4 + [
        2
    ]
