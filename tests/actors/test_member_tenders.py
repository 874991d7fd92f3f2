"""A balance and a withholding agreement pay for the member who is there: named by face, card or code, and digits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.identifying import CONFIRM_TRIES_MAX
from actors.ports import FindMember, PayVerb
from models.domain.events import Cancel, Confirm, Digits, Identify, Tender, TenderKind
from models.domain.ids import MemberId
from models.domain.ledger import clearing
from models.domain.messages import MemberFound, MemberView, PaymentOutcome
from models.tables.facts import sale_transaction
from tests.actors.lane import Lane, buy, cash, face_pay, member

NOBODY: MemberView | None = None
OWN = replace(member(membership=False), tenders=(TenderKind.BALANCE, TenderKind.AGREEMENT))
BALANCE, AGREEMENT = Tender(TenderKind.BALANCE, 1200), Tender(TenderKind.AGREEMENT, 1200)


def shop(who: MemberView = OWN) -> Lane:
    lane = Lane()
    lane.open()
    lane.identify(who)
    buy(lane, "tea")
    return lane


def give_digits(lane: Lane, found: MemberView | None = OWN) -> FindMember:
    lane.later(Digits("0815"))
    ask, request = lane.asked(FindMember)
    lane.tell(MemberFound(ask, request.session, found))
    return request


def actions(lane: Lane) -> tuple[str, ...]:
    assert lane.screen is not None
    return lane.screen.actions


@pytest.mark.parametrize("tender", [BALANCE, AGREEMENT])
def test_a_face_alone_moves_no_money(tender: Tender) -> None:
    lane = shop()
    assert "digits" in actions(lane)
    lane.refused(Confirm(lane.session.rev, (tender,)), "second_factor_missing")
    request = give_digits(lane)
    assert (request.by, request.value, request.member) == ("tail", "0815", OWN.id)
    assert "digits" not in actions(lane)
    lane.refused(Digits("0815"), "no_digits_asked")
    lane.confirm(tender)
    asked = lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t1", payer_fen=1200, receipt_fen=1200)
    assert (asked.verb, asked.member, asked.fen) == (PayVerb.PAY, OWN.id, 1200)
    assert asked.provider == ("balance" if tender is BALANCE else "alipay")
    (sale,) = lane.sales
    assert sale.tenders[0].provider == asked.provider
    taken = {entry.account: entry.amount_fen for entry in sale_transaction(sale).entries}
    assert taken[clearing(asked.provider)] == 1200
    assert lane.state == "paid"
    lane.nobody_waits()


def test_wrong_digits_confirm_nothing_and_are_few() -> None:
    lane = shop()
    for _ in range(CONFIRM_TRIES_MAX):
        give_digits(lane, NOBODY)
        assert lane.prompt == "digits_wrong"
    lane.refused(Digits("1111"), "digits_exhausted")
    lane.refused(Confirm(lane.session.rev, (BALANCE,)), "second_factor_missing")
    assert lane.session.misses == CONFIRM_TRIES_MAX, "the lane counts them beyond the visit"


def test_a_question_that_nobody_answered_is_no_try() -> None:
    lane = shop()
    lane.later(Digits("0815"))
    lane.after(4)
    assert (lane.session.question, lane.session.digits_tries, lane.session.two_factors) == (None, 0, False)
    lane.nobody_waits()


@pytest.mark.parametrize(("by", "proves"), [("phone", False), ("card", True), ("code", True)])
def test_a_phone_number_and_its_own_last_digits_are_one_factor(by: str, proves: bool) -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    lane.later(Identify(by, "13800000815"))
    ask, request = lane.asked(FindMember)
    lane.tell(MemberFound(ask, request.session, OWN))
    if proves:
        give_digits(lane)
        assert lane.session.two_factors
    else:
        lane.refused(Digits("0815"), "no_digits_asked")
        lane.refused(Confirm(lane.session.rev, (BALANCE,)), "second_factor_missing")


def test_the_factors_end_with_the_visit_and_hold_for_one_member() -> None:
    lane = shop()
    give_digits(lane)
    other = replace(OWN, id=MemberId("p-2"))
    assert not replace(lane.session, member=other).two_factors
    lane.open()
    buy(lane, "tea")
    lane.refused(Confirm(lane.session.rev, (BALANCE,)), "member_missing")


def test_each_of_them_once_and_with_other_tenders() -> None:
    lane = shop()
    give_digits(lane)
    twice = (Tender(TenderKind.BALANCE, 600), Tender(TenderKind.BALANCE, 600))
    lane.refused(Confirm(lane.session.rev, twice), "tender_unsupported")
    lane.confirm(face_pay(500), Tender(TenderKind.BALANCE, 300), cash(400))
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED).provider == "balance", "what answers at once is asked first"
    assert lane.pay_answer(PaymentOutcome.FAILED, code="not_enough_funds").provider == "alipay"
    undone = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert (undone.verb, undone.provider, undone.fen) == (PayVerb.CANCEL, "balance", 300)
    assert lane.state == "quoted"
    assert not lane.sales


@pytest.mark.parametrize("code", ["balance_short", "agreement_missing", "payment_limit", "day_limit"])
def test_why_it_did_not_pay_is_said(code: str) -> None:
    lane = shop()
    give_digits(lane)
    event = lane.later(Confirm(lane.session.rev, (BALANCE,)))
    lane.pay_answer(PaymentOutcome.FAILED, code=code)
    error = lane.replies[event].error
    assert error is not None
    assert error.code == code
    assert lane.state == "quoted"


def test_a_payment_by_agreement_that_is_unclear_is_cancelled_like_any() -> None:
    lane = shop()
    give_digits(lane)
    lane.later(Confirm(lane.session.rev, (AGREEMENT,)))
    lane.pay_answer(PaymentOutcome.UNKNOWN)
    assert lane.prompt != "authorise_on_phone", "the customer has nothing to do"
    lane.later(Cancel())
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED).verb is PayVerb.CANCEL
    assert lane.state == "quoted"
    lane.nobody_waits()
