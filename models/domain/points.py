"""Loyalty points: whole numbers, earned by what was paid, worth one fen each when they are paid with.

One account per member and brand, as a list of moves: balance = earned + restored - burned - reversed - expired. What is
taken comes out of the lots that expire first. A balance may be below 0 (goods came back whose points were spent): that
is a debt, which later points fill; what may be spent is never below 0. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from models.domain.ids import LegalEntityId, MemberId, SaleId, StoreId, VoucherId
from models.domain.money import Rounding, allocate, cash_rounded_fen, divide, require_fen
from models.domain.plans import Text
from models.domain.pricing import Flag, Item, Quote, QuoteLine, VoucherTaken
from models.domain.vouchers import Voucher, VoucherStage

POINTS = VoucherId("points")
"""The number of the voucher that points are in a sale; no chain's voucher may have it."""
POINTS_CODE = "POINTS"
NAME = Text(zh="积分", en="Points")
_ENTERED = re.compile(r"(?:POINTS|积分)[ :]?(\d{1,9})?", re.ASCII)
_NEVER_PAID_WITH = frozenset({Flag.TOBACCO, Flag.AGENCY})
EXCLUDED = frozenset({str(Flag.NO_POINTS), str(Flag.TOBACCO), str(Flag.AGENCY)})


@dataclass(frozen=True, slots=True)
class PointsPolicy:
    """A brand's rule. `owner` is the company that owes the points; a point is earned for each fen_per_point paid."""

    brand: str
    owner: LegalEntityId
    fen_per_point: int = 100
    expires_days: int = 365
    excluded_flags: frozenset[str] = EXCLUDED

    def __post_init__(self) -> None:
        if self.fen_per_point < 1 or not 1 <= self.expires_days <= 36_500:
            raise ValueError("fen_per_point is 1 or more, expires_days 1 to 36500")
        if not self.brand or not self.owner:
            raise ValueError("points have a brand and an owner")


_POLICY_FIELDS = frozenset({"brand", "owner", "fen_per_point", "expires_days", "excluded_flags"})


def read_policy(document: Mapping[str, Any]) -> PointsPolicy:
    """The policy of a chain's file. Tobacco and agency sales are out whatever it says. Raises ValueError."""
    if unknown := set(document) - _POLICY_FIELDS:
        raise ValueError(f"points: unknown {', '.join(sorted(unknown))}")
    fields = dict(document)
    flags = frozenset(str(one) for one in fields.get("excluded_flags", EXCLUDED))
    if strangers := flags - {str(flag) for flag in Flag}:
        raise ValueError(f"points: unknown flag {min(strangers)!r}")
    try:
        return PointsPolicy(**{**fields, "excluded_flags": flags | {str(Flag.TOBACCO), str(Flag.AGENCY)}})
    except (TypeError, ValueError) as error:
        raise ValueError(f"points: {error}") from None


def entered_points(code: str) -> int | None:
    """What a voucher code asks for: `POINTS 500` -> 500, `POINTS` -> -1 (as many as possible); None: no points."""
    found = _ENTERED.fullmatch(code.strip().upper())
    if found is None:
        return None
    return int(found[1]) if found[1] is not None else -1


def points_voucher(policy: PointsPolicy) -> Voucher:
    """What points are counted by among the vouchers: never entered as one."""
    return Voucher(POINTS, POINTS_CODE, NAME, VoucherStage.ORDER, policy.owner, value_fen=1)


# ---------------------------------------------------------------- earning


@dataclass(frozen=True, slots=True)
class SalePoints:
    """What a sale earned, with the lines that it follows from: (line, fen). `expires_at`: of the lot."""

    brand: str
    owner: LegalEntityId
    earned: int
    lines: tuple[tuple[int, int], ...]
    expires_at: datetime


def earning_lines(lines: Iterable[tuple[int, int, Iterable[str]]], policy: PointsPolicy) -> tuple[tuple[int, int], ...]:
    """Of lines (number, fen paid, flags) those that earn, with the fen."""
    return tuple((line, fen) for line, fen, flags in lines if fen > 0 and not policy.excluded_flags & set(flags))


def earned_points(lines: Sequence[tuple[int, int]], policy: PointsPolicy) -> int:
    """Points for these lines together, a part of a point left out."""
    return divide(sum(fen for _, fen in lines), policy.fen_per_point, Rounding.FLOOR)


def reversed_points(earned: int, lines: Sequence[tuple[int, int]], back: Mapping[int, int], before: int) -> int:
    """How many more points go back when of these lines `back` fen by line came back in all; `before` went already.

    In proportion, rounded for the member until all is back: then all of them went.
    """
    total = sum(fen for _, fen in lines)
    if not total:
        return 0
    gone = sum(min(fen, back.get(line, 0)) for line, fen in lines)
    return max(0, divide(earned * gone, total, Rounding.FLOOR) - before)


# ---------------------------------------------------------------- paying with points


def pay_with(
    priced: Quote,
    points: int,
    owner: LegalEntityId,
    lines: Sequence[tuple[int, Iterable[str]]],
    items: Mapping[str, Item],
) -> Quote:
    """The quote after so many points: a fen off for each, after every discount, over what points may pay for.

    They do not touch what a membership charges later. Goods that points never pay for: tobacco, agency sales.
    `lines`: each line's number with the till's flags; those of `items` count beside them.
    """
    flags = dict(lines)
    may = [
        0 if _NEVER_PAID_WITH & {*flags.get(line.line, ()), *_flags(items, line.code)} else line.net_fen
        for line in priced.lines
    ]
    fen = min(require_fen(points), sum(may))
    if fen <= 0:
        return priced
    parts = allocate(fen, may)
    taken = VoucherTaken(
        POINTS,
        POINTS_CODE,
        NAME,
        owner,
        fen,
        tuple((line.line, part) for line, part in zip(priced.lines, parts, strict=True) if part),
    )
    due = priced.due_fen - fen
    return replace(
        priced,
        lines=tuple(_less(line, part) for line, part in zip(priced.lines, parts, strict=True)),
        discount_fen=priced.discount_fen + fen,
        due_fen=due,
        cash_due_fen=cash_rounded_fen(due),
        vouchers=(*priced.vouchers, taken),
    )


def _flags(items: Mapping[str, Item], code: str) -> frozenset[str]:
    item = items.get(code)
    return item.flags if item is not None else frozenset()


def _less(line: QuoteLine, fen: int) -> QuoteLine:
    if not fen:
        return line
    why = NAME if line.why is None else Text(zh=f"{line.why.zh}；{NAME.zh}", en=f"{line.why.en}; {NAME.en}")
    return replace(line, discount_fen=line.discount_fen + fen, net_fen=line.net_fen - fen, why=why)


# ---------------------------------------------------------------- the account


class MoveKind(StrEnum):
    """What moves points. EARN and RESTORE make lots."""

    EARN = "earn"
    RESTORE = "restore"
    """Goods that were paid with points came back: a new lot."""
    BURN = "burn"
    REVERSE = "reverse"
    """Goods that earned points came back."""
    EXPIRE = "expire"


LOTS = (MoveKind.EARN, MoveKind.RESTORE)


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a member's account; `points` >= 0, the kind says which way. `lines`: of EARN (`SalePoints`)."""

    id: str
    brand: str
    owner: LegalEntityId
    member: MemberId | None
    kind: MoveKind
    points: int
    sale: SaleId
    store: StoreId
    at: datetime
    expires_at: datetime | None = None
    lines: tuple[tuple[int, int], ...] = ()

    @property
    def signed(self) -> int:
        """What it adds to the balance."""
        return self.points if self.kind in LOTS else -self.points


def balance(moves: Iterable[Move]) -> int:
    """Earned and restored, less burned, reversed and expired; below 0: a debt."""
    return sum(move.signed for move in moves)


def expiring(moves: Sequence[Move], at: datetime) -> int:
    """Points of lots that are over at `at` and still unspent: what an EXPIRE takes now.

    What was ever taken counts against the lots that expire first.
    """
    over = sum(move.points for move in moves if move.expires_at is not None and move.expires_at <= at)
    taken = sum(move.points for move in moves if move.kind not in LOTS)
    return max(0, over - taken)


def spendable(moves: Sequence[Move], at: datetime) -> int:
    """What may be paid with at `at`, never below 0."""
    return max(0, balance(moves) - expiring(moves, at))
