"""Kill switches and the visit that is under way: each state, what ends, what was promised and is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.ports import EnrolFace, EnrolMember, FindMember, IdentifyFace, PostUses, ReleaseUses, ReserveUses
from models.domain.events import (
    Claim,
    Digits,
    Enrol,
    EventBody,
    FaceShown,
    Identify,
    Lease,
    Paid,
    Purpose,
    Scan,
    SessionOpen,
)
from models.domain.ids import BenefitId, PlanId
from models.domain.kill_switch import Switch
from models.domain.messages import EnrolAnswered, FaceAnswered, FaceOutcome, MemberFound, PaymentOutcome, SwitchesMoved
from models.domain.plans import GuaranteeKind
from models.domain.screen import ScreenState
from tests.actors.lane import JPEG, TILL, Lane, cash, member, qr, with_vouchers

FACE, BENEFITS, OFFERS = Switch.FACE, Switch.BENEFITS, Switch.OFFERS


def throw(lane: Lane, *off: Switch) -> None:
    """The store's switches are these from now on, and its host tells the lane."""
    lane.book = replace(lane.book, off=tuple(sorted(off)))
    lane.tell(SwitchesMoved())


def shown(lane: Lane) -> tuple[int, str]:
    assert lane.screen is not None
    return lane.screen.rev, lane.screen.prompt.code if lane.screen.prompt else ""


def off(lane: Lane) -> set[Switch]:
    return set(lane.session.off)


# ---------------------------------------------------------------- what every state does


def at_open(lane: Lane) -> None:
    lane.open()


def at_look(lane: Lane) -> None:
    lane.open()
    lane.consent()


def at_frame(lane: Lane) -> None:
    at_look(lane)
    lane.later(FaceShown(JPEG, "frame"))


def at_digits(lane: Lane) -> None:
    at_frame(lane)
    lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
    assert lane.state == "digits"


def at_identified(lane: Lane) -> None:
    lane.open()
    lane.identify()


def at_quoted(lane: Lane) -> None:
    at_identified(lane)
    lane.ok(Scan("tea", 1))


def at_paying(lane: Lane) -> None:
    at_quoted(lane)
    lane.confirm(qr(400))
    assert lane.state == "paying"


def at_paid(lane: Lane) -> None:
    at_quoted(lane)
    lane.confirm(cash(400))
    lane.reserve_answer()
    assert lane.state == "paid"


@pytest.mark.parametrize("reach", [at_open, at_look, at_frame, at_digits, at_identified, at_quoted, at_paid])
@pytest.mark.parametrize("switch", list(Switch))
def test_a_visit_shows_a_new_revision_and_may_end_as_it_would_have(reach: object, switch: Switch) -> None:
    lane = Lane()
    lane.book = with_vouchers(lane.book)
    reach(lane)  # type: ignore[operator]
    rev = lane.session.rev
    throw(lane, switch)
    assert off(lane) == {switch}
    assert shown(lane)[0] == lane.session.rev == rev + 1
    throw(lane, switch)
    assert lane.session.rev == rev + 1, "told again, nothing is new"
    throw(lane)
    assert not off(lane)
    assert lane.session.rev == rev + 2


@pytest.mark.parametrize("switch", list(Switch))
def test_nobody_at_the_lane_means_nothing_to_show(switch: Switch) -> None:
    lane = Lane()
    throw(lane, switch)
    assert lane.screen is None
    lane.open()
    assert off(lane) == {switch}


# ---------------------------------------------------------------- face


def test_a_frame_that_is_looked_at_is_refused_with_what_to_do_and_its_answer_dropped() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = lane.later(FaceShown(JPEG, "frame"))
    question = lane.session.question
    assert question is not None
    assert lane.session.id is not None
    ask, _ = lane.asked(IdentifyFace)
    throw(lane, FACE)
    reply = lane.replies[event]
    assert reply.error is not None
    assert (reply.error.code, reply.error.do) == ("face_off", "identify by phone, card or code")
    assert (lane.session.question, lane.prompt) == (None, "face_off")
    lane.tell(FaceAnswered(lane.session.id, question.id, FaceOutcome.ACCEPTED, member=member()))  # the worker did look
    assert lane.session.member is None
    assert lane.screen is not None
    assert "face" not in lane.screen.actions
    assert "identify" in lane.screen.actions
    lane.refused(FaceShown(JPEG, "frame"), "face_off")
    lane.after(15)  # the deadline of the frame and of its reply change nothing
    assert (lane.prompt, ask) == ("face_off", question.id)
    lane.later(Identify("phone", "13800000000"))
    found, _ = lane.asked(FindMember)
    lane.tell(MemberFound(found, lane.session.id, member()))
    assert lane.state == "identified"


def test_digits_end_for_they_compare_a_face() -> None:
    lane = Lane()
    at_digits(lane)
    throw(lane, FACE)
    assert (lane.state, lane.session.probe, lane.prompt) == ("open", None, "face_off")
    lane.refused(Digits("1234"), "no_digits_asked")


def test_a_phone_look_up_goes_on_without_faces() -> None:
    lane = Lane()
    lane.open()
    lane.later(Identify("phone", "13800000000"))
    throw(lane, FACE)
    ask, _ = lane.asked(FindMember)
    assert lane.session.id is not None
    lane.tell(MemberFound(ask, lane.session.id, member()))
    assert lane.state == "identified"


def test_consent_asks_for_no_look_and_a_lift_takes_the_word_back() -> None:
    lane = Lane()
    lane.open()
    throw(lane, FACE)
    lane.consent()
    assert lane.prompt == "face_off"
    throw(lane)
    assert lane.prompt == ""
    lane.later(FaceShown(JPEG, "frame"))


def enrolling(lane: Lane) -> EnrolMember:
    lane.open()
    lane.consent()
    lane.consent(Purpose.MEMBERSHIP)
    lane.send(Enrol(PlanId("light-10"), GuaranteeKind.HUABEI_HOLD, "13800000000", None))
    assert lane.state == "enrolling"
    return next(ask.request for ask in lane.asks if isinstance(ask.request, EnrolMember))


def become_member(lane: Lane) -> None:
    ask, request = lane.asked(EnrolMember)
    lane.tell(EnrolAnswered(ask, request.session, replace(member(), face_permitted=True)))


@pytest.mark.parametrize("when", ["before", "while it is made", "between shots", "while a shot is looked at"])
def test_enrolling_goes_on_without_a_face(when: str) -> None:
    lane = Lane()
    if when == "before":
        lane.book = replace(lane.book, off=(FACE,))
    enrolling(lane)
    if when == "while it is made":
        throw(lane, FACE)
    become_member(lane)
    shot = ""
    if when == "while a shot is looked at":
        shot = lane.later(FaceShown(JPEG, "shot"))
    if when in ("between shots", "while a shot is looked at"):
        assert lane.state == "enrolling"
        throw(lane, FACE)
    assert (lane.state, lane.prompt) == ("identified", "member_ready")
    assert lane.session.enrolment is None
    assert not [ask for ask in lane.asks if isinstance(ask.request, EnrolFace)]
    if shot:
        assert lane.replies[shot].error is not None


# ---------------------------------------------------------------- benefits


def test_the_basket_reprices_and_the_old_revision_cannot_be_confirmed() -> None:
    lane = Lane()
    at_quoted(lane)
    assert lane.screen is not None
    assert lane.screen.due_fen == 400
    old = lane.session.rev
    throw(lane, BENEFITS)
    assert (lane.screen.due_fen, lane.prompt, lane.state) == (1200, "benefits_off", "quoted")
    assert lane.screen.membership is not None, "the membership stands"
    stale = lane.confirm(cash(400), rev=old)
    assert stale is not None
    assert stale.error is not None
    assert stale.error.code == "stale_rev"
    lane.confirm(cash(1200))
    assert [(sale.due_fen, sale.uses) for sale in lane.sales] == [(1200, ())]
    assert not [ask for ask in lane.asks if isinstance(ask.request, ReserveUses)]


def test_a_confirm_that_meets_the_switch_before_the_host_told_the_lane_is_stale() -> None:
    lane = Lane()
    at_quoted(lane)
    rev = lane.session.rev
    lane.book = replace(lane.book, off=(BENEFITS,))  # nobody told the lane yet
    reply = lane.confirm(rev=rev, collect="till")
    assert reply is not None
    assert reply.error is not None
    assert reply.error.code == "stale_rev"
    assert lane.screen is not None
    assert (lane.screen.rev, lane.session.rev, lane.screen.due_fen) == (rev + 1, rev + 1, 1200)


def test_a_new_customer_begins_at_revision_one_whatever_was_thrown() -> None:
    lane = Lane()
    at_identified(lane)
    lane.book = replace(lane.book, off=(OFFERS,))
    lane.open()
    assert shown(lane)[0] == lane.session.rev == 1


def test_a_confirmed_sale_keeps_its_benefit() -> None:
    lane = Lane()
    at_paying(lane)
    throw(lane, BENEFITS)
    assert not off(lane), "money is on its way"
    lane.reserve_answer()
    lane.pay_answer(PaymentOutcome.SUCCEEDED, collection_code="https://qr")
    throw(lane, BENEFITS)
    lane.after(3)
    lane.pay_answer(PaymentOutcome.SUCCEEDED, trade_no="t-1")
    assert [(sale.due_fen, len(sale.uses)) for sale in lane.sales] == [(400, 1)]
    assert lane.asked(PostUses)[1].paid_fen == 400
    assert (lane.state, off(lane)) == ("paid", {BENEFITS})


def test_a_payment_that_fails_comes_back_at_the_new_price() -> None:
    lane = Lane()
    at_paying(lane)
    throw(lane, BENEFITS)
    lane.reserve_answer()
    lane.pay_answer(PaymentOutcome.FAILED, code="PAYMENT_FAIL")
    lane.asked(ReleaseUses)
    assert lane.screen is not None
    assert (lane.state, lane.screen.due_fen, lane.prompt) == ("quoted", 1200, "benefits_off")
    lane.confirm(cash(1200))
    assert lane.sales[0].due_fen == 1200


def test_a_till_that_collected_by_the_old_screen_is_booked_by_it() -> None:
    lane = Lane()
    lane.open("till-1")
    lane.identify()
    lane.ok(Scan("tea", 1))
    rev, old = lane.session.rev, lane.screen
    throw(lane, BENEFITS)
    lane.screen = old  # what the till still shows
    lane.send(Paid("till-1", rev, (cash(400),)), terminal=TILL)
    [sale] = lane.sales
    assert (sale.due_fen, sale.suspense_fen, len(sale.uses)) == (400, 0, 1)
    assert lane.asked(PostUses)[1].unreserved
    assert off(lane) == {BENEFITS}


def test_a_till_that_collected_by_the_new_screen_is_booked_by_that() -> None:
    lane = Lane()
    lane.open("till-1")
    lane.identify()
    lane.ok(Scan("tea", 1))
    throw(lane, BENEFITS)
    lane.send(Paid("till-1", lane.session.rev, (cash(1200),)), terminal=TILL)
    [sale] = lane.sales
    assert (sale.due_fen, sale.suspense_fen, sale.uses) == (1200, 0, ())


def test_no_lease_is_granted_and_one_that_was_counts_offline() -> None:
    lane = Lane()
    at_identified(lane)
    throw(lane, BENEFITS)
    assert lane.screen is not None
    assert "lease" not in lane.screen.actions
    lane.refused(Lease(BenefitId("coupon8"), 1), "benefits_off")


def test_a_lift_gives_the_price_back() -> None:
    lane = Lane()
    at_quoted(lane)
    throw(lane, BENEFITS)
    throw(lane)
    assert lane.screen is not None
    assert (lane.screen.due_fen, lane.prompt) == (400, "price_changed")


def test_what_enrolling_saves_now_is_nothing_while_benefits_are_off() -> None:
    lane = Lane()
    lane.open()
    lane.ok(Scan("tea", 1))
    assert lane.screen is not None
    assert [offer.saves_now_fen for offer in lane.screen.offers] == [800]
    throw(lane, BENEFITS)
    assert [offer.saves_now_fen for offer in lane.screen.offers] == [0]


# ---------------------------------------------------------------- offers


@pytest.mark.parametrize("body", [Claim("noodles"), Enrol(PlanId("light-10"), GuaranteeKind.HUABEI_HOLD, None, None)])
def test_nothing_is_offered_and_what_was_is_refused(body: EventBody) -> None:
    lane = Lane()
    lane.book = with_vouchers(lane.book)
    lane.open()
    lane.consent(Purpose.MEMBERSHIP)
    lane.ok(Scan("tea", 1))
    assert lane.screen is not None
    assert {offer.kind for offer in lane.screen.offers} == {"plan", "voucher"}
    throw(lane, OFFERS)
    assert lane.screen.offers == ()
    assert not {"claim", "enrol"} & set(lane.screen.actions)
    assert "voucher" in lane.screen.actions
    lane.refused(body, "offers_off")


def test_what_the_customer_accepted_before_goes_on() -> None:
    lane = Lane()
    lane.book = with_vouchers(lane.book)
    enrolling(lane)
    throw(lane, OFFERS)
    assert lane.state == "enrolling"
    become_member(lane)
    assert lane.prompt == "look_at_camera"


def test_the_result_page_offers_no_membership() -> None:
    lane = Lane()
    lane.open()
    lane.ok(Scan("tea", 1))
    lane.confirm(cash(1200))
    assert lane.screen is not None
    assert lane.screen.offers
    throw(lane, OFFERS)
    assert (lane.state, lane.screen.offers, lane.prompt) == ("paid", (), "thank_you")
    assert "enrol" not in lane.screen.actions


def test_the_next_visit_begins_under_what_stands() -> None:
    lane = Lane()
    at_paid(lane)
    lane.book = replace(lane.book, off=(BENEFITS, FACE))
    lane.ok(SessionOpen(None))
    assert (lane.session.off, lane.session.switched, lane.state) == ((BENEFITS, FACE), (), str(ScreenState.OPEN))
