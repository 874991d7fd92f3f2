"""Privacy as rules of values: what a consent permits, when data must go, who is too young, what a person may ask for.

Nothing here reads a clock or a table: the caller counts and hands over the day, the rule decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from models.domain.errors import Refused
from models.domain.membership import State

# ---------------------------------------------------------------- the audit's chain

GENESIS_SHA256 = "0" * 64
"""What the first event of an audit names as the one before it."""

Detail = Mapping[str, "str | int | bool | Sequence[str] | None"]
"""What an audit event says beside its subject. No float (its text differs between writers), no personal data."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit: who did what to whom, chained to the line before."""

    n: int
    at: datetime
    kind: str
    subject: str
    by: str
    detail: Detail
    prev_sha256: str
    sha256: str


def audit_sha256(n: int, at: datetime, kind: str, subject: str, by: str, detail: Detail, prev_sha256: str) -> str:
    """SHA-256, hexadecimal, of the event in canonical JSON: sorted keys, ASCII, microseconds since 1970."""
    micros = (at - datetime.fromisoformat("1970-01-01T00:00:00+00:00")) // timedelta(microseconds=1)
    text = json.dumps(
        [n, micros, kind, subject, by, detail, prev_sha256], sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def chain_fault(events: Sequence[AuditEvent], n: int, prev_sha256: str) -> str | None:
    """What is wrong with the first event that does not follow event `n`, whose digest is `prev_sha256`; None: nothing.

    `events` in rising order. The words are for a log and an auditor: "event 7 is missing", "event 7 was changed".
    """
    for event in events:
        n += 1
        if event.n != n:
            return f"event {n} is missing"
        if event.prev_sha256 != prev_sha256:
            return f"event {n} does not follow event {n - 1}"
        said = audit_sha256(event.n, event.at, event.kind, event.subject, event.by, event.detail, event.prev_sha256)
        if said != event.sha256:
            return f"event {n} was changed"
        prev_sha256 = event.sha256
    return None


def check_detail(detail: Detail) -> None:
    """Raises TypeError or ValueError for what would not come back from the database as it was written."""
    for key, value in detail.items():
        parts = value if isinstance(value, list | tuple) else (value,)
        for part in parts:
            if not isinstance(part, str | int | bool | None):
                raise TypeError(f"audit detail {key!r} holds {type(part).__name__}")
            if isinstance(part, str) and "\x00" in part:
                raise ValueError(f"audit detail {key!r} holds a NUL")


# ---------------------------------------------------------------- consent


class FaceUse(StrEnum):
    """What may be done with a face, each by its own consent."""

    PROBE = "probe"
    """Recognise in this visit; nothing is stored."""
    TEMPLATE = "template"
    """Store a template of three shots."""
    REEMBED = "reembed"
    """Compute the stored template again by a newer net, at a later visit."""
    ADAPT = "adapt"
    """Add a template of a later visit beside those of the enrolment."""


STANDING_PURPOSE = "face_template"
"""The purpose of a member's standing consent, without which no template of theirs is stored or kept."""

COVERED_BY_DEFAULT = (FaceUse.PROBE, FaceUse.TEMPLATE, FaceUse.REEMBED)
"""What a text to recognise covers unless it says otherwise. A newer net serves the same purpose by the same data; a
template of another day is new data, so that use must be written into the text and named in `covers`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member agreed to for good: the uses that the text of their enrolment covers, until withdrawn."""

    covers: tuple[FaceUse, ...] = COVERED_BY_DEFAULT
    withdrawn: bool = False


def permits(use: FaceUse, *, visit_consent: bool, standing: Standing | None) -> bool:
    """Whether a face may be used so.

    A probe needs this visit's consent and nothing else. A template is made under this visit's consent too (with the
    membership's, see EnrolConsent). What touches a stored template later needs both: the visit's consent to look, and
    a standing one that covers it.
    """
    if not visit_consent:
        return False
    match use:
        case FaceUse.PROBE | FaceUse.TEMPLATE:
            return True
        case FaceUse.REEMBED | FaceUse.ADAPT:
            return standing is not None and not standing.withdrawn and use in standing.covers


def withdraws(*, granted: bool, granted_before: bool, identified: bool) -> bool:
    """Whether a consent event at a terminal withdraws the member's standing consent, and so erases their templates.

    Taking back what was granted in this visit does, for whoever is identified. A first "no" does not: it refuses this
    one look (not today), and it may come from somebody who only typed a member's number.
    """
    return not granted and granted_before and identified


# ---------------------------------------------------------------- children

CHILD_YEARS = 14
"""Personal information of a child under 14 is sensitive and needs a guardian's consent (PIPL articles 28 and 31)."""


@dataclass(frozen=True, slots=True)
class Age:
    """What is known of a member's age. `guardian_consent`: the record of a guardian's consent, or ""."""

    birth_year: int | None = None
    marked_under_14: bool = False
    guardian_consent: str = ""


def may_be_child(age: Age, year: int) -> bool:
    """True for a clerk's mark, and for a birth year by which the 14th birthday may still be to come in `year`."""
    return age.marked_under_14 or (age.birth_year is not None and year - age.birth_year <= CHILD_YEARS)


def template_permitted(age: Age | None, year: int) -> bool:
    """Whether a template of this person may exist at all. Nothing known of the age: it may."""
    return age is None or not may_be_child(age, year) or age.guardian_consent != ""


# ---------------------------------------------------------------- retention


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long what is kept, in days of business time. Consents, sales and the ledger are not ended by these."""

    template_idle_days: int = 365
    after_membership_days: int = 90
    decision_days: int = 90

    def __post_init__(self) -> None:
        if min(self.template_idle_days, self.after_membership_days, self.decision_days) < 1:
            raise ValueError("retention is at least one day")


RETENTION_DEFAULT = RetentionPolicy()


class TemplateEnd(StrEnum):
    """Why a stored template must go."""

    UNDER_14 = "under_14"
    IDLE = "idle"
    MEMBERSHIP_ENDED = "membership_ended"


@dataclass(frozen=True, slots=True)
class TemplateStanding:
    """What decides over one member's templates.

    `last_visit_at`: the last time that face, sale or consent saw them. `membership_ended_at`: when the last of their
    memberships ended, None while one is open or if there never was one. `consented_at`: the last consent to recognise.
    """

    made_at: datetime
    last_visit_at: datetime | None = None
    membership_ended_at: datetime | None = None
    consented_at: datetime | None = None
    age: Age | None = None


def template_end(standing: TemplateStanding, policy: RetentionPolicy, now: datetime) -> TemplateEnd | None:
    """Why the templates must go at `now`; None: they may stay. A limit of N days ends with its N-th day."""
    if not template_permitted(standing.age, now.year):
        return TemplateEnd.UNDER_14
    seen = max(standing.made_at, standing.last_visit_at or standing.made_at)
    if now - seen >= timedelta(days=policy.template_idle_days):
        return TemplateEnd.IDLE
    ended = standing.membership_ended_at
    if ended is not None and now - ended >= timedelta(days=policy.after_membership_days):
        continues = standing.consented_at is not None and standing.consented_at > ended
        return None if continues else TemplateEnd.MEMBERSHIP_ENDED
    return None


# ---------------------------------------------------------------- erasing a person, by four eyes

OFFICERS_COME_BY = frozenset({"console", "cli"})


OVER = frozenset({State.CLOSED, State.WRITTEN_OFF, State.REJECTED, State.ABANDONED})
"""Memberships in which no money is open."""


class RequestKind(StrEnum):
    """What a person may ask for."""

    WITHDRAW_FACE = "withdraw_face"
    ERASE_PERSON = "erase_person"
    EXPORT = "export"


class RequestState(StrEnum):
    """Open requests wait for an officer; the others are kept as they ended."""

    OPEN = "open"
    DONE = "done"
    REFUSED = "refused"


def check_erasable(open_memberships: Sequence[tuple[str, State]]) -> None:
    """Raises Refused `membership_open` while money of a membership is open: a debt may not vanish with its debtor."""
    waiting = [f"{membership} ({state.value})" for membership, state in open_memberships if state not in OVER]
    if waiting:
        raise Refused(
            "membership_open",
            f"memberships are not over: {', '.join(waiting)}",
            "let them be cancelled and settled (storeops settle), a debt to the end of its dunning; then erase",
        )


def require_officer(person: str) -> None:
    """Raises Refused `four_eyes` when nobody in particular is signed in: two sessions may be one pair of eyes."""
    if not person:
        raise Refused(
            "four_eyes",
            "nobody in particular is signed in, and an erasure is asked for and approved by two people",
            "sign in with `storeops login --as NAME`",
        )


def is_same_officer(one: str, other: str) -> bool:
    """`console:ann` and `cli:ann` are one pair of eyes; `member:…` is the member's own page, never an officer."""
    way, _, who = one.partition(":")
    other_way, _, other_who = other.partition(":")
    return one == other or (who == other_who and {way, other_way} <= OFFICERS_COME_BY)


def check_four_eyes(asked_by: str, approved_by: str) -> None:
    """Raises Refused `four_eyes`: whoever asked for an erasure does not approve it, from whichever session or way."""
    if is_same_officer(asked_by, approved_by):
        raise Refused(
            "four_eyes", "the one who asked may not approve", "let another person sign in and approve the request"
        )


# ---------------------------------------------------------------- the filing threshold

FILING_FACES = 100_000
"""Faces of so many people must be filed with the authorities within 30 working days (CAC and MPS, Measures for the
Security Management of the Application of Facial Recognition Technology, in force 2025-06-01, article 15)."""

FILING_ALERT_FACES = FILING_FACES * 8 // 10
"""From here on somebody should prepare the filing."""


class FilingLevel(StrEnum):
    """How near the count of distinct stored faces is to the threshold."""

    WELL = "well"
    NEAR = "near"
    OVER = "over"


def filing_level(distinct_faces: int) -> FilingLevel:
    """OVER from the threshold on, NEAR from 80 % of it."""
    if distinct_faces >= FILING_FACES:
        return FilingLevel.OVER
    return FilingLevel.NEAR if distinct_faces >= FILING_ALERT_FACES else FilingLevel.WELL
