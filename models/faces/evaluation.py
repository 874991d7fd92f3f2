"""From a survey of photographs to a calibration report: ROC, rank 1, FPIR against N, thresholds. Arithmetic only.

Terms as in ISO/IEC 19795-1: genuine and impostor comparisons, FAR and TAR of comparisons, FPIR of identification
of people who are not enrolled. Gallery sizes that the photographs reach are measured; beyond them FPIR is
1 - (1 - FAR)^N, with FAR from the tail of the impostor scores (models.faces.intervals.Tail), and marked so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import expm1, lgamma, log1p

import numpy as np
from numpy.typing import NDArray

from models.domain.face_quality import QualityGates, QualityReport
from models.domain.recognition import threshold
from models.faces.averaging import one_against_three
from models.faces.calibration import (
    FORM,
    FPIR_BUDGET,
    PEOPLE_ENOUGH,
    PER_CENTS,
    SIZES,
    Basis,
    Figure,
    Fpir,
    Histogram,
    Point,
    Points,
    Quality,
    Report,
    RocPoint,
    TarAtFar,
    propose,
)
from models.faces.intervals import (
    ROUNDS_MAX,
    Floats,
    Ints,
    Tail,
    draws,
    fit_tail,
    of_rate,
    of_samples,
    rate_by_person,
    rounded,
    rounds_for,
)
from models.faces.survey import Survey

RULE_OF_THREE = 3
FARS = (1e-2, 1e-3, 1e-4)
EVENTS_MIN = 3
"""Comparisons above a threshold that make its FAR measured."""
TAIL_PART = 0.05
"""Of the impostor scores, the highest: what the tail is fitted to."""
TAIL_POINTS = 25
KEPT_PART = 0.12
"""Of the impostor scores, the highest: what the bootstrap weighs."""
ROC_POINTS = 40
FPIR_SIZES = (1, 3, 10, 30, 100, 300, 1_000, 10_000, 100_000, 1_000_000)
LEAST = 1e-9
"""No rate below it is told apart from none."""
SEED = 19_795


@dataclass(frozen=True, slots=True)
class Scores:
    """All comparisons of usable photographs. Impostor scores: the highest KEPT_PART, falling."""

    people: int
    vectors: NDArray[np.float32]
    owners: Ints
    table: NDArray[np.float32]
    """Photograph by photograph; the diagonal is -2."""
    genuine: Floats
    genuine_owner: Ints
    impostor: Floats
    impostor_pair: tuple[Ints, Ints]
    impostor_count: int
    histogram: Histogram


def compare(survey: Survey) -> Scores:
    """Every usable photograph with every other."""
    usable = [shot for shot in survey.shots if shot.probe is not None]
    vectors = np.stack([np.frombuffer(shot.probe or b"", "<f4") for shot in usable]).astype(np.float32)
    owners = np.array([shot.person for shot in usable], np.int64)
    table = np.clip(vectors @ vectors.T, -1, 1).astype(np.float32)
    np.fill_diagonal(table, -2)
    left, right = np.triu_indices(len(usable), 1)
    same = owners[left] == owners[right]
    scores = table[left, right].astype(np.float64)
    strangers = np.flatnonzero(~same)
    keep = strangers[np.argsort(-scores[strangers], kind="stable")[: max(50, round(KEPT_PART * len(strangers)))]]
    edges = np.linspace(-0.4, 1.0, 71)
    return Scores(
        people=len(survey.people),
        vectors=vectors,
        owners=owners,
        table=table,
        genuine=scores[same],
        genuine_owner=owners[left[same]],
        impostor=scores[keep],
        impostor_pair=(owners[left[keep]], owners[right[keep]]),
        impostor_count=len(strangers),
        histogram=Histogram(
            tuple(round(float(edge), 3) for edge in edges),
            tuple(int(n) for n in np.histogram(scores[same], edges)[0]),
            tuple(int(n) for n in np.histogram(scores[strangers], edges)[0]),
        ),
    )


@dataclass(frozen=True, slots=True)
class World:
    """The photographs as they are, or as one draw of the bootstrap weighs them."""

    genuine_weight: Floats
    cumulated: Floats
    tail: Tail


def world(scores: Scores, drawn: Ints) -> World:
    """Each person counted as often as drawn; comparisons of a person with a copy are not made."""
    weight = drawn.astype(np.float64)
    left, right = scores.impostor_pair
    pairs = weight[left] * weight[right]
    each = np.bincount(scores.owners, minlength=scores.people) * weight
    # All pairs of photographs of different persons: half of (sum squared less the sum of squares).
    total = max(1.0, float(each.sum() ** 2 - (each**2).sum()) / 2)
    cumulated = np.cumsum(pairs) / total
    fars = np.logspace(np.log10(EVENTS_MIN / scores.impostor_count), np.log10(TAIL_PART), TAIL_POINTS)
    tail = fit_tail(fars, np.array([_above(scores, cumulated, far) for far in fars]))
    return World(weight[scores.genuine_owner], cumulated, tail)


def threshold_at(scores: Scores, at: World, far: float) -> float:
    """The score above which a part `far` of the impostor comparisons lies at most: from the sorted scores."""
    return _above(scores, at.cumulated, far)


def _above(scores: Scores, cumulated: Floats, far: float) -> float:
    above = int(np.searchsorted(cumulated, far * (1 + 1e-12), side="right"))
    return float(scores.impostor[min(above, len(scores.impostor) - 1)])


def tar_above(scores: Scores, at: World, score: float) -> float:
    """The part of the genuine comparisons above a score."""
    total = at.genuine_weight.sum()
    return float(at.genuine_weight[scores.genuine > score].sum() / total) if total else float("nan")


def evaluate(found: Survey, configured: Points, *, net: str, date: str, rounds_max: int = ROUNDS_MAX) -> Report:
    """The report. The same survey gives the same report: its bootstrap is seeded."""
    scores = compare(found)
    rounds = min(rounds_max, rounds_for(len(scores.impostor) + len(scores.genuine)))
    drawn = draws(scores.people, rounds, SEED)
    whole = world(scores, np.ones(scores.people, np.int64))
    drawn = drawn[(drawn > 0).sum(axis=1) > 1]  # one person alone has no stranger
    worlds = [world(scores, row) for row in drawn]
    mates = len(np.unique(scores.genuine_owner))
    points = tuple(_point(scores, whole, worlds, mates, n) for n in SIZES)
    quality = [shot.quality for shot in found.shots if shot.quality is not None]
    unreadable = sum("/" in name for name in found.left_out)
    return Report(
        form=FORM,
        name=found.name,
        date=date,
        net=net,
        net_sha256=found.net_sha256,
        gates=found.policy.name,
        people=scores.people,
        photographs=len(found.shots) + unreadable,
        usable=len(scores.owners),
        enrollable=sum(shot.enrol is not None for shot in found.shots),
        unreadable=unreadable,
        genuine_pairs=len(scores.genuine),
        impostor_pairs=scores.impostor_count,
        rounds=rounds,
        tar_at_far=tuple(_tar_at_far(scores, whole, worlds, mates, far) for far in FARS),
        rank1=_rank1(scores, drawn),
        enrolment=one_against_three(found, drawn),
        configured=configured,
        points=points,
        fpir=tuple(_fpir(scores, whole, worlds, drawn, n, threshold(n, configured)) for n in FPIR_SIZES),
        proposed=propose(points, configured, scores.people),
        roc=_roc(scores, whole, worlds, mates),
        histogram=scores.histogram,
        quality=_quality(found, quality),
        refusals_probe=found.refusals_probe,
        refusals_enrol=found.refusals_enrol,
        left_out=dict(Counter(found.left_out.values())),
        cannot_tell=_cannot_tell(scores, points, mates),
    )


# ---------------------------------------------------------------- one comparison


def _score_at(scores: Scores, whole: World, worlds: list[World], far: float) -> tuple[Figure, Basis]:
    if far * scores.impostor_count >= EVENTS_MIN:
        samples = np.array([threshold_at(scores, one, far) for one in worlds])
        return rounded(of_samples(threshold_at(scores, whole, far), samples)), "measured"
    samples = np.array([one.tail.threshold(far) for one in worlds])
    return rounded(of_samples(whole.tail.threshold(far), samples)), "extrapolated"


def _tar_at_far(scores: Scores, whole: World, worlds: list[World], mates: int, far: float) -> TarAtFar:
    at, basis = _score_at(scores, whole, worlds, far)
    score = threshold_at(scores, whole, far) if basis == "measured" else at.value
    samples = np.array(
        [tar_above(scores, one, threshold_at(scores, one, far) if basis == "measured" else at.value) for one in worlds]
    )
    return TarAtFar(far, at, rounded(of_rate(tar_above(scores, whole, score), samples, mates)), basis)


def _roc(scores: Scores, whole: World, worlds: list[World], mates: int) -> tuple[RocPoint, ...]:
    points = []
    for far in np.logspace(np.log10(max(1e-6, 1 / scores.impostor_count)), -1, ROC_POINTS):
        samples = np.array([tar_above(scores, one, threshold_at(scores, one, far)) for one in worlds])
        figure = rounded(of_rate(tar_above(scores, whole, threshold_at(scores, whole, far)), samples, mates))
        points.append(RocPoint(float(f"{far:.3g}"), figure.value, figure.low, figure.high))
    return tuple(points)


# ---------------------------------------------------------------- identification


def _rank1(scores: Scores, drawn: Ints) -> Figure:
    """Whose photograph is the nearest of all others? Of people with two usable ones at least."""
    hits, trials = np.zeros(scores.people), np.zeros(scores.people)
    count = np.bincount(scores.owners, minlength=scores.people)
    for row, owner in enumerate(scores.owners):
        if count[owner] > 1:
            trials[owner] += 1
            hits[owner] += scores.owners[int(scores.table[row].argmax())] == owner
    return rounded(rate_by_person(hits, trials, drawn))


def _point(scores: Scores, whole: World, worlds: list[World], mates: int, n: int) -> Point:
    """FPIR at its budget means, template by template, FAR = 1 - (1 - budget)^(1/N)."""
    at, basis = _score_at(scores, whole, worlds, -expm1(log1p(-FPIR_BUDGET) / n))
    samples = np.array([tar_above(scores, one, at.value) for one in worlds])
    return Point(n, at, basis, rounded(of_rate(tar_above(scores, whole, at.value), samples, mates)))


def _fpir(scores: Scores, whole: World, worlds: list[World], drawn: Ints, n: int, at: float) -> Fpir:
    """Strangers accepted at score `at` by a gallery of `n` templates of other people.

    As far as the others have so many: the mean over all galleries of n of their templates, without drawing any
    (hypergeometric): 1 - C(m - k, n) / C(m, n), with k of the m above `at`.
    """
    strangers = scores.owners[:, None] != scores.owners[None, :]
    available = strangers.sum(axis=1)
    if n <= int(available.min()):
        above = ((scores.table >= at) & strangers).sum(axis=1)
        chance = np.array([_some(int(m), int(k), n) for m, k in zip(available, above, strict=True)])
        hits = np.bincount(scores.owners, chance, minlength=scores.people).astype(np.float64)
        trials = np.bincount(scores.owners, minlength=scores.people).astype(np.float64)
        return Fpir(n, round(at, 4), _small(rate_by_person(hits, trials, drawn)), "measured")
    samples = np.array([_any_of(n, one.tail.far(at)) for one in worlds])
    value = _any_of(n, whole.tail.far(at))
    return Fpir(n, round(at, 4), _small(of_samples(value, samples)), "extrapolated")


def _any_of(n: int, far: float) -> float:
    """1 - (1 - FAR)^N, exact for small FAR."""
    return -expm1(n * log1p(-min(far, 1 - 1e-15)))


def _some(m: int, k: int, n: int) -> float:
    """The chance that n of m without replacement hold one of the k."""
    if k == 0:
        return 0.0
    if n > m - k:
        return 1.0
    none = lgamma(m - k + 1) - lgamma(m - k - n + 1) - lgamma(m + 1) + lgamma(m - n + 1)
    return -expm1(none)


# ---------------------------------------------------------------- words


def _quality(found: Survey, reports: list[QualityReport]) -> tuple[Quality, ...]:
    probe, enrol = found.policy.probe, found.policy.enrol

    def row(what: str, unit_: str, values: list[float], probe_gate: str, enrol_gate: str) -> Quality:
        quantiles = tuple(round(float(value), 3) for value in np.percentile(values, PER_CENTS)) if values else ()
        return Quality(what, unit_, quantiles, probe_gate, enrol_gate)

    def most(limit: float | None) -> str:
        return "" if limit is None else f"<= {limit:g}"

    return (
        row("detector score", "", [one.score for one in reports], f">= {probe.score_min:g}", f">= {enrol.score_min:g}"),
        row(
            "eye distance", "px", [one.eye_distance_px for one in reports],
            f">= {probe.eye_distance_px_min:g}", f">= {enrol.eye_distance_px_min:g}",
        ),
        row(
            "sharpness", "Laplacian variance", [one.sharpness for one in reports],
            f">= {probe.sharpness_min:g}", f">= {enrol.sharpness_min:g}",
        ),
        row(
            "tilt", "degrees", [abs(one.roll_deg) for one in reports],
            most(probe.roll_deg_max), most(enrol.roll_deg_max),
        ),
        row(
            "nose offset", "eye distances", [one.nose_offset for one in reports],
            most(probe.nose_offset_max), most(enrol.nose_offset_max),
        ),
        row("luminance", "0 to 255", [one.luminance for one in reports], _light(probe), _light(enrol)),
    )  # fmt: skip


def _light(gates: QualityGates) -> str:
    return f"{gates.luminance_min:g} to {gates.luminance_max:g}"


def _cannot_tell(scores: Scores, points: tuple[Point, ...], mates: int) -> tuple[str, ...]:
    """What so few people leave open, in sentences."""
    told = []
    needed = round(EVENTS_MIN / FARS[-1])
    if scores.impostor_count < needed:
        told.append(
            f"TAR at FAR {FARS[-1]:g}: {needed:,} impostor comparisons are needed, there are {scores.impostor_count:,}"
        )
    beyond = [point.searched for point in points if point.basis == "extrapolated"]
    if beyond:
        told.append(
            f"thresholds from N = {beyond[0]:,} on: they lie beyond the highest impostor scores and are extrapolated"
        )
    if scores.people < PEOPLE_ENOUGH:
        told.append(
            f"thresholds for a shop: {scores.people} people, {PEOPLE_ENOUGH} at least are asked; one lookalike more"
            " or less moves every figure, so the table in force stands"
        )
    if mates > RULE_OF_THREE:
        told.append(
            f"rates below {RULE_OF_THREE / mates:.2g}: when nothing happened to {mates} people, up to 3 in {mates} may"
            " still be true (rule of three)"
        )
    else:
        told.append(f"any rate: {mates} people with two photographs; of what never happened, everything may be true")
    told.append("twins, children, masks, other cameras and other light than in these photographs")
    return tuple(told)


def _small(figure: Figure) -> Figure:
    value, low, high = (float(f"{one:.3g}") if one >= LEAST else 0.0 for one in (figure.value, figure.low, figure.high))
    return Figure(value, low, high, figure.method)
