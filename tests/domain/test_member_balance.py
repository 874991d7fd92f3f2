"""A member's stored value: how much may move, what is left, and what each move books."""

from __future__ import annotations

import pytest

from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, StoreId
from models.domain.ledger import Entry, Place, Transaction
from models.domain.member_balance import (
    BESIDE,
    INTO,
    MoneyWay,
    MoveKind,
    after,
    counter_account,
    may_move,
    moved,
    reserved,
)

NORTH = Place(StoreId("s1"), LegalEntityId("north"))
DAY = "2026-05-01"
FULL = int("500000")
"""5,000 yuan: equal to the limits, and no object of theirs."""


def test_a_clerk_moves_from_a_fen_to_5000_yuan() -> None:
    assert [may_move(fen) for fen in (1, 2, FULL - 1, FULL)] == [1, 2, FULL - 1, FULL]
    for fen in (-1, 0, FULL + 1):
        with pytest.raises(Refused) as caught:
            may_move(fen)
        assert (caught.value.code, caught.value.do) == ("bad_amount", "an amount from 0.01 to 5000 yuan")


@pytest.mark.parametrize("kind", MoveKind)
def test_what_is_left_after_a_move(kind: MoveKind) -> None:
    """Money comes to the balance, leaves it, or passes beside it; it is never below 0."""
    sign = 0 if kind in BESIDE else 1 if kind in INTO else -1
    assert after(1000, kind, 300) == 1000 + sign * 300
    if sign < 0:
        assert after(300, kind, 300) == 0
        with pytest.raises(Refused) as caught:
            after(299, kind, 300)
        assert caught.value.code == "balance_short"
    assert after(FULL - 300, kind, 300) == FULL + (sign - 1) * 300
    if kind is MoveKind.TOP_UP:
        with pytest.raises(Refused) as caught:
            after(FULL - 299, kind, 300)
        assert (caught.value.code, caught.value.message) == ("balance_full", "a balance is 5000 yuan at most")
    else:
        assert after(FULL - 299, kind, 300) == FULL - 299 + sign * 300, "what was theirs comes back whatever it makes"


def test_the_three_ways_of_a_move_are_what_they_say() -> None:
    assert {MoveKind.TOP_UP, MoveKind.UNDO, MoveKind.REFUND, MoveKind.RELEASE} == INTO
    assert {MoveKind.DEPOSIT, MoveKind.CAPTURE} == BESIDE
    assert counter_account(NORTH, MoneyWay.CASH, "lane-1") == "till:s1:lane-1"
    assert counter_account(NORTH, MoneyWay.CARD, "lane-1") == "provider_clearing:till-card"


def legs(transaction: Transaction) -> list[tuple[str, str, int]]:
    assert [one.leg for one in transaction.entries] == list(range(len(transaction.entries)))
    assert {one.business_date for one in transaction.entries} == {DAY}
    return [(one.entity, one.account, one.amount_fen) for one in transaction.entries]


@pytest.mark.parametrize("kind", MoveKind)
def test_what_a_move_books(kind: MoveKind) -> None:
    fen = 300 if kind in INTO or kind is MoveKind.DEPOSIT else -300
    liability = "member_deposit" if kind in {MoveKind.DEPOSIT, MoveKind.CAPTURE} else "member_balance"

    def books(owner: str) -> Transaction:
        return moved(
            "n1", kind, 300, owner=LegalEntityId(owner), place=NORTH, account="till:s1:lane-1", business_date=DAY
        )

    own = books("".join(("no", "rth")))
    assert (own.kind, own.request_number) == (f"balance_{kind}", "n1")
    assert legs(own) == [("north", "till:s1:lane-1", fen), ("north", liability, -fen)]
    for owner in ("chain", "zone"):
        assert legs(books(owner)) == [
            ("north", "till:s1:lane-1", fen),
            ("north", f"due_to:{owner}", -fen),
            (owner, "due_from:north", fen),
            (owner, liability, -fen),
        ]


@pytest.mark.parametrize(("kind", "fen"), [(MoveKind.HOLD, 300), (MoveKind.RELEASE, -300)])
def test_what_is_reserved_stays_in_its_company(kind: MoveKind, fen: int) -> None:
    chain = LegalEntityId("chain")
    assert reserved("n1", kind, 300, owner=chain, business_date=DAY) == Transaction(
        f"balance_{kind}",
        "n1",
        (Entry(0, chain, "member_balance", fen, DAY), Entry(1, chain, "member_deposit", -fen, DAY)),
    )
