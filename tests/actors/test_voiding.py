"""A whole sale undone on its own business date: money back first, once, then the mirror."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.ports import FindSale, PaymentRequest, PayVerb, ReverseUses
from actors.voiding import TRIES_MAX
from models.domain.events import Cancel, SessionOpen, TenderKind, Void
from models.domain.facts import Incident, SaleVoided
from models.domain.ids import BenefitId, MembershipId, SaleId, StoreId, UsageId
from models.domain.messages import PaymentOutcome, SaleFound, SaleNoted, SaleTender, SaleUse, VoidBegun, VoidEnded
from tests.actors.lane import Lane, buy, cash

RECEIPT = "s1-l1-000001"
SALE = SaleId("5a1e0000-0000-4000-8000-000000000001")
FACE = SaleTender(TenderKind.FACE, 400, "P1", "trade")
USE = SaleUse(UsageId("u1"), MembershipId("m-1"), BenefitId("coupon8"), 800)


def found(question: str, **changes: Any) -> SaleFound:
    sale = SaleFound(
        question,
        SALE,
        RECEIPT,
        StoreId("s1"),
        "2026-05-01",
        gross_fen=1200,
        discount_fen=800,
        tenders=(FACE,),
        uses=(USE,),
    )
    return replace(sale, **changes)


def voids(lane: Lane) -> list[SaleVoided]:
    return [fact for fact in lane.facts if isinstance(fact, SaleVoided)]


def asked(lane: Lane, **changes: Any) -> str:
    """Void, and find the sale; the event's id."""
    event = lane.later(Void(RECEIPT))
    question, request = lane.asked(FindSale)
    assert (request.store, request.receipt) == ("s1", RECEIPT)
    lane.tell(found(question, **changes))
    return event


def code(lane: Lane, event: str) -> str:
    error = lane.replies[event].error
    return error.code if error is not None else ""


def test_a_cash_sale_needs_no_provider() -> None:
    lane = Lane()
    event = asked(lane, tenders=(SaleTender(TenderKind.CASH, 1200),), uses=(), discount_fen=0)
    assert lane.replies[event].ok
    (void,) = voids(lane)
    assert (void.sale, void.business_date) == (SALE, "2026-05-01")
    assert lane.asks == []
    begun, ended, noted = (tell.message for tell in lane.told)
    assert (begun, ended) == (VoidBegun(RECEIPT, lane.session.lane), VoidEnded(RECEIPT, lane.session.lane))
    assert noted == SaleNoted(-1, -1200, 0)
    lane.nobody_waits()


def test_the_provider_gives_back_before_anything_is_booked() -> None:
    lane = Lane()
    lane.open()
    event = asked(lane)
    assert voids(lane) == []
    request = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert (request.verb, request.order, request.fen) == (PayVerb.REFUND, "P1", 400)
    assert lane.replies[event].ok
    assert len(voids(lane)) == 1
    reverse = lane.asked(ReverseUses)[1]
    assert (reverse.sale, reverse.uses) == (SALE, (USE,))
    assert (lane.told[-1].message, lane.prompt) == (SaleNoted(-1, -400, -800), "voided")


def test_an_unclear_refund_is_asked_again_under_one_number_for_ever() -> None:
    lane = Lane()
    asked(lane)
    first = lane.pay_answer(PaymentOutcome.UNKNOWN)
    lane.after(3)
    second = lane.pay_answer(PaymentOutcome.PENDING)
    lane.after(3)
    third = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert first.refund_no == second.refund_no == third.refund_no
    assert len(voids(lane)) == 1
    again = asked(Lane())
    assert again
    lane.nobody_waits()


def test_a_refund_that_never_becomes_clear_is_an_incident_and_may_be_tried_again() -> None:
    lane = Lane()
    event = asked(lane)
    number = ""
    for _ in range(TRIES_MAX):
        number = lane.pay_answer(PaymentOutcome.UNKNOWN).refund_no
        lane.after(3)
    assert lane.replies[event].pending
    assert voids(lane) == []
    assert any(isinstance(fact, Incident) and fact.kind == "refund_unknown" for fact in lane.facts)
    asked(lane)
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED).refund_no == number
    assert len(voids(lane)) == 1


def test_a_refused_refund() -> None:
    lane = Lane()
    event = asked(lane)
    lane.pay_answer(PaymentOutcome.FAILED, code="order_unknown")
    assert (code(lane, event), voids(lane)) == ("refund_failed", [])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sale": None}, "no_such_receipt"),
        ({"store": StoreId("s2")}, "no_such_receipt"),
        ({"voided": True}, "already_voided"),
        ({"business_date": "2026-04-30"}, "wrong_day"),
    ],
)
def test_what_cannot_be_voided(changes: dict[str, Any], expected: str) -> None:
    lane = Lane()
    event = asked(lane, **changes)
    assert (code(lane, event), voids(lane), lane.session.voiding) == (expected, [], None)
    assert [tell.message for tell in lane.told] == [
        VoidBegun(RECEIPT, lane.session.lane),
        VoidEnded(RECEIPT, lane.session.lane),
    ]


def test_a_question_that_a_restart_lost_is_given_up_after_three_seconds() -> None:
    lane = Lane()
    event = lane.later(Void(RECEIPT))
    question, _ = lane.asked(FindSale)
    lane.after(3)
    assert code(lane, event) == "not_now"
    lane.tell(found(question))
    assert (lane.asks, voids(lane)) == ([], [])


def test_one_after_the_other() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    asked(lane)
    lane.refused(Void(RECEIPT), "lane_busy")
    lane.refused(SessionOpen(), "lane_busy")
    lane.refused(Cancel(), "lane_busy")
    reply = lane.confirm(cash(1200))
    assert reply is not None
    assert reply.error is not None
    assert reply.error.code == "lane_busy"
    ask, request = lane.asked(PaymentRequest)
    lane.tell(lane.payment(ask, request, PaymentOutcome.SUCCEEDED))
    lane.tell(lane.payment(ask, request, PaymentOutcome.SUCCEEDED))
    assert len(voids(lane)) == 1
