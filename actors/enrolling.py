"""Chapter two: becoming a member. The membership is made first; shots that fail leave it without a face."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from actors import identifying
from actors.ports import EnrolFace, EnrolMember
from actors.stage import Stage
from actors.visit import Enrolment, GivenConsent, Instead, Question
from models.domain.errors import Refused
from models.domain.events import Enrol, Event, Purpose
from models.domain.face_quality import IMAGE_FAULTS, PROMPTS, LookReason
from models.domain.facts import ConsentStands, TemplateMade
from models.domain.ids import MemberId
from models.domain.kill_switch import Switch
from models.domain.messages import EnrolAnswered, FaceAnswered, FaceOutcome
from models.domain.plans import GuaranteeKind, Plan
from models.domain.screen import ScreenState

ROUNDS_MAX = 3
"""Rounds of shots that did not agree, before the membership goes on without a face."""

ENROL_WAIT = timedelta(minutes=15)
"""A hold that the customer does not authorise in this time is given up (money rules: HOLD_PENDING)."""


def enrol(stage: Stage, event: Event, body: Enrol) -> None:
    """Ask for a membership. With consent to recognise, shots follow and the answer is pending at once."""
    session = stage.session
    agreed = session.consent(Purpose.MEMBERSHIP)
    if Switch.OFFERS in session.off:
        raise Refused("offers_off")
    if agreed is None:
        raise Refused("consent_missing")
    if session.enrolment is not None or session.question is not None:
        raise Refused("question_open")
    if session.busy:
        raise Refused("lane_busy")
    plan = stage.book.chain_book.plans.get(body.plan)
    if plan is None:
        raise Refused("unknown_plan")
    if body.guarantee not in plan.guarantees:
        raise Refused("guarantee_unavailable")
    if session.member is not None and session.member.membership is not None:
        raise Refused("already_member")
    _may_guarantee(stage, event, plan, body.guarantee)
    if body.phone is not None and identifying.too_many_misses(stage):
        raise Refused("identify_exhausted")
    assert session.id is not None
    member = session.member.id if session.member is not None else None
    ask = stage.ask(
        EnrolMember(
            session.id,
            stage.book.store,
            event.terminal,
            body.plan,
            body.guarantee,
            stage.now,
            body.phone,
            body.auth,
            member,
            event.clerk or session.clerk,
        )
    )
    faces = Switch.FACE not in session.off
    wants_face = faces and session.consent(Purpose.RECOGNISE) is not None and member is None
    if wants_face and stage.book.chain_book.age_check_to_enrol and not session.age_ok:
        raise Refused("age_check_missing")
    reply = None if wants_face else stage.later(event)
    if wants_face:
        stage.reply(event, pending=True)
    stage.wake("enrol", ask, ENROL_WAIT)
    stage.change(
        state=ScreenState.ENROLLING,
        prompt=None,
        probe=None,
        turning=None,
        enrolment=Enrolment(ask, wants_face, reply, plan=body.plan, consent=agreed.event),
    )


def _may_guarantee(stage: Stage, event: Event, plan: Plan, guarantee: str) -> None:
    """What is the member's own is taken as when they pay with it; cash, by a clerk. Raises Refused."""
    if not plan.fee_fen:
        return
    if guarantee == GuaranteeKind.BALANCE_HOLD:
        if stage.session.member is None:
            raise Refused("member_missing")
        if not stage.session.two_factors:
            raise Refused("second_factor_missing")
    if guarantee == GuaranteeKind.CASH_DEPOSIT and (event.clerk or stage.session.clerk) is None:
        raise Refused("clerk_missing")


def answered(stage: Stage, answer: EnrolAnswered) -> None:
    """The membership was made, waits for the customer's phone, or was refused."""
    session = stage.session
    enrolment = session.enrolment
    if enrolment is None or enrolment.ask != answer.ask:
        return
    if answer.pending:
        if answer.code_text:
            stage.prompt("scan_to_agree", code_url=answer.code_text, expires_s=int(ENROL_WAIT.total_seconds()))
        else:
            stage.prompt("authorise_on_phone")
        return
    if answer.member is None:
        stage.refuse(enrolment.reply, answer.code or "enrol_refused")
        instead = stage.session.instead
        if answer.instead and enrolment.plan is not None:
            instead = Instead(enrolment.plan, answer.instead)
        stage.keep(enrolment=None, instead=instead)
        identifying.missed(stage)  # `already_member` tells whose number it is
        stage.change(state=stage.session.resting_state)
        stage.prompt("enrol_failed")
        return
    stage.keep(member=answer.member)
    if enrolment.wants_face and answer.member.face_permitted:
        stage.change(enrolment=replace(enrolment, member=answer.member.id))
        stage.prompt("look_at_camera", shot=1, of=stage.book.chain_book.shots_to_enrol)
        return
    stage.reply(enrolment.reply)
    _done(stage, "member_ready")


def shot_answered(stage: Stage, question: Question, answer: FaceAnswered) -> None:
    """A shot was taken, a template was made, or the image was not good enough: say which."""
    session = stage.session
    enrolment = session.enrolment
    if enrolment is None or enrolment.member is None:
        stage.reply(question.reply)
        return
    of = stage.book.chain_book.shots_to_enrol
    match answer.outcome:
        case FaceOutcome.SHOT_TAKEN if answer.sealed is not None:
            stage.reply(question.reply)
            shots = (*enrolment.shots, answer.sealed)
            stage.keep(enrolment=replace(enrolment, shots=shots))
            if len(shots) < of:
                stage.prompt("look_at_camera", shot=len(shots) + 1, of=of)
            else:
                _make_template(stage, shots)
        case FaceOutcome.ENROLLED:
            given = session.consent(Purpose.RECOGNISE)
            assert given is not None
            if answer.templates:
                stage.save(_standing(stage, given, enrolment.member))
            for sealed in answer.templates:
                stage.save(
                    TemplateMade(
                        sealed.template,
                        sealed.key,
                        given.event,
                        stage.book.chain_book.chain,
                        stage.book.store,
                        stage.now,
                    )
                )
            _done(stage, "member_ready")
        case FaceOutcome.QUALITY:
            stage.reply(question.reply)
            if answer.reason == PROMPTS[LookReason.MASK]:
                stage.keep(enrolment=replace(enrolment, mask_asked=True))
            stage.prompt(answer.reason)
        case FaceOutcome.BUSY:
            stage.reply(question.reply)
            _when_less_busy(stage, enrolment, of)
        case FaceOutcome.LOST if answer.reason in IMAGE_FAULTS:
            stage.refuse(question.reply, "bad_image")
            stage.prompt("look_at_camera", shot=len(enrolment.shots) + 1, of=of)
        case _:
            stage.reply(question.reply)
            _start_again(stage, enrolment, of)


def _make_template(stage: Stage, shots: tuple[bytes, ...]) -> None:
    session = stage.session
    given = session.consent(Purpose.RECOGNISE)
    assert session.id is not None
    assert session.enrolment is not None
    assert session.enrolment.member is not None
    assert given is not None
    question = stage.ask(
        EnrolFace(session.id, stage.book.store, given.event, session.enrolment.member, shots, session.enrolment.consent)
    )
    stage.wait_for_face(question, "template", None)


def _standing(stage: Stage, given: GivenConsent, member: MemberId) -> ConsentStands:
    """What the member agreed to for good, with the template that it permits: in force until it is withdrawn."""
    assert stage.session.id is not None
    return ConsentStands(
        stage.new_id(),
        member,
        stage.book.chain_book.chain,
        given.text,
        stage.session.id,
        stage.book.store,
        given.terminal,
        stage.now,
    )


def _start_again(stage: Stage, enrolment: Enrolment, of: int) -> None:
    """Shots that disagree, or a restarted host whose key is gone: from the first shot, a few times."""
    if enrolment.rounds + 1 >= ROUNDS_MAX:
        _done(stage, "member_ready")
        return
    stage.keep(enrolment=replace(enrolment, shots=(), rounds=enrolment.rounds + 1))
    stage.prompt("look_at_camera", shot=1, of=of)


def _when_less_busy(stage: Stage, enrolment: Enrolment, of: int) -> None:
    """Nobody looked: the shots stay, and the same step is asked for again, a few times."""
    if enrolment.rounds + 1 >= ROUNDS_MAX:
        _done(stage, "member_ready")
        return
    stage.keep(enrolment=replace(enrolment, rounds=enrolment.rounds + 1))
    if len(enrolment.shots) < of:
        stage.prompt("look_at_camera", shot=len(enrolment.shots) + 1, of=of)
    else:
        _make_template(stage, enrolment.shots)


def shot_lost(stage: Stage, question: Question) -> None:
    """No answer to a shot: the shots start again, the membership stands."""
    stage.refuse(question.reply, "face_lost")
    if stage.session.enrolment is not None:
        _start_again(stage, stage.session.enrolment, stage.book.chain_book.shots_to_enrol)


def no_face(stage: Stage) -> None:
    """Consent to recognise was withdrawn, or faces are switched off: no shot is taken or kept; a membership is made all
    the same."""
    session = stage.session
    enrolment = session.enrolment
    if enrolment is None or not enrolment.wants_face:
        return
    if session.question is not None:
        stage.reply(session.question.reply)
    stage.keep(question=None, enrolment=replace(enrolment, wants_face=False, shots=()))
    if enrolment.member is not None:
        _done(stage, "member_ready")


def _done(stage: Stage, prompt: str) -> None:
    stage.keep(enrolment=None)
    stage.change(state=stage.session.resting_state)
    stage.prompt(prompt)


def stop(stage: Stage) -> None:
    """`cancel` ends only this question; a membership that was made already stays."""
    enrolment = stage.session.enrolment
    assert enrolment is not None
    stage.refuse(enrolment.reply, "enrol_refused")
    question = stage.session.question
    if question is not None:
        stage.reply(question.reply)
    stage.keep(enrolment=None, question=None)
    stage.change(state=stage.session.resting_state, prompt=None)


def gave_up(stage: Stage, ask: str) -> None:
    """Fifteen minutes without the customer's authorisation."""
    enrolment = stage.session.enrolment
    if enrolment is not None and enrolment.ask == ask and enrolment.member is None:
        stop(stage)
