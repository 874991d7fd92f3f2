"""What a recognised face adds to its member's templates goes with the visit's commit, while consent stands."""

from __future__ import annotations

from dataclasses import replace

from models.domain.events import FaceShown, Purpose
from models.domain.facts import TemplateMade
from models.domain.ids import MemberId, SessionId
from models.domain.messages import (
    FaceAnswered,
    FaceOutcome,
    KeyRow,
    RecognitionDecision,
    SealedTemplate,
    TemplateKind,
    TemplateRow,
)
from tests.actors.lane import JPEG, Lane, member

FACE = FaceShown(JPEG, "frame", None)
DECISION = RecognitionDecision(12, 480_000, 700_000, 300_000, "old net", "clear")
WHO = MemberId("p-1")
MIGRATED = SealedTemplate(
    TemplateRow("tpl", WHO, "new net", b"sealed", "tpl", "production", TemplateKind.MIGRATED),
    KeyRow("tpl", WHO, 1, b"key"),
)


def looked_at() -> Lane:
    lane = Lane()
    lane.open()
    lane.consent()
    lane.later(FACE)
    return lane


def made(lane: Lane) -> list[TemplateMade]:
    return [fact for fact in lane.facts if isinstance(fact, TemplateMade)]


def test_a_template_of_the_new_net_is_stored_under_this_visit_s_consent() -> None:
    lane = looked_at()
    lane.face_answer(FaceOutcome.ACCEPTED, member=member(), decision=DECISION, templates=(MIGRATED,))
    (stored,) = made(lane)
    assert (stored.template, stored.key, stored.at) == (MIGRATED.template, MIGRATED.key, lane.now)
    given = lane.session.consent(Purpose.RECOGNISE)
    assert given is not None
    assert stored.consent == given.event


def test_nothing_is_stored_of_somebody_who_may_have_no_template() -> None:
    """Known to be under 14 by now, without a guardian's consent."""
    lane = looked_at()
    young = replace(member(), face_permitted=False)
    lane.face_answer(FaceOutcome.ACCEPTED, member=young, decision=DECISION, templates=(MIGRATED,))
    assert made(lane) == []


def test_nothing_is_stored_after_the_consent_was_taken_back() -> None:
    lane = looked_at()
    question = lane.session.question
    assert question is not None
    lane.consent(granted=False)
    lane.tell(
        FaceAnswered(
            lane.session.id or SessionId(""), question.id, FaceOutcome.ACCEPTED, member(), templates=(MIGRATED,)
        )
    )
    assert made(lane) == [], "the answer finds nobody who waits"


def test_an_answer_without_a_member_stores_nothing() -> None:
    lane = looked_at()
    lane.face_answer(FaceOutcome.NOT_RECOGNISED, decision=DECISION, templates=(MIGRATED,))
    assert made(lane) == []
