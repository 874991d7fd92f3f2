"""Kill switches and the visit that is under way: what ends at once, and what was promised and is kept.

Each turn begins and ends by obeying: the session holds the switches that its screen was drawn under (`off`), so that
a price never changes without a new revision. `confirm` of an older one is refused with the new screen.

- open, identified, basket, quoted, declined: obeyed at once; a new revision shows the new price and actions.
- digits, a turn of the head, a frame that is looked at: face off ends the question, its event is refused `face_off`.
- enrolling: goes on; with face off without a face. Offers off does not take back what the customer accepted.
- paying, reversing: obeyed in the turn that ends them: a sale that was confirmed keeps its reserved benefit.
- paid: the result page goes on without offers; the sale stands.
- a till that collected what an older revision showed is booked as that revision was priced.
- a sale made offline, with a lease or without, is booked as reported: the money was taken.
"""

from __future__ import annotations

from actors import enrolling, identifying
from actors.pricing import quote
from actors.stage import Stage
from actors.visit import Switched
from models.domain.kill_switch import Switch
from models.domain.screen import ScreenState

SWITCHED_REMEMBERED_MAX = 8
"""Older revisions of one visit than these moves: a till that reports one is booked as the oldest was priced."""

FACE_PROMPTS = frozenset(
    {
        "ask_consent",
        "ask_digits",
        "come_closer",
        "digits_elsewhere",
        "face_busy",
        "face_lost",
        "hold_still",
        "less_light",
        "look_at_camera",
        "look_straight",
        "more_light",
        "not_recognised",
        "several_faces",
        "take_off_glasses",
        "take_off_mask",
        "turn_head",
    }
)
_PRICED = frozenset({ScreenState.BASKET, ScreenState.QUOTED, ScreenState.DECLINED})


def obey(stage: Stage, *, first: bool) -> None:
    """Bring a visit under the store's switches, unless money is on its way. `first`: before the message."""
    session, off = stage.session, stage.book.off
    if session.off == off or session.busy or not session.live:
        return
    moved = set(session.off) ^ set(off)
    due = _due_fen(stage)
    switched = (*session.switched, Switched(session.rev, session.off))[-SWITCHED_REMEMBERED_MAX:]
    (stage.revise if first else stage.change)(off=off, switched=switched)
    if Switch.FACE in moved:
        _face(stage, off=Switch.FACE in off)
    if Switch.BENEFITS in moved and _due_fen(stage) != due and stage.session.state in _PRICED:
        stage.prompt("benefits_off" if Switch.BENEFITS in off else "price_changed")


def as_shown(stage: Stage, rev: int) -> None:
    """Price by the switches of revision `rev`: a till has collected what that one showed, and nobody confirmed it."""
    if stage.session.payment is not None or not stage.session.live:
        return
    off = next((one.off for one in stage.session.switched if rev <= one.rev), stage.session.off)
    stage.keep(off=off)


def _due_fen(stage: Stage) -> int:
    return quote(stage.session, stage.book).due_fen if stage.session.lines else 0


def _face(stage: Stage, *, off: bool) -> None:
    """No frame is asked for or looked at any more: whatever a face had begun ends. Or: it may be used again."""
    session = stage.session
    if not off:
        if session.prompt is not None and session.prompt.code == "face_off":
            stage.change(prompt=None)
        return
    question = session.question
    looking = question is not None and question.kind not in identifying.KINDS
    if question is not None and looking:
        stage.refuse(question.reply, "face_off")
        stage.keep(question=None)
    asked = session.state is ScreenState.DIGITS or session.turning is not None
    said = session.prompt is not None and session.prompt.code in FACE_PROMPTS
    enrolling.no_face(stage)
    stage.keep(probe=None, turning=None)
    if session.state is ScreenState.DIGITS:
        stage.change(state=stage.session.resting_state)
    if session.enrolment is None and (looking or asked or said):
        stage.prompt("face_off")
