"""Money that a provider collected after it had said no: asked about under its number, then booked by settlement."""

from __future__ import annotations

from datetime import timedelta

from models.domain.payments import Succeeded
from models.tables import clock
from models.tables.late_money import collected_after_all, doubtful_failures
from runtime.clock import Pool, Wall
from runtime.credits import secured_by_credit, settle
from runtime.holders import Holders
from runtime.plant import ProviderOf

ASKED_PER_SWEEP_MAX = 100
NOTICES_HEARD_FOR = timedelta(hours=1)
"""A notification that nobody heard in this time is in the next day's statement."""


class LateMoney:
    """Believes neither a notification nor a statement: the provider's answer to a query is what is booked."""

    def __init__(self, pool: Pool, providers: ProviderOf, *, wall: Wall) -> None:
        self._pool = pool
        self._holders = Holders(pool, providers, wall=wall)
        self._wall = wall

    async def sweep(self, chain: str, region: str) -> int:
        """How many were collected after all. The next run of settlement books them, capped at the due; the rest goes
        back.
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            since = self._wall() - NOTICES_HEARD_FOR
            calls = await doubtful_failures(cur, chain, region, since, limit=ASKED_PER_SWEEP_MAX)
            secured = await secured_by_credit(cur, calls) if calls else {}
            now = await clock.business_now(cur, self._wall())
        collected = 0
        for call in calls:
            if call.membership in secured:
                account = self._holders.account(call.owner, call.provider)
                answer = await settle(account, call, *secured[call.membership], now)
            else:
                holder = self._holders.of(call.owner, call.provider)
                answer = await holder.query_payment(number=call.number, amount_fen=call.fen)
            if isinstance(answer, Succeeded):
                async with self._pool.connection() as conn, conn.cursor() as cur:
                    collected += await collected_after_all(cur, call, answer, now)
        return collected
