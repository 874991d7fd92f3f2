"""Pictures of a replayed plan: what members used against the fee, and what it cost each store. Same replay, same
picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.domain.charging import Branch, charge_fen
from models.domain.errors import NeedsOperator
from models.domain.plans import TASK_RULES
from models.domain.what_if import MembershipOutcome, WhatIf

INCHES = (7.0, 3.8)
DPI = 110
BINS = 24
STORES_SHOWN_MAX = 20
FREE, BACK, FEE, LINE, FAINT = "#94a3b8", "#2563eb", "#16a34a", "#0f172a", "#cbd5e1"
BELOW: dict[str, Any] = {
    "fontsize": 8,
    "frameon": False,
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.14),
    "ncols": 3,
}
KINDS = (
    (None, FREE, "pays nothing"),
    (Branch.CLAWBACK, BACK, "pays back what was used"),
    (Branch.FEE, FEE, "pays the fee"),
)


def draw(found: WhatIf, folder: Path) -> list[Path]:
    """`plan-ID-use.png` and `plan-ID-stores.png`. Raises NeedsOperator `matplotlib_missing`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NeedsOperator(
            "matplotlib_missing", "plots need matplotlib", "pip install -r requirements/lock-dev.txt"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawer in (("use", _use), ("stores", _stores)):
        figure: Any = Figure(figsize=INCHES, layout="constrained")
        axes = figure.subplots()
        drawer(axes, found)
        axes.spines[["top", "right"]].set_visible(False)
        path = folder / f"plan-{found.plan.id}-{name}.png"
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        written.append(path)
    return written


def _use(axes: Any, found: WhatIf) -> None:
    """How many memberships used how much, by what they pay; over it the curve of the charge."""
    fee_fen = found.plan.fee_fen
    most = max([fee_fen, 100, *(one.used_fen for one in found.memberships)])
    edges = [most * n / BINS / 100 for n in range(BINS + 1)]
    bottom = [0] * BINS
    for branch, colour, name in KINDS:
        those = [one for one in found.memberships if one.branch is branch]
        counts = _histogram(those, most)
        width = edges[1] - edges[0]
        axes.bar(edges[:-1], counts, width, bottom, align="edge", color=colour, label=f"{len(those):,} {name}")
        bottom = [low + high for low, high in zip(bottom, counts, strict=True)]
    axes.set_xlabel("benefits used, yuan")
    axes.set_ylabel("memberships")
    axes.legend(**BELOW)
    charge: Any = axes.twinx()
    points = sorted({0, fee_fen, most})
    charge.plot([one / 100 for one in points], [charge_fen(fee_fen, one) / 100 for one in points], color=LINE)
    charge.set_ylim(0, max(1.0, 2.2 * fee_fen / 100))
    charge.set_ylabel("charge (line), yuan" if found.plan.rule not in TASK_RULES else "charge when the task is missed")
    charge.spines[["top"]].set_visible(False)
    axes.set_title(f"{found.plan.name.en}: what {len(found.memberships):,} memberships used and pay", fontsize=10)


def _histogram(those: list[MembershipOutcome], most_fen: int) -> list[int]:
    counts = [0] * BINS
    for one in those:
        counts[min(BINS - 1, one.used_fen * BINS // most_fen)] += 1
    return counts


def _stores(axes: Any, found: WhatIf) -> None:
    """The stores that gave most: what members paid back, what stays given away."""
    shown = sorted(found.stores, key=lambda one: -one.given_fen)[:STORES_SHOWN_MAX]
    rows = range(len(shown))
    back = [one.back_fen / 100 for one in shown]
    axes.barh(rows, back, color=BACK, label="paid back by members")
    axes.barh(rows, [one.cost_fen / 100 for one in shown], left=back, color=FAINT, label="stays given away")
    axes.set_yticks(rows, [one.place.store for one in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("yuan")
    axes.legend(**BELOW)
    rest = len(found.stores) - len(shown)
    axes.set_title(
        "Benefits given, by store" + (f" (the first {len(shown)}; {rest} more)" if rest else ""), fontsize=10
    )
