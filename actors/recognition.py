"""Chapter one: consent, face, digits. Recognition prices and suggests; it never moves money."""

from __future__ import annotations

from actors import enrolling, turning
from actors.effects import Ask
from actors.ports import IdentifyFace, RescoreFace, TakeShot, WithdrawFace
from actors.pricing import quote
from actors.stage import Stage
from actors.visit import Enrolment, GivenConsent, Question, Session
from models.domain.book import StoreBook
from models.domain.device_score import read_score
from models.domain.errors import Refused
from models.domain.events import Consent, Digits, Event, FaceShown, Purpose
from models.domain.face_quality import IMAGE_FAULTS
from models.domain.facts import ConsentGiven, TemplateMade
from models.domain.ids import SessionId, event_cause
from models.domain.kill_switch import Switch
from models.domain.liveness import Side
from models.domain.messages import FaceAnswered, FaceOutcome, TemplateKind
from models.domain.privacy import FaceUse, Standing, permits, withdraws
from models.domain.screen import ScreenState

DIGITS_TRIES_MAX = 3
"""Wrong digits in one visit: guessing four digits must stay hopeless."""

_NOT_JUDGED = frozenset({FaceOutcome.QUALITY, FaceOutcome.BUSY})
"""A frame that was not good enough, or that nobody looked at: a turn that was asked for may still be made."""


def consent(stage: Stage, event: Event, body: Consent) -> None:
    """Record one purpose. A refusal of the face is counted: rollout gates look at it."""
    if stage.session.state in (ScreenState.PAYING, ScreenState.REVERSING):
        raise Refused("not_now")
    text = stage.book.consent_text(body.purpose)
    if text is not None and text.version != body.text:
        raise Refused("consent_outdated")
    session = stage.session
    assert session.id is not None
    member = session.member.id if session.member is not None else None
    stage.save(
        ConsentGiven(
            stage.new_id(),
            session.id,
            stage.book.store,
            event.terminal,
            body.purpose,
            body.text,
            body.granted,
            stage.now,
            member,
        )
    )
    before = session.consent(body.purpose)
    others = tuple(given for given in session.consents if given.purpose is not body.purpose)
    if body.granted:
        stage.keep(consents=(*others, GivenConsent(body.purpose, event.id, body.text, event.terminal)))
    else:
        stage.keep(consents=others)
        if body.purpose is Purpose.RECOGNISE:
            _forget_face(stage)
            stage.incident(event.terminal, "face_refused")
            if member is not None and withdraws(granted=False, granted_before=before is not None, identified=True):
                stage.ask(WithdrawFace(session.id, stage.book.store, event.terminal, member, stage.now))
    if body.purpose is Purpose.RECOGNISE and body.granted and _may_ask_who(stage.session):
        if Switch.FACE in session.off:
            stage.prompt("face_off")
        else:
            stage.prompt("look_at_camera", shot=1, of=1)
    else:
        stage.change()
    stage.reply(event)


def face_withdrawn(stage: Stage) -> None:
    """The templates are gone: say so, unless the customer is asked something else by now."""
    if stage.session.question is None and stage.session.state in (ScreenState.IDENTIFIED, ScreenState.QUOTED):
        stage.prompt("face_erased")


def _may_ask_who(session: Session) -> bool:
    unknown = session.member is None and session.enrolment is None and session.question is None
    return unknown and not session.busy and session.state is not ScreenState.PAID


def _forget_face(stage: Stage) -> None:
    """Consent to recognise was refused or withdrawn: whatever a face had begun ends here."""
    enrolling.no_face(stage)
    question = stage.session.question
    if question is not None:
        stage.reply(question.reply)
        stage.keep(question=None)
    asked = stage.session.state is ScreenState.DIGITS or stage.session.turning is not None
    stage.keep(probe=None, turning=None)
    if asked:
        stage.change(state=stage.session.resting_state, prompt=None)


def face(stage: Stage, event: Event, body: FaceShown) -> None:
    """One image: an enrolment shot when one is asked for, else a probe. Needs consent to recognise."""
    session = stage.session
    given = session.consent(Purpose.RECOGNISE)
    if Switch.FACE in session.off:
        raise Refused("face_off")
    if given is None:
        raise Refused("consent_missing")
    if session.question is not None:
        raise Refused("question_open")
    assert session.id is not None
    enrolment = session.enrolment
    if enrolment is not None:
        if not enrolment.wants_face or enrolment.member is None:
            raise Refused("question_open")
        question = stage.ask(_take_shot(session.id, stage.book, given, event, body, enrolment))
        stage.wait_for_face(question, "shot", stage.later(event))
        return
    if session.member is not None:
        raise Refused("already_identified")
    if session.busy or session.state is ScreenState.PAID:
        raise Refused("not_now")
    question = stage.ask(_identify(session, stage.book, given, event, body))
    stage.wait_for_face(question, "face", stage.later(event))


def ask_again(session: Session, event: Event, book: StoreBook) -> Ask | None:
    """The same face, sent again while its question is open: the image may have been lost, so ask again."""
    question, given = session.question, session.consent(Purpose.RECOGNISE)
    waits = question is not None and question.reply is not None and question.reply.id == event.id
    if question is None or not waits or given is None or session.id is None or not isinstance(event.body, FaceShown):
        return None
    if question.kind == "shot":
        if session.enrolment is None:
            return None
        return Ask(question.id, _take_shot(session.id, book, given, event, event.body, session.enrolment))
    return Ask(question.id, _identify(session, book, given, event, event.body))


def _image(event: Event) -> str:
    """The door keeps the image under this name."""
    return event_cause(event.terminal, event.id)


def _take_shot(
    session: SessionId, book: StoreBook, given: GivenConsent, event: Event, body: FaceShown, enrolment: Enrolment
) -> TakeShot:
    """One more shot of this enrolment."""
    return TakeShot(session, book.store, given.event, _image(event), body.kind, enrolment.consent, enrolment.mask_asked)


def _identify(session: Session, book: StoreBook, given: GivenConsent, event: Event, body: FaceShown) -> IdentifyFace:
    """A device's liveness score counts only when its family vouches for it, and its signature where one is due."""
    assert session.id is not None
    policy, traits = book.chain_book.liveness, event.traits
    made = read_score(
        sent=body.liveness is not None,
        vouches=traits.vouches_liveness,
        signature=body.signature,
        signed=policy.signed,
    )
    score = round(body.liveness * 1_000_000) if body.liveness is not None and made.read else None
    return IdentifyFace(
        session.id,
        book.store,
        given.event,
        _image(event),
        body.kind,
        score,
        traits.digits_required or book.settings.digits_required or turning.doubted(session, policy),
        amount_fen=quote(session, book).due_fen if session.lines else None,
        liveness=policy,
        challenge=turning.challenge_of(session, event, policy),
        device_score=made,
    )


def digits(stage: Stage, event: Event, body: Digits) -> None:
    """The second factor: the probe is scored again among the members whose phone ends so."""
    session = stage.session
    given = session.consent(Purpose.RECOGNISE)
    if session.question is not None:
        raise Refused("question_open")
    if session.state is not ScreenState.DIGITS or session.probe is None or given is None:
        raise Refused("no_digits_asked")
    if len(body.tail) != 4 or not body.tail.isascii() or not body.tail.isdigit():
        raise Refused("bad_digits")
    if session.digits_tries >= DIGITS_TRIES_MAX:
        raise Refused("digits_exhausted")
    assert session.id is not None
    stage.keep(digits_tries=session.digits_tries + 1)
    question = stage.ask(RescoreFace(session.id, stage.book.store, given.event, session.probe, body.tail))
    stage.wait_for_face(question, "digits", stage.later(event))


def answered(stage: Stage, question: Question, answer: FaceAnswered) -> None:
    """What the worker said of a probe."""
    if question.kind == "face" and answer.outcome not in _NOT_JUDGED:
        turning.settled(stage, answer)
    match answer.outcome:
        case FaceOutcome.ACCEPTED if answer.member is not None:
            _keep_templates(stage, answer)
            who = answer.member.id
            stage.keep(
                member=answer.member, probe=None, proved=who, confirmed=who if question.kind == "digits" else None
            )
            stage.change(state=stage.session.resting_state, prompt=None)
            stage.reply(question.reply)
        case FaceOutcome.DIGITS if question.kind == "face" and stage.session.digits_tries < DIGITS_TRIES_MAX:
            stage.keep(probe=answer.sealed)
            stage.change(state=ScreenState.DIGITS)
            stage.prompt("ask_digits")
            stage.reply(question.reply)
        case FaceOutcome.CHALLENGE if question.kind == "face" and answer.sealed is not None:
            turning.ask(stage, question, answer, Side(answer.reason))
        case FaceOutcome.QUALITY:
            stage.prompt(answer.reason)
            stage.reply(question.reply)
        case FaceOutcome.BUSY:
            if question.kind == "digits":  # nobody looked at them: they may be typed again, and were no try
                stage.keep(digits_tries=max(0, stage.session.digits_tries - 1))
            stage.prompt("face_busy")
            stage.reply(question.reply)
        case FaceOutcome.LOST if answer.reason in IMAGE_FAULTS:
            stage.refuse(question.reply, "bad_image")
            stage.prompt("face_lost")
        case FaceOutcome.LOST:
            lost(stage, question)
        case _:
            stage.change(state=stage.session.resting_state, probe=None)
            stage.prompt("not_recognised")
            stage.reply(question.reply)


def _keep_templates(stage: Stage, answer: FaceAnswered) -> None:
    """What a recognised face adds to its member's templates: by a change of nets, or after a second factor."""
    given = stage.session.consent(Purpose.RECOGNISE)
    if given is None or answer.member is None or not answer.member.face_permitted:
        return
    chain, store = stage.book.chain_book.chain, stage.book.store
    text = stage.book.consent_text(Purpose.RECOGNISE)
    agreed = Standing() if text is None else Standing(text.covers)  # the text of this visit's own consent
    for sealed in answer.templates:
        use = FaceUse.ADAPT if sealed.template.kind is TemplateKind.ADAPTIVE else FaceUse.REEMBED
        if not permits(use, visit_consent=True, standing=agreed):
            continue
        stage.save(TemplateMade(sealed.template, sealed.key, given.event, chain, store, stage.now))


def lost(stage: Stage, question: Question) -> None:
    """Nobody answered in time: the worker died, or this host did and the image with it."""
    stage.refuse(question.reply, "face_lost")
    if question.kind == "digits":  # its probe may be sealed under a key that is gone
        stage.change(state=stage.session.resting_state, probe=None)
    stage.prompt("face_lost")


def stop_digits(stage: Stage) -> None:
    """The customer would rather not: go on without membership."""
    stage.keep(probe=None)
    stage.change(state=stage.session.resting_state, prompt=None)
