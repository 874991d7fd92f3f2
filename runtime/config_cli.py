"""`storeops config …`: the house's own settings, and the configuration of chains: show, diff, validate, set."""

from __future__ import annotations

import asyncio
import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.cells import cell_len, set_cell_size
from rich.console import Console

from models.domain.chain_config import ABSENT
from models.domain.errors import Refused
from runtime.chains import read_chain
from runtime.settings import flat_settings, load_with_origins, masked

if TYPE_CHECKING:  # every verb of the command line imports this module; a chain's tables take half a second
    from runtime.config_views import Asked, View

config_app = typer.Typer(no_args_is_help=True, help="What is in force: the house's settings, a chain's configuration.")
err = Console(stderr=True, highlight=False)

Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file over configs/default.yaml.")]
Demo = Annotated[bool, typer.Option("--demo", help="The demonstration's.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
OfChain = Annotated[str | None, typer.Option("--chain", help="A chain's file, or the id of one that runs here.")]
OfRegion = Annotated[str | None, typer.Option("--region", help="A region of the chain.")]
OfStore = Annotated[str | None, typer.Option("--store", help="A store.")]


def _print(value: Any, as_json: bool, text: str) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


@config_app.command("show")
def show(
    chain: OfChain = None,
    region: OfRegion = None,
    store: OfStore = None,
    terminal: Annotated[str | None, typer.Option("--terminal", help="A terminal.")] = None,
    origins: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    config: Config = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The house's own settings; or what is in force for a chain, region, store or terminal."""
    if (chain, region, store, terminal) == (None, None, None, None):
        _house(config, data, origins=origins, as_json=as_json)
        return
    from runtime.config_views import Asked, shown

    asked = Asked(chain, region, store, terminal)
    view = _view(asked, data, demo=demo)
    rows = view.rows()
    values = rows if origins else {path: row["value"] for path, row in rows.items()}
    about = " · ".join(f"{name} {shown(value)}" for name, value in view.about.items())
    width = max((len(path) for path in rows), default=0)
    wide = max((cell_len(shown(row["value"])) for row in rows.values()), default=0)
    lines = [
        f"{path:<{width}}  {set_cell_size(shown(row['value']), wide)}  # {row['origin']}"
        if origins
        else f"{path:<{width}}  {shown(row['value'])}"
        for path, row in rows.items()
    ]
    _print({"of": dict(view.about), "config": values}, as_json, "\n".join((f"# {about}", *lines)))


def _house(config: Path | None, data: Path | None, *, origins: bool, as_json: bool) -> None:
    settings, known = load_with_origins(config, {"data_dir": str(data)} if data is not None else {})
    values = {key: masked(value) if key.endswith("url") else value for key, value in flat_settings(settings).items()}
    rows = {key: {"value": value, "origin": known.get(key, "default")} for key, value in values.items()}
    text = "\n".join(
        f"{key:<24} {row['value']}"
        + (f"   # {row['origin']}" if origins else "")
        + ("   (a first start's; then `storeops hosts`)" if key.endswith(".slots") else "")
        for key, row in rows.items()
    )
    _print(rows if origins else values, as_json, text)


def _view(asked: Asked, data: Path | None, *, demo: bool) -> View:
    from runtime.config_views import is_file, of_file, of_house

    if asked.chain is not None and is_file(asked.chain):
        return of_file(Path(asked.chain), asked)
    from runtime import administration

    return asyncio.run(of_house(administration.running_all(data, demo), asked))


@config_app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A chain's file or id, or a terminal; FILE#STORE, too.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another of the same kind.")],
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """What differs: between two files, a file and what runs, two terminals or stores. Exit 1 when something does."""
    from runtime.config_views import shown

    one, other = _comparable(before, data, demo=demo), _comparable(after, data, demo=demo)
    if one[0] != other[0]:
        do = "give two chains (files or ids), or two terminals, or FILE#STORE or FILE#TERMINAL beside one of those"
        raise Refused("not_comparable", f"{before} is a {one[0]}, {after} a {other[0]}", do)
    paths = sorted(one[1].keys() | other[1].keys())
    found = {
        path: {"a": one[1].get(path, ABSENT), "b": other[1].get(path, ABSENT)}
        for path in paths
        if one[1].get(path, ABSENT) != other[1].get(path, ABSENT)
    }
    lines = [f"{path}: {shown(row['a'])} -> {shown(row['b'])}" for path, row in found.items()]
    _print({"same": not found, "differences": found}, as_json, "\n".join(lines) or "nothing differs")
    raise typer.Exit(1 if found else 0)


def _comparable(name: str, data: Path | None, *, demo: bool) -> tuple[str, dict[str, Any]]:
    """What it is, and its values by path."""
    from runtime.config_views import Asked, flat_file, flat_house, is_file, of_file, of_house

    file, hash_sign, inside = name.partition("#")
    if is_file(file):
        doc = read_chain(Path(file))
        if not hash_sign:
            return "chain", flat_file(doc)
        a_store = any(store.id == inside for store in doc.stores)
        asked = Asked(file, store=inside) if a_store else Asked(file, terminal=inside)
        return "place", _values(of_file(Path(file), asked))
    from runtime import administration

    plants = administration.running_all(data, demo)
    if name in {plant.chain for plant in plants}:
        return "chain", asyncio.run(flat_house(plants, name))
    try:
        return "place", _values(asyncio.run(of_house(plants, Asked(terminal=name))))
    except Refused:
        return "place", _values(asyncio.run(of_house(plants, Asked(store=name))))


def _values(view: View) -> dict[str, Any]:
    return {path: row["value"] for path, row in view.rows().items()}


@config_app.command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Chains' files.")],
    as_json: AsJson = False,
) -> None:
    """Everything that is wrong with chains' files: line, column, key, and what to do. Exit 1 when anything is."""
    from runtime.chain_check import check_chain

    reports: list[dict[str, Any]] = []
    for file in files:
        checked = check_chain(file)
        doc = checked.doc
        stores = 0 if doc is None else len(doc.stores)
        terminals = 0 if doc is None else stores * sum(len(lane.terminals) for lane in doc.lanes)
        findings = [finding.as_json() for finding in checked.findings]
        reports.append(
            {
                "file": str(file),
                "ok": not findings,
                "chain": None if doc is None else doc.chain,
                "stores": stores,
                "terminals": terminals,
                "findings": findings,
            }
        )
        for finding in checked.findings:
            err.print(str(finding), markup=False, soft_wrap=True)
    ok = all(report["ok"] for report in reports)
    lines = [
        f"{one['file']}: chain {one['chain']}, {one['stores']} stores, {one['terminals']} terminals, nothing wrong"
        if one["ok"]
        else f"{one['file']}: {len(one['findings'])} to mend"
        for one in reports
    ]
    _print({"ok": ok, "files": reports}, as_json, "\n".join(lines))
    raise typer.Exit(0 if ok else 1)


@config_app.command("set")
def set_(
    reason: Annotated[str, typer.Option("--reason", help="Why: it stands in the history.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE…", help="KEY=null: as if nobody above set it.")
    ] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option("--forget", metavar="KEY", help="What was set so counts no more; KEY or a group."),
    ] = None,
    chain: Annotated[str | None, typer.Option("--chain", help="For the whole chain that runs here.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="Or one region of it.")] = None,
    store: Annotated[str | None, typer.Option("--store", help="Or one store.")] = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Set something for a chain, region or store of a running house, over what its file says, without stages.

    Exactly the terminals whose document changes get it, within seconds. A terminal alone: `storeops terminal desired`.
    """
    from runtime import administration
    from runtime.config_views import Asked, change

    if chain is None and region is None and store is None:
        raise Refused("which_scope", "for what?", "give --chain, --region or --store")
    if not settings and not forget:
        raise Refused("bad_setting", "nothing to change", "write KEY=VALUE, or --forget KEY")
    patch = _patch(settings or [])
    asked = Asked(chain, region, store)
    plants = administration.running_all(data, demo)
    version = asyncio.run(change(plants, asked, patch, f"cli:{getpass.getuser()}", reason, forget or ()))
    _print({"ok": True, "version": version, "set": patch}, as_json, f"version {version}; terminals follow in seconds")


def _patch(settings: list[str]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise Refused("bad_setting", f"{setting!r}", "write KEY=VALUE, e.g. sound.volume_percent=40")
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            value = text
        inside = patch
        *groups, last = key.split(".")
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[last] = value
    return patch
