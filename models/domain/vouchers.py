"""Vouchers: what one is, what it takes off a basket, and why it does not. Pure.

A voucher takes fixed fen or basis points off each of its lines (stage line) or off their sum (stage order). Vouchers
apply in one canonical order: lines before orders, basis points before fixed fen, then by id; the light benefit comes
last. Each sees what the ones before it left. Its threshold counts what its goods still cost at that moment. What an
order voucher gives is allocated over its lines by largest remainder; no line ever falls below 0. Tobacco, goods marked
no_discount and agency sales are always out, whatever a definition says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from models.domain.benefits import ALWAYS_EXCLUDED, WHOLE_BASIS_POINTS, Goods, Scope, holds_at
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, VoucherId
from models.domain.money import allocate, format_yuan
from models.domain.plan_reader import Text

VOUCHERS_MAX = 20
"""Vouchers that one sale may have entered; more are refused at the till."""

EVERYWHERE = Scope()
"""All goods that may be discounted, in all stores, at all times."""

LIGHT_GROUP = "\0light"
"""The exclusion group of the light benefit's choices: one of them a sale. No definition can name it."""


class VoucherStage(StrEnum):
    """Where a voucher counts: on each of its lines, or on their sum. In this order."""

    LINE = "line"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Voucher:
    """One definition. Either `value_fen` (off each piece of a line, or off the order) or `basis_points`.

    `threshold_fen`: what its goods must still cost; `cap_fen`: the most it gives; `group`: of vouchers of one group a
    sale takes one; `exclusive`: taken alone, without any other voucher and without the light benefit. `valid_from`
    and `valid_until` (excluded) are instants. `quota`, `member_quota`, `sale_quota`: uses in all, per member, per
    sale. `funder`: who bears it. `offered`: on the screen of everybody, to be claimed. Raises ValueError for a
    definition that cannot be applied.
    """

    id: VoucherId
    code: str
    name: Text
    stage: VoucherStage
    funder: LegalEntityId
    value_fen: int = 0
    basis_points: int = 0
    threshold_fen: int = 0
    cap_fen: int | None = None
    group: str = ""
    exclusive: bool = False
    scope: Scope = EVERYWHERE
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    quota: int | None = None
    member_quota: int | None = None
    sale_quota: int = 1
    offered: bool = False
    flags: frozenset[str] = frozenset()
    """It counts for goods that carry one of these; empty: for all of its scope."""

    def __post_init__(self) -> None:
        if (self.value_fen > 0) == (self.basis_points > 0):
            raise ValueError(f"voucher {self.id}: give either value_fen or basis_points")
        if not 0 <= self.basis_points <= WHOLE_BASIS_POINTS:
            raise ValueError(f"voucher {self.id}: basis_points is 1..{WHOLE_BASIS_POINTS}")
        if min(self.value_fen, self.threshold_fen) < 0 or (self.cap_fen is not None and self.cap_fen < 1):
            raise ValueError(f"voucher {self.id}: amounts are not negative, a cap is at least 1 fen")
        counted = [quota for quota in (self.quota, self.member_quota) if quota is not None]
        if not 1 <= self.sale_quota <= VOUCHERS_MAX or min(counted, default=1) < 1:
            raise ValueError(f"voucher {self.id}: a quota is at least 1, sale_quota at most {VOUCHERS_MAX}")

    @property
    def counted(self) -> bool:
        """Its uses are counted against a quota, so reserving one takes a row lock."""
        return self.quota is not None or self.member_quota is not None

    def covers(self, goods: Goods) -> bool:
        """True when it counts for these goods: never for what the law or a contract excludes."""
        if goods.flags & ALWAYS_EXCLUDED or (self.flags and not self.flags & goods.flags):
            return False
        return self.scope.covers(goods.flags, goods.code)

    @property
    def whole_baskets(self) -> bool:
        """True when it may be given on an amount that names no goods."""
        return self.scope.whole_baskets and not self.flags

    @property
    def order(self) -> tuple[int, int, str]:
        """The place in the canonical order."""
        return (0 if self.stage is VoucherStage.LINE else 1, 0 if self.basis_points else 1, self.id)


# ---------------------------------------------------------------- may it be entered


@dataclass(frozen=True, slots=True)
class Counter:
    """Where and when a voucher is entered. `channel`: how the store sells (the lane's basket_owner)."""

    store: str
    channel: str
    zone: str
    now: datetime
    member: bool


def check_entry(voucher: Voucher, at: Counter, entered: Iterable[str]) -> None:
    """Raises Refused when the voucher cannot be entered here and now beside those `entered` (ids, repeated as often
    as entered): `voucher_entered`, `voucher_too_many`, `voucher_not_yet`, `voucher_over`, `voucher_not_here`,
    `voucher_not_now`, `voucher_members` (counted per member, and nobody was recognised)."""
    before = list(entered)
    if before.count(voucher.id) >= voucher.sale_quota:
        raise Refused("voucher_entered")
    if len(before) >= VOUCHERS_MAX:
        raise Refused("voucher_too_many")
    code = refusal_now(voucher, at)
    if code:
        raise Refused(code)


def refusal_now(voucher: Voucher, at: Counter) -> str:
    """Why this voucher does not count at this counter and moment; empty when it does."""
    if voucher.valid_from is not None and at.now < voucher.valid_from:
        return "voucher_not_yet"
    if voucher.valid_until is not None and at.now >= voucher.valid_until:
        return "voucher_over"
    somewhere = replace(voucher.scope, weekdays=frozenset(), hours=None)
    if not holds_at(somewhere, store=at.store, channel=at.channel, at=at.now, zone=at.zone):
        return "voucher_not_here"
    if not holds_at(voucher.scope, store=at.store, channel=at.channel, at=at.now, zone=at.zone):
        return "voucher_not_now"
    return "voucher_members" if voucher.member_quota is not None and not at.member else ""


# ---------------------------------------------------------------- what it takes off


@dataclass(frozen=True, slots=True)
class FittedVoucher:
    """A voucher on one basket: which of its lines count (`at`, positions), and what it takes off given their nets.

    `worth_fen` never rises when a net falls: that is what lets `best_set` bound a search.
    """

    voucher: Voucher
    at: tuple[int, ...]
    pieces: tuple[int, ...]

    def worth_fen(self, nets: Sequence[int]) -> int:
        """What it takes off lines that still cost `nets`, in fen."""
        voucher = self.voucher
        whole = sum([nets[index] for index in self.at])
        if whole < voucher.threshold_fen or not whole:
            return 0
        if voucher.stage is VoucherStage.LINE:
            fen = sum(self._of_lines(nets))
        elif voucher.basis_points:
            fen = whole * voucher.basis_points // WHOLE_BASIS_POINTS
        else:
            fen = min(voucher.value_fen, whole)
        cap = voucher.cap_fen
        return fen if cap is None or fen <= cap else cap

    def parts(self, nets: Sequence[int]) -> tuple[int, ...]:
        """The same line by line, one entry for each net."""
        fen = self.worth_fen(nets)
        if self.voucher.stage is VoucherStage.LINE:
            wanted = self._of_lines(nets)
            shares = wanted if fen == sum(wanted) else allocate(fen, wanted)
        else:
            shares = allocate(fen, [nets[index] for index in self.at])
        off = [0] * len(nets)
        for index, share in zip(self.at, shares, strict=True):
            off[index] = share
        return tuple(off)

    def _of_lines(self, nets: Sequence[int]) -> list[int]:
        points, value = self.voucher.basis_points, self.voucher.value_fen
        if points:
            return [nets[index] * points // WHOLE_BASIS_POINTS for index in self.at]
        return [min(nets[index], value * pieces) for index, pieces in zip(self.at, self.pieces, strict=True)]


def fit(voucher: Voucher, goods: Sequence[Goods]) -> FittedVoucher:
    """The voucher with its lines of this basket found."""
    at = tuple(n for n, one in enumerate(goods) if voucher.covers(one))
    return FittedVoucher(voucher, at, tuple(goods[n].quantity for n in at))


# ---------------------------------------------------------------- why


class WhyNot(StrEnum):
    """Why a voucher that was entered takes nothing off."""

    NO_GOODS = "no_goods"
    THRESHOLD = "threshold"
    GROUP = "group"
    EXCLUSIVE = "exclusive"
    NOT_BETTER = "not_better"


@dataclass(frozen=True, slots=True)
class NotTaken:
    """An entered voucher that the best set leaves out; `why` for the customer."""

    voucher: VoucherId
    code: str
    name: Text
    reason: WhyNot
    why: Text


def why_not(fitted: FittedVoucher, nets: Sequence[int], taken: Sequence[Voucher]) -> NotTaken:
    """Why `fitted` is not among `taken`, for lines that cost `nets` before any voucher."""
    voucher = fitted.voucher
    whole = sum(nets[index] for index in fitted.at)
    if not whole:
        reason, zh, en = WhyNot.NO_GOODS, "没有适用商品", "nothing here counts for it"
    elif whole < voucher.threshold_fen:
        short = format_yuan(voucher.threshold_fen - whole)
        reason, zh, en = WhyNot.THRESHOLD, f"还差 {short} 元", f"{short} short of its threshold"
    elif voucher.group and (other := next((one for one in taken if one.group == voucher.group), None)):
        reason, zh, en = WhyNot.GROUP, f"与“{other.name.zh}”同类，只能用一张", f"one of a kind with {other.name.en}"
    elif voucher.exclusive or any(one.exclusive for one in taken):
        reason, zh, en = WhyNot.EXCLUSIVE, "不可与其他优惠同用", "not together with another discount"
    else:
        reason, zh, en = WhyNot.NOT_BETTER, "不用它更划算", "the price is better without it"
    return NotTaken(voucher.id, voucher.code, voucher.name, reason, Text(zh, en))
