"""`storeops faces workers`: the desk of each region and its workers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

COLUMNS = ("n", "state", "pid", "device", "with_it", "answered", "deaths", "templates", "since_s", "node")

InRegion = Annotated[str | None, typer.Option("--region", help="Which region; not needed where there is one.")]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Demo = Annotated[bool, typer.Option("--demo", help="The demonstration's data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def workers(region: InRegion = None, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Face workers of each region: state, process, device, what is with each; what waits, what was turned away."""
    from runtime import administration
    from runtime.edge import join_ray

    plants = administration.running_all(data, demo)
    chosen = [administration.running(data, demo, region)] if region is not None else list(plants)

    async def look() -> list[dict[str, Any]]:
        join_ray(chosen[0])
        from runtime.ray_faces import face_workers

        return list(await asyncio.gather(*(face_workers(plant.region) for plant in chosen)))

    with redirect_stdout(sys.stderr):  # where the engine's client prints what it notices
        found = asyncio.run(look())
    if as_json:
        typer.echo(json.dumps({"desks": found}, default=str))
        return
    for desk in found:
        Console().print(table(desk))


def table(desk: dict[str, Any]) -> Table:
    """One region's, with what waits and what was turned away as its title."""
    title = (
        f"{desk['region']} · {len(desk['workers'])} of {desk['workers_min']} to {desk['workers_max']} workers ·"
        f" {desk['waiting']} wait, the oldest for {desk['oldest_ms']} ms · a look takes {desk['look_ms']:g} ms ·"
        f" busy told {desk['shed'] + desk['expired']} of {desk['asked']}"
    )
    shown = Table(*COLUMNS, title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for one in desk["workers"]:
        cells = one | {
            "node": str(one.get("node", ""))[:8],
            "templates": sum(dict(one.get("templates", {})).values()),
        }
        shown.add_row(*(str(cells.get(name, "")) for name in COLUMNS))
    return shown
