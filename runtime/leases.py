"""Leases of benefits: granted, and given back. Each under its membership's row lock, in one transaction."""

from __future__ import annotations

from dataclasses import replace

from actors.ports import EndLease, GrantLease
from models.domain.benefits import holds_at
from models.domain.charging import UseClass, classify_use
from models.domain.errors import Bug
from models.domain.ids import LeaseId, derived_id
from models.domain.leases import SYNC_WINDOW, LeaseStanding, lease_until
from models.domain.membership import State
from models.domain.messages import LeaseEnded, LeaseGranted
from models.domain.screen import LeaseGrant
from models.domain.settlement import Standing
from models.tables import clock, leases, memberships
from runtime.clock import Pool, Wall
from runtime.member_views import NotYet, member_view

AFTER_THE_POSTS_S = 1.0


class Leases:
    """Keeps uses for stores that go offline. A lease holds places of the quota until it ends or lapses."""

    def __init__(self, pool: Pool, *, wall: Wall) -> None:
        self._pool = pool
        self._wall = wall

    async def grant(self, ask_id: str, request: GrantLease) -> LeaseGranted:
        """All the uses, or none; asked again, the same lease."""
        made = LeaseId(derived_id(ask_id, "lease"))
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.lock_membership(cur, request.membership)
            if standing is None:
                raise Bug("unknown_membership", f"a session leased of the unknown membership {request.membership}")
            now = await clock.business_now(cur, self._wall())
            lease = (await leases.load_leases(cur, [made])).get(made)
            if lease is None:
                taken = await memberships.quota_taken(cur, standing.id, now)
                store = await memberships.load_store(cur, request.store)
                if _grantable(standing, taken, request) and _ever_here(standing, request, store):
                    until = lease_until(request.at, standing.expires_at)
                    lease = LeaseStanding(
                        made,
                        standing.id,
                        request.benefit,
                        request.store,
                        request.uses,
                        0,
                        True,
                        until,
                        until + SYNC_WINDOW,
                        request.at,
                    )
                    await leases.insert_lease(cur, lease, terminal=request.terminal, session=request.session)
        view = await member_view(self._pool, standing, self._wall())
        if lease is None:
            return LeaseGranted(ask_id, request.session, None, "benefit_gone", view)
        grant = LeaseGrant(lease.id, lease.membership, lease.benefit, lease.uses, lease.until.isoformat())
        return LeaseGranted(ask_id, request.session, grant, member=view)

    async def end(self, ask_id: str, request: EndLease) -> LeaseEnded | NotYet:
        """What is left is free again; sales of it that are on their way are posted first."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            lease = (await leases.load_leases(cur, [request.lease])).get(request.lease)
            if lease is None or lease.store != request.store:
                return LeaseEnded(ask_id, request.session, "unknown_lease")
            await memberships.lock_membership(cur, lease.membership)
            if await leases.uses_on_the_way(cur, lease.id):
                return NotYet(AFTER_THE_POSTS_S)
            await leases.end_lease(cur, lease.id, request.at)
        return LeaseEnded(ask_id, request.session)


def _ever_here(standing: Standing, request: GrantLease, store: memberships.StoreRecord | None) -> bool:
    """Whether the benefit is given in this store at all; at which hours is asked of each use."""
    benefit = standing.plan.benefit(request.benefit)
    if benefit is None or store is None:
        return False
    any_time = replace(benefit.scope, hours=None, weekdays=frozenset())
    return holds_at(any_time, store=store.id, channel=store.channel, at=request.at, zone=store.zone)


def _grantable(standing: Standing, taken: dict[str, int], request: GrantLease) -> bool:
    """True when each of the uses would be REGULAR if it were made now, online."""
    if standing.state is not State.ACTIVE:
        return False
    before = taken.get(request.benefit, 0)
    last: dict[str, int] = {request.benefit: before + request.uses - 1}
    use_class = classify_use(
        standing.plan,
        last,
        request.benefit,
        enrolled_at=standing.enrolled_at,
        expiry=standing.expires_at,
        cut_off=standing.charge_fen is not None,
        biz_time=request.at,
        offline=False,
    )
    return use_class is UseClass.REGULAR
