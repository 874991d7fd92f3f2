"""Pictures of evidence: what a rule can see and how often it errs, and what the looks of a stage found.

The page draws the same from the verdicts' documents; here it is PNG. Same figures, same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.domain.errors import NeedsOperator
from models.domain.evidence import Arm, Verdict
from models.domain.evidence_metrics import metric_of

INCHES = (9.0, 3.8)
DPI = 110
OURS, PLAIN, LINE, FAINT = "#2563eb", "#dc2626", "#0f172a", "#94a3b8"


def draw_power(document: dict[str, Any], folder: Path) -> Path:
    """`rollout-power.png`: the smallest effect by stores, and A/A runs that found one. Raises `matplotlib_missing`."""
    figure = _figure()
    seen, wrong = figure.subplots(1, 2)
    sizes = document["sizes"]
    labels = [f"{one['treated']} v {one['controls']}" for one in sizes]
    rows = range(len(sizes))
    seen.bar(rows, [100 * one["mde"] for one in sizes], color=OURS)
    seen.set_yscale("log")
    for at, one in zip(rows, sizes, strict=True):
        seen.annotate(f"{100 * one['mde']:.0f} %", (at, 100 * one["mde"]), ha="center", va="bottom", fontsize=9)
    seen.set_ylabel("smallest effect it can see, %")
    seen.set_title(f"Seen with power {sizes[0]['power']:.0%}", fontsize=10)
    for shift, key, colour, name in ((-0.15, "wrong", OURS, "the rule"), (0.15, "plain_z_wrong", PLAIN, "plain z")):
        shares = [one[key] for one in sizes]
        middle = [100 * share["share"] for share in shares]
        below = [100 * (share["share"] - share["low"]) for share in shares]
        above = [100 * (share["high"] - share["share"]) for share in shares]
        wrong.errorbar(
            [row + shift for row in rows], middle, [below, above], fmt="o", color=colour, capsize=3, label=name
        )
    wrong.axhline(100 * sizes[0]["alpha"], color=FAINT, linestyle="--", linewidth=1)
    wrong.set_ylim(bottom=0)
    wrong.set_ylabel("A/A runs that found an effect, %")
    wrong.set_title(f"Nothing was changed ({sizes[0]['wrong']['runs']:,} runs)", fontsize=10)
    wrong.legend(frameon=False, fontsize=8)
    for axes in (seen, wrong):
        axes.set_xticks(list(rows), labels)
        axes.set_xlabel("stores, treated v control")
    return _saved(figure, folder, "rollout-power.png")


def draw_looks(looks: Sequence[Verdict], folder: Path) -> Path:
    """`evidence-METRIC.png`: the interval at each look with what could be seen, and the last look's stores.

    Raises NeedsOperator `no_interval` when no look has an estimate, `matplotlib_missing`.
    """
    shown = [one for one in looks if one.estimate is not None]
    if not shown or shown[-1].metric is None:
        raise NeedsOperator("no_interval", "no look of these has an estimate", "give verdicts of a stage with a metric")
    spec = metric_of(shown[-1].metric)
    times = 100 if spec.relative else 1
    figure = _figure()
    left, right = figure.subplots(1, 2)
    for one in shown:
        assert one.estimate is not None
        assert one.low is not None
        assert one.high is not None
        ends = [[times * (one.estimate - one.low)], [times * (one.high - one.estimate)]]
        left.errorbar([one.look], [times * one.estimate], ends, fmt="o", color=OURS, capsize=4)
    left.axhline(0, color=LINE, linewidth=1)
    if shown[-1].mde is not None:
        for sign in (-1, 1):
            left.axhline(sign * times * shown[-1].mde, color=FAINT, linestyle="--", linewidth=1)
    left.set_xticks(range(1, shown[-1].looks + 1))
    left.set_xlim(0.5, shown[-1].looks + 0.5)
    left.set_xlabel("look (dashed: the smallest effect it can see)")
    left.set_ylabel("effect, %" if spec.relative else f"effect, {spec.unit}")
    left.set_title(f"{spec.name.en}: {shown[-1].outcome}", fontsize=10)
    for arm, colour in ((Arm.CONTROL, FAINT), (Arm.TREATED, OURS)):
        points = [one for one in shown[-1].points if one.arm is arm]
        right.scatter([one.before for one in points], [one.after for one in points], s=14, color=colour, label=str(arm))
    ends_of = [value for one in shown[-1].points for value in (one.before, one.after)] or [0.0, 1.0]
    right.plot([min(ends_of), max(ends_of)], [min(ends_of), max(ends_of)], color=LINE, linewidth=0.8)
    right.set_xlabel(f"before, {spec.unit}")
    right.set_ylabel("after")
    right.set_title(f"{len(shown[-1].points)} stores", fontsize=10)
    right.legend(frameon=False, fontsize=8)
    return _saved(figure, folder, f"evidence-{spec.id}.png")


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NeedsOperator(
            "matplotlib_missing", "plots need matplotlib", "pip install -r requirements/lock-dev.txt"
        ) from error
    return Figure(figsize=INCHES, layout="constrained")


def _saved(figure: Any, folder: Path, name: str) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path
