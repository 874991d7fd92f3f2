"""One store: the figures of its business day, told by the sessions of its lanes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from actors.effects import Turn
from models.domain.book import StoreBook
from models.domain.errors import Refused
from models.domain.ids import LaneId
from models.domain.messages import IncidentNoted, SaleNoted, StoreMessage, VoidBegun, VoidEnded


@dataclass(frozen=True, slots=True)
class Store:
    """Counts of the business day; the facts themselves are tables."""

    business_date: str = ""
    sales: int = 0
    takings_fen: int = 0
    discount_fen: int = 0
    incidents: int = 0
    voiding: tuple[tuple[str, LaneId], ...] = ()
    """Receipts that a lane voids now, one a lane at most: money for a receipt is given back in one place."""


def receive(store: Store, message: StoreMessage, now: datetime, book: StoreBook) -> Turn[Store]:
    """Count what a session told. A new business date starts from zero. Pure.

    Raises Refused `lane_busy` when another lane voids the same receipt: the whole turn of that event is refused.
    """
    today = book.business_date(now)
    if store.business_date != today:
        store = Store(business_date=today, voiding=store.voiding)
    match message:
        case SaleNoted():
            return Turn(
                replace(
                    store,
                    sales=store.sales + message.sales,
                    takings_fen=store.takings_fen + message.takings_fen,
                    discount_fen=store.discount_fen + message.discount_fen,
                )
            )
        case IncidentNoted():
            return Turn(replace(store, incidents=store.incidents + 1))
        case VoidBegun():
            if any(receipt == message.receipt and lane != message.lane for receipt, lane in store.voiding):
                raise Refused("lane_busy")
            others = tuple(one for one in store.voiding if one[1] != message.lane)
            return Turn(replace(store, voiding=(*others, (message.receipt, message.lane))))
        case VoidEnded():
            left = tuple(one for one in store.voiding if one != (message.receipt, message.lane))
            return Turn(replace(store, voiding=left))
        case _:
            assert_never(message)
