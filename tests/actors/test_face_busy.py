"""Nobody looked, because too many ask at once: the visit goes on, nothing is counted against the customer."""

from __future__ import annotations

import pytest

from actors.enrolling import ROUNDS_MAX
from actors.ports import EnrolFace, RescoreFace
from actors.recognition import DIGITS_TRIES_MAX
from models.domain.events import Digits
from models.domain.facts import FaceDecided, TemplateMade
from models.domain.messages import FaceOutcome
from tests.actors.lane import Lane
from tests.actors.test_enrolling import FACE, enrolling, membership_made, take_shot


def asking() -> Lane:
    lane = Lane()
    lane.open()
    lane.consent()
    return lane


def test_a_busy_answer_is_no_stranger_and_no_refusal() -> None:
    lane = asking()
    event = lane.later(FACE)
    lane.face_answer(FaceOutcome.BUSY)
    assert lane.replies[event].ok
    assert (lane.state, lane.prompt, lane.session.member) == ("open", "face_busy", None)
    assert not [fact for fact in lane.facts if isinstance(fact, FaceDecided)]
    lane.nobody_waits()
    lane.later(FACE)  # whoever would rather look again may


def test_digits_that_nobody_scored_are_no_try() -> None:
    lane = asking()
    lane.later(FACE)
    lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
    for _ in range(2 * DIGITS_TRIES_MAX):
        lane.later(Digits("1234"))
        assert lane.asked(RescoreFace)[1].sealed == b"probe"
        lane.face_answer(FaceOutcome.BUSY)
        assert (lane.state, lane.prompt, lane.session.digits_tries) == ("digits", "face_busy", 0)
    lane.later(Digits("1234"))
    lane.face_answer(FaceOutcome.NOT_RECOGNISED)
    assert (lane.state, lane.session.digits_tries) == ("open", 1)
    lane.nobody_waits()


def test_an_enrolment_keeps_its_shots_and_asks_the_same_step_again() -> None:
    lane = enrolling()
    membership_made(lane)
    take_shot(lane, b"1")
    lane.later(FACE)
    lane.face_answer(FaceOutcome.BUSY)
    assert lane.session.enrolment is not None
    assert lane.session.enrolment.shots == (b"1",)
    assert lane.session.prompt is not None
    assert (lane.prompt, lane.session.prompt.params["shot"]) == ("look_at_camera", 2)
    take_shot(lane, b"2")
    take_shot(lane, b"3")
    assert lane.asked(EnrolFace)[1].shots == (b"1", b"2", b"3")
    lane.face_answer(FaceOutcome.BUSY)
    assert lane.asked(EnrolFace)[1].shots == (b"1", b"2", b"3"), "asked again by itself"


@pytest.mark.parametrize("shots", [0, 2, 3])
def test_an_enrolment_that_stays_busy_ends_as_a_membership_without_a_face(shots: int) -> None:
    lane = enrolling()
    membership_made(lane)
    for n in range(shots):
        take_shot(lane, b"%d" % n)
    for _ in range(ROUNDS_MAX):
        if shots < 3:
            lane.later(FACE)
        lane.face_answer(FaceOutcome.BUSY)
    assert (lane.state, lane.prompt) == ("identified", "member_ready")
    assert not [fact for fact in lane.facts if isinstance(fact, TemplateMade)]
    lane.nobody_waits()
