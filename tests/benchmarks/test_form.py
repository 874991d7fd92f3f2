"""The form of results: what is written can be read, and what was changed by hand is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import Refused
from runtime.bench.form import QUANTILES, curve, encode, load_now, machine, parse, quantile, report, row
from tests.benchmarks.reports import MACHINE, small_report


def test_the_object_has_the_documented_fields() -> None:
    document = json.loads(encode(small_report()))
    assert set(document) == {"bench", "ok", "machine", "results", "quantiles"}
    for one in document["results"]:
        assert set(one) == {"what", "value", "unit", "baseline", "baseline_value", "ratio", "target", "ok"}
    assert document["results"][0]["ratio"] == 8.0
    assert document["results"][2]["target"] is None
    assert "\n" not in encode(small_report())


def test_what_is_written_can_be_read() -> None:
    assert parse(encode(small_report())) == small_report()


@pytest.mark.parametrize(
    ("target", "value", "baseline_value", "ok"),
    [
        ("<= 15", 15.0, 1.0, True),
        ("<= 15", 15.01, 1.0, False),
        (">= 2000", 2000.0, 1.0, True),
        (">= 2000", 1999.0, 1.0, False),
        (">= 0.6 x", 6.0, 10.0, True),
        (">= 0.6 x", 5.9, 10.0, False),
        ("<= 1.2 x", 12.1, 10.0, False),
        (None, 1e9, 1.0, True),
    ],
)
def test_a_target_decides(target: str | None, value: float, baseline_value: float, ok: bool) -> None:
    assert row("x", value, "ms", "y", baseline_value, target).ok is ok


def test_one_missed_row_is_a_missed_benchmark() -> None:
    assert small_report(15.0).ok
    assert not small_report(16.0).ok


@pytest.mark.parametrize("wrong", ["< 15", "15", "<= x", "<= 15 ms"])
def test_a_target_that_is_none_is_an_error(wrong: str) -> None:
    with pytest.raises(ValueError, match="no target"):
        row("x", 1.0, "ms", "y", 1.0, wrong)


@pytest.mark.parametrize(("value", "baseline"), [(float("nan"), 1.0), (1.0, float("inf")), (1.0, 0.0), (1.0, -1.0)])
def test_a_figure_that_is_none_is_an_error(value: float, baseline: float) -> None:
    with pytest.raises(ValueError, match="no measurement"):
        row("x", value, "ms", "y", baseline)


def changed(**top: Any) -> str:
    return json.dumps(json.loads(encode(small_report())) | top)


def test_what_was_changed_by_hand_is_refused() -> None:
    first, *others = json.loads(encode(small_report(16.0)))["results"]
    for text in (
        changed(ok=False),
        changed(results=[]),
        changed(results=[first | {"ok": True}, *others]),
        changed(results=[first | {"ratio": 1.0}, *others]),
        changed(results=[first | {"value": "16"}, *others]),
        changed(results=[{"what": "x"}]),
        changed(quantiles={"x": [1.0]}),
        changed(quantiles={"x": list(range(len(QUANTILES), 0, -1))}),
        changed(host="shop-7"),
        "[]",
    ):
        with pytest.raises(Refused) as refused:
            parse(text)
        assert refused.value.code == "bench_form"


@given(
    st.floats(0, 1e9),
    st.floats(1e-9, 1e9),
    st.sampled_from([None, "<= 15", ">= 2000", "<= 1.5 x", ">= 0.9 x"]),
)
def test_rounding_never_breaks_the_form(value: float, baseline: float, target: str | None) -> None:
    done = report("any", MACHINE, [row("x", value, "ms", "y", baseline, target)])
    assert parse(encode(done)) == done


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(0, 100))
def test_a_quantile_is_a_sample_and_splits_them(samples: list[float], per_cent: int) -> None:
    found = quantile(samples, per_cent)
    assert found in samples
    assert sum(sample <= found for sample in samples) * 100 >= per_cent * len(samples)
    assert list(curve(samples)) == sorted(curve(samples))


def test_quantiles_by_nearest_rank() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert [quantile(hundred, p) for p in (0, 1, 50, 99, 100)] == [1.0, 1.0, 50.0, 99.0, 100.0]
    with pytest.raises(ValueError, match="no samples"):
        quantile([], 50)


def test_the_machine_is_described_without_a_name() -> None:
    seen = machine(load_now())
    assert seen.cores >= 1
    assert seen.memory_gib > 0
    assert seen.cpu
    assert len(seen.load_1m) == 2
