"""What points mean in the ledger: a point is one fen that the brand's owner owes.

Accounts: points_liability:{brand} of the owner, points_given:{store} (what earning cost the store's entity),
points_breakage (what nobody spent). The liability is minus the sum of all balances, to the fen.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.domain.ids import LegalEntityId
from models.domain.ledger import Entry, Place, Transaction
from models.domain.points import Move, MoveKind

POINTS_MOVED = "points_moved"


def points_moved(number: str, moves: Sequence[Move], place: Place, business_date: str) -> Transaction:
    """The points of one sale, void or return. Earned: the store's entity pays the owner, who owes the member. Burned:
    the owner pays the store's entity for the discount that the points were. Reversed and restored: the mirror."""
    legs: list[tuple[str, str, int]] = []
    for move in moves:
        liability, fen = f"points_liability:{move.brand}", move.points
        match move.kind:
            case MoveKind.EARN:
                _across(legs, place.entity, f"points_given:{place.store}", move.owner, liability, fen)
            case MoveKind.REVERSE:
                _across(legs, place.entity, f"points_given:{place.store}", move.owner, liability, -fen)
            case MoveKind.BURN:
                _across(legs, move.owner, liability, place.entity, f"discount_given:{place.store}", fen)
            case MoveKind.RESTORE:
                _across(legs, move.owner, liability, place.entity, f"discount_given:{place.store}", -fen)
            case MoveKind.EXPIRE:
                pass  # no sale expires
    return _transaction(POINTS_MOVED, number, legs, business_date)


def points_expired(move: Move, business_date: str) -> Transaction:
    """Nobody spent them in time: the owner owes them no more."""
    legs = [
        (str(move.owner), f"points_liability:{move.brand}", move.points),
        (str(move.owner), "points_breakage", -move.points),
    ]
    return _transaction("points_expired", move.id, legs, business_date)


def _across(
    legs: list[tuple[str, str, int]], payer: LegalEntityId, debit: str, payee: LegalEntityId, credit: str, fen: int
) -> None:
    legs.append((payer, debit, fen))
    if payer != payee:
        legs += [(payer, f"due_to:{payee}", -fen), (payee, f"due_from:{payer}", fen)]
    legs.append((payee, credit, -fen))


def _transaction(kind: str, number: str, legs: Sequence[tuple[str, str, int]], business_date: str) -> Transaction:
    kept = [leg for leg in legs if leg[2]]
    entries = tuple(Entry(n, entity, account, fen, business_date) for n, (entity, account, fen) in enumerate(kept))
    return Transaction(kind, number, entries)
