"""The face worker: sees, searches, decides, enrols, forgets. One process, one thread; no frame outlives a call.

A plain class: eyes, gallery and vault are ports, so that it runs in a test as it runs in a cluster. Every verb
that sees a face takes a consent token. What is not the caller's fault comes back as an answer, never raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from actors.face_ports import Eyes, SearchableGallery, Vault
from models.domain.errors import NeedsOperator, Refused, RetryLater
from models.domain.face_quality import IMAGE_FAULTS, PROMPTS, LookPurpose, QualityPolicy
from models.domain.ids import ChainId, MemberId, StoreId
from models.domain.messages import FaceOutcome, SealedTemplate
from models.domain.nets import NetDecision, pack, unpack
from models.domain.recognition import (
    DIGITS_LENGTH,
    Accepted,
    ConsentToken,
    Decision,
    Embedding,
    EnrolRequest,
    FaceAnswer,
    GalleryDelta,
    GalleryRow,
    IdentifyRequest,
    NeedsDigits,
    NotRecognised,
    RecognitionPolicy,
    RescoreRequest,
    SearchResult,
    SearchScope,
    Seen,
    ShotRequest,
    Unseen,
    decide,
)

CHAINS_MAX = 64
"""Galleries in one worker."""

PROBE, SHOT = "probe", "shot"
"""Kinds of sealed blobs: one can never be passed off as the other."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How many templates became searchable, and how many did not, by reason."""

    version: int
    loaded: int
    skipped: dict[str, int]


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


@dataclass(slots=True)
class _Chain:
    """One chain's gallery, and who in it belongs to which store and phone tail."""

    gallery: SearchableGallery
    tails: dict[str, set[MemberId]] = field(default_factory=dict)
    stores: dict[StoreId, set[MemberId]] = field(default_factory=dict)
    places: dict[MemberId, tuple[StoreId, str]] = field(default_factory=dict)

    def put(self, row: GalleryRow, embedding: Embedding) -> None:
        member = row.template.member
        self.gallery.add(member, row.template.id, embedding)
        self._unplace(member)
        self.places[member] = (row.store, row.phone_tail)
        self.stores.setdefault(row.store, set()).add(member)
        self.tails.setdefault(row.phone_tail, set()).add(member)

    def drop(self, member: MemberId) -> int:
        self._unplace(member)
        return self.gallery.remove(member)

    def _unplace(self, member: MemberId) -> None:
        if member not in self.places:
            return
        store, tail = self.places.pop(member)
        self.stores[store].discard(member)
        if not self.stores[store]:
            del self.stores[store]
        self.tails[tail].discard(member)
        if not self.tails[tail]:
            del self.tails[tail]


class FaceWorker:
    """Business verbs over ports. Not for several threads: the runtime makes it an actor with one."""

    def __init__(
        self,
        eyes: Eyes,
        vault: Vault,
        new_gallery: Callable[[ChainId], SearchableGallery],
        *,
        quality: QualityPolicy,
        recognition: RecognitionPolicy,
    ) -> None:
        self._eyes = eyes
        self._vault = vault
        self._new_gallery = new_gallery
        self._quality = quality
        self._recognition = recognition
        self._chains: dict[ChainId, _Chain] = {}
        self._answers: Counter[str] = Counter()

    # ------------------------------------------------------------ the customer's verbs

    def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer:
        """Who is it? Accepted, digits (with the sealed probe), not recognised, look again, or lost.

        Raises Refused `consent_missing` before the image is touched, and `bad_digits` for a tail that is none.
        """
        consent.check(request.session)
        tail = None if request.digits_tail is None else _checked_tail(request.digits_tail)
        seen = self._eyes.look(request.jpeg, kind=request.kind, purpose=LookPurpose.PROBE, policy=self._quality)
        if isinstance(seen, Unseen):
            return self._look_again(request, seen)
        chain = self._chains.get(request.chain)
        version = chain.gallery.version if chain else 0
        partial = version < request.gallery_version_min
        liveness = self._recognition.liveness.judge(request.liveness_ppm)
        decision: Decision | None = None
        for members in self._where(chain, request, tail):
            decision = decide(
                _search(chain, seen.embedding, members),
                self._recognition,
                net_sha256=self._eyes.net_sha256,
                liveness=liveness,
                partial=partial,
                digits_given=tail is not None,
                digits_required=request.digits_required,
            )
            if isinstance(decision.match, Accepted):
                break
        assert decision is not None, "there is always one place to look"
        sealed = None
        if isinstance(decision.match, NeedsDigits):
            sealed = self._vault.seal(request.visit_key, request.session, PROBE, seen.embedding)
        return self._decided(request, decision, version, seen, sealed)

    def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer:
        """The sealed probe against the members whose phone ends in the digits, with t of the bucket's size.

        Accepted or not recognised; lost when the blob does not open under this visit's key. Raises Refused
        `consent_missing` or `bad_digits`.
        """
        consent.check(request.session)
        tail = _checked_tail(request.digits_tail)
        try:
            probes = unpack(self._vault.open(request.visit_key, request.session, PROBE, request.sealed))
        except Refused as lost:
            return self._count(
                FaceAnswer(request.session, request.question, FaceOutcome.LOST, reason=lost.code, prompt="look_again")
            )
        chain = self._chains.get(request.chain)
        decision = decide(
            _search(chain, probe, _bucket(chain, tail)),
            self._recognition,
            net_sha256=self._eyes.net_sha256,
            digits_given=True,
        )
        return self._decided(request, decision, chain.gallery.version if chain else 0, None, None)

    def shoot(self, request: ShotRequest, consent: ConsentToken) -> FaceAnswer:
        """One enrolment shot: its quality and the embedding sealed under the visit's key, or look again."""
        consent.check(request.session)
        seen = self._eyes.look(request.jpeg, kind=request.kind, purpose=LookPurpose.ENROL, policy=self._quality)
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

    def enrol(self, request: EnrolRequest, consent: ConsentToken) -> FaceAnswer:
        """The member's template from this visit's shots: a sealed row, or which shots still agree.

        The gallery does not change: the row is searchable once its commit comes back as a delta. Raises Refused
        `consent_missing`, and `shots_missing` when the count is not the policy's.
        """
        consent.check(request.session)
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
        except Refused as lost:
            return self._count(
                FaceAnswer(request.session, request.question, FaceOutcome.LOST, reason=lost.code, prompt="look_again")
            )
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
        chain = self._chains.get(request.chain)
        double = decide(_search(chain, mean, None), self._recognition, net_sha256=self._eyes.net_sha256).match
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
                gallery_version=chain.gallery.version if chain else 0,
                reason="enrolled",
            )
        )

    # ------------------------------------------------------------ the gallery's verbs

    def load(self, chain: ChainId, version: int, rows: Iterable[GalleryRow]) -> LoadReport:
        """Replace the chain's gallery by these rows, as committed up to `version`.

        A row of another net or chain, or one that does not open, is skipped and counted: one bad row must not
        close a shop. Raises RetryLater `gallery_full` beyond the gallery's bound (the old gallery then stands).
        """
        if chain not in self._chains and len(self._chains) >= CHAINS_MAX:
            raise RetryLater("chains_full", f"{CHAINS_MAX} galleries are the bound", "start another worker", 60.0)
        fresh = _Chain(self._new_gallery(chain))
        loaded, skipped = self._put(chain, fresh, rows)
        fresh.gallery.version = version
        self._chains[chain] = fresh
        return LoadReport(version, loaded, skipped)

    def apply_deltas(self, delta: GalleryDelta) -> LoadReport:
        """Take committed changes: removals, then upserts. A delta that is already inside changes nothing.

        Raises RetryLater `gallery_behind` when changes before `since_version` are missing here: load again.
        """
        known = self._chains.get(delta.chain)
        at = known.gallery.version if known else 0
        if delta.since_version > at:
            raise RetryLater(
                "gallery_behind", f"at {at}, the delta starts at {delta.since_version}", "load the gallery", 0.0
            )
        if delta.version <= at:
            return LoadReport(at, 0, {})
        if known is None:
            return self.load(delta.chain, delta.version, delta.upserts)
        for member in delta.removals:
            known.drop(member)
        loaded, skipped = self._put(delta.chain, known, delta.upserts)
        known.gallery.version = delta.version
        return LoadReport(delta.version, loaded, skipped)

    def forget(self, chain: ChainId, member: MemberId) -> int:
        """Erase a member's templates from this worker at once; how many there were. Again: 0."""
        known = self._chains.get(chain)
        return known.drop(member) if known else 0

    def health(self) -> FaceHealth:
        """Counts only: no member, no score."""
        return FaceHealth(
            net_sha256=self._eyes.net_sha256,
            policy=self._quality.name,
            templates={chain: len(known.gallery) for chain, known in self._chains.items()},
            versions={chain: known.gallery.version for chain, known in self._chains.items()},
            answers=dict(self._answers),
            older_nets={net.net_sha256: sum(net.galleries.counts().values()) for net in self.nets.every[1:]},
        )

    # ------------------------------------------------------------ inside

    def _put(self, chain: ChainId, into: _Chain, rows: Iterable[GalleryRow]) -> tuple[int, dict[str, int]]:
        loaded, skipped = 0, Counter[str]()
        for row in rows:
            if row.chain != chain:
                skipped["other_chain"] += 1
            elif row.template.net_sha256 != self._eyes.net_sha256:
                skipped["other_net"] += 1
            else:
                try:
                    into.put(row, self._vault.open_template(row.template, row.key))
                    loaded += 1
                except NeedsOperator as sealed:
                    skipped[sealed.code] += 1
                except ValueError:  # opens, but is no unit vector of this net
                    skipped["no_template"] += 1
        return loaded, dict(skipped)

    def _where(
        self, chain: _Chain | None, request: IdentifyRequest, tail: str | None
    ) -> Iterator[Collection[MemberId] | None]:
        """Which members to search, nearest first; None: all."""
        if tail is not None:
            yield _bucket(chain, tail)
            return
        for scope in request.scopes or (SearchScope.CHAIN,):
            if scope is SearchScope.CHAIN:
                yield None
            else:
                yield chain.stores.get(request.store, set()) if chain else set()

    def _look_again(self, request: IdentifyRequest | ShotRequest, unseen: Unseen) -> FaceAnswer:
        outcome = FaceOutcome.LOST if unseen.reason in IMAGE_FAULTS else FaceOutcome.QUALITY
        return self._count(
            FaceAnswer(
                request.session,
                request.question,
                outcome,
                reason=unseen.reason.value,
                prompt=PROMPTS[unseen.reason],
                quality=unseen.quality,
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


def _search(chain: _Chain | None, probe: Embedding, members: Collection[MemberId] | None) -> SearchResult:
    return chain.gallery.search(probe, members) if chain else SearchResult(None, None, 0)


def _bucket(chain: _Chain | None, tail: str) -> Collection[MemberId]:
    return chain.tails.get(tail, set()) if chain else set()


def _checked_tail(tail: str) -> str:
    if len(tail) != DIGITS_LENGTH or not (tail.isascii() and tail.isdigit()):
        raise Refused("bad_digits", "the last four digits of the phone are needed", "type four digits")
    return tail
