"""Credit memberships with the provider: signed by the member, each REGULAR use told, and settled by what was told.

The provider keeps records of its own and compares. So a use is written down to be told in the commit of the use itself,
under a number of its own; `sweep` tells it, again and again under that number, until the provider has it. Nothing is
cut off before that. A charge of 0 asks nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncCursor

from gateway.providers.port import PaymentProvider, SyncAction
from models.domain.ids import LegalEntityId, derived_id
from models.domain.membership import State
from models.domain.money import format_yuan
from models.domain.payments import (
    AgreementState,
    AnyAnswer,
    CreditTotals,
    Failed,
    FailReason,
    Pending,
    Succeeded,
    Unknown,
)
from models.domain.plans import GuaranteeKind
from models.domain.settlement import Call, CallKind, Standing
from models.tables import credit_records as records
from models.tables import memberships
from models.tables.credit_records import Agreement, CreditUse
from models.tables.settlement import save_standings
from runtime.clock import Pool, Wall
from runtime.plant import ProviderOf

TOLD_PER_SWEEP_MAX = 100
TELL_LEASE = timedelta(seconds=60)
TELL_AGAIN_AFTER = timedelta(seconds=5)
TELL_AGAIN_MAX = timedelta(minutes=10)
REFUSED_TRIES_MAX = 8
"""So often a use is refused before a person is asked; what stays unclear is told again for ever."""
HEARD_FOR = timedelta(days=3)
"""A provider repeats a notification for a day at most."""
NUMBER_WAITED_FOR = timedelta(days=3)
"""How long after the agreement's end a settlement waits for the number that only a notification brings."""


def is_credit(standing: Standing) -> bool:
    """True for a membership that the provider vouches for; one that needed a hold after all has no agreement."""
    return standing.guarantee == GuaranteeKind.SESAME_CREDIT and bool(standing.fee_fen)


def use_number(usage: str) -> str:
    """Under which the provider is told of a use, or of a reversal by its own id."""
    return f"Y{derived_id(usage, 'told')}"


# ---------------------------------------------------------------- in the commits of uses and reversals


async def note_use(
    cur: AsyncCursor[Any],
    standing: Standing,
    usage: str,
    sale: str,
    fen: int,
    paid_fen: int,
    at: datetime,
    now: datetime,
) -> None:
    """A REGULAR use of `standing` is to be told. What its sale took counts with its first use. `now`: wall time."""
    if not is_credit(standing) or not await records.load_agreements(cur, [standing.id]):
        return
    told_before = await records.sale_told(cur, standing.id, sale)
    totals = CreditTotals(fen, 0 if told_before else paid_fen, 1)
    use = CreditUse(use_number(usage), standing.id, usage, "", totals, at)
    await records.insert_uses(cur, standing.chain, standing.region, [use], now)


async def note_reversal(
    cur: AsyncCursor[Any],
    standing: Standing,
    reversal: str,
    usage: str,
    fen: int,
    whole: bool,
    at: datetime,
    now: datetime,
) -> None:
    """`fen` of a use were taken back; with the last of it (`whole`) the use counts no more, nor what its sale took.

    Once the charge is fixed the provider is told nothing: what is too much is refunded.
    """
    if not is_credit(standing) or standing.charge_fen is not None:
        return
    use = await records.told_of(cur, usage)
    if use is None:
        return
    totals = CreditTotals(fen, use.totals.paid_fen if whole else 0, use.totals.tasks if whole else 0)
    back = CreditUse(use_number(reversal), standing.id, usage, use.number, totals, at)
    await records.insert_uses(cur, standing.chain, standing.region, [back], now)


async def note_born_reversed(
    cur: AsyncCursor[Any],
    standing: Standing,
    usage: str,
    fen: int,
    tombstones: Sequence[tuple[str, int]],
    at: datetime,
    now: datetime,
) -> None:
    """Reversals that came before their use, in order of arrival; together they take back no more than it gave."""
    left_fen = fen
    for reversal, asked_fen in tombstones:
        back_fen = min(asked_fen, left_fen)
        left_fen -= back_fen
        if back_fen:
            await note_reversal(cur, standing, reversal, usage, back_fen, not left_fen, at, now)


class Credits:
    """Signs, listens and tells. Any number may run beside each other."""

    def __init__(self, pool: Pool, providers: ProviderOf, *, wall: Wall) -> None:
        self._pool = pool
        self._providers = providers
        self._wall = wall

    async def agreement(self, membership: str) -> Agreement | None:
        """What was signed, or is to be signed; None: nobody was asked yet."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            return (await records.load_agreements(cur, [membership])).get(membership)

    async def sign(self, standing: Standing) -> Pending | Failed | Unknown:
        """The text of the code with which the member signs; asked again, the same. The row is there before the ask."""
        number = f"A{standing.id}"
        agreement = Agreement(standing.id, number, "", "", "", "", ends_at=standing.expires_at)
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await records.insert_agreement(cur, agreement)
        answer = await self._providers(standing.owner).sign_credit(
            number=number, fee_fen=standing.fee_fen, subject=standing.plan.name.zh
        )
        return Unknown("signed without its number") if isinstance(answer, Succeeded) else answer

    async def sweep(self, chain: str, region: str) -> int:
        """Hear what was signed and what is over, tell uses, park what the provider will not take. How many moved."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            news = await records.heard(cur, chain, region, self._wall() - HEARD_FOR, limit=TOLD_PER_SWEEP_MAX)
        moved = 0
        for one in news:
            moved += await self._hear(one)
        moved += await self._tell(chain, region)
        return moved + await self._park(chain, region)

    # ------------------------------------------------------------ what the provider says

    async def _hear(self, heard: records.Heard) -> bool:
        """A notification brings numbers; what they mean the provider is asked under them."""
        agreement = heard.agreement
        answer = await self._providers(LegalEntityId(heard.owner)).query_credit(
            number=agreement.number, agreement_no=heard.agreement_no
        )
        if not isinstance(answer, Succeeded):
            return False
        said = answer.result
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await memberships.lock_membership(cur, agreement.membership)
            assert standing is not None
            known = (await records.load_agreements(cur, [standing.id]))[standing.id]
            if not known.agreement_no and said.state is not AgreementState.ENDED:
                await records.save_signed(cur, standing.id, said.agreement_no, said.payer)
            if heard.settlement_no and said.state is not AgreementState.ACTIVE:
                await records.save_settlement_no(cur, standing.id, heard.settlement_no)
        return True

    # ------------------------------------------------------------ what it is told

    async def _tell(self, chain: str, region: str) -> int:
        told = 0
        while True:
            now = self._wall()
            async with self._pool.connection() as conn, conn.cursor() as cur:
                due = await records.lock_open(cur, chain, region, now, now + TELL_LEASE, limit=TOLD_PER_SWEEP_MAX)
            if not due:
                return told
            for use, agreement, owner in due:
                told += await self._tell_one(use, agreement, LegalEntityId(owner))

    async def _tell_one(self, use: CreditUse, agreement: Agreement, owner: LegalEntityId) -> bool:
        if not agreement.agreement_no:
            return False  # used before we heard that it was signed: told with the lease's end
        answer = await self._providers(owner).sync_use(
            number=use.number,
            agreement_no=agreement.agreement_no,
            payer=agreement.payer,
            action=SyncAction.REVERSAL if use.reverses else SyncAction.USE,
            totals=use.totals,
            at=use.at,
            reverses=use.reverses,
        )
        async with self._pool.connection() as conn, conn.cursor() as cur:
            if isinstance(answer, Succeeded):
                await records.save_told(cur, use.number, "done")
                return True
            why = f"{answer.reason} ({answer.code})" if isinstance(answer, Failed) else "no definite answer"
            final = isinstance(answer, Failed) and use.tries >= REFUSED_TRIES_MAX
            again = self._wall() + min(TELL_AGAIN_AFTER * (1 << min(use.tries, 10)), TELL_AGAIN_MAX)
            await records.save_told(cur, use.number, "failed" if final else "open", again, why)
        return final

    async def _park(self, chain: str, region: str) -> int:
        """Over, and the provider did not take a use: its sums would differ, so a person looks first."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            untold = await records.lock_untold(cur, chain, region, limit=TOLD_PER_SWEEP_MAX)
            for membership, why in untold:
                standing = await memberships.lock_membership(cur, membership)
                assert standing is not None
                parked = replace(standing, state=State.PARKED)
                await save_standings(cur, [(parked, f"the provider was not told of {why}")])
        return len(untold)


# ---------------------------------------------------------------- settlement


Secured = dict[str, tuple[Agreement, CreditTotals]]


async def secured_by_credit(cur: AsyncCursor[Any], calls: Sequence[Call]) -> Secured:
    """Of the memberships of these calls those that the provider settles itself, with what it was told of them."""
    agreements = await records.load_agreements(cur, [call.membership for call in calls])
    if not agreements:
        return {}
    told = await records.totals_told(cur, list(agreements))
    return {
        membership: (agreement, told.get(membership, CreditTotals(0, 0, 0)))
        for membership, agreement in agreements.items()
        if agreement.agreement_no
    }


async def settle(
    provider: PaymentProvider, call: Call, agreement: Agreement, told: CreditTotals, now: datetime
) -> AnyAnswer:
    """One call under its number; made again it is the query, so it may be made after any answer or none.

    RECORDS_DIFFER carries both figures in its code: ours, then what the provider said.
    """
    if not agreement.settlement_no:
        if now < max(call.not_before, agreement.ends_at) + NUMBER_WAITED_FOR:
            return Unknown("the number of the settlement comes with a notification", absent=True)
        return Failed(FailReason.RECORDS_DIFFER, "no notification brought the number of the settlement")
    if call.kind is CallKind.REFUND:
        return await provider.refund_credit(
            number=call.number,
            agreement_no=agreement.agreement_no,
            payer=agreement.payer,
            settlement_no=agreement.settlement_no,
            amount_fen=call.fen,
            reason="use reversed",
        )
    answer = await provider.settle_credit(
        number=call.number,
        agreement_no=agreement.agreement_no,
        payer=agreement.payer,
        settlement_no=agreement.settlement_no,
        amount_fen=call.fen,
        totals=told,
    )
    if isinstance(answer, Failed) and answer.reason is FailReason.RECORDS_DIFFER:
        ours = f"{format_yuan(told.discount_fen)} {format_yuan(told.paid_fen)} {told.tasks}"
        return Failed(answer.reason, f"ours: {ours}; the provider: {answer.code}")
    return answer


async def tried_again(cur: AsyncCursor[Any], standing: Standing, wall_now: datetime) -> Standing | None:
    """A parked credit membership goes on where it stopped, under the same numbers: its uses are told again, or its
    settlement is asked for again. None: it was not parked for that.
    """
    if standing.state is not State.PARKED or not is_credit(standing):
        return None
    if standing.charge_fen is None:
        return replace(standing, state=State.EXPIRED) if await records.tell_again(cur, standing.id, wall_now) else None
    return replace(standing, state=State.UNKNOWN) if await records.settle_again(cur, standing.id) else None
