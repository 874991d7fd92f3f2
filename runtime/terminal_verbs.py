"""`storeops terminal command|desired|retire|show`: terminals of a running house, from the command line."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from models.domain.errors import Refused
from models.domain.twin import COMMAND_DEADLINE_S_MAX, VERBS, CommandStatus, SoftwareVersion, canonical

Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Demo = Annotated[bool, typer.Option("--demo", help="The demonstration's house.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Terminal = Annotated[str, typer.Argument(help="The terminal's id.")]

err = Console(stderr=True, highlight=False)


def whole_fen(text: str | int) -> int:
    """An amount of an option: 1000 for 10.00 yuan. `200.00` is refused: the reader of integers takes it for 200.

    An option's default comes here as well, as the integer that it is.
    """
    if not str(text).strip().isdecimal():
        raise typer.BadParameter(f"{text!r} is no amount in whole fen: write 1000 for 10.00 yuan")
    return int(text)


def _print(value: Any, as_json: bool, text: str) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


def command(
    terminal: Terminal,
    verb: Annotated[str, typer.Argument(help=", ".join(VERBS))],
    arg: Annotated[list[str] | None, typer.Option("--arg", help="name=value; more than once.")] = None,
    deadline: Annotated[int, typer.Option(min=1, max=COMMAND_DEADLINE_S_MAX, help="Seconds.")] = 10,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Tell a terminal to do something, and wait for its answer until the deadline."""
    from runtime import administration, commands

    asked = commands.new_command(verb, arg or [], deadline)

    async def run() -> dict[str, Any]:
        plant = await administration.of_terminal(administration.running_all(data, demo_), terminal)
        return await commands.command(plant, terminal, asked, lambda status: err.print(f"· {status}", markup=False))

    row = asyncio.run(run())
    _print(row, as_json, f"{row['verb']}: {row['status']} {row['detail']}".strip())
    raise typer.Exit(0 if row["status"] == CommandStatus.DONE else 1)


def desired(
    terminal: Annotated[str | None, typer.Argument(help="One terminal.")] = None,
    store: Annotated[str | None, typer.Option(help="All terminals of a store.")] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="All terminals of the region.")] = False,
    region: Annotated[str | None, typer.Option(help="With --all, when the house has several.")] = None,
    patch: Annotated[
        str | None,
        typer.Option("--set", help='Merge patch of the configuration, e.g. \'{"sound": {"volume_percent": 40}}\'.'),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Back to the chain's configuration first.")] = False,
    version: Annotated[
        str | None, typer.Option("--software", help="Version to run: a recorded one, or with --url.")
    ] = None,
    url: Annotated[str, typer.Option(help="Where that software is fetched.")] = "",
    sha256: Annotated[str, typer.Option(help="Its SHA-256 in hex.")] = "",
    size: Annotated[int, typer.Option(min=0, help="Its size in bytes.")] = 0,
    no_software: Annotated[bool, typer.Option("--no-software", help="Whatever it runs is right.")] = False,
    expect_gen: Annotated[int | None, typer.Option(help="Refuse unless this is the present generation.")] = None,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Change what terminals should run: each gets a new generation, which its host publishes at once."""
    from runtime import administration, commands

    recorded = version is not None and not (url or sha256 or size)
    software = None if recorded else _software(version, url, sha256, size)
    change = commands.Change(_json(patch), software, no_software, reset, expect_gen)
    if change == commands.Change(expected_gen=expect_gen) and not recorded:
        raise Refused("nothing_desired", "nothing to change", "give --set, --software, --no-software or --reset")

    async def run() -> dict[str, Any]:
        plants = administration.running_all(data, demo_)
        if terminal is not None:
            plant = await administration.of_terminal(plants, terminal)
        elif store is not None:
            plant = await administration.of_store(plants, store)
        else:
            plant = administration.running(data, demo_, region)
        wanted = change
        if version is not None and recorded:
            from runtime.images import Images

            images = Images(plants)
            wanted = replace(change, software=images.release(await images.find(version)))
        chosen = await commands.selection(plant, terminal, store, everywhere)
        with err.status(f"{len(chosen)} terminals") as status:
            results = await commands.set_desired(
                plant, chosen, wanted, lambda done: status.update(f"{done} of {len(chosen)} terminals")
            )
        return {name: {"ok": one.ok, "gen": one.gen, "code": one.code, "do": one.do} for name, one in results.items()}

    results = asyncio.run(run())
    text = "\n".join(
        f"{name:<32} gen {one['gen']}" + ("" if one["ok"] else f"  {one['code']}: {one['do']}")
        for name, one in results.items()
    )
    _print({"terminals": results}, as_json, text)
    raise typer.Exit(0 if all(one["ok"] for one in results.values()) else 1)


def _json(patch: str | None) -> str | None:
    if patch is None:
        return None
    try:
        return canonical(json.loads(patch))
    except ValueError as error:
        raise Refused(
            "bad_config", f"not JSON: {error}", 'for example --set \'{"sound": {"volume_percent": 40}}\''
        ) from None


def _software(version: str | None, url: str, sha256: str, size: int) -> SoftwareVersion | None:
    if version is None:
        return None
    if not url.startswith(("https://", "http://")) or len(sha256) != 64 or not size:
        raise Refused("bad_software", "where is it, and how is it checked?", "give --url, --sha256 and --size")
    return SoftwareVersion(version, url, sha256.lower(), size)


def retire(
    terminal: Terminal,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Take a terminal out of service. To undo it, register it again: it gets a new secret."""
    from runtime import administration, commands

    if not yes and not as_json:
        typer.confirm(f"retire {terminal}?", abort=True, err=True)

    async def run() -> dict[str, Any]:
        plant = await administration.of_terminal(administration.running_all(data, demo_), terminal)
        return await commands.retire(plant, terminal)

    done = asyncio.run(run())
    _print(done, as_json, "\n".join(f"{name:<10} {value}" for name, value in done.items()))


def show(terminal: Terminal, data: Data = None, demo_: Demo = False, as_json: AsJson = False) -> None:
    """A terminal's twin: presence, desired and reported, its clock, telemetry, its last commands."""
    from runtime import administration, commands

    async def run() -> dict[str, Any]:
        plant = await administration.of_terminal(administration.running_all(data, demo_), terminal)
        return await commands.show(plant, terminal)

    found = asyncio.run(run())
    lines = []
    for part in ("terminal", "presence", "desired", "telemetry"):
        lines += [f"{name:<16} {value}" for name, value in (found[part] or {}).items()]
    lines += [f"{one['asked_at']}  {one['verb']:<12} {one['status']} {one['detail']}" for one in found["commands"]]
    _print(found, as_json, "\n".join(lines))


def register(app: typer.Typer) -> None:
    """Add the verbs to `storeops terminal`."""
    for verb in (command, desired, retire, show):
        app.command(verb.__name__)(verb)
