from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.face_worker import FaceWorker
from actors.galleries import CHAINS_MAX, Galleries
from models.domain.errors import Refused, RetryLater
from models.domain.events import Purpose
from models.domain.face_quality import (
    PRODUCTION,
    FaceKind,
    LookPurpose,
    LookReason,
    QualityPolicy,
    QualityReport,
)
from models.domain.ids import ChainId, MemberId, MessageId, SessionId, StoreId
from models.domain.liveness import Liveness, LivenessPolicy
from models.domain.messages import FaceOutcome
from models.domain.recognition import (
    ConsentToken,
    Embedding,
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    GalleryDelta,
    GalleryRow,
    IdentifyRequest,
    RecognitionPolicy,
    RescoreRequest,
    SearchScope,
    Seen,
    ShotRequest,
    Unseen,
    threshold,
)
from models.faces.embed import combine, to_embedding, to_vector, unit
from models.faces.gallery import Gallery
from models.faces.rotation import rotation_from
from models.faces.templates import Keyring, TemplateVault

CHAIN, STORE, VISIT = ChainId("chain"), StoreId("s1"), SessionId("visit")
KEY = b"v" * 32
CONSENT = EnrolConsent(Purpose.RECOGNISE, VISIT, MessageId("consent event"), MessageId("membership event"))
QUALITY = QualityReport(1, 0.9, 60, 300, 0, 0, 120)
VAULT = TemplateVault(Keyring.of_one(b"k" * 32))
RNG = np.random.default_rng(3)


def direction() -> Embedding:
    return to_embedding(unit(RNG.normal(size=128).astype(np.float32)))


ROTATION = rotation_from(b"r" * 32)
"""One for every chain: what keeps chains apart is no rotation of theirs."""


def near(one: Embedding, cosine: float) -> Embedding:
    """A unit vector at exactly this cosine."""
    base = to_vector(one).astype(np.float64)
    other = RNG.normal(size=128)
    other -= base * (other @ base)
    other /= np.linalg.norm(other)
    return to_embedding((cosine * base + np.sqrt(1 - cosine**2) * other).astype(np.float32))


class ScriptedEyes:
    """Sees in an image what the test wrote into it: an embedding, or a reason."""

    net_sha256 = "net"

    def __init__(self) -> None:
        self.looked = 0
        self.policy: QualityPolicy | None = None

    def look(self, jpeg: bytes, *, kind: FaceKind, purpose: LookPurpose, policy: QualityPolicy) -> Seen | Unseen:
        self.looked += 1
        self.policy = policy
        if len(jpeg) == 512:
            return Seen(Embedding(jpeg), QUALITY)
        return Unseen(LookReason(jpeg.decode()))

    def combine(self, shots: list[Embedding], agreement_min: float) -> Embedding | tuple[int, ...]:
        return combine(shots, agreement_min)


@pytest.fixture
def eyes() -> ScriptedEyes:
    return ScriptedEyes()


@pytest.fixture
def worker(eyes: ScriptedEyes) -> FaceWorker:
    return FaceWorker(
        eyes,
        VAULT,
        Galleries(VAULT, "net", lambda _: Gallery(128, ROTATION, templates_max=1000)),
        quality=PRODUCTION,
        recognition=RecognitionPolicy(),
    )


LI, WANG, ZHAO = direction(), direction(), direction()


def row(member: str, embedding: Embedding, tail: str = "0000", store: str = "s1", chain: str = "chain") -> GalleryRow:
    sealed = VAULT.make_template(MemberId(member), f"t-{member}", "net", "production", embedding)
    return GalleryRow(sealed.template, sealed.key, ChainId(chain), StoreId(store), tail)


def ask(image: bytes, **more: object) -> IdentifyRequest:
    return replace(IdentifyRequest(VISIT, "q", CHAIN, STORE, image, FaceKind.FRAME, KEY), **more)  # type: ignore[arg-type]


def load(worker: FaceWorker, *rows: GalleryRow, version: int = 1) -> None:
    report = worker.galleries.load(CHAIN, version, rows)
    assert (report.loaded, report.skipped) == (len(rows), {})


def test_nothing_is_looked_at_without_this_visit_s_consent(worker: FaceWorker, eyes: ScriptedEyes) -> None:
    others = (replace(CONSENT, session=SessionId("x")), replace(CONSENT, purpose=Purpose.MARKETING))
    for token in others:
        calls: list[Callable[[EnrolConsent], FaceAnswer]] = [
            lambda t: worker.identify(ask(LI), t),
            lambda t: worker.shoot(ShotRequest(VISIT, "q", LI, FaceKind.FRAME, KEY), t),
            lambda t: worker.rescore(RescoreRequest(VISIT, "q", CHAIN, b"", KEY, "1234"), t),
            lambda t: worker.enrol(EnrolRequest(VISIT, "q", CHAIN, MemberId("m"), "t", (), KEY), t),
        ]
        for call in calls:
            with pytest.raises(Refused) as refused:
                call(token)
            assert refused.value.code == "consent_missing"
    once = replace(CONSENT, membership=MessageId(""))
    not_to_enrol: Any = ConsentToken(Purpose.RECOGNISE, VISIT, MessageId("consent event"))
    pretended: Any = SimpleNamespace(**asdict(CONSENT), check=lambda _session: None)
    refusable: list[Any] = [once, not_to_enrol, pretended, None]
    for unfit in refusable:
        enrolling: list[Callable[[Any], FaceAnswer]] = [
            lambda t: worker.shoot(ShotRequest(VISIT, "q", LI, FaceKind.FRAME, KEY), t),
            lambda t: worker.enrol(EnrolRequest(VISIT, "q", CHAIN, MemberId("m"), "t", (), KEY), t),
        ]
        for enrols in enrolling:
            with pytest.raises(Refused) as refused:
                enrols(unfit)
            assert refused.value.code == "consent_missing"
    assert eyes.looked == 0
    with pytest.raises(TypeError):
        worker.identify(ask(LI))  # type: ignore[call-arg]


def test_a_clear_match_is_accepted_with_its_record(worker: FaceWorker) -> None:
    load(worker, row("li", LI), row("wang", WANG))
    answer = worker.identify(ask(near(LI, 0.7)), CONSENT)
    assert (answer.outcome, answer.member, answer.reason, answer.sealed) == (FaceOutcome.ACCEPTED, "li", "clear", None)
    assert answer.decision is not None
    assert answer.decision.templates_searched == 2
    assert answer.decision.best_ppm == pytest.approx(700_000, abs=50)
    assert (answer.gallery_version, answer.quality, answer.decision.net_sha256) == (1, QUALITY, "net")
    assert pickle.loads(pickle.dumps(answer)) == answer


def test_an_unknown_face_and_an_empty_gallery_are_not_recognised(worker: FaceWorker) -> None:
    empty = worker.identify(ask(LI), CONSENT)
    assert (empty.outcome, empty.reason) == (FaceOutcome.NOT_RECOGNISED, "nobody_enrolled")
    load(worker, row("li", LI))
    unknown = worker.identify(ask(near(LI, 0.30)), CONSENT)
    assert (unknown.outcome, unknown.reason, unknown.member) == (FaceOutcome.NOT_RECOGNISED, "below_floor", None)


def test_digits_score_again_inside_their_bucket(worker: FaceWorker) -> None:
    probe = near(LI, 0.40)
    load(worker, row("li", LI, "1234"), *(row(f"m{n}", direction(), "9999") for n in range(40)))
    asked = worker.identify(ask(probe), CONSENT)
    assert (asked.outcome, asked.reason, asked.member) == (FaceOutcome.DIGITS, "below_threshold", None)
    assert asked.sealed is not None
    assert probe[:16] not in asked.sealed
    request = RescoreRequest(VISIT, "q2", CHAIN, asked.sealed, KEY, "1234")
    right = worker.rescore(request, CONSENT)
    assert (right.outcome, right.member, right.question) == (FaceOutcome.ACCEPTED, "li", "q2")
    assert right.decision is not None
    assert (right.decision.templates_searched, right.decision.threshold_ppm) == (1, 360_000)
    wrong = worker.rescore(replace(request, digits_tail="9999"), CONSENT)
    assert (wrong.outcome, wrong.member) == (FaceOutcome.NOT_RECOGNISED, None)
    nobody = worker.rescore(replace(request, digits_tail="0001"), CONSENT)
    assert (nobody.outcome, nobody.reason) == (FaceOutcome.NOT_RECOGNISED, "nobody_enrolled")
    with_digits = worker.identify(ask(probe, digits_tail="1234"), CONSENT)
    assert (with_digits.outcome, with_digits.member) == (FaceOutcome.ACCEPTED, "li")


@pytest.mark.parametrize("tail", ["", "123", "12345", "12a4", "１２３４", "-123"])
def test_digits_are_four_ascii_digits(worker: FaceWorker, tail: str) -> None:
    with pytest.raises(Refused) as refused:
        worker.identify(ask(LI, digits_tail=tail), CONSENT)
    assert refused.value.code == "bad_digits"


def test_twins_need_digits_and_never_pass_by_them_alone_when_they_share_them(worker: FaceWorker) -> None:
    twin = near(LI, 0.95)
    load(worker, row("li", LI, "1111"), row("twin", twin, "2222"))
    asked = worker.identify(ask(LI), CONSENT)
    assert (asked.outcome, asked.reason) == (FaceOutcome.DIGITS, "thin_margin")
    assert asked.sealed is not None
    request = RescoreRequest(VISIT, "q", CHAIN, asked.sealed, KEY, "1111")
    assert worker.rescore(request, CONSENT).member == "li"
    load(worker, row("li", LI, "1111"), row("twin", twin, "1111"))
    assert worker.rescore(request, CONSENT).reason == "digits_thin_margin"


def test_a_lost_key_or_another_visit_s_probe_is_lost(worker: FaceWorker) -> None:
    load(worker, row("li", LI, "1111"), row("twin", near(LI, 0.95), "2222"))
    sealed = worker.identify(ask(LI), CONSENT).sealed
    assert sealed is not None
    request = RescoreRequest(VISIT, "q", CHAIN, sealed, b"w" * 32, "1111")
    lost = worker.rescore(request, CONSENT)
    assert (lost.outcome, lost.reason, lost.prompt) == (FaceOutcome.LOST, "visit_key_lost", "look_again")
    thief = SessionId("thief")
    other = worker.rescore(replace(request, visit_key=KEY, session=thief), replace(CONSENT, session=thief))
    assert other.outcome is FaceOutcome.LOST
    shot = worker.shoot(ShotRequest(VISIT, "q", LI, FaceKind.FRAME, KEY), CONSENT).sealed
    assert shot is not None
    as_probe = worker.rescore(replace(request, visit_key=KEY, sealed=shot), CONSENT)
    assert as_probe.outcome is FaceOutcome.LOST, "a shot is no probe"


@pytest.mark.parametrize(
    ("reason", "outcome", "prompt"),
    [
        ("too_dark", FaceOutcome.QUALITY, "more_light"),
        ("no_face", FaceOutcome.QUALITY, "come_closer"),
        ("several_faces", FaceOutcome.QUALITY, "several_faces"),
        ("corrupt_jpeg", FaceOutcome.LOST, "look_again"),
        ("too_large", FaceOutcome.LOST, "look_again"),
    ],
)
def test_a_bad_image_says_what_to_do(worker: FaceWorker, reason: str, outcome: FaceOutcome, prompt: str) -> None:
    for answer in (
        worker.identify(ask(reason.encode()), CONSENT),
        worker.shoot(ShotRequest(VISIT, "q", reason.encode(), FaceKind.FRAME, KEY), CONSENT),
    ):
        assert (answer.outcome, answer.reason, answer.prompt, answer.sealed) == (outcome, reason, prompt, None)
    assert worker.health().answers == {f"{outcome.value}:{reason}": 2}


def test_who_was_asked_to_take_off_a_mask_is_taken_as_seen(worker: FaceWorker, eyes: ScriptedEyes) -> None:
    request = ShotRequest(VISIT, "q", LI, FaceKind.FRAME, KEY)
    for asked in (False, True):
        worker.shoot(replace(request, mask_asked=asked), CONSENT)
        assert eyes.policy is not None
        assert (LookReason.MASK in eyes.policy.enrol.may_hide) is asked
        assert LookReason.SUNGLASSES not in eyes.policy.enrol.may_hide


def shots(worker: FaceWorker, *images: Embedding) -> tuple[bytes, ...]:
    taken: list[bytes] = []
    for image in images:
        answer = worker.shoot(ShotRequest(VISIT, "q", image, FaceKind.FRAME, KEY), CONSENT)
        assert answer.outcome is FaceOutcome.SHOT_TAKEN
        assert answer.sealed is not None
        taken.append(answer.sealed)
    return tuple(taken)


def enrol(worker: FaceWorker, sealed: tuple[bytes, ...], member: str = "zhao") -> FaceAnswer:
    return worker.enrol(EnrolRequest(VISIT, "q", CHAIN, MemberId(member), "t1", sealed, KEY), CONSENT)


def test_three_shots_become_a_sealed_template_that_a_delta_makes_searchable(worker: FaceWorker) -> None:
    load(worker, row("li", LI))
    answer = enrol(worker, shots(worker, *(near(ZHAO, 0.9) for _ in range(3))))
    assert answer.outcome is FaceOutcome.ENROLLED
    (sealed,) = answer.templates
    template = sealed.template
    assert (template.member, template.id, template.net_sha256, template.policy) == ("zhao", "t1", "net", "production")
    assert answer.lookalike is None
    before = worker.identify(ask(near(ZHAO, 0.8)), CONSENT)
    assert before.outcome is FaceOutcome.NOT_RECOGNISED, "not searchable before its commit"
    worker.galleries.apply_deltas(GalleryDelta(CHAIN, 1, 2, (GalleryRow(template, sealed.key, CHAIN, STORE, "5555"),)))
    after = worker.identify(ask(near(ZHAO, 0.8)), CONSENT)
    assert (after.outcome, after.member, after.gallery_version) == (FaceOutcome.ACCEPTED, "zhao", 2)


def test_shots_that_disagree_say_which_to_keep(worker: FaceWorker) -> None:
    answer = enrol(worker, shots(worker, near(ZHAO, 0.9), WANG, near(ZHAO, 0.9)))
    assert (answer.outcome, answer.shots_kept, answer.templates) == (FaceOutcome.SHOTS_DISAGREE, (0, 2), ())
    with pytest.raises(Refused) as refused:
        enrol(worker, shots(worker, ZHAO, ZHAO))
    assert refused.value.code == "shots_missing"
    lost = enrol(worker, (b"junk", b"", b"\x00" * 600))
    assert lost.outcome is FaceOutcome.LOST


def test_a_face_that_is_enrolled_already_is_pointed_out(worker: FaceWorker) -> None:
    load(worker, row("li", LI))
    again = shots(worker, *(near(LI, 0.95) for _ in range(3)))
    assert enrol(worker, again, "new name").lookalike == "li"
    assert enrol(worker, again, "li").lookalike is None


def test_the_store_s_own_members_come_first(worker: FaceWorker) -> None:
    """Sixty members of another store raise the threshold; the store's own gallery has a lower one."""
    elsewhere = [row(f"m{n}", direction(), store="s2") for n in range(60)]
    load(worker, row("li", LI, store="s1"), *elsewhere)
    probe = near(LI, 0.45)
    whole = worker.identify(ask(probe, scopes=(SearchScope.REGION,)), CONSENT)
    assert (whole.outcome, whole.reason) == (FaceOutcome.DIGITS, "below_threshold")
    nearest = worker.identify(ask(probe, scopes=(SearchScope.STORE, SearchScope.REGION)), CONSENT)
    assert (nearest.outcome, nearest.member) == (FaceOutcome.ACCEPTED, "li")
    assert nearest.decision is not None
    assert nearest.decision.templates_searched == 1
    visitor = worker.identify(
        ask(near(LI, 0.7), store=StoreId("s9"), scopes=(SearchScope.STORE, SearchScope.REGION)), CONSENT
    )
    assert (visitor.outcome, visitor.member) == (FaceOutcome.ACCEPTED, "li")


def test_looks_share_one_budget_and_a_wider_one_is_made_only_where_it_can_help(worker: FaceWorker) -> None:
    load(worker, row("li", LI, store="s1"), *(row(f"m{n}", direction(), store="s2") for n in range(99)))
    both = (SearchScope.STORE, SearchScope.REGION)
    clear = worker.identify(ask(near(LI, 0.9), scopes=both), CONSENT).decision
    assert clear is not None
    assert (clear.scope, clear.looks, clear.templates_searched) == ("store", 2, 1)
    assert clear.threshold_ppm == round(threshold(2) * 1e6)
    unclear = worker.identify(ask(near(LI, 0.37), scopes=both), CONSENT).decision
    assert unclear is not None
    assert (unclear.scope, unclear.templates_searched) == ("region", 100), "the store's own are counted once"
    assert unclear.threshold_ppm == round(threshold(200) * 1e6)
    limited = ask(near(LI, 0.9), scopes=both, amount_fen=501, liveness=LivenessPolicy(face_alone_max_fen=500))
    dear = worker.identify(limited, CONSENT)
    assert (dear.outcome, dear.reason) == (FaceOutcome.DIGITS, "amount_limit")
    assert dear.decision is not None
    assert dear.decision.scope == "store", "a wider look would change nothing"


def test_the_chain_is_searched_among_the_digits_only(worker: FaceWorker) -> None:
    load(worker, row("li", LI, "1234"))
    scopes = (SearchScope.STORE, SearchScope.REGION, SearchScope.CHAIN)
    stranger = worker.identify(ask(direction(), scopes=scopes), CONSENT)
    assert (stranger.outcome, stranger.reason) == (FaceOutcome.DIGITS, "elsewhere")
    known = worker.identify(ask(LI, scopes=(SearchScope.CHAIN,)), CONSENT)
    assert known.decision is not None
    assert (known.outcome, known.decision.scope) == (FaceOutcome.ACCEPTED, "region")
    named = worker.identify(ask(LI, scopes=scopes, digits_tail="1234"), CONSENT)
    assert named.decision is not None
    assert (named.decision.scope, named.decision.looks, named.decision.digits_given) == ("chain", 1, True)


def test_what_was_seen_of_liveness_is_recorded_after_digits_too(worker: FaceWorker) -> None:
    load(worker, row("li", LI, "1234"))
    asked = worker.identify(ask(LI, liveness=LivenessPolicy(required=True)), CONSENT)
    assert (asked.outcome, asked.reason) == (FaceOutcome.DIGITS, "liveness_in_doubt")
    assert asked.sealed is not None
    said = worker.rescore(RescoreRequest(VISIT, "q2", CHAIN, asked.sealed, KEY, "1234"), CONSENT)
    assert (said.outcome, said.member) == (FaceOutcome.ACCEPTED, "li")
    assert said.decision is not None
    assert said.decision.liveness is Liveness.IN_DOUBT


def test_a_worker_behind_the_commits_never_accepts_silently(worker: FaceWorker) -> None:
    load(worker, row("li", LI, "1234"), version=5)
    behind = worker.identify(ask(LI, gallery_version_min=6), CONSENT)
    assert (behind.outcome, behind.reason) == (FaceOutcome.DIGITS, "partial")
    assert worker.identify(ask(LI, gallery_version_min=5), CONSENT).outcome is FaceOutcome.ACCEPTED


def test_deltas_apply_once_in_order_and_say_when_one_is_missing(worker: FaceWorker) -> None:
    load(worker, row("li", LI, "1234"))
    step = GalleryDelta(CHAIN, 1, 2, (row("wang", WANG),), (MemberId("li"),))
    assert worker.galleries.apply_deltas(step).loaded == 1
    assert worker.galleries.apply_deltas(step).loaded == 0, "the same again changes nothing"
    assert worker.identify(ask(LI), CONSENT).outcome is FaceOutcome.NOT_RECOGNISED
    assert worker.identify(ask(LI, digits_tail="1234"), CONSENT).reason == "nobody_enrolled"
    with pytest.raises(RetryLater) as behind:
        worker.galleries.apply_deltas(GalleryDelta(CHAIN, 3, 4))
    assert behind.value.code == "gallery_behind"
    assert worker.health().versions == {"chain": 2}
    moved = worker.galleries.apply_deltas(GalleryDelta(CHAIN, 2, 3, (row("wang", WANG, "7777", "s2"),)))
    assert (moved.version, worker.health().templates) == (3, {"chain": 1})
    assert worker.identify(ask(WANG, digits_tail="0000"), CONSENT).reason == "nobody_enrolled"
    assert worker.identify(ask(WANG, digits_tail="7777"), CONSENT).member == "wang"


def test_a_first_delta_from_the_beginning_is_a_load(worker: FaceWorker) -> None:
    assert worker.galleries.apply_deltas(GalleryDelta(CHAIN, 0, 1, (row("li", LI),))).loaded == 1
    assert worker.identify(ask(LI), CONSENT).member == "li"


def test_one_bad_row_does_not_close_the_shop(worker: FaceWorker) -> None:
    good, torn, foreign = row("li", LI), row("wang", WANG), row("zhao", ZHAO)
    short = row("short", Embedding(b"\x00" * 512))
    report = worker.galleries.load(
        CHAIN,
        1,
        [
            good,
            replace(torn, key=replace(torn.key, wrapped=b"")),
            replace(foreign, template=replace(foreign.template, net_sha256="old net")),
            row("other", ZHAO, chain="other chain"),
            short,
        ],
    )
    assert report.loaded == 1
    assert report.skipped == {"template_sealed": 1, "other_net": 1, "other_chain": 1, "no_template": 1}
    assert worker.identify(ask(LI), CONSENT).member == "li"


def test_chains_never_meet(worker: FaceWorker) -> None:
    load(worker, row("li", LI))
    other = worker.identify(ask(LI, chain=ChainId("other")), CONSENT)
    assert other.reason == "nobody_enrolled"
    for n in range(CHAINS_MAX - 1):
        worker.galleries.load(ChainId(f"c{n}"), 1, [])
    with pytest.raises(RetryLater) as full:
        worker.galleries.load(ChainId("one too many"), 1, [])
    assert full.value.code == "chains_full"


def test_who_is_forgotten_is_gone(worker: FaceWorker) -> None:
    load(worker, row("li", LI, "1234"), row("wang", WANG))
    assert worker.galleries.forget(CHAIN, MemberId("li")) == 1
    assert worker.galleries.forget(CHAIN, MemberId("li")) == 0
    assert worker.galleries.forget(ChainId("nowhere"), MemberId("li")) == 0
    assert worker.identify(ask(LI), CONSENT).member is None
    assert worker.identify(ask(LI, digits_tail="1234"), CONSENT).reason == "nobody_enrolled"
    assert worker.health().templates == {"chain": 1}


def test_a_failed_liveness_is_a_veto_and_leaves_no_probe(eyes: ScriptedEyes) -> None:
    worker = FaceWorker(
        eyes,
        VAULT,
        Galleries(VAULT, "net", lambda _: Gallery(128, ROTATION)),
        quality=PRODUCTION,
        recognition=RecognitionPolicy(liveness=LivenessPolicy(required=True)),
    )
    load(worker, row("li", LI))
    vetoed = worker.identify(ask(LI, liveness_ppm=100_000), CONSENT)
    assert (vetoed.outcome, vetoed.reason, vetoed.sealed) == (FaceOutcome.NOT_RECOGNISED, "liveness_failed", None)
    assert worker.identify(ask(LI), CONSENT).reason == "liveness_in_doubt"
    assert worker.identify(ask(LI, liveness_ppm=900_000), CONSENT).member == "li"
