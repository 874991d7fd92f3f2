"""The franchise statement of a store: each leg in exactly one line, and a gap where the lines are not the ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.domain.errors import Refused
from models.domain.franchise import (
    BENEFIT_KINDS,
    GIVEN_UP,
    MONEY,
    POINTS_MOVED,
    SALE_KINDS,
    AccountRow,
    Line,
    Part,
    StatementRow,
    days_of,
    line_of,
    rows_of,
    shown,
    statement_of,
)

OTHER_KINDS = frozenset({"settled", "due_reduced", "zzz"})
KINDS = SALE_KINDS | BENEFIT_KINDS | OTHER_KINDS | {POINTS_MOVED, GIVEN_UP}


def again(word: str) -> str:
    """An equal word that is another object, as a database hands it out."""
    return "".join(list(word))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_line_of_a_leg_by_what_happened(kind: str) -> None:
    sale = kind in SALE_KINDS
    discount = (
        Line.BENEFITS if kind in BENEFIT_KINDS
        else Line.DISCOUNTS if sale or kind == POINTS_MOVED
        else Line.TOPPED_UP if kind == GIVEN_UP
        else Line.CLAWED_BACK
    )  # fmt: skip
    assert line_of(again(kind), "discount_given:s1", absorbed=False) == (discount, "")
    assert line_of(again(kind), "due_from:chain", absorbed=False) == (
        Line.COLLECTED_BY if sale else Line.OWED_BY,
        "chain",
    )
    assert line_of(kind, "sales_gross:s1", absorbed=False) == (Line.GROSS_SALES, "")
    assert line_of(kind, "sales_gross:s1", absorbed=True) == (Line.ABSORBED, "")
    assert line_of(kind, "points_given:s1", absorbed=False) == (Line.DISCOUNTS, "")


@pytest.mark.parametrize(
    ("account", "line", "party"),
    [
        ("membership_fee_income:s1", Line.FEE_SHARES, ""),
        ("agency_payable:s1", Line.AGENCY, ""),
        ("suspense:s1", Line.SUSPENSE, ""),
        ("cash_rounding", Line.ROUNDING, ""),
        ("provider_fee", Line.FEES, ""),
        ("absorbed:north", Line.SELF_FUNDED, ""),
        ("given_up:north", Line.SELF_FUNDED, ""),
        ("subsidy:north", Line.SELF_FUNDED, ""),
        ("till:s1:lane-1", Line.CASH, ""),
        ("safe:s1", Line.CASH, ""),
        ("provider_clearing:alipay", Line.PROVIDER, "alipay"),
        ("provider_receivable:alipay", Line.PROVIDER_FUNDED, "alipay"),
        ("due_to:chain", Line.OWED_TO, "chain"),
        ("member_receivable", Line.MEMBERS, ""),
        ("bad_debt", Line.MEMBERS, ""),
        ("refund_payable", Line.MEMBERS, ""),
        ("petty_expense:s1", Line.OTHER, ""),
    ],
)
def test_the_line_of_a_leg_by_its_account(account: str, line: Line, party: str) -> None:
    assert line_of("sale_paid", account, absorbed=False) == (line, party)


def test_what_was_earned_is_shown_the_other_way_round() -> None:
    assert {line: shown(line, 5) for line in Line} == {line: 5 if line in MONEY else -5 for line in Line}


def test_a_month_is_its_days() -> None:
    assert days_of("2026-02") == ("2026-02-01", "2026-02-28")
    assert days_of("2028-02") == ("2028-02-01", "2028-02-29")
    assert days_of("2026-11") == ("2026-11-01", "2026-11-30")
    for wrong in ("2026-13", "2026-00", "2026-1", "26-01", "2026-01-01", ""):
        with pytest.raises(Refused) as caught:
            days_of(wrong)
        assert caught.value.code == "month_form"


PARTS = (
    Part("2026-11-02", "sale_paid", "due_from:zone", False, 90, 1),
    Part("2026-11-02", "sale_paid", "due_from:chain", False, 10, 1),
    Part("2026-11-02", "sale_paid", "sales_gross:s1", False, -1000, 2),
    Part("2026-11-01", "sale_paid", "sales_gross:s1", False, -500, 1),
    Part("2026-11-01", "sale_paid", "till:s1:lane-1", False, 1300, 3),
    Part("2026-11-01", "sale_paid", "discount_given:s1", False, 100, 1),
)
ROWS = (
    StatementRow(Line.GROSS_SALES, "", 1500, 3),
    StatementRow(Line.DISCOUNTS, "", -100, 1),
    StatementRow(Line.CASH, "", 1300, 3),
    StatementRow(Line.COLLECTED_BY, "chain", 10, 1),
    StatementRow(Line.COLLECTED_BY, "zone", 90, 1),
)
ACCOUNTS = (
    ("sales_gross:s1", -7000, -8500),
    ("till:s1:lane-1", 200, 1500),
    ("discount_given:s1", 0, 100),
    ("due_from:chain", 40, 70),
    ("due_from:zone", 0, 90),
    ("sales_gross:s2", 0, -4000),
    ("sales_gross:s0", 0, -4000),
)


def test_the_lines_sum_up_their_legs_in_their_order() -> None:
    assert rows_of(PARTS) == ROWS
    assert [row.key for row in ROWS[2:4]] == ["cash", "collected_by:chain"]


@pytest.mark.parametrize("open_fen", [1, -300])
def test_what_is_between_two_stores_of_an_entity_closes_the_sum(open_fen: int) -> None:
    extra = Part("2026-11-03", "settled", "petty_expense:s1", False, open_fen, 1)
    rows = rows_of((*PARTS, extra))
    assert rows[-1] == StatementRow(Line.OTHER_STORES, "", -open_fen, 0)
    assert sum(row.shown_fen if row.line in MONEY else -row.shown_fen for row in rows) == 0
    assert rows_of(()) == ()


def test_a_statement_is_its_accounts_its_lines_and_its_days() -> None:
    found = statement_of(again("s1"), "north", "2026-11", ("2026-11-01", "2026-11-30"), iter(PARTS), ACCOUNTS)
    assert (found.rows, found.difference_fen, found.earned_fen) == (ROWS, 0, 1400)
    assert (found.store, found.entity, found.month) == ("s1", "north", "2026-11")
    assert (found.from_date, found.to_date) == ("2026-11-01", "2026-11-30")
    assert found.accounts[1] == AccountRow("till:s1:lane-1", 200, 1300, 0, 1500)
    assert found.accounts[3] == AccountRow("due_from:chain", 40, 10, 20, 70), "20 are of another store"
    assert found.days == (
        ("2026-11-01", {"gross_sales": 500, "cash": 1300, "discounts": -100}),
        ("2026-11-02", {"collected_by": 100, "gross_sales": 1000}),
    )


@pytest.mark.parametrize("fen", [7, -7])
def test_a_gap_between_the_lines_and_the_ledger_is_the_difference(fen: int) -> None:
    def difference(*accounts: tuple[str, int, int], parts: tuple[Part, ...] = PARTS) -> int:
        return statement_of("s1", "north", "2026-11", ("", ""), parts, accounts).difference_fen

    sales, *others = ACCOUNTS
    assert difference((sales[0], sales[1], sales[2] + fen), *others) == 7, "the store's account moved by more"
    assert difference(*others) == 1500, "an account that the entity does not have"
    parts = (*PARTS[1:], replace(PARTS[0], account="due_from:nobody", fen=fen))
    assert difference(*ACCOUNTS, parts=parts) == 7, "closed by what other stores have, and still nowhere in the sums"
