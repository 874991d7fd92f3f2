"""Drawers: what should be in one, and postings that say so; cash of another store's drawer is owed to its entity."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain import drawer_postings
from models.domain.drawers import (
    FEN_MAX,
    Move,
    MoveKind,
    ShiftState,
    expected_fen,
    may_count,
    may_end,
    may_move,
    may_open,
    over_short_fen,
    require_amount,
    require_reason,
)
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, StoreId
from models.domain.ledger import Place, Taking, Transaction, sale_paid, sale_refunded, sale_voided

NORTH = Place(StoreId("s-north"), LegalEntityId("north"))
OWN = Place(StoreId("s-own"), LegalEntityId("chain"))
DAY = "2026-03-01"
TILL = "till:s-north:lane-1"


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        (may_open, {None, ShiftState.ENDED}),
        (may_move, {ShiftState.OPEN}),
        (may_count, {ShiftState.OPEN}),
        (may_end, {ShiftState.COUNTED}),
    ],
)
def test_what_may_be_done_in_which_state(rule: object, allowed: set[ShiftState | None]) -> None:
    assert callable(rule)
    for state in (None, *ShiftState):
        if state in allowed:
            rule(state)
        else:
            with pytest.raises(Refused):
                rule(state)


def test_amounts_and_reasons_are_bounded() -> None:
    assert [require_amount(fen) for fen in (0, FEN_MAX)] == [0, FEN_MAX]
    for fen, least in ((-1, 0), (FEN_MAX + 1, 0), (0, 1)):
        with pytest.raises(Refused, match="is not between"):
            require_amount(fen, least=least)
    assert require_reason("  stamps ") == "stamps"
    for reason in ("", "   ", "x" * 201):
        with pytest.raises(Refused, match="characters"):
            require_reason(reason)


def balances(transactions: list[Transaction]) -> dict[tuple[str, str], int]:
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in transactions:
        for entry in one.entries:
            sums[entry.entity, entry.account] += entry.amount_fen
    return dict(sums)


moves = st.lists(st.builds(Move, st.sampled_from(MoveKind), st.integers(1, 9_000)), max_size=6)
cash = st.lists(st.integers(-3_000, 5_000), max_size=8)


@given(shifts=st.lists(st.tuples(cash, moves, st.integers(0, 20_000), st.booleans()), min_size=1, max_size=5))
def test_the_tills_account_is_what_the_drawer_should_hold(
    shifts: list[tuple[list[int], list[Move], int, bool]],
) -> None:
    """Shift after shift, handed over or put into the safe: expected before its count, counted after it."""
    booked: list[Transaction] = []
    float_fen, over_short = 1_000, 0
    booked.append(drawer_postings.float_placed("f", place=NORTH, drawer="lane-1", fen=1_000, business_date=DAY))
    for n, (sales, by_hand, counted, handed_over) in enumerate(shifts):
        for k, fen in enumerate(sales):
            booked.append(
                sale_paid(f"{n}-{k}", place=NORTH, takings=[Taking(fen, drawer="lane-1")], due_fen=fen,
                          business_date=DAY)
            )  # fmt: skip
        for k, move in enumerate(by_hand):
            booked.append(
                drawer_postings.drawer_moved(
                    f"m{n}-{k}", place=NORTH, drawer="lane-1", kind=move.kind, fen=move.fen, business_date=DAY
                )
            )
        expected = expected_fen(float_fen, sales, by_hand)
        assert balances(booked).get(("north", TILL), 0) == expected
        difference = over_short_fen(counted, expected)
        over_short += difference
        booked.append(
            drawer_postings.drawer_counted(
                f"c{n}", place=NORTH, drawer="lane-1", over_short=difference, business_date=DAY
            )
        )
        assert balances(booked).get(("north", TILL), 0) == counted
        float_fen = counted
        if not handed_over:
            booked.append(
                drawer_postings.drawer_emptied(f"e{n}", place=NORTH, drawer="lane-1", fen=counted, business_date=DAY)
            )
            float_fen = 0
    assert balances(booked).get(("north", "cash_over_short:s-north"), 0) == -over_short
    assert balances(booked).get(("north", TILL), 0) == float_fen


@given(fen=st.integers(1, 5_000), by_card=st.integers(0, 5_000), rounding=st.integers(0, 9))
def test_each_entity_sums_to_zero_whoever_pays_back(fen: int, by_card: int, rounding: int) -> None:
    due = fen + by_card + rounding
    back = sale_refunded(
        "r", "s", place=NORTH, due_fen=due, business_date=DAY, rounding_fen=rounding,
        takings=[Taking(fen, drawer="lane-9"), *([Taking(by_card, provider="alipay")] if by_card else [])],
    )  # fmt: skip
    # A transaction that leaves an entity's books open cannot be made at all: models.domain.ledger.Transaction.
    elsewhere = drawer_postings.paid_from(back, NORTH, OWN)
    sums = balances([elsewhere])
    assert sums["chain", "till:s-own:lane-9"] == -fen
    assert sums["chain", "due_from:north"] == fen
    assert sums["north", "due_to:chain"] == -fen
    assert sums["north", "sales_gross:s-north"] == due
    assert sums.get(("north", "provider_clearing:alipay"), 0) == -by_card
    assert not any(account.startswith("till:s-north") for _, account in sums)
    assert (elsewhere.id, elsewhere.refers_to) == (back.id, back.refers_to)
    assert [entry.leg for entry in elsewhere.entries] == list(range(len(elsewhere.entries)))
    second = Place(StoreId("s-second"), NORTH.entity)
    same = balances([drawer_postings.paid_from(back, NORTH, second)])
    assert same["north", "till:s-second:lane-9"] == -fen
    assert not any(account.startswith("due_") for _, account in same), "one entity owes itself nothing"
    assert balances([drawer_postings.paid_from(back, NORTH, NORTH)]) == balances([back])


def test_a_void_gives_cash_back_where_it_was_made() -> None:
    sale = sale_paid("s", place=NORTH, takings=[Taking(700, drawer="lane-1")], due_fen=700, business_date=DAY)
    undone = sale_voided("v", sale, DAY)
    assert drawer_postings.given_back_at(undone, NORTH.store, "") == undone
    assert balances([drawer_postings.given_back_at(undone, NORTH.store, "lane-2")]) == {
        ("north", "till:s-north:lane-2"): -700,
        ("north", "sales_gross:s-north"): 700,
    }


def test_nothing_is_booked_for_nothing() -> None:
    even = drawer_postings.drawer_counted("c", place=NORTH, drawer="lane-1", over_short=0, business_date=DAY)
    assert even.entries == ()
