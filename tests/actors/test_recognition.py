"""Consent, face, digits: nothing before consent, no guessing, and nobody waits for a worker that died."""

from __future__ import annotations

import pytest

from actors.ports import IdentifyFace, RescoreFace
from actors.recognition import DIGITS_TRIES_MAX, ask_again
from models.domain.events import Confirm, Consent, Digits, FaceShown, Purpose, Scan, SessionOpen, Traits
from models.domain.facts import ConsentGiven, FaceDecided, Incident
from models.domain.messages import FaceAnswered, FaceOutcome, RecognitionDecision
from tests.actors.lane import JPEG, Lane, buy, cancel, cash, member

FACE = FaceShown(JPEG, "frame", 0.5)
DECISION = RecognitionDecision(12, 480_000, 700_000, 300_000, "net", "accepted")


def test_no_face_before_consent() -> None:
    lane = Lane()
    lane.open()
    lane.refused(FACE, "consent_missing")
    lane.consent(Purpose.MEMBERSHIP)
    lane.refused(FACE, "consent_missing")
    lane.consent(Purpose.RECOGNISE)
    event = lane.event(FACE, traits=Traits(vouches_liveness=True))
    lane.sent[event.id] = lane.now
    lane._turn(event, event.id, event)
    _, asked = lane.asked(IdentifyFace)
    consent = next(fact for fact in lane.facts if isinstance(fact, ConsentGiven) and fact.purpose == "recognise")
    assert asked.consent == lane.session.consents[-1].event
    assert asked.liveness_ppm == 500_000
    assert consent.granted


def test_consent_to_another_text_is_refused() -> None:
    lane = Lane()
    lane.open()
    lane.refused(Consent(Purpose.RECOGNISE, "v0", True), "consent_outdated")


def test_accepted_face_names_the_member_and_prices_the_basket() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    assert lane.screen is not None
    assert lane.screen.due_fen == 1200
    lane.consent()
    event = lane.later(FACE)
    lane.face_answer(FaceOutcome.ACCEPTED, member=member(), decision=DECISION)
    assert lane.replies[event].ok
    assert lane.state == "quoted"
    assert lane.screen.due_fen == 400
    assert lane.screen.member is not None
    assert lane.screen.member.name == "张*"
    decided = [fact for fact in lane.facts if isinstance(fact, FaceDecided)]
    assert [(fact.outcome, fact.member) for fact in decided] == [("accepted", "p-1")]
    lane.refused(FACE, "already_identified")


@pytest.mark.parametrize(
    ("outcome", "reason", "prompt"),
    [
        (FaceOutcome.NOT_RECOGNISED, "", "not_recognised"),
        (FaceOutcome.QUALITY, "come_closer", "come_closer"),
        (FaceOutcome.QUALITY, "more_light", "more_light"),
        (FaceOutcome.QUALITY, "several_faces", "several_faces"),
    ],
)
def test_a_face_that_finds_nobody_is_ok_with_a_prompt(outcome: FaceOutcome, reason: str, prompt: str) -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = lane.later(FACE)
    lane.face_answer(outcome, reason=reason)
    assert lane.replies[event].ok
    assert lane.prompt == prompt
    assert lane.session.member is None


def test_an_image_that_was_none_is_lost() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = lane.later(FACE)
    lane.face_answer(FaceOutcome.LOST)
    error = lane.replies[event].error
    assert error is not None
    assert error.code == "face_lost"


def test_a_worker_that_died_is_noticed_after_three_seconds() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = lane.later(FACE)
    question = lane.session.question
    assert question is not None
    lane.refused(FACE, "question_open")
    lane.after(2.9)
    assert event not in lane.replies
    lane.after(0.1)
    error = lane.replies[event].error
    assert error is not None
    assert error.code == lane.prompt == "face_lost"
    assert lane.session.id is not None
    before = lane.session
    lane.tell(FaceAnswered(lane.session.id, question.id, FaceOutcome.ACCEPTED, member()))
    assert lane.session == before, "a late answer is dropped"
    lane.later(FACE)


def test_the_same_face_again_asks_again_while_it_is_pending() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = lane.event(FACE)
    assert ask_again(lane.session, event, lane.book) is None
    lane.sent[event.id] = lane.now
    lane._turn(event, event.id, event)
    first = lane.asks[-1]
    assert ask_again(lane.session, event, lane.book) == first
    lane.face_answer(FaceOutcome.NOT_RECOGNISED)
    assert ask_again(lane.session, event, lane.book) is None


def test_three_tries_of_digits_and_then_none() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    lane.refused(Digits("1234"), "no_digits_asked")
    for _ in range(DIGITS_TRIES_MAX):
        lane.later(FACE)
        lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
        assert lane.state == "digits"
        for bad in ("123", "12345", "12a4", "１２３４"):
            lane.refused(Digits(bad), "bad_digits")
        lane.later(Digits("1234"))
        assert lane.asked(RescoreFace)[1].sealed == b"probe"
        lane.refused(Digits("1234"), "question_open")
        lane.face_answer(FaceOutcome.NOT_RECOGNISED)
        assert lane.state == "open"
        lane.refused(Digits("1234"), "no_digits_asked")
    lane.later(FACE)
    lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
    assert lane.prompt == "not_recognised"
    lane.refused(Digits("1234"), "no_digits_asked")
    lane.nobody_waits()


def test_digits_that_fit_identify() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    lane.later(FACE)
    lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
    buy(lane, "tea")
    assert lane.state == "digits", "scanning does not end the question"
    lane.refused(Confirm(lane.session.rev, (cash(1200),)), "not_now")
    lane.later(Digits("1234"))
    lane.face_answer(FaceOutcome.ACCEPTED, member=member())
    assert lane.state == "quoted"
    assert lane.session.probe is None


def test_digits_after_a_restart_of_the_host_start_from_the_face() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    lane.later(FACE)
    lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
    event = lane.later(Digits("1234"))
    lane.face_answer(FaceOutcome.LOST)
    assert lane.replies[event].error is not None
    assert (lane.state, lane.prompt, lane.session.probe) == ("open", "face_lost", None)
    assert lane.screen is not None
    assert "face" in lane.screen.actions
    lane.later(FACE)


def test_cancel_ends_digits_only() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    lane.consent()
    lane.later(FACE)
    lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
    cancel(lane)
    assert lane.state == "quoted"
    lane.refused(Digits("1234"), "no_digits_asked")


@pytest.mark.parametrize("with_digits", [False, True])
def test_withdrawn_consent_ends_what_the_face_began(with_digits: bool) -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = lane.later(FACE)
    if with_digits:
        lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")
    question = lane.session.question
    lane.consent(granted=False)
    assert lane.replies[event].ok
    assert (lane.session.question, lane.session.probe, lane.state) == (None, None, "open")
    assert any(isinstance(fact, Incident) and fact.kind == "face_refused" for fact in lane.facts)
    if question is not None:
        assert lane.session.id is not None
        lane.tell(FaceAnswered(lane.session.id, question.id, FaceOutcome.ACCEPTED, member()))
    assert lane.session.member is None
    lane.refused(FACE, "consent_missing")


def test_a_payment_does_not_start_under_an_open_face_question() -> None:
    """Who is recognised in the middle of a payment would change the price that was confirmed."""
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    lane.consent()
    lane.later(FACE)
    lane.refused(Confirm(lane.session.rev, (cash(1200),)), "question_open")
    lane.face_answer(FaceOutcome.ACCEPTED, member=member())
    lane.refused(Confirm(lane.session.rev, (cash(1200),)), "tender_mismatch")


def test_who_waits_when_the_next_customer_steps_up_is_told() -> None:
    lane = Lane()
    lane.open()
    first = lane.session.id
    lane.consent()
    event = lane.later(FACE)
    lane.open()
    assert lane.session.id != first
    error = lane.replies[event].error
    assert error is not None
    assert error.code == "session_gone"
    lane.refused(FACE, "consent_missing")
    lane.refused(Scan("tea", 1), "session_gone", first)
    lane.nobody_waits()


def test_a_session_starts_without_anything_of_the_one_before() -> None:
    lane = Lane()
    lane.open()
    lane.identify()
    buy(lane, "tea")
    lane.ok(SessionOpen("till-7"))
    session = lane.session
    assert (session.member, session.lines, session.consents, session.probe) == (None, (), (), None)
    assert (session.till_txn, session.rev) == ("till-7", 1)


def test_an_image_that_cannot_be_read_has_a_code_of_its_own() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = lane.later(FACE)
    lane.face_answer(FaceOutcome.LOST, reason="corrupt_jpeg")
    error = lane.replies[event].error
    assert error is not None
    assert (error.code, lane.prompt) == ("bad_image", "face_lost")
    lane.nobody_waits()
