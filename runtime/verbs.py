"""Verbs for those who look from outside: the published contract, a vendor's conformance run, one event followed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command()(asyncapi)
