"""The chain's rows from made-up points: what is promised, what grows, and its plot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.domain.errors import Bug
from models.domain.ids import RegionId
from runtime.bench import durable, runtime
from runtime.bench.bare_mqtt import Peer, Queue
from runtime.bench.chain_scale import BACKLOG_MESSAGES, MEASURED_S, Point, rows
from runtime.bench.form import Machine, report
from runtime.bench.growth import draw_growth, growth_of
from runtime.broker import EmbeddedBroker
from runtime.plant import Plant
from tests.benchmarks.test_runtime import figures

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


def test_a_chains_rows_are_in_the_runtime_report_under_their_own_names() -> None:
    """Whoever reads `bench runtime --json` finds the promises of a chain too, and its growth."""
    host = durable.rows(figures(), figures(3_000.0, 100.0, 1.0, 1.0))
    mine = runtime.chain_rows(points())
    assert [one.what.removeprefix("chain: ") for one in mine] == [one.what for one in rows(points())]
    assert not {one.what for one in mine} & {one.what for one in host}
    done = report("runtime", MACHINE, [*host, *mine])
    assert {one.what for one in done.results if one.target and one.what.startswith("chain: ")} == {
        "chain: event to screen, p50",
        "chain: event to screen, p99",
        "chain: hosts at 200 events/s",
        "chain: storm of 3,000 terminals settled",
        "chain: 12000 events drained",
    }
    assert len(growth_of(done)) == 4


@pytest.mark.integration
async def test_the_queue_beside_a_backlog_is_taken_by_nobody_before(shared_broker: EmbeddedBroker) -> None:
    info = shared_broker.info
    plant = Plant(
        Path(),
        region=RegionId("bench-queue"),
        broker_host=info.host,
        broker_port=info.port,
        broker_user=info.username,
        broker_password=info.password,
    )
    queue, sender = Queue(plant), Peer(plant, "sender", lambda _: None)
    await sender.start("bench-queue/none")
    try:
        await queue.leave()
        for n in range(50):
            await sender.link.publish("so/1/bench-queue/00/s/t/up/event", str(n).encode())
        assert queue._heard == 0
        queue._heard = 1
        with pytest.raises(Bug, match="while the client was away"):
            await queue.empty(50, 20.0)
        queue._heard = 0
        assert 0 < await queue.empty(50, 20.0) < 20.0
    finally:
        await queue.stop()
        await sender.link.stop()


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
