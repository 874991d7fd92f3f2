"""What a benefit is, where it counts, and what one use of it is worth on given lines. Integer fen, nothing rounded up.

Whoever prices (the screen, the sale) hands in the lines, whoever classifies checks a use against `bound_fen`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum

from models.domain.calendar import require_instant, zone_of
from models.domain.ids import BenefitId
from models.domain.money import Rounding, allocate, divide
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


WHOLE_BASIS_POINTS = 10_000

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


@dataclass(frozen=True, slots=True)
class Goods:
    """One basket line as a benefit sees it: `left_fen` >= 0 is what earlier discounts left of `gross_fen`.

    `unit_fen` is the price of one piece, or of one kilogram with flag `weight`; `quantity` counts pieces.
    """

    code: str
    quantity: int
    unit_fen: int
    gross_fen: int
    left_fen: int
    flags: frozenset[str] = frozenset()


def bound_fen(benefit: Benefit) -> int:
    """The most that one use is worth on any basket: a use that claims more was made up."""
    return benefit.value_fen


def worth(benefit: Benefit, goods: Sequence[Goods], uses: int = 1) -> tuple[tuple[int, ...], ...]:
    """What `uses` uses one after the other take off each line, fen per line in the order of `goods`.

    Each use counts on what those before it left; one that would be worth nothing ends the list, so it may be shorter
    than `uses`. A use takes at most `bound_fen`, a line never falls below 0, and quotients are rounded down; what is
    not a line's own goes over the lines by largest remainder. Where and when the benefit holds is `holds_at`'s.
    """
    if benefit.kind is BenefitKind.NTH_ITEM:
        return _nth_items(benefit, goods, uses)
    left = [line.left_fen if _counts(benefit, line) else 0 for line in goods]
    taken: list[tuple[int, ...]] = []
    for _ in range(uses):
        off = _offs(benefit, goods, left)
        fen = min(benefit.value_fen, _of(benefit, sum(off)))
        if fen == 0:
            break
        parts = tuple(allocate(fen, off))
        taken.append(parts)
        left = [before - part for before, part in zip(left, parts, strict=True)]
    return tuple(taken)


def _counts(benefit: Benefit, line: Goods) -> bool:
    priced = benefit.kind is not BenefitKind.TIER_PRICE or line.code in benefit.prices_fen
    return priced and benefit.scope.covers(line.flags, line.code)


def _of(benefit: Benefit, eligible_fen: int) -> int:
    if benefit.kind is BenefitKind.PERCENT:
        return divide(eligible_fen * benefit.basis_points, WHOLE_BASIS_POINTS, Rounding.FLOOR)
    return eligible_fen


def _offs(benefit: Benefit, goods: Sequence[Goods], left: Sequence[int]) -> list[int]:
    """What could be taken off each line: all that is left of it, or what is above the members' price."""
    if benefit.kind is not BenefitKind.TIER_PRICE:
        return list(left)
    return [
        max(fen - _members_price_fen(benefit, line), 0) if fen else 0 for line, fen in zip(goods, left, strict=True)
    ]


def _members_price_fen(benefit: Benefit, line: Goods) -> int:
    price_fen = benefit.prices_fen[line.code]
    if "weight" not in line.flags:
        return line.quantity * price_fen
    if line.unit_fen <= price_fen:
        return line.gross_fen
    return divide(line.gross_fen * price_fen, line.unit_fen, Rounding.CEIL)


def _nth_items(benefit: Benefit, goods: Sequence[Goods], uses: int) -> tuple[tuple[int, ...], ...]:
    """Pieces from the dearest down in groups of n; each use makes the cheapest of its group cheaper.

    Goods by weight are no pieces. A piece of a line that was discounted before costs its even share, rounded down.
    """
    pieces = [
        (line.left_fen // line.quantity, index)
        for index, line in enumerate(goods)
        if line.quantity > 0 and "weight" not in line.flags and _counts(benefit, line)
    ]
    pieces.sort(key=lambda piece: (-piece[0], piece[1]))
    taken: list[tuple[int, ...]] = []
    for use in range(1, uses + 1):
        seen = 0
        for piece_fen, index in pieces:
            seen += goods[index].quantity
            if seen >= use * benefit.nth:
                share = divide(piece_fen * benefit.basis_points, WHOLE_BASIS_POINTS, Rounding.FLOOR)
                fen = min(benefit.value_fen, share)
                break
        else:
            break
        if fen == 0:
            break
        taken.append(tuple(fen if n == index else 0 for n in range(len(goods))))
    return tuple(taken)


def holds_at(scope: Scope, *, store: str, channel: str, at: datetime, zone: str) -> bool:
    """True when the benefit may be used in this store, by this channel, at this instant, as the store's clocks in
    `zone` show it: a night that clocks make longer or shorter is still one window.
    """
    if (scope.stores and store not in scope.stores) or (scope.channels and channel not in scope.channels):
        return False
    local = require_instant(at).astimezone(zone_of(zone))
    opened_on = local.isoweekday()
    if scope.hours is not None:
        now, window = local.time(), scope.hours
        if window.crosses_midnight and now < window.ends:
            opened_on = (opened_on - 2) % 7 + 1  # the night belongs to the day before
        elif now < window.begins or (not window.crosses_midnight and now >= window.ends):
            return False
    return not scope.weekdays or opened_on in scope.weekdays
