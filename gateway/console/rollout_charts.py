"""The picture of a stage's evidence: the interval of each look around no effect, with what could have been seen."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.console.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Bar, Chart, Line, Mark, band, step_for, upwards
from gateway.console.charts import Axis as ChartAxis
from gateway.queries.rollout_evidence import LookView
from models.domain.evidence_metrics import metric_of

DOT = 9.0
CAP = 14.0


def looks(series: Sequence[LookView]) -> Chart | None:
    """Estimate and interval of each look of one stage, in per cent where the metric is relative; None without any."""
    shown = [one for one in series if one.estimate is not None and one.low is not None and one.high is not None]
    if not shown or shown[-1].metric is None:
        return None
    times = 100.0 if metric_of(shown[-1].metric).relative else 1.0
    last = shown[-1]
    ends = [times * value for one in shown for value in (one.low or 0.0, one.high or 0.0)]
    mde = None if last.mde is None else times * last.mde
    most = 1.15 * max([abs(value) for value in ends] + [mde or 0.0, 1e-9])
    y, x = upwards(-most, most), ChartAxis(0.5, last.looks + 0.5, LEFT, WIDTH - RIGHT)
    lines: list[Line] = []
    bars: list[Bar] = []
    if mde is not None:
        lines.append(band(x, y, [(0.5, -mde, mde), (last.looks + 0.5, -mde, mde)], "unseen"))
    lines.append(Line("none", f"{LEFT},{y.at(0)} {WIDTH - RIGHT},{y.at(0)}"))
    for one in shown:
        at = x.at(one.look)
        estimate, low, high = (times * (value or 0.0) for value in (one.estimate, one.low, one.high))
        lines.append(Line("found", f"{at},{y.at(low)} {at},{y.at(high)}"))
        lines += [Line("found", f"{at - CAP / 2},{y.at(end)} {at + CAP / 2},{y.at(end)}") for end in (low, high)]
        title = f"{one.look}/{one.looks}: {estimate:+.1f} ({low:+.1f} … {high:+.1f})"
        bars.append(Bar(at - DOT / 2, y.at(estimate) - DOT / 2, DOT, DOT, str(one.outcome), title))
    step = step_for(most)
    ticks = [n * step for n in range(-int(most / step), int(most / step) + 1)]
    return Chart(
        bars=tuple(bars),
        lines=tuple(lines),
        xs=tuple(Mark(x.at(n), f"{n}/{last.looks}") for n in range(1, last.looks + 1)),
        ys=tuple(Mark(y.at(tick), f"{tick:+g}" if tick else "0") for tick in ticks),
        top=TOP,
        height=HEIGHT,
    )
