"""The turn of the head: a face that was found counts only after a second frame shows depth. Bounded tries, then digits.

The worker judges; here stands what a visit may still ask, and what it waits for. Of the first frame only a blob is
kept, sealed under the visit's key as a probe is.
"""

from __future__ import annotations

from datetime import timedelta

from actors.stage import Stage
from actors.visit import Question, Session, Turning
from models.domain.events import Event
from models.domain.ids import derived_id, event_cause
from models.domain.liveness import Challenge, ChallengeMode, Liveness, LivenessPolicy, Side
from models.domain.messages import FaceAnswered

TURN_WAIT = timedelta(seconds=15)
"""A turn that nobody made in this time is over, and was a try."""


def challenge_of(session: Session, event: Event, policy: LivenessPolicy) -> Challenge:
    """What goes to the worker with a face: the turn that it answers, and whether another may be asked for.

    The side follows from the message's id, so that a repeated turn of the machine asks for the same; who holds up a
    picture does not know it beforehand. The answer must come from the camera that was asked: one terminal, one boot.
    """
    may_ask = policy.challenge is not ChallengeMode.OFF and event.traits.shows_prompts and not _spent(session, policy)
    made = derived_id(event_cause(event.terminal, event.id), "turn")
    following = (Side.LEFT if int(made[0], 16) % 2 else Side.RIGHT) if may_ask else None
    waiting, camera = session.turning, f"{event.terminal} {event.boot}"
    at_ms = int(event.ts.timestamp() * 1000)  # of a face: when it came, by the host's clock
    if waiting is None:
        return Challenge(following, camera=camera, at_ms=at_ms)
    return Challenge(following, waiting.asked, waiting.first, camera, at_ms)


def doubted(session: Session, policy: LivenessPolicy) -> bool:
    """The tries are used up, or a frame was refused as not alive: in this visit a face alone is not enough.

    Not while the last turn that was asked for is waited for: its answer still counts.
    """
    return _spent(session, policy) and session.turning is None


def _spent(session: Session, policy: LivenessPolicy) -> bool:
    return session.turns >= policy.tries_max


def ask(stage: Stage, question: Question, answer: FaceAnswered, side: Side) -> None:
    """Somebody was found: turn the head first."""
    assert answer.sealed is not None
    turning = Turning(answer.sealed, side, question.id)
    stage.change(state=stage.session.resting_state, probe=None, turning=turning, turns=stage.session.turns + 1)
    stage.prompt("turn_head", direction=side.value)
    stage.wake("turn", question.id, TURN_WAIT)
    stage.reply(question.reply)


def settled(stage: Stage, answer: FaceAnswered) -> None:
    """A frame was judged: no turn is waited for. After one that was not alive the visit asks for no more of them."""
    stage.keep(turning=None)
    if answer.decision is not None and answer.decision.liveness is Liveness.FAILED:
        stage.keep(turns=max(stage.session.turns, stage.book.chain_book.liveness.tries_max))


def over(stage: Stage, question: str) -> None:
    """Nobody turned in time; a frame that is being judged still counts."""
    turning = stage.session.turning
    if turning is not None and turning.question == question and stage.session.question is None:
        stage.keep(turning=None)
        stage.prompt("face_lost")


def stop(stage: Stage) -> None:
    """The customer would rather not: go on without membership."""
    stage.change(turning=None, state=stage.session.resting_state, prompt=None)
