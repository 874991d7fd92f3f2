"""A plot of what grows: rows named `… at N stores`, one small panel for each figure, beside its baseline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from models.domain.errors import NeedsOperator
from runtime.bench.form import Report, Row

GROWING = re.compile(r"(?P<what>.+) at (?P<size>\d+) (?P<unit>stores|entities)")
PANEL_INCHES = (2.6, 2.4)
COLOURS = ("#2563eb", "#94a3b8")


def growth_of(done: Report) -> dict[str, list[tuple[int, Row]]]:
    """Figure -> its rows by size, ascending; only figures that were measured at two sizes or more."""
    found: dict[str, list[tuple[int, Row]]] = {}
    for one in done.results:
        match = GROWING.fullmatch(one.what)
        if match is not None:
            found.setdefault(match["what"], []).append((int(match["size"]), one))
    return {what: sorted(rows, key=lambda each: each[0]) for what, rows in found.items() if len(rows) > 1}


def draw_growth(done: Report, to: Path) -> bool:
    """Write the plot; False when nothing in this report grows. Raises NeedsOperator `matplotlib_missing`."""
    growing = growth_of(done)
    if not growing:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NeedsOperator(
            "matplotlib_missing", "plots need matplotlib", "pip install -r requirements/lock-dev.txt"
        ) from error
    figure: Any = Figure(figsize=(PANEL_INCHES[0] * len(growing), PANEL_INCHES[1]), layout="constrained")
    panels = figure.subplots(1, len(growing), squeeze=False)[0]
    for axes, (what, rows) in zip(panels, growing.items(), strict=True):
        sizes = [size for size, _ in rows]
        axes.plot(sizes, [one.value for _, one in rows], marker="o", color=COLOURS[0], linewidth=1.6)
        axes.plot(sizes, [one.baseline_value for _, one in rows], marker=".", color=COLOURS[1], linewidth=1.0)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_title(f"{what}, {rows[0][1].unit}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(to, dpi=110, metadata={"Software": None})
    return True
