"""`storeops faces nets`: the catalogue, its licences, and which nets the templates of a running house are of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from models.domain.errors import NeedsOperator

if TYPE_CHECKING:
    from runtime.face_nets import ChainNet
    from runtime.plant import Plant

_NARROW: dict[str, Any] = {"box": SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0), "title_justify": "left"}
"""For 80 columns."""


def nets(
    licences: Annotated[bool, typer.Option("--licences", help="With the licence texts.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The demonstration's data folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """The nets of the catalogue, what is wrong with one of them, and which of them the templates of a running house are
    of. Exit code 1 when a net could not be opened."""
    from models.faces.catalogue import load_catalogue
    from runtime.face_nets import chain_nets, described, fault_of

    catalogue = load_catalogue()
    plants, why = _running(data, demo)
    used = chain_nets(_places(plants), catalogue)
    listed = [described(entry, licence_text=licences) for entry in catalogue]
    with Console(stderr=True).status("opening each net"):
        faults = [fault_of(entry) for entry in catalogue]
    if as_json:
        for one, fault in zip(listed, faults, strict=True):
            one["fault"] = fault and {"code": fault.code, "message": fault.message, "do": fault.do}
        told = {"nets": listed, "house": why or "running", "chains": [asdict(one) for one in used]}
        typer.echo(json.dumps(told, ensure_ascii=False))
        raise typer.Exit(1 if any(faults) else 0)
    console = Console()
    console.print(_catalogue(listed))
    if used:
        console.print(_chains(used))
    for line in (why, *_advice(used)):
        if line:
            console.print(line)
    for one in listed if licences else ():
        console.rule(f"{one['name']}: {one['licence']}")
        console.print(one["licence_text"], markup=False, highlight=False)
    for fault in filter(None, faults):
        console.print(f"{fault.code}: {fault.message}\n→ {fault.do}", style="red", markup=False, highlight=False)
    raise typer.Exit(1 if any(faults) else 0)


def _running(data: Path | None, demo: bool) -> tuple[tuple[Plant, ...], str]:
    """The running house's regions, or why there are none: the catalogue is told all the same."""
    from runtime import administration

    try:
        return administration.running_all(data, demo), ""
    except NeedsOperator as error:
        return (), f"{error.message}: {error.do}"


def _places(plants: tuple[Plant, ...]) -> list[tuple[str, str, dict[str, str]]]:
    once = {(str(plant.chain), plant.database_url): plant.faces_recognisers for plant in plants}
    return [(chain, url, chosen) for (chain, url), chosen in once.items()]


def _catalogue(listed: list[dict[str, Any]]) -> Table:
    table = Table(title="Catalogue (* the default)", **_NARROW)
    for name in ("net", "kind", "licence", "size", "precision", "identity"):
        table.add_column(name, overflow="fold")
    for one in listed:
        name = f"{one['name']} *" if one["default"] else one["name"]
        size = str(one.get("dimension", ""))
        table.add_row(name, one["kind"], one["licence"], size, one["precision"], one["identity"][:12])
    return table


def _chains(used: list[ChainNet]) -> Table:
    table = Table(title="Templates (* the current net)", **_NARROW)
    for name in ("chain", "net", "members", "enrolled", "migrated", "adaptive", "last migrated"):
        table.add_column(name, overflow="fold")
    for one in used:
        name = (one.net or f"unknown {one.net_sha256[:12]}") + (" *" if one.current else "")
        counts = (one.members, one.enrolled, one.migrated, one.adaptive)
        table.add_row(one.chain, name, *map(str, counts), (one.migrated_at or "-")[:10])
    return table


def _advice(used: list[ChainNet]) -> list[str]:
    said = []
    for one in used:
        if not one.known:
            net = one.net_sha256[:12]
            said.append(
                f"{one.chain}: members enrolled with {net}, which is not in configs/faces: {one.members}. Put it back:"
                " until then they are strangers to their own face"
            )
        elif not one.current and one.members:
            said.append(f"{one.chain}: members who get a template of the new net at their next visit: {one.members}")
    return said
