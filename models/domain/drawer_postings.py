"""What drawers and returns in another store book. Cash of a drawer is `till:{store}:{drawer}`, debit positive.

Whatever a shift does, the account's balance is what the drawer should hold: after a count, what it was counted to hold.
"""

from __future__ import annotations

from models.domain.drawers import MoveKind
from models.domain.ledger import Entry, Place, Transaction


def till_account(place: Place, drawer: str) -> str:
    """The cash in one drawer."""
    return f"till:{place.store}:{drawer}"


def safe_account(place: Place) -> str:
    """The cash in the store's safe."""
    return f"safe:{place.store}"


def float_placed(number: str, *, place: Place, drawer: str, fen: int, business_date: str) -> Transaction:
    """A shift begins with change from the safe."""
    return _pair("float_placed", number, place, till_account(place, drawer), safe_account(place), fen, business_date)


def drawer_moved(
    number: str, *, place: Place, drawer: str, kind: MoveKind, fen: int, business_date: str, reason: str = ""
) -> Transaction:
    """Paid in: income. Paid out: an expense. A drop: to the safe."""
    till = till_account(place, drawer)
    match kind:
        case MoveKind.PAID_IN:
            debit, credit = till, f"other_income:{place.store}"
        case MoveKind.PAID_OUT:
            debit, credit = f"petty_expense:{place.store}", till
        case MoveKind.DROP:
            debit, credit = safe_account(place), till
    return _pair(f"drawer_{kind.name.lower()}", number, place, debit, credit, fen, business_date, reason)


def drawer_counted(number: str, *, place: Place, drawer: str, over_short: int, business_date: str) -> Transaction:
    """The drawer holds `over_short` more (less, when negative) than it should: now the books say what it holds."""
    other = f"cash_over_short:{place.store}"
    return _pair("drawer_counted", number, place, till_account(place, drawer), other, over_short, business_date)


def drawer_emptied(number: str, *, place: Place, drawer: str, fen: int, business_date: str) -> Transaction:
    """A shift ends: what was counted goes to the safe. (Handed over it stays, and nothing is booked.)"""
    return _pair("drawer_emptied", number, place, safe_account(place), till_account(place, drawer), fen, business_date)


def paid_from(transaction: Transaction, sold: Place, paid: Place) -> Transaction:
    """The mirror of a sale's share whose cash comes out of a drawer of another store, perhaps of another entity.

    The selling entity bears the mirror of its sale; the one that paid is owed what its drawer gave.
    """
    entries: list[Entry] = []
    for entry in transaction.entries:
        if not entry.account.startswith(f"till:{sold.store}:"):
            entries.append(entry)
            continue
        till = till_account(paid, entry.account.split(":", 2)[2])
        if paid.entity == entry.entity:
            entries.append(_leg(entry, entry.entity, till, entry.amount_fen))
        else:
            entries += [
                _leg(entry, entry.entity, f"due_to:{paid.entity}", entry.amount_fen),
                _leg(entry, paid.entity, f"due_from:{entry.entity}", -entry.amount_fen),
                _leg(entry, paid.entity, till, entry.amount_fen),
            ]
    numbered = tuple(_numbered(entry, leg) for leg, entry in enumerate(entries))
    return Transaction(transaction.kind, transaction.request_number, numbered, transaction.memo, transaction.refers_to)


def given_back_at(undone: Transaction, store: str, drawer: str) -> Transaction:
    """A void whose cash comes out of `drawer` of the store, whichever took it; "": the one that took it."""
    if not drawer:
        return undone
    till = f"till:{store}:"
    entries = tuple(
        _leg(entry, entry.entity, f"{till}{drawer}", entry.amount_fen) if entry.account.startswith(till) else entry
        for entry in undone.entries
    )
    return Transaction(undone.kind, undone.request_number, entries, undone.memo, undone.refers_to)


def _leg(like: Entry, entity: str, account: str, fen: int) -> Entry:
    return Entry(like.leg, entity, account, fen, like.business_date, like.book)


def _numbered(entry: Entry, leg: int) -> Entry:
    return Entry(leg, entry.entity, entry.account, entry.amount_fen, entry.business_date, entry.book)


def _pair(
    kind: str, number: str, place: Place, debit: str, credit: str, fen: int, business_date: str, memo: str = ""
) -> Transaction:
    if not fen:
        return Transaction(kind, number, (), memo)
    legs = (Entry(0, place.entity, debit, fen, business_date), Entry(1, place.entity, credit, -fen, business_date))
    return Transaction(kind, number, legs, memo)
