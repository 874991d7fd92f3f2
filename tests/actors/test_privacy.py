"""Consent at the counter: what is taken back, what is only refused, who is too young for a stored face."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.ports import EnrolFace, TakeShot, WithdrawFace
from models.domain.book import ConsentText
from models.domain.events import AgeCheck, Confirm, Identify, Purpose, TenderKind
from models.domain.facts import ConsentStands, TemplateMade
from models.domain.messages import FaceOutcome, FaceWithdrawn, MemberFound, SealedTemplate, TemplateKind
from models.domain.privacy import COVERED_BY_DEFAULT, FaceUse
from tests.actors.lane import FACE_TERMINAL, Lane, buy, member, qr
from tests.actors.test_enrolling import ENROL, FACE, TEMPLATE, enrolling, membership_made, take_shot


def withdrawals(lane: Lane) -> list[WithdrawFace]:
    return [ask.request for ask in lane.asks if isinstance(ask.request, WithdrawFace)]


def templates(lane: Lane) -> list[TemplateMade]:
    return [fact for fact in lane.facts if isinstance(fact, TemplateMade)]


def test_consent_taken_back_by_a_recognised_member_erases_their_templates() -> None:
    lane = Lane()
    lane.open()
    lane.identify()
    lane.consent(granted=False)
    ask, request = lane.asked(WithdrawFace)
    assert (request.member, request.terminal) == (member().id, FACE_TERMINAL)
    lane.tell(FaceWithdrawn(ask, request.session, 2))
    assert (lane.prompt, lane.state) == ("face_erased", "identified")
    assert lane.session.member is not None, "the membership goes on"
    lane.nobody_waits()


def test_a_first_no_of_a_member_is_a_refusal_of_this_look_and_erases_nothing() -> None:
    lane = Lane()
    lane.open()
    event = lane.later(Identify("phone", "13800000000"))
    ask, session = next((ask.id, lane.session.id) for ask in lane.asks)
    assert session is not None
    lane.tell(MemberFound(ask, session, member()))
    assert lane.replies[event].ok
    lane.consent(granted=False)
    assert withdrawals(lane) == []


def test_consent_taken_back_by_nobody_known_erases_nothing() -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    lane.consent(granted=False)
    assert withdrawals(lane) == []


def test_an_answer_that_comes_while_money_is_on_its_way_changes_no_screen() -> None:
    lane = Lane()
    lane.open()
    lane.identify(member(membership=False))
    buy(lane, "tea")
    lane.consent(granted=False)
    ask, request = lane.asked(WithdrawFace)
    lane.send(Confirm(lane.session.rev, (qr(1200),), None))
    shown = lane.screen
    lane.tell(FaceWithdrawn(ask, request.session, 1))
    assert lane.screen == shown


def test_shots_and_template_carry_both_consents_and_the_standing_one_is_saved_first() -> None:
    lane = enrolling()
    agreed = lane.session.consent(Purpose.MEMBERSHIP)
    given = lane.session.consent(Purpose.RECOGNISE)
    assert agreed is not None
    assert given is not None
    membership_made(lane)
    lane.later(FACE)
    _, shot = lane.asked(TakeShot)
    assert (shot.consent, shot.membership) == (given.event, agreed.event)
    lane.face_answer(FaceOutcome.SHOT_TAKEN, sealed=b"1")
    for sealed in (b"2", b"3"):
        take_shot(lane, sealed)
    _, enrol = lane.asked(EnrolFace)
    assert (enrol.consent, enrol.membership) == (given.event, agreed.event)
    lane.face_answer(FaceOutcome.ENROLLED, templates=(TEMPLATE,))
    kinds = [type(fact) for fact in lane.facts if isinstance(fact, ConsentStands | TemplateMade)]
    assert kinds == [ConsentStands, TemplateMade]
    standing = next(fact for fact in lane.facts if isinstance(fact, ConsentStands))
    assert (standing.member, standing.text, standing.terminal) == (member().id, "v1", FACE_TERMINAL)


def test_a_member_known_to_be_a_child_becomes_a_member_without_a_face() -> None:
    lane = enrolling()
    membership_made(lane, replace(member(), face_permitted=False))
    assert (lane.prompt, lane.session.enrolment) == ("member_ready", None)
    lane.nobody_waits()


def with_age_check() -> Lane:
    lane = Lane()
    lane.book = replace(lane.book, chain_book=replace(lane.book.chain_book, age_check_to_enrol=True))
    lane.open()
    lane.consent(Purpose.MEMBERSHIP)
    return lane


def test_where_it_is_configured_a_clerk_looks_at_the_age_before_a_face_is_enrolled() -> None:
    lane = with_age_check()
    lane.consent()
    lane.refused(ENROL, "age_check_missing")
    lane.send(AgeCheck(ok=True), clerk="c-1")
    reply = lane.send(ENROL)
    assert reply is not None
    assert (reply.ok, reply.pending) == (True, True)


def test_without_a_face_no_age_has_to_be_checked() -> None:
    lane = with_age_check()
    lane.later(ENROL)
    assert lane.state == "enrolling"


@pytest.mark.parametrize(
    ("kind", "covers", "kept"),
    [
        (TemplateKind.MIGRATED, COVERED_BY_DEFAULT, 1),
        (TemplateKind.ADAPTIVE, COVERED_BY_DEFAULT, 0),
        (TemplateKind.ADAPTIVE, (*COVERED_BY_DEFAULT, FaceUse.ADAPT), 1),
        (TemplateKind.MIGRATED, (FaceUse.PROBE, FaceUse.TEMPLATE), 0),
    ],
)
def test_a_later_template_needs_a_text_that_names_its_use(
    kind: TemplateKind, covers: tuple[FaceUse, ...], kept: int
) -> None:
    lane = Lane()
    text = ConsentText(Purpose.RECOGNISE, "v1", "同意", "I agree", covers)
    lane.book = replace(lane.book, chain_book=replace(lane.book.chain_book, consents=(text,)))
    lane.open()
    lane.consent()
    lane.later(FACE)
    later = SealedTemplate(replace(TEMPLATE.template, kind=kind), TEMPLATE.key)
    lane.face_answer(FaceOutcome.ACCEPTED, member=member(), templates=(later,))
    assert len(templates(lane)) == kept


def test_a_tender_that_the_chain_does_not_take_is_refused() -> None:
    lane = Lane()
    offered = frozenset({TenderKind.FACE, TenderKind.CASH})
    lane.book = replace(lane.book, chain_book=replace(lane.book.chain_book, tenders=offered))
    lane.open()
    buy(lane, "tea")
    lane.refused(Confirm(lane.session.rev, (qr(1200),), None), "tender_unsupported")
