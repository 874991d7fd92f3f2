"""Verbs for those who look from outside: the published contract, a vendor's conformance run, one event or one
charge followed.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.domain.errors import Refused


def asyncapi(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As YAML, the default.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Write the document, the JSON Schemas and the closed lists into this folder.")
    ] = None,
) -> None:
    """The terminal protocol as an AsyncAPI 3.0 document, made from what the codec decodes with."""
    from devices.asyncapi import document
    from runtime import published

    if as_json and as_yaml:
        raise Refused("which_form", "JSON or YAML?", "give one of --json and --yaml")
    if write is not None:
        changed = published.write(write)
        text = "\n".join(changed) or "nothing changed"
        typer.echo(published.as_json({"folder": str(write), "changed": changed}) if as_json else text)
        return
    typer.echo((published.as_json if as_json else published.as_yaml)(document()), nl=False)


def conformance(
    terminal: Annotated[str, typer.Option(help="The device's terminal id.")],
    store: Annotated[str, typer.Option(help="The store that it believes to be in.")] = "conformance",
    region: Annotated[str, typer.Option(help="The region of that store.")] = "lab",
    listen: Annotated[str, typer.Option(help="Where the device connects to.")] = "127.0.0.1:18950",
    broker: Annotated[
        str | None, typer.Option(help="A broker of yours, as the server's user; else one of ours.")
    ] = None,
    broker_ca: Annotated[
        Path | None, typer.Option(help="PEM file of an mqtts:// broker's authority; else the setting broker.ca.")
    ] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="STOREOPS_TERMINAL_SECRET", help="The device's password.")
    ] = None,
    camera: Annotated[bool, typer.Option("--camera/--no-camera", help="Whether it can show a face.")] = True,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Our own agent in the place of the device.")] = False,
    liveness_key: Annotated[
        str | None, typer.Option(help="Public key of its depth camera: every score must be signed by it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Examine a device: storeops plays the server, somebody works the device, each rule is judged. About a minute."""
    from runtime import conformance as run
    from runtime.settings import load_settings

    err = Console(stderr=True, highlight=False)
    authority = broker_ca if broker is None or broker_ca is not None else load_settings().broker.ca
    wanted = run.Wanted(terminal, store, region, listen, broker, authority, secret, camera, rehearse, liveness_key)
    findings = asyncio.run(run.conformance(wanted, err))
    if as_json:
        typer.echo(json.dumps(run.as_document(wanted, findings), ensure_ascii=False))
    else:
        Console().print(run.as_table(findings))
    raise typer.Exit(0 if run.passed(findings) else 1)


def trace(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="Of an event, session, receipt, sale, order or till.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder of the running house.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The demonstration's.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Follow one message: reply, questions, provider, sale, uses, ledger, dead letters, log lines, with their times."""
    from runtime import administration, following

    plants = administration.running_all(data, demo)
    found = asyncio.run(following.trace_anywhere(plants, wanted))
    document = json.dumps(following.as_document(found), ensure_ascii=False, default=str)
    typer.echo(document if as_json else following.as_text(found))


def explain(
    membership: Annotated[str, typer.Argument(help="A membership's id.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder of the running house.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The demonstration's.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """A charge in one sentence, the lines that it follows from, and what the same goods cost without a membership."""
    from runtime import administration, explaining

    found = asyncio.run(explaining.explain_anywhere(administration.running_all(data, demo), membership))
    if as_json:
        typer.echo(found.model_dump_json())
        return
    out = Console()
    out.print(*explaining.sentences(found), sep="\n", markup=False, highlight=False)
    out.print(explaining.usage_table(found))


def dashboard(
    data: Annotated[Path | None, typer.Option("--data", help="Data folder of the running house.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The demonstration's.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Ray's dashboard: its address, and the token that it asks for. The token is a secret."""
    from gateway.startup import startup_from_file
    from runtime import administration

    plant = administration.running_all(data, demo)[0]
    url = startup_from_file(plant.data_dir / "startup.json")().links.get("ray_dashboard")
    if url is None:
        raise Refused("no_dashboard", "this house runs without Ray's dashboard", "set ray.dashboard to true")
    found = {"url": url, "token": Path(plant.ray_token_path).read_text(encoding="utf-8").strip()}
    typer.echo(json.dumps(found) if as_json else f"{found['url']}\ntoken  {found['token']}")


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command()(asyncapi)
    app.command()(conformance)
    app.command()(trace)
    app.command()(dashboard)
    app.command()(explain)
