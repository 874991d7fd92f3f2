"""Accuracy on real photographs: production gates, the real gallery and decision, among strangers' templates.

A folder per person is named by STOREOPS_BENCH_PHOTOGRAPHS, or lies beside the checkout as shared/faces/lfw10. Without
one the part says so in a row and measures nothing: variations of one photograph are no evidence of accuracy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.domain.face_quality import PRODUCTION
from models.domain.gallery import NewRow
from models.domain.ids import MemberId, StoreId
from models.domain.recognition import Accepted, Embedding, RecognitionPolicy, SearchScope, decide
from models.faces.averaging import best_three
from models.faces.embed import to_embedding, unit
from models.faces.evaluation import evaluate
from models.faces.gallery import Gallery
from models.faces.nets import Nets, build_nets
from models.faces.pipeline import FacePipeline
from models.faces.rotation import rotation_from
from models.faces.survey import Survey, survey
from runtime.bench.form import Row, row
from runtime.settings import CONFIGS

if TYPE_CHECKING:
    from runtime.bench.faces import Advance, Ground

STEPS = 2
VARIABLE = "STOREOPS_BENCH_PHOTOGRAPHS"
BESIDE = CONFIGS.parent.parent / "shared" / "faces" / "lfw10"
GALLERY_TEMPLATES = 10_000
FAR = 1e-3
LOOKS = 2
"""Store, then region: they share the budget."""


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """Rows of accuracy; one row that says so where there are no photographs."""
    directory = photographs(os.environ)
    if directory is None:
        advance("accuracy: no photographs")
        advance("accuracy: no photographs")
        return [row("accuracy not measured: no photographs of people", 0, "people", "wanted", 10)]
    nets = build_nets(ground.cache)
    found = survey(directory, FacePipeline(nets), PRODUCTION)
    advance("accuracy: photographs")
    rows = [*_comparisons(found, nets), *_decisions(found, nets)]
    advance("accuracy: decisions")
    return rows


def photographs(environ: Mapping[str, str]) -> Path | None:
    """The folder that is named, or the one beside the checkout, where there is one."""
    named = environ.get(VARIABLE)
    directory = Path(named) if named else BESIDE
    return directory if directory.is_dir() else None


def _comparisons(found: Survey, nets: Nets) -> list[Row]:
    report = evaluate(found, nets.thresholds, net=nets.recogniser.name, date="", rounds_max=100)
    tar = next(one for one in report.tar_at_far if one.far == FAR)
    usable = f"of {report.people} people, {report.usable} of {report.photographs} photographs that pass the probe gates"
    return [
        row(f"rank 1 {usable}", report.rank1.value, "part", "chance", 1 / report.people, ">= 1"),
        row(f"TAR at FAR {FAR:g} ({tar.basis})", tar.tar.value, "part", "documented", 0.993, ">= 1"),
    ]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the probes."""

    probes: int
    right: int
    wrong: int
    strangers: int
    strangers_accepted: int


def _decisions(found: Survey, nets: Nets) -> list[Row]:
    tally = identify_all(found, nets, GALLERY_TEMPLATES)
    size = f"N = {GALLERY_TEMPLATES:,}"
    return [
        row(f"wrong accepts of members, {size}", tally.wrong, "probes", "probes", tally.probes, "<= 0"),
        row(f"strangers accepted, {size}", tally.strangers_accepted, "probes", "probes", tally.strangers, "<= 0"),
        row(f"members accepted by face alone, {size}", tally.right, "probes", "probes", tally.probes),
    ]


def identify_all(found: Survey, nets: Nets, templates: int) -> Tally:
    """Every member's other photographs against members and strangers; then each person as a stranger to the others.

    Members have the mean of three shots, as enrolment makes it. The gallery is filled up to `templates` with random
    directions: templates of people who never come.
    """
    policy = RecognitionPolicy(thresholds=nets.thresholds, calibration=nets.recogniser.calibration)
    members: dict[int, Embedding] = {}
    used: set[int] = set()
    for person in range(len(found.people)):
        three = best_three(found, person)
        if three is not None:
            used |= set(three)
            shots = [np.frombuffer(found.shots[index].enrol or b"", "<f4") for index in three]
            members[person] = to_embedding(unit(np.mean(shots, axis=0, dtype=np.float32)))
    gallery = Gallery(nets.dimension, rotation_from(b"accuracy" * 4, nets.dimension), templates)
    gallery.begin_load(templates)
    gallery.add_many(
        [*_strangers(templates - len(members), nets.dimension), *(_member(*one) for one in members.items())]
    )
    gallery.end_load(1)

    def accepted(probe: Embedding) -> str | None:
        result, whole = gallery.search(probe)
        assert whole, "nothing is missing from it"
        said = decide(result, policy, net_sha256=nets.recogniser_sha256, scope=SearchScope.REGION, looks=LOOKS)
        return said.match.member if isinstance(said.match, Accepted) else None

    shown = [
        (shot.person, shot.probe)
        for index, shot in enumerate(found.shots)
        if shot.probe is not None and index not in used
    ]
    own = [(person, accepted(probe)) for person, probe in shown if person in members]
    fooled = 0
    for person in members:
        gallery.remove(_name(person))
        fooled += sum(accepted(probe) is not None for other, probe in shown if other == person)
        gallery.add(_member(person, members[person]))
    return Tally(
        probes=len(own),
        right=sum(who == _name(person) for person, who in own),
        wrong=sum(who is not None and who != _name(person) for person, who in own),
        strangers=sum(person in members for person, _ in shown),
        strangers_accepted=fooled,
    )


def _name(person: int) -> MemberId:
    return MemberId(f"member-{person}")


def _member(person: int, template: Embedding) -> NewRow:
    return NewRow(_name(person), "enrolled", template, StoreId("store"), "0000")


def _strangers(count: int, dimension: int) -> list[NewRow]:
    rng = np.random.default_rng(10_000)
    vectors = rng.normal(size=(count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        NewRow(MemberId(f"stranger-{n}"), "enrolled", to_embedding(vector), StoreId("store"), f"{n % 10_000:04}")
        for n, vector in enumerate(vectors)
    ]
