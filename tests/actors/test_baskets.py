"""What is bought: our basket by scanning, or the till's whole basket with a rising revision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.baskets import LINES_MAX
from models.domain.events import Basket, Cancel, Confirm, Remove, Scan, TillLine
from models.domain.ids import SessionId
from tests.actors.lane import TILL, Lane, buy, cancel, cash


def till_basket(rev: int, *fen: int, txn: str = "till-1", total: int | None = None) -> Basket:
    lines = tuple(TillLine(n, f"c{n}", f"Item {n}", 1, price, price) for n, price in enumerate(fen, 1))
    return Basket(txn, rev, lines, sum(fen) if total is None else total)


def test_scan_opens_a_visit_and_names_it() -> None:
    lane = Lane()
    reply = lane.ok(Scan("tea", 2))
    assert reply.session == lane.session.id
    assert lane.screen is not None
    assert (lane.screen.state, lane.screen.due_fen, lane.screen.cash_due_fen) == ("quoted", 2400, 2400)


def test_the_same_item_adds_to_its_line() -> None:
    lane = Lane()
    buy(lane, "tea", "roll", "tea")
    assert [(line.line, line.code, line.quantity) for line in lane.session.lines] == [(1, "tea", 2), (2, "roll", 1)]
    lane.ok(Remove(1))
    lane.refused(Remove(1), "no_such_line")
    lane.ok(Scan("gum", 1))
    assert [line.line for line in lane.session.lines] == [2, 3], "a number is not used again"


@pytest.mark.parametrize("quantity", [0, -1, 100])
def test_impossible_quantities(quantity: int) -> None:
    lane = Lane()
    lane.refused(Scan("tea", quantity), "bad_quantity")
    assert lane.session.id is None, "a refused scan opens nothing"


def test_unknown_items_and_foreign_events() -> None:
    lane = Lane()
    lane.refused(Scan("nothing", 1), "unknown_item")
    lane.refused(till_basket(1, 100), "basket_is_ours")
    pos = Lane("pos")
    pos.refused(Scan("tea", 1), "basket_is_tills")
    pos.ok(till_basket(1, 100), terminal=TILL)
    pos.refused(Remove(1), "basket_is_tills")


def test_a_full_basket() -> None:
    lane = Lane("pos")
    lane.refused(till_basket(1, *([10] * (LINES_MAX + 1))), "basket_full")
    lane.ok(till_basket(1, *([10] * LINES_MAX)))


def test_the_tills_basket() -> None:
    lane = Lane("pos")
    lane.ok(till_basket(4, 653, 347), terminal=TILL)
    assert lane.screen is not None
    assert (lane.screen.basket_rev, lane.screen.due_fen) == (4, 1000)
    lane.refused(till_basket(4, 653), "stale_rev")
    lane.refused(till_basket(3, 653), "stale_rev")
    lane.refused(till_basket(5, 653, total=654), "total_mismatch")
    lane.ok(till_basket(5, 653))
    assert (lane.screen.basket_rev, lane.screen.due_fen) == (5, 653)
    lane.refused(replace(till_basket(6, 1, 2), lines=(till_basket(6, 1).lines * 2), total_fen=2), "line_invalid")


def test_another_till_transaction_is_another_customer() -> None:
    lane = Lane("pos")
    lane.ok(till_basket(7, 100, txn="a"))
    first = lane.session.id
    lane.ok(till_basket(1, 200, txn="b"))
    assert lane.session.id != first
    assert (lane.session.till_txn, lane.session.basket_rev) == ("b", 1)


def test_a_visit_opened_by_a_tap_takes_the_tills_transaction() -> None:
    lane = Lane("pos")
    lane.open()
    first = lane.session.id
    lane.ok(till_basket(1, 100, txn="a"))
    assert (lane.session.id, lane.session.till_txn) == (first, "a")


def test_nothing_without_a_visit() -> None:
    lane = Lane()
    lane.refused(Remove(1), "no_session")
    lane.refused(Cancel(), "no_session")
    lane.refused(Confirm(1, ()), "no_session")
    lane.open()
    lane.refused(Remove(1), "session_gone", SessionId("another"))
    lane.refused(Confirm(1, ()), "nothing_to_pay")


def test_after_paying_a_scan_starts_the_next_visit() -> None:
    lane = Lane()
    buy(lane, "tea")
    first = lane.session.id
    lane.confirm(cash(1200))
    assert lane.state == "paid"
    lane.refused(Scan("tea", 1), "session_gone", first)
    lane.ok(Scan("tea", 1))
    assert lane.session.id != first


def test_cancel_closes_the_visit_and_so_does_time() -> None:
    lane = Lane()
    buy(lane, "tea")
    cancel(lane)
    assert lane.state == "closed"
    buy(lane, "tea")
    lane.after(299)
    lane.ok(Scan("tea", 1))
    lane.after(299)
    assert lane.state == "quoted"
    lane.after(302)
    assert lane.state == "closed"
