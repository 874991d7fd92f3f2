"""`storeops permissions …`: the catalogue, who has what where, and giving and taking it; each change is audited."""

from __future__ import annotations

import asyncio
import getpass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from models.domain.errors import Refused
from models.domain.permissions import PERSON_CHARACTERS_MAX, Grant, Permission
from runtime.kill_cli import scope_of
from runtime.terminal_verbs import AsJson, Data, Demo, _print

permissions_app = typer.Typer(no_args_is_help=True, help="Who may do what, at which store, region or chain.")

Person = Annotated[str, typer.Argument(help="As they sign in; at a till the clerk's id.")]
Wanted = Annotated[Permission, typer.Argument(help="One of the catalogue, as return.cash.")]
Store = Annotated[str | None, typer.Option("--store", help="At one store.")]
Region = Annotated[str | None, typer.Option("--region", help="At every store of a region.")]
Chain = Annotated[str | None, typer.Option("--chain", help="At every store of a chain.")]


@permissions_app.command("list")
def list_grants(data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """The catalogue, and who has what where."""
    from runtime import administration

    urls = list(dict.fromkeys(plant.database_url for plant in administration.running_all(data, demo)))

    async def work() -> list[Grant]:
        from psycopg import AsyncConnection

        from models.tables.permissions import load_grants

        found: list[Grant] = []
        for url in urls:
            async with await AsyncConnection.connect(url, autocommit=True) as conn:
                found += [one for one in await load_grants(conn) if one not in found]
        return found

    grants = asyncio.run(work())
    document = {
        "permissions": [str(one) for one in Permission],
        "grants": [
            {"person": one.person, "permission": str(one.permission), "scope": str(one.scope)} for one in grants
        ],
    }
    said = [f"{one.person}  {one.permission}  {one.scope}" for one in grants] or ["nobody has any"]
    _print(document, as_json, "\n".join([f"catalogue: {', '.join(Permission)}", *said]))


@permissions_app.command("grant")
def grant(
    person: Person,
    permission: Wanted,
    store: Store = None,
    region: Region = None,
    chain: Chain = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Give it. Given again, nothing changes."""
    _change(Grant(_named(person), permission, scope_of(store, region, chain)), True, data, demo, as_json)


@permissions_app.command("revoke")
def revoke(
    person: Person,
    permission: Wanted,
    store: Store = None,
    region: Region = None,
    chain: Chain = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Take away what was given at just this scope. It counts at once."""
    _change(Grant(_named(person), permission, scope_of(store, region, chain)), False, data, demo, as_json)


def _named(person: str) -> str:
    if not person.strip() or len(person) > PERSON_CHARACTERS_MAX:
        raise Refused("bad_person", f"{person[:80]!r} names nobody", f"1 to {PERSON_CHARACTERS_MAX} characters")
    return person.strip()


def _change(wanted: Grant, give: bool, data: Any, demo: bool, as_json: bool) -> None:
    from runtime import administration

    urls = dict.fromkeys(plant.database_url for plant in administration.running_all(data, demo))
    changed = asyncio.run(change_everywhere(list(urls), wanted, give, f"cli:{getpass.getuser()}"))
    what = ("given" if give else "taken away") if changed else ("was given already" if give else "was not given")
    document = {"person": wanted.person, "permission": str(wanted.permission), "scope": str(wanted.scope)}
    said = f"{wanted.permission} at {wanted.scope}, {wanted.person}: {what}"
    _print({**document, "granted": give, "changed": changed}, as_json, said)


async def change_everywhere(urls: list[str], wanted: Grant, give: bool, by: str) -> bool:
    """In every database of the deployment, each with its audit event; True when one of them changed."""
    from psycopg import AsyncConnection

    from models.tables.permissions import drop_grant, save_grant
    from models.tables.privacy import audit

    now, changed = datetime.now(UTC), False
    for url in urls:
        async with await AsyncConnection.connect(url) as conn, conn.transaction():
            done = await save_grant(conn, wanted, by, now) if give else await drop_grant(conn, wanted)
            if done:
                kind = "permission.granted" if give else "permission.revoked"
                detail = {"permission": str(wanted.permission), "scope": str(wanted.scope)}
                await audit(conn, kind, f"person:{wanted.person}", detail, by, now)
            changed = changed or done
    return changed
