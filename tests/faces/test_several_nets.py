"""A chain changes its net: members enrolled with the old one are recognised by it once more, and then by the new one.

The second net is real: SFace, and an orthogonal projection of its vectors to 64 numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actors.face_worker import FaceWorker
from models.domain.events import Purpose
from models.domain.face_quality import FaceKind
from models.domain.ids import ChainId, MemberId, MessageId, SessionId, StoreId
from models.domain.messages import FaceOutcome, SealedTemplate, TemplateKind
from models.domain.recognition import (
    ConsentToken,
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    GalleryDelta,
    GalleryRow,
    IdentifyRequest,
    RescoreRequest,
    ShotRequest,
)
from models.faces.catalogue import NetEntry, load_catalogue, published_file, recognisers
from models.faces.templates import Keyring, TemplateVault
from runtime.faces import build_face_worker

pytestmark = pytest.mark.faces

CHAIN, STORE, VISIT = ChainId("chain"), StoreId("s1"), SessionId("visit")
KEY = b"v" * 32
CONSENT = ConsentToken(Purpose.RECOGNISE, VISIT, MessageId("granted"))
ENROL = EnrolConsent(Purpose.RECOGNISE, VISIT, MessageId("granted"), MessageId("member"))
VAULT = TemplateVault(Keyring.of_one(b"k" * 32))
OLD = recognisers(load_catalogue())[0]
MEMBER = MemberId("m-1")
PERSON = "Gerhard_Schroeder"


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> NetEntry:
    """SFace and a head of 64 numbers."""
    path = tmp_path_factory.mktemp("nets") / "sface-64.onnx"
    net = onnx.load(str(published_file(OLD)))
    basis, _ = np.linalg.qr(np.random.default_rng(64).normal(size=(128, 128)))
    net.graph.initializer.append(numpy_helper.from_array(basis[:, :64].astype(np.float32), "head"))
    net.graph.node.append(helper.make_node("MatMul", [net.graph.output[0].name, "head"], ["short"]))
    del net.graph.output[:]
    net.graph.output.append(helper.make_tensor_value_info("short", TensorProto.FLOAT, [1, 64]))
    onnx.save(net, str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return dataclasses.replace(
        OLD, name="sface-64", carrier=path, sha256=digest, dimension=64, default=False, thresholds=((1, 0.5), (10, 0.6))
    )


@pytest.fixture(scope="module")
def catalogue(new: NetEntry) -> tuple[NetEntry, ...]:
    return (*load_catalogue(), new)


@pytest.fixture(scope="module")
def old_row(cache_dir: Path, catalogue: tuple[NetEntry, ...], lfw10: Path) -> GalleryRow:
    """The member's template of the old net."""
    worker = worker_of(cache_dir, catalogue, OLD.name)
    images = shots(lfw10, PERSON)[1:]
    taken = (worker.shoot(ShotRequest(VISIT, "s", image, FaceKind.FRAME, KEY), ENROL).sealed for image in images)
    sealed: list[bytes] = []
    for one in taken:
        sealed += [one] if one is not None else []
        if len(sealed) >= 3:
            asked = EnrolRequest(VISIT, "e", CHAIN, MEMBER, "t-1", tuple(sealed[-3:]), KEY)
            answer = worker.enrol(asked, ENROL)
            if answer.outcome is FaceOutcome.ENROLLED:
                return row_of(answer.templates[0])
    raise AssertionError("no three shots agree")


def worker_of(
    cache_dir: Path, catalogue: tuple[NetEntry, ...], net: str, in_use: Collection[str] = (), *, adaptive: bool = False
) -> FaceWorker:
    return build_face_worker(
        cache_dir, VAULT, policy="demo", recogniser=net, in_use=in_use, catalogue=catalogue, adaptive=adaptive
    )


def row_of(sealed: SealedTemplate) -> GalleryRow:
    return GalleryRow(sealed.template, sealed.key, CHAIN, STORE, "1234")


def shots(lfw10: Path, person: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((lfw10 / person).glob("*.jpg"))]


def probe(worker: FaceWorker, image: bytes, *, digits_required: bool = False) -> FaceAnswer:
    asked = IdentifyRequest(VISIT, "q", CHAIN, STORE, image, FaceKind.FRAME, KEY, digits_required=digits_required)
    return worker.identify(asked, CONSENT)


def test_a_change_of_nets_from_visit_to_visit(
    cache_dir: Path, catalogue: tuple[NetEntry, ...], new: NetEntry, old_row: GalleryRow, lfw10: Path
) -> None:
    images = shots(lfw10, PERSON)
    assert old_row.template.net_sha256 == OLD.identity
    # The chain's net changes. A worker that knows nothing of the old one knows nobody.
    ignorant = worker_of(cache_dir, catalogue, new.name)
    report = ignorant.galleries.load(CHAIN, 1, [old_row])
    assert report.skipped == {"other_net": 1}
    assert probe(ignorant, images[0]).outcome is FaceOutcome.NOT_RECOGNISED
    # One that opens it while templates are of it recognises the member by it, and makes a template of the new net.
    worker = worker_of(cache_dir, catalogue, new.name, {OLD.identity, "f" * 64})
    for net in worker.nets.every:
        net.galleries.load(CHAIN, 1, [old_row])
    assert worker.health().older_nets == {OLD.identity: 1}
    visit = probe(worker, images[0])
    assert (visit.outcome, visit.member) == (FaceOutcome.ACCEPTED, MEMBER)
    assert visit.decision is not None
    assert visit.decision.net_sha256 == OLD.identity
    (migrated,) = visit.templates
    assert (migrated.template.net_sha256, migrated.template.kind) == (new.identity, TemplateKind.MIGRATED)
    assert len(VAULT.open_template(migrated.template, migrated.key)) == 64 * 4
    assert probe(worker, images[0]).templates[0].template.id == migrated.template.id, "the same question, the same id"
    # Once it is committed and the old one is gone, the new net alone is enough, and the old one is closed.
    for net in worker.nets.every:
        net.galleries.forget(CHAIN, MEMBER)
        net.galleries.load(CHAIN, 2, [row_of(migrated)])
    assert worker.nets.retire({new.identity}) == (OLD.identity,)
    again = probe(worker, images[0])
    assert (again.outcome, again.member, again.templates) == (FaceOutcome.ACCEPTED, MEMBER, ())
    assert again.decision is not None
    assert again.decision.net_sha256 == new.identity
    assert again.decision.threshold_ppm == 530_103, "by the new net's own thresholds, two places sharing the budget"


def test_an_empty_gallery_takes_the_first_template_of_its_net(
    cache_dir: Path, catalogue: tuple[NetEntry, ...], old_row: GalleryRow
) -> None:
    """A net that nobody is enrolled with yet is loaded empty, at the version of the others' templates."""
    galleries = worker_of(cache_dir, catalogue, OLD.name).galleries
    galleries.load(CHAIN, 41, [])
    assert galleries.version(CHAIN) == 41
    galleries.apply_deltas(GalleryDelta(CHAIN, 41, 41, (old_row,), (MEMBER,)))
    assert galleries.counts() == {CHAIN: 1}


def test_digits_and_adaptive_templates(
    cache_dir: Path, catalogue: tuple[NetEntry, ...], new: NetEntry, old_row: GalleryRow, lfw10: Path
) -> None:
    images = shots(lfw10, PERSON)
    worker = worker_of(cache_dir, catalogue, new.name, {OLD.identity}, adaptive=True)
    for net in worker.nets.every:
        net.galleries.load(CHAIN, 1, [old_row])
    asked = probe(worker, images[0], digits_required=True)
    assert asked.outcome is FaceOutcome.DIGITS
    assert asked.templates == (), "nobody was recognised yet"
    assert asked.sealed is not None
    request = RescoreRequest(VISIT, "digits", CHAIN, asked.sealed, KEY, "1234", STORE)
    accepted = worker.rescore(request, CONSENT)
    assert (accepted.outcome, accepted.member) == (FaceOutcome.ACCEPTED, MEMBER)
    (migrated,) = accepted.templates
    assert (migrated.template.net_sha256, migrated.template.kind) == (new.identity, TemplateKind.MIGRATED)
    for net in worker.nets.every:
        net.galleries.forget(CHAIN, MEMBER)
        net.galleries.load(CHAIN, 2, [row_of(migrated)])
    (adaptive,) = worker.rescore(request, CONSENT).templates
    assert (adaptive.template.net_sha256, adaptive.template.kind) == (new.identity, TemplateKind.ADAPTIVE)
    assert probe(worker, images[0]).templates == (), "a face alone changes nothing"


def test_a_stranger_gets_no_template(
    cache_dir: Path, catalogue: tuple[NetEntry, ...], new: NetEntry, old_row: GalleryRow, lfw10: Path
) -> None:
    worker = worker_of(cache_dir, catalogue, new.name, {OLD.identity})
    for net in worker.nets.every:
        net.galleries.load(CHAIN, 1, [old_row])
    strangers = [path.read_bytes() for path in sorted(lfw10.glob("*/*_0001.jpg")) if PERSON not in path.name]
    for answer in [probe(worker, image) for image in strangers[:2]]:
        assert (answer.member, answer.templates) == (None, ())
