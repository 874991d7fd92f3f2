"""A member without face or phone: by the whole phone number, a card or a code. Prices, and never moves money.

No consent to recognise is needed, for no face is looked at. Numbers can be tried out, so a visit has few tries, and a
lane few misses an hour.
"""

from __future__ import annotations

from datetime import timedelta

from actors.ports import FindMember
from actors.stage import Stage
from actors.visit import Question
from models.domain.errors import Refused
from models.domain.events import Digits, Event, Identify
from models.domain.messages import MemberFound
from models.domain.screen import ScreenState

IDENTIFY_TRIES_MAX = 3
"""Numbers that may be tried in one visit: whose number is a member's must stay hopeless to find out."""
CONFIRM_TRIES_MAX = 3
"""Wrong digits in one visit; they count as misses of the lane, too."""
KINDS = frozenset({"member", "proof", "confirm"})
"""Questions of this chapter: a phone number, a card or a code, the digits of a member who is known."""
MISSES_MAX = 30
MISSES_WITHIN = timedelta(hours=1)
"""Visits are free to open, so a lane has a bound of its own. Customers who mistype are far below it."""


def identify(stage: Stage, event: Event, body: Identify) -> None:
    """Look the member up; the answer goes on."""
    session = stage.session
    if session.member is not None:
        raise Refused("already_identified")
    if session.question is not None or session.enrolment is not None:
        raise Refused("question_open")
    if session.busy:
        raise Refused("lane_busy")
    if session.state is ScreenState.PAID:
        raise Refused("not_now")
    if session.identify_tries >= IDENTIFY_TRIES_MAX or too_many_misses(stage):
        raise Refused("identify_exhausted")
    assert session.id is not None
    question = stage.ask(FindMember(session.id, stage.book.store, body.by, body.value))
    stage.keep(identify_tries=session.identify_tries + 1)
    # The digits are a part of the phone number: who knows the one knows the other, so it proves nothing.
    stage.wait_for_face(question, "member" if body.by == "phone" else "proof", stage.later(event))


def confirm(stage: Stage, event: Event, body: Digits) -> None:
    """The second factor of a member whom a face, card or code named: the last four digits of their phone."""
    session = stage.session
    if session.member is None or session.proved != session.member.id or session.two_factors:
        raise Refused("no_digits_asked")
    if session.question is not None or session.enrolment is not None:
        raise Refused("question_open")
    if session.busy:
        raise Refused("lane_busy")
    if session.state is ScreenState.PAID:
        raise Refused("not_now")
    if len(body.tail) != 4 or not body.tail.isascii() or not body.tail.isdigit():
        raise Refused("bad_digits")
    if session.digits_tries >= CONFIRM_TRIES_MAX or too_many_misses(stage):
        raise Refused("digits_exhausted")
    assert session.id is not None
    question = stage.ask(FindMember(session.id, stage.book.store, "tail", body.tail, session.member.id))
    stage.keep(digits_tries=session.digits_tries + 1)
    stage.wait_for_face(question, "confirm", stage.later(event))


def answered(stage: Stage, answer: MemberFound) -> None:
    """Somebody we know, or nobody: the customer goes on either way."""
    session = stage.session
    question = session.question
    if question is None or question.id != answer.question or session.id != answer.session:
        return
    stage.keep(question=None)
    stage.reply(question.reply)
    if answer.member is None:
        missed(stage)
        stage.prompt("digits_wrong" if question.kind == "confirm" else "not_recognised")
        return
    if question.kind == "confirm":
        stage.keep(confirmed=answer.member.id)
        stage.change(prompt=None)
        return
    proved = answer.member.id if question.kind == "proof" else None
    stage.keep(member=answer.member, probe=None, turning=None, proved=proved, confirmed=None)
    stage.change(state=stage.session.resting_state, prompt=None)


def too_many_misses(stage: Stage) -> bool:
    """Somebody tries numbers out at this lane."""
    return _misses(stage) >= MISSES_MAX


def missed(stage: Stage) -> None:
    """A number was tried that told whose it is not: by a look-up, or by an enrolment that was refused."""
    misses = _misses(stage)
    stage.keep(misses=misses + 1, misses_since=stage.session.misses_since if misses else stage.now)


def _misses(stage: Stage) -> int:
    """Numbers of nobody within the last hour."""
    session = stage.session
    since = session.misses_since
    return 0 if since is None or stage.now - since >= MISSES_WITHIN else session.misses


def lost(stage: Stage, question: Question) -> None:
    """The look-up did not come back in time: this try does not count."""
    if question.kind == "confirm":
        stage.keep(digits_tries=max(0, stage.session.digits_tries - 1))
    else:
        stage.keep(identify_tries=max(0, stage.session.identify_tries - 1))
    stage.refuse(question.reply, "not_now")
