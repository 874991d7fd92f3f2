"""Chapter five: a whole sale undone on its own business date. Money back first, then the mirror in the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from actors.ports import FindSale, PaymentRequest, PayVerb, ReverseUses
from actors.stage import Stage
from actors.visit import Voiding
from models.domain.errors import Refused
from models.domain.events import Event, TenderKind, Void
from models.domain.facts import SaleVoided
from models.domain.ids import SessionId, derived_id
from models.domain.messages import PaymentAnswered, PaymentOutcome, SaleFound, SaleNoted, VoidBegun, VoidEnded

RETRY_EVERY = timedelta(seconds=3)
TRIES_MAX = 20


def void(stage: Stage, event: Event, body: Void) -> None:
    """Find the sale; its answer goes on. The store refuses a second lane that voids the same receipt meanwhile."""
    session = stage.session
    if session.busy:
        raise Refused("lane_busy")
    if session.question is not None or session.enrolment is not None:
        raise Refused("question_open")
    stage.tell_store(VoidBegun(body.receipt, session.lane))
    question = stage.ask(FindSale(stage.book.store, body.receipt))
    stage.keep(voiding=Voiding(question, body.receipt, event.terminal, stage.later(event)))
    stage.wake("void", f"{question}:0", RETRY_EVERY)


def sale_found(stage: Stage, found: SaleFound) -> None:
    """Check the shift; refund what the provider took, or give cash back from the drawer."""
    work = stage.session.voiding
    if work is None or work.question != found.question or work.sale is not None:
        return
    if found.sale is None or found.store != stage.book.store:
        _refuse(stage, work, "no_such_receipt")
        return
    if found.voided:
        _refuse(stage, work, "already_voided")
        return
    if found.business_date != stage.book.business_date(stage.now):
        _refuse(stage, work, "wrong_day")
        return
    taken = sum(tender.fen for tender in found.tenders if tender.kind is not TenderKind.COUPON)
    work = replace(
        work,
        sale=found.sale,
        uses=found.uses,
        taken_fen=taken,
        discount_fen=found.discount_fen,
        refunds=tuple(tender for tender in found.tenders if tender.order),
    )
    stage.keep(voiding=work)
    if work.refunds:
        _ask_refund(stage, work)
    else:
        _book(stage, work)


def _ask_refund(stage: Stage, work: Voiding) -> None:
    """One refund number for ever per sale and order: asking again cannot pay back twice."""
    tender = work.refunds[0]
    stage.ask(
        PaymentRequest(
            verb=PayVerb.REFUND,
            session=stage.session.id or SessionId(""),
            entity=stage.book.entity,
            store=stage.book.store,
            terminal=work.terminal,
            order=tender.order,
            fen=tender.fen,
            kind=tender.kind,
            refund_no="R" + derived_id(str(work.sale), tender.order).replace("-", ""),
        )
    )


def refund_answered(stage: Stage, answer: PaymentAnswered) -> None:
    """The provider gave it back, refused, or was not understood: then the same number again."""
    work = stage.session.voiding
    if work is None or not work.refunds or work.refunds[0].order != answer.order:
        return
    if answer.outcome is PaymentOutcome.SUCCEEDED:
        rest = replace(work, refunds=work.refunds[1:])
        stage.keep(voiding=rest)
        if rest.refunds:
            _ask_refund(stage, rest)
        else:
            _book(stage, rest)
    elif answer.outcome is PaymentOutcome.FAILED:
        _refuse(stage, work, "refund_failed")
    else:
        tries = work.tries + 1
        if tries >= TRIES_MAX:
            stage.incident(work.terminal, "refund_unknown", answer.order)
            _refuse(stage, work, "refund_failed")
            return
        stage.keep(voiding=replace(work, tries=tries))
        stage.wake("void", f"{work.question}:{tries}", RETRY_EVERY)


def retry(stage: Stage, ref: str) -> None:
    """No clear answer yet: look for the sale again (a restart lost the question), or refund again."""
    work = stage.session.voiding
    question, _, tries = ref.rpartition(":")
    if work is None or work.question != question or str(work.tries) != tries:
        return
    if work.sale is None:
        _refuse(stage, work, "not_now")
    elif work.refunds and work.tries > 0:
        _ask_refund(stage, work)


def _book(stage: Stage, work: Voiding) -> None:
    session = stage.session
    assert work.sale is not None
    stage.save(
        SaleVoided(
            derived_id(work.sale, "void"),
            work.sale,
            stage.book.store,
            work.terminal,
            stage.now,
            stage.book.business_date(stage.now),
        )
    )
    if work.uses:
        stage.ask(ReverseUses(session.id or SessionId(""), stage.book.store, work.sale, work.uses, stage.now))
    stage.tell_store(VoidEnded(work.receipt, session.lane))
    stage.tell_store(SaleNoted(-1, -work.taken_fen, -work.discount_fen))
    stage.reply(work.reply)
    stage.keep(voiding=None)
    if session.id is not None:
        stage.prompt("voided")


def _refuse(stage: Stage, work: Voiding, code: str) -> None:
    stage.tell_store(VoidEnded(work.receipt, stage.session.lane))
    stage.refuse(work.reply, code)
    stage.keep(voiding=None)
