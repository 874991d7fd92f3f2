"""Uses kept for a terminal that goes offline: told in the reply, or given back when nobody can hear of them."""

from __future__ import annotations

from dataclasses import replace

from actors.effects import Reply
from actors.leasing import LEASINGS_OPEN_MAX
from actors.ports import EndLease, GrantLease
from actors.session import receive
from models.domain.events import Lease, LeaseEnd, SessionOpen
from models.domain.ids import BenefitId, LeaseId, MembershipId, MessageId
from models.domain.messages import LeaseEnded, LeaseGranted, TimerFired
from models.domain.screen import LeaseGrant
from tests.actors.lane import FACE_TERMINAL, TILL, Lane, member

COUPON = BenefitId("coupon8")
GRANT = LeaseGrant(LeaseId("le-1"), MembershipId("m-1"), COUPON, 2, "2026-05-02T02:00:00+00:00")


def leasing() -> tuple[Lane, str]:
    lane = Lane()
    lane.open()
    lane.identify(member(5))
    lane.asks.clear()
    return lane, lane.later(Lease(COUPON, 2))


def answered(lane: Lane, lease: LeaseGrant | None = GRANT, code: str = "") -> LeaseGranted:
    ask, request = lane.asked(GrantLease)
    answer = LeaseGranted(ask, request.session, lease, code, member(3))
    lane.tell(answer)
    return answer


def code_of(lane: Lane, event: str) -> str:
    error = lane.replies[event].error
    return error.code if error is not None else ""


def test_the_reply_carries_the_lease() -> None:
    lane, event = leasing()
    request = next(ask.request for ask in lane.asks)
    assert isinstance(request, GrantLease)
    assert (request.membership, request.benefit, request.uses, request.durable) == ("m-1", COUPON, 2, True)
    answer = answered(lane)
    assert lane.replies[event].lease == GRANT
    assert lane.screen is not None
    assert lane.screen.membership is not None
    assert lane.screen.membership.uses_left == 3
    lane.tell(answer)
    assert lane.asks == [], "the answer again gives nothing back"
    lane.nobody_waits()


def test_a_lease_that_nobody_can_hear_of_is_given_back() -> None:
    lane, event = leasing()
    lane.after(10)
    assert lane.replies[event].pending
    answer = answered(lane)
    end = lane.asked(EndLease)[1]
    assert (end.lease, end.store) == ("le-1", "s1")
    lane.tell(answer)
    assert lane.asks == [], "once"


def test_a_new_customer_does_not_lose_the_lease_of_the_one_before() -> None:
    lane, event = leasing()
    lane.ok(SessionOpen())
    answered(lane)
    assert lane.replies[event].lease == GRANT
    assert lane.session.member is None, "and learns nothing of them"


def test_what_cannot_be_leased() -> None:
    lane = Lane()
    lane.refused(Lease(COUPON, 1), "no_session")
    lane.open()
    lane.refused(Lease(COUPON, 1), "no_membership")
    lane.identify(member(1))
    lane.refused(Lease(COUPON, 2), "benefit_gone")
    lane.refused(Lease(BenefitId("other"), 1), "benefit_gone")
    event = lane.later(Lease(COUPON, 1))
    answered(lane, None, "benefit_gone")
    assert code_of(lane, event) == "benefit_gone"


def test_what_was_not_used_is_given_back_without_anybody_there() -> None:
    lane = Lane()
    for code in ("", "unknown_lease"):
        event = lane.later(LeaseEnd(LeaseId("le-1")))
        ask, request = lane.asked(EndLease)
        assert request.lease == "le-1"
        lane.tell(LeaseEnded(ask, request.session, code))
        lane.tell(LeaseEnded(ask, request.session, code))
        assert code_of(lane, event) == code
    lane.nobody_waits()


def test_questions_about_leases_are_bounded() -> None:
    lane = Lane()
    for _ in range(LEASINGS_OPEN_MAX):
        lane.later(LeaseEnd(LeaseId("le-1")))
    lane.refused(LeaseEnd(LeaseId("le-1")), "question_open")
    lane.after(10)
    lane.nobody_waits()


def test_two_terminals_that_make_the_same_id_are_both_answered_in_time() -> None:
    lane, event = leasing()
    again = replace(lane.event(Lease(COUPON, 1), terminal=TILL), id=MessageId(event))
    lane._turn(again, again.id, again)
    answers = []
    for due, kind, ref in sorted(lane.timers):
        if kind == "reply":
            turn = receive(lane.session, TimerFired(kind, ref, due), f"timer {ref}", due, lane.book)
            lane.session = turn.state
            answers += [effect for effect in turn.effects if isinstance(effect, Reply)]
    assert {(answer.terminal, answer.pending) for answer in answers} == {(FACE_TERMINAL, True), (TILL, True)}
