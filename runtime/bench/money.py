"""`storeops bench money`: what settlement and its neighbours do, each figure beside a baseline of the same run.

A part is a module with `STEPS` and `measure(ground, advance) -> rows`; PARTS lists them. A million memberships need
about 6 GB of disk for their databases; a smaller number measures the same on less.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runtime.bench.form import Report, Row, load_now, machine, report
from runtime.bench.yard import scratch_postgres
from runtime.postgres import EmbeddedPostgres

NAME = "money"
MEMBERSHIPS = 1_000_000

Advance = Callable[[str], None]

PARTS: dict[str, str] = {
    "neighbours": "runtime.bench.money_neighbours",
    "captures": "runtime.bench.money_captures",
    "basket": "runtime.bench.money_basket",
    "signing": "runtime.bench.money_signing",
    "ledger": "runtime.bench.money_ledger",
}
"""Name -> module; the ledger last, for a million memberships leave the disk busy for minutes.

A module has `STEPS`, how often it calls `advance`, and `measure(ground, advance) -> list[Row]`.
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """What every part measures on. `folder` is scratch; `memberships` is how many are due in all."""

    folder: Path
    postgres: EmbeddedPostgres
    memberships: int


def run(console: Console, memberships: int = MEMBERSHIPS) -> Report:
    """Measure. Raises NeedsOperator when a part does not come up."""
    load_before = load_now()
    parts = [importlib.import_module(name) for name in PARTS.values()]
    rows: list[Row] = []
    with (
        _progress(console, 1 + sum(int(part.STEPS) for part in parts)) as advance,
        open_ground(memberships) as ground,
    ):
        advance("database")
        for part in parts:
            rows += part.measure(ground, advance)
    return report(NAME, machine(load_before), rows)


@contextmanager
def open_ground(memberships: int) -> Iterator[Ground]:
    """A database server in a scratch folder; stopped and removed at the end."""
    with scratch_postgres() as (folder, server):
        yield Ground(folder, server, memberships)


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("database", total=steps)

        def advance(what: str) -> None:
            shown.update(task, advance=1, description=what)

        yield advance
