"""`storeops terminal liveness-key make|register|show|revoke`: who may sign a terminal's liveness scores."""

from __future__ import annotations

import asyncio
import getpass
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.liveness import KEY_FILE, LivenessKey, fingerprint, show_public_key
from models.domain.errors import Refused, StoreOpsError
from runtime.terminal_verbs import AsJson, Data, Demo, Terminal, _print, err

if TYPE_CHECKING:
    from runtime.liveness_keys import LivenessKeysOfAHouse

keys_app = typer.Typer(no_args_is_help=True, help="Keys with which depth cameras sign their liveness scores.")

LIST_BYTES_MAX = 4 * 1024 * 1024


def _desk(data: Any, demo: bool) -> LivenessKeysOfAHouse:
    from runtime import administration
    from runtime.liveness_keys import LivenessKeysOfAHouse

    return LivenessKeysOfAHouse(administration.running_all(data, demo))


def _by() -> str:
    return f"cli:{getpass.getuser()}"


@keys_app.command("make")
def make(
    terminal: Annotated[
        str | None, typer.Option("--id", help="A registered terminal of a house that runs here.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="The folder of an enrolled terminal.")] = None,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A key for a terminal that is played on this machine; a real camera has one, which never leaves it."""
    from runtime.terminal_run import default_home, folder_of

    folder = home or default_home()
    if terminal is not None and home is None:
        from runtime import administration

        plant = asyncio.run(administration.of_terminal(administration.running_all(data, demo_), terminal))
        folder = folder_of(plant, terminal)
    if (folder / KEY_FILE).exists():
        raise Refused("key_there", f"{folder / KEY_FILE} holds one", "delete that file first, and revoke its key")
    key = LivenessKey.make()
    path = key.save(folder)
    made = {"public_key": show_public_key(key.public), "fingerprint": fingerprint(key.public), "file": str(path)}
    text = "\n".join(f"{name:<12} {value}" for name, value in made.items())
    next_step = f"storeops terminal liveness-key register {terminal or 'TERMINAL'} {made['public_key']}"
    _print(made, as_json, f"{text}\n\n{next_step}")


@keys_app.command("register")
def register_key(
    terminal: Annotated[str | None, typer.Argument(help="The terminal's id.")] = None,
    key: Annotated[str | None, typer.Argument(help="Ed25519 public key: base64 or 64 hex digits.")] = None,
    file: Annotated[Path | None, typer.Option(help="The key as a PEM file, in place of KEY.")] = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="A file with a terminal and its key on each line, as vendors deliver.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="The keys that counted until now end at once.")] = False,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """From now on only scores that this key signed are read of the terminal; a second key counts beside the first."""
    wanted = _wanted(terminal, key, file, listed)
    desk, by = _desk(data, demo_), _by()

    async def run() -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        with err.status(f"{len(wanted)} keys") as status:
            for name, text in wanted:
                try:
                    done.append(_row(asdict(await desk.register(name, text, by, replace=replace))))
                except StoreOpsError as error:
                    if listed is None:
                        raise
                    done.append(_row({"terminal": name}, f"{error.code}: {error.message}; {error.do}"))
                status.update(f"{len(done)} of {len(wanted)} keys")
        return done

    done = asyncio.run(run())
    _print({"keys": done}, as_json, "\n".join(_line(one) for one in done))
    raise typer.Exit(1 if any(one["error"] for one in done) else 0)


def _wanted(terminal: str | None, key: str | None, file: Path | None, listed: Path | None) -> list[tuple[str, str]]:
    if listed is not None:
        if terminal is not None or key is not None or file is not None:
            raise Refused("which_keys", "a list, or one terminal?", "give --list alone")
        return _read_list(listed)
    if terminal is None or (key is None) == (file is None):
        raise Refused(
            "which_keys", "which key for which terminal?", "give TERMINAL and KEY, or --file PEM, or --list FILE"
        )
    return [(terminal, key if key is not None else _read(file, 16 * 1024))]


def _read(path: Path | None, bytes_max: int) -> str:
    assert path is not None, "one of the two was given"
    try:
        if path.stat().st_size > bytes_max:
            raise Refused("file_large", f"{path} is larger than {bytes_max} bytes", "split it")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused("file_unreadable", f"{path}: {error}", "give a text file") from error


def _read_list(path: Path) -> list[tuple[str, str]]:
    """Lines of a terminal and a key, apart by space, comma or tab; empty lines and those with # are passed over."""
    found = []
    for n, line in enumerate(_read(path, LIST_BYTES_MAX).splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise Refused("bad_list", f"{path}, line {n}: {len(words)} words", "write a terminal's id and its key")
        found.append((words[0], words[1]))
    return found


def _row(change: dict[str, Any], error: str = "") -> dict[str, Any]:
    return {"terminal": "", "added": "", "ended": (), "told": False, **change, "error": error}


def _line(one: dict[str, Any]) -> str:
    if one["error"]:
        return f"{one['terminal']:<24} {one['error']}"
    ended = f", ended {', '.join(one['ended'])}" if one["ended"] else ""
    told = "" if one["told"] else " (its host sees it within seconds, or when it is back)"
    return f"{one['terminal']:<24} {one['added'] or 'revoked'}{ended}{told}"


@keys_app.command("show")
def show_keys(terminal: Terminal, data: Data = None, demo_: Demo = False, as_json: AsJson = False) -> None:
    """A terminal's keys: which count, since when and by whom, and which ended."""
    stored = asyncio.run(_desk(data, demo_).keys(terminal))
    found = [replace(one, public_key=show_public_key(bytes.fromhex(one.public_key))) for one in stored]
    lines = [
        f"{one.fingerprint}  {'counts' if one.ended_at is None else 'ended '}  {one.public_key}  "
        f"{one.added_at:%Y-%m-%d %H:%M} {one.added_by}"
        + ("" if one.ended_at is None else f" .. {one.ended_at:%Y-%m-%d %H:%M} {one.ended_by}")
        for one in found
    ] or ["no key: a score of this terminal is read on its family's word, unless the chain requires signatures"]
    _print({"terminal": terminal, "keys": [asdict(one) for one in found]}, as_json, "\n".join(lines))


@keys_app.command("revoke")
def revoke_key(
    terminal: Terminal,
    key: Annotated[str | None, typer.Argument(help="A fingerprint of `show`; otherwise all of the terminal's.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    demo_: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A camera that was exchanged or stolen: what its key signs counts no more. A revoked key does not come back."""
    if not yes and not as_json:
        typer.confirm(f"revoke {key or 'every key'} of {terminal}?", abort=True, err=True)
    done = _row(asdict(asyncio.run(_desk(data, demo_).revoke(terminal, key, _by()))))
    _print(done, as_json, _line(done))


def register(terminal_app: typer.Typer) -> None:
    """Add the verbs to `storeops terminal`."""
    terminal_app.add_typer(keys_app, name="liveness-key")
