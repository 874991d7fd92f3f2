"""`storeops hosts`: who serves which stores, and planned changes of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from models.domain.errors import Refused
from models.domain.ids import StoreId

hosts_app = typer.Typer(help="Each host of the layout in force; planned changes of hosts.")

InRegion = Annotated[str | None, typer.Option("--region", help="Which region; not needed where there is one.")]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Demo = Annotated[bool, typer.Option("--demo", help="The demonstration's data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Which = Annotated[str, typer.Argument(help="A slot's number, or all.")]

COLUMNS = ("k", "state", "epoch", "pid", "entities", "waiting", "messages", "restarts", "lag_ms", "node", "store")


@hosts_app.callback(invoke_without_command=True)
def hosts(
    context: typer.Context, region: InRegion = None, data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Each host: slot, epoch, process, node, and its counters. `--json` has them all."""
    if context.invoked_subcommand is not None:
        return
    from runtime import administration
    from runtime.edge import join_ray

    plants = administration.running_all(data, demo)
    chosen = [administration.running(data, demo, region)] if region is not None else list(plants)

    async def look() -> list[dict[str, Any]]:
        join_ray(chosen[0])
        from runtime.layouts import snapshot

        return [await snapshot(plant) for plant in chosen]

    with redirect_stdout(sys.stderr):  # where the engine's client prints what it notices
        found = asyncio.run(look())
    if as_json:
        rows = [row for one in found for row in one["hosts"]]
        typer.echo(json.dumps({"hosts": rows, "layouts": [_layout(one) for one in found]}, default=str))
        return
    for one in found:
        Console().print(_table(one))


@hosts_app.command()
def resize(
    slots: Annotated[int, typer.Argument(help="How many hosts share the region's stores.")],
    region: InRegion = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Change the number of hosts, without losing or doubling anything. Repeat it if it was interrupted."""
    _do(region, data, demo, as_json, lambda layouts, plant, say: layouts.resize(plant, slots, say))


@hosts_app.command()
def dedicate(
    store: str, region: InRegion = None, data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Give one store a host of its own."""
    _do(region, data, demo, as_json, lambda layouts, plant, say: layouts.dedicate(plant, StoreId(store), True, say))


@hosts_app.command()
def undedicate(
    store: str, region: InRegion = None, data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Bring a store back to a shared host."""
    _do(region, data, demo, as_json, lambda layouts, plant, say: layouts.dedicate(plant, StoreId(store), False, say))


@hosts_app.command()
def drain(
    which: Which, region: InRegion = None, data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Stop hosts in order and keep them stopped, across restarts, until `resume`."""
    ks = _ks(which)
    _do(region, data, demo, as_json, lambda layouts, plant, say: layouts.drain(plant, ks, say))


@hosts_app.command()
def resume(
    which: Which = "all", region: InRegion = None, data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Serve drained slots again, and start whatever host of the layout is missing."""
    ks = _ks(which)
    _do(region, data, demo, as_json, lambda layouts, plant, say: layouts.resume(plant, ks, say))


@hosts_app.command()
def leave(
    node: Annotated[str, typer.Argument(help="The node's id, or its beginning, as `storeops hosts --json` shows it.")],
    region: InRegion = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Take a node of the cluster out of service: its hosts stop in order and start elsewhere."""
    _do(region, data, demo, as_json, lambda layouts, plant, say: layouts.leave_node(plant, node, say))


def _do(
    region: str | None,
    data: Path | None,
    demo: bool,
    as_json: bool,
    change: Callable[[Any, Any, Callable[[str], None]], Awaitable[dict[str, Any]]],
) -> None:
    """Run one change, its steps shown on standard error, its result on standard output."""
    from runtime import administration
    from runtime.edge import join_ray

    plant = administration.running(data, demo, region)
    join_ray(plant)
    from runtime import layouts

    err = Console(stderr=True, highlight=False)

    async def run() -> dict[str, Any]:
        return await change(layouts, plant, lambda line: err.print(f"· {line}", markup=False))

    with redirect_stdout(sys.stderr):  # where the engine's client prints what it notices
        told = asyncio.run(run())
    text = " ".join(f"{name}={value}" for name, value in told.items())
    typer.echo(json.dumps(told) if as_json else text)


def _ks(which: str) -> list[int] | None:
    if which == "all":
        return None
    if not which.isdecimal():
        raise Refused("bad_slot", f"{which!r} is no slot", "give its number, or all: see storeops hosts")
    return [int(which)]


def _layout(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("region", "layout", "slots", "dedicated")}


def _table(found: dict[str, Any]) -> Table:
    dedicated = f", {len(found['dedicated'])} dedicated" if found["dedicated"] else ""
    title = f"{found['region']} · layout {found['layout']}: {found['slots']} slots{dedicated}"
    table = Table(*COLUMNS, title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in found["hosts"]:
        shown = row | {"k": row["slot"].rpartition("/")[2], "node": str(row.get("node", ""))[:8]}
        table.add_row(*(str(shown.get(name, "")) for name in COLUMNS))
    return table
