"""Kill switches: what a store, a region or a whole chain stops doing at once, without stages, while it goes on selling.

Pure. A store's switches are the union of its own, its region's and its chain's; each has an expiry or none. What each
one means to a visit that is under way is in actors/switching.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId, StoreId

REASON_CHARACTERS_MAX = 400
CONFIG_KEY = "switches"
"""The key of `desired.config` that tells a terminal what is off, sorted; absent while nothing is."""


class Switch(StrEnum):
    """What can be switched off."""

    FACE = "face"
    """Our recognition: no frame is asked for or looked at. Members come by phone, card or code, enrol without a face;
    the payment provider's own face payment is no recognition of ours and goes on."""
    BENEFITS = "benefits"
    """The light benefit: none is offered, priced or reserved. Memberships stand, and settle what was used."""
    OFFERS = "offers"
    """Offers, suggestions, and entering a plan. A voucher that somebody brings counts."""


class ScopeKind(StrEnum):
    """Of what a switch holds: rising breadth."""

    STORE = "store"
    REGION = "region"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """One store, one region, or one chain."""

    kind: ScopeKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store stands."""

    chain: ChainId
    region: RegionId
    store: StoreId

    def within(self, scope: Scope) -> bool:
        """True when a switch of that scope holds here."""
        return scope.name == {
            ScopeKind.STORE: self.store,
            ScopeKind.REGION: self.region,
            ScopeKind.CHAIN: self.chain,
        }.get(scope.kind)


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """One switch that was thrown. `by` and `at` (wall time): who and when; `until` None: until somebody lifts it."""

    id: str
    switch: Switch
    scope: Scope
    reason: str
    by: str
    at: datetime
    until: datetime | None = None
    lifted_at: datetime | None = None
    lifted_by: str = ""
    lifted_reason: str = ""

    def in_force(self, now: datetime) -> bool:
        """Thrown, not lifted, not expired. The instant of `until` is free again."""
        return self.lifted_at is None and (self.until is None or now < self.until)


def switches_off(thrown: Iterable[KillSwitch], place: Place, now: datetime) -> tuple[Switch, ...]:
    """What is off in a store now, each once, sorted: the same tuple for the same answer."""
    return tuple(sorted({one.switch for one in thrown if one.in_force(now) and place.within(one.scope)}))


def require_order(reason: str, now: datetime, until: datetime | None) -> str:
    """The reason, trimmed. Raises Refused `reason_missing`, `reason_long`, `until_past`."""
    said = " ".join(reason.split())
    if not said:
        raise Refused("reason_missing", "why?", "give a reason: it stands in the audit")
    if len(said) > REASON_CHARACTERS_MAX:
        raise Refused("reason_long", "the reason is too long", f"{REASON_CHARACTERS_MAX} characters at most")
    if until is not None and until.tzinfo is None:
        raise Refused("until_past", "that time has no zone", "write it with a zone, e.g. 2026-11-22T18:00:00+08:00")
    if until is not None and until <= now:
        raise Refused("until_past", f"{until.isoformat()} is over", "name a time to come, or none")
    return said
