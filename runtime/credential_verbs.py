"""`storeops terminal enrol-code|rotate|revoke` and `storeops deploy mosquitto`: credentials, from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.domain.errors import Refused, StoreOpsError
from runtime.terminal_verbs import AsJson, Data, Demo, Terminal, _print, err

if TYPE_CHECKING:
    from runtime.credentials import Credentials
    from runtime.plant import Plant

ROTATIONS_AT_ONCE_MAX = 32
DEADLINE_S = 30


def enrol_code(
    terminal: Terminal,
    certificate: Annotated[bool, typer.Option("--certificate", help="For a client certificate, not a secret.")] = False,
    minutes: Annotated[int, typer.Option(help="How long it lasts.")] = 15,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A one-time code for a registered terminal: typed there, it becomes its credential, in place of what it had."""
    from runtime import administration
    from runtime.credentials import Credentials

    async def run() -> dict[str, Any]:
        plants = administration.running_all(data, demo_)
        plant = await administration.of_terminal(plants, terminal)
        made = Credentials(plants).make_code(
            plant, terminal, certificate=certificate, minutes=minutes, now=datetime.now(UTC)
        )
        code, until = await made
        answer = {"terminal": terminal, "code": code, "until": until.isoformat(), "gateway": plant.gateway_url}
        if not plant.broker_embedded:
            answer["broker"] = "its users are yours: " + _by_hand(certificate)
        return answer

    made = asyncio.run(run())
    text = "\n".join(f"{name:<10} {value}" for name, value in made.items())
    _print(made, as_json, f"{text}\n\nstoreops terminal run --enrol {made['code']} --gateway {made['gateway']}")


def _by_hand(certificate: bool) -> str:
    if certificate:
        return "its TLS listener must trust this deployment's authority (storeops deploy mosquitto DIR)"
    return "after the enrolment run storeops deploy mosquitto DIR again and send the broker SIGHUP"


def rotate(
    terminal: Annotated[str | None, typer.Argument(help="One terminal.")] = None,
    store: Annotated[str | None, typer.Option(help="All terminals of a store.")] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="All terminals of the region.")] = False,
    region: Annotated[str | None, typer.Option(help="With --all, when the house has several.")] = None,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Give terminals their next credential: each is told, fetches it and connects with it; then the old one ends."""
    from runtime import administration, commands
    from runtime.credentials import Credentials

    async def run() -> dict[str, str]:
        plants = administration.running_all(data, demo_)
        if terminal is not None:
            plant = await administration.of_terminal(plants, terminal)
        elif store is not None:
            plant = await administration.of_store(plants, store)
        else:
            plant = administration.running(data, demo_, region)
        chosen = await commands.selection(plant, terminal, store, everywhere)
        with err.status(f"{len(chosen)} terminals") as status:
            results: dict[str, str] = {}
            bound = asyncio.Semaphore(ROTATIONS_AT_ONCE_MAX)

            async def one(name: str) -> None:
                async with bound:
                    results[name] = await rotate_one(Credentials(plants), plant, name)
                    status.update(f"{len(results)} of {len(chosen)} terminals")

            await asyncio.gather(*(one(name) for name in chosen))
        return dict(sorted(results.items()))

    results = asyncio.run(run())
    failed = [name for name, status in results.items() if status != "done"]
    _print({"terminals": results}, as_json, "\n".join(f"{name:<32} {status}" for name, status in results.items()))
    raise typer.Exit(1 if failed else 0)


async def rotate_one(credentials: Credentials, plant: Plant, terminal: str) -> str:
    """Tell one terminal to rotate; "done", or what became of it instead, with its reason."""
    from runtime import commands

    asked = commands.new_command("rotate", [f"url={plant.gateway_url}/terminals/rotate", "code=-"], DEADLINE_S)
    try:
        code = await credentials.rotation_code(plant, terminal, asked.id, datetime.now(UTC))
        told = type(asked)(asked.id, asked.verb, (asked.args[0], ("code", code)), asked.deadline_s)
        row = await commands.command(plant, terminal, told)
    except StoreOpsError as error:
        return f"{error.code}: {error.message}; {error.do}"
    return f"{row['status']} {row['detail']}".strip()


def revoke(
    terminal: Annotated[str | None, typer.Argument(help="One terminal.")] = None,
    store: Annotated[str | None, typer.Option(help="All terminals of a store.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A stolen or lost terminal: its credentials count no more, at once. To undo it, enrol it again."""
    from runtime import administration, commands
    from runtime.credentials import Credentials

    if (terminal is None) == (store is None):
        raise Refused("which_terminals", "which terminals?", "give one of TERMINAL and --store")
    if not yes and not as_json:
        typer.confirm(f"revoke {terminal or store}?", abort=True, err=True)

    async def run() -> list[dict[str, Any]]:
        plants = administration.running_all(data, demo_)
        if terminal is not None:
            plant, chosen = await administration.of_terminal(plants, terminal), [terminal]
        else:
            plant = await administration.of_store(plants, store or "")
            chosen = await commands.selection(plant, None, store, False)
        credentials = Credentials(plants)
        return [dict(await credentials.revoke(plant, name, datetime.now(UTC))) for name in chosen]

    done = asyncio.run(run())
    lines = [" ".join(f"{name}={value}" for name, value in one.items()) for one in done]
    _print({"terminals": done}, as_json, "\n".join(lines))


def mosquitto(
    folder: Annotated[Path, typer.Argument(help="Where to write; made when missing.")],
    host: Annotated[list[str] | None, typer.Option("--host", help="Its name; more than once.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="TLS, password.")] = 8883,
    certificates_port: Annotated[int, typer.Option(min=1, max=65_535, help="TLS, client certificate.")] = 8884,
    installed_at: Annotated[
        Path | None, typer.Option("--installed-at", help="The folder's path on the broker's machine.")
    ] = None,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A ready mosquitto configuration with the registry's terminals, to be copied to the broker's machine."""
    from runtime import administration
    from runtime.deploy import write_mosquitto

    plants: Sequence[Plant] = administration.running_all(data, demo_)
    written = asyncio.run(
        write_mosquitto(plants, folder, host or ["localhost"], port, certificates_port, installed_at or folder)
    )
    _print(written, as_json, "\n".join(f"{name:<12} {value}" for name, value in written.items()))


def register(terminal_app: typer.Typer, app: typer.Typer) -> None:
    """Add the verbs to `storeops terminal`, and `storeops deploy`."""
    terminal_app.command("enrol-code")(enrol_code)
    terminal_app.command("rotate")(rotate)
    terminal_app.command("revoke")(revoke)
    deploy = typer.Typer(no_args_is_help=True, help="Configuration for servers that you run yourself.")
    deploy.command("mosquitto")(mosquitto)
    deploy.callback()(lambda: None)
    app.add_typer(deploy, name="deploy")
