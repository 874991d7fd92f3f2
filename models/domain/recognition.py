"""Who is it? The decision of a 1:N search as a rule of values, and the words between host and face worker.

False accepts of a stranger grow with the number of templates searched, so the threshold does too (docs: faces,
1:N is a budget). Scores are cosines of unit vectors, -1 to 1; records hold them in millionths (ppm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NewType

from models.domain.device_score import DeviceScore
from models.domain.errors import Refused
from models.domain.events import Purpose
from models.domain.face_quality import FaceKind, LookReason, QualityReport
from models.domain.ids import ChainId, MemberId, MessageId, SessionId, StoreId
from models.domain.liveness import NO_CHALLENGE, Challenge, Landmarks, Liveness, LivenessPolicy
from models.domain.messages import FaceOutcome, KeyRow, RecognitionDecision, SealedTemplate, TemplateRow

Embedding = NewType("Embedding", bytes)
"""A unit vector as little-endian float32; never stored or logged in clear."""

THRESHOLDS: tuple[tuple[int, float], ...] = (
    (1, 0.36),
    (100, 0.48),
    (1_000, 0.53),
    (10_000, 0.585),
    (100_000, 0.635),
    (1_000_000, 0.68),
)
"""(templates searched, cosine) for one false accept of a stranger in a thousand; SFace, until calibrated."""

DIGITS_LENGTH = 4

COVERED_LOOKS = 10
"""A look at a face that seems covered counts as so many: a stranger behind a mask resembles more members."""

NO_STORE = StoreId("")


# ---------------------------------------------------------------- the decision


class DigitsReason(StrEnum):
    """Why a second factor is needed."""

    BELOW_THRESHOLD = "below_threshold"
    THIN_MARGIN = "thin_margin"
    PARTIAL = "partial"
    LIVENESS_IN_DOUBT = "liveness_in_doubt"
    REQUIRED = "required"
    AMOUNT_LIMIT = "amount_limit"
    ELSEWHERE = "elsewhere"
    """Nobody of this region: the digits lead to the rest of the chain."""


class UnknownReason(StrEnum):
    """Why nobody was named."""

    NOBODY_ENROLLED = "nobody_enrolled"
    BELOW_FLOOR = "below_floor"
    LIVENESS_FAILED = "liveness_failed"
    DIGITS_BELOW_THRESHOLD = "digits_below_threshold"
    DIGITS_THIN_MARGIN = "digits_thin_margin"


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is this member."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class NeedsDigits:
    """Perhaps: ask for the last four digits of the phone and score again inside their bucket."""

    reason: DigitsReason


@dataclass(frozen=True, slots=True)
class NotRecognised:
    """Nobody, as far as this search can honestly say."""

    reason: UnknownReason


Match = Accepted | NeedsDigits | NotRecognised

CLEAR = "clear"
"""The reason of an acceptance."""

NO_SCORE_PPM = -1_000_000
"""Recorded where there was nobody, or nobody else, to compare with: a cosine can be no lower."""

_UNKNOWN_REASONS = frozenset(reason.value for reason in UnknownReason)
_OPEN_REASONS = frozenset(
    {
        UnknownReason.NOBODY_ENROLLED.value,
        UnknownReason.BELOW_FLOOR.value,
        DigitsReason.BELOW_THRESHOLD.value,
        DigitsReason.THIN_MARGIN.value,
        DigitsReason.ELSEWHERE.value,
    }
)
"""What a wider search may change. A doubt about liveness, the gallery or the amount stays."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member and the best cosine of the member's templates."""

    member: MemberId
    score: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`second` is the best of ANOTHER member; `searched` counts every template compared."""

    best: Candidate | None
    second: Candidate | None
    searched: int


class SearchScope(StrEnum):
    """How far to look, nearest first. The chain is searched inside the bucket of four digits only."""

    STORE = "store"
    REGION = "region"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class RecognitionPolicy:
    """The figures of the decision; `thresholds` belong to one net (its catalogue entry)."""

    thresholds: tuple[tuple[int, float], ...] = THRESHOLDS
    floor: float = 0.36
    margin_min: float = 0.08
    liveness: LivenessPolicy = field(default_factory=LivenessPolicy)
    calibration: str = "table"
    """Where the thresholds come from: a report's name and digest, or the table of the documentation."""

    def __post_init__(self) -> None:
        counts = [n for n, _ in self.thresholds]
        values = [t for _, t in self.thresholds]
        if not counts or counts[0] != 1 or counts != sorted(set(counts)) or values != sorted(values):
            raise ValueError("thresholds must start at N = 1 and rise with N")


@dataclass(frozen=True, slots=True)
class Decision:
    """A match and why, for the log of decisions."""

    match: Match
    record: RecognitionDecision

    @property
    def wider_may_help(self) -> bool:
        """A search of more templates could still name somebody: the face was live, and nobody was clear."""
        return self.record.reason in _OPEN_REASONS


def threshold(searched: int, points: tuple[tuple[int, float], ...] = THRESHOLDS) -> float:
    """t(N): linear in log10 N between the points; beyond the last one the last slope goes on, up to 1."""
    if searched <= points[0][0] or len(points) == 1:
        return points[0][1]
    upper = next((i for i, (n, _) in enumerate(points) if n >= searched), len(points) - 1)
    (n0, t0), (n1, t1) = points[upper - 1], points[upper]
    part = (math.log10(searched) - math.log10(n0)) / (math.log10(n1) - math.log10(n0))
    return min(1.0, t0 + part * (t1 - t0))


def decide(
    search: SearchResult,
    policy: RecognitionPolicy,
    *,
    net_sha256: str,
    scope: SearchScope = SearchScope.REGION,
    looks: int = 1,
    liveness: Liveness = Liveness.NOT_CHECKED,
    device_score: DeviceScore = DeviceScore.NONE,
    partial: bool = False,
    digits_given: bool = False,
    digits_required: bool = False,
    amount_fen: int | None = None,
    face_alone_max_fen: int | None = None,
    elsewhere: bool = False,
) -> Decision:
    """The rule (docs: faces, 1:N is a budget), by `reason_of` of the record that is kept.

    `search` covers everything searched in this decision so far, each template counted once. `looks`: how many
    scopes may be searched one after another before somebody is accepted. Each look may accept a stranger, so
    they share the budget: at t(looks x N) a look spends 1/looks of it (FPIR = N x FAR), together at most all.
    Looks at a face that seems covered count COVERED_LOOKS times.
    `partial`: a shard or an update was missing. `amount_fen`: of the basket, where it is known; above
    `face_alone_max_fen` a face alone is not enough. `elsewhere`: the chain has members whom these scopes do not
    hold. With `digits_given` the search was inside their bucket.
    """
    t_ppm = _ppm(threshold(search.searched * looks, policy.thresholds))
    figures = RecognitionDecision(
        templates_searched=search.searched,
        threshold_ppm=t_ppm,
        best_ppm=_score_ppm(search.best),
        second_ppm=_score_ppm(search.second),
        net_sha256=net_sha256,
        reason="",
        scope=scope.value,
        looks=looks,
        floor_ppm=_ppm(policy.floor),
        margin_ppm=_ppm(policy.margin_min),
        liveness=liveness,
        device_score=device_score,
        partial=partial,
        digits_given=digits_given,
        digits_required=digits_required,
        amount_limited=_above_limit(amount_fen, face_alone_max_fen),
        elsewhere=elsewhere,
        calibration=policy.calibration,
    )
    reason = reason_of(figures)
    record = replace(figures, reason=reason)
    if reason == CLEAR:
        assert search.best is not None, "somebody is clear"
        return Decision(Accepted(search.best.member), record)
    if reason in _UNKNOWN_REASONS:
        return Decision(NotRecognised(UnknownReason(reason)), record)
    return Decision(NeedsDigits(DigitsReason(reason)), record)


def reason_of(record: RecognitionDecision) -> str:
    """The reason that follows from a record's figures, integers all: an auditor decides again from the row alone.

    `clear`: accepted; a DigitsReason: digits; an UnknownReason: not recognised. After digits there is no third
    question. A failed liveness is a veto always.
    """
    if record.liveness is Liveness.FAILED:
        return UnknownReason.LIVENESS_FAILED.value
    if record.digits_given:
        return _after_digits(record)
    if record.best_ppm < record.floor_ppm or record.best_ppm == NO_SCORE_PPM:
        if record.elsewhere:
            return DigitsReason.ELSEWHERE.value
        if record.best_ppm != NO_SCORE_PPM:
            return UnknownReason.BELOW_FLOOR.value
        # With a part of the gallery missing, nobody here is no evidence: the bucket of the digits may know.
        return DigitsReason.PARTIAL.value if record.partial else UnknownReason.NOBODY_ENROLLED.value
    doubts = (
        (record.best_ppm < record.threshold_ppm, DigitsReason.BELOW_THRESHOLD),
        (record.best_ppm - record.second_ppm < record.margin_ppm, DigitsReason.THIN_MARGIN),
        (record.partial, DigitsReason.PARTIAL),
        (record.liveness is Liveness.IN_DOUBT, DigitsReason.LIVENESS_IN_DOUBT),
        (record.digits_required, DigitsReason.REQUIRED),
        (record.amount_limited, DigitsReason.AMOUNT_LIMIT),
    )
    return next((reason.value for holds, reason in doubts if holds), CLEAR)


def _after_digits(record: RecognitionDecision) -> str:
    if record.best_ppm == NO_SCORE_PPM:
        return UnknownReason.NOBODY_ENROLLED.value
    if record.best_ppm < record.floor_ppm:
        return UnknownReason.BELOW_FLOOR.value
    if record.best_ppm < record.threshold_ppm:
        return UnknownReason.DIGITS_BELOW_THRESHOLD.value
    thin = record.best_ppm - record.second_ppm < record.margin_ppm
    return UnknownReason.DIGITS_THIN_MARGIN.value if thin else CLEAR


def _above_limit(amount_fen: int | None, max_fen: int | None) -> bool:
    return amount_fen is not None and max_fen is not None and amount_fen > max_fen


def _score_ppm(candidate: Candidate | None) -> int:
    """A cosine of -1 is recorded one millionth higher: -1 means that there was nobody to compare with."""
    return NO_SCORE_PPM if candidate is None else max(NO_SCORE_PPM + 1, _ppm(candidate.score))


def _ppm(score: float) -> int:
    return round(score * 1_000_000)


# ---------------------------------------------------------------- what eyes return


@dataclass(frozen=True, slots=True)
class Seen:
    """One face, good enough. `embedding`: 128 float32, unit norm."""

    embedding: Embedding = field(repr=False)
    quality: QualityReport
    landmarks: Landmarks | None = field(default=None, repr=False)
    liveness_ppm: int | None = None
    """Of the catalogue's anti-spoofing net, where it has one."""
    older: tuple[tuple[str, Embedding], ...] = field(default=(), repr=False)
    """The same face by older nets that templates are still of, by their digests."""

    @property
    def eye_distance_px(self) -> float:
        """In pixels of the original image."""
        return self.quality.eye_distance_px


@dataclass(frozen=True, slots=True)
class Unseen:
    """No face, or none that may be judged. `quality` when one was measured."""

    reason: LookReason
    quality: QualityReport | None = None


# ---------------------------------------------------------------- between host and worker


def _is_a(token: object, kind: type) -> bool:
    """What the types promise, looked at: a token also comes from another process."""
    return isinstance(token, kind)


@dataclass(frozen=True, slots=True)
class ConsentToken:
    """The customer's consent to be recognised in this visit: no verb that sees a face can be called without.

    `event` is the message that granted it; its text version, time and terminal are in the consent's record.
    """

    purpose: Purpose
    session: SessionId
    event: MessageId

    def check(self, session: SessionId) -> None:
        """Raises Refused `consent_missing` unless this is the visit's consent to recognise."""
        given = _is_a(self, ConsentToken) and self.purpose is Purpose.RECOGNISE and self.session == session
        if not given or not self.event:
            raise Refused("consent_missing", "no consent to recognise in this visit", "ask for consent first")


@dataclass(frozen=True, slots=True)
class EnrolConsent(ConsentToken):
    """Consent to store a template: the visit's consent to recognise, and the consent to the membership besides.

    A type of its own, so that nothing which makes a template can be called with a consent to be recognised once.
    """

    membership: MessageId

    def check(self, session: SessionId) -> None:
        """Raises Refused `consent_missing` unless both were given in this visit, by an event each.

        `EnrolConsent.check(token, session)` also refuses a token of the other type, whatever its caller's types said.
        """
        ConsentToken.check(self, session)
        if not _is_a(self, EnrolConsent) or not self.membership:
            raise Refused("consent_missing", "no consent to a stored template", "ask for the membership's consent")


@dataclass(frozen=True, slots=True)
class IdentifyRequest:
    """Who is in this image? With `digits_tail` the search stays inside the members whose phone ends so."""

    session: SessionId
    question: str
    chain: ChainId
    store: StoreId
    jpeg: bytes = field(repr=False)
    kind: FaceKind
    visit_key: bytes = field(repr=False)
    liveness_ppm: int | None = None
    """The device's own score, of a device that vouches for it."""
    liveness: LivenessPolicy | None = None
    """The chain's; None: the worker's own."""
    challenge: Challenge = NO_CHALLENGE
    device_score: DeviceScore = DeviceScore.NONE
    """What became of the device's own score: counted, and kept with the decision."""
    digits_tail: str | None = None
    digits_required: bool = False
    """A face alone is never enough for this terminal: what would be accepted asks for digits."""
    amount_fen: int | None = None
    """Of the visit's basket as it stands; above the chain's limit a face alone is not enough. None: not known."""
    scopes: tuple[SearchScope, ...] = (SearchScope.STORE, SearchScope.REGION)
    gallery_version_min: int = 0
    """Templates committed up to here must have been searched; a worker behind it answers as partial."""


@dataclass(frozen=True, slots=True)
class RescoreRequest:
    """The sealed probe of an earlier answer, scored again inside the bucket of the digits."""

    session: SessionId
    question: str
    chain: ChainId
    sealed: bytes = field(repr=False)
    visit_key: bytes = field(repr=False)
    digits_tail: str = field(repr=False)
    store: StoreId = NO_STORE
    """Whose customer: stores share the workers in turn."""


@dataclass(frozen=True, slots=True)
class ShotRequest:
    """One enrolment shot."""

    session: SessionId
    question: str
    jpeg: bytes = field(repr=False)
    kind: FaceKind
    visit_key: bytes = field(repr=False)
    store: StoreId = NO_STORE
    """Whose customer: stores share the workers in turn."""
    mask_asked: bool = False
    """The customer was asked to take off a mask: what still measures as one is a face."""


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """Make a member's template from the sealed shots of this visit."""

    session: SessionId
    question: str
    chain: ChainId
    member: MemberId
    template_id: str
    shots: tuple[bytes, ...] = field(repr=False)
    visit_key: bytes = field(repr=False)
    store: StoreId = NO_STORE
    """Whose customer: stores share the workers in turn."""


@dataclass(frozen=True, slots=True)
class FaceAnswer:
    """What the worker says to one question. Fields beyond `outcome` as far as they apply.

    `reason` is a stable code (of the look, the decision or the enrolment); `prompt` the screen's prompt for it.
    """

    session: SessionId
    question: str
    outcome: FaceOutcome
    member: MemberId | None = None
    reason: str = ""
    prompt: str = ""
    sealed: bytes | None = field(default=None, repr=False)
    quality: QualityReport | None = None
    decision: RecognitionDecision | None = None
    templates: tuple[SealedTemplate, ...] = field(default=(), repr=False)
    shots_kept: tuple[int, ...] = ()
    """After `shots_disagree`: positions of the shots that still agree; take only the others again."""
    lookalike: MemberId | None = None
    """An enrolled face that this search would accept as the new member's: perhaps the same person."""
    gallery_version: int = 0


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """A template and where its member belongs, as a gallery loads it."""

    template: TemplateRow = field(repr=False)
    key: KeyRow = field(repr=False)
    chain: ChainId
    store: StoreId
    phone_tail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class GalleryDelta:
    """All changes of one chain's gallery after `since_version` up to `version`. Removals come first."""

    chain: ChainId
    since_version: int
    version: int
    upserts: tuple[GalleryRow, ...] = ()
    removals: tuple[MemberId, ...] = ()
