"""What a benefit is, where it counts, and what one use of it is worth on given lines. Integer fen, nothing rounded up.

Whoever prices (the screen, the sale) hands in the lines, whoever classifies checks a use against `bound_fen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum

from models.domain.ids import BenefitId
from models.domain.plan_reader import Text


class BenefitKind(StrEnum):
    """What a use gives, never more than the eligible amount nor than the benefit's `value_fen`.

    FIXED_COUPON: `value_fen` off. PERCENT: `basis_points` of the eligible amount. NTH_ITEM: `basis_points` off the
    n-th dearest eligible piece. FREE_DELIVERY: the delivery charge. TIER_PRICE: down to the members' price of the item.
    """

    FIXED_COUPON = "fixed_coupon"
    PERCENT = "percent"
    NTH_ITEM = "nth_item"
    FREE_DELIVERY = "free_delivery"
    TIER_PRICE = "tier_price"


ALWAYS_EXCLUDED = frozenset({"no_discount", "tobacco", "agency"})
"""Law and contracts: no plan may discount tobacco, items marked no_discount, or agency sales."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `begins` until just before `ends`, store's local time; across midnight when `ends` is not after `begins`."""

    begins: time
    ends: time

    @property
    def crosses_midnight(self) -> bool:
        """True when the window that opens today closes tomorrow."""
        return self.ends <= self.begins


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a benefit counts. An empty set means everywhere; excluded flags always hold.

    `weekdays` are ISO numbers, Monday 1 .. Sunday 7; a window across midnight belongs to the day it opened on.
    """

    excluded_flags: frozenset[str] = ALWAYS_EXCLUDED
    items: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    weekdays: frozenset[int] = frozenset()
    hours: Window | None = None

    def covers(self, flags: frozenset[str], code: str | None = None) -> bool:
        """True when an item with these flags and this code may be discounted by the benefit."""
        return not (self.excluded_flags & flags) and (not self.items or code in self.items)

    @property
    def whole_baskets(self) -> bool:
        """True when it excludes no more goods than the law does: then it may be given on an amount without goods."""
        return not self.items and self.excluded_flags <= ALWAYS_EXCLUDED


@dataclass(frozen=True, slots=True)
class Benefit:
    """One line of a plan: `quota` uses over the whole period, each worth `value_fen` at most.

    `value_fen` is the coupon's value, and the cap of the other kinds. `basis_points`: PERCENT and NTH_ITEM.
    `nth`: NTH_ITEM. `prices_fen`: TIER_PRICE, members' price of a piece (of a kilogram) by item code.
    """

    id: BenefitId
    name: Text
    value_fen: int
    quota: int
    kind: BenefitKind = BenefitKind.FIXED_COUPON
    uses_per_sale_max: int = 1
    scope: Scope = Scope()
    basis_points: int = 0
    nth: int = 0
    prices_fen: Mapping[str, int] = field(default_factory=dict, hash=False)


def bound_fen(benefit: Benefit) -> int:
    """The most that one use is worth on any basket."""
    return benefit.value_fen


def holds_at(scope: Scope, *, store: str, channel: str, local: datetime) -> bool:
    """True when the benefit may be used in this store, by this channel, at this local wall time of the store."""
    if (scope.stores and store not in scope.stores) or (scope.channels and channel not in scope.channels):
        return False
    opened_on = local.isoweekday()
    if scope.hours is not None:
        now, window = local.time(), scope.hours
        if window.crosses_midnight and now < window.ends:
            opened_on = (opened_on - 2) % 7 + 1  # the night belongs to the day before
        elif now < window.begins or (not window.crosses_midnight and now >= window.ends):
            return False
    return not scope.weekdays or opened_on in scope.weekdays
