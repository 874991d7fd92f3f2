"""The face worker: sees, searches, decides, enrols, forgets. One process, one thread; no frame outlives a call.

A plain class: eyes, gallery and vault are ports, so that it runs in a test as it runs in a cluster. Every verb
that sees a face takes a consent token. What is not the caller's fault comes back as an answer, never raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actors.face_liveness import Weighed, first_frame, may_turn, weigh
from actors.face_ports import Eyes, Vault
from actors.galleries import Galleries
from actors.several_nets import OneNet, Searched, SeveralNets
from models.domain.device_score import DeviceScore
from models.domain.errors import Refused
from models.domain.face_quality import IMAGE_FAULTS, PROMPTS, LookPurpose, LookReason, QualityPolicy, covered
from models.domain.ids import MemberId
from models.domain.liveness import Liveness, LivenessPolicy
from models.domain.messages import FaceOutcome, SealedTemplate
from models.domain.nets import NetDecision, pack, unpack
from models.domain.recognition import (
    COVERED_LOOKS,
    DIGITS_LENGTH,
    Accepted,
    ConsentToken,
    Decision,
    Embedding,
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    IdentifyRequest,
    NeedsDigits,
    NotRecognised,
    RecognitionPolicy,
    RescoreRequest,
    SearchScope,
    Seen,
    ShotRequest,
    Unseen,
    decide,
)

PROBE, SHOT = "probe", "shot"
"""Kinds of sealed blobs: one can never be passed off as the other."""


@dataclass(frozen=True, slots=True)
class FaceHealth:
    """A snapshot. `answers` counts by outcome and reason since the start; `versions` by chain."""

    net_sha256: str
    policy: str
    templates: dict[str, int]
    versions: dict[str, int]
    answers: dict[str, int]
    older_nets: dict[str, int] = field(default_factory=dict)
    """Templates by older net."""


class FaceWorker:
    """Business verbs over ports. Not for several threads: the runtime makes it an actor with one."""

    def __init__(
        self,
        eyes: Eyes,
        vault: Vault,
        galleries: Galleries,
        *,
        quality: QualityPolicy,
        recognition: RecognitionPolicy,
        older: Sequence[OneNet] = (),
        adaptive: bool = False,
    ) -> None:
        """`older`: nets that the chain's members may still be enrolled with; `adaptive`: see models.domain.nets."""
        self._eyes = eyes
        self._vault = vault
        self.galleries = galleries
        self.nets = SeveralNets(OneNet(galleries, recognition), older, adaptive=adaptive)
        self._quality = quality
        self._recognition = recognition
        self._answers: Counter[str] = Counter()

    # ------------------------------------------------------------ the customer's verbs

    def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer:
        """Who is it? Accepted, digits (with the sealed probe), not recognised, look again, or lost.

        Raises Refused `consent_missing` before the image is touched, and `bad_digits` for a tail that is none.
        """
        ConsentToken.check(consent, request.session)
        tail = None if request.digits_tail is None else _checked_tail(request.digits_tail)
        if request.device_score is not DeviceScore.NONE:
            self._answers[f"liveness:score_{request.device_score.value}"] += 1
        seen = self._eyes.look(request.jpeg, kind=request.kind, purpose=LookPurpose.PROBE, policy=self._quality)
        if isinstance(seen, Unseen):
            return self._look_again(request, seen)
        hidden = covered(seen.quality)
        probes: Mapping[str, Embedding] = {self._eyes.net_sha256: seen.embedding, **dict(seen.older)}
        policy = request.liveness or self._recognition.liveness
        try:
            alive = weigh(self._vault, request, seen, probes, policy)
        except Refused as gone:
            return self._lost(request, gone)
        probes, decision = alive.probes, None
        looks = _looks(request, tail)
        for scope in looks:
            found = self._search(request, scope, probes, tail)
            said = self.nets.decide(
                found,
                scope=scope,
                looks=len(looks) * (1 if hidden is None else COVERED_LOOKS),
                liveness=alive.liveness,
                device_score=request.device_score,
                partial=found.partial or found.version < request.gallery_version_min,
                digits_given=tail is not None,
                digits_required=request.digits_required,
                amount_fen=request.amount_fen,
                face_alone_max_fen=policy.face_alone_max_fen,
                elsewhere=SearchScope.CHAIN in request.scopes,
            )
            decision = said.decision
            if isinstance(decision.match, Accepted):
                self.nets.visited(request.chain, request.store, decision.match.member)
            if not decision.wider_may_help:
                break
        assert decision is not None, "there is always one place to look"
        if may_turn(request, decision, policy):
            return self._ask_to_turn(request, decision, seen, alive, policy)
        vetoed = alive.liveness is Liveness.FAILED
        if isinstance(decision.match, NotRecognised) and hidden is not None and not vetoed:
            # What a mask hides is no evidence of a stranger; what was seen of a picture is evidence of one.
            return self._look_again(request, Unseen(hidden, seen.quality), decision)
        sealed = None
        if isinstance(decision.match, NeedsDigits):
            known = _sealable(alive.liveness, request.device_score, probes)
            sealed = self._vault.seal(request.visit_key, request.session, PROBE, known)
        made = self._upkeep(request, said, probes, second_factor=tail is not None)
        return self._decided(request, decision, found.version, seen, sealed, made)

    def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer:
        """The sealed probe against the members whose phone ends in the digits, with t of the bucket's size.

        Accepted or not recognised; lost when the blob does not open under this visit's key. Raises Refused
        `consent_missing` or `bad_digits`.
        """
        ConsentToken.check(consent, request.session)
        tail = _checked_tail(request.digits_tail)
        try:
            opened = self._vault.open(request.visit_key, request.session, PROBE, request.sealed)
            liveness, device_score, probes = _unsealed(opened)
        except Refused as gone:
            return self._lost(request, gone)
        found = self.nets.search(probes, lambda galleries, probe: galleries.in_bucket(request.chain, tail, probe))
        said = self.nets.decide(
            found,
            scope=SearchScope.CHAIN,
            liveness=liveness,
            device_score=device_score,
            partial=found.partial,
            digits_given=True,
        )
        made = self._upkeep(request, said, probes, second_factor=True)
        return self._decided(request, said.decision, found.version, None, None, made)

    def shoot(self, request: ShotRequest, consent: EnrolConsent) -> FaceAnswer:
        """One enrolment shot: its quality and the embedding sealed under the visit's key, or look again."""
        EnrolConsent.check(consent, request.session)
        policy = self._quality.mask_asked if request.mask_asked else self._quality
        seen = self._eyes.look(request.jpeg, kind=request.kind, purpose=LookPurpose.ENROL, policy=policy)
        if isinstance(seen, Unseen):
            return self._look_again(request, seen)
        sealed = self._vault.seal(request.visit_key, request.session, SHOT, seen.embedding)
        return self._count(
            FaceAnswer(
                request.session,
                request.question,
                FaceOutcome.SHOT_TAKEN,
                sealed=sealed,
                quality=seen.quality,
                reason="good",
            )
        )

    def enrol(self, request: EnrolRequest, consent: EnrolConsent) -> FaceAnswer:
        """The member's template from this visit's shots: a sealed row, or which shots still agree.

        The gallery does not change: the row is searchable once its commit comes back as a delta. Raises Refused
        `consent_missing`, and `shots_missing` when the count is not the policy's.
        """
        EnrolConsent.check(consent, request.session)
        if len(request.shots) != self._quality.shots:
            raise Refused(
                "shots_missing",
                f"{len(request.shots)} shots, {self._quality.shots} are needed",
                "look at the camera again",
            )
        try:
            shots = [
                Embedding(self._vault.open(request.visit_key, request.session, SHOT, blob)) for blob in request.shots
            ]
        except Refused as gone:
            return self._lost(request, gone)
        mean = self._eyes.combine(shots, self._quality.agreement_min)
        if isinstance(mean, tuple):
            return self._count(
                FaceAnswer(
                    request.session,
                    request.question,
                    FaceOutcome.SHOTS_DISAGREE,
                    reason="shots_disagree",
                    prompt="look_again",
                    shots_kept=mean,
                )
            )
        found = self.galleries.in_region(request.chain, mean)
        double = decide(found.result, self._recognition, net_sha256=self._eyes.net_sha256).match
        lookalike = double.member if isinstance(double, Accepted) and double.member != request.member else None
        sealed = self._vault.make_template(
            request.member, request.template_id, self._eyes.net_sha256, self._quality.name, mean
        )
        return self._count(
            FaceAnswer(
                request.session,
                request.question,
                FaceOutcome.ENROLLED,
                member=request.member,
                templates=(sealed,),
                lookalike=lookalike,
                gallery_version=found.version,
                reason="enrolled",
            )
        )

    def health(self) -> FaceHealth:
        """Counts only: no member, no score."""
        return FaceHealth(
            net_sha256=self._eyes.net_sha256,
            policy=self._quality.name,
            templates=dict(self.galleries.counts().items()),
            versions=dict(self.galleries.versions().items()),
            answers=dict(self._answers),
            older_nets={net.net_sha256: sum(net.galleries.counts().values()) for net in self.nets.every[1:]},
        )

    # ------------------------------------------------------------ inside

    def _search(
        self, request: IdentifyRequest, scope: SearchScope, probes: Mapping[str, Embedding], tail: str | None
    ) -> Searched:
        """What one place to look has, by every net. A wider place holds the nearer ones: N counts nobody twice."""
        chain, store = request.chain, request.store
        if tail is not None:
            return self.nets.search(probes, lambda galleries, probe: galleries.in_bucket(chain, tail, probe))
        if scope is SearchScope.STORE:
            return self.nets.search(probes, lambda galleries, probe: galleries.in_store(chain, store, probe))
        return self.nets.search(probes, lambda galleries, probe: galleries.in_region(chain, probe))

    def _upkeep(
        self,
        request: IdentifyRequest | RescoreRequest,
        said: NetDecision,
        probes: Mapping[str, Embedding],
        *,
        second_factor: bool,
    ) -> tuple[SealedTemplate, ...]:
        return self.nets.upkeep(
            self._vault,
            said,
            probes,
            request.chain,
            request.question,
            self._quality.name,
            second_factor=second_factor,
        )

    def _ask_to_turn(
        self,
        request: IdentifyRequest,
        decision: Decision,
        seen: Seen,
        alive: Weighed,
        policy: LivenessPolicy,
    ) -> FaceAnswer:
        first = first_frame(self._vault, request, seen, alive, policy)
        side = request.challenge.following
        if first is None or side is None:
            return self._look_again(request, Unseen(LookReason.LOOK_STRAIGHT, seen.quality), decision)
        return self._count(
            FaceAnswer(
                request.session,
                request.question,
                FaceOutcome.CHALLENGE,
                reason=side.value,
                sealed=first,
                quality=seen.quality,
                decision=decision.record,
            )
        )

    def _lost(self, request: IdentifyRequest | RescoreRequest | EnrolRequest, why: Refused) -> FaceAnswer:
        return self._count(
            FaceAnswer(request.session, request.question, FaceOutcome.LOST, reason=why.code, prompt="look_again")
        )

    def _look_again(
        self, request: IdentifyRequest | ShotRequest, unseen: Unseen, decision: Decision | None = None
    ) -> FaceAnswer:
        outcome = FaceOutcome.LOST if unseen.reason in IMAGE_FAULTS else FaceOutcome.QUALITY
        return self._count(
            FaceAnswer(
                request.session,
                request.question,
                outcome,
                reason=unseen.reason.value,
                prompt=PROMPTS[unseen.reason],
                quality=unseen.quality,
                decision=decision.record if decision is not None else None,
            )
        )

    def _decided(
        self,
        request: IdentifyRequest | RescoreRequest,
        decision: Decision,
        version: int,
        seen: Seen | None,
        sealed: bytes | None,
        made: tuple[SealedTemplate, ...] = (),
    ) -> FaceAnswer:
        who: MemberId | None = None
        match decision.match:
            case Accepted(member=member):
                outcome, who, prompt = FaceOutcome.ACCEPTED, member, ""
            case NeedsDigits():
                outcome, prompt = FaceOutcome.DIGITS, "ask_digits"
            case NotRecognised():
                outcome, prompt = FaceOutcome.NOT_RECOGNISED, "not_recognised"
        return self._count(
            FaceAnswer(
                request.session,
                request.question,
                outcome,
                member=who,
                reason=decision.record.reason,
                prompt=prompt,
                sealed=sealed,
                quality=seen.quality if seen else None,
                decision=decision.record,
                templates=made,
                gallery_version=version,
            )
        )

    def _count(self, answer: FaceAnswer) -> FaceAnswer:
        self._answers[f"{answer.outcome.value}:{answer.reason}"] += 1
        return answer


def _looks(request: IdentifyRequest, tail: str | None) -> tuple[SearchScope, ...]:
    """Where to look, nearest first. The chain is searched inside the bucket of the digits, and nowhere else."""
    if tail is not None:
        return (SearchScope.CHAIN,)
    return tuple(scope for scope in request.scopes if scope is not SearchScope.CHAIN) or (SearchScope.REGION,)


def _sealable(liveness: Liveness, device_score: DeviceScore, probes: Mapping[str, Embedding]) -> bytes:
    """A probe and what was seen of its liveness: the decision after digits records it too."""
    return f"{liveness.value} {device_score.value}\0".encode() + pack(probes)


def _unsealed(opened: bytes) -> tuple[Liveness, DeviceScore, dict[str, Embedding]]:
    known, _, packed = opened.partition(b"\0")
    liveness, device_score = known.decode().split(" ")
    return Liveness(liveness), DeviceScore(device_score), unpack(packed)


def _checked_tail(tail: str) -> str:
    if len(tail) != DIGITS_LENGTH or not (tail.isascii() and tail.isdigit()):
        raise Refused("bad_digits", "the last four digits of the phone are needed", "type four digits")
    return tail
