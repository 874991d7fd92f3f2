"""`storeops bench NAME`: measures, and prints one JSON object; `render` writes the document from kept objects."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

bench_app = typer.Typer(no_args_is_help=True, help="Benchmarks: each figure beside a baseline of the same run.")

BENCHES = {
    "slice": "runtime.bench.slice",
    "runtime": "runtime.bench.runtime",
    "chain": "runtime.bench.chain_scale",
    "faces": "runtime.bench.faces",
    "money": "runtime.bench.money",
    "rollouts": "runtime.bench.rollouts",
}
"""Name -> module with `run(console) -> Report`. A new benchmark is one file and one line here."""
DOCS = Path(__file__).resolve().parents[2] / "docs"

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object for each benchmark on standard output.")]
Keep = Annotated[Path | None, typer.Option("--keep", help="Also write NAME.json into this folder.")]


@bench_app.command("slice")
def bench_slice(as_json: AsJson = False, keep: Keep = None) -> None:
    """Start-up, event to screen and face to screen on a house of its own. About four minutes."""
    raise typer.Exit(0 if measure("slice", as_json, keep) else 1)


@bench_app.command("runtime")
def bench_runtime(
    as_json: AsJson = False,
    keep: Keep = None,
    seconds: Annotated[float, typer.Option(min=2.0, help="How long each rate is sustained; 60 for the record.")] = 60.0,
    chain: Annotated[bool, typer.Option(help="With the rows of `bench chain`: seven minutes more.")] = True,
) -> None:
    """What one host carries and what a chain costs: entities, batches, durable messages, latency. 13 minutes."""
    raise typer.Exit(0 if measure("runtime", as_json, keep, seconds=seconds, chain=chain) else 1)


@bench_app.command("chain")
def bench_chain(as_json: AsJson = False, keep: Keep = None) -> None:
    """A chain of 10, 100 and 1,000 stores at 200 events a second, a storm, a backlog. About seven minutes."""
    raise typer.Exit(0 if measure("chain", as_json, keep) else 1)


@bench_app.command("faces")
def bench_faces(
    as_json: AsJson = False,
    keep: Keep = None,
    seconds: Annotated[float, typer.Option(min=2.0, help="How long each rate is measured; 30 for the record.")] = 30.0,
    only: Annotated[str, typer.Option(help="One part: pool, embedding, accuracy, search, rebuild.")] = "",
    templates: Annotated[
        int, typer.Option(min=1, max=4_000_000, help="Of the rebuild; a million takes minutes and 2 GB of disk.")
    ] = 20_000,
) -> None:
    """What the face engine does: workers, nets, galleries, accuracy. About five minutes."""
    done = measure("faces", as_json, keep, seconds=seconds, only=only, templates=templates)
    raise typer.Exit(0 if done else 1)


@bench_app.command("money")
def bench_money(
    as_json: AsJson = False,
    keep: Keep = None,
    memberships: Annotated[int, typer.Option(min=80, help="How many are due; a million for the record.")] = 1_000_000,
) -> None:
    """Settlement's ledger side in eight regions, captures, baskets, enrolments, statements, signing. A million takes
    about 12 minutes and 6 GB; a machine that plants slowly measures fewer, and says how many.
    """
    raise typer.Exit(0 if measure("money", as_json, keep, memberships=memberships) else 1)


@bench_app.command("rollouts")
def bench_rollouts(
    as_json: AsJson = False,
    keep: Keep = None,
    stores: Annotated[int, typer.Option(min=60, help="With three terminals each; 1,000 for the record.")] = 1_000,
) -> None:
    """What driving a rollout costs: whole ticks on a database, the rules alone, rehearsals. About 90 s."""
    raise typer.Exit(0 if measure("rollouts", as_json, keep, stores=stores) else 1)


@bench_app.command("all")
def bench_all(as_json: AsJson = False, keep: Keep = None) -> None:
    """Every benchmark, one after another; exit code 0 only if all are ok."""
    once: dict[str, dict[str, float]] = {"runtime": {"chain": False}}  # it has an object of its own here
    missed = [name for name in BENCHES if not measure(name, as_json, keep, **once.get(name, {}))]
    raise typer.Exit(1 if missed else 0)


@bench_app.command()
def render(
    results: Annotated[Path, typer.Option(help="Folder of kept objects.")] = DOCS / "benchmarks",
    to: Annotated[Path, typer.Option(help="The document; its plots go beside the objects.")] = DOCS / "benchmarks.md",
) -> None:
    """Write the document and its plots from the kept objects."""
    from runtime.bench.render import render_document

    written = render_document(results, to)
    typer.echo("\n".join(str(path) for path in written))


def measure(name: str, as_json: bool, keep: Path | None, **settings: float | str) -> bool:
    """Run one benchmark and print it; True when every row is ok."""
    from runtime.bench.form import encode
    from runtime.bench.render import as_table

    err = Console(stderr=True, highlight=False)
    done = importlib.import_module(BENCHES[name]).run(err, **settings)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{name}.json").write_text(encode(done) + "\n", encoding="utf-8")
    err.print(as_table(done))
    if as_json:
        typer.echo(encode(done))
    return bool(done.ok)
