"""`storeops ledger …` and `storeops entity …`: the books, their proof, and whose a store is, from the command line."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.domain.errors import Refused
from models.domain.money import format_yuan
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from models.domain.franchise import Statement
    from models.tables.ledger_journal import Booked, Wanted

ledger_app = typer.Typer(no_args_is_help=True, help="The ledger: balances, journal, proof, export, statements.")
entity_app = typer.Typer(no_args_is_help=True, help="Legal entities, and which stores are theirs.")

Region = Annotated[str | None, typer.Option("--region", help="Whose database, where regions keep their own.")]
Day = Annotated[str | None, typer.Option(help="A business date, as in 2026-11-30.")]
Entity = Annotated[str | None, typer.Option("--entity", help="One legal entity.")]
Account = Annotated[str | None, typer.Option("--account", help="One account, or all that begin with it and a colon.")]
Csv = Annotated[bool, typer.Option("--csv", help="As CSV with a heading line.")]
PAGE = 1_000


def _url(data: Path | None, demo: bool, region: str | None) -> str:
    from runtime import administration

    plants = administration.running_all(data, demo)
    if region is None and len({plant.database_url for plant in plants}) == 1:
        return plants[0].database_url
    return administration.running(data, demo, region).database_url


def _run(url: str, work: Any, doing: str) -> Any:
    """`work(connection)` with a line on the screen."""
    from psycopg import AsyncConnection

    async def run() -> Any:
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            return await work(conn)

    with err.status(doing):
        return asyncio.run(run())


def _of_store(data: Path | None, demo: bool, store: str) -> str:
    from runtime import administration

    return asyncio.run(administration.of_store(administration.running_all(data, demo), store)).database_url


# ---------------------------------------------------------------- balances and journal


@ledger_app.command()
def balance(
    entity: Entity = None,
    account: Account = None,
    on: Day = None,
    region: Region = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Balances by entity, account and book, now or at the end of a business date. Debit positive."""
    from models.tables.ledger_balances import balances

    found = _run(
        _url(data, demo, region),
        lambda conn: balances(conn, entity=entity, account=account, on=on),
        "adding up",
    )
    width = max([len(one.account) for one in found], default=8)
    lines = [
        f"{one.entity:<16} {one.account:<{width}} {format_yuan(one.fen):>14}"
        + ("  pending" if one.book == "pending" else "")
        for one in found
    ]
    rows = [{"entity": one.entity, "account": one.account, "book": str(one.book), "fen": one.fen} for one in found]
    total = sum(one.fen for one in found)
    _print({"on": on, "balances": rows, "sum_fen": total}, as_json, "\n".join([*lines, f"sum {format_yuan(total)}"]))


@ledger_app.command()
def journal(
    entity: Entity = None,
    account: Annotated[str | None, typer.Option("--account", help="One account, exactly.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="First business date.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Last business date.")] = None,
    membership: Annotated[str | None, typer.Option(help="Everything about one membership.")] = None,
    sale: Annotated[str | None, typer.Option(help="Everything about one sale: its id or receipt number.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="Transactions on this page.")] = 50,
    after: Annotated[str | None, typer.Option(help="Where the page before ended: its `next`.")] = None,
    as_csv: Csv = False,
    region: Region = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Booked transactions. Without a filter the newest; with --csv every page, one line for each leg."""
    from models.tables.ledger_journal import Wanted
    from models.tables.ledger_journal import journal as page_of

    if as_csv and as_json:
        raise Refused("which_form", "CSV or JSON?", "give one of --csv and --json")
    wanted = Wanted(entity, account, from_, to, membership, sale)
    url = _url(data, demo, region)
    if as_csv:
        _run(url, lambda conn: _csv_of(conn, wanted), "reading the journal")
        return
    begin = tuple(after.split(",", 1)) if after else None
    if begin is not None and len(begin) != 2:
        raise Refused("journal_after", f"{after!r} is no place in the journal", "give the `next` of the page before")
    page = _run(url, lambda conn: page_of(conn, wanted, limit=limit, after=begin), "reading the journal")
    following = ",".join(page.after) if page.after else None
    lines = [line for one in page.booked for line in _lines_of(one)]
    more = [f"next page: --after {following}"] if following else []
    result = {"transactions": [_document(one) for one in page.booked], "next": following}
    _print(result, as_json, "\n".join([*lines, *more]))


def _document(booked: Booked) -> dict[str, Any]:
    one = booked.transaction
    return {
        "id": one.id,
        "kind": one.kind,
        "request_number": one.request_number,
        "memo": one.memo,
        "refers_to": one.refers_to,
        "booked_at": booked.booked_at.isoformat(),
        "trace": booked.trace,
        "entries": [asdict(entry) for entry in one.entries],
    }


def _lines_of(booked: Booked) -> list[str]:
    one = booked.transaction
    head = f"{one.entries[0].business_date}  {one.kind}  {one.request_number}  {one.memo}".rstrip()
    return [head, *(f"    {entry.entity:<16} {entry.account:<40} {format_yuan(entry.amount_fen):>14}"
                    + ("  pending" if entry.book == "pending" else "") for entry in one.entries)]  # fmt: skip


async def _csv_of(conn: AsyncConnection[Any], wanted: Wanted) -> None:
    from models.tables.ledger_journal import journal as page_of

    writer = csv.writer(sys.stdout)
    writer.writerow(["business_date", "kind", "request_number", "memo", "txn", "leg", "entity", "account", "book",
                     "amount_fen", "booked_at"])  # fmt: skip
    after = None
    while True:
        page = await page_of(conn, wanted, limit=PAGE, after=after)
        for booked in page.booked:
            one = booked.transaction
            for entry in one.entries:
                writer.writerow([entry.business_date, one.kind, one.request_number, one.memo, one.id, entry.leg,
                                 entry.entity, entry.account, str(entry.book), entry.amount_fen,
                                 booked.booked_at.isoformat()])  # fmt: skip
        after = page.after
        if after is None:
            return


# ---------------------------------------------------------------- proof and export


@ledger_app.command()
def verify(region: Region = None, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Recompute the whole ledger and look for every kind of fault. Exit 1 when one is found."""
    from models.tables.ledger_faults import FAULTS, verify

    with err.status("verifying") as status:
        heard = iter(range(1, len(FAULTS) + 1))

        def progress(what: str) -> None:
            status.update(f"{next(heard)} of {len(FAULTS)}: {what.replace('_', ' ')}")

        async def run() -> Any:
            from psycopg import AsyncConnection

            async with await AsyncConnection.connect(_url(data, demo, region), autocommit=True) as conn:
                return await verify(conn, progress)

        found = asyncio.run(run())
    lines = [f"{found.transactions:,} transactions, {found.legs:,} legs"]
    for fault in found.faults:
        lines.append(f"{'ok ' if not fault.count else 'BAD'} {fault.what.replace('_', ' ')}: {fault.count}")
        lines += [f"      {example}" for example in fault.examples]
    _print({"ok": found.ok, **asdict(found)}, as_json, "\n".join(lines))
    raise typer.Exit(0 if found.ok else 1)


@ledger_app.command()
def snapshot(region: Region = None, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Sum up what was booked since the last snapshot, so that balances stay quick."""
    from models.tables.ledger_balances import take_snapshot

    taken = _run(_url(data, demo, region), lambda conn: take_snapshot(conn, datetime.now(UTC)), "summing up")
    _print(asdict(taken), as_json, f"{taken.transactions:,} transactions, {taken.legs:,} legs are summed up")


@ledger_app.command()
def export(
    form: Annotated[str, typer.Option("--format", help="hledger: a plain text journal.")] = "hledger",
    out: Annotated[Path | None, typer.Option("--out", help="A new file, 0600; standard output otherwise.")] = None,
    region: Region = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The whole ledger for a program of somebody else: `storeops ledger export | hledger -f - balance`."""
    from runtime.ledger_export import hledger

    if form != "hledger":
        raise Refused("which_form", f"no such form {form!r}", "hledger")
    if as_json and out is None:
        raise Refused("which_form", "the journal or a JSON object on standard output?", "give --out FILE with --json")
    url = _url(data, demo, region)

    async def write(conn: AsyncConnection[Any]) -> int:
        pieces: AsyncIterator[str] = hledger(conn)
        if out is None:
            return await _write(pieces, typer.get_text_stream("stdout"))
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            return await _write(pieces, file)

    written = _run(url, write, "writing the journal")
    if out is not None:
        _print({"file": str(out), "transactions": written}, as_json, f"{written:,} transactions in {out}")


async def _write(pieces: AsyncIterator[str], file: Any) -> int:
    count = -1  # the heading is none
    async for piece in pieces:
        file.write(piece)
        count += 1
    return count


# ---------------------------------------------------------------- statements and owners


@ledger_app.command()
def statement(
    store: Annotated[str, typer.Option(help="Which store.")],
    month: Annotated[str, typer.Option(help="As in 2026-11.")],
    as_csv: Csv = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The franchise statement of a store and month: one for each legal entity that owned it. Equal to the ledger."""
    from models.tables.franchise import statements

    if as_csv and as_json:
        raise Refused("which_form", "CSV or JSON?", "give one of --csv and --json")
    found = _run(_of_store(data, demo, store), lambda conn: statements(conn, store, month), "reading the month")
    if as_csv:
        typer.echo(statement_csv(found), nl=False)
    else:
        _print({"statements": [_statement_document(one) for one in found]}, as_json, "\n\n".join(map(_sheet, found)))
    raise typer.Exit(0 if all(one.difference_fen == 0 for one in found) else 1)


def _statement_document(one: Statement) -> dict[str, Any]:
    return {
        **asdict(one),
        "rows": [{**asdict(row), "key": row.key} for row in one.rows],
        "days": [{"business_date": day, "lines": lines} for day, lines in one.days],
        "earned_fen": one.earned_fen,
    }


def statement_csv(found: list[Statement]) -> str:
    """Every line and every account, one row each; amounts in fen."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["store", "month", "entity", "part", "name", "party", "legs", "opening_fen", "fen", "rest_fen",
                     "closing_fen"])  # fmt: skip
    for one in found:
        head = [one.store, one.month, one.entity]
        for row in one.rows:
            writer.writerow([*head, "line", str(row.line), row.party, row.legs, "", row.shown_fen, "", ""])
        for account in one.accounts:
            writer.writerow([*head, "account", account.account, "", "", account.opening_fen, account.store_fen,
                             account.rest_fen, account.closing_fen])  # fmt: skip
    return file.getvalue()


def _sheet(one: Statement) -> str:
    days = f"{one.from_date} to {one.to_date}" if one.from_date else "earlier business only"
    lines = [f"{one.store} · {one.month} · {one.entity} ({days})"]
    lines += [
        f"  {row.line.replace('_', ' '):<20} {row.party:<20} {format_yuan(row.shown_fen):>14}" for row in one.rows
    ]
    lines.append(f"  {'earned':<41} {format_yuan(one.earned_fen):>14}")
    lines.append(f"  difference from the ledger {format_yuan(one.difference_fen)}")
    return "\n".join(lines)


@entity_app.command("list")
def entity_list(region: Region = None, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Legal entities, and the stores that are theirs today."""
    from models.tables.owners import entities

    today = datetime.now(UTC).date().isoformat()
    found = _run(_url(data, demo, region), lambda conn: entities(conn, today), "reading")
    lines = [f"{one.id:<20} {one.name_en:<28} {len(one.stores)} stores" for one in found]
    _print({"entities": [asdict(one) for one in found]}, as_json, "\n".join(lines))


@entity_app.command("move")
def entity_move(
    store: Annotated[str, typer.Argument(help="Which store.")],
    to: Annotated[str, typer.Option("--to", help="The legal entity that owns it then.")],
    from_: Annotated[str, typer.Option("--from", help="The business date from which it does, as in 2026-12-01.")],
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A store changes hands. Refused where days from then on have business already, or are closed."""
    from models.tables.owners import move_store

    moved = _run(_of_store(data, demo, store), lambda conn: move_store(conn, store, to, from_), "moving")
    text = f"{store} is {moved.entity}'s from {moved.from_date} on; hosts know it within half a minute"
    _print(asdict(moved), as_json, text)
