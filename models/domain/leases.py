"""Leases: uses of a benefit kept for a store that sells offline. Spans in business time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from models.domain.ids import BenefitId, LeaseId, MembershipId, StoreId

LEASE_FOR = timedelta(hours=24)
"""How long uses may be given from a lease, at most to the membership's expiry."""

SYNC_WINDOW = timedelta(hours=24)
"""After its end a lease still holds its places so long, for sales that are on their way (an event lives as long in the
broker); then it lapses, and the cutoff waits no longer."""


@dataclass(frozen=True, slots=True)
class LeaseStanding:
    """A lease as it stands: `used` of `uses` have come back as usage."""

    id: LeaseId
    membership: MembershipId
    benefit: BenefitId
    store: StoreId
    uses: int
    used: int
    open: bool
    until: datetime
    lapses_at: datetime
    granted_at: datetime
    """What the plan of this instant promised is what a use of it is worth."""

    def covers(self, membership: str, benefit: str, store: str, biz_time: datetime, now: datetime) -> bool:
        """True when one more use of this benefit, given at `biz_time` and heard of at `now`, is the lease's."""
        mine = (self.membership, self.benefit, self.store) == (membership, benefit, store)
        return mine and self.open and self.used < self.uses and biz_time < self.until and now < self.lapses_at


def lease_until(at: datetime, expiry: datetime) -> datetime:
    """The end of a lease that is granted at `at`."""
    return min(at + LEASE_FOR, expiry)
