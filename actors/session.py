"""One customer at one lane: what one message does to the visit. Read this file first, then the chapters.

recognition (consent, face, digits) · turning · identifying · enrolling ·
baskets (scan, the till's basket, amount, age check) · offers · paying · offline · voiding and returning · leasing ·
switching (kill switches) · families (new software in the middle).
Each chapter writes a `Stage`; nothing here awaits, reads a clock or touches a port.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from actors import (
    baskets,
    enrolling,
    families,
    identifying,
    leasing,
    offers,
    offline,
    paying,
    recognition,
    switching,
    turning,
    voiding,
)
from actors.effects import Turn
from actors.selling import RESULT_PAGE
from actors.stage import Stage
from actors.visit import OpenReply, Session
from models.domain.book import StoreBook
from models.domain.errors import Refused
from models.domain.events import (
    AgeCheck,
    Amount,
    Basket,
    Cancel,
    Claim,
    Complaint,
    Confirm,
    Consent,
    Digits,
    Enrol,
    Event,
    FaceShown,
    Identify,
    Lease,
    LeaseEnd,
    OfflineSale,
    Paid,
    Remove,
    Return,
    Scan,
    SessionOpen,
    Void,
    Voucher,
)
from models.domain.facts import FaceDecided
from models.domain.ids import SessionId, event_cause
from models.domain.messages import (
    EnrolAnswered,
    FaceAnswered,
    FaceWithdrawn,
    FamilyMoved,
    LeaseEnded,
    LeaseGranted,
    MemberFound,
    PaymentAnswered,
    ReleaseAnswered,
    ReserveAnswered,
    SaleFound,
    SessionMessage,
    SwitchesMoved,
    TimerFired,
    UsesPosted,
)
from models.domain.screen import ScreenState

VisitBody = (
    Consent
    | FaceShown
    | Digits
    | Enrol
    | Scan
    | Remove
    | Basket
    | Confirm
    | Cancel
    | Identify
    | Amount
    | AgeCheck
    | Voucher
    | Claim
    | Lease
)
"""What a customer who stands there does, or a clerk for them."""

SHOT_KINDS = frozenset({"shot", "template"})
"""Face questions of an enrolment; the others ask who it is."""


def receive(session: Session, message: SessionMessage, cause: str, now: datetime, book: StoreBook) -> Turn[Session]:
    """Decide what one message does to a session. Pure: the host commits and then performs the effects.

    `cause` is the message's id, from which ids made in the turn derive (an event's id together with its terminal:
    two devices may make the same one); `now` the business clock.
    Raises Refused when an event makes no sense in this state: old state stands, the customer sees its text.
    """
    if isinstance(message, Event):
        cause = event_cause(message.terminal, cause)
    stage = Stage(session, cause, now, book)
    switching.obey(stage, first=True)
    message = families.heed(stage, message)
    match message:
        case Event():
            _event(stage, message)
        case TimerFired():
            _timer(stage, message)
        case FaceAnswered():
            _face_answered(stage, message)
        case EnrolAnswered():
            enrolling.answered(stage, message)
        case ReserveAnswered():
            paying.reserve_answered(stage, message)
        case PaymentAnswered():
            if message.verb == "refund":
                voiding.refund_answered(stage, message)
            else:
                paying.payment_answered(stage, message)
        case UsesPosted():
            paying.uses_posted(stage, message)
        case SaleFound():
            voiding.sale_found(stage, message)
        case MemberFound():
            identifying.answered(stage, message)
        case LeaseGranted():
            leasing.granted(stage, message)
        case LeaseEnded():
            leasing.ended(stage, message)
        case FaceWithdrawn():
            recognition.face_withdrawn(stage)
        case ReleaseAnswered() | SwitchesMoved() | FamilyMoved():
            pass
        case _:
            assert_never(message)
    switching.obey(stage, first=False)
    return stage.turn()


def _event(stage: Stage, event: Event) -> None:
    """Some need no visit; the others belong to the one that is open, or open it."""
    body = event.body
    match body:
        case SessionOpen():
            _open(stage, event, body.till_txn or "")
            stage.reply(event)
        case Paid():
            switching.as_shown(stage, body.rev)
            paying.paid(stage, event, body)
        case Void():
            voiding.void(stage, event, body)
        case Return():
            voiding.bring_back(stage, event, body)
        case OfflineSale():
            offline.sale(stage, event, body)
        case LeaseEnd():
            leasing.lease_end(stage, event, body)
        case Complaint():
            stage.incident(event.terminal, "complaint", body.about)
            stage.reply(event)
        case Scan() | Basket() | Amount():
            _open_for_basket(stage, event, body)
            _of_visit(stage, event, body)
        case _:
            _of_visit(stage, event, body)


def _of_visit(stage: Stage, event: Event, body: VisitBody) -> None:
    _require_visit(stage.session, event)
    if event.clerk is not None and stage.session.clerk != event.clerk:
        stage.keep(clerk=event.clerk)
    match body:
        case Consent():
            recognition.consent(stage, event, body)
        case FaceShown():
            recognition.face(stage, event, body)
        case Digits():
            asked = stage.session.state is ScreenState.DIGITS or stage.session.member is None
            (recognition.digits if asked else identifying.confirm)(stage, event, body)
        case Enrol():
            enrolling.enrol(stage, event, body)
        case Scan():
            baskets.scan(stage, event, body)
        case Remove():
            baskets.remove(stage, event, body)
        case Basket():
            baskets.till_basket(stage, event, body)
        case Confirm():
            paying.confirm(stage, event, body)
        case Cancel():
            _cancel(stage, event)
        case _:
            _more(stage, event, body)


def _more(stage: Stage, event: Event, body: Identify | Amount | AgeCheck | Voucher | Claim | Lease) -> None:
    match body:
        case Identify():
            identifying.identify(stage, event, body)
        case Amount():
            baskets.amount(stage, event, body)
        case AgeCheck():
            baskets.age_check(stage, event, body)
        case Voucher():
            offers.voucher(stage, event, body)
        case Claim():
            offers.claim(stage, event, body)
        case Lease():
            leasing.lease(stage, event, body)
        case _:
            assert_never(body)


def _require_visit(session: Session, event: Event) -> None:
    if not session.live:
        raise Refused("no_session")
    if event.session is not None and event.session != session.id:
        raise Refused("session_gone")


def _open(stage: Stage, event: Event, till_txn: str) -> None:
    """A new visit: everything of the one before is left behind, but for the lane's receipt counter."""
    before = stage.session
    if before.busy:
        raise Refused("lane_busy")
    _end_questions(stage)
    fresh = Session(
        lane=before.lane,
        id=SessionId(stage.new_id()),
        state=ScreenState.OPEN,
        book_version=stage.book.version,
        till_txn=till_txn,
        clerk=event.clerk,
        receipts=before.receipts,
        paid_txns=before.paid_txns,
        leasing=before.leasing,
        misses=before.misses,
        misses_since=before.misses_since,
        opened_at=stage.now,
        off=stage.book.off,
    )
    stage.session = fresh
    stage.prompt("welcome")
    stage.wake("idle", f"{fresh.id}:1", _idle_after(stage))


def _idle_after(stage: Stage) -> timedelta:
    """A visit in which nothing happens is closed after this."""
    return timedelta(seconds=stage.book.settings.idle_s)


def _open_for_basket(stage: Stage, event: Event, body: Scan | Basket | Amount) -> None:
    """scan, basket and amount open a visit when there is none; another till transaction is another customer."""
    session = stage.session
    txn = "" if isinstance(body, Scan) else body.till_txn
    over = not session.live or session.state is ScreenState.PAID
    if txn and session.live and not session.lines and not session.till_txn:
        stage.keep(till_txn=txn)
    elif (over and event.session is None) or (txn and session.live and session.till_txn != txn):
        _open(stage, event, txn)


def _cancel(stage: Stage, event: Event) -> None:
    session = stage.session
    if session.payment is not None:
        paying.cancel(stage, event)
    elif session.voiding is not None:
        raise Refused("lane_busy")
    elif session.enrolment is not None:
        enrolling.stop(stage)
        stage.reply(event)
    elif session.state is ScreenState.DIGITS:
        recognition.stop_digits(stage)
        stage.reply(event)
    elif session.turning is not None:
        turning.stop(stage)
        stage.reply(event)
    else:
        _close(stage)
        stage.reply(event)


def _close(stage: Stage) -> None:
    _end_questions(stage)
    stage.change(state=ScreenState.CLOSED, probe=None, turning=None, prompt=None)


def _end_questions(stage: Stage) -> None:
    """The visit is over: whoever still waits for an answer of it gets one."""
    question, enrolment = stage.session.question, stage.session.enrolment
    if question is not None:
        stage.refuse(question.reply, "session_gone")
    if enrolment is not None:
        stage.refuse(enrolment.reply, "session_gone")
    stage.keep(question=None, enrolment=None)


def _face_answered(stage: Stage, answer: FaceAnswered) -> None:
    """Record the decision, then hand the answer to the chapter that asked. Late answers are dropped."""
    session = stage.session
    question = session.question
    if question is None or question.id != answer.question or session.id != answer.session:
        return
    stage.keep(question=None)
    if answer.decision is not None:
        member = answer.member.id if answer.member is not None else None
        stage.save(
            FaceDecided(
                stage.new_id(),
                answer.session,
                stage.book.store,
                stage.now,
                str(answer.outcome),
                member,
                answer.decision,
            )
        )
    if question.kind in SHOT_KINDS:
        enrolling.shot_answered(stage, question, answer)
    else:
        recognition.answered(stage, question, answer)


def _face_lost(stage: Stage, question_id: str) -> None:
    question = stage.session.question
    if question is None or question.id != question_id:
        return
    stage.keep(question=None)
    if question.kind in SHOT_KINDS:
        enrolling.shot_lost(stage, question)
    elif question.kind in identifying.KINDS:
        identifying.lost(stage, question)
    else:
        recognition.lost(stage, question)


def _timer(stage: Stage, timer: TimerFired) -> None:
    match timer.kind:
        case "reply":
            _answer_late(stage, timer.ref)
        case "face":
            _face_lost(stage, timer.ref)
        case "turn":
            turning.over(stage, timer.ref)
        case "poll":
            paying.poll(stage, timer.ref)
        case "void":
            voiding.retry(stage, timer.ref)
        case "close":
            _end_result_page(stage, timer.ref)
        case "idle":
            _idle(stage, timer.ref)
        case "enrol":
            enrolling.gave_up(stage, timer.ref)
        case _:
            raise ValueError(f"unknown timer {timer.kind}")


def _end_result_page(stage: Stage, ref: str) -> None:
    """Thirty seconds after paying; a customer who enrols on the result page is not sent away."""
    session = stage.session
    if session.id != ref or not session.live or session.paid is None:
        return
    if session.enrolment is not None or session.question is not None:
        stage.wake("close", ref, RESULT_PAGE)
    else:
        _close(stage)


def _idle(stage: Stage, ref: str) -> None:
    """Close a visit that showed nothing new since the timer was set, else look again later."""
    session = stage.session
    visit, _, rev = ref.rpartition(":")
    if session.id != visit or not session.live:
        return
    nothing_new = str(session.rev) == rev and session.question is None
    if nothing_new and session.payment is not None:
        paying.till_went_silent(stage)
    if nothing_new and not session.busy:
        _close(stage)
    else:
        session = stage.session
        stage.wake("idle", f"{session.id}:{session.rev}", _idle_after(stage))


def _answer_late(stage: Stage, event: str) -> None:
    """Ten seconds are over: the event is answered as pending, the outcome will come on the screen."""
    session = stage.session
    question, enrolment, payment, void = session.question, session.enrolment, session.payment, session.voiding
    if question is not None and _is_of(question.reply, event):
        stage.reply(question.reply, pending=True)
        stage.keep(question=replace(question, reply=None))
    elif enrolment is not None and _is_of(enrolment.reply, event):
        stage.reply(enrolment.reply, pending=True)
        stage.keep(enrolment=replace(enrolment, reply=None))
    elif payment is not None and _is_of(payment.reply, event):
        stage.reply(payment.reply, pending=True)
        stage.keep(payment=replace(payment, reply=None))
    elif payment is not None and _is_of(payment.cancel_reply, event):
        stage.reply(payment.cancel_reply, pending=True)
        stage.keep(payment=replace(payment, cancel_reply=None))
    elif void is not None and _is_of(void.reply, event):
        stage.reply(void.reply, pending=True)
        stage.keep(voiding=replace(void, reply=None))
    else:
        waiting = next((one for one in session.leasing if _is_of(one.reply, event)), None)
        if waiting is not None:
            leasing.answer_late(stage, waiting)


def _is_of(reply: OpenReply | None, event: str) -> bool:
    """Two terminals of a lane may make the same event id: the timer is of one of them."""
    return reply is not None and event_cause(reply.terminal, reply.id) == event
