"""`storeops bench runtime`: what a host carries, and what a chain costs. Each part brings its rows; PARTS lists them.

Servers of its own in a scratch folder, hosts in processes of their own. About six minutes, and seven for the chain;
with fewer seconds the same rows of a host from a shorter run, for trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runtime.bench import batches, chain_scale, durable, memory, nodes
from runtime.bench.form import Report, Row, load_now, machine, report

NAME = "runtime"
SECONDS = 60.0
"""How long the durable rate must be sustained."""

Advance = Callable[[str], None]
Part = Callable[[float, Advance], list[Row]]

PARTS: dict[str, Part] = {"entities": memory.measure, "batches": batches.measure, "failures": nodes.measure}
"""Name -> rows of it: `measure(seconds, advance)`. The durable part brings curves too and comes last."""
STEPS = 6 + nodes.STEPS


def run(console: Console, seconds: float = SECONDS, chain: bool = True) -> Report:
    """Measure. `chain`: with the rows of `bench chain`, from a run of it.

    Raises NeedsOperator when a part does not come up, or measured something else; Bug as `chain_scale.run`.
    """
    load_before = load_now()
    with _progress(console) as advance:
        rows = [one for part in PARTS.values() for one in part(seconds, advance)]
        real, bare = durable.figures(seconds, advance)
    rows += durable.rows(real, bare)
    curves = durable.curves(real, bare)
    if chain:
        points = chain_scale.measure_points(console)
        rows += chain_rows(points)
        curves |= {f"chain: {name}": values for name, values in chain_scale.curves(points).items()}
    return report(NAME, machine(load_before), rows, curves)


def chain_rows(points: list[chain_scale.Point]) -> list[Row]:
    """The rows of a chain under names that are not a host's."""
    return [msgspec.structs.replace(one, what=f"chain: {one.what}") for one in chain_scale.rows(points)]


@contextmanager
def _progress(console: Console) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("servers", total=STEPS)

        def advance(what: str) -> None:
            shown.update(task, advance=1, description=what)

        yield advance
