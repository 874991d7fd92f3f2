"""However a sale is brought back, the parts sum to the whole: in money, in benefits, in pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import Refused
from models.domain.events import ReturnLine, TenderKind
from models.domain.ids import BenefitId, MembershipId, SaleId, UsageId
from models.domain.ledger import Place, Taking, sale_refunded
from models.domain.messages import PastReturn, SaleFound, SaleTender, SaleUse
from models.domain.money import allocate, cash_rounded_fen
from models.domain.returns import Back, bring_back
from models.domain.screen import ScreenLine


@st.composite
def sales(draw: st.DrawFn) -> SaleFound:
    """A sale of a few lines with a discount of up to two uses, paid in cash, by a provider, or both; or wrongly."""
    pieces = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3000)), min_size=1, max_size=4))
    gross = [quantity * unit for quantity, unit in pieces]
    discount = draw(st.integers(0, min(1600, sum(gross))))
    off = allocate(discount, gross)
    lines = tuple(
        ScreenLine(n, "c", "", quantity, unit, less, whole - less)
        for n, ((quantity, unit), whole, less) in enumerate(zip(pieces, gross, off, strict=True), 1)
    )
    first = draw(st.integers(0, discount))
    uses = tuple(
        SaleUse(UsageId(f"u{n}"), MembershipId("m"), BenefitId("b"), fen)
        for n, fen in enumerate((first, discount - first))
        if fen
    )
    due = sum(gross) - discount
    rounding = 0
    tenders: tuple[SaleTender, ...] = (SaleTender(TenderKind.FACE, due, "P1"),)
    match draw(st.sampled_from(["cash", "face", "split", "short", "over", "promoted"])):
        case "cash":
            rounding = due - cash_rounded_fen(due)
            tenders = (SaleTender(TenderKind.CASH, due - rounding),)
        case "split":
            part = draw(st.integers(0, due))
            tenders = (SaleTender(TenderKind.CASH, part), SaleTender(TenderKind.FACE, due - part, "P1"))
        case "short":
            tenders = (SaleTender(TenderKind.CASH, due // 2),)
        case "over":
            tenders = (SaleTender(TenderKind.CARD, due + 500),)
        case "promoted" if due:
            receipt = draw(st.integers(0, due))
            tenders = (SaleTender(TenderKind.FACE, due, "P1", payer_fen=receipt // 2, receipt_fen=receipt),)
    coupon = SaleTender(TenderKind.COUPON, discount)
    return SaleFound(
        "q", SaleId("s"), "r", gross_fen=sum(gross), discount_fen=discount, rounding_fen=rounding,
        tenders=(coupon, *tenders), uses=uses, lines=lines,
    )  # fmt: skip


def after(sale: SaleFound, back: Back) -> SaleFound:
    return replace(sale, returns=(*sale.returns, PastReturn(back.lines, back.tenders, back.uses)))


@given(sale=sales(), data=st.data())
def test_piece_by_piece_is_the_whole(sale: SaleFound, data: st.DataObject) -> None:
    left = [line.line for line in sale.lines for _ in range(line.quantity)]
    order = data.draw(st.permutations(left))
    money = tuple(tender for tender in sale.tenders if tender.kind is not TenderKind.COUPON)
    taken = sum(tender.fen for tender in money)
    due = sale.gross_fen - sale.discount_fen
    given_fen = due_fen = rounding = suspense = 0
    per_tender = [0] * len(money)
    receipts = [0] * len(money)
    per_use: dict[str, int] = {}
    while order:
        some = data.draw(st.integers(1, len(order)))
        wanted, order = order[:some], order[some:]
        back = bring_back(sale, [ReturnLine(line, 1) for line in wanted])
        assert all(tender.fen >= 0 for tender in back.tenders)
        sale_refunded(  # raises unless it balances
            "x", "s", place=Place("s", "e"), takings=[Taking(t.fen, drawer="l") for t in back.tenders],  # type: ignore[arg-type]
            due_fen=back.due_fen, business_date="2026-05-01", rounding_fen=back.rounding_fen,
            suspense_fen=back.suspense_fen,
        )  # fmt: skip
        given_fen += back.given_fen
        due_fen += back.due_fen
        rounding += back.rounding_fen
        suspense += back.suspense_fen
        per_tender = [one + tender.fen for one, tender in zip(per_tender, back.tenders, strict=True)]
        receipts = [one + (tender.receipt_fen or 0) for one, tender in zip(receipts, back.tenders, strict=True)]
        assert all(tender.receipt_fen is None or 0 <= tender.receipt_fen <= tender.fen for tender in back.tenders)
        for use in back.uses:
            per_use[use.usage] = per_use.get(use.usage, 0) + use.fen
        assert given_fen <= min(taken, due_fen)
        sale = after(sale, back)
    assert due_fen == due
    assert given_fen == min(taken, due - sale.rounding_fen)
    assert all(one <= tender.fen for one, tender in zip(per_tender, money, strict=True))
    if given_fen == taken:
        assert receipts == [tender.receipt_fen or 0 for tender in money]
    assert per_use == {use.usage: use.fen for use in sale.uses}
    assert given_fen == due_fen - rounding + suspense
    with pytest.raises(Refused, match="return_exceeds"):
        bring_back(sale, [ReturnLine(sale.lines[0].line, 1)])


def test_the_share_of_a_threefold_line() -> None:
    line = ScreenLine(1, "c", "", 3, 400, 200, 1000)
    sale = SaleFound("q", SaleId("s"), "r", gross_fen=1200, discount_fen=200, lines=(line,),
                     tenders=(SaleTender(TenderKind.CASH, 1000),))  # fmt: skip
    given_back = []
    for _ in range(3):
        back = bring_back(sale, [ReturnLine(1, 1)])
        given_back.append((back.due_fen, back.given_fen, back.rounding_fen))
        sale = after(sale, back)
    assert given_back == [(333, 330, 3), (333, 330, 3), (334, 340, -6)]


def test_what_is_sold_for_somebody_else_stays_sold() -> None:
    lines = (ScreenLine(1, "tea", "", 1, 100, 0, 100), ScreenLine(2, "top-up", "", 1, 5000, 0, 5000))
    sale = SaleFound("q", SaleId("s"), "r", gross_fen=5100, lines=lines, agency_fen=5000,
                     tenders=(SaleTender(TenderKind.CASH, 5100),))  # fmt: skip
    own = frozenset({"tea"})
    assert bring_back(sale, [ReturnLine(1, 1)], own).given_fen == 100
    with pytest.raises(Refused, match="not_returnable"):
        bring_back(sale, [ReturnLine(2, 1)], own)
