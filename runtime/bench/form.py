"""The form of every benchmark's result: one JSON object; each figure beside a baseline of the same run.

`{"bench", "ok", "machine": {…}, "results": [{"what", "value", "unit", "baseline", "baseline_value", "ratio",
"target", "ok"}], "quantiles": {…}}`. A row without a target is there to be read; it is always ok.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from models.domain.errors import Refused

TARGET = re.compile(r"(<=|>=) (\d+(?:\.\d+)?)( x)?")
"""`<= 15`: the value, in its unit. `>= 0.6 x`: the ratio of value and baseline."""
QUANTILES = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97, 98, 99, 100)
"""Per cent at which a distribution is reported, in this order."""
DIGITS = 4


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a reader needs to compare: nothing that names the machine or its owner."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load_1m: tuple[float, float]
    """Runnable processes, averaged over a minute, before and after. Beforehand over 0.5: not a quiet machine."""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One figure, its baseline and what was promised. `ratio` is value / baseline_value."""

    what: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    ratio: float
    target: str | None
    ok: bool


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One benchmark's result. Made by `report`, read by `parse`."""

    bench: str
    ok: bool
    machine: Machine
    results: tuple[Row, ...]
    quantiles: dict[str, tuple[float, ...]] = {}
    """Distributions at QUANTILES, named with their unit: for the plots."""


def row(what: str, value: float, unit: str, baseline: str, baseline_value: float, target: str | None = None) -> Row:
    """A row with its ratio and verdict. Raises ValueError for a target that is none, or a figure that is none."""
    if not (math.isfinite(value) and math.isfinite(baseline_value) and baseline_value > 0):
        raise ValueError(f"{what}: {value} against {baseline_value} is no measurement")
    value, baseline_value = _rounded(value), _rounded(baseline_value)
    ratio = _rounded(value / baseline_value)
    return Row(what, value, unit, baseline, baseline_value, ratio, target, _holds(target, value, ratio))


def report(
    bench: str,
    machine: Machine,
    results: Sequence[Row],
    quantiles: Mapping[str, Sequence[float]] | None = None,
) -> Report:
    """The object: ok when every row is."""
    curves = {name: tuple(_rounded(value) for value in values) for name, values in (quantiles or {}).items()}
    return Report(bench, all(one.ok for one in results), machine, tuple(results), curves)


def encode(done: Report) -> str:
    """One line of JSON."""
    return msgspec.json.encode(done).decode()


def parse(text: str | bytes) -> Report:
    """A report read back. Raises Refused `bench_form` when a field or a verdict is not what the form says."""
    try:
        done = msgspec.json.decode(text, type=Report)
        again = [row(o.what, o.value, o.unit, o.baseline, o.baseline_value, o.target) for o in done.results]
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused("bench_form", str(error), "write it by `storeops bench NAME --json`") from error
    problems = [f"{one.what}: ratio or verdict" for one, right in zip(done.results, again, strict=True) if one != right]
    if not done.results or done.ok != all(one.ok for one in done.results):
        problems.append("ok")
    problems += [name for name, values in done.quantiles.items() if not _is_curve(values)]
    if problems:
        raise Refused("bench_form", f"{done.bench}: {', '.join(problems)}", "write it by `storeops bench NAME --json`")
    return done


def quantile(samples: Sequence[float], per_cent: float) -> float:
    """Nearest rank: a value that was measured. Raises ValueError without samples."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(per_cent / 100 * len(ordered)) - 1)]


def curve(samples: Sequence[float]) -> tuple[float, ...]:
    """The samples at QUANTILES."""
    return tuple(quantile(samples, per_cent) for per_cent in QUANTILES)


def load_now() -> float:
    """The load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def machine(load_before: float) -> Machine:
    """This machine, seen after the run."""
    return Machine(
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        load_1m=(load_before, load_now()),
    )


def _holds(target: str | None, value: float, ratio: float) -> bool:
    if target is None:
        return True
    parts = TARGET.fullmatch(target)
    if parts is None:
        raise ValueError(f"{target!r} is no target")
    figure, limit = (ratio if parts[3] else value), float(parts[2])
    return figure <= limit if parts[1] == "<=" else figure >= limit


def _is_curve(values: tuple[float, ...]) -> bool:
    return len(values) == len(QUANTILES) and list(values) == sorted(values)


def _rounded(value: float) -> float:
    """Four significant digits, whole numbers kept: more would not come out twice."""
    return round(value, max(0, DIGITS - 1 - math.floor(math.log10(abs(value))))) if value else 0.0


def _cpu_name() -> str:
    """As Linux names it, else the architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()
