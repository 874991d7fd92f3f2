"""`storeops drawer …`: the cash drawers of a store and their shifts. A count is blind: nobody is told what to find."""

from __future__ import annotations

import asyncio
import getpass
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from models.domain.drawers import MoveKind
from models.domain.money import format_yuan
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err, whole_fen

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.drawers import ShiftReport
    from runtime.drawer_desk import DrawersOfAHouse

drawer_app = typer.Typer(no_args_is_help=True, help="Cash drawers: shifts, paid in and out, drops, blind counts.")

Store = Annotated[str, typer.Argument(help="A store's id.")]
DrawerName = Annotated[str, typer.Argument(help="A lane of it.")]
Fen = Annotated[int, typer.Option("--fen", parser=whole_fen, metavar="FEN", help="Integer fen.")]
By = Annotated[str, typer.Option("--by", help="Who stands at the drawer; default: you.")]
Number = Annotated[
    str | None, typer.Option("--number", help="A request number of your own: repeated, it has one effect.")
]
T = TypeVar("T")
Verb = Callable[["DrawersOfAHouse", str, str], Awaitable["ShiftReport"]]
"""(desk, request number, who)."""


def _with_desk(data: Path | None, demo: bool, work: Callable[[DrawersOfAHouse], Awaitable[T]]) -> T:
    from runtime import administration
    from runtime.drawer_desk import opened

    plants = administration.running_all(data, demo)

    async def run() -> T:
        async with opened(plants) as desk:
            return await work(desk)

    return asyncio.run(run())


def _do(data: Path | None, demo: bool, as_json: bool, number: str | None, by: str, verb: Verb) -> None:
    who = by or f"cli:{getpass.getuser()}"
    request = f"cli:{number or uuid.uuid4()}"
    with err.status("doing it"):
        report = _with_desk(data, demo, lambda desk: verb(desk, request, who))
    _print(document(report), as_json, text_of(report))


@drawer_app.command("open")
def open_(
    store: Store,
    drawer: DrawerName,
    float_fen: Annotated[
        int, typer.Option("--float", parser=whole_fen, metavar="FEN", help="Change from the safe, integer fen.")
    ],
    by: By = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Begin a shift with change from the safe."""
    _do(data, demo, as_json, number, by, lambda desk, n, who: desk.open_shift(n, store, drawer, float_fen, who))


@drawer_app.command("paid-in")
def paid_in(
    store: Store,
    drawer: DrawerName,
    fen: Fen,
    reason: Annotated[str, typer.Option("--reason", help="What for.")],
    by: By = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Cash that goes in without a sale."""
    kind = MoveKind.PAID_IN
    _do(data, demo, as_json, number, by, lambda desk, n, who: desk.move(n, store, drawer, kind, fen, reason, who))


@drawer_app.command("paid-out")
def paid_out(
    store: Store,
    drawer: DrawerName,
    fen: Fen,
    reason: Annotated[str, typer.Option("--reason", help="What for.")],
    by: By = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Cash that is spent from the drawer."""
    kind = MoveKind.PAID_OUT
    _do(data, demo, as_json, number, by, lambda desk, n, who: desk.move(n, store, drawer, kind, fen, reason, who))


@drawer_app.command()
def drop(
    store: Store,
    drawer: DrawerName,
    fen: Fen,
    by: By = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Cash that goes to the safe."""
    kind = MoveKind.DROP
    _do(data, demo, as_json, number, by, lambda desk, n, who: desk.move(n, store, drawer, kind, fen, "", who))


@drawer_app.command()
def count(
    store: Store,
    drawer: DrawerName,
    fen: Fen,
    by: By = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """What lies in the drawer, counted once. Only the answer says what should have been in it."""
    _do(data, demo, as_json, number, by, lambda desk, n, who: desk.count(n, store, drawer, fen, who))


@drawer_app.command("hand-over")
def hand_over(
    store: Store,
    drawer: DrawerName,
    by: By = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The counted money is the next shift's float. `--by`: who takes over."""
    _do(data, demo, as_json, number, by, lambda desk, n, who: desk.hand_over(n, store, drawer, who))


@drawer_app.command()
def close(
    store: Store,
    drawer: DrawerName,
    by: By = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The counted money goes to the safe."""
    _do(data, demo, as_json, number, by, lambda desk, n, who: desk.close(n, store, drawer, who))


@drawer_app.command()
def report(
    store: Store,
    day: Annotated[str, typer.Option("--day", help="Business date, as 2026-12-01; default: all.")] = "",
    drawer: Annotated[str, typer.Option("--drawer", help="One lane only.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=400, help="Shifts at most, the newest first.")] = 20,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """X reports of open shifts, Z reports of counted ones."""
    found = _with_desk(data, demo, lambda desk: desk.reports(store, day=day, drawer=drawer, limit=limit))
    if as_csv:
        from gateway.routes.drawers import as_csv as csv_of

        typer.echo(csv_of(found).decode(), nl=False)
        return
    text = "\n\n".join(text_of(one) for one in found) or "no shift yet: storeops drawer open"
    _print({"shifts": [document(one) for one in found]}, as_json, text)


def document(report: ShiftReport) -> dict[str, Any]:
    """As the API answers it."""
    return {
        **asdict(report),
        "opened_at": report.opened_at.isoformat(),
        "counted_at": report.counted_at.isoformat() if report.counted_at else None,
        "ended_at": report.ended_at.isoformat() if report.ended_at else None,
        "moves": [{**asdict(one), "at": one.at.isoformat()} for one in report.moves],
    }


def text_of(report: ShiftReport) -> str:
    """The report as a till prints it."""
    head = f"{report.kind} {report.store}/{report.drawer} #{report.n}  {report.business_date}  {report.state}"
    lines = [
        ("备用金 float", report.float_fen),
        ("现金销售 cash sales", report.cash_sales_fen),
        ("现金退款 cash returns", report.cash_returns_fen),
        ("存入 paid in", report.paid_in_fen),
        ("支出 paid out", report.paid_out_fen),
        ("上缴 drops", report.drops_fen),
        ("应有 expected", report.expected_fen),
        ("实点 counted", report.counted_fen),
        ("长短款 over/short", report.over_short_fen),
    ]
    shown = [f"  {name:<24} {format_yuan(fen):>12}" for name, fen in lines if fen is not None]
    shown += [f"  {one.kind:<24} {format_yuan(one.fen):>12}  × {one.sales}" for one in report.other_tenders]
    return "\n".join([head, *shown])
