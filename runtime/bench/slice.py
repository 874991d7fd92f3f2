"""`storeops bench slice`: the first promises, on a house of its own that is stopped again at the end.

Start-up: exec to answer, several times, in turn with a bare FastAPI app and a bare Ray. Then the last house stays
up for one customer at a time.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.faces.pipeline import FacePipeline
from runtime import administration
from runtime.bench.form import Report, Row, curve, load_now, machine, quantile, report, row
from runtime.bench.latency import Counter, OneCustomer, Waits
from runtime.bench.starts import UpHouse, bare_ray_s, hello_s
from runtime.chains import read_chain
from runtime.photos import Photographs, demo_photographs
from runtime.plant import Plant, read_plant
from runtime.settings import CONFIGS

NAME = "slice"
STARTS = 3
EVENTS = 400
FACES = 80
STORES = ("gz-tianhe", "sz-futian")
"""Two stores of the demonstration's chain whose baskets are ours."""
FULL_MEAL_FEN = 1590
WHEEL_DIR = CONFIGS.parent / "var" / "photos"

Advance = Callable[[str], None]


@dataclass(slots=True)
class Starts:
    """Seconds of each start."""

    console: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    hello: list[float] = field(default_factory=list)
    ray: list[float] = field(default_factory=list)


def run(console: Console) -> Report:
    """Measure. About three minutes on two cores; raises NeedsOperator when a part does not come up."""
    load_before = load_now()
    with _progress(console) as advance, tempfile.TemporaryDirectory(prefix="so-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's user walks through it when we are root
        house = UpHouse(folder)
        try:
            starts, counters = _starts(house, advance)
            waits = asyncio.run(_latency(read_plant(house.data), counters, folder, advance))
        finally:
            house.stop()
    quantiles = {
        "event to screen, ms": curve(waits.event_to_screen),
        "MQTT round trip, ms": curve(waits.mqtt_round_trip),
        "commit, ms": curve(waits.commit),
        "face to screen, ms": curve(waits.face_to_screen),
        "bare look, ms": curve(waits.bare_look),
    }
    return report(NAME, machine(load_before), rows(starts, waits), quantiles)


def rows(starts: Starts, waits: Waits) -> list[Row]:
    """The promises of the slice, and what else explains them."""
    hello = ("bare FastAPI app, exec to answer", statistics.median(starts.hello))
    ray = ("bare ray.init, exec to return", statistics.median(starts.ray))
    event, face = waits.event_to_screen, waits.face_to_screen

    def beside(per_cent: int, name: str, samples: list[float]) -> tuple[str, float]:
        return f"{name}, p{per_cent}", quantile(samples, per_cent)

    def mqtt(per_cent: int) -> tuple[str, float]:
        return beside(per_cent, "bare MQTT round trip, QoS 1", waits.mqtt_round_trip)

    def commit(per_cent: int) -> tuple[str, float]:
        return beside(per_cent, "bare commit of one row, fsync", waits.commit)

    def look(per_cent: int) -> tuple[str, float]:
        return beside(per_cent, "bare look in process", waits.bare_look)

    return [
        row("console answers, from exec, warm", statistics.median(starts.console), "s", *hello, "<= 3"),
        row("ready, from exec, warm", statistics.median(starts.ready), "s", *ray, "<= 30"),
        row("event to screen, p50", quantile(event, 50), "ms", *mqtt(50), "<= 15"),
        row("event to screen, p99", quantile(event, 99), "ms", *mqtt(99), "<= 60"),
        row("event to screen, p50, by commits", quantile(event, 50), "ms", *commit(50)),
        row("event to screen, p99, by commits", quantile(event, 99), "ms", *commit(99)),
        row("face to screen, p50", quantile(face, 50), "ms", *look(50), "<= 80"),
        row("face to screen, p99", quantile(face, 99), "ms", *look(99)),
    ]


# ---------------------------------------------------------------- start-up


def _starts(house: UpHouse, advance: Advance) -> tuple[Starts, list[Counter]]:
    """One cold start to make the folder and register terminals, then warm ones; the last house stays up."""
    starts = Starts()
    house.start()
    counters = asyncio.run(_register(read_plant(house.data)))
    house.stop()
    advance("cold start")
    for n in range(STARTS):
        starts.hello.append(hello_s())
        starts.ray.append(bare_ray_s())
        times = house.start()
        starts.console.append(times.console_s)
        starts.ready.append(times.ready_s)
        if n < STARTS - 1:
            house.stop()
        advance(f"start {n + 1}: console {times.console_s:.1f} s, ready {times.ready_s:.1f} s")
    return starts, counters


async def _register(plant: Plant) -> list[Counter]:
    counters = []
    for store in STORES:
        added = await administration.add_terminal(plant, store, "bench", "face", "dragonfly-2", None)
        counters.append(Counter(str(added["client_id"]), store, str(added["secret"])))
    return counters


# ---------------------------------------------------------------- one customer


async def _latency(plant: Plant, counters: list[Counter], folder: Path, advance: Advance) -> Waits:
    people = await asyncio.to_thread(_people, plant)
    chain = read_chain(CONFIGS / "chains" / "demo.yaml")
    codes = [item.code for item in chain.items if not item.flags and item.unit_fen < FULL_MEAL_FEN]
    customer = OneCustomer(plant, counters, folder, lambda: advance("one customer at a time"))
    await customer.start()
    try:
        await customer.events(codes, EVENTS)
        await customer.enrol(people.members)
        await customer.faces(people.members, FACES)
    finally:
        await customer.stop()
    return customer.waits


def _people(plant: Plant) -> Photographs:
    return demo_photographs(plant.faces_cache, WHEEL_DIR, FacePipeline.from_cache(plant.faces_cache))


# ---------------------------------------------------------------- small things


@contextmanager
def _progress(console: Console) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("cold start", total=1 + STARTS + EVENTS + FACES)

        def advance(what: str) -> None:
            shown.update(task, advance=1, description=what)

        yield advance
