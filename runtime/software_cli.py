"""`storeops software …`: images of terminals' software, which the gateway serves them."""

from __future__ import annotations

import asyncio
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.terminal_verbs import AsJson, Data, Demo, _print, err

if TYPE_CHECKING:
    from models.domain.software import Image
    from runtime.images import Images

software_app = typer.Typer(no_args_is_help=True, help="Images of terminals' software, served by the gateway.")

Version = Annotated[str, typer.Argument(help="As terminals report it: name and number, `dragonfly 2.0.0`.")]


@software_app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="The image.")],
    name: Annotated[str, typer.Option("--name", help="a-z, 0-9 and -; with the number what terminals report.")],
    number: Annotated[str, typer.Option("--version", help="Its number, 2.0.0.")],
    profile: Annotated[str, typer.Option("--profile", help="The family that it makes of a terminal.")] = "",
    notes_zh: Annotated[str, typer.Option("--notes-zh", help="What is new, in Chinese.")] = "",
    notes_en: Annotated[str, typer.Option("--notes-en", help="What is new, in English.")] = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Keep an image under its SHA-256 and record what it is; the same once more is no error."""
    from runtime.images import Offered

    images = _images(data, demo)
    offered = Offered(file, name, number, profile, notes_zh, notes_en)
    with err.status("0 bytes") as status:
        image = asyncio.run(
            images.add(offered, getpass.getuser(), lambda done: status.update(f"{done // 1024} KiB kept"))
        )
    _show(images, image, as_json)


@software_app.command("list")
def list_versions(data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """All versions, by name, the newest first."""
    images = _images(data, demo)
    found = asyncio.run(images.list())
    lines = [
        f"{one.version:<32} {one.size_bytes:>11} bytes  {one.profile or '-':<22} {one.sha256[:12]}" for one in found
    ]
    _print({"images": [images.document(one) for one in found]}, as_json, "\n".join(lines) or "no images")


@software_app.command("show")
def show(version: Version, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """One version: what it is, and where terminals fetch it."""
    images = _images(data, demo)
    _show(images, asyncio.run(images.find(version)), as_json)


@software_app.command("remove")
def remove(version: Version, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Forget a version that no terminal is told to run, or runs."""
    images = _images(data, demo)
    image = asyncio.run(images.remove(version, getpass.getuser()))
    _print({"removed": image.version, "sha256": image.sha256}, as_json, f"{image.version} is removed")


def _images(data: Path | None, demo: bool) -> Images:
    from runtime import administration
    from runtime.images import Images

    return Images(administration.running_all(data, demo))


def _show(images: Images, image: Image, as_json: bool) -> None:
    document = images.document(image)
    lines = [f"{name:<11} {value}" for name, value in document.items() if name != "notes"]
    lines += [f"{language:<11} {text}" for language, text in document["notes"].items() if text]
    order = f'storeops terminal desired TERMINAL --software "{image.version}"'
    _print(document, as_json, "\n".join([*lines, f"roll it out, or for one terminal: {order}"]))
