"""A member without face or phone: looked up by a number, a few times a visit, with no consent to the face."""

from __future__ import annotations

from actors.identifying import IDENTIFY_TRIES_MAX, MISSES_MAX, MISSES_WITHIN
from actors.ports import FindMember
from models.domain.events import Enrol, Identify, Purpose, Scan, SessionOpen
from models.domain.messages import MemberFound, MemberView
from tests.actors.lane import PLAN, Lane, buy, face_pay, member

PHONE = Identify("phone", "13800001234")


def found(lane: Lane, who: MemberView | None) -> FindMember:
    question, request = lane.asked(FindMember)
    lane.tell(MemberFound(question, request.session, who))
    return request


def test_a_phone_number_prices_the_basket_without_any_consent() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    event = lane.later(PHONE)
    request = found(lane, member())
    assert (request.store, request.by, request.value, request.durable) == ("s1", "phone", "13800001234", False)
    assert lane.replies[event].ok
    assert lane.screen is not None
    assert (lane.state, lane.screen.discount_fen) == ("quoted", 800)
    assert lane.facts == [], "neither a consent nor a decision about a face"


def test_nobody_is_ok_and_the_customer_goes_on() -> None:
    lane = Lane()
    lane.open()
    event = lane.later(PHONE)
    found(lane, None)
    assert (lane.replies[event].ok, lane.prompt, lane.state) == (True, "not_recognised", "open")


def test_numbers_cannot_be_tried_out() -> None:
    lane = Lane()
    lane.open()
    for n in range(IDENTIFY_TRIES_MAX):
        lane.later(Identify("phone", f"1380000000{n}"))
        found(lane, None)
    lane.refused(PHONE, "identify_exhausted")
    lane.ok(SessionOpen())
    lane.later(PHONE)


def test_numbers_cannot_be_tried_out_visit_by_visit() -> None:
    lane = Lane()
    for n in range(MISSES_MAX):
        lane.open()
        lane.later(Identify("phone", f"138000000{n:02d}"))
        found(lane, None)
    lane.open()
    lane.refused(PHONE, "identify_exhausted")
    lane.after(MISSES_WITHIN.total_seconds())
    lane.open()
    lane.later(PHONE)
    found(lane, member())
    assert lane.session.member is not None
    assert lane.session.misses == MISSES_MAX, "of an hour that is over"


def test_a_lane_at_which_everybody_is_found_has_no_bound() -> None:
    lane = Lane()
    for _ in range(MISSES_MAX + 1):
        lane.open()
        lane.later(PHONE)
        found(lane, member())
        assert lane.session.member is not None


def test_a_look_up_that_is_lost_costs_no_try() -> None:
    lane = Lane()
    lane.open()
    for _ in range(IDENTIFY_TRIES_MAX + 1):
        event = lane.later(PHONE)
        lane.after(3)
        error = lane.replies[event].error
        assert error is not None
        assert error.code == "not_now"
    question, request = lane.asked(FindMember)
    lane.tell(MemberFound(question, request.session, member()))
    assert lane.session.member is None, "a late answer is nobody's"


def test_one_question_at_a_time_and_nobody_twice() -> None:
    lane = Lane()
    lane.refused(PHONE, "no_session")
    lane.open()
    lane.later(PHONE)
    lane.refused(PHONE, "question_open")
    found(lane, member())
    lane.refused(PHONE, "already_identified")
    lane.ok(SessionOpen())
    lane.consent(Purpose.MEMBERSHIP)
    lane.later(Enrol(PLAN.id, "huabei_hold"))
    lane.refused(PHONE, "question_open")


def test_not_while_money_is_on_its_way_nor_after() -> None:
    lane = Lane()
    lane.open()
    lane.ok(Scan("tea", 1))
    lane.confirm(face_pay(1200))
    lane.refused(PHONE, "lane_busy")
