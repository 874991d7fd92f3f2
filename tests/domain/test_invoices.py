"""What may be invoiced: shares and taxes by hand, and corrections that take exactly what came back."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.invoices import (
    CameBack,
    Document,
    Goods,
    InvoiceLine,
    LeftOut,
    corrections,
    document,
    membership_invoice,
    refund_of,
    sale_invoice,
)

AT = datetime(2026, 5, 1, tzinfo=UTC)
GOODS = (
    Goods(1, "tea", "Tea", 2, 1130, "13", 1300),
    Goods(2, "ham", "Ham", 3, 327, "9", 900),
    Goods(3, "bag", "Bag", 1, 0, "13", 1300),
    Goods(4, "cup", "Cup", 1, 113, "13", 1300),
)
"""The bag was free."""
PAID_FEN = 1570


def fens(of: Document) -> list[tuple[int, int, int, int]]:
    """Line, gross, net and tax."""
    return [(one.line, one.gross_fen, one.net_fen, one.tax_fen) for one in of.lines]


def whole() -> Document:
    return document("R1", "north", "s1", AT, GOODS, PAID_FEN)


def test_tax_is_counted_by_rate_and_each_line_has_its_part() -> None:
    of = whole()
    assert fens(of) == [(1, 1130, 1000, 130), (2, 327, 300, 27), (4, 113, 100, 13)], "what cost nothing is no line"
    assert (of.gross_fen, of.net_fen, of.tax_fen, of.reason) == (1570, 1400, 170, "")
    assert (of.number, of.issuer, of.store, of.at) == ("R1", "north", "s1", AT)
    assert of.lines[1] == InvoiceLine(2, "ham", "Ham", 3, "9", 900, 327, 300, 27)


def test_a_smaller_total_is_shared_over_the_lines_and_none_leaves_none() -> None:
    assert fens(document("R1", "north", "s1", AT, GOODS, 785)) == [(1, 565, 500, 65), (2, 164, 151, 13), (4, 56, 50, 6)]
    nothing = document("R1", "north", "s1", AT, GOODS, 0, "refund")
    assert (nothing.lines, nothing.gross_fen, nothing.net_fen, nothing.tax_fen) == ((), 0, 0, 0)
    assert nothing.reason == "refund"


def test_returns_take_their_share_and_together_everything() -> None:
    back = (
        CameBack("a", AT + timedelta(days=1), {2: (1, 109), 4: (1, 113)}),
        CameBack("b", AT + timedelta(days=2), {1: (1, 565)}),
        CameBack("c", AT + timedelta(days=3), {1: (1, 565), 2: (2, 218), 3: (1, 0)}),
    )
    first, second, third = corrections(whole(), GOODS, back)
    assert fens(first) == [(2, -109, -100, -9), (4, -113, -100, -13)]
    assert fens(second) == [(1, -565, -500, -65)]
    assert fens(third) == [(1, -565, -500, -65), (2, -218, -200, -18)]
    assert [one.quantity for one in (*first.lines, *third.lines)] == [-1, -1, -1, -2]
    assert [one.reason for one in (first, second, third)] == ["return"] * 3
    assert (first.number, first.issuer, first.store, first.at) == ("a", "north", "s1", AT + timedelta(days=1))
    assert first.lines[0] == InvoiceLine(2, "ham", "Ham", -1, "9", 900, -109, -100, -9)
    assert (first.gross_fen, first.net_fen, first.tax_fen) == (-222, -200, -22)


def test_more_than_was_paid_takes_no_more_and_money_may_come_back_without_goods() -> None:
    goods = (Goods(1, "tea", "Tea", 2, 1130, "13", 1300),)
    of = document("R1", "north", "s1", AT, goods, 1130)
    half, rest = corrections(of, goods, (CameBack("a", AT, {1: (0, 1000)}), CameBack("b", AT, {1: (2, 1000)})))
    assert (fens(half), half.lines[0].quantity) == ([(1, -1000, -885, -115)], 0)
    assert (fens(rest), rest.lines[0].quantity) == ([(1, -130, -115, -15)], -2)
    (pieces,) = corrections(of, goods, (CameBack("a", AT, {1: (2, 0)}),))
    assert (fens(pieces), pieces.lines[0].quantity) == ([(1, 0, 0, 0)], -2)


def test_a_void_takes_everything_and_what_is_left_out_is_said_where_there_is_any() -> None:
    left_out = (LeftOut("agency", 0), LeftOut("rounding", 3))
    found = sale_invoice("S1", whole(), GOODS, (CameBack("v", AT, None),), left_out)
    (void,) = found.corrections
    assert (void.reason, fens(void)) == ("void", [(1, -1130, -1000, -130), (2, -327, -300, -27), (4, -113, -100, -13)])
    assert [one.quantity for one in void.lines] == [-2, -3, -1]
    assert (found.id, found.kind, found.documents, found.stands_fen) == ("S1", "sale", (whole(),), 0)
    assert (found.left_out, found.currency) == ((LeftOut("rounding", 3),), "CNY")
    part = sale_invoice("S1", whole(), GOODS, (CameBack("a", AT, {1: (1, 565)}),), ())
    assert part.stands_fen == 1005
    assert sale_invoice("S1", whole(), GOODS, (), ()).stands_fen == 1570


def test_a_memberships_invoice_stands_for_what_was_not_given_back() -> None:
    of = whole()
    minus = (refund_of(of, "r", AT, 70, ()),)
    found = membership_invoice("m1", "clawback", [of, of], minus, (LeftOut("not_paid", 5), LeftOut("points", 0)))
    assert (found.id, found.kind, found.documents, found.corrections) == ("m1", "clawback", (of, of), minus)
    assert (found.stands_fen, found.left_out) == (1570 + 1570 - 70, (LeftOut("not_paid", 5),))


def test_a_refund_is_shared_over_the_lines() -> None:
    refund = refund_of(whole(), "r1", AT + timedelta(days=1), 157, ())
    assert fens(refund) == [(1, -113, -100, -13), (2, -33, -31, -2), (4, -11, -10, -1)]
    assert [one.quantity for one in refund.lines] == [0, 0, 0]
    assert (refund.number, refund.issuer, refund.store, refund.reason) == ("r1", "north", "s1", "refund")
    assert (refund.at, refund.gross_fen) == (AT + timedelta(days=1), -157)
    again = refund_of(whole(), "r2", AT, 2000, (refund,))
    assert fens(again) == [(1, -1017, -900, -117), (2, -294, -269, -25), (4, -102, -90, -12)], "what is left, no more"
    assert refund_of(whole(), "r3", AT, 5, (refund, again)).lines == ()


def test_a_second_refund_adds_to_no_line() -> None:
    """As shares of the running total, 2 fen of (2, 1, 2) were (0, 1, 1), 3 fen (1, 0, 2): the second line grew."""
    goods = [Goods(n, "x", "X", 1, fen, "13", 1300) for n, fen in enumerate((2, 1, 2), 1)]
    of = document("R1", "north", "s1", AT, goods, 5)
    first = refund_of(of, "r1", AT, 2, ())
    assert [one[:2] for one in fens(first)] == [(1, -1), (3, -1)]
    assert [one[:2] for one in fens(refund_of(of, "r2", AT, 1, (first,)))] == [(1, -1)]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 3000), st.sampled_from((0, 600, 900, 1300))), min_size=1, max_size=6),
    st.lists(st.integers(1, 4000), min_size=1, max_size=6),
)
def test_corrections_only_take_away_and_together_take_all(lines: list[tuple[int, int]], paid: list[int]) -> None:
    goods = [Goods(n, f"c{n}", "X", 1, fen, str(rate), rate) for n, (fen, rate) in enumerate(lines, 1)]
    of = document("R1", "north", "s1", AT, goods, sum(fen for fen, _ in lines))
    made: list[Document] = []
    for n, fen in enumerate((*paid, of.gross_fen)):
        made.append(refund_of(of, f"r{n}", AT, fen, made))
    left: Counter[tuple[int, str]] = Counter()
    for one in of.lines:
        left.update({(one.line, "gross"): one.gross_fen, (one.line, "tax"): one.tax_fen})
    for one in (line for refund in made for line in refund.lines):
        assert one.gross_fen < 0
        assert one.tax_fen <= 0
        assert one.net_fen <= 0
        left.update({(one.line, "gross"): one.gross_fen, (one.line, "tax"): one.tax_fen})
    assert not any(left.values())
