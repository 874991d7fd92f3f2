"""Money that a provider collected after it had said no: asked about under its number, then booked by settlement."""

from __future__ import annotations

from datetime import datetime, timedelta

from models.domain.payments import (
    AgreementState,
    AnyAnswer,
    CreditTotals,
    Failed,
    FailReason,
    Succeeded,
    Unknown,
)
from models.domain.settlement import Call
from models.tables import clock
from models.tables.credit_records import Agreement
from models.tables.late_money import claim_left_open, collected_after_all, doubtful_failures, save_late_answer
from runtime.clock import Pool, Wall
from runtime.credits import Secured, secured_by_credit, settle
from runtime.holders import Holders
from runtime.plant import ProviderOf

ASKED_PER_SWEEP_MAX = 100
ASK_AGAIN_AFTER = timedelta(minutes=5)
ASKED_FOR = timedelta(days=30)
"""Of business time, from the day on which the capture was due."""
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
            answer = await self._ask(call, secured, now)
            if isinstance(answer, Succeeded):
                async with self._pool.connection() as conn, conn.cursor() as cur:
                    collected += await collected_after_all(cur, call, answer, now)
        return collected + await self._left_open(chain, region, now)

    async def _left_open(self, chain: str, region: str, now: datetime) -> int:
        """Captures that never got a definite answer and whose membership is settled otherwise: asked until they have
        one. After ASKED_FOR the answer is taken to be no; a notification or a statement may still say otherwise.
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            wall = self._wall()
            calls = await claim_left_open(cur, chain, region, wall, wall + ASK_AGAIN_AFTER, limit=ASKED_PER_SWEEP_MAX)
            secured = await secured_by_credit(cur, calls) if calls else {}
        collected = 0
        for call in calls:
            if call.membership in secured:
                answer = await self._ask_without_charging(call, *secured[call.membership], now)
            else:
                answer = await self._ask(call, {}, now)
            if isinstance(answer, Unknown) and answer.absent:
                answer = Failed(FailReason.ORDER_UNKNOWN, answer.why)
            elif not isinstance(answer, Succeeded | Failed) and now - call.not_before > ASKED_FOR:
                answer = Failed(FailReason.CLOSED, f"no definite answer in {ASKED_FOR.days} days")
            if isinstance(answer, Succeeded | Failed):
                async with self._pool.connection() as conn, conn.cursor() as cur:
                    kept = await save_late_answer(cur, call, answer, now)
                collected += kept and isinstance(answer, Succeeded)
        return collected

    async def _ask_without_charging(
        self, call: Call, agreement: Agreement, told: CreditTotals, now: datetime
    ) -> AnyAnswer:
        """Of a credit, whose query is its request: nobody may charge it now, so it is made only once the agreement has
        ended at the provider. Such a one is settled, and never twice: the number's own answer comes, or a refusal.
        """
        account = self._holders.account(call.owner, call.provider)
        known = await account.query_credit(number=agreement.number, agreement_no=agreement.agreement_no)
        if not isinstance(known, Succeeded) or known.result.state is not AgreementState.ENDED:
            return Unknown("not settled yet")
        return await settle(account, call, agreement, told, now)

    async def _ask(self, call: Call, secured: Secured, now: datetime) -> AnyAnswer:
        if call.membership in secured:
            account = self._holders.account(call.owner, call.provider)
            return await settle(account, call, *secured[call.membership], now)
        holder = self._holders.of(call.owner, call.provider)
        return await holder.query_payment(number=call.number, amount_fen=call.fen)
