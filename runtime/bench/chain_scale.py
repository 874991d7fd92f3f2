"""`storeops bench chain`: what a chain costs as it grows to 1,000 stores x 3 terminals, and how it takes a storm.

The same run at 10, 100 and 1,000 stores, each on a house of its own: 200 events a second of scans and cash, every
shop open. Then, at the largest: the broker is killed and 3,000 terminals come back; and a frozen host finds 12,000
events when it thaws. Beside each, bare MQTT through the same broker with the same connections.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from devices.fleet.checks import violations
from devices.fleet.orders import Day
from models.domain.errors import Bug, NeedsOperator
from runtime import fleet_books
from runtime.administration import running
from runtime.bench.bare_mqtt import Queue, RoundTrips
from runtime.bench.form import Report, Row, curve, load_now, machine, quantile, report, row
from runtime.bench.starts import UpHouse
from runtime.fleet import FleetPlan, attach, order_of
from runtime.fleet_chain import fleet_chain
from runtime.fleet_crews import Crews
from runtime.fleet_parts import Parts, data_folder
from runtime.plant import Plant

NAME = "chain"
STORES = (10, 100, 1_000)
TERMINALS = 3
RATE_PER_S = 200.0
WARM_S = 8.0
MEASURED_S = 40.0
IDLE_S = 5.0
BACKLOG_MESSAGES = 12_000
STORM_S_MAX = 180.0
DRAIN_S_MAX = 120.0


@dataclass(slots=True)
class Point:
    """One size. Milliseconds, seconds, MiB."""

    stores: int
    events: int = 0
    hosts_cpu_s: float = 0.0
    crews_cpu_s: float = 0.0
    idle_core: float = 0.0
    rss_before_mib: float = 0.0
    rss_mib: float = 0.0
    reply_ms: list[float] = field(default_factory=list)
    screen_ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)
    storm_s: float = 0.0
    broker_back_s: float = 0.0
    drained_s: float = 0.0
    bare_drained_s: float = 0.0

    @property
    def cpu_us(self) -> float:
        """Host CPU an event, in microseconds."""
        return self.hosts_cpu_s / max(1, self.events) * 1e6


def run(console: Console) -> Report:
    """Measure. About seven minutes on two cores. Raises Bug `fleet_violated` when the books do not agree."""
    load_before = load_now()
    points = measure_points(console)
    return report(NAME, machine(load_before), rows(points), curves(points))


def measure_points(console: Console) -> list[Point]:
    """Each size on a house of its own, the smallest first. Raises as `run`."""
    points = []
    for stores in STORES:
        with tempfile.TemporaryDirectory(prefix="so-bench-") as name:
            folder = Path(name)
            folder.chmod(0o755)  # the database's user walks through it when we are root
            points.append(_measure(stores, folder, console))
    return points


def curves(points: list[Point]) -> dict[str, tuple[float, ...]]:
    """For the plots: at the largest size."""
    largest = points[-1]
    return {
        "event to screen, ms": curve(largest.screen_ms),
        "event to reply, ms": curve(largest.reply_ms),
        "bare MQTT, there and back, ms": curve(largest.bare_ms),
    }


def rows(points: list[Point]) -> list[Row]:
    """The promises at the largest size, then the growth from the smallest."""
    large, small = points[-1], points[0]
    bare = "bare MQTT there and back, same connections"
    cores = large.hosts_cpu_s / MEASURED_S
    found = [
        row(
            f"event to screen, p{per_cent}",
            quantile(large.screen_ms, per_cent),
            "ms",
            f"{bare}, p{per_cent}",
            quantile(large.bare_ms, per_cent),
            target,
        )
        for per_cent, target in ((50, "<= 10"), (99, "<= 40"))
    ]
    load = ("the terminals' side", large.crews_cpu_s / MEASURED_S)
    found.append(row("hosts at 200 events/s", cores, "core", *load, "<= 0.5"))
    back = ("the killed broker answers again", large.broker_back_s)
    found.append(row("storm of 3,000 terminals settled", large.storm_s, "s", *back, "<= 60"))
    queue = ("the same queue into a client that does nothing", large.bare_drained_s)
    found.append(row(f"{BACKLOG_MESSAGES} events drained", large.drained_s, "s", *queue, "<= 5"))
    for point in points:
        at = f"at {point.stores} stores"
        per_store = max(0.001, (point.rss_mib - point.rss_before_mib) * 1024 / point.stores)
        smallest = max(0.001, (small.rss_mib - small.rss_before_mib) * 1024 / small.stores)
        first = f"at {small.stores} stores"
        found += [
            row(f"host CPU an event {at}", point.cpu_us, "µs", first, small.cpu_us),
            row(f"host memory a store {at}", per_store, "KiB", first, smallest),
            row(
                f"event to screen, p50 {at}",
                quantile(point.screen_ms, 50),
                "ms",
                f"{bare}, p50",
                quantile(point.bare_ms, 50),
            ),
            row(
                f"event to screen, p99 {at}",
                quantile(point.screen_ms, 99),
                "ms",
                f"{bare}, p99",
                quantile(point.bare_ms, 99),
            ),
        ]
    return found


# ---------------------------------------------------------------- one size


def _measure(stores: int, folder: Path, console: Console) -> Point:
    house = UpHouse(folder)
    house.start()
    try:
        point = asyncio.run(_play(stores, running(house.data, demo=False), console))
    finally:
        house.stop()
    return point


async def _play(stores: int, plant: Plant, console: Console) -> Point:
    point = Point(stores)
    chain = fleet_chain(stores, TERMINALS)
    key = await attach(plant, chain)
    plan = FleetPlan(stores, TERMINALS, RATE_PER_S, MEASURED_S, (), seed=stores, flat=True)
    order = replace(order_of(plan, plant, chain, key), cash_only=True, resend_first_s=60.0)
    since = await fleet_books.mark(plant)
    crews = Crews(order, data_folder(plant))
    trips = RoundTrips(plant)
    parts = Parts(plant)
    point.rss_before_mib = parts.host_rss_mib()
    try:
        await crews.start()
        took = await crews.connect()
        console.print(f"· {stores} stores: {stores * TERMINALS} terminals connected in {took:.1f} s", markup=False)
        before = parts.host_cpu_s()
        await asyncio.sleep(IDLE_S)
        point.idle_core = (parts.host_cpu_s() - before) / IDLE_S
        await crews.day(Day(WARM_S, RATE_PER_S, flat=True))
        await trips.start()
        await crews.measure(on=True)
        events, hosts, load = crews.tick.events, parts.host_cpu_s(), crews.cpu_s
        await crews.day(Day(MEASURED_S, RATE_PER_S, flat=True))
        await asyncio.sleep(0.6)  # the crews' next tick
        point.events = crews.tick.events - events
        point.hosts_cpu_s, point.crews_cpu_s = parts.host_cpu_s() - hosts, crews.cpu_s - load
        point.bare_ms = await trips.stop()
        point.rss_mib = parts.host_rss_mib()
        await crews.measure(on=False)
        evidence = await crews.report()
        point.reply_ms = [ms for one in evidence for ms in one.reply_ms]
        point.screen_ms = [ms for one in evidence for ms in one.screen_ms]
        _say(console, point)
        if stores == STORES[-1]:
            await _storm(point, plant, crews, console)
            await _backlog(point, plant, crews, console)
        await crews.quiet(60.0)
        await fleet_books.quiet(plant)
        found = violations(
            await crews.report(), await fleet_books.read_books(plant, [store.id for store in chain.stores], since)
        )
        if found:
            raise Bug("fleet_violated", f"{len(found)} violations, the first: {found[0]}")
    finally:
        await crews.stop()
    return point


def _say(console: Console, point: Point) -> None:
    console.print(
        f"· {point.stores} stores: {point.events / MEASURED_S:.0f} events/s, screen p50"
        f" {quantile(point.screen_ms, 50):.1f} ms, p99 {quantile(point.screen_ms, 99):.1f} ms, bare"
        f" {quantile(point.bare_ms, 50):.1f} ms, hosts {point.hosts_cpu_s / MEASURED_S:.2f} core"
        f" ({point.idle_core:.3f} idle), {point.cpu_us:.0f} µs an event, {point.rss_mib:.0f} MiB;"
        f" load side {point.crews_cpu_s / MEASURED_S:.2f} core",
        markup=False,
    )


async def _storm(point: Point, plant: Plant, crews: Crews, console: Console) -> None:
    """The broker is killed; settled: every terminal is back and a visit in each hundredth lane has been served."""
    victim = Parts(plant).broker()
    trips = RoundTrips(plant)
    began = time.monotonic()
    victim.kill()
    while True:
        try:
            await trips.start()
        except TimeoutError:
            continue
        break
    point.broker_back_s = time.monotonic() - began
    await trips.stop()
    await asyncio.sleep(0.5)  # every agent knows by then that its connection ended
    await crews.settled(STORM_S_MAX)
    await crews.day(Day(1.0, 20.0, flat=True))
    await crews.settled(STORM_S_MAX)
    point.storm_s = time.monotonic() - began
    console.print(f"· storm settled after {point.storm_s:.1f} s", markup=False)


async def _backlog(point: Point, plant: Plant, crews: Crews, console: Console) -> None:
    """The hosts are frozen while a minute's events pile up at the broker; the time from thaw to the last reply."""
    queue = Queue(plant)
    await queue.leave()
    hosts = Parts(plant).hosts()
    if not hosts:
        raise NeedsOperator("no_hosts", "no host runs", "see the house's log")
    for host in hosts:
        os.kill(host.pid, signal.SIGSTOP)
    try:
        piled_s = await crews.pile_up(BACKLOG_MESSAGES)
    finally:
        thawed = time.monotonic()
        for host in hosts:
            os.kill(host.pid, signal.SIGCONT)
    point.drained_s = await crews.drained(DRAIN_S_MAX) - thawed
    point.bare_drained_s = await queue.empty(BACKLOG_MESSAGES, DRAIN_S_MAX)
    await queue.stop()
    text = f"piled up in {piled_s:.1f} s, drained in {point.drained_s:.2f} s, bare {point.bare_drained_s:.2f} s"
    console.print(f"· backlog {text}", markup=False)
