"""A calibration report as Markdown, beside its JSON and plots."""

from __future__ import annotations

from models.faces.calibration import PER_CENTS, Figure, Report

CAPTIONS = {
    "scores": "Scores of mates and of strangers, and the thresholds in force",
    "roc": "ROC: mates accepted against strangers accepted, comparison by comparison",
    "fpir": "Strangers accepted against the gallery's size, at the thresholds in force",
    "thresholds": "The threshold that keeps FPIR at 0.1 %",
    "quality": "What the gates refuse",
    "shots": "Mates' scores: one enrolment shot and the mean of three",
}


def as_markdown(report: Report, plots: dict[str, str]) -> str:
    """The document. `plots`: name -> file beside it."""
    parts = [_head(report), _accuracy(report)]
    parts += [_picture(plots, "scores"), _picture(plots, "roc"), _identification(report)]
    parts += [_picture(plots, "fpir"), _picture(plots, "thresholds"), _enrolment(report), _picture(plots, "shots")]
    parts += [_quality(report), _picture(plots, "quality"), _limits(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: Report) -> str:
    return (
        f"# Calibration: {report.name}\n\n"
        f"Made by `storeops faces evaluate` on {report.date}; not edited by hand. Net {report.net}"
        f" (sha256 `{report.net_sha256[:16]}…`), gates `{report.gates}`. {report.people} people,"
        f" {report.photographs} photographs: {report.usable} pass the probe gates, {report.enrollable} the enrolment"
        f" gates; {sum(report.left_out.values())} left out. {report.genuine_pairs:,} genuine and"
        f" {report.impostor_pairs:,} impostor comparisons. Intervals are 95 %, by a bootstrap that draws persons"
        f" ({report.rounds:,} rounds); where nothing happened, the exact bound with the person as the unit (about"
        " 3 / people: the rule of three)."
    )


def _accuracy(report: Report) -> str:
    lines = [
        "## Comparisons",
        "",
        "| FAR | score above | TAR | interval | basis |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.far:g} | {_figure(one.threshold)} | {one.tar.value:g} | {_range(one.tar)} | {one.basis} |"
        for one in report.tar_at_far
    ]
    lines += ["", f"Rank 1 from one photograph: {_figure(report.rank1)}."]
    return "\n".join(lines)


def _identification(report: Report) -> str:
    lines = [
        "## Identification",
        "",
        "Strangers accepted (FPIR) when N templates are searched with the threshold in force. Measured: the mean over"
        " all galleries of N templates of other people. Extrapolated: 1 - (1 - FAR)^N, with FAR from a normal tail"
        " through the highest impostor scores; so far from the photographs it is a guide, not evidence.",
        "",
        "| N | threshold in force | FPIR | interval | basis |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.searched:,} | {one.threshold:g} | {one.fpir.value:g} | {_range(one.fpir)} | {one.basis} |"
        for one in report.fpir
    ]
    lines += [
        "",
        "The threshold that keeps FPIR at 0.1 %, how many mates reach it from one shot, and what is proposed. `table`:"
        " the figure in force stands; `raised`: it was below the lower bound; `measured`: from this report.",
        "",
        "| N | t for FPIR 0.1 % | basis | TAR there | proposed | from |",
        "|---|---|---|---|---|---|",
    ]
    for point, proposed in zip(report.points, report.proposed, strict=True):
        lines.append(
            f"| {point.searched:,} | {_figure(point.threshold)} | {point.basis} | {_figure(point.tar)}"
            f" | {proposed.threshold:g} | {proposed.basis} |"
        )
    return "\n".join(lines)


def _enrolment(report: Report) -> str:
    one = report.enrolment
    if one is None:
        return (
            "## One shot or three\n\nNot measured: it needs two people with three shots that agree and one more probe."
        )
    return f"""## One shot or three

{one.people} people with three enrolment shots that agree; the same probes against each shot and against the mean.

| | one shot | mean of three |
|---|---|---|
| comparisons | {one.comparisons_one} | {one.comparisons_three} |
| weakest mates, 5th percentile | {_figure(one.weakest_one)} | {_figure(one.weakest_three)} |
| rank 1 | {_figure(one.rank1_one)} | {_figure(one.rank1_three)} |"""


def _quality(report: Report) -> str:
    lines = [
        "## Quality",
        "",
        "| | unit | " + " | ".join(f"{one} %" for one in PER_CENTS) + " | probe gate | enrolment gate |",
        "|---|---|" + "---|" * (len(PER_CENTS) + 2),
    ]
    for one in report.quality:
        values = [f"{value:g}" for value in one.quantiles] or ["-"] * len(PER_CENTS)
        cells = [one.what, one.unit or "-", *values, one.probe_gate or "-", one.enrol_gate or "-"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| refused | as a probe | for enrolment |", "|---|---|---|"]
    for reason in dict.fromkeys([*report.refusals_enrol, *report.refusals_probe]):
        lines.append(f"| {reason} | {report.refusals_probe.get(reason, 0)} | {report.refusals_enrol.get(reason, 0)} |")
    if report.left_out:
        lines += ["", "| left out | photographs |", "|---|---|"]
        lines += [f"| {reason} | {count} |" for reason, count in sorted(report.left_out.items())]
    return "\n".join(lines)


def _limits(report: Report) -> str:
    return "\n".join(["## What these photographs cannot tell", "", *(f"- {one}" for one in report.cannot_tell)])


def _picture(plots: dict[str, str], name: str) -> str:
    return f"![{CAPTIONS[name]}]({plots[name]})" if name in plots else ""


def _figure(one: Figure) -> str:
    return f"{one.value:g} ({_range(one)})"


def _range(one: Figure) -> str:
    return f"{one.low:g} to {one.high:g}"
