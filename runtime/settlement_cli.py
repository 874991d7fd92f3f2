"""`storeops settle …`: run, forecast, follow, pause and resume settlement; what waits for a person."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from actors.settlement_items import Action
from models.domain.money import format_yuan
from runtime.terminal_verbs import AsJson, Data, Demo

if TYPE_CHECKING:  # every verb of the command line imports this module; the tables take half a second
    from runtime.plant import Plant
    from runtime.settlement_desk import SettlementDesk

settle_app = typer.Typer(invoke_without_command=True, help="Settlement of memberships that are due.")

Region = Annotated[str | None, typer.Option("--region", help="One region; without it all of them.")]
OneRegion = Annotated[str | None, typer.Option("--region", help="The region; needed where there are several.")]
Why = Annotated[str, typer.Option("--reason", help="Why: kept, and in the audit.")]
T = TypeVar("T")
LOOK_EVERY_S = 0.5


@settle_app.callback()
def settle(
    context: typer.Context,
    region: Region = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="What would be charged; nothing changes.")] = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Settle every membership that is due now, of one region or of all of them side by side."""
    if context.invoked_subcommand is not None:
        return
    from runtime import administration

    plants = administration.running_all(data, demo)
    if dry_run:
        report = asyncio.run(administration.forecast_regions(plants, region))
        _show(report, as_json, _forecast_table(report["regions"]))
        return
    report = asyncio.run(_followed(plants, region))
    _show(report, as_json, _report_table(report.get("regions", [report])))
    raise typer.Exit(0 if report["ok"] else 1)


@settle_app.command()
def status(region: Region = None, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """How settlement stands: paused or not, what is due, what waits for people, the last runs."""
    found = {plant.region: _with_desk(plant, lambda desk: desk.status()) for plant in _plants(data, demo, region)}
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("region, last run", min_width=36, overflow="fold")
    for column in ("due", "parked", "dunning", "off", "holes"):
        table.add_column(column, justify="right", no_wrap=True)
    table.caption = "off: written off"
    for name, one in found.items():
        last = one.runs[0] if one.runs else None
        told: list[str] = [name]
        if last is not None:
            told.append(f"{last.business_date} {last.state}, {last.booked} booked {last.problem}".rstrip())
        if one.switch.paused:
            told.append(f"paused by {one.switch.by}: {one.switch.why}")
        counts = (one.due, one.parked, one.dunning, one.written_off, len(one.holes))
        table.add_row("\n".join(told), *(f"{n:,}" for n in counts))
    _show({"regions": [asdict(one) for one in found.values()]}, as_json, table)


@settle_app.command()
def pause(why: Why, region: Region = None, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """Stop a region's settlement between two chunks, and start none until `resume`."""
    _switch(True, why, region, data, demo, as_json)


@settle_app.command()
def resume(
    why: Why = "", region: Region = None, data: Data = None, demo: Demo = False, as_json: AsJson = False
) -> None:
    """Let settlement run again; what was left is taken by the next run."""
    _switch(False, why, region, data, demo, as_json)


@settle_app.command()
def parked(
    region: Region = None,
    owing: Annotated[bool, typer.Option("--owing", help="Dunning and written off instead.")] = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """What waits for a person and why; with --owing who owes, and when the next attempt is."""
    stage = "owing" if owing else "parked"
    found = {plant.region: _with_desk(plant, lambda desk: desk.items(stage)) for plant in _plants(data, demo, region)}
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("membership, why", min_width=36)  # it is copied into `resolve`, so it is never cut
    for column in ("state", "charge", "owed", "next attempt"):
        table.add_column(column, no_wrap=True)
    for name, items in found.items():
        for one in items:
            table.add_row(
                f"{one.membership}\n{name} hold {one.hold_state} {one.why}", one.state,
                format_yuan(one.charge_fen), format_yuan(one.receivable_fen),
                "" if one.next_at is None else f"{one.next_at:%Y-%m-%d\n%H:%M %Z}",
            )  # fmt: skip
    _show({name: [asdict(one) for one in items] for name, items in found.items()}, as_json, table)


@settle_app.command(name="resolve")
def resolve_item(
    membership: Annotated[str, typer.Argument(help="Its id: storeops settle parked.")],
    action: Annotated[Action, typer.Argument(help="retry, release, refund, write_off or close.")],
    why: Why,
    region: OneRegion = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Do one thing with a parked membership. Audited, with the reason."""
    from runtime import administration

    plant = administration.running(data, demo, region)
    state = _with_desk(plant, lambda desk: desk.resolve(membership, action, why, _by()))
    _show({"membership": membership, "state": state}, as_json, f"{membership}: {state}")


def _switch(paused: bool, why: str, region: str | None, data: Path | None, demo: bool, as_json: bool) -> None:
    found = {
        plant.region: asdict(_with_desk(plant, lambda desk: desk.switch(paused, _by(), why)))
        for plant in _plants(data, demo, region)
    }
    _show(found, as_json, f"{'paused' if paused else 'resumed'}: {', '.join(found)}")


def _show(value: Any, as_json: bool, otherwise: str | Table) -> None:
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False, default=str))
    else:
        Console().print(otherwise)


def _by() -> str:
    return f"cli:{getpass.getuser()}"


def _plants(data: Path | None, demo: bool, region: str | None) -> tuple[Plant, ...]:
    from runtime import administration

    return administration.chosen(administration.running_all(data, demo), region)


def _with_desk(plant: Plant, work: Callable[[SettlementDesk], Awaitable[T]]) -> T:
    from runtime import administration
    from runtime.settlement_desk import SettlementDesk

    async def run() -> T:
        async with administration.pool_of(plant) as pool:
            return await work(SettlementDesk(plant.chain, plant.region, pool))

    return asyncio.run(run())


async def _followed(plants: tuple[Plant, ...], region: str | None) -> dict[str, Any]:
    """The run, with a bar for each region from the rows that the run writes."""
    from runtime import administration
    from runtime.settlement_desk import SettlementDesk

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as shown:

        async def follow(plant: Plant) -> None:
            bar = shown.add_task(plant.region, total=None)
            async with administration.pool_of(plant) as pool:
                desk = SettlementDesk(plant.chain, plant.region, pool)
                while True:
                    await asyncio.sleep(LOOK_EVERY_S)
                    run = await desk.newest()
                    if run is not None and run.state == "running":
                        shown.update(bar, total=run.due, completed=run.booked)

        following = [asyncio.create_task(follow(plant)) for plant in administration.chosen(plants, region)]
        try:
            return await administration.settle_regions(plants, region, _by())
        finally:
            for one in following:
                one.cancel()
            await asyncio.gather(*following, return_exceptions=True)


ENDS = {"posted": "captured_fen", "dunning": "receivable_fen", "written_off": "bad_debt_fen",
        "reversed": "reversed_charge_fen", "open": "open_charge_fen"}  # fmt: skip


def _report_table(reports: list[dict[str, Any]]) -> Table:
    """What became of the charges: of each run's own batch and, where other runs had a part in it, of the day."""
    from models.tables.control import ControlTotals

    table = Table("region", "charges", "yuan", "they are", "yuan", "= ledger", title="settled", box=SIMPLE_HEAD)
    for n in (1, 2, 4):
        table.columns[n].justify = "right"
    notes = []
    for one in reports:
        if one["paused"]:
            notes.append(f"{one['region']} was paused: storeops settle resume")
        if one["open_calls"]:
            notes.append(f"{one['region']} waits for definite answers: run it again")
        batches = [(one["region"], one["totals"])]
        if one["day"] and one["day"] != one["totals"]:
            batches.append((" + day", one["day"]))
            notes.append(f"+ day: everything of {one['region']} that was cut off on the same business date")
        for name, totals in batches:
            ends = [end for end in ENDS if totals[end]]
            table.add_row(
                name, str(totals["charges"]), format_yuan(totals["charge_fen"]),
                "\n".join(f"{totals[end]} {end.replace('_', ' ')}" for end in ends),
                "\n".join(format_yuan(totals[ENDS[end]]) for end in ends),
                "yes" if ControlTotals(**totals).agree else "NO",
            )  # fmt: skip
    table.caption = "\n".join(notes)
    return table


def _forecast_table(regions: list[dict[str, Any]]) -> Table:
    table = Table(title="would be charged now", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("region", overflow="fold")
    for column in ("due", "reserved", "fee", "clawback", "nothing", "calls"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in regions:
        table.add_row(
            one["region"], f"{one['cut_off']:,}", f"{one['reserved']:,}",
            f"{one['fee']:,}\n{format_yuan(one['fee_fen'])}",
            f"{one['clawback']:,}\n{format_yuan(one['clawback_fen'])}", f"{one['nothing']:,}", f"{one['calls']:,}",
        )  # fmt: skip
    return table
