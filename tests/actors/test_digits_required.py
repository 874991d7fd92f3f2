"""Dragonfly 1: four digits after every accepted face; Dragonfly 2: only when the decision asks for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.ports import IdentifyFace
from actors.session import receive
from models.domain.events import FaceShown, Traits
from models.domain.ids import MemberId
from models.domain.recognition import (
    Accepted,
    Candidate,
    DigitsReason,
    NeedsDigits,
    NotRecognised,
    RecognitionPolicy,
    SearchResult,
    decide,
)
from tests.actors.lane import JPEG, NOW, Lane

CLEAR = SearchResult(Candidate(MemberId("li"), 0.7), None, 100)
NOBODY = SearchResult(Candidate(MemberId("li"), 0.2), None, 100)


@pytest.mark.parametrize("required", [True, False])
def test_the_lane_asks_as_the_terminals_family_needs(required: bool) -> None:
    lane = Lane()
    lane.open()
    lane.consent()
    event = replace(lane.event(FaceShown(JPEG, "frame")), traits=Traits(digits_required=required))
    turn = receive(lane.session, event, event.id, NOW, lane.book)
    asked = next(effect.request for effect in turn.effects if hasattr(effect, "request"))
    assert isinstance(asked, IdentifyFace)
    assert asked.digits_required is required


def test_an_accepted_face_becomes_a_question_for_digits() -> None:
    first = decide(CLEAR, RecognitionPolicy(), net_sha256="net", digits_required=True)
    assert first.match == NeedsDigits(DigitsReason.REQUIRED)
    assert first.record.reason == "required"
    assert decide(CLEAR, RecognitionPolicy(), net_sha256="net").match == Accepted(MemberId("li"))


def test_the_digits_themselves_end_it_and_a_stranger_is_not_asked() -> None:
    policy = RecognitionPolicy()
    given = decide(CLEAR, policy, net_sha256="net", digits_required=True, digits_given=True)
    assert isinstance(given.match, Accepted)
    assert isinstance(decide(NOBODY, policy, net_sha256="net", digits_required=True).match, NotRecognised)
