"""What a cancel let a member off, in the ledger: noted with its funder, and the stores topped up.

It follows u: every commit that moves u of a cancelled membership books the difference to what was booked before, so
the entries always say what min(F, u) - min(F_eff, u) is now.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from psycopg import AsyncCursor

from models.domain import ledger
from models.domain.charging import Branch
from models.domain.ledger import Place, StoreShare, Transaction
from models.domain.membership_actions import waived_fen
from models.domain.money import allocate
from models.domain.plans import FeeShares
from models.domain.settlement import Standing
from models.tables.control import shares_of


@dataclass(frozen=True, slots=True)
class GivenUp:
    """`fen` of the fee, and what the funder owes each store for it."""

    fen: int = 0
    topped_up: tuple[StoreShare, ...] = ()


async def given_up(cur: AsyncCursor[Any], standing: Standing) -> GivenUp:
    """As the standing and the usage lines say now, under the row lock."""
    if standing.fee_eff_fen >= standing.fee_fen:
        return GivenUp()
    fen = waived_fen(standing)
    if not fen and standing.branch is not Branch.FEE:  # a task that was kept costs nothing either way
        return GivenUp()
    shares = (await shares_of(cur, [standing.id])).get(standing.id, ())
    missing = ledger.top_ups(standing.fee_fen, standing.fee_eff_fen, standing.used_fen, shares, standing.branch)
    if missing and standing.plan.fee_shares is FeeShares.USAGE:  # the reduced fee goes to the stores as well
        parts = allocate(min(standing.fee_eff_fen, standing.used_fen), [share.fen for share in shares])
        received = [replace(share, fen=part) for share, part in zip(shares, parts, strict=True)]
        missing = ledger.promised_top_ups(shares, received)
    return GivenUp(fen, missing)


def given_up_change(
    number: str, standing: Standing, before: GivenUp, after: GivenUp, business_date: str
) -> list[Transaction]:
    """The entries from `before` to `after`, under `number`; none when nothing changed."""
    by_place: Counter[Place] = Counter()
    for share in after.topped_up:
        by_place[share.place] += share.fen
    for share in before.topped_up:
        by_place[share.place] -= share.fen
    changed = tuple(StoreShare(place, fen) for place, fen in by_place.items() if fen)
    if before.fen == after.fen and not changed:
        return []
    return [
        ledger.given_up(
            number,
            funder=standing.plan.funder_entity,
            fen=after.fen - before.fen,
            topped_up=changed,
            business_date=business_date,
        )
    ]
