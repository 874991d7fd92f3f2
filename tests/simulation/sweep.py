"""Many seeds of the simulated shop, spread over cores: `python -m tests.simulation.sweep --seeds 10000`.

Each seed is a whole story in virtual time under foul weather, audited at every step. A seed that breaks an invariant
is printed; `STOREOPS_SEED=17 pytest tests/simulation -k foul` runs it again, step by step the same. Exit code 1 when
one did. `--minutes` ends the sweep early; the report says how far it came.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime.testing.invariants import InvariantBroken
from runtime.testing.shop import FOUL, ShopSimulation
from tests.simulation.shops import go_shopping, shipped_plan

FIRST_SEED = 100_000
"""Far from the seeds that the tests run every day."""


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What one story was: how often its host died, what was sold; `broken` is empty when every invariant held."""

    seed: int
    deaths: int
    sales: int
    broken: str = ""


@dataclass(slots=True)
class SweepReport:
    """Totals. `violations`: the broken seeds with what broke."""

    seeds: int = 0
    deaths: int = 0
    sales: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def add(self, one: SeedResult) -> None:
        self.seeds += 1
        self.deaths += one.deaths
        self.sales += one.sales
        if one.broken:
            self.violations.append(one.broken)


def run_seed(seed: int) -> SeedResult:
    """One story from its seed. Never raises for a broken invariant: the report names it."""
    shop = ShopSimulation(seed, shipped_plan(), weather=FOUL)
    try:
        shop.run(go_shopping)
    except InvariantBroken as error:
        return SeedResult(seed, len(shop.kills), len(shop.database.sales), str(error))
    return SeedResult(seed, len(shop.kills), len(shop.database.sales))


def results(seeds: Sequence[int], workers: int) -> Iterator[SeedResult]:
    """As they end, not in order."""
    if workers == 1:
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from pool.imap_unordered(run_seed, seeds, chunksize=4)


def sweep(seeds: Sequence[int], workers: int, seconds_max: float, console: Console) -> SweepReport:
    """Run them, with a progress bar; stops taking results after `seconds_max`."""
    report, began = SweepReport(), time.monotonic()
    bar = Progress(
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s, broken {task.fields[broken]}"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("seeds", total=len(seeds), rate=0.0, broken=0)
        for one in results(seeds, workers):
            report.add(one)
            report.seconds = round(time.monotonic() - began, 1)
            if one.broken:
                console.print(one.broken, markup=False, style="red")
            rate = report.seeds / max(0.1, report.seconds)
            bar.update(task, advance=1, rate=rate, broken=len(report.violations))
            if report.seconds > seconds_max:
                break
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, sweep, report."""
    parser = argparse.ArgumentParser(description="Many seeds of the simulated shop.")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=24 * 60.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    seeds = range(asked.first, asked.first + asked.seeds)
    report = sweep(seeds, max(1, asked.workers), asked.minutes * 60, console)
    text = f"{report.seeds} seeds in {report.seconds} s, {report.deaths} deaths, {report.sales} sales"
    sys.stdout.write((json.dumps(asdict(report)) if asked.json else text) + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
