"""A calibration report: what photographs told about one net, and the thresholds that follow. Plain values.

Scores are cosines; rates are parts of one. Every figure has an interval and names how it was made; what lies
beyond the photographs is marked `extrapolated`, never mixed with what was measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from models.domain.errors import NeedsOperator
from models.domain.recognition import threshold

REPORTS_DIR = Path(__file__).resolve().parents[2] / "docs" / "faces"
"""The checkout's kept reports."""

FORM = 1
PEOPLE_ENOUGH = 100
"""People from whom on a measured threshold replaces the table's. With fewer, one lookalike decides the figure."""

SIZES = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
"""Galleries for which thresholds are proposed, in templates searched."""

FPIR_BUDGET = 1e-3
REPORT_BYTES_MAX = 4 * 1024 * 1024

Points = tuple[tuple[int, float], ...]
Basis = Literal["measured", "extrapolated"]


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rate or a score with its 95 % interval and how the interval was made."""

    value: float
    low: float
    high: float
    method: str


class TarAtFar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mates accepted (TAR) where strangers are accepted at this rate (FAR), comparison by comparison."""

    far: float
    threshold: Figure
    tar: Figure
    basis: Basis


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cosine that keeps FPIR at its budget with `searched` templates."""

    searched: int
    threshold: Figure
    basis: Basis
    tar: Figure
    """Mates, one template each, that reach the value."""


class Fpir(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Strangers accepted when `searched` templates are searched with the configured threshold."""

    searched: int
    threshold: float
    fpir: Figure
    basis: Basis


class Proposed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One threshold for the catalogue, and where it comes from.

    `measured`: this report's own. `table`: the figure in force stands. `raised`: the figure in force was laxer
    than the report's lower bound.
    """

    searched: int
    threshold: float
    basis: Literal["measured", "table", "raised"]


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One template against the same probes: from one shot, and from the mean of three that agree."""

    people: int
    comparisons_one: int
    comparisons_three: int
    weakest_one: Figure
    """5th percentile of the mates' scores."""
    weakest_three: Figure
    rank1_one: Figure
    rank1_three: Figure
    curve_one: tuple[float, ...]
    """Mates' scores at each whole per cent, 0 to 100."""
    curve_three: tuple[float, ...]


class Histogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Comparisons by score: `edges` has one more than the counts."""

    edges: tuple[float, ...]
    genuine: tuple[int, ...]
    impostor: tuple[int, ...]


class RocPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One point of the curve, with the band of its TAR."""

    far: float
    tar: float
    low: float
    high: float


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gate's quantity over all photographs in which a face was measured, at PER_CENTS."""

    what: str
    unit: str
    quantiles: tuple[float, ...]
    probe_gate: str
    enrol_gate: str


PER_CENTS = (0, 5, 25, 50, 75, 95, 100)


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. Names no person: people are counted."""

    form: int
    name: str
    date: str
    net: str
    net_sha256: str
    gates: str
    people: int
    photographs: int
    usable: int
    """Photographs that pass the probe gates."""
    enrollable: int
    """Photographs that pass the enrolment gates."""
    unreadable: int
    genuine_pairs: int
    impostor_pairs: int
    rounds: int
    """Of the bootstrap."""
    tar_at_far: tuple[TarAtFar, ...]
    rank1: Figure
    enrolment: Enrolment | None
    configured: Points
    points: tuple[Point, ...]
    fpir: tuple[Fpir, ...]
    proposed: tuple[Proposed, ...]
    roc: tuple[RocPoint, ...]
    histogram: Histogram
    quality: tuple[Quality, ...]
    refusals_probe: dict[str, int]
    refusals_enrol: dict[str, int]
    left_out: dict[str, int]
    cannot_tell: tuple[str, ...]


class ThresholdsFrom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a catalogue entry says of its thresholds: the kept report, its digest, its date."""

    report: str
    sha256: str
    date: str

    @property
    def id(self) -> str:
        """As every decision records it."""
        return f"{Path(self.report).stem}@{self.sha256[:12]}"


# ---------------------------------------------------------------- on disk


def encode(report: Report) -> bytes:
    """Indented JSON that ends with a line break: the bytes that are kept, and whose digest names the report."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def parse(content: bytes) -> Report:
    """A report read back. Raises NeedsOperator `calibration_report` when it is none of this form."""
    try:
        report = msgspec.json.decode(content, type=Report)
    except msgspec.DecodeError as error:
        raise NeedsOperator("calibration_report", str(error), "make it by `storeops faces evaluate --out`") from error
    if report.form != FORM:
        raise NeedsOperator("calibration_report", f"form {report.form}, not {FORM}", "evaluate the photographs again")
    return report


def kept(directory: Path = REPORTS_DIR) -> list[tuple[str, Report]]:
    """(file stem, report) of every readable report of a folder, the newest first; others are passed over."""
    found: list[tuple[str, Report]] = []
    for path in sorted(directory.glob("*.json"), key=lambda one: one.stem) if directory.is_dir() else []:
        if path.stat().st_size > REPORT_BYTES_MAX:
            continue
        try:
            found.append((path.stem, parse(path.read_bytes())))
        except NeedsOperator:
            continue
    return sorted(found, key=lambda one: one[1].date, reverse=True)


def thresholds_from(raw: Any) -> ThresholdsFrom | None:
    """The catalogue's `thresholds_from`, checked for form. Raises ValueError; None where there is none."""
    if raw is None:
        return None
    try:
        named = msgspec.convert(raw, ThresholdsFrom, str_keys=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"thresholds_from: {error}") from error
    if len(named.sha256) != 64 or set(named.sha256) - set("0123456789abcdef"):
        raise ValueError("thresholds_from: sha256 is no digest")
    return named


# ---------------------------------------------------------------- thresholds


def laxer_than(report: Report, configured: Points) -> list[str]:
    """Where a configured threshold is below the report's lower bound for that many templates; empty: nowhere."""
    return [
        f"N = {point.searched}: {threshold(point.searched, configured):.3f} is below {point.threshold.low:.3f}, the"
        f" lower bound of {report.name}"
        for point in report.points
        if round(threshold(point.searched, configured), 3) < round(point.threshold.low, 3)
    ]


def propose(points: Iterable[Point], configured: Points, people: int) -> tuple[Proposed, ...]:
    """A threshold for every size: measured ones from enough people, else the figure in force, raised if too lax.

    Rises with N always, as the catalogue demands.
    """
    proposed: list[Proposed] = []
    least = 0.0
    for point in points:
        in_force = round(threshold(point.searched, configured), 3)
        if people >= PEOPLE_ENOUGH and point.basis == "measured":
            value, basis = point.threshold.value, "measured"
        elif in_force < round(point.threshold.low, 3):
            value, basis = point.threshold.low, "raised"
        else:
            value, basis = in_force, "table"
        least = max(least, round(value, 3))
        proposed.append(Proposed(point.searched, least, basis))  # type: ignore[arg-type]
    return tuple(proposed)


def fragment(report: Report, path: str, content: bytes) -> str:
    """YAML for a recogniser's catalogue entry: the proposed thresholds, naming the report that they come from."""
    lines = [
        f"# Proposed from {report.name}: {report.people} people, {report.usable} photographs, {report.date}.",
        "thresholds_from:",
        f"  report: {path}",
        f"  sha256: {hashlib.sha256(content).hexdigest()}",
        f"  date: '{report.date}'",
        "thresholds:",
    ]
    lines += [f"  - [{one.searched}, {one.threshold:g}]  # {one.basis}" for one in report.proposed]
    return "\n".join([*lines, ""])


def points_of(raw: Mapping[str, Any]) -> Points:
    """The thresholds of a catalogue entry or a fragment. Raises ValueError when there are none that rise from 1."""
    rows: Sequence[Any] = raw.get("thresholds") or ()
    points = tuple((int(n), float(t)) for n, t in rows)
    counts, values = [n for n, _ in points], [t for _, t in points]
    if not points or counts[0] != 1 or counts != sorted(set(counts)) or values != sorted(values):
        raise ValueError("thresholds must start at N = 1 and rise with N")
    return points
