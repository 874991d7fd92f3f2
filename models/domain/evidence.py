"""What the stages of a rollout are judged by: counts of stores, the rule that was registered before, and the verdict.

Values only. `runtime.evidence` computes verdicts; a gate takes one as it is. The store is the unit everywhere: its
customers come back and share a clerk, so a thousand visits of two stores are two observations, not a thousand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, NewType

from models.domain.ids import StoreId
from models.domain.plan_reader import Text

MetricId = NewType("MetricId", str)
"""An id of models.domain.evidence_metrics."""

LOOKS_MAX = 20
WINDOW_DAYS_MAX = 180
"""Days before and days under the change that a rule may ask for, together."""
STORES_NAMED_MAX = 5
"""A why-line names so many stores, then a count."""


class MetricKind(StrEnum):
    """What numerator and denominator are.

    RATE: events out of opportunities, numerator <= denominator. COUNT: events per exposure, any number of them.
    MEAN: a sum of values (fen, ms) over the number of values.
    """

    RATE = "rate"
    COUNT = "count"
    MEAN = "mean"


class Direction(StrEnum):
    """Where good is."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: the sum of its numerators over the sum of its denominators, times `per`, in `unit`."""

    id: MetricId
    kind: MetricKind
    direction: Direction
    unit: str
    per: int
    """1,000 for "per 1,000 visits", 1 for a mean."""
    name: Text
    definition: Text
    """Exact: which rows count, at which clock."""
    sources: tuple[str, ...]
    """Tables it is read from."""
    relative: bool
    """Effects are told as a ratio ("+4 %") and judged on logarithms; else as a difference in `unit`."""


class Arm(StrEnum):
    """Which side of the comparison a store is on."""

    TREATED = "treated"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class DayCount:
    """One store's numerator and denominator on one business day. A day without opportunities has denominator 0."""

    day: date
    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        """Raises ValueError for a negative count."""
        if self.numerator < 0 or self.denominator < 0:
            raise ValueError(f"{self.day}: {self.numerator} of {self.denominator}")


@dataclass(frozen=True, slots=True)
class StoreSample:
    """One store in one metric: its days before the change and its days under it (or, as a control, beside it)."""

    store: StoreId
    arm: Arm
    before: tuple[DayCount, ...]
    after: tuple[DayCount, ...]

    @property
    def numerator(self) -> int:
        """Of the days under the change."""
        return sum(one.numerator for one in self.after)

    @property
    def denominator(self) -> int:
        """Of the days under the change."""
        return sum(one.denominator for one in self.after)

    @property
    def seen(self) -> bool:
        """There is something to compare on both sides of the change."""
        return self.denominator > 0 and any(one.denominator for one in self.before)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A store that may serve as a control: its labels (region, format …) and its days before."""

    store: StoreId
    labels: Mapping[str, str]
    before: tuple[DayCount, ...]


class StageKind(StrEnum):
    """What a stage can see. A few stores show harm; to see an effect takes many (docs/rollout-evidence.md)."""

    SAFETY = "safety"
    PRIMARY = "primary"
    STAGGERED = "staggered"


@dataclass(frozen=True, slots=True)
class GateSpec:
    """The rule of one stage, registered before its start; `sha256` is recorded with the start and with each verdict.

    `safety` is judged in every stage, each treated store against its own days before. `primary` is one metric, None
    in a stage of StageKind.SAFETY. Raises ValueError for a rule that cannot be followed.
    """

    kind: StageKind
    safety: tuple[MetricId, ...]
    primary: MetricId | None = None
    look_days: tuple[int, ...] = (7,)
    """Full days under the change after which there is a look, rising; the last one is the end."""
    before_days: int = 28
    controls_per_store: int = 1
    match_labels: tuple[str, ...] = ("region",)
    """A control has the same value of each as its store."""
    alpha: float = 0.05
    """Two-sided for the primary metric over all its looks together; one-sided for all safety tests of all looks."""
    power: float = 0.8
    mde: float | None = None
    """The smallest effect worth seeing, registered: a ratio (0.12) where the metric is relative, else in its unit."""
    sample_ratio_alpha: float = 0.001
    seed: int = 0
    """Of the matching's ties."""

    def __post_init__(self) -> None:
        """Raises ValueError, naming the field."""
        if not self.safety:
            raise ValueError("safety: at least one metric")
        if len(set(self.safety)) != len(self.safety):
            raise ValueError("safety: each metric once")
        if (self.primary is None) != (self.kind is StageKind.SAFETY):
            raise ValueError(f"primary: a stage of kind {self.kind} has {'none' if self.primary else 'one'}")
        if not 1 <= len(self.look_days) <= LOOKS_MAX or self.look_days[0] < 1:
            raise ValueError(f"look_days: 1 to {LOOKS_MAX} days of 1 or more")
        if any(a >= b for a, b in zip(self.look_days, self.look_days[1:], strict=False)):
            raise ValueError("look_days: rising")
        if self.before_days < 2 or self.before_days + self.look_days[-1] > WINDOW_DAYS_MAX:
            raise ValueError(f"before_days: 2 or more, with the last of look_days at most {WINDOW_DAYS_MAX}")
        if self.controls_per_store < 1:
            raise ValueError("controls_per_store: 1 or more")
        for name in ("alpha", "power", "sample_ratio_alpha"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: between 0 and 1")
        if self.mde is not None and self.mde <= 0:
            raise ValueError("mde: above 0")

    @property
    def looks(self) -> int:
        """How often evidence is looked at; more often is not possible without another rule."""
        return len(self.look_days)

    def look_of(self, days: int) -> int | None:
        """Which look (from 1) is due with so many full days under the change; None before the first."""
        reached = sum(days >= one for one in self.look_days)
        return reached or None

    @property
    def sha256(self) -> str:
        """Of the rule in canonical JSON."""
        return digest(asdict(self))


class Outcome(StrEnum):
    """What the evidence says.

    SAFE: no harm was seen (not: there is none; `Verdict.mde` says what could have been). UNSAFE: harm, halt.
    BETTER, WORSE: the interval is wholly on one side of no effect. UNCLEAR: it holds no effect. INVALID: the data
    cannot be judged (stores missing on one side, too few of them); never read as a pass.
    """

    SAFE = "safe"
    UNSAFE = "unsafe"
    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Finding:
    """One safety test: a metric of a store (None: all treated stores added up) against its own days before.

    Rates in the metric's unit. `p` one-sided for harm; `p_adjusted` after Holm over all tests of the look and the share
    of alpha of the look. `controls_p`: the same test on the controls added up; small: it happened everywhere.
    """

    metric: MetricId
    store: StoreId | None
    before: float
    after: float
    p: float
    p_adjusted: float
    unsafe: bool
    mde: float | None = None
    """The rise, as a ratio, that this test would have seen with the rule's power; None: nothing happened before."""
    controls_p: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One store in the picture: its metric before and after, in the metric's unit."""

    store: StoreId
    arm: Arm
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found at one look, with everything that is needed to redo it.

    `estimate`, `low`, `high`, `mde` and `p` belong to the primary metric: a ratio minus 1 (0.04 is +4 %) where it is
    relative, else a difference in its unit; None in a stage of safety only, where each finding has its own. The
    interval covers over all looks together and decides; `p` is of this look alone.
    """

    outcome: Outcome
    kind: StageKind
    why: Text
    look: int
    looks: int
    inputs_sha256: str
    rule_sha256: str
    metric: MetricId | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    mde: float | None = None
    p: float | None = None
    sample_ratio_p: float | None = None
    treated: int = 0
    controls: int = 0
    findings: tuple[Finding, ...] = ()
    points: tuple[Point, ...] = field(default=(), repr=False)

    @property
    def halts(self) -> bool:
        """Reason to stop by itself: harm, or an effect in the wrong direction."""
        return self.outcome in (Outcome.UNSAFE, Outcome.WORSE)

    @property
    def final(self) -> bool:
        """No later look follows."""
        return self.look >= self.looks

    def document(self) -> dict[str, Any]:
        """Plain JSON, as it is stored with the decision and drawn."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a stage will be able to see, computed before its start from the days before it alone.

    `mde` as in Verdict, with the rule's alpha, looks and power; None: too few stores to see anything. `sd`: of one
    store's change once its past is taken out (CUPED), on the logarithm where the metric is relative.
    """

    metric: MetricId
    treated: int
    controls: int
    days: int
    sd: float
    mde: float | None
    enough: bool
    """The rule's own `mde` can be seen; true where the rule names none."""
    why: Text


def effect_told(spec: MetricSpec, effect: float | None) -> str:
    """An effect in words of both languages: "+4.1 %", "-0.30 per 1,000 sales"."""
    if effect is None:
        return "?"
    return f"{100 * effect:+.1f} %" if spec.relative else f"{effect:+.2f} {spec.unit}"


def verdict_of(document: Mapping[str, Any]) -> Verdict:
    """What `Verdict.document` gave. Raises KeyError, TypeError or ValueError for anything else."""
    plain = dict(document)
    plain["outcome"] = Outcome(plain["outcome"])
    plain["kind"] = StageKind(plain["kind"])
    plain["why"] = Text(**plain["why"])
    plain["findings"] = tuple(Finding(**one) for one in plain["findings"])
    plain["points"] = tuple(Point(**{**one, "arm": Arm(one["arm"])}) for one in plain["points"])
    return Verdict(**plain)


def digest(value: object) -> str:
    """SHA-256, hexadecimal, of a value in canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def samples_sha256(samples: Mapping[MetricId, Sequence[StoreSample]]) -> str:
    """The inputs of a verdict: the same counts of the same stores in any order have the same digest."""
    return digest(
        {
            metric: sorted([one.arm, one.store, _rows(one.before), _rows(one.after)] for one in those)
            for metric, those in samples.items()
        }
    )


def _rows(days: Sequence[DayCount]) -> list[tuple[str, int, int]]:
    return sorted((one.day.isoformat(), one.numerator, one.denominator) for one in days)
