"""The franchise statement of one store, month and legal entity: which line each leg of the ledger belongs to. Pure.

A statement is a partition: every leg that concerns the store stands in exactly one line, so the lines of what the store
earned and the lines of where that money is have the same sum, and each line opens into its transactions.
"""

from __future__ import annotations

import calendar
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from models.domain.accounts import kind_of, store_of
from models.domain.errors import Refused

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)

POINTS_MOVED = "points_moved"
GIVEN_UP = "given_up"
SALE_KINDS = frozenset({"sale_paid", "sale_refunded", "sale_voided", "takings_without_order"})
BENEFIT_KINDS = frozenset({"benefit_used", "benefit_reversed"})


class Line(StrEnum):
    """A line of the statement. First what the store earned (credits are shown positive), then where it is (debits)."""

    GROSS_SALES = "gross_sales"
    ABSORBED = "absorbed"
    DISCOUNTS = "discounts"
    BENEFITS = "benefits"
    CLAWED_BACK = "clawed_back"
    TOPPED_UP = "topped_up"
    FEE_SHARES = "fee_shares"
    SELF_FUNDED = "self_funded"
    AGENCY = "agency"
    SUSPENSE = "suspense"
    ROUNDING = "rounding"
    FEES = "fees"
    OTHER = "other"
    CASH = "cash"
    PROVIDER = "provider"
    PROVIDER_FUNDED = "provider_funded"
    COLLECTED_BY = "collected_by"
    OWED_BY = "owed_by"
    OWED_TO = "owed_to"
    MEMBERS = "members"
    OTHER_STORES = "other_stores"


MONEY = frozenset({Line.CASH, Line.PROVIDER, Line.PROVIDER_FUNDED, Line.COLLECTED_BY, Line.OWED_BY, Line.OWED_TO,
                   Line.MEMBERS, Line.OTHER_STORES})  # fmt: skip
"""Lines that say where the money is, or who owes it."""

_BY_ACCOUNT = {
    "membership_fee_income": Line.FEE_SHARES,
    "agency_payable": Line.AGENCY,
    "suspense": Line.SUSPENSE,
    "cash_rounding": Line.ROUNDING,
    "provider_fee": Line.FEES,
    "absorbed": Line.SELF_FUNDED,
    "given_up": Line.SELF_FUNDED,
    "subsidy": Line.SELF_FUNDED,
    "till": Line.CASH,
    "safe": Line.CASH,
    "provider_clearing": Line.PROVIDER,
    "provider_receivable": Line.PROVIDER_FUNDED,
    "due_to": Line.OWED_TO,
    "member_receivable": Line.MEMBERS,
    "bad_debt": Line.MEMBERS,
    "refund_payable": Line.MEMBERS,
}
_OF_A_PARTY = frozenset({Line.PROVIDER, Line.PROVIDER_FUNDED, Line.COLLECTED_BY, Line.OWED_BY, Line.OWED_TO})


@dataclass(frozen=True, slots=True)
class Part:
    """Legs of one kind of transaction on one account and day that concern the store.

    `absorbed`: a benefit whose cost was not the store's discount but its funder's.
    """

    business_date: str
    kind: str
    account: str
    absorbed: bool
    fen: int
    legs: int


def line_of(kind: str, account: str, *, absorbed: bool) -> tuple[Line, str]:
    """The line of a leg, and the provider or legal entity that it names."""
    head = kind_of(account)
    party = account.partition(":")[2]
    match head:
        case "sales_gross":
            line = Line.ABSORBED if absorbed else Line.GROSS_SALES
        case "discount_given" if kind in BENEFIT_KINDS:
            line = Line.BENEFITS
        case "points_given":
            line = Line.DISCOUNTS
        case "discount_given" if kind in SALE_KINDS or kind == POINTS_MOVED:
            line = Line.DISCOUNTS
        case "discount_given":
            line = Line.TOPPED_UP if kind == GIVEN_UP else Line.CLAWED_BACK
        case "due_from":
            line = Line.COLLECTED_BY if kind in SALE_KINDS else Line.OWED_BY
        case _:
            line = _BY_ACCOUNT.get(head, Line.OTHER)
    return line, party if line in _OF_A_PARTY else ""


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One line: `shown_fen` as it reads (earned, or where it is), and how many legs stand behind it."""

    line: Line
    party: str
    shown_fen: int
    legs: int

    @property
    def key(self) -> str:
        """What names the line in an address."""
        return f"{self.line}:{self.party}" if self.party else str(self.line)


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account of the entity over the month: this store's part of the change, and everybody else's."""

    account: str
    opening_fen: int
    store_fen: int
    rest_fen: int
    closing_fen: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One store under one legal entity in one month.

    `from_date`, `to_date`: the days of the month on which the entity owned it; both empty when only older business was
    settled. `difference_fen` is how far the lines are from the ledger: 0, or the statement is wrong.
    """

    store: str
    entity: str
    month: str
    from_date: str
    to_date: str
    rows: tuple[StatementRow, ...]
    accounts: tuple[AccountRow, ...]
    days: tuple[tuple[str, dict[str, int]], ...]
    """By business date: what was shown per line."""
    difference_fen: int

    @property
    def earned_fen(self) -> int:
        """The store's month: the sum of what it earned, which is the sum of where it is."""
        return sum(row.shown_fen for row in self.rows if row.line not in MONEY)


def days_of(month: str) -> tuple[str, str]:
    """First and last day of `YYYY-MM`. Raises Refused `month_form`."""
    found = _MONTH.fullmatch(month)
    if found is None:
        raise Refused("month_form", f"{month!r} is no month", "say it as in 2026-11")
    return f"{month}-01", f"{month}-{calendar.monthrange(int(found[1]), int(found[2]))[1]:02d}"


def shown(line: Line, fen: int) -> int:
    """A debit-positive amount as its line shows it."""
    return fen if line in MONEY else -fen


def rows_of(parts: Iterable[Part]) -> tuple[StatementRow, ...]:
    """The lines, in their order; what is between two stores of the same entity closes the sum."""
    sums: defaultdict[tuple[Line, str], list[int]] = defaultdict(lambda: [0, 0])
    total_fen = 0
    for part in parts:
        one = sums[line_of(part.kind, part.account, absorbed=part.absorbed)]
        one[0] += part.fen
        one[1] += part.legs
        total_fen += part.fen
    if total_fen:
        sums[Line.OTHER_STORES, ""] = [-total_fen, 0]
    order = list(Line)
    keys = sorted(sums, key=lambda key: (order.index(key[0]), key[1]))
    return tuple(StatementRow(line, party, shown(line, sums[line, party][0]), sums[line, party][1])
                 for line, party in keys)  # fmt: skip


def statement_of(
    store: str,
    entity: str,
    month: str,
    owned: tuple[str, str],
    parts: Iterable[Part],
    accounts: Iterable[tuple[str, int, int]],
) -> Statement:
    """Put a statement together. `accounts`: (account, opening, closing) of the whole entity, from the ledger's sums.

    A store's own accounts must have moved by exactly what the lines say; any gap is the difference.
    """
    parts = tuple(parts)
    by_account: defaultdict[str, int] = defaultdict(int)
    by_day: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for part in parts:
        by_account[part.account] += part.fen
        line, _ = line_of(part.kind, part.account, absorbed=part.absorbed)
        by_day[part.business_date][str(line)] += shown(line, part.fen)
    table = [AccountRow(account, opening, by_account[account], closing - opening - by_account[account], closing)
             for account, opening, closing in accounts]  # fmt: skip
    known = {row.account for row in table}
    gap = sum(abs(row.rest_fen) for row in table if store_of(row.account) == store)
    gap += sum(abs(fen) for account, fen in by_account.items() if account not in known)
    rows = rows_of(parts)
    gap += abs(sum(row.shown_fen if row.line in MONEY else -row.shown_fen for row in rows))
    days = tuple((day, dict(by_day[day])) for day in sorted(by_day))
    return Statement(store, entity, month, *owned, rows, tuple(table), days, gap)
