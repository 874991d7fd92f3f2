"""`storeops plan`: what a plan would do, before anybody is promised anything."""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.domain.charging import Branch
from models.domain.errors import NeedsOperator
from models.domain.money import format_yuan
from models.domain.plans import Plan, PlanError, plan_from_dict
from models.domain.what_if import WHOLE_BASIS_POINTS, Audience, Joins, Replay, WhatIf
from runtime.receipts_csv import read_receipts, write_receipts
from runtime.settings import CONFIGS

plan_app = typer.Typer(no_args_is_help=True, help="Plans of light memberships: what one would do to past receipts.")

STORES_SHOWN_MAX = 20
PROGRESS_EVERY = 500

Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Demo = Annotated[bool, typer.Option("--demo", help="The demonstration's data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@plan_app.command("simulate")
def simulate(
    plan: Annotated[str, typer.Argument(help="A plan of configs/plans by its id, or a YAML file.")],
    receipts: Annotated[Path, typer.Option("--receipts", help="CSV, a row a line of a receipt: docs/what-if.md.")],
    take_up: Annotated[
        float, typer.Option("--take-up", help="Per cent of the customers who join when they are asked.", min=0, max=100)
    ] = 100.0,
    joins: Annotated[
        Joins, typer.Option("--joins", help="Asked at the first receipt, or at the first that would be cheaper.")
    ] = Joins.SAVING,
    seed: Annotated[int, typer.Option("--seed", help="Which customers join: the same for the same seed.")] = 0,
    plots: Annotated[Path | None, typer.Option("--plots", help="Folder for pictures (PNG).")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay receipts through the rules that charge members: members, use, fee income, give-away, cost per store."""
    err = Console(stderr=True, highlight=False)
    chosen = read_plan(plan)
    audience = Audience(joins, round(take_up * WHOLE_BASIS_POINTS / 100), seed)
    found = _replayed(chosen, receipts, audience, err)
    written = []
    if plots is not None:
        from runtime.plan_plots import draw

        written = draw(found, plots)
    if as_json:
        typer.echo(json.dumps(as_document(found, audience) | {"plots": [str(path) for path in written]}))
        return
    out = Console()
    out.print(as_table(found))
    out.print(stores_table(found))
    for path in written:
        err.print(f"written: {path}", markup=False, soft_wrap=True)


@plan_app.command("receipts")
def receipts_(data: Data = None, demo: Demo = False) -> None:
    """This house's own sales as CSV on standard output, for `simulate`. Members by their ids, nobody by name."""
    from models.tables.past_sales import sold_lines
    from runtime import administration

    plants = administration.running_all(data, demo)
    urls = dict.fromkeys(plant.database_url for plant in plants)
    count = write_receipts(chain.from_iterable(sold_lines(url) for url in urls), sys.stdout)
    Console(stderr=True, highlight=False).print(f"{count:,} lines")


def read_plan(name: str) -> Plan:
    """The plan of that id in configs/plans, or of that file. Raises NeedsOperator `plan_unreadable` or `plan_wrong`."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / "plans" / f"{name}.yaml"
    known = ", ".join(sorted(one.stem for one in (CONFIGS / "plans").glob("*.yaml")))
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise NeedsOperator("plan_unreadable", f"{path}: {error}", f"a YAML file, or one of {known}") from error
    try:
        return plan_from_dict(document)
    except PlanError as error:
        raise NeedsOperator("plan_wrong", f"{path}: {error}", "mend that entry") from error


def _replayed(plan: Plan, path: Path, audience: Audience, err: Console) -> WhatIf:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("reading", total=path.stat().st_size if path.exists() else None)
        read = read_receipts(path, plan.zone, lambda done: bar.update(task, completed=done))
        bar.update(task, description="replaying", completed=0, total=len(read.receipts))
        run = Replay(plan, audience, read.entities)
        for n, receipt in enumerate(read.receipts):
            run.take(receipt)
            if n % PROGRESS_EVERY == 0:
                bar.update(task, completed=n)
        return run.end()


def as_document(found: WhatIf, audience: Audience) -> dict[str, Any]:
    """All figures, in fen."""
    paid_back, fees, free = found.of(Branch.CLAWBACK), found.of(Branch.FEE), found.of(None)
    return {
        "plan": found.plan.id,
        "version": found.plan.version,
        "fee_fen": found.plan.fee_fen,
        "assumed": {"joins": audience.joins, "take_up_bp": audience.take_up_bp, "seed": audience.seed},
        "receipts": found.receipts,
        "customers": found.customers,
        "members": found.members,
        "memberships": len(found.memberships),
        "unfinished": found.unfinished,
        "uses": found.uses,
        "members_gross_fen": found.members_gross_fen,
        "given_fen": found.given_fen,
        "charged_fen": found.charged_fen,
        "kept_fen": found.kept_fen,
        "pay_nothing": {"memberships": free[0]},
        "pay_back": {"memberships": paid_back[0], "fen": paid_back[1]},
        "pay_the_fee": {"memberships": fees[0], "fen": fees[1]},
        "fee_income_fen": dict(found.fee_income_fen),
        "stores": [
            {
                "store": one.place.store,
                "entity": one.place.entity,
                "uses": one.uses,
                "given_fen": one.given_fen,
                "back_fen": one.back_fen,
                "cost_fen": one.cost_fen,
            }
            for one in found.stores
        ],
    }


def as_table(found: WhatIf) -> Table:
    """For a person: who joined, what they used, what they pay, what it costs."""
    plan = found.plan
    table = Table(
        title=f"{plan.name.zh} {plan.name.en} ({plan.id} v{plan.version}): fee {format_yuan(plan.fee_fen)},"
        f" {found.receipts:,} receipts of {found.customers:,} known customers",
        title_justify="left",
    )
    table.add_column("what")
    table.add_column("memberships", justify="right")
    table.add_column("yuan", justify="right")
    free, back, fees = found.of(None), found.of(Branch.CLAWBACK), found.of(Branch.FEE)
    table.add_row(f"members ({found.members:,} people)", f"{len(found.memberships):,}", "")
    table.add_row("  not over with the last receipt", f"{found.unfinished:,}", "")
    table.add_row("bought while members, before discounts", "", format_yuan(found.members_gross_fen))
    table.add_row(f"benefits enjoyed ({found.uses:,} uses)", "", format_yuan(found.given_fen))
    table.add_row("pay nothing", f"{free[0]:,}", format_yuan(0))
    table.add_row("pay back what they used", f"{back[0]:,}", format_yuan(back[1]))
    table.add_row("pay the fee", f"{fees[0]:,}", format_yuan(fees[1]))
    table.add_row("given away: enjoyed and not paid", "", format_yuan(found.kept_fen))
    return table


def stores_table(found: WhatIf) -> Table:
    """The stores that gave most."""
    shown = sorted(found.stores, key=lambda one: -one.given_fen)[:STORES_SHOWN_MAX]
    rest = len(found.stores) - len(shown)
    table = Table(title="by store" + (f", {rest:,} more with --json" if rest else ""), title_justify="left")
    table.add_column("store")
    table.add_column("entity")
    for name in ("uses", "given", "paid back", "costs"):
        table.add_column(name, justify="right")
    for one in shown:
        table.add_row(
            one.place.store,
            one.place.entity,
            f"{one.uses:,}",
            format_yuan(one.given_fen),
            format_yuan(one.back_fen),
            format_yuan(one.cost_fen),
        )
    return table
