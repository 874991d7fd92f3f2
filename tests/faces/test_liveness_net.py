"""An anti-spoofing net of a chain's own, from two files in the catalogue's folder to the decision and its reason."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from actors.face_worker import FaceWorker
from models.domain.device_score import DeviceScore
from models.domain.events import Purpose
from models.domain.face_quality import PRODUCTION, FaceKind, LookPurpose
from models.domain.ids import ChainId, MemberId, MessageId, SessionId, StoreId
from models.domain.liveness import Challenge, Liveness, LivenessPolicy
from models.domain.messages import FaceOutcome
from models.domain.recognition import ConsentToken, FaceAnswer, IdentifyRequest, Seen
from models.faces.catalogue import CATALOGUE_DIR, load_catalogue
from models.faces.nets import Nets
from models.faces.pipeline import FacePipeline
from models.faces.templates import Keyring, TemplateVault
from runtime.faces import build_face_worker
from tests.faces.test_liveness import brightness_net
from tests.faces.test_several_nets import row_of

pytestmark = pytest.mark.faces

CHAIN, STORE, VISIT = ChainId("chain"), StoreId("s1"), SessionId("visit")
KEY = b"v" * 32
CONSENT = ConsentToken(Purpose.RECOGNISE, VISIT, MessageId("granted"))
VAULT = TemplateVault(Keyring.of_one(b"k" * 32))
POLICY = LivenessPolicy(face_alone_max_fen=1_000)


def lit(portrait: bytes, by: int) -> bytes:
    """The portrait with more blue or less: all that the net looks at, and nothing that a person is known by."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR), np.int32)
    pixels[:, :, 0] = np.clip(pixels[:, :, 0] + by, 0, 255)
    return bytes(cv2.imencode(".jpg", pixels.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


@pytest.fixture(scope="module")
def worker(cache_dir: Path, nets: Nets, portrait: bytes, tmp_path_factory: pytest.TempPathFactory) -> FaceWorker:
    """The catalogue as it is delivered, and the two files that a chain adds to it."""
    folder = tmp_path_factory.mktemp("catalogue") / "faces"
    shutil.copytree(CATALOGUE_DIR, folder)
    brightness_net(folder)
    made = build_face_worker(cache_dir, VAULT, catalogue=load_catalogue(folder))
    seen = FacePipeline(nets).look(portrait, kind=FaceKind.FRAME, purpose=LookPurpose.PROBE, policy=PRODUCTION)
    assert isinstance(seen, Seen)
    sealed = VAULT.make_template(MemberId("m-1"), "t-1", nets.recogniser_sha256, "production", seen.embedding)
    made.galleries.load(CHAIN, 1, [row_of(sealed)])
    return made


def ask(worker: FaceWorker, image: bytes, **how: object) -> FaceAnswer:
    request = IdentifyRequest(VISIT, "q", CHAIN, STORE, image, FaceKind.FRAME, KEY, liveness=POLICY)
    return worker.identify(replace(request, **how), CONSENT)  # type: ignore[arg-type]


def test_the_net_s_veto_beats_a_signed_score_and_the_amount(worker: FaceWorker, portrait: bytes) -> None:
    alive, picture = lit(portrait, 100), lit(portrait, -200)
    signed = {"liveness_ppm": 990_000, "device_score": DeviceScore.SIGNED}
    passed = ask(worker, alive, **signed)
    assert (passed.outcome, passed.member, passed.reason) == (FaceOutcome.ACCEPTED, "m-1", "clear")
    for how in ({}, signed, signed | {"amount_fen": 1_001}, {"digits_required": True}, {"digits_tail": "1234"}):
        vetoed = ask(worker, picture, **how)
        assert (vetoed.outcome, vetoed.reason, vetoed.sealed) == (FaceOutcome.NOT_RECOGNISED, "liveness_failed", None)
        assert vetoed.decision is not None
        assert vetoed.decision.liveness is Liveness.FAILED
    assert ask(worker, alive, liveness_ppm=10_000).reason == "liveness_failed", "and the device's beats the net's pass"


def test_above_the_amount_a_face_that_is_alive_needs_digits(worker: FaceWorker, portrait: bytes) -> None:
    alive = lit(portrait, 100)
    assert ask(worker, alive, amount_fen=1_000).outcome is FaceOutcome.ACCEPTED
    above = ask(worker, alive, amount_fen=1_001, challenge=Challenge())
    assert (above.outcome, above.reason) == (FaceOutcome.DIGITS, "amount_limit")
