"""`storeops faces`: the keys that seal faces, and what photographs say of the thresholds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runtime.face_nets_cli import nets
from runtime.faces_verbs import evaluate
from runtime.faces_workers import workers
from runtime.gallery_cli import snapshot_app

faces_app = typer.Typer(no_args_is_help=True, help="The face engine: its keys, and what photographs say of it.")
faces_app.command("evaluate")(evaluate)
faces_app.command("nets")(nets)
faces_app.command("workers")(workers)
faces_app.add_typer(snapshot_app, name="snapshot")

Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Demo = Annotated[bool, typer.Option("--demo", help="The demonstration's data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@faces_app.command("rekey")
def rekey_(
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Renew the chains' rotations too: galleries are built anew.")
    ] = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Wrap every face key under a new master key epoch, then destroy the old one: copies from before open nothing.

    The house goes on meanwhile. Killed anywhere it is run again. Keys in the environment: says what to set.
    """
    from runtime import administration
    from runtime.keyring import KeyringSource
    from runtime.rekey import rekey

    plants = administration.running_all(data, demo)
    urls = list(dict.fromkeys(plant.database_url for plant in plants))
    with Progress(
        TextColumn("keys"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("keys", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        done = rekey(KeyringSource(plants[0].data_dir / "secrets"), urls, rotate=rotate, progress=progress)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    typer.echo("\n".join(_sentences(asdict(done))))


def _sentences(done: dict[str, Any]) -> list[str]:
    gone = ", ".join(str(epoch) for epoch in done["destroyed"])
    said = [
        f"epoch {done['epoch']} wraps {done['rewrapped']} keys more" + (f"; epoch {gone} is destroyed" * bool(gone))
    ]
    if done["unopened"]:
        said.append(f"{done['unopened']} keys open with no epoch: their members enrol again")
    if done["rotated"] and not done["operator"]:
        said.append("rotations are new: galleries are built anew as workers start")
    return [*said, *([done["operator"]] if done["operator"] else [])]
