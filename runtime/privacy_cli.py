"""`storeops privacy …`: what the privacy officer does from the command line. Every verb leaves a line in the audit."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar

import typer

from models.domain.errors import Refused
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err

if TYPE_CHECKING:
    from models.tables.persons import PrivacyRequest
    from models.tables.privacy import ChainCheck
    from runtime.privacy import Privacy

privacy_app = typer.Typer(no_args_is_help=True, help="People's data: consent, erasure, export, retention, the audit.")

Member = Annotated[str, typer.Argument(help="A member's id, as the console shows it.")]
Request = Annotated[str, typer.Argument(help="A request's id.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept with the request.")]
VIA = "cli"
T = TypeVar("T")


def _by() -> str:
    return f"cli:{getpass.getuser()}"


def _privacy(data: Path | None, demo: bool) -> Privacy:
    from runtime import administration
    from runtime.privacy_desk import privacy_of

    return privacy_of(administration.running_all(data, demo))


def _run(work: Coroutine[Any, Any, T], doing: str) -> T:
    """With a line on the screen, for erased bytes take seconds to leave the database's files."""
    with err.status(doing):
        return asyncio.run(work)


def _document(request: PrivacyRequest) -> dict[str, Any]:
    return asdict(request)


@privacy_app.command()
def withdraw(
    member: Member, reason: Reason = "the member asked", data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Withdraw a member's consent to their face: every template and key of theirs is erased, at once."""
    done = _run(_privacy(data, demo).withdraw(member, by=_by(), via=VIA, reason=reason), "erasing templates and keys")
    result = done.result or {}
    text = f"{member}: erased, templates: {result.get('templates', 0)}, keys: {result.get('keys', 0)}"
    _print(_document(done), as_json, text)


@privacy_app.command()
def erase(
    member: Member, reason: Reason = "the member asked", data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Ask for the whole person to be erased: the face goes at once, the rest when somebody else approves."""
    asked = _run(_privacy(data, demo).ask_erasure(member, by=_by(), via=VIA, reason=reason), "erasing the face")
    text = f"request {asked.id} is open; somebody else approves it: `storeops login --as NAME`, Privacy & audit"
    _print(_document(asked), as_json, text)


@privacy_app.command()
def approve(request: Request, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Approve a request to erase a person. Not by who asked for it."""
    done = _run(_privacy(data, demo).approve(request, by=_by()), "erasing the person")
    _print(_document(done), as_json, f"{done.member} is erased; sales and the ledger stand without them")


@privacy_app.command()
def refuse(request: Request, reason: Reason, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Refuse a request to erase a person, with the reason that they are told."""
    done = _run(_privacy(data, demo).refuse(request, by=_by(), reason=reason), "refusing")
    _print(_document(done), as_json, f"request {request} is refused: {reason}")


@privacy_app.command()
def export(
    member: Member,
    reason: Reason = "the member asked",
    out: Annotated[Path | None, typer.Option("--out", help="A new file, 0600; standard output otherwise.")] = None,
    html: Annotated[str | None, typer.Option("--html", help="A page to read, in zh or en, instead of JSON.")] = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Everything that is kept about a member, as they may have it: one JSON document, or a page to read."""
    from runtime.privacy_export import as_html
    from runtime.privacy_export import as_json as to_json

    if html is not None and (as_json or html not in ("zh", "en")):
        raise Refused("which_form", "a page in zh or en, or JSON?", "give one of --html zh, --html en, --json")
    privacy, now = _privacy(data, demo), datetime.now(UTC)

    async def run(file: BinaryIO) -> int:
        rows = await privacy.export(member, by=_by(), via=VIA, reason=reason)
        pieces = to_json(member, now, rows) if html is None else as_html(member, now, html, rows)
        written = 0
        async for piece in pieces:
            written += file.write(piece)
        return written

    if out is None:
        _run(run(typer.get_binary_stream("stdout")), "exporting")
        return
    with _new_file(out) as file:
        written = _run(run(file), "exporting")
    _print({"member": member, "file": str(out), "bytes": written}, as_json, f"{out}: {written} bytes")


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Made before anything is exported, for an export is a line in the audit; not left behind by what fails."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Refused("file_exists", f"{path} is there already", "name a new file") from None
    except OSError as error:
        raise Refused("file_not_made", f"{path}: {error.strerror}", "name a new file in a folder of yours") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@privacy_app.command()
def age(
    member: Member,
    born: Annotated[int | None, typer.Option(min=1900, max=2200, help="The year of birth.")] = None,
    under_14: Annotated[
        bool | None, typer.Option("--under-14/--no-under-14", help="A clerk or a guardian says so, or takes it back.")
    ] = None,
    guardian: Annotated[str, typer.Option(help="The record of a guardian's consent.")] = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Keep what is known of a member's age, in place of what was. A child under 14 without a guardian's consent has no
    template."""
    from models.domain.privacy import Age

    if born is None and under_14 is None and not guardian:
        raise Refused("age_what", "what is known of their age?", "give one of --born, --under-14, --no-under-14")
    known = Age(born, under_14 or False, guardian)
    erased = _run(_privacy(data, demo).mark_age(member, known, by=_by()), "looking at templates")
    _print({"member": member, "templates_erased": erased}, as_json, f"{member}: kept; templates erased: {erased}")


@privacy_app.command()
def retention(data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Erase and forget everything whose time is over now. The house does it by itself every hour."""
    privacy = _privacy(data, demo)
    with err.status("looking") as status:
        totals = asyncio.run(privacy.sweep(lambda line: status.update(line)))
    _print(totals, as_json, "\n".join(f"{name:<24} {count}" for name, count in totals.items()) or "nothing is due")


@privacy_app.command()
def report(
    member: Annotated[str | None, typer.Argument(help="A member's id; without one, the whole deployment.")] = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Distinct faces against the filing threshold, requests, retention; or what is kept of one member."""
    privacy = _privacy(data, demo)
    if member is not None:
        person = asdict(_run(privacy.person(member), "looking"))
        person.pop("name"), person.pop("phone_tail")
        _print(person, as_json, "\n".join(f"{name:<10} {value}" for name, value in person.items()))
        return
    found = _run(privacy.report(), "counting")
    lines = [f"distinct faces  {found['distinct_faces']} of {found['filing_threshold']}  ({found['filing_level']})"]
    lines += [f"  {name:<14} {chain['distinct_faces']}" for name, chain in found["chains"].items()]
    lines += [f"{name:<28} {count}" for name, count in sorted(found["requests"].items())]
    lines += [f"erased, but not out of the files: {one}" for one in found["unscrubbed"]]
    _print(found, as_json, "\n".join(lines))


@privacy_app.command()
def link(member: Member, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """A link to the member's own page, for the person to whom you just proved who they are. It expires."""
    from runtime import administration
    from runtime.privacy_desk import links_of

    plants = administration.running_all(data, demo)
    asyncio.run(_privacy(data, demo).person(member))
    links = links_of(plants)
    url = f"{plants[0].gateway_url}/m/{links.make(member, datetime.now(UTC))}"
    _print({"member": member, "url": url, "hours": links.hours}, as_json, f"{url}\nfor {links.hours} hours")


@privacy_app.command()
def verify(data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Walk the audit: every event there, unchanged, following the one before, and none cut off since the last
    checkpoint."""
    checks = _run(_privacy(data, demo).verify(), "checking every event")
    found = {"ok": all(check.ok for check in checks), "audits": [asdict(check) for check in checks]}
    _print(found, as_json, "\n".join(_said_of(check) for check in checks))
    raise typer.Exit(0 if found["ok"] else 1)


def _said_of(check: ChainCheck) -> str:
    held = f"held against the checkpoint of event {check.checkpoint}"
    none = "no checkpoint yet: what was cut off or written anew as a whole would not be found"
    return f"{check.events} events: {check.fault or 'whole'}; {held if check.checkpoint else none}"
