"""`storeops prices import|history`, `receipts show|verify`, `points expire|show` and `invoice`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from models.domain.errors import Refused
from models.domain.money import format_yuan
from models.domain.price_file import FILE_BYTES_MAX, ITEMS_MAX, JUMP_PERCENT
from runtime.terminal_verbs import AsJson, Data, Demo, _print

if TYPE_CHECKING:
    from gateway.queries.receipts import ReceiptView
    from models.domain.invoices import Document, Invoice
    from models.domain.receipts import Verifier
    from runtime.plant import Plant
    from runtime.price_import import Imported

prices_app = typer.Typer(no_args_is_help=True, help="A chain's price file.")
receipts_app = typer.Typer(no_args_is_help=True, help="Receipts in their stores' chains.")
points_app = typer.Typer(no_args_is_help=True, help="Loyalty points.")
err = Console(stderr=True, highlight=False)


@prices_app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="CSV: code, name_zh, name_en, price, and flags, tax, effective.")],
    chain: Annotated[str, typer.Option("--chain", help="Whose articles these are.")],
    effective: Annotated[str, typer.Option(help="From when on, as 2026-12-01T06:00; else at once.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take prices that jump, too.")] = False,
    jump: Annotated[int, typer.Option(min=1, help="A price that moves by more percent is a jump.")] = JUMP_PERCENT,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Make a price file the chain's next book, all or nothing: checked line by line, and what it changes is shown."""
    from runtime import administration
    from runtime.price_desk import effective_at
    from runtime.price_import import Wanted, digest_of, import_everywhere

    body = _body(file)
    plants = administration.running_all(data, demo)
    urls = [plant.database_url for plant in plants]

    async def work(progress: Progress) -> list[Imported]:
        task = progress.add_task("lines", total=body.count(b"\n"))
        wanted = Wanted(
            chain, digest_of(body), await effective_at(urls, chain, effective), dry_run, force, jump_percent=jump
        )
        now = await administration.clock_now(plants[0])
        return await import_everywhere(urls, body, wanted, now, lambda lines: progress.update(task, completed=lines))

    with Progress(console=err, transient=True) as progress:
        done = asyncio.run(work(progress))[0]
    _print(done.as_document(), as_json, _said(done))


def _body(file: Path) -> bytes:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise Refused(
                "too_large", f"{file} has more than {FILE_BYTES_MAX} bytes", f"at most {ITEMS_MAX:,} articles"
            )
        return file.read_bytes()
    except OSError as error:
        raise Refused("prices_unreadable", str(error), "check the file's name") from error


def _said(done: Imported) -> str:
    diff = done.diff
    what = "nothing changes" if not done.version else f"book {done.version} of {done.chain} is in force"
    said = [
        "nothing was written (--dry-run)" if done.dry_run else what,
        f"{done.lines:,} lines: {diff.new:,} new, {diff.changed:,} changed ({diff.prices_changed:,} prices),"
        f" {diff.gone:,} gone, {diff.same:,} as they were",
    ]
    shown = done.as_document()["jumps_shown"]
    said += [
        f"  jump: {one['code']} {format_yuan(one['from_fen'])} -> {format_yuan(one['to_fen'])}"
        + (f" from {one['at']}" if one["at"] else "")
        for one in shown
    ]
    more = len(diff.jumps) - len(shown)
    return "\n".join([*said, *([f"  and {more:,} jumps more"] if more > 0 else [])])


@prices_app.command("history")
def history(
    chain: Annotated[str, typer.Option("--chain", help="Whose price files.")],
    version: Annotated[int | None, typer.Option(help="What this book changed, article by article.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The price files that a chain took, the newest first; with --version what one changed."""
    from models.tables.price_history import item_changes, taken_files
    from runtime import administration

    plants = [one for one in administration.running_all(data, demo) if one.chain == chain]
    if not plants:
        raise Refused("unknown_chain", f"there is no chain {chain!r} here", "see `storeops status`")

    async def work() -> tuple[list[Any], list[str]]:
        from psycopg import AsyncConnection

        async with await AsyncConnection.connect(plants[0].database_url, autocommit=True) as conn:
            if version is None:
                files = await taken_files(conn, chain, limit=limit)
                return list(files), [
                    f"book {one.version}  {one.taken_at.astimezone():%Y-%m-%d %H:%M}  {one.lines:,} lines,"
                    f" {one.changed:,} changed  {one.sha256[:12]}"
                    for one in files
                ]
            changed = await item_changes(conn, chain, version, limit=limit)
            return list(changed), [
                f"{one.code}  {one.kind}  {_fen(one.from_fen)} -> {_fen(one.to_fen)}  {one.name_zh}"
                + "".join(f", from {at.astimezone():%Y-%m-%d %H:%M} {_fen(fen)}" for at, fen in one.later)
                for one in changed
            ]

    found, said = asyncio.run(work())
    name = "files" if version is None else "changes"
    from pydantic import TypeAdapter

    document = {"chain": chain, name: TypeAdapter(list[Any]).dump_python(found, mode="json")}
    _print(document, as_json, "\n".join(said) or "none")


def _fen(fen: int | None) -> str:
    return "-" if fen is None else format_yuan(fen)


# ---------------------------------------------------------------- receipts


@receipts_app.command("show")
def show_receipt(
    receipt: Annotated[str, typer.Argument(help="A receipt's number or a sale's id; or how numbers begin.")],
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A receipt with its lines, its void and returns, and whether each link of the chain holds."""
    from runtime import administration

    found = asyncio.run(_receipts(administration.running_all(data, demo), receipt))
    if not found:
        raise Refused("unknown_sale", f"there is no receipt {receipt!r}", "take its number from the console")
    whole = len({one.link.sale for one in found}) == 1
    said = []
    for one in found:
        holds = "; ".join(fault.detail for fault in one.faults) or "holds"
        said.append(f"{one.link.receipt} {one.link.kind} {format_yuan(one.link.fen)}")
        said.append(f"  {one.link.store} #{one.link.n} {one.link.sha256[:16]}: {holds}")
    if whole:
        first = found[0]
        said += [f"  {line['name']} x{line['quantity']}  {format_yuan(line['net_fen'])}" for line in first.lines]
        said += [f"  {tender['kind']}  {format_yuan(tender['fen'])}" for tender in first.tenders]
        said += [f"  voucher {one['voucher']}  {format_yuan(-one['fen'])}" for one in first.vouchers]
        said += [
            f"  returned {back.at.astimezone():%Y-%m-%d %H:%M} at {back.store}: {format_yuan(-back.due_fen)}"
            for back in first.returns
        ]
    _print([one.model_dump(mode="json") for one in found], as_json, "\n".join(said))
    if any(one.faults for one in found):
        raise typer.Exit(1)


async def _receipts(plants: Sequence[Plant], text: str) -> list[ReceiptView]:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlmodel.ext.asyncio.session import AsyncSession

    from gateway.queries import receipts
    from runtime.postgres import sqlalchemy_url

    found = []
    for plant in _databases(plants):
        engine = create_async_engine(sqlalchemy_url(plant.database_url))
        try:
            async with AsyncSession(engine) as session:
                for link in await receipts.find(session, text):
                    one = await receipts.receipt(session, link.store, link.n)
                    found += [one] if one is not None else []
        finally:
            await engine.dispose()
    return found


@receipts_app.command("verify")
def verify(
    store: Annotated[str, typer.Option("--store", help="Whose chain.")],
    head: Annotated[
        list[str] | None, typer.Option("--head", help="N:SHA256 noted before: it must still be there. More than once.")
    ] = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Look for receipts that are missing, changed or reordered. Note the head that it prints, for the next time."""
    from runtime import administration

    plants = administration.running_all(data, demo)

    async def work(progress: Progress) -> tuple[Verifier, int]:
        plant = await administration.of_store(plants, store)
        return await _verify(plant, store, [_noted(one) for one in head or ()], progress)

    with Progress(console=err, transient=True) as progress:
        found, unchained = asyncio.run(work(progress))
    document = {
        "ok": not found.faults_total,
        "store": store,
        "receipts": found.receipts,
        "head": f"{found.last}:{found.head.hex()}",
        "before_the_chain": unchained,
        "faults_total": found.faults_total,
        "faults": [dataclasses.asdict(one) for one in found.faults],
    }
    said = [
        f"{store}: {found.receipts:,} receipts, {found.faults_total} faults",
        f"head {document['head']}",
        *(f"  {one.kind} {one.n or ''} {one.id}: {one.detail}" for one in found.faults),
    ]
    _print(document, as_json, "\n".join(said))
    if found.faults_total:
        raise typer.Exit(1)


def _noted(text: str) -> tuple[int, bytes]:
    n, _, sha256 = text.partition(":")
    try:
        return int(n), bytes.fromhex(sha256)
    except ValueError:
        raise Refused(
            "bad_head", f"{text!r} is no head", "write it as `receipts verify` printed it, N:SHA256"
        ) from None


async def _verify(
    plant: Plant, store: str, noted: Sequence[tuple[int, bytes]], progress: Progress
) -> tuple[Verifier, int]:
    from psycopg import AsyncConnection

    from models.tables.receipts import receipts_total, unchained_total, verify_chain

    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        task = progress.add_task("receipts", total=await receipts_total(conn, store))
        found = await verify_chain(conn, store, noted, lambda done: progress.update(task, completed=done))
        return found, await unchained_total(conn, store)


# ---------------------------------------------------------------- points


@points_app.command("show")
def show(
    member: Annotated[str, typer.Argument(help="A member's id.")],
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A member's points: earned, spent, and what may be spent now."""
    from models.tables.points import load_accounts
    from runtime import administration
    from runtime.administration import clock_now

    plants = administration.running_all(data, demo)

    async def work() -> list[Any]:
        from psycopg import AsyncConnection

        found = []
        for plant in _databases(plants):
            async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
                found += await load_accounts(conn, member, await clock_now(plant))
        return found

    accounts = asyncio.run(work())
    said = [
        f"{one.brand}: {one.spendable} to spend\n  earned {one.earned}, restored {one.restored}, spent {one.burned},"
        f" taken back {one.reversed}, expired {one.expired}: balance {one.balance}"
        for one in accounts
    ]
    document = {"member": member, "accounts": [dataclasses.asdict(one) for one in accounts]}
    _print(document, as_json, "\n".join(said) or "no points")


@points_app.command("expire")
def expire(data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Take the points that nobody spent in time, and book them. Again, it takes nothing more."""
    from models.tables.points import expire_points
    from runtime import administration
    from runtime.administration import clock_now

    plants = administration.running_all(data, demo)

    async def work(progress: Progress) -> tuple[int, int]:
        from psycopg import AsyncConnection

        task = progress.add_task("accounts", total=None)
        accounts = points = 0
        for plant in _databases(plants):
            now = await clock_now(plant)
            async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
                async for move in expire_points(conn, now):
                    accounts, points = accounts + 1, points + move.points
                    progress.update(task, completed=accounts)
        return accounts, points

    with Progress(console=err, transient=True) as progress:
        accounts, points = asyncio.run(work(progress))
    _print({"accounts": accounts, "points": points}, as_json, f"{points:,} points of {accounts:,} accounts expired")


def _databases(plants: Sequence[Plant]) -> list[Plant]:
    return list({plant.database_url: plant for plant in plants}.values())


# ---------------------------------------------------------------- invoices


def invoice(
    ident: Annotated[str, typer.Argument(metavar="SALE|MEMBERSHIP", help="A sale's id or receipt, or a membership.")],
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """What may be invoiced, with tax by line, and what returns or refunds took back. No tax authority is called."""
    from pydantic import TypeAdapter

    from models.domain.invoices import Invoice
    from runtime import administration

    found = asyncio.run(_invoice(administration.running_all(data, demo), ident))
    document = TypeAdapter(Invoice).dump_python(found, mode="json")
    _print(document, as_json, "\n".join(_lines(found)))


async def _invoice(plants: Sequence[Plant], ident: str) -> Invoice:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlmodel.ext.asyncio.session import AsyncSession

    from gateway.queries.invoices import invoice_of
    from runtime.postgres import sqlalchemy_url

    for plant in _databases(plants):
        engine = create_async_engine(sqlalchemy_url(plant.database_url))
        try:
            async with AsyncSession(engine) as session:
                found = await invoice_of(session, ident)
        finally:
            await engine.dispose()
        if found is not None:
            return found
    raise Refused("unknown_sale", f"there is no sale or membership {ident!r}", "take its id from the console")


def _lines(found: Invoice) -> list[str]:
    said = [f"{found.kind} {found.id}: {format_yuan(found.stands_fen)} {found.currency}"]
    for one in (*found.documents, *found.corrections):
        said += _document(one)
    return said + [f"not invoiced: {one.why} {format_yuan(one.fen)}" for one in found.left_out]


def _document(one: Document) -> list[str]:
    head = f"{one.reason or 'invoice'} {one.number} by {one.issuer} {one.at.astimezone(UTC):%Y-%m-%d}:"
    return [
        f"{head} {format_yuan(one.gross_fen)}, of it tax {format_yuan(one.tax_fen)}",
        *(
            f"  {line.name} x{line.quantity}  {format_yuan(line.gross_fen)}  tax {line.rate_bp / 100:g} %"
            f" {format_yuan(line.tax_fen)}"
            for line in one.lines
        ),
    ]
