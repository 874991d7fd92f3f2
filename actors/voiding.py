"""Chapter five: a whole sale undone on its own business date, or goods brought back on any.

Money back first, then the mirror in the ledger. The store lets one lane at a time at a receipt, so that a void and a
return, or two of either, follow one another and see what was booked before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from actors import returning
from actors.ports import FindSale, PaymentRequest, PayVerb, ReturnVouchers, ReverseUses
from actors.stage import Stage
from actors.visit import Voiding
from models.domain.errors import Refused
from models.domain.events import Event, Return, TenderKind, Void
from models.domain.facts import SaleVoided
from models.domain.ids import SessionId, derived_id
from models.domain.messages import PaymentAnswered, PaymentOutcome, SaleFound, SaleNoted, VoidBegun, VoidEnded
from models.domain.payments import PROVIDERS
from models.domain.returns import refund_number

RETRY_EVERY = timedelta(seconds=3)
TRIES_MAX = 20


def void(stage: Stage, event: Event, body: Void) -> None:
    """Find the sale; its answer goes on. The store refuses a second lane at the same receipt meanwhile."""
    _begin(stage, event, Voiding("", body.receipt, event.terminal, None))


def bring_back(stage: Stage, event: Event, body: Return) -> None:
    """Goods of one receipt come back: find the sale, refund their share, book it."""
    clerk = event.clerk or stage.session.clerk
    work = Voiding("", body.receipt, event.terminal, None, lines=body.lines, reason=body.reason, clerk=clerk)
    _begin(stage, event, work)


def _begin(stage: Stage, event: Event, work: Voiding) -> None:
    session = stage.session
    if session.busy:
        raise Refused("lane_busy")
    if session.question is not None or session.enrolment is not None:
        raise Refused("question_open")
    stage.tell_store(VoidBegun(work.receipt, session.lane))
    approver = returning.approver(work)
    question = stage.ask(FindSale(stage.book.store, work.receipt, session.lane, approver or ""))
    stage.keep(voiding=replace(work, question=question, reply=stage.later(event)))
    stage.wake("void", f"{question}:0", RETRY_EVERY)


def sale_found(stage: Stage, found: SaleFound) -> None:
    """Check the shift; refund what the provider took, or give cash back from the drawer."""
    work = stage.session.voiding
    if work is None or work.question != found.question or work.sale is not None:
        return
    if found.busy:
        _refuse(stage, work, "lane_busy")
        return
    # A sale is undone where it was made; its goods are brought back to any store of the chain.
    if found.sale is None or (found.store != stage.book.store and not work.lines):
        _refuse(stage, work, "no_such_receipt")
        return
    if found.voided:
        _refuse(stage, work, "already_voided")
        return
    if returning.approver(work) is not None and not found.approved:
        _refuse(stage, work, "permission_missing")
        return
    work = replace(work, sale=found.sale, entity=found.entity, sold_at=found.store, n=len(found.returns))
    if work.lines:
        try:
            work = returning.share(stage, work, found)
        except Refused as refused:
            _refuse(stage, work, refused.code)
            return
    elif found.returns:
        _refuse(stage, work, "already_returned")
        return
    elif found.business_date != stage.book.business_date(stage.now):
        _refuse(stage, work, "wrong_day")
        return
    else:
        taken = sum(tender.fen for tender in found.tenders if tender.kind is not TenderKind.COUPON)
        refunds = tuple(tender for tender in found.tenders if tender.order)
        work = replace(work, uses=found.uses, vouchers=found.vouchers, taken_fen=taken, refunds=refunds)
        work = replace(work, discount_fen=found.discount_fen)
    stage.keep(voiding=work)
    if work.refunds:
        _ask_refund(stage, work)
    else:
        _book(stage, work)


def _ask_refund(stage: Stage, work: Voiding) -> None:
    """One refund number for ever per sale and order, and per return: asking again cannot pay back twice."""
    tender = work.refunds[0]
    cause = str(work.sale) if work.back is None else returning.return_id(work)
    stage.ask(
        PaymentRequest(
            verb=PayVerb.REFUND,
            session=stage.session.id or SessionId(""),
            entity=work.entity or stage.book.entity_at(stage.now),
            store=stage.book.store,
            terminal=work.terminal,
            order=tender.order,
            fen=tender.fen,
            kind=tender.kind,
            refund_no=refund_number(cause, tender.order),
            provider=tender.provider or PROVIDERS[0],
        )
    )


def refund_answered(stage: Stage, answer: PaymentAnswered) -> None:
    """The provider gave it back, refused, or was not understood: then the same number again."""
    work = stage.session.voiding
    if work is None or not work.refunds or work.refunds[0].order != answer.order:
        return
    if answer.outcome is PaymentOutcome.SUCCEEDED:
        _go_on(stage, work)
    elif answer.outcome is PaymentOutcome.FAILED:
        paid_out = returning.in_cash_instead(work)
        if paid_out is None:
            _refuse(stage, work, "refund_failed")
        else:
            _go_on(stage, paid_out)
    else:
        tries = work.tries + 1
        if tries >= TRIES_MAX:
            stage.incident(work.terminal, "refund_unknown", answer.order)
            _refuse(stage, work, "refund_failed")
            return
        stage.keep(voiding=replace(work, tries=tries))
        stage.wake("void", f"{work.question}:{tries}", RETRY_EVERY)


def _go_on(stage: Stage, work: Voiding) -> None:
    """The first refund is settled, one way or the other: the next, or the books."""
    rest = replace(work, refunds=work.refunds[1:])
    stage.keep(voiding=rest)
    if rest.refunds:
        _ask_refund(stage, rest)
    else:
        _book(stage, rest)


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
    if work.back is not None:
        returning.book(stage, work, work.back)
        stage.keep(voiding=None)
        return
    stage.save(
        SaleVoided(
            derived_id(work.sale, "void"),
            work.sale,
            stage.book.store,
            work.terminal,
            stage.now,
            stage.book.business_date(stage.now),
            session.lane,
        )
    )
    if work.uses:
        stage.ask(ReverseUses(session.id or SessionId(""), stage.book.store, work.sale, work.uses, stage.now))
    if work.vouchers:
        stage.ask(ReturnVouchers(session.id or SessionId(""), stage.book.store, work.vouchers, stage.now))
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
