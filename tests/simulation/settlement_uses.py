"""A use taken back over rows in memory, as `runtime.uses` does it: its line, u, a task, a credit's sums, the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from actors.settlement import after_reversal, shared_out
from models.domain.charging import UseClass, task_done
from models.domain.ids import StoreId
from models.domain.ledger import Place, StoreShare, benefit_reversed
from models.domain.payments import CreditTotals
from models.domain.settlement import Standing
from models.tables.credit_records import Agreement
from tests.simulation import settlement_rows as rows
from tests.simulation.settlement_rows import Session, UseRow

PAID_FEN = 1200
"""What each use's sale took; every use has a sale of its own."""
FEE_INCOME = "membership_fee_income:"


def told(uses: Sequence[UseRow]) -> CreditTotals:
    """The sums of uses that nothing was taken back of."""
    return CreditTotals(sum(use.fen for use in uses), PAID_FEN * len(uses), len(uses))


async def reverse(cur: Session, reversal: str, use: str, fen: int, now: datetime, provider: str) -> None:
    """`fen` of a use are taken back, under the membership's lock."""
    line: UseRow = cur.get("use", use)
    await cur.lock("membership", line.membership)
    line = cur.get("use", use)
    back_fen = min(fen, line.fen - line.reversed_fen)
    if not await rows.added(cur, "reversal", reversal, reversal) or not back_fen:
        return
    one: Standing = cur.get("membership", line.membership).standing
    await cur.lock("use", use)
    cur.put("use", use, replace(line, reversed_fen=line.reversed_fen + back_fen))
    whole = line.reversed_fen + back_fen == line.fen
    if one.charge_fen is None:
        await _told_back(cur, one, back_fen, whole)
    taken = benefit_reversed(
        reversal, use, place=line.place, fen=back_fen, use_class=UseClass.REGULAR, funder=one.plan.funder_entity,
        business_date=one.business_date(now),
    )  # fmt: skip
    received = _fee_received(cur, one.id) if shared_out(one) else ()
    step = after_reversal(one, reversal, back_fen, line.place, now, provider=provider, fee_received=received)
    await rows.save_standings(cur, [(_recounted(cur, step.standing), "")])
    await rows.insert_calls(cur, step.calls)
    await rows.insert_transactions(cur, [taken, *step.transactions], now)


async def _told_back(cur: Session, one: Standing, back_fen: int, whole: bool) -> None:
    """The provider hears of it before the cutoff, as `Credits.sweep` tells it; afterwards it is told nothing."""
    agreement: tuple[Agreement, CreditTotals] | None = cur.get("agreement", one.id)
    if agreement is not None:
        sums = agreement[1]
        left = CreditTotals(sums.discount_fen - back_fen, sums.paid_fen - PAID_FEN * whole, sums.tasks - whole)
        await cur.lock("agreement", one.id)
        cur.put("agreement", one.id, (agreement[0], left))


def _recounted(cur: Session, one: Standing) -> Standing:
    if one.task_target is None or one.charge_fen is not None:
        return one
    uses = [use for use in cur.all("use") if use.membership == one.id and use.reversed_fen < use.fen]
    return replace(one, task_done=task_done(one.plan, [PAID_FEN] * len(uses)))


def _fee_received(cur: Session, membership: str) -> tuple[StoreShare, ...]:
    """As `models.tables.control.fee_received`; only the subject's uses are ever taken back."""
    numbers = {call.number for call in cur.all("call") if call.membership == membership}
    numbers.update(cur.all("reversal"))
    fens: Counter[Place] = Counter()
    for txn in cur.all("txn"):
        for entry in txn.entries:
            if txn.request_number in numbers and entry.account.startswith(FEE_INCOME):
                fens[Place(StoreId(entry.account.removeprefix(FEE_INCOME)), entry.entity)] -= entry.amount_fen
    places = sorted((place for place, fen in fens.items() if fen > 0), key=lambda place: (place.store, place.entity))
    return tuple(StoreShare(place, fens[place]) for place in places)
