"""`storeops rollout`: what a policy says, and what it would do before it does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.domain.rollout import RolloutPolicy
from models.domain.rollout_gate import Counts
from models.domain.rollout_journal import Rollout
from runtime import evidence_cli, rollout_verbs
from runtime.progress import language_of_environment
from runtime.rehearsal import STORES_MAX, Rehearsal, Shown, rehearse
from runtime.rollout_files import PolicyFileError, policy_path, read_policy, shipped

rollout_app = typer.Typer(no_args_is_help=True, help="A change in stages: 2 stores, 50, all; each step by evidence.")
evidence_cli.register(rollout_app)
rollout_verbs.register(rollout_app)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]

_HEADINGS = {
    "en": ("stage", "stores", "succeeded", "failed", "timed out", "lying", "offline"),
    "zh": ("阶段", "门店", "成功", "失败", "超时", "谎报", "离线"),
}


@rollout_app.command("rehearse")
def rehearse_(
    policy: Annotated[
        str, typer.Option("--policy", help="A policy of configs/rollouts by its name, or a YAML file.")
    ] = "software",
    stores: Annotated[int, typer.Option("--stores", help="Stores of the simulated chain.", min=3, max=STORES_MAX)] = (
        1_000
    ),
    terminals: Annotated[int, typer.Option("--terminals", help="Terminals of each store.", min=1, max=3)] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same chain, faults and outcome.")] = 0,
    good: Annotated[
        bool, typer.Option("--good", help="A healthy artefact: 5 % of the stores are offline, nothing else is wrong.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a policy against simulated terminals: 3 % of the stores fail, 5 % are offline, 1 % lie, 1 % flap.

    Exit 1 when the rules did not do what they must (docs/rollouts.md says what `ok` means).
    """
    err = Console(stderr=True, highlight=False)
    chosen = read_policy(policy_path(policy))
    with _progress(err, stores) as shown:
        found = rehearse(chosen, stores=stores, terminals=terminals, seed=seed, good=good, shown=shown)
    if as_json:
        typer.echo(json.dumps(found.document()))
    else:
        show(found, Console(highlight=False))
        typer.echo(json.dumps(found.document()))
    raise typer.Exit(0 if found.ok else 1)


@rollout_app.command("check")
def check(
    policies: Annotated[
        list[str] | None, typer.Argument(help="Policies by name, or YAML files; without any: those that are shipped.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read policies and name every wrong value with its line and column."""
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    documents: list[dict[str, Any]] = []
    for name in policies or shipped():
        file = policy_path(name)
        try:
            read = read_policy(file)
        except PolicyFileError as error:
            documents.append(_wrong(file, error))
            for problem in error.problems:
                err.print(f"{file}:{problem}", markup=False, soft_wrap=True)
            continue
        documents.append({"file": str(file), "ok": True, "problems": []})
        if not as_json:
            out.print(described(read))
    fine = all(one["ok"] for one in documents)
    if as_json:
        typer.echo(json.dumps({"ok": fine, "policies": documents}, ensure_ascii=False))
    raise typer.Exit(0 if fine else 1)


def _wrong(file: Path, error: PolicyFileError) -> dict[str, Any]:
    problems = [
        {"line": one.line, "column": one.column, "path": one.path, "reason": one.reason} for one in error.problems
    ]
    return {"file": str(file), "ok": False, "problems": problems}


# ---------------------------------------------------------------- pictures in text


def described(policy: RolloutPolicy) -> Table:
    """A policy's ladder: what each stage asks for."""
    language = language_of_environment()
    zh = language == "zh"
    table = Table(title=policy.title.to(language), title_justify="left", box=None, pad_edge=False)
    for heading in (
        ("阶段", "门店", "成功 ≥", "失败 ≤", "至少执行", "观察期", "离线 ≤", "之后")
        if zh
        else ("stage", "stores", "success ≥", "errors ≤", "executed ≥", "soak", "offline ≤", "then")
    ):
        table.add_column(heading, no_wrap=True)
    for stage in policy.stages:
        rules = stage.policy
        table.add_row(
            stage.name,
            ("全部" if zh else "all") if stage.takes_all else str(stage.stores),
            f"{rules.success_percent_min} %",
            f"{rules.error_percent_max} %, {rules.error_stores_max}",
            str(rules.executed_min),
            f"{rules.soak_s} s",
            f"{rules.offline_percent_max} %",
            str(rules.following),
        )
    return table


def show(found: Rehearsal, out: Console) -> None:
    """The ladder with its counts and reasons, and what became of the whole."""
    language = language_of_environment()
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(_HEADINGS[language]):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for number, stage in enumerate(found.stages, 1):
        counts = stage.counts
        mark = "■" if found.halted_at == number else "✓" if stage.passed else "·"
        figures = (counts.stores, counts.succeeded, counts.failed, counts.timed_out, counts.lying, counts.offline)
        table.add_row(f"{mark} {stage.name}", *(str(one) for one in figures))
    out.print(table)
    for stage in found.stages:
        if stage.why.en:
            out.print(f"{stage.name}: {stage.why.to(language)}", markup=False, soft_wrap=True)
    days = found.virtual.total_seconds() / 86_400
    ended = (
        f"{found.state}：{found.why.zh}（模拟时间 {days:.1f} 天，{found.ticks} 次判断）"
        if language == "zh"
        else f"{found.state}: {found.why.en} ({days:.1f} simulated days, {found.ticks} ticks)"
    )
    out.print(ended, markup=False, soft_wrap=True)
    for fault in found.faults:
        out.print(f"✗ {fault}", markup=False, soft_wrap=True)


@contextmanager
def _progress(err: Console, stores: int) -> Iterator[Shown]:
    """A bar over the stores that are done, with the reason why it waits."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    language = language_of_environment()
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar:
        task = bar.add_task("", total=stores)

        def shown(rollout: Rollout, counts: tuple[Counts, ...], why: Any, now: datetime) -> None:
            name = rollout.plan.stages[max(rollout.stage, 0)].name
            text = f"{name} {now:%m-%d %H:%M} {rollout.state}: {why.to(language)}"
            bar.update(task, completed=sum(one.executed for one in counts), description=text[:100])

        yield shown
