"""The charts of the page Faces: decisions by day, scores against the threshold, a calibration report's curves."""

from __future__ import annotations

from collections import defaultdict

from gateway.console.charts import Chart, Mark, across, band, polyline, stacked, upwards
from gateway.face_views import FacesView
from gateway.queries.faces import BIN_PPM, OUTCOMES
from models.domain.recognition import threshold
from models.faces.calibration import Report

SCORES_FROM_PPM, SCORES_TO_PPM = -200_000, 1_000_000


def by_day(view: FacesView) -> Chart:
    """Decisions of each day by outcome."""
    counts: dict[str, dict[str, int]] = {day: defaultdict(int) for day in view.days}
    for one in view.decisions:
        if one.day in counts:
            counts[one.day][one.outcome] += one.count
    return stacked([(day[5:], counts[day]) for day in view.days], OUTCOMES)


def scores(view: FacesView) -> Chart:
    """Best cosines of first looks by outcome, and the thresholds that they met."""
    counts: dict[int, dict[str, int]] = {
        start: defaultdict(int) for start in range(SCORES_FROM_PPM, SCORES_TO_PPM, BIN_PPM)
    }
    for one in view.scores:
        counts[min(max(one.from_ppm, SCORES_FROM_PPM), SCORES_TO_PPM - BIN_PPM)][one.outcome] += one.count
    chart = stacked([(f"{start / 1e6:.1f}", held) for start, held in counts.items()], OUTCOMES, labels=12)
    x = across(SCORES_FROM_PPM, SCORES_TO_PPM)
    met = dict.fromkeys(t for t in (view.threshold_ppm_min, view.threshold_ppm_max) if t is not None)
    lines = tuple(Mark(x.at(t), f"t {t / 1e6:.3f}") for t in met)
    ticks = tuple(Mark(x.at(tenth * 100_000), f"{tenth / 10:g}") for tenth in range(-2, 11, 2))
    return Chart(bars=chart.bars, xs=ticks, ys=chart.ys, across=lines)


def thresholds(report: Report) -> Chart:
    """What keeps FPIR at 0.1 % by gallery size, with its interval, and what is in force."""
    sizes = [point.searched for point in report.points]
    x, y = across(sizes[0], sizes[-1], log=True), upwards(0.2, 1.0)
    inside = [(point.searched, point.threshold.low, point.threshold.high) for point in report.points]
    found = [(point.searched, point.threshold.value) for point in report.points]
    force = [(n, threshold(n, report.configured)) for n in sizes]
    return Chart(
        lines=(
            band(x, y, inside, "found"),
            polyline(x, y, found, "found"),
            polyline(x, y, force, "force"),
        ),
        xs=tuple(Mark(x.at(n), short(n)) for n in sizes),
        ys=tuple(Mark(y.at(tenth / 10), f"{tenth / 10:g}") for tenth in range(2, 11, 2)),
    )


def short(n: int) -> str:
    """1, 10, 100, 1k, 10k, 100k, 1M: there is little room below an axis."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if n >= size and n % size == 0:
            return f"{n // size}{unit}"
    return str(n)


def roc(report: Report) -> Chart:
    """Mates accepted against strangers accepted, with the band by person."""
    least = min(point.far for point in report.roc)
    low = min(0.9, min(point.low for point in report.roc))
    x, y = across(least, 0.1, log=True), upwards(low, 1.0)
    inside = [(point.far, point.low, point.high) for point in report.roc]
    decades = [far for far in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1) if far >= least]
    return Chart(
        lines=(band(x, y, inside, "found"), polyline(x, y, [(one.far, one.tar) for one in report.roc], "found")),
        xs=tuple(Mark(x.at(far), f"{far:g}") for far in decades),
        ys=tuple(Mark(y.at(low + (1 - low) * part / 4), f"{low + (1 - low) * part / 4:.2f}") for part in range(5)),
    )


def histogram(report: Report) -> Chart:
    """Scores of mates and of strangers, each as parts of its own comparisons."""
    bars = report.histogram
    shares = {
        kind: [100 * count / max(1, sum(counts)) for count in counts]
        for kind, counts in (("strangers", bars.impostor), ("mates", bars.genuine))
    }
    x, y = across(bars.edges[0], bars.edges[-1]), upwards(0, max(max(part) for part in shares.values()) or 1)
    lines = []
    for kind, part in shares.items():
        corners = [(bars.edges[0], 0.0)]
        for left, right, value in zip(bars.edges, bars.edges[1:], part, strict=False):
            corners += [(left, value), (right, value)]
        lines.append(polyline(x, y, [*corners, (bars.edges[-1], 0.0)], kind))
    met = tuple(Mark(x.at(threshold(n, report.configured)), f"t({short(n)})") for n in (1, 1_000_000))
    return Chart(
        lines=tuple(lines),
        across=met,
        xs=tuple(Mark(x.at(tenth / 10), f"{tenth / 10:g}") for tenth in range(-2, 11, 2)),
        ys=tuple(Mark(y.at(y.most * part / 4), f"{y.most * part / 4:.0f} %") for part in range(5)),
    )
