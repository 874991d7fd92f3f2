"""Paying: exactly what the screen showed, once, and never a lane that waits for ever."""

from __future__ import annotations

import pytest

from actors.paying import POLLS_MAX
from actors.ports import PaymentRequest, PayVerb, PostUses, ReleaseUses, ReserveUses
from models.domain.events import (
    Cancel,
    Confirm,
    Consent,
    Enrol,
    FaceShown,
    Purpose,
    Scan,
    SessionOpen,
    Tender,
    TenderKind,
    Void,
)
from models.domain.facts import Incident
from models.domain.ids import TerminalId
from models.domain.messages import PaymentOutcome, ReserveAnswered, UsesPosted
from models.tables.facts import sale_transaction
from tests.actors.lane import JPEG, PLAN, Lane, buy, cancel, cash, face_pay, member, qr


def shop(*codes: str, who: bool = False) -> Lane:
    lane = Lane()
    lane.open()
    if who:
        lane.identify()
    buy(lane, *codes)
    return lane


# ---------------------------------------------------------------- cash


def test_cash_is_rounded_down_and_gives_change() -> None:
    lane = shop("tea", "roll")  # 18.53
    assert lane.screen is not None
    assert (lane.screen.due_fen, lane.screen.cash_due_fen) == (1853, 1850)
    reply = lane.confirm(cash(1850, 2000))
    assert reply is not None
    assert reply.ok
    (sale,) = lane.sales
    assert (sale.due_fen, sale.rounding_fen, sale.suspense_fen, sale.business_date) == (1853, 3, 0, "2026-05-01")
    assert [(part.fen, part.tendered_fen, part.change_fen) for part in sale.tenders] == [(1850, 2000, 150)]
    assert lane.screen.state == "paid"
    assert lane.screen.paid is not None
    assert lane.screen.paid[0].change_fen == 150
    assert lane.screen.receipt is not None
    assert lane.screen.receipt.no == sale.receipt == "s1-l1-000001"
    lane.after(30)
    assert lane.state == "closed"
    lane.nobody_waits()


def test_less_than_a_jiao_is_let_off() -> None:
    lane = shop("gum")
    reply = lane.confirm(cash(0))
    assert reply is not None
    assert reply.ok
    assert (lane.sales[0].due_fen, lane.sales[0].rounding_fen) == (3, 3)


@pytest.mark.parametrize(
    ("tenders", "code"),
    [
        ((), "tender_mismatch"),
        ((cash(1200),), "tender_mismatch"),
        ((cash(1853),), "tender_mismatch"),
        ((cash(1850, 1800),), "tender_short"),
        ((cash(-1850),), "tender_invalid"),
        ((Tender(TenderKind.QR, 1853, None, 2000),), "change_not_cash"),
        ((cash(1850), Tender(TenderKind.COUPON, 100)), "coupon_mismatch"),
        ((Tender(TenderKind.CARD, 853), face_pay(1000)), "tender_unsupported"),
        ((Tender(TenderKind.AGREEMENT, 1853),), "member_missing"),
        ((Tender(TenderKind.BALANCE, 1853),), "member_missing"),
        ((face_pay(500), face_pay(500), face_pay(500), qr(353)), "tender_unsupported"),
        ((Tender(TenderKind.FACE, 1853),), "token_missing"),
        ((Tender(TenderKind.CODE, 1853),), "token_missing"),
    ],
)
def test_tenders_that_do_not_pay(tenders: tuple[Tender, ...], code: str) -> None:
    lane = shop("tea", "roll")
    lane.refused(Confirm(lane.session.rev, tenders), code)


def test_a_stale_confirm_is_refused_with_the_new_screen() -> None:
    lane = shop("tea")
    old = lane.session.rev
    buy(lane, "roll")
    lane.screen = None
    reply = lane.confirm(cash(1200), rev=old)
    assert reply is not None
    assert reply.error is not None
    assert reply.error.code == "stale_rev"
    assert lane.screen is not None
    assert lane.screen.rev == lane.session.rev  # type: ignore[unreachable]
    assert lane.state == "quoted"


def test_cash_and_the_provider_together() -> None:
    lane = shop("tea", "roll")
    lane.confirm(cash(1000), face_pay(853))
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t1").fen == 853
    (sale,) = lane.sales
    assert [(part.kind, part.fen, bool(part.order)) for part in sale.tenders] == [
        (TenderKind.FACE, 853, True),
        (TenderKind.CASH, 1000, False),
    ]
    assert sale.rounding_fen == 0


def test_a_card_is_taken_by_the_banks_device_exactly_and_beside_cash() -> None:
    lane = shop("tea", "roll")
    reply = lane.confirm(Tender(TenderKind.CARD, 1000), cash(853, 1000))
    assert reply is not None
    assert reply.ok
    (sale,) = lane.sales
    assert [(part.kind, part.fen, part.change_fen) for part in sale.tenders] == [
        (TenderKind.CARD, 1000, None),
        (TenderKind.CASH, 853, 147),
    ]
    assert (sale.rounding_fen, sale.suspense_fen) == (0, 0)


def test_a_promotion_of_the_providers_changes_what_is_paid_and_not_the_price() -> None:
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t1", payer_fen=1100, receipt_fen=1150)
    (sale,) = lane.sales
    assert (sale.due_fen, sale.suspense_fen) == (1200, 0)
    assert [(part.fen, part.payer_fen, part.receipt_fen) for part in sale.tenders] == [(1200, 1100, 1150)]
    assert lane.screen is not None
    assert lane.screen.paid is not None
    assert [(paid.fen, paid.payer_fen) for paid in lane.screen.paid] == [(1200, 1100)]
    booked = {entry.account: entry.amount_fen for entry in sale_transaction(sale).entries}
    assert booked == {"provider_clearing:alipay": 1150, "discount_given:s1": 50, "sales_gross:s1": -1200}


# ---------------------------------------------------------------- the provider


def test_face_pay_succeeds() -> None:
    lane = shop("tea")
    event = lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    assert lane.state == "paying"
    request = lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t1")
    assert (request.verb, request.entity, request.fen) == (PayVerb.PAY, "franchisee", 1200)
    assert lane.replies[event].ok
    (sale,) = lane.sales
    assert (sale.tenders[0].order, sale.tenders[0].trade_no) == (request.order, "t1")
    lane.nobody_waits()


def test_face_pay_fails_and_the_next_attempt_has_a_new_number() -> None:
    lane = shop("tea")
    event = lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    first = lane.pay_answer(PaymentOutcome.FAILED, code="not_enough_funds")
    error = lane.replies[event].error
    assert error is not None
    assert error.code == "pay_failed"
    assert (lane.state, lane.prompt, lane.sales) == ("quoted", "pay_failed", [])
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    second = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert first.order != second.order
    assert len(lane.sales) == 1


def test_pending_is_answered_after_ten_seconds_and_polled_under_the_same_number() -> None:
    lane = shop("tea")
    event = lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    first = lane.pay_answer(PaymentOutcome.PENDING)
    assert lane.prompt == "authorise_on_phone"
    for _ in range(3):
        lane.after(3)
        again = lane.pay_answer(PaymentOutcome.UNKNOWN)
        assert (again.verb, again.order) == (PayVerb.QUERY, first.order)
    lane.after(3)
    assert lane.replies[event].pending
    lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert lane.state == "paid"
    assert len(lane.sales) == 1
    lane.nobody_waits()


def test_a_number_that_the_provider_never_saw_is_sent_again_at_once() -> None:
    """The provider died with the request and came back: nobody waits a minute for what never began."""
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    first = lane.pay_answer(PaymentOutcome.UNKNOWN)
    lane.after(3)
    assert lane.pay_answer(PaymentOutcome.UNKNOWN).verb is PayVerb.QUERY
    lane.after(3)
    assert lane.pay_answer(PaymentOutcome.ABSENT).verb is PayVerb.QUERY
    again = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert (again.verb, again.order, again.auth) == (PayVerb.PAY, first.order, first.auth)
    assert lane.state == "paid"
    assert len(lane.sales) == 1
    lane.nobody_waits()


def test_after_a_cancel_an_unknown_number_is_not_paid_again() -> None:
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    lane.pay_answer(PaymentOutcome.UNKNOWN)
    lane.later(Cancel())
    lane.pay_answer(PaymentOutcome.FAILED, code="refused")
    for _ in range(20):
        lane.after(3)
        if lane.state != "paying":
            break
        assert lane.waits_for() == [PayVerb.QUERY]
        lane.pay_answer(PaymentOutcome.ABSENT)
    assert PayVerb.PAY not in lane.waits_for()
    assert lane.sales == []


def test_after_sixty_seconds_the_order_is_cancelled_and_never_left_open() -> None:
    lane = shop("tea", who=True)
    lane.later(Confirm(lane.session.rev, (face_pay(400),)))
    reserve, reserved = lane.asked(ReserveUses)
    lane.tell(ReserveAnswered(reserve, reserved.session, True))
    order = lane.pay_answer(PaymentOutcome.UNKNOWN).order
    started = lane.now
    while lane.state == "paying":
        lane.after(3)
        if lane.waits_for() == [PayVerb.QUERY]:
            lane.pay_answer(PaymentOutcome.PENDING)
    assert (lane.now - started).total_seconds() <= 60
    assert (lane.state, lane.prompt, lane.waits_for()) == ("reversing", "not_paid", [PayVerb.CANCEL])
    lane.refused(SessionOpen(), "lane_busy")
    lane.refused(Cancel(), "lane_busy")
    lane.pay_answer(PaymentOutcome.UNKNOWN)
    lane.after(3)
    again = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert (again.verb, again.order) == (PayVerb.CANCEL, order)
    assert (lane.state, lane.prompt, lane.sales) == ("quoted", "not_paid", [])
    assert lane.asked(ReleaseUses)[1].uses == reserved.uses
    lane.nobody_waits()


def test_a_success_that_comes_while_reversing_is_left_to_the_cancel() -> None:
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    lane.pay_answer(PaymentOutcome.PENDING)
    lane.after(3)
    query, request = lane.asked(PaymentRequest)
    cancelled = lane.later(Cancel())
    lane.tell(lane.payment(query, request, PaymentOutcome.SUCCEEDED))
    assert (lane.state, lane.sales) == ("reversing", [])
    lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert lane.replies[cancelled].ok
    assert (lane.state, lane.sales) == ("quoted", [])
    lane.nobody_waits()


@pytest.mark.parametrize("code", ["closed", "reversed"])
def test_a_cancel_that_finds_the_order_ended(code: str) -> None:
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    lane.later(Cancel())
    lane.pay_answer(PaymentOutcome.FAILED, code=code)
    assert (lane.state, lane.sales) == ("quoted", [])


@pytest.mark.parametrize("paid", [True, False])
def test_a_cancel_that_the_provider_refuses_is_no_proof_that_nothing_was_taken(paid: bool) -> None:
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    cancelled = lane.later(Cancel())
    pay, pay_request = next((ask.id, ask.request) for ask in lane.asks)
    lane.pay_answer(PaymentOutcome.FAILED, code="refused")
    assert lane.state == "reversing"
    lane.after(3)
    query, request = lane.asked(PaymentRequest)
    assert request.verb is PayVerb.QUERY
    if paid:
        lane.tell(lane.payment(query, request, PaymentOutcome.SUCCEEDED))
        assert lane.state == "paid"
        assert len(lane.sales) == 1
        error = lane.replies[cancelled].error
        assert error is not None
        assert error.code == "not_now"
    else:
        lane.tell(lane.payment(query, request, PaymentOutcome.FAILED, code="closed"))
        assert (lane.state, lane.sales) == ("quoted", [])
        assert lane.replies[cancelled].ok
    assert isinstance(pay_request, PaymentRequest)
    lane.tell(lane.payment(pay, pay_request, PaymentOutcome.SUCCEEDED))
    assert len(lane.sales) == int(paid), "an answer about an ended order changes nothing"
    lane.nobody_waits()


def test_qr_shows_a_code_and_is_polled() -> None:
    lane = shop("tea")
    event = lane.later(Confirm(lane.session.rev, (qr(1200),)))
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED, collection_code="https://qr/1").verb is PayVerb.PRECREATE
    assert lane.session.prompt is not None
    assert (lane.prompt, lane.session.prompt.params["code_url"]) == ("scan_qr", "https://qr/1")
    lane.after(3)
    lane.pay_answer(PaymentOutcome.PENDING)
    lane.after(3)
    assert lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t").verb is PayVerb.QUERY
    assert lane.state == "paid"
    assert lane.replies[event].ok
    lane.nobody_waits()


def test_a_code_that_got_lost_is_asked_for_again() -> None:
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (qr(1200),)))
    first = lane.pay_answer(PaymentOutcome.UNKNOWN)
    assert lane.prompt == ""
    lane.after(3)
    again = lane.pay_answer(PaymentOutcome.SUCCEEDED, collection_code="https://qr/1")
    assert (again.verb, again.order) == (PayVerb.PRECREATE, first.order)
    assert lane.prompt == "scan_qr"
    lane.after(3)
    assert lane.waits_for() == [PayVerb.QUERY]


def test_a_code_that_nobody_pays_is_cancelled() -> None:
    lane = shop("tea")
    lane.later(Confirm(lane.session.rev, (qr(1200),)))
    lane.pay_answer(PaymentOutcome.SUCCEEDED, collection_code="https://qr/1")
    for _ in range(POLLS_MAX):
        lane.after(3)
        assert lane.pay_answer(PaymentOutcome.PENDING).verb is PayVerb.QUERY
    assert lane.waits_for() == [PayVerb.CANCEL]
    lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert lane.state == "quoted"


# ---------------------------------------------------------------- benefits


def test_a_benefit_is_reserved_before_and_posted_after_the_money() -> None:
    lane = shop("tea", who=True)
    assert lane.screen is not None
    shown = lane.screen
    lane.later(Confirm(shown.rev, (face_pay(400),)))
    assert lane.waits_for() == []
    ask, reserve = lane.asked(ReserveUses)
    assert (reserve.membership, [use.fen for use in reserve.uses]) == ("m-1", [800])
    lane.tell(ReserveAnswered(ask, reserve.session, True))
    lane.pay_answer(PaymentOutcome.SUCCEEDED)
    _, post = lane.asked(PostUses)
    (sale,) = lane.sales
    assert post.uses == reserve.uses == sale.uses
    assert (post.sale, post.paid_fen, post.unreserved) == (sale.id, 400, False)
    assert (sale.member, sale.membership, sale.discount_fen) == ("p-1", "m-1", 800)
    assert lane.screen.membership is not None
    assert (lane.screen.membership.used_fen, lane.screen.membership.uses_left) == (800, 4)
    assert lane.session.id is not None
    lane.tell(UsesPosted("x", lane.session.id, member(4, 800)))
    lane.tell(UsesPosted("x", lane.session.id, member(3, 1600)))
    assert lane.screen.membership.uses_left == 3, "another store used one meanwhile"


def test_a_benefit_that_is_gone_changes_the_price_before_any_money() -> None:
    lane = shop("tea", who=True)
    event = lane.later(Confirm(lane.session.rev, (face_pay(400),)))
    lane.reserve_answer(False, member(0, 4000))
    assert lane.waits_for() == []
    error = lane.replies[event].error
    assert error is not None
    assert error.code == "benefit_gone"
    assert (lane.state, lane.prompt) == ("quoted", "price_changed")
    assert lane.screen is not None
    assert lane.screen.due_fen == 1200
    lane.later(Confirm(lane.session.rev, (face_pay(1200),)))
    lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert lane.sales[0].uses == ()


def test_only_the_answer_to_this_reservation_counts() -> None:
    lane = shop("tea", who=True)
    lane.later(Confirm(lane.session.rev, (face_pay(400),)))
    old, request = lane.asked(ReserveUses)
    lane.tell(ReserveAnswered(old, request.session, False, "benefit_gone", member()))
    lane.later(Confirm(lane.session.rev, (face_pay(400),)))
    lane.tell(ReserveAnswered(old, request.session, True))
    assert lane.waits_for() == [], "the first reservation, answered twice, pays nothing"
    lane.reserve_answer()
    assert lane.waits_for() == [PayVerb.PAY]


def test_a_failed_payment_gives_the_benefit_back() -> None:
    lane = shop("tea", who=True)
    lane.later(Confirm(lane.session.rev, (face_pay(400),)))
    ask, reserve = lane.asked(ReserveUses)
    lane.tell(ReserveAnswered(ask, reserve.session, True))
    lane.pay_answer(PaymentOutcome.FAILED, code="auth_invalid")
    assert lane.asked(ReleaseUses)[1].uses == reserve.uses
    assert any(isinstance(fact, Incident) and fact.kind == "payment_failed" for fact in lane.facts)


def test_tobacco_is_never_discounted() -> None:
    lane = shop("smokes", who=True)
    assert lane.screen is not None
    assert (lane.screen.due_fen, lane.screen.discount_fen) == (2500, 0)


# ---------------------------------------------------------------- busy


@pytest.mark.parametrize("phase", ["reserving", "asking", "collecting", "reversing"])
def test_a_running_payment_keeps_everybody_else_away(phase: str) -> None:
    lane = shop("tea", who=True)
    lane.later(Confirm(lane.session.rev, (face_pay(400),)))
    if phase != "reserving":
        lane.reserve_answer()
    if phase in ("collecting", "reversing"):
        lane.pay_answer(PaymentOutcome.PENDING)
    if phase == "reversing":
        lane.later(Cancel())
    assert lane.session.payment is not None
    assert lane.session.payment.phase == phase
    for body in (SessionOpen(), Scan("tea", 1), Confirm(lane.session.rev, (cash(400),)), Void("s1-l1-000001")):
        lane.refused(body, "lane_busy")
    lane.refused(Consent(Purpose.MEMBERSHIP, "v1", True), "not_now")
    lane.refused(FaceShown(JPEG, "frame"), "already_identified")
    lane.refused(Enrol(PLAN.id, "huabei_hold"), "consent_missing")


@pytest.mark.parametrize("phase", ["asking", "collecting"])
def test_cancel_asks_the_provider(phase: str) -> None:
    lane = shop("tea", who=True)
    confirmed = lane.later(Confirm(lane.session.rev, (face_pay(400),)))
    lane.refused(Cancel(), "lane_busy")  # the reservation is answered in an instant
    lane.reserve_answer()
    if phase == "collecting":
        lane.pay_answer(PaymentOutcome.PENDING)
    cancelled = lane.later(Cancel())
    assert (lane.state, lane.waits_for()[-1]) == ("reversing", PayVerb.CANCEL)
    lane.after(10)
    assert lane.replies[confirmed].pending
    assert lane.replies[cancelled].pending
    lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert (lane.state, lane.prompt) == ("quoted", "not_paid")
    lane.nobody_waits()


def test_the_books_of_the_store_are_told() -> None:
    lane = shop("tea")
    lane.confirm(cash(1200))
    assert [str(tell.message) for tell in lane.told] == ["SaleNoted(sales=1, takings_fen=1200, discount_fen=0)"]
    assert lane.told[0].to.kind == "store"
    assert cancel(lane) is not None


def _sold_at(terminal: TerminalId) -> tuple[str | None, str, str]:
    lane = Lane()  # each lane's events have the same ids: event 1, event 2, ...
    lane.ok(SessionOpen(), terminal=terminal)
    lane.ok(Scan("tea", 1), terminal=terminal)
    lane.later(Confirm(lane.session.rev, (face_pay(1200),), None), terminal)
    request = lane.pay_answer(PaymentOutcome.SUCCEEDED)
    (sale,) = lane.sales
    return lane.session.id, request.order, sale.id


def test_terminals_that_make_the_same_event_ids_share_no_visit_no_order_and_no_sale() -> None:
    here, there = _sold_at(TerminalId("t-1")), _sold_at(TerminalId("t-2"))
    assert not set(here) & set(there)
    assert _sold_at(TerminalId("t-1")) == here, "the same turn again makes the same ids"


def test_a_closed_screen_forgets_its_customer() -> None:
    lane = Lane()
    lane.open()
    lane.identify()
    buy(lane, "tea")
    assert lane.screen is not None
    assert lane.screen.member is not None
    cancel(lane)
    assert lane.screen is not None
    assert lane.state == "closed"
    closed = lane.screen
    assert (closed.member, closed.lines, closed.receipt, closed.paid) == (None, (), None, None)
