"""How often the rules err where nothing was changed: seeded A/A runs, small here, whole in docs/rollout-evidence.md."""

from __future__ import annotations

import pytest

from runtime.evidence_trial import Chain, Size, safety_trial, staggered_trial, trial

CHAIN = Chain()


def test_two_stores_err_as_often_as_they_may_and_a_plain_z_far_more() -> None:
    found = trial(Size(2, 2), CHAIN, runs=300, seed=20)
    assert found["wrong"]["low"] <= 0.05 < found["plain_z_wrong"]["low"]
    assert found["covered"]["high"] >= 0.95
    assert found["mde"] > 0.5, "two stores see large effects only"


def test_many_stores_err_as_often_as_they_may_and_see_what_they_say() -> None:
    found = trial(Size(50, 50), CHAIN, runs=300, seed=21)
    assert found["wrong"]["low"] <= 0.05
    assert found["covered"]["high"] >= 0.95
    assert found["found_at_mde"]["low"] <= 0.8 <= found["found_at_mde"]["high"]


def test_safety_errs_no_more_than_it_may_where_the_exact_test_alone_does() -> None:
    found = safety_trial(CHAIN, stores=2, days=3, runs=100, seed=22)
    assert found["wrong"]["low"] <= 0.05 < found["events_one_by_one"]["low"]
    assert found["found_at_5x"]["share"] > 0.95


def test_staggered_intervals_hold_the_effect() -> None:
    found = staggered_trial(CHAIN, stores=16, waves=3, runs=40, seed=23, effect=0.1)
    assert found["covered"]["high"] >= 0.95


@pytest.mark.soak
@pytest.mark.parametrize("stores", [2, 50, 100])
def test_the_whole_table(stores: int) -> None:
    found = trial(Size(stores, stores), CHAIN, runs=2_000, seed=24)
    assert found["wrong"]["low"] <= 0.05
    assert found["covered"]["high"] >= 0.95
    assert found["found_at_mde"]["low"] <= 0.8 <= found["found_at_mde"]["high"]
