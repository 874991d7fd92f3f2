"""A payment in several parts: what can be taken back first, all of them or none."""

from __future__ import annotations

from actors.paying import CANCELS_MAX
from actors.ports import PayVerb
from models.domain.events import Cancel, Confirm, SessionOpen, Tender, TenderKind
from models.domain.facts import Incident
from models.domain.messages import PaymentOutcome
from tests.actors.lane import Lane, buy, cash, face_pay, qr


def told(lane: Lane) -> list[tuple[str, str]]:
    return [(fact.kind, fact.detail) for fact in lane.facts if isinstance(fact, Incident)]


def split(*tenders: Tender) -> tuple[Lane, str]:
    lane = Lane()
    lane.open()
    buy(lane, "tea", "roll")
    return lane, lane.later(Confirm(lane.session.rev, tenders))


def test_parts_are_taken_one_after_the_other_and_what_must_be_scanned_last() -> None:
    lane, reply = split(qr(353), cash(1000), face_pay(500))
    first = lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t1")
    assert (first.verb, first.kind, first.fen) == (PayVerb.PAY, TenderKind.FACE, 500)
    assert (lane.sales, lane.state) == ([], "paying")
    assert reply not in lane.replies
    second = lane.pay_answer(PaymentOutcome.SUCCEEDED, collection_code="https://pay/1")
    assert (second.verb, second.kind, second.fen) == (PayVerb.PRECREATE, TenderKind.QR, 353)
    assert second.order != first.order
    lane.after(3)
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t2").order == second.order
    (sale,) = lane.sales
    assert [(part.kind, part.fen, part.order, part.trade_no) for part in sale.tenders] == [
        (TenderKind.FACE, 500, first.order, "t1"),
        (TenderKind.QR, 353, second.order, "t2"),
        (TenderKind.CASH, 1000, "", ""),
    ]
    assert (sale.rounding_fen, sale.suspense_fen, lane.replies[reply].ok) == (0, 0, True)
    lane.nobody_waits()


def test_a_part_that_fails_gives_all_parts_before_it_back_the_last_first() -> None:
    lane, reply = split(face_pay(500), face_pay(600), qr(753))
    one = lane.pay_answer(PaymentOutcome.SUCCEEDED).order
    two = lane.pay_answer(PaymentOutcome.SUCCEEDED).order
    failed = lane.pay_answer(PaymentOutcome.FAILED, code="refused")
    assert failed.verb is PayVerb.PRECREATE
    assert len({one, two, failed.order}) == 3
    assert not lane.replies[reply].ok
    assert (lane.state, lane.prompt) == ("reversing", "not_paid")
    lane.refused(SessionOpen(), "lane_busy")
    undone = [lane.pay_answer(PaymentOutcome.SUCCEEDED) for _ in range(2)]
    assert [(request.verb, request.order, request.fen) for request in undone] == [
        (PayVerb.CANCEL, two, 600),
        (PayVerb.CANCEL, one, 500),
    ]
    assert (lane.state, lane.prompt, lane.sales) == ("quoted", "not_paid", [])
    lane.later(Confirm(lane.session.rev, (face_pay(1853),)))
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED).order not in {one, two, failed.order}
    assert [sale.due_fen for sale in lane.sales] == [1853]


def test_cash_changes_hands_only_when_everything_else_is_paid() -> None:
    lane, _ = split(cash(1000, 2000), face_pay(853))
    lane.pay_answer(PaymentOutcome.FAILED, code="not_enough_funds")
    assert (lane.state, lane.sales) == ("quoted", [])
    lane.nobody_waits()


def test_a_cancel_in_the_second_part_ends_both() -> None:
    lane, reply = split(face_pay(500), qr(1353))
    one = lane.pay_answer(PaymentOutcome.SUCCEEDED).order
    two = lane.pay_answer(PaymentOutcome.SUCCEEDED, collection_code="https://pay/1").order
    cancelled = lane.later(Cancel())
    for order in (two, one):
        assert cancelled not in lane.replies
        request = lane.pay_answer(PaymentOutcome.SUCCEEDED)
        assert (request.verb, request.order) == (PayVerb.CANCEL, order)
    assert lane.replies[cancelled].ok
    assert not lane.replies[reply].ok
    assert (lane.state, lane.sales) == ("quoted", [])
    lane.nobody_waits()


def test_a_part_that_cannot_be_given_back_is_asked_for_until_it_is_and_never_collected_further() -> None:
    lane, _ = split(face_pay(500), face_pay(1353))
    one = lane.pay_answer(PaymentOutcome.SUCCEEDED).order
    lane.pay_answer(PaymentOutcome.FAILED, code="refused")
    for outcome, code in ((PaymentOutcome.UNKNOWN, ""), (PaymentOutcome.FAILED, "refused")):
        request = lane.pay_answer(outcome, code=code)
        assert (request.verb, request.order) == (PayVerb.CANCEL, one)
        lane.after(3)
    assert lane.waits_for() == [PayVerb.CANCEL]
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED).order == one
    assert (lane.state, lane.sales) == ("quoted", [])
    assert [kind for kind, _ in told(lane)] == ["payment_failed"]


def test_a_part_that_never_comes_back_is_parked_by_its_number() -> None:
    lane, _ = split(face_pay(500), face_pay(1353))
    one = lane.pay_answer(PaymentOutcome.SUCCEEDED).order
    lane.pay_answer(PaymentOutcome.FAILED, code="refused")
    for _ in range(CANCELS_MAX):
        lane.pay_answer(PaymentOutcome.UNKNOWN)
        lane.after(300)
    assert (lane.state, lane.sales) == ("quoted", [])
    assert [about for code, about in told(lane) if code == "payment_parked"] == [one]
