"""`storeops faces evaluate`: what photographs say of the nets and thresholds in use."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.domain.errors import NeedsOperator, Refused
from models.domain.face_quality import PRODUCTION
from models.faces import calibration
from models.faces.calibration import Points, Report

NAME_MAX = 64
PIXELS_MAX = 150_000_000
"""Of one photograph: 450 MB while it is made smaller. Above what a camera takes, and below what a bomb unpacks to."""


def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="One folder per person, photographs in it.")],
    out: Annotated[Path | None, typer.Option("--out", help="Keep report (JSON, Markdown) and plots in here.")] = None,
    thresholds: Annotated[
        Path | None, typer.Option("--thresholds", help="Judge the thresholds of this YAML, not the catalogue's.")
    ] = None,
    propose: Annotated[
        Path | None,
        typer.Option("--propose", help="Write proposed thresholds as a catalogue fragment; needs --out."),
    ] = None,
    net: Annotated[str, typer.Option("--net", help="Which recogniser of the catalogue; its default otherwise.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """How well faces of these people are told apart: ROC, rank 1, FPIR against N, quality, thresholds.

    Every photograph goes through the production pipeline; nothing of it is kept. Exit 1 when the thresholds
    judged are laxer than the lower bound found here.
    """
    if propose is not None and out is None:
        raise Refused("which_report", "a proposal names a kept report", "give --out FOLDER too")
    err = Console(stderr=True, highlight=False)
    judged = None if thresholds is None else thresholds_in(thresholds)
    report, left_out = _evaluated(directory, judged, net, err)
    laxer = calibration.laxer_than(report, report.configured)
    written, pictures = _keep(report, out, propose, err)
    if as_json:
        kept = {"written": [str(path) for path in written], "plots": pictures}
        document = {"ok": not laxer, "laxer": laxer, "left_out": left_out, **kept}
        typer.echo(json.dumps(document | {"report": json.loads(calibration.encode(report))}, ensure_ascii=False))
    else:
        for name, why in left_out.items():
            err.print(f"left out: {name}: {why}", markup=False)
        Console().print(as_table(report))
        for sentence in report.cannot_tell:
            err.print(f"cannot tell: {sentence}", markup=False, soft_wrap=True)
        for path in written:
            err.print(f"written: {path}", markup=False, soft_wrap=True)
    for one in laxer:
        err.print(f"too lax: {one}", style="bold red", markup=False)
    raise typer.Exit(1 if laxer else 0)


def _evaluated(directory: Path, judged: Points | None, net: str, err: Console) -> tuple[Report, dict[str, str]]:
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(PIXELS_MAX))  # it reads this when it is loaded, below
    from models.faces.catalogue import load_catalogue, recognisers  # the nets' libraries take a second to load
    from models.faces.evaluation import evaluate as report_of
    from models.faces.nets import build_nets
    from models.faces.pipeline import FacePipeline
    from models.faces.survey import folders, survey

    folders(directory)  # what is wrong with the folder is said before the nets are built
    catalogue = load_catalogue()
    entry = recognisers(catalogue, net)[0]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(prefix="so-nets-") as cache,
        Progress(*columns, console=err, transient=True) as bar,
    ):
        task = bar.add_task("nets", total=None)
        pipeline = FacePipeline(build_nets(Path(cache), catalogue, entry.name))

        def advance(done: int, count: int) -> None:
            bar.update(task, description="photographs", completed=done, total=count)

        found = survey(directory, pipeline, PRODUCTION, advance)
        if not entry.default:  # each net has a report of its own
            found = replace(found, name=f"{found.name}-{entry.name}")
        bar.update(task, description="intervals", total=None)
        today = datetime.now(UTC).date().isoformat()
        return report_of(found, judged or entry.thresholds, net=entry.name, date=today), found.left_out


def thresholds_in(path: Path) -> Points:
    """The thresholds of a catalogue entry or a fragment. Raises NeedsOperator when there are none."""
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return calibration.points_of(raw if isinstance(raw, dict) else {})
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise NeedsOperator("thresholds", f"{path.name}: {error}", "thresholds: [[1, 0.36], [100, 0.48], …]") from error


def _keep(report: Report, out: Path | None, propose: Path | None, err: Console) -> tuple[list[Path], bool]:
    """Write JSON, plots, Markdown and the fragment; without matplotlib the report is kept without plots."""
    if out is None:
        return [], False
    from runtime import faces_plots, faces_report

    out.mkdir(parents=True, exist_ok=True)
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in report.name)[:NAME_MAX]
    content = calibration.encode(report)
    kept = out / f"{stem}.json"
    kept.write_bytes(content)
    try:
        plots = faces_plots.draw(report, out, stem)
    except NeedsOperator as missing:
        plots = {}
        err.print(f"no plots: {missing.message} → {missing.do}", markup=False)
    text = out / f"{stem}.md"
    text.write_text(
        faces_report.as_markdown(report, {name: path.name for name, path in plots.items()}), encoding="utf-8"
    )
    written = [kept, *plots.values(), text]
    if propose is not None:
        propose.write_text(calibration.fragment(report, str(kept), content), encoding="utf-8")
        written.append(propose)
    return written, bool(plots)


def as_table(report: Report) -> Table:
    """For a person's terminal: what is measured and what is extrapolated stand apart."""
    table = Table(
        title=f"{report.name}: {report.people} people, {report.usable} of {report.photographs} photographs usable,"
        f" {report.genuine_pairs:,} genuine and {report.impostor_pairs:,} impostor comparisons",
        title_justify="left",
    )
    for name in ("what", "value", "95 % interval", "basis"):
        table.add_column(name)

    def add(what: str, one: calibration.Figure, basis: str = "measured") -> None:
        table.add_row(what, f"{one.value:g}", f"{one.low:g} to {one.high:g}", basis)

    for tar in report.tar_at_far:
        add(f"TAR at FAR {tar.far:g}, score above {tar.threshold.value:g}", tar.tar, tar.basis)
    add("rank 1 from one photograph", report.rank1)
    if report.enrolment is not None:
        add("rank 1 from the mean of three", report.enrolment.rank1_three)
        add("weakest mates (5th percentile), one shot", report.enrolment.weakest_one)
        add("weakest mates (5th percentile), mean of three", report.enrolment.weakest_three)
    for fpir in report.fpir:
        add(f"FPIR at N = {fpir.searched:,}, t = {fpir.threshold:g}", fpir.fpir, fpir.basis)
    for point, proposed in zip(report.points, report.proposed, strict=True):
        add(f"t for FPIR 0.1 % at N = {point.searched:,}", point.threshold, point.basis)
        table.add_row("  proposed", f"{proposed.threshold:g}", "", proposed.basis)
    for reason, count in report.refusals_probe.items():
        table.add_row(f"refused as a probe: {reason}", str(count), "", "")
    return table
