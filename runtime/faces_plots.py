"""A calibration report's pictures. The same report, the same picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.domain.errors import NeedsOperator
from models.domain.recognition import threshold
from models.faces.calibration import FPIR_BUDGET, Report

INCHES = (7.0, 3.8)
DPI = 110
MATE, STRANGER, FORCE, FAINT = "#2563eb", "#dc2626", "#0f172a", "#94a3b8"


def draw(report: Report, folder: Path, stem: str) -> dict[str, Path]:
    """Write `STEM-NAME.png` for every picture; name -> path.

    Raises NeedsOperator `matplotlib_missing`: it is a development dependency.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NeedsOperator(
            "matplotlib_missing", "plots need matplotlib", "pip install -r requirements/lock-dev.txt"
        ) from error
    drawers: dict[str, Callable[[Any, Report], None]] = {
        "scores": _scores,
        "roc": _roc,
        "fpir": _fpir,
        "thresholds": _thresholds,
        "quality": _quality,
    }
    if report.enrolment is not None:
        drawers["shots"] = _shots
    written = {}
    for name, drawer in drawers.items():
        figure: Any = Figure(figsize=INCHES, layout="constrained")
        axes = figure.subplots()
        drawer(axes, report)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, alpha=0.25)
        path = folder / f"{stem}-{name}.png"
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        written[name] = path
    return written


def _scores(axes: Any, report: Report) -> None:
    bars = report.histogram
    for counts, colour, name in ((bars.impostor, STRANGER, "strangers"), (bars.genuine, MATE, "mates")):
        total = max(1, sum(counts))
        share = [100 * count / total for count in counts]
        axes.stairs(share, bars.edges, fill=True, alpha=0.45, color=colour, label=f"{name} ({total:,} comparisons)")
    _thresholds_in_force(axes, report, axes.get_ylim()[1])
    axes.set_xlim(-0.4, 1.0)
    axes.set_xlabel("cosine")
    axes.set_ylabel("% of comparisons per 0.02")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _roc(axes: Any, report: Report) -> None:
    fars = [point.far for point in report.roc]
    axes.fill_between(
        fars,
        [point.low for point in report.roc],
        [point.high for point in report.roc],
        color=MATE,
        alpha=0.15,
        linewidth=0,
        label="95 %, by person",
    )
    axes.plot(fars, [point.tar for point in report.roc], color=MATE, linewidth=1.8, label="measured")
    axes.axvline(1 / report.impostor_pairs, color=FAINT, linestyle="--", linewidth=1, label="one impostor comparison")
    axes.set_xscale("log")
    lowest = min(point.low for point in report.roc)
    axes.set_ylim(min(0.9, lowest - 0.02), 1.005)
    axes.set_xlabel("FAR: part of impostor comparisons accepted (logarithmic)")
    axes.set_ylabel("TAR: part of mates accepted")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _fpir(axes: Any, report: Report) -> None:
    floor = 1e-7
    for basis, colour, marker in (("measured", MATE, "o"), ("extrapolated", FAINT, "s")):
        rows = [one for one in report.fpir if one.basis == basis]
        values = [max(floor, one.fpir.value) for one in rows]
        low = [value - max(floor, one.fpir.low) for value, one in zip(values, rows, strict=True)]
        high = [max(floor, one.fpir.high) - value for value, one in zip(values, rows, strict=True)]
        axes.errorbar(
            [one.searched for one in rows],
            values,
            yerr=[[max(0.0, one) for one in low], high],
            fmt=marker,
            color=colour,
            capsize=3,
            markersize=5,
            label=f"{basis}, 95 %",
        )
    axes.axhline(FPIR_BUDGET, color=STRANGER, linewidth=1, linestyle="--", label="budget 0.1 %")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(floor, 1)
    axes.set_xlabel("N: templates searched (logarithmic)")
    axes.set_ylabel("FPIR (logarithmic; 0 is drawn at 1e-7)")
    axes.legend(fontsize=8, frameon=False, loc="upper right")


def _thresholds(axes: Any, report: Report) -> None:
    sizes = [point.searched for point in report.points]
    axes.fill_between(
        sizes,
        [point.threshold.low for point in report.points],
        [point.threshold.high for point in report.points],
        color=MATE,
        alpha=0.12,
        linewidth=0,
        label="95 %, by person",
    )
    axes.plot(sizes, [point.threshold.value for point in report.points], color=FAINT, linestyle="--", zorder=1)
    for basis, colour, marker in (("measured", MATE, "o"), ("extrapolated", FAINT, "s")):
        rows = [point for point in report.points if point.basis == basis]
        axes.scatter([one.searched for one in rows], [one.threshold.value for one in rows], c=colour, marker=marker,
                     s=28, label=basis, zorder=2)  # fmt: skip
    axes.plot(sizes, [threshold(n, report.configured) for n in sizes], color=FORCE, linewidth=1.6, label="in force")
    axes.set_xscale("log")
    axes.set_ylim(0.25, 0.85)
    axes.set_xlabel("N: templates searched (logarithmic)")
    axes.set_ylabel("cosine for FPIR 0.1 %")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _quality(axes: Any, report: Report) -> None:
    reasons = list(dict.fromkeys([*report.refusals_enrol, *report.refusals_probe]))
    rows = ["pass", *reasons]
    for offset, name, passed, refusals, colour in (
        (-0.2, "as a probe", report.usable, report.refusals_probe, MATE),
        (0.2, "for enrolment", report.enrollable, report.refusals_enrol, FAINT),
    ):
        values = [passed, *(refusals.get(reason, 0) for reason in reasons)]
        bars = axes.barh([place + offset for place in range(len(rows))], values, 0.4, color=colour, label=name)
        axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(list(range(len(rows))), [row.replace("_", " ") for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"photographs, of {report.photographs}")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _shots(axes: Any, report: Report) -> None:
    both = report.enrolment
    assert both is not None
    for curve, colour, name in (
        (both.curve_one, FAINT, f"one shot ({both.comparisons_one} comparisons)"),
        (both.curve_three, MATE, f"mean of three ({both.comparisons_three} comparisons)"),
    ):
        axes.plot(curve, range(101), color=colour, linewidth=1.8, label=name)
    _thresholds_in_force(axes, report, 98)
    axes.set_xlim(0.3, 1.0)
    axes.set_xlabel("cosine of mates")
    axes.set_ylabel("% of mates at or below")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _thresholds_in_force(axes: Any, report: Report, top: float) -> None:
    for n in (1, 1_000, 1_000_000):
        t = threshold(n, report.configured)
        axes.axvline(t, color=FORCE, linewidth=1, linestyle=":")
        axes.text(t, top, f"t({n:,})", rotation=90, va="top", ha="right", fontsize=8)
