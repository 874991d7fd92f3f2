"""What kind of account each name of the ledger stands for, and which store it belongs to, if any."""

from __future__ import annotations

from enum import StrEnum


class Nature(StrEnum):
    """The five kinds of account. Debit positive: assets and expenses grow with debits, the others with credits."""

    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    INCOME = "income"
    EXPENSE = "expense"


_NATURES = {
    "provider_clearing": Nature.ASSET,
    "provider_receivable": Nature.ASSET,
    "till": Nature.ASSET,
    "safe": Nature.ASSET,
    "bank": Nature.ASSET,
    "member_receivable": Nature.ASSET,
    "due_from": Nature.ASSET,
    "due_to": Nature.LIABILITY,
    "refund_payable": Nature.LIABILITY,
    "agency_payable": Nature.LIABILITY,
    "suspense": Nature.LIABILITY,
    "points_liability": Nature.LIABILITY,
    "member_balance": Nature.LIABILITY,
    "member_deposit": Nature.LIABILITY,
    "sales_gross": Nature.INCOME,
    "membership_fee_income": Nature.INCOME,
    "other_income": Nature.INCOME,
    "points_breakage": Nature.INCOME,
    "discount_given": Nature.EXPENSE,
    "points_given": Nature.EXPENSE,
    "cash_rounding": Nature.EXPENSE,
    "cash_over_short": Nature.EXPENSE,
    "petty_expense": Nature.EXPENSE,
    "provider_fee": Nature.EXPENSE,
    "absorbed": Nature.EXPENSE,
    "given_up": Nature.EXPENSE,
    "subsidy": Nature.EXPENSE,
    "bad_debt": Nature.EXPENSE,
}

STORE_KINDS = (
    "sales_gross",
    "discount_given",
    "points_given",
    "membership_fee_income",
    "agency_payable",
    "suspense",
    "till",
    "safe",
    "cash_over_short",
    "other_income",
    "petty_expense",
)
"""Accounts whose second part, where they have one, is a store."""


def kind_of(account: str) -> str:
    """The first part of a name: `till:s001:lane-1` -> `till`."""
    return account.partition(":")[0]


def nature_of(account: str) -> Nature | None:
    """What kind of account it is; None for one that only notes something (the pending book), or is not known here."""
    return _NATURES.get(kind_of(account))


def store_of(account: str) -> str:
    """The store that an account belongs to; empty for an account of the whole legal entity."""
    kind, *rest = account.split(":")
    return rest[0] if rest and kind in STORE_KINDS else ""
