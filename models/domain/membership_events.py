"""What happens to a light membership, as values: the events of `models.domain.membership`, in order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.domain.charging import CancelledBy
from models.domain.ids import BenefitId, SaleId, UsageId
from models.domain.plans import GuaranteeKind, Plan


class HoldState(StrEnum):
    """What became of the money that was frozen at enrolment."""

    NONE = "none"
    HELD = "held"
    LAPSED = "lapsed"
    ENDED = "ended"
    """Captured, with the rest freed, or released."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What stands behind the membership; `hold_fen` is 0 for those that freeze nothing."""

    kind: GuaranteeKind
    hold_fen: int = 0
    hold: HoldState = HoldState.NONE


class CreditAnswer(StrEnum):
    """What the credit service says to an application."""

    OK = "ok"
    HOLD_NEEDED = "hold_needed"
    REFUSED = "refused"


class ProviderAnswer(StrEnum):
    """What is known of the last capture; UNKNOWN covers pending, no and unclear answers."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CreditAnswered:
    """The credit consultation ended."""

    at: datetime
    answer: CreditAnswer


@dataclass(frozen=True, slots=True)
class HoldFrozen:
    """The provider froze the fee, for enrolment or again after a lapse."""

    at: datetime
    hold_fen: int


@dataclass(frozen=True, slots=True)
class HoldTimedOut:
    """Nobody authorised the freeze in time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class HoldLapsed:
    """The provider let the hold end by itself."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Suspended:
    """Risk control stops new online use."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Resumed:
    """Risk control lets it go on."""

    at: datetime


@dataclass(frozen=True, slots=True)
class PlanChanged:
    """Upgrade or downgrade: the new plan's hold is frozen already, the old one is released now.

    `id` names the change: a repeated one is ignored.
    """

    at: datetime
    id: str
    plan: Plan
    guarantee: Guarantee


@dataclass(frozen=True, slots=True)
class UseReported:
    """A benefit was used: `fen` = min(value, eligible amount) > 0, at `biz_time`, received `at`.

    `paid_fen` was paid for `sale` in all, with every tender; tasks count it.
    """

    at: datetime
    id: UsageId
    benefit: BenefitId
    fen: int
    biz_time: datetime
    offline: bool = False
    sale: SaleId | None = None
    paid_fen: int = 0


@dataclass(frozen=True, slots=True)
class UseReversed:
    """`fen` of use `refers_to` taken back; a repeated id is ignored."""

    at: datetime
    id: str
    refers_to: UsageId
    fen: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Ends the membership at its own instant, from ACTIVE or SUSPENDED only."""

    at: datetime
    by: CancelledBy


@dataclass(frozen=True, slots=True)
class Expired:
    """The expiry's timer fired."""

    at: datetime


@dataclass(frozen=True, slots=True)
class CutOff:
    """The cutoff's timer fired; open reservations and leases were resolved before."""

    at: datetime


@dataclass(frozen=True, slots=True)
class ProviderAnswered:
    """An answer about the last capture; `captured_fen`, when told, must be the amount we asked for."""

    at: datetime
    answer: ProviderAnswer
    captured_fen: int | None = None


@dataclass(frozen=True, slots=True)
class AttemptDue:
    """The dunning timer fired."""

    at: datetime


Event = (
    CreditAnswered
    | HoldFrozen
    | HoldTimedOut
    | HoldLapsed
    | Suspended
    | Resumed
    | PlanChanged
    | UseReported
    | UseReversed
    | Cancelled
    | Expired
    | CutOff
    | ProviderAnswered
    | AttemptDue
)
