"""A member's stored value: what the chain's company owes them, topped up at a counter and spent as a tender.

Accounts: member_balance, a liability of the company that keeps it; provider_clearing:balance of the store's company,
what was taken from balances and is not in a sale yet. It is 0 whenever no payment is under way, so the liability
equals the sum of all balances at every commit, whatever crashes between a payment and its sale.

What stands behind a membership (`balance_hold`, `cash_deposit`) lies in member_deposit, another liability of the same
company: reserved out of the balance, or taken in cash. Its charge is captured from there through clearing, the rest
goes to the balance, where the member spends it or has it paid out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.domain.errors import Refused
from models.domain.ids import LegalEntityId
from models.domain.ledger import Entry, Place, Transaction, clearing

BALANCE = "balance"
"""The name under which tenders and the ledger know it, beside the names of payment providers."""
LIABILITY = "member_balance"
DEPOSIT = "member_deposit"
MOVE_FEN_MAX = 500_000
"""One top-up or pay-out."""
BALANCE_FEN_MAX = 500_000
"""What China's rules on single-purpose prepaid cards (单用途商业预付卡管理办法) let one card in a name hold."""


class MoveKind(StrEnum):
    """How a balance changes."""

    TOP_UP = "top_up"
    SPEND = "spend"
    UNDO = "undo"
    """A payment that came to nothing: its spend goes back before any sale."""
    REFUND = "refund"
    PAY_OUT = "pay_out"
    HOLD = "hold"
    """Reserved for a membership: out of the balance, still the member's."""
    DEPOSIT = "deposit"
    """Cash for a membership, into the drawer; the balance stays as it is."""
    CAPTURE = "capture"
    """A membership's charge, from what is reserved."""
    RELEASE = "release"
    """What a membership did not take."""


INTO = frozenset({MoveKind.TOP_UP, MoveKind.UNDO, MoveKind.REFUND, MoveKind.RELEASE})
BESIDE = frozenset({MoveKind.DEPOSIT, MoveKind.CAPTURE})
"""They move what is reserved; the balance stays."""


class MoneyWay(StrEnum):
    """How a clerk takes the money of a top-up, and gives that of a pay-out."""

    CASH = "cash"
    CARD = "card"


@dataclass(frozen=True, slots=True)
class BalanceMove:
    """One change. `order`: the payment's number with us, of a spend and of what undoes it; "" at the counter."""

    number: str
    member: str
    kind: MoveKind
    fen: int
    left_fen: int
    order: str
    store: str
    entity: str
    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class BalanceStatement:
    """What a member has with us, and how it came to be: the newest moves first."""

    member: str
    fen: int
    owner: str
    moves: tuple[BalanceMove, ...]


@dataclass(frozen=True, slots=True)
class CounterMove:
    """A clerk's request. `number`: the same again changes nothing; `drawer`: the lane whose cash or card slip it is."""

    number: str
    member: str
    fen: int
    store: str
    drawer: str
    way: MoneyWay
    by: str


def may_move(fen: int) -> int:
    """`fen`, if a clerk may move so much. Raises Refused `bad_amount`."""
    if not 1 <= fen <= MOVE_FEN_MAX:
        most = f"{MOVE_FEN_MAX // 100} yuan"
        raise Refused("bad_amount", f"{fen} fen cannot be moved", f"an amount from 0.01 to {most}")
    return fen


def after(balance_fen: int, kind: MoveKind, fen: int) -> int:
    """The balance after a move. Raises Refused `balance_short`, `balance_full` (a top-up only: what was theirs comes
    back whatever it makes)."""
    if kind in BESIDE:
        return balance_fen
    left = balance_fen + fen if kind in INTO else balance_fen - fen
    if left < 0:
        raise Refused("balance_short", "the balance is smaller than that", "top it up, or use another tender")
    if kind is MoveKind.TOP_UP and left > BALANCE_FEN_MAX:
        raise Refused("balance_full", f"a balance is {BALANCE_FEN_MAX // 100} yuan at most", "top up less")
    return left


def counter_account(place: Place, way: MoneyWay, drawer: str) -> str:
    """Where the clerk's money is: the drawer, or on its way from the bank's card device."""
    return f"till:{place.store}:{drawer}" if way is MoneyWay.CASH else clearing(f"till-{way}")


def moved(
    number: str, kind: MoveKind, fen: int, *, owner: LegalEntityId, place: Place, account: str, business_date: str
) -> Transaction:
    """What a move books: between the liability of `owner` and `account` of the store's company, which owe each other
    what is not their own."""
    fen = fen if kind in INTO | {MoveKind.DEPOSIT} else -fen
    liability = DEPOSIT if kind in BESIDE else LIABILITY
    legs = [(str(place.entity), account, fen)]
    if owner != place.entity:
        legs += [(str(place.entity), f"due_to:{owner}", -fen), (str(owner), f"due_from:{place.entity}", fen)]
    legs.append((str(owner), liability, -fen))
    entries = tuple(Entry(n, entity, name, amount, business_date) for n, (entity, name, amount) in enumerate(legs))
    return Transaction(f"balance_{kind}", number, entries)


def reserved(number: str, kind: MoveKind, fen: int, *, owner: LegalEntityId, business_date: str) -> Transaction:
    """HOLD: what the member has becomes a deposit; RELEASE: the other way. No money leaves its company."""
    fen = fen if kind is MoveKind.HOLD else -fen
    legs = (
        Entry(0, owner, LIABILITY, fen, business_date),
        Entry(1, owner, DEPOSIT, -fen, business_date),
    )
    return Transaction(f"balance_{kind}", number, legs)
