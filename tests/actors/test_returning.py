"""Goods brought back: their share to the original tenders, once, whoever asks how often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.ports import FindSale, PayVerb, ReverseUses
from models.domain.events import Return, ReturnLine, TenderKind, Void
from models.domain.facts import SaleReturned, SaleVoided
from models.domain.ids import BenefitId, LegalEntityId, MembershipId, SaleId, StoreId, UsageId
from models.domain.messages import (
    PastReturn,
    PaymentOutcome,
    SaleFound,
    SaleNoted,
    SaleTender,
    SaleUse,
    VoidBegun,
    VoidEnded,
)
from models.domain.screen import ScreenLine
from tests.actors.lane import Lane

RECEIPT = "s1-l1-000001"
SALE = SaleId("5a1e0000-0000-4000-8000-000000000001")
USE = SaleUse(UsageId("u1"), MembershipId("m-1"), BenefitId("coupon8"), 800)
LINES = (ScreenLine(1, "tea", "Tea", 2, 1200, 800, 1600), ScreenLine(2, "top-up", "Top-up", 1, 5000, 0, 5000))
ONE_TEA = Return(RECEIPT, (ReturnLine(1, 1),), "damaged")


def found(question: str, **changes: Any) -> SaleFound:
    sale = SaleFound(
        question,
        SALE,
        RECEIPT,
        StoreId("s1"),
        "2026-04-01",
        gross_fen=7400,
        discount_fen=800,
        tenders=(SaleTender(TenderKind.FACE, 6000, "P1", "trade"), SaleTender(TenderKind.CASH, 600)),
        uses=(USE,),
        entity=LegalEntityId("former-owner"),
        agency_fen=5000,
        lines=LINES,
    )
    return replace(sale, **changes)


def asked(lane: Lane, body: Return = ONE_TEA, **changes: Any) -> str:
    event = lane.later(body)
    question, _ = lane.asked(FindSale)
    lane.tell(found(question, **changes))
    return event


def backs(lane: Lane) -> list[SaleReturned]:
    return [fact for fact in lane.facts if isinstance(fact, SaleReturned)]


def code(lane: Lane, event: str) -> str:
    error = lane.replies[event].error
    return error.code if error is not None else ""


def test_one_of_two_pieces_on_another_day() -> None:
    lane = Lane()
    lane.open()
    event = asked(lane)
    assert backs(lane) == [], "money first"
    request = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert (request.verb, request.order, request.entity) == (PayVerb.REFUND, "P1", "former-owner")
    assert lane.replies[event].ok
    (back,) = backs(lane)
    assert (back.n, back.due_fen, back.discount_fen, back.business_date) == (0, 800, 400, "2026-05-01")
    assert [(tender.kind, tender.fen) for tender in back.tenders] == [(TenderKind.FACE, 727), (TenderKind.CASH, 73)]
    assert request.fen == 727
    reverse = lane.asked(ReverseUses)[1]
    assert [(use.usage, use.fen) for use in reverse.uses] == [("u1", 400)]
    assert lane.session.prompt is not None
    assert (lane.prompt, lane.session.prompt.params) == ("returned", {"back": "8.00", "cash": "0.73"})
    begun, ended, noted = (tell.message for tell in lane.told)
    assert (begun, ended) == (VoidBegun(RECEIPT, lane.session.lane), VoidEnded(RECEIPT, lane.session.lane))
    assert noted == SaleNoted(0, -800, -400)


def test_an_unclear_refund_keeps_its_number_until_it_is_booked() -> None:
    lane = Lane()
    asked(lane)
    first = lane.pay_answer(PaymentOutcome.UNKNOWN)
    lane.after(3)
    again = lane.pay_answer(PaymentOutcome.FAILED)
    assert backs(lane) == []
    asked(lane)
    third = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert first.refund_no == again.refund_no == third.refund_no
    (back,) = backs(lane)
    past = PastReturn(back.lines, back.tenders, back.uses)
    asked(lane, returns=(past,))
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED).refund_no != first.refund_no
    assert [one.n for one in backs(lane)] == [0, 1]
    assert len({one.id for one in backs(lane)}) == 2


@pytest.mark.parametrize(
    ("lines", "changes", "expected"),
    [
        ((ReturnLine(1, 1),), {"sale": None}, "no_such_receipt"),
        ((ReturnLine(1, 1),), {"busy": True}, "lane_busy"),
        ((ReturnLine(1, 1),), {"voided": True}, "already_voided"),
        ((ReturnLine(7, 1),), {}, "no_such_line"),
        ((ReturnLine(1, 3),), {}, "return_exceeds"),
        ((ReturnLine(1, 1), ReturnLine(1, 2)), {}, "return_exceeds"),
        ((ReturnLine(2, 1),), {}, "not_returnable"),
    ],
)
def test_what_cannot_be_returned(lines: tuple[ReturnLine, ...], changes: dict[str, Any], expected: str) -> None:
    lane = Lane()
    event = asked(lane, Return(RECEIPT, lines, ""), **changes)
    assert (code(lane, event), backs(lane), lane.session.voiding) == (expected, [], None)
    assert isinstance(lane.told[-1].message, VoidEnded), "the receipt is free again"


def test_no_void_after_a_return() -> None:
    lane = Lane()
    event = lane.later(Void(RECEIPT))
    question, _ = lane.asked(FindSale)
    past = PastReturn((), (), ())
    lane.tell(found(question, business_date="2026-05-01", returns=(past,)))
    assert code(lane, event) == "already_returned"
    assert not any(isinstance(fact, SaleVoided) for fact in lane.facts)


def test_cash_alone_needs_no_provider() -> None:
    lane = Lane()
    event = asked(lane, tenders=(SaleTender(TenderKind.CASH, 6600),), agency_fen=0)
    assert lane.replies[event].ok
    assert [tender.fen for tender in backs(lane)[0].tenders] == [800]


# ---------------------------------------------------------------- another store, another entity, cash instead


def test_goods_of_another_store_are_its_entitys_and_cash_is_this_lanes() -> None:
    lane = Lane()
    event = asked(lane, store=StoreId("s2"), tenders=(SaleTender(TenderKind.CASH, 6600),))
    assert lane.replies[event].ok
    (back,) = backs(lane)
    assert (back.store, back.lane, back.paid_by) == ("s1", lane.session.lane, "franchisee")
    assert (back.sold_at, back.entity) == ("s2", "former-owner")


def test_a_sale_of_another_store_is_not_undone_here() -> None:
    lane = Lane()
    event = lane.later(Void(RECEIPT))
    question, request = lane.asked(FindSale)
    assert request.lane == lane.session.lane, "it claims the sale"
    lane.tell(found(question, store=StoreId("s2"), business_date="2026-05-01"))
    assert code(lane, event) == "no_such_receipt"


CASH = replace(ONE_TEA, reason="cash:card is closed")
FACE_ONLY = SaleTender(TenderKind.FACE, 6600, "P1", "trade")


@pytest.mark.parametrize(
    ("body", "clerk", "tender", "paid"),
    [
        (CASH, "boss", FACE_ONLY, True),
        (CASH, None, FACE_ONLY, False),
        (ONE_TEA, "boss", FACE_ONLY, False),
        (CASH, "boss", replace(FACE_ONLY, payer_fen=6000), False),
        (CASH, "boss", replace(FACE_ONLY, receipt_fen=6500), False),
        (CASH, "boss", replace(FACE_ONLY, payer_fen=6600, receipt_fen=6600), True),
    ],
)
def test_cash_in_the_place_of_a_refused_refund_is_approved_by_a_clerk(
    body: Return, clerk: str | None, tender: SaleTender, paid: bool
) -> None:
    """Not where the provider gave a part of it: then the customer paid less than the goods cost."""
    lane = Lane()
    event = lane.later(body, clerk=clerk)
    question, request = lane.asked(FindSale)
    assert request.approver == ("" if body is ONE_TEA else clerk or "")
    if body is CASH and clerk is None:
        lane.tell(found(question, tenders=(tender,)))
        assert (code(lane, event), lane.session.voiding, backs(lane)) == ("permission_missing", None, [])
        return
    lane.tell(found(question, tenders=(tender,), approved=body is CASH))
    lane.pay_answer(PaymentOutcome.FAILED)
    assert (code(lane, event), lane.session.voiding) == ("" if paid else "refund_failed", None)
    if paid:
        (back,) = backs(lane)
        assert [(one.kind, one.fen, one.payer_fen, one.order) for one in back.tenders] == [
            (TenderKind.CASH, 800, 800, "")
        ]
        assert (back.clerk, back.reason) == ("boss", "cash:card is closed")
    else:
        assert backs(lane) == []


def test_what_the_provider_gives_back_is_not_given_in_cash_too() -> None:
    lane = Lane()
    lane.later(CASH, clerk="boss")
    two = (SaleTender(TenderKind.FACE, 3300, "P1"), SaleTender(TenderKind.QR, 3300, "P2"))
    lane.tell(found(lane.asked(FindSale)[0], tenders=two, approved=True))
    lane.pay_answer(PaymentOutcome.FAILED)
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED).order == "P2"
    (back,) = backs(lane)
    assert [(one.kind, one.fen) for one in back.tenders] == [(TenderKind.CASH, 400), (TenderKind.QR, 400)]


def test_who_has_no_permission_approves_of_no_cash() -> None:
    lane = Lane()
    event = lane.later(CASH, clerk="new here")
    lane.tell(found(lane.asked(FindSale)[0], tenders=(FACE_ONLY,)))
    assert (code(lane, event), lane.session.voiding, backs(lane)) == ("permission_missing", None, [])
