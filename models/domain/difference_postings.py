"""What reconciliation books: a provider's fee, what waits for its day, what is moved away or taken as a loss.

Every transaction here has one leg in `provider_clearing:{provider}` of the account's entity, or none: then an amount
moves on from where an earlier one put it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum

from models.domain.ids import LegalEntityId
from models.domain.ledger import Entry, Transaction, clearing


class Remedy(StrEnum):
    """Where a difference may be booked to, by an operator."""

    SUSPENSE = "suspense"
    """It waits to be matched by hand: `suspense:{provider}`."""
    FEE = "fee"
    """The provider charged it: `provider_fee:{provider}`."""
    LOSS = "loss"
    """Nobody will explain it: `reconciliation_loss:{provider}`."""


def timing_account(provider: str) -> str:
    """What one side has and the other will have on another day. It ends at 0."""
    return f"timing:{provider}"


def fee_account(provider: str) -> str:
    """What the provider kept for its service."""
    return f"provider_fee:{provider}"


def remedy_account(remedy: Remedy, provider: str) -> str:
    """The account behind a remedy."""
    match remedy:
        case Remedy.SUSPENSE:
            return f"suspense:{provider}"
        case Remedy.FEE:
            return fee_account(provider)
        case Remedy.LOSS:
            return f"reconciliation_loss:{provider}"


def reconciled(
    number: str, *, entity: LegalEntityId, provider: str, legs: Mapping[str, int], business_date: date
) -> Transaction:
    """What one run books on its day, debit positive: fees, timing, and what of an earlier run does not stand any more.

    The clearing account takes the balance, and so becomes what the statement says.
    """
    return _into_clearing("reconciled", number, entity, provider, legs, business_date)


def difference_resolved(
    number: str,
    *,
    entity: LegalEntityId,
    provider: str,
    difference_fen: int,
    remedy: Remedy,
    waits_in_timing: bool,
    business_date: date,
) -> Transaction:
    """A difference (the statement has so much more than we) moves to a remedy's account.

    Out of the clearing account, which then equals the statement; or on from timing, whose other side never came.
    """
    to = remedy_account(remedy, provider)
    if not waits_in_timing:
        return _into_clearing("difference_resolved", number, entity, provider, {to: -difference_fen}, business_date)
    legs = {timing_account(provider): difference_fen, to: -difference_fen}
    return _transaction("difference_resolved", number, entity, legs, business_date)


def _into_clearing(
    kind: str, number: str, entity: str, provider: str, legs: Mapping[str, int], business_date: date
) -> Transaction:
    whole = {**legs, clearing(provider): -sum(legs.values())}
    return _transaction(kind, number, entity, whole, business_date)


def _transaction(kind: str, number: str, entity: str, legs: Mapping[str, int], business_date: date) -> Transaction:
    entries = [(account, fen) for account, fen in legs.items() if fen]
    return Transaction(
        kind,
        number,
        tuple(
            Entry(leg, entity, account, fen, business_date.isoformat()) for leg, (account, fen) in enumerate(entries)
        ),
    )
