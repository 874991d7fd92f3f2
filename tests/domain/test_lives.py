"""All whole lives of the case file come out exactly, and their side effects keep the invariants."""

from __future__ import annotations

from typing import Any

import pytest

from models.domain.membership import HoldState
from tests.domain.lives import cases, live

CASES = cases()


def test_the_file_holds_the_articles_table_and_500_lives() -> None:
    assert len(CASES) == 504
    assert [case["name"] for case in CASES[:4]] == [
        f"article: {n} coupons used" for n in (5, 1, 0, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_life_comes_out_exactly_and_its_side_effects_add_up(case: dict[str, Any]) -> None:
    life = live(case)
    assert life.told() == case["expect"]
    numbers = [outcome.capture.number for outcome in life.outcomes if outcome.capture]
    captured = sum(outcome.collected_fen for outcome in life.outcomes)
    refunded = sum(outcome.refund_fen for outcome in life.outcomes)
    released = [outcome.release_hold_fen for outcome in life.outcomes if outcome.release_hold_fen]
    assert len(numbers) == len(set(numbers)), "a number is captured under once"
    assert numbers == ["Sm1G1", *(f"Sm1G1A{k}" for k in range(1, len(numbers)))][: len(numbers)]
    assert captured - refunded == life.membership.paid_fen
    assert sum(1 for outcome in life.outcomes if outcome.collected_fen) <= 1
    assert captured <= life.membership.guarantee.hold_fen
    assert len(released) <= 1
    assert life.membership.guarantee.hold is not HoldState.HELD, "captured or released before the end"
