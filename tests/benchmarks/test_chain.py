"""The chain's rows from made-up points: what is promised, what grows, and its plot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.bench.chain_scale import BACKLOG_MESSAGES, MEASURED_S, Point, rows
from runtime.bench.form import Machine, report
from runtime.bench.growth import draw_growth, growth_of

MACHINE = Machine("cpu", 2, 8.0, "Linux", "3.11", (0.0, 0.0))
POINT = Point(
    stores=10,
    events=8_000,
    hosts_cpu_s=8.0,
    crews_cpu_s=4.0,
    rss_before_mib=200.0,
    rss_mib=201.0,
    reply_ms=[4.0, 5.0],
    screen_ms=[5.0] * 98 + [39.0, 39.0],
    bare_ms=[1.0, 2.0],
    storm_s=12.0,
    broker_back_s=0.5,
    drained_s=4.0,
    bare_drained_s=1.0,
)


def points() -> list[Point]:
    return [POINT, replace(POINT, stores=100), replace(POINT, stores=1_000, rss_mib=210.0)]


def test_the_promises_stand_at_the_largest_size() -> None:
    found = {one.what: one for one in rows(points())}
    assert (found["event to screen, p50"].value, found["event to screen, p99"].value) == (5.0, 39.0)
    assert found["hosts at 200 events/s"].value == 8.0 / MEASURED_S
    assert found["host CPU an event at 1000 stores"].value == 1_000
    assert found["host memory a store at 1000 stores"].value == 10.24
    assert found["host memory a store at 10 stores"].value == 102.4
    assert all(one.ok for one in found.values())


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"screen_ms": [10.5] * 100}, "event to screen, p50"),
        ({"screen_ms": [5.0] * 90 + [41.0] * 10}, "event to screen, p99"),
        ({"hosts_cpu_s": MEASURED_S * 0.51}, "hosts at 200 events/s"),
        ({"storm_s": 61.0}, "storm of 3,000 terminals settled"),
        ({"drained_s": 5.1}, f"{BACKLOG_MESSAGES} events drained"),
    ],
)
def test_a_missed_promise_is_missed(changes: dict[str, object], missed: str) -> None:
    found = rows([POINT, replace(POINT, stores=1_000, **changes)])  # type: ignore[arg-type]
    assert [one.what for one in found if not one.ok] == [missed]


def test_growth_is_drawn(tmp_path: Path) -> None:
    done = report("chain", MACHINE, rows(points()))
    assert set(growth_of(done)) == {
        "host CPU an event",
        "host memory a store",
        "event to screen, p50",
        "event to screen, p99",
    }
    plot = tmp_path / "growth.png"
    assert draw_growth(done, plot)
    assert plot.read_bytes().startswith(b"\x89PNG")
    small = report("small", MACHINE, rows([POINT])[:3])
    assert not draw_growth(small, tmp_path / "none.png")
