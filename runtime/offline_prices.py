"""What a terminal needs to sell alone, as a part of its desired document: prices and benefits of its store's book."""

from __future__ import annotations

from itertools import islice
from typing import Any

from models.domain.book import StoreBook
from models.domain.plans import BenefitKind, Scope
from models.domain.pricing import Flag

INLINE_ITEMS_MAX = 200
"""About 20 kB. A longer list is a file of its own: the retained document is kept for each terminal by the broker."""


def offline_prices(book: StoreBook) -> dict[str, Any] | None:
    """`desired.config.offline`; None when the list is too long to stand in the document.

    Weighed goods are left out: their price is on the scale's own label, which only the server takes apart.
    """
    chain = book.chain_book
    sold = (item for item in chain.items.values() if Flag.WEIGHT not in item.flags)
    items = list(islice(sold, INLINE_ITEMS_MAX + 1))
    if len(items) > INLINE_ITEMS_MAX:
        return None
    return {
        "version": book.version,
        "items": [
            {
                "code": item.code,
                "name": item.name.to(book.language),
                "unit_fen": item.unit_fen,
                "flags": sorted(item.flags),
            }
            for item in items
        ],
        "benefits": [
            {"id": benefit.id, "name": benefit.name.to(book.language), "value_fen": benefit.value_fen}
            for plan in chain.plans.values()
            for benefit in plan.benefits
            # Another kind, or a narrower one, is for the server to judge.
            if benefit.kind is BenefitKind.FIXED_COUPON and benefit.scope == Scope()
        ],
    }
