"""What `storeops bench slice` says about what it measured; the measuring itself is not a test."""

from __future__ import annotations

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from models.domain.errors import NeedsOperator
from runtime.bench import cli
from runtime.bench import slice as slice_bench
from runtime.bench.form import Report
from runtime.bench.latency import Waits
from runtime.bench.slice import Starts, rows
from runtime.bench.starts import UpHouse
from tests.benchmarks.reports import small_report


def measured(console_s: float = 2.0, event_ms: float = 10.0, slow_ms: float = 40.0, face_ms: float = 50.0) -> Report:
    starts = Starts([1.0, console_s, 9.0], [12.0, 11.0, 60.0], [0.7, 0.8, 0.9], [5.0, 4.0, 6.0])
    waits = Waits([event_ms] * 390 + [slow_ms] * 10, [1.0] * 400, [2.0] * 400, [face_ms] * 80, [40.0] * 80, 80)
    return Report("slice", True, small_report().machine, tuple(rows(starts, waits)))


def test_the_promises_of_the_slice() -> None:
    promised = {one.what: (one.target, one.value) for one in measured().results if one.target is not None}
    assert promised == {
        "console answers, from exec, warm": ("<= 3", 2.0),
        "ready, from exec, warm": ("<= 30", 12.0),
        "event to screen, p50": ("<= 15", 10.0),
        "event to screen, p99": ("<= 60", 40.0),
        "face to screen, p50": ("<= 80", 50.0),
    }


@pytest.mark.parametrize(
    ("slow", "what"),
    [
        ({"console_s": 3.1}, "console answers, from exec, warm"),
        ({"event_ms": 15.1}, "event to screen, p50"),
        ({"slow_ms": 61.0}, "event to screen, p99"),
        ({"face_ms": 81.0}, "face to screen, p50"),
    ],
)
def test_each_promise_can_be_missed(slow: dict[str, float], what: str) -> None:
    assert all(one.ok for one in measured().results)
    assert [one.what for one in measured(**slow).results if not one.ok] == [what]


@pytest.mark.parametrize(("value_ms", "code"), [(12.0, 0), (16.0, 1)])
@pytest.mark.parametrize("verb", ["slice", "all"])
def test_the_object_comes_last_and_the_exit_code_tells(
    value_ms: float, code: int, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_bench, "run", lambda _console: small_report(value_ms))
    monkeypatch.setattr(cli, "BENCHES", {"slice": cli.BENCHES["slice"]})
    done = CliRunner().invoke(cli.bench_app, [verb, "--json"])
    assert done.exit_code == code
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["ok"] is (code == 0)


def test_a_house_that_does_not_come_up_is_an_error_and_not_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object) -> None:
        raise NeedsOperator("exited", "up ended", "see its log")

    monkeypatch.setattr(UpHouse, "start", broken)
    with pytest.raises(NeedsOperator, match="up ended"):
        slice_bench.run(Console(quiet=True))
