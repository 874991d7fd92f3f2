"""What three enrolment shots bring: a member's mean against one shot of it, before the same probes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from models.faces.calibration import Enrolment, Figure
from models.faces.embed import unit
from models.faces.intervals import Floats, Ints, of_samples, rate_by_person, rounded
from models.faces.survey import Survey

TRIPLES_FROM = 12
"""Enrolment shots of a person among which three that agree are sought."""


def one_against_three(found: Survey, drawn: Ints) -> Enrolment | None:
    """One shot or three, against the same probes; None when nobody has three that agree and a fourth."""
    chosen = {person: three for person in range(len(found.people)) if (three := best_three(found, person)) is not None}
    probes = [
        (shot.person, np.frombuffer(shot.probe, "<f4"))
        for index, shot in enumerate(found.shots)
        if shot.probe is not None and shot.person in chosen and index not in chosen[shot.person]
    ]
    people = sorted({person for person, _ in probes})
    if len(people) < 2:
        return None
    shots = np.stack([[np.frombuffer(found.shots[i].enrol or b"", "<f4") for i in chosen[one]] for one in people])
    means = np.stack([unit(three.mean(axis=0)) for three in shots])
    place = {person: row for row, person in enumerate(people)}
    owners = np.array([place[person] for person, _ in probes])
    vectors = np.stack([vector for _, vector in probes])
    singles = np.einsum("nd,psd->nps", vectors, shots)
    averages = vectors @ means.T
    row = np.arange(len(owners))
    own_one, own_three = singles[row, owners], averages[row, owners]
    drawn = drawn[:, people]
    right_one = (singles.argmax(axis=1) == owners[:, None]).mean(axis=1)
    right_three = averages.argmax(axis=1) == owners
    trials = np.bincount(owners, minlength=len(people)).astype(np.float64)

    def rank1(right: Floats) -> Figure:
        return rounded(
            rate_by_person(np.bincount(owners, right, minlength=len(people)).astype(np.float64), trials, drawn)
        )

    return Enrolment(
        people=len(people),
        comparisons_one=own_one.size,
        comparisons_three=own_three.size,
        weakest_one=_weakest(own_one.ravel(), np.repeat(owners, 3), drawn),
        weakest_three=_weakest(own_three, owners, drawn),
        rank1_one=rank1(right_one.astype(np.float64)),
        rank1_three=rank1(right_three.astype(np.float64)),
        curve_one=_percentiles(own_one),
        curve_three=_percentiles(own_three),
    )


def best_three(found: Survey, person: int) -> tuple[int, ...] | None:
    """The three enrolment shots that agree best, by index; None when none agree as the gates demand."""
    own = [i for i, shot in enumerate(found.shots) if shot.person == person and shot.enrol is not None]
    own = own[:TRIPLES_FROM]
    if len(own) < found.policy.shots:
        return None
    vectors = np.stack([np.frombuffer(found.shots[i].enrol or b"", "<f4") for i in own])
    cosine = vectors @ vectors.T

    def weakest(three: tuple[int, ...]) -> float:
        return min(float(cosine[pair]) for pair in combinations(three, 2))

    best = max(combinations(range(len(own)), found.policy.shots), key=weakest)
    return tuple(own[i] for i in best) if weakest(best) >= found.policy.agreement_min else None


def _weakest(scores: NDArray[np.float32], owners: Ints, drawn: Ints) -> Figure:
    values = scores.astype(np.float64)
    samples = np.array([np.percentile(np.repeat(values, row[owners]), 5) for row in drawn if row[owners].sum()])
    return rounded(of_samples(float(np.percentile(values, 5)), samples))


def _percentiles(scores: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in np.percentile(scores, np.arange(101)))
