"""`storeops rollout power` and `storeops rollout evidence`: what a stage can see, and what its looks found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.domain.errors import NeedsOperator
from models.domain.evidence import Verdict, verdict_of
from runtime.progress import language_of_environment

STORES = [2, 50, 100]
RUNS_MAX = 100_000

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Plots = Annotated[Path | None, typer.Option("--plots", help="Folder for pictures (PNG).")]

_POWER_HEADINGS = {
    "en": ("stores", "sees", "seen then", "A/A wrong", "plain z wrong", "interval holds"),
    "zh": ("门店", "可见", "届时发现", "A/A 误判", "普通 z 误判", "区间覆盖"),
}


def register(app: typer.Typer) -> None:
    """Hang both verbs into `storeops rollout`."""
    app.command("power")(power)
    app.command("evidence")(evidence)


def power(
    stores: Annotated[
        list[int] | None,
        typer.Option("--stores", help="Stores of a stage; again for another. Default 2, 50, 100.", min=2),
    ] = None,
    controls: Annotated[
        int | None, typer.Option("--controls", help="Control stores; the default is as many as stores.", min=2)
    ] = None,
    look_day: Annotated[
        list[int] | None,
        typer.Option("--look-day", help="A look after so many days; again for another. Default 7, 14."),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", help="A/A runs of each size.", min=10, max=RUNS_MAX)] = 2_000,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same table.")] = 0,
    plots: Plots = None,
    as_json: AsJson = False,
) -> None:
    """What a stage of so many stores can see, and how often its rule errs when nothing was changed (simulated)."""
    from runtime.evidence_trial import Chain, Size, power_table, steps

    days = tuple(sorted(set(look_day or (7, 14))))
    if days[0] < 1 or days[-1] > 91:
        raise NeedsOperator("look_day_wrong", "a look is after 1 to 91 days", "give --look-day 7 --look-day 14")
    sizes = [Size(n, controls or n, look_days=days) for n in stores or STORES]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("A/A", total=steps(sizes, runs))
        document = power_table(Chain(), sizes, runs, seed, lambda: bar.advance(task))
    if plots is not None:
        from runtime.evidence_plots import draw_power

        document["plots"] = [str(draw_power(document, plots))]
    if as_json:
        typer.echo(json.dumps(document))
        return
    Console(highlight=False).print(power_shown(document, language_of_environment()))


def power_shown(document: dict[str, Any], language: str) -> Table:
    """For a person: a row a size, and what safety sees below."""
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(_POWER_HEADINGS[language]):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for one in document["sizes"]:
        shares = [one[key] for key in ("found_at_mde", "wrong", "plain_z_wrong", "covered")]
        told = [f"{100 * share['share']:.1f} %" for share in shares]
        table.add_row(f"{one['treated']} v {one['controls']}", f"{100 * one['mde']:.1f} %", *told)
    return table


def evidence(
    verdicts: Annotated[
        Path, typer.Argument(help="JSON: a verdict's document, or a list of them in the order of looks.")
    ],
    plots: Plots = None,
    as_json: AsJson = False,
) -> None:
    """What the looks of a stage found, in words and as a picture; from what is stored with the decision."""
    looks = read_verdicts(verdicts)
    language = language_of_environment()
    written = []
    if plots is not None:
        from runtime.evidence_plots import draw_looks

        written = [str(draw_looks(looks, plots))]
    if as_json:
        said = [{"look": one.look, "looks": one.looks, "outcome": one.outcome, "why": _both(one)} for one in looks]
        typer.echo(json.dumps({"verdicts": said, "plots": written}, ensure_ascii=False))
        return
    for one in looks:
        typer.echo(f"{one.look}/{one.looks} {one.outcome}: {one.why.to(language)}")


def _both(one: Verdict) -> dict[str, str]:
    return {"zh": one.why.zh, "en": one.why.en}


def read_verdicts(path: Path) -> list[Verdict]:
    """Raises NeedsOperator `verdicts_unreadable`."""
    try:
        document = json.loads(path.read_text("utf-8"))
        return [verdict_of(one) for one in (document if isinstance(document, list) else [document])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NeedsOperator(
            "verdicts_unreadable", f"{path}: {error}", "give the evidence as `storeops rollout status --json` has it"
        ) from error
