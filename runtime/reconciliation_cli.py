"""`storeops reconcile …` and `storeops day …`: statements against the books, and the close of a business day."""

from __future__ import annotations

import asyncio
import csv
import getpass
import io
import json
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from models.domain.difference_postings import Remedy
from models.domain.errors import Refused
from models.domain.money import format_yuan
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err

if TYPE_CHECKING:
    from gateway.reconciliation import CloseResult
    from models.tables.differences import DayRun, Line
    from models.tables.reconciliation import Account
    from runtime.reconciliation_desk import ReconciliationDesk

reconcile_app = typer.Typer(no_args_is_help=True, help="Providers' statements against the ledger, line by line.")
day_app = typer.Typer(no_args_is_help=True, help="Business days of a legal entity: closed when nothing is unexplained.")

Day = Annotated[
    datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="Business day; default: the last one over.")
]
OneAccount = Annotated[
    str | None, typer.Option("--account", help="Legal entity of the merchant account; default: all.")
]
Provider = Annotated[str | None, typer.Option("--provider", help="Default: all.")]
Region = Annotated[str, typer.Option("--region", help="Where regions have databases of their own.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV on standard output.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept with the line and in the audit.")]
LineId = Annotated[str, typer.Argument(help="A line's id: storeops reconcile lines.")]
Entity = Annotated[str, typer.Option("--entity", help="The legal entity.")]
T = TypeVar("T")

LINE_COLUMNS = (
    "day", "provider", "account", "verdict", "state", "kind", "order_no", "request_no", "trade_no", "provider_fen",
    "ours_fen", "difference_fen", "hold_fen", "pair_day", "store", "txn", "posted_to", "reason", "by", "id",
)  # fmt: skip


def _by() -> str:
    return f"cli:{getpass.getuser()}"


def _desk(data: Any, demo: bool) -> ReconciliationDesk:
    from runtime import administration
    from runtime.reconciliation_desk import ReconciliationDesk

    return ReconciliationDesk(administration.running_all(data, demo))


def _accounts(desk: ReconciliationDesk, account: str | None, provider: str | None, region: str) -> list[Account]:
    found = [
        one
        for one in desk.accounts(region=region)
        if account in (None, one.entity) and provider in (None, one.provider)
    ]
    if not found:
        raise Refused("unknown_account", f"no account {account or ''} {provider or ''}", "see the chain's file")
    return found


def _run(work: Coroutine[Any, Any, T], doing: str) -> T:
    with err.status(doing):
        return asyncio.run(work)


@reconcile_app.command()
def fetch(
    day: Day = None,
    account: OneAccount = None,
    provider: Provider = None,
    region: Region = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Fetch statements from the provider, in the place of earlier ones of that day."""
    desk = _desk(data, demo)

    async def all_of() -> list[dict[str, Any]]:
        done = []
        for one in _accounts(desk, account, provider, region):
            on = day.date() if day else await desk.yesterday(one.entity, region=region)
            lines = await desk.fetch(
                one.entity, one.provider, on, region=region, progress=lambda n: shown.update(f"{n:,} lines")
            )
            done.append({"provider": one.provider, "account": one.entity, "day": on.isoformat(), "lines": lines})
        return done

    with err.status("fetching") as shown:
        found = asyncio.run(all_of())
    text = "\n".join(f"{one['day']} {one['provider']} {one['account']}: {one['lines']:,} lines" for one in found)
    _print({"statements": found}, as_json, text)


@reconcile_app.command()
def run(
    day: Day = None,
    account: OneAccount = None,
    provider: Provider = None,
    fetch_first: Annotated[bool, typer.Option("--fetch/--no-fetch", help="Fetch what is not there yet.")] = True,
    region: Region = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Match statements with the books, post what explains itself, show what differs. Exit code 1: something is open."""
    desk = _desk(data, demo)

    async def all_of() -> list[DayRun]:
        runs = []
        for one in _accounts(desk, account, provider, region):
            on = day.date() if day else await desk.yesterday(one.entity, region=region)
            verb = desk.fetch_and_run if fetch_first else desk.run
            runs.append(await verb(one.entity, one.provider, on, region=region))
        return runs

    runs = _run(all_of(), "matching")
    if as_csv:
        _csv([asdict(one) for one in runs], [one.name for one in fields(runs[0])])
    else:
        _show({"days": [asdict(one) for one in runs]}, as_json, _days_table(runs))
    raise typer.Exit(1 if any(one.open_lines or one.statement_fen is None for one in runs) else 0)


@reconcile_app.command()
def lines(
    day: Day = None,
    account: OneAccount = None,
    provider: Provider = None,
    state: Annotated[str | None, typer.Option(help="open, posted, explained; default: all.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1_000,
    region: Region = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Lines that are not simply matched: the report, as a table, JSON or CSV."""
    found = _run(
        _desk(data, demo).lines(
            account=account,
            provider=provider,
            day=day.date() if day else None,
            state=state,
            limit=limit,
            region=region,
        ),
        "reading",
    )
    documents = [line_document(one) for one in found]
    if as_csv:
        _csv(documents, LINE_COLUMNS)
    else:
        _show({"lines": documents}, as_json, _lines_table(found))


@reconcile_app.command()
def explain(
    line: LineId, reason: Reason, region: Region = "", data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Explain a line by a sentence; nothing is booked."""
    done = _run(_desk(data, demo).explain(line, reason, _by(), region=region), "writing")
    _print(line_document(done), as_json, f"{done.order_no}: explained")


@reconcile_app.command()
def resolve(
    line: LineId,
    to: Annotated[Remedy, typer.Option("--to", help="Where its amount is booked.")],
    reason: Reason,
    region: Region = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Book a line's difference to suspense, to the provider's fee, or as a loss."""
    done = _run(_desk(data, demo).resolve(line, to, reason, _by(), region=region), "booking")
    _print(line_document(done), as_json, f"{done.order_no}: {format_yuan(done.difference_fen)} to {to}")


# ---------------------------------------------------------------- days


@day_app.command()
def close(
    entity: Entity,
    day: Day = None,
    region: Region = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Close a business day, and those before it. Exit code 1: it stays open, and which lines are in the way."""
    desk = _desk(data, demo)

    async def work() -> CloseResult:
        on = day.date() if day else await desk.yesterday(entity, region=region)
        return await desk.close(entity, on, _by(), region=region)

    result = _run(work(), "closing")
    text = f"{result.day} of {entity} is closed" if result.closed else f"{result.day} of {entity} stays open:"
    for one in result.obstacles:
        text += f"\n  {one.code}: {one.what}" + "".join(f"\n    {line}" for line in one.lines)
    for drawer in result.warnings:
        text += f"\n  nobody counted the drawer {drawer}: storeops drawer count"
    _print(asdict(result), as_json, text)
    raise typer.Exit(0 if result.closed else 1)


@day_app.command()
def status(
    entity: Annotated[str | None, typer.Option("--entity", help="Default: all.")] = None,
    region: Region = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Days as they were matched and closed, the newest first."""
    desk = _desk(data, demo)

    async def both() -> tuple[Any, Any]:
        return await desk.days(account=entity, region=region), await desk.events(entity, region=region)

    days, events = _run(both(), "reading")
    if as_csv:
        _csv([asdict(one) for one in days], list(asdict(days[0])) if days else ["day"])
        return
    document = {"days": [asdict(one) for one in days], "events": [asdict(one) for one in events]}
    _show(document, as_json, _days_table(days))


@day_app.command()
def reopen(
    entity: Entity,
    reason: Reason,
    day: Annotated[datetime, typer.Option("--day", formats=["%Y-%m-%d"], help="The last closed day.")],
    region: Region = "",
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Open the last closed day again; the reason stays in the audit."""
    event = _run(_desk(data, demo).reopen(entity, day.date(), reason, _by(), region=region), "opening")
    _print(asdict(event), as_json, f"{event.day} of {entity} is open again")


# ---------------------------------------------------------------- what is shown


def line_document(line: Line) -> dict[str, Any]:
    """A line as JSON or a row of CSV."""
    document = {**asdict(line), "difference_fen": line.difference_fen}
    return {name: document[name] for name in LINE_COLUMNS}


def as_csv_text(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV with a header, lines ended as RFC 4180 says. Text that a spreadsheet would run is quoted by '."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
    return out.getvalue()


def _cell(value: object) -> object:
    text = "" if value is None else value
    return f"'{text}" if isinstance(text, str) and text[:1] in {"=", "+", "-", "@", "\t"} else text


def _csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    typer.echo(as_csv_text(rows, columns), nl=False)


def _show(document: dict[str, Any], as_json: bool, table: Table) -> None:
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False, default=_plain))
    else:
        Console().print(table)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _days_table(runs: Sequence[DayRun]) -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in ("day, state", "account", "matched", "open", "statement", "ledger", "difference"):
        table.add_column(name, justify="left" if name in {"day, state", "account"} else "right", no_wrap=True)
    for one in runs:
        state = "closed" if one.closed else "open lines" if one.open_lines else "no statement"
        if not one.closed and not one.open_lines and one.statement_fen is not None:
            state = "matched"
        table.add_row(
            f"{one.day.isoformat()}\n{state}",
            f"{one.account}\n{one.provider}",
            f"{one.matched:,}/{one.statement_lines:,}",
            f"{one.open_lines:,}",
            "–" if one.statement_fen is None else format_yuan(one.statement_fen),
            format_yuan(one.ledger_fen),
            format_yuan(one.difference_fen),
        )
    return table


def _lines_table(found: Sequence[Line]) -> Table:
    """What is copied into the next command is never cut."""
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("line, order, account, reason", min_width=36)
    for name in ("theirs", "ours", "differs"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        amounts = (format_yuan(fen) for fen in (one.provider_fen, one.ours_fen, one.difference_fen))
        told = (one.id, one.order_no, one.request_no, f"{one.account} {one.provider}", one.reason)
        what = f"{one.day}\n{one.verdict}\n{one.state}"
        table.add_row(what, "\n".join(part for part in told if part), *amounts)
    return table
