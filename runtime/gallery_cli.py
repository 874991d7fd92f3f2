"""`storeops faces snapshot`: a gallery's sealed copy, written from a running house, or checked and put in place."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from runtime.gallery_snapshots import GallerySpec
    from runtime.plant import Plant

snapshot_app = typer.Typer(no_args_is_help=True, help="A gallery's sealed copy: written, checked, put in place.")

File = Annotated[Path, typer.Argument(help="The file.")]
InRegion = Annotated[str | None, typer.Option("--region", help="Which region; not needed where there is one.")]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Demo = Annotated[bool, typer.Option("--demo", help="The demonstration's data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@snapshot_app.command("write")
def write(file: File, region: InRegion = None, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Seal a copy of a region's gallery as it is in memory now. It opens as long as its master key epoch exists.

    Who is erased later is still in it: keep none longer than needed, or end the epoch by `storeops faces rekey`.
    """
    from runtime import administration
    from runtime.gallery_snapshots import Snapshots
    from runtime.keyring import open_vault

    plant = administration.running(data, demo, region)
    vault = open_vault(plant.data_dir / "secrets")
    spec = spec_of(plant)
    with Console(stderr=True).status("sealing"):
        header = Snapshots(spec, vault).write(spec.gallery(vault, spec.slab(vault)), file)
    _say("written", file, asdict(header), as_json)


@snapshot_app.command("load")
def load(file: File, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Check a copy to its last byte and put it in place: the next start of the face workers begins with it.

    Whoever was erased since it was written is taken out before anything is searched. Refused: a file that was
    altered or cut, or that is of another chain, region, net, rotation or a destroyed key epoch.
    """
    from models.domain.errors import NeedsOperator
    from models.faces.snapshot import check_snapshot, read_header
    from runtime import administration
    from runtime.keyring import open_vault

    says = read_header(file)
    plants = administration.running_all(data, demo)
    ours = [plant for plant in plants if (plant.chain, plant.region) == (says.chain, says.region)]
    if not ours:
        raise NeedsOperator(
            "snapshot_other", f"{file} is of {says.chain} in {says.region}", "load it where that chain and region are"
        )
    vault = open_vault(ours[0].data_dir / "secrets")
    spec = spec_of(ours[0], says.net_sha256)
    with Console(stderr=True).status("checking"):
        header = check_snapshot(file, vault, spec.chain, spec.region, spec.net_sha256, spec.dimension)
        place = spec.snapshot(vault)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = place.with_name(place.name + ".partial")
        shutil.copyfile(file, partial)
        partial.chmod(0o600)
        partial.replace(place)
    _say("in place", place, asdict(header), as_json)


def spec_of(plant: Plant, net: str | None = None) -> GallerySpec:
    """The gallery of a region: of its current net, or of the named one in the catalogue.

    Raises NeedsOperator `snapshot_other` when the catalogue has no such net.
    """
    from models.domain.errors import NeedsOperator
    from models.faces.catalogue import load_catalogue, recognisers
    from runtime.gallery_snapshots import GallerySpec

    entries = recognisers(load_catalogue(), plant.faces_recognisers.get(plant.chain, ""))
    found = next((entry for entry in entries if net in (None, entry.identity)), None)
    if found is None:
        raise NeedsOperator("snapshot_other", f"no net {net} is in the catalogue", "see `storeops faces nets`")
    return GallerySpec(str(plant.data_dir), plant.chain, plant.region, found.identity, found.dimension)


def _say(what: str, path: Path, header: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"snapshot": what, "file": str(path), **header}))
    else:
        typer.echo(
            f"{what}: {path}\n{header['count']:,} templates of {header['chain']} in {header['region']},"
            f" up to change {header['version']:,}"
        )
