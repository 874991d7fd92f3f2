"""A cancel without a clear answer: growing pauses, an alarm, and an end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from actors.paying import CANCEL_PAUSE_MAX, CANCELS_ALARM, CANCELS_MAX, POLL_EVERY, cancel_pause
from actors.ports import PayVerb, ReleaseUses
from models.domain.events import SessionOpen
from models.domain.facts import Incident
from models.domain.messages import PaymentOutcome
from tests.actors.lane import Lane, buy, cancel, face_pay


def reversing() -> Lane:
    lane = Lane()
    lane.open()
    lane.identify()
    buy(lane, "tea")
    lane.confirm(face_pay(400))
    lane.reserve_answer()
    lane.pay_answer(PaymentOutcome.PENDING)
    cancel(lane)
    assert lane.state == "reversing"
    lane.timers = [timer for timer in lane.timers if timer[1] == "reply"]
    return lane


def incidents(lane: Lane) -> list[str]:
    return [fact.kind for fact in lane.facts if isinstance(fact, Incident)]


def test_pauses_grow_to_five_minutes() -> None:
    pauses = [cancel_pause(n) for n in range(1, CANCELS_MAX)]
    assert pauses[:5] == [POLL_EVERY] * 5
    assert pauses[5:9] == [timedelta(seconds=s) for s in (6, 12, 24, 48)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == CANCEL_PAUSE_MAX
    assert timedelta(hours=2) < sum(pauses, timedelta()) < timedelta(hours=4)


def test_the_provider_that_never_answers_is_not_asked_for_ever() -> None:
    lane = reversing()
    order = ""
    for n in range(1, CANCELS_MAX + 1):
        assert lane.waits_for() == [PayVerb.CANCEL]
        order = lane.pay_answer(PaymentOutcome.UNKNOWN).order
        assert incidents(lane).count("cancel_unclear") == (n >= CANCELS_ALARM), "an operator is told, once"
        if n < CANCELS_MAX:
            lane.after(cancel_pause(n).total_seconds() - 1)
            assert lane.waits_for() == [], "not before its pause is over"
            lane.after(1)
    assert (lane.state, lane.session.payment) == ("quoted", None)
    assert incidents(lane)[-2:] == ["payment_parked", "payment_failed"]
    parked = next(fact for fact in lane.facts if isinstance(fact, Incident) and fact.kind == "payment_parked")
    assert parked.detail == order
    assert lane.asked(ReleaseUses)
    lane.ok(SessionOpen())
    lane.nobody_waits()


@pytest.mark.parametrize("n", [1, CANCELS_ALARM, CANCELS_MAX - 1])
def test_a_late_clear_answer_still_ends_it(n: int) -> None:
    lane = reversing()
    for tries in range(1, n + 1):
        lane.pay_answer(PaymentOutcome.UNKNOWN)
        lane.after(cancel_pause(tries).total_seconds())
    lane.pay_answer(PaymentOutcome.SUCCEEDED)
    assert (lane.state, lane.prompt) == ("quoted", "not_paid")
    assert "payment_parked" not in incidents(lane)
