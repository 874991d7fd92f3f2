"""Chapter four: reserve the benefits, take the money, book the sale. What screen revision N showed is paid, exactly.

confirm -> reserve (if a benefit is used) -> provider or cash -> sale + post the uses; every branch ends in
`paid`, or in `declined`/`quoted` with the reservation given back.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from actors.ports import (
    PaymentRequest,
    PayVerb,
    PostUses,
    PostVouchers,
    ReleaseUses,
    ReleaseVouchers,
    ReserveUses,
    ReserveVouchers,
)
from actors.pricing import quote, uses_of, vouchers_of
from actors.selling import book_sale, book_unknown_takings, dated, moment, taken_fen, till_sale
from actors.stage import Stage
from actors.tenders import as_taken, provider_of
from actors.visit import Payment, Phase, Session
from models.domain.errors import Refused
from models.domain.events import Confirm, Event, Paid, Tender, TenderKind
from models.domain.ids import SaleId, derived_id
from models.domain.messages import PaymentAnswered, PaymentOutcome, ReserveAnswered, SaleTender, UsesPosted
from models.domain.payments import PROVIDERS, FailReason
from models.domain.points import POINTS
from models.domain.pricing import check_tenders
from models.domain.screen import ScreenState

POLL_EVERY = timedelta(seconds=3)
POLLS_MAX = 20
"""Every 3 s up to 60 s, then cancel at once (money rules: at the counter)."""

CANCEL_PAUSE_MAX = timedelta(minutes=5)
CANCELS_QUICK_MAX = 5
"""Cancels without a clear answer that are repeated after 3 s; from then on each pause is twice the one before."""
CANCELS_ALARM = 8
"""Then an operator is told: incident `cancel_unclear`, once."""
CANCELS_MAX = 40
"""Then the lane is free again (some three hours): incident `payment_parked` names the order, which reconciliation
matches: whatever the provider took under it is explained there."""

OVER = frozenset({FailReason.CLOSED, FailReason.REVERSED})
"""A cancel that fails for one of these finds the order ended already, with nothing kept."""

DRAWER_TENDERS = frozenset({TenderKind.CASH, TenderKind.CARD, TenderKind.COUPON})
"""What needs no provider of ours: a card is taken by the bank's own device, and its slip is in the drawer."""

MEMBER_TENDERS = (TenderKind.BALANCE, TenderKind.AGREEMENT)
"""What is a member's own: taken without asking them, so they prove who they are by two factors first."""
MEMBER_REFUSALS = frozenset({"balance_short", "agreement_missing", "payment_limit", "day_limit"})
"""Why a balance or an agreement did not pay: our own reasons, told as they are."""

PROVIDER_TENDERS = (*MEMBER_TENDERS, TenderKind.FACE, TenderKind.CODE, TenderKind.QR)
"""What can be taken back, in the order in which it is asked for: what answers at once first, what somebody must scan
last. Cash comes after all of them, for it changes hands."""
TOKEN_TENDERS = frozenset({TenderKind.FACE, TenderKind.CODE})
PARTS_MAX = 3
"""Tenders of providers in one payment: each may take a minute, with a customer who waits."""
TAKEN_TENDERS = frozenset(PROVIDER_TENDERS) | DRAWER_TENDERS
"""A coupon moves no money: it is how a till that takes no line adjustments shows the benefit."""


def confirm(stage: Stage, event: Event, body: Confirm) -> None:
    """Pay what revision `rev` showed. A stale one is refused with the new screen."""
    session = stage.session
    if session.busy:
        raise Refused("lane_busy")
    if session.question is not None:
        raise Refused("question_open")
    if session.lines and session.age_missing:
        raise Refused("age_check_missing")
    if session.state is not ScreenState.QUOTED or not session.lines:
        raise Refused("nothing_to_pay" if not session.lines else "not_now")
    if body.rev != session.rev:
        stage.refuse_event(event, "stale_rev")
        stage.show_again()
        return
    at_till = body.collect == "till"
    if not at_till:
        as_coupon = not event.traits.takes_line_adjustments
        check_tenders(body.tenders, quote(session, stage.book), coupons=as_coupon)
        _require_supported(body.tenders, stage.book.chain_book.tenders)
        _require_member(session, body.tenders)
    assert session.id is not None
    sale = SaleId(derived_id(stage.cause, "sale"))
    payment = Payment(
        sale=sale,
        order=_order(stage.cause),
        phase=Phase.RESERVING,
        terminal=event.terminal,
        seq=event.seq,
        tenders=body.tenders,
        uses=uses_of(session, stage.book, sale),
        reply=None,
        rev=body.rev,
        at_till=at_till,
        vouchers=vouchers_of(session, stage.book, sale),
    )
    payment = replace(payment, reply=stage.later(event))
    stage.change(payment=payment, state=ScreenState.PAYING, prompt=None)
    _reserve(stage, payment)


def _reserve(stage: Stage, payment: Payment) -> None:
    """The vouchers first, then the membership's uses; then the money."""
    session, store = stage.session, stage.book.store
    assert session.id is not None
    if payment.vouchers and not payment.vouchers_kept:
        member = session.member.id if session.member is not None else None
        vouchers = ReserveVouchers(session.id, store, member, payment.vouchers, stage.now)
        stage.keep(payment=replace(payment, reserve=stage.ask(vouchers)))
    elif payment.uses:
        uses = payment.uses
        reserve = ReserveUses(session.id, store, uses[0].membership, uses, stage.now, payment.rev)
        stage.keep(payment=replace(payment, reserve=stage.ask(reserve)))
    else:
        _collect(stage)


def _order(cause: str) -> str:
    """Our number of a payment attempt: new for each `confirm`."""
    return "P" + derived_id(cause, "order").replace("-", "")


def _require_supported(tenders: tuple[Tender, ...], offered: frozenset[TenderKind]) -> None:
    if any(tender.kind not in TAKEN_TENDERS & offered for tender in tenders):
        raise Refused("tender_unsupported")
    asked = [tender for tender in tenders if tender.kind in PROVIDER_TENDERS]
    # A card is taken already when its slip is there, and we cannot take it back: it is not mixed with what may fail.
    carded = any(tender.kind is TenderKind.CARD for tender in tenders)
    if len(asked) > PARTS_MAX or (asked and carded):
        raise Refused("tender_unsupported")
    if any(tender.kind in TOKEN_TENDERS and tender.auth is None for tender in asked):
        raise Refused("token_missing")
    if any(tender.auth is not None and tender.auth.provider not in PROVIDERS for tender in asked):
        raise Refused("tender_unsupported")


def _require_member(session: Session, tenders: tuple[Tender, ...]) -> None:
    """One of each kind at most: a member has one balance, and one agreement with the company of the store."""
    theirs = [tender.kind for tender in tenders if tender.kind in MEMBER_TENDERS]
    if not theirs:
        return
    if len(set(theirs)) < len(theirs):
        raise Refused("tender_unsupported")
    if session.member is None:
        raise Refused("member_missing")
    if not session.two_factors:
        raise Refused("second_factor_missing")


def _is_qr(payment: Payment) -> bool:
    tender = _provider_tender(payment)
    return tender is not None and tender.kind is TenderKind.QR


def _provider_tender(payment: Payment) -> Tender | None:
    """The one that is asked for now, or given back: those before it were taken. None when all of them were."""
    parts = _provider_tenders(payment)
    return parts[len(payment.taken)] if len(payment.taken) < len(parts) else None


def _provider_tenders(payment: Payment) -> list[Tender]:
    parts = [tender for tender in payment.tenders if tender.kind in PROVIDER_TENDERS]
    return sorted(parts, key=lambda tender: PROVIDER_TENDERS.index(tender.kind))


def reserve_answered(stage: Stage, answer: ReserveAnswered) -> None:
    """What was asked for is reserved: go on, at last collect. Or it is gone: price again with what is left."""
    session = stage.session
    payment = session.payment
    if payment is None or payment.phase is not Phase.RESERVING or payment.reserve != answer.ask:
        return
    if answer.ok:
        if payment.vouchers and payment.uses and not payment.vouchers_kept:
            kept = replace(payment, vouchers_kept=True)
            stage.keep(payment=kept)
            _reserve(stage, kept)
        else:
            _collect(stage)
        return
    stage.refuse(payment.reply, answer.code or "benefit_gone")
    if payment.vouchers_kept:
        stage.ask(ReleaseVouchers(answer.session, payment.vouchers))
    left = tuple(entered for entered in session.vouchers if entered not in answer.gone)
    stage.keep(payment=None, member=answer.member or session.member, vouchers=left)
    if POINTS in answer.gone:
        stage.keep(points=0)
    stage.change(state=ScreenState.QUOTED)
    stage.prompt("price_changed")


def _collect(stage: Stage) -> None:
    """Take the money: the till does it, the provider does it, or it is cash in the drawer already."""
    payment = stage.session.payment
    assert payment is not None
    tender = _provider_tender(payment)
    if payment.at_till:
        stage.reply(payment.reply)
        stage.change(payment=replace(payment, phase=Phase.AT_TILL, reply=None))
        stage.prompt("collect_at_till")
    elif tender is None:
        stage.reply(payment.reply)
        _finish(stage, payment, ())
    else:
        stage.keep(payment=replace(payment, phase=Phase.ASKING))
        _ask_provider(stage, PayVerb.PRECREATE if tender.kind is TenderKind.QR else PayVerb.PAY)


def _ask_provider(stage: Stage, verb: PayVerb) -> None:
    session = stage.session
    payment = session.payment
    assert payment is not None
    assert session.id is not None
    tender = _provider_tender(payment)
    assert tender is not None
    stage.ask(
        PaymentRequest(
            verb=verb,
            session=session.id,
            entity=stage.book.entity_at(stage.now),
            store=stage.book.store,
            terminal=payment.terminal,
            order=payment.order,
            fen=tender.fen,
            kind=tender.kind,
            subject=session.lines[0].name if session.lines else "",
            auth=tender.auth,
            provider=provider_of(tender),
            member=session.member.id if session.member is not None and tender.kind in MEMBER_TENDERS else None,
        )
    )


def payment_answered(stage: Stage, answer: PaymentAnswered) -> None:
    """What the provider said of our order: paid, still waiting, failed, or nothing that we understood."""
    payment = stage.session.payment
    if payment is None or payment.order != answer.order:
        return
    if answer.verb == "cancel":
        _cancel_answered(stage, payment, answer)
    elif answer.outcome is PaymentOutcome.SUCCEEDED and answer.verb != "precreate":
        _succeeded(stage, payment, answer)
    elif payment.phase is Phase.REVERSING:
        return  # a cancel is on its way; its answer decides
    elif answer.verb == "precreate" and answer.outcome is PaymentOutcome.SUCCEEDED:
        stage.change(payment=replace(payment, phase=Phase.COLLECTING, code_shown=True))
        stage.prompt("scan_qr", code_url=answer.collection_code, expires_s=POLLS_MAX * int(POLL_EVERY.total_seconds()))
        stage.wake("poll", f"{payment.order}:{payment.polls}", POLL_EVERY)
    elif answer.outcome is PaymentOutcome.FAILED:
        _give_up(stage, payment, "pay_failed", answer.code)
    else:
        _wait_on(stage, payment, never_came=answer.outcome is PaymentOutcome.ABSENT)


def _wait_on(stage: Stage, payment: Payment, *, never_came: bool) -> None:
    polls = payment.polls + 1
    waiting = replace(payment, phase=Phase.COLLECTING, polls=polls)
    if polls >= POLLS_MAX:
        stage.change(state=ScreenState.REVERSING, payment=replace(waiting, phase=Phase.REVERSING))
        stage.prompt("not_paid")
        _ask_provider(stage, PayVerb.CANCEL)
        return
    if never_came and payment.phase is Phase.COLLECTING and not payment.code_shown:
        # The provider was away and is back: the same number again, once more, while the customer still stands there.
        stage.keep(payment=replace(waiting, phase=Phase.ASKING))
        _ask_provider(stage, PayVerb.PAY)
        return
    stage.keep(payment=waiting)
    tender = _provider_tender(payment)
    if payment.phase is Phase.ASKING and tender is not None and tender.kind in TOKEN_TENDERS:
        stage.prompt("authorise_on_phone")
    stage.wake("poll", f"{payment.order}:{polls}", POLL_EVERY)


def poll(stage: Stage, ref: str) -> None:
    """Ask the provider again, under the same number; or repeat a cancel that had no clear answer."""
    payment = stage.session.payment
    order, _, n = ref.rpartition(":")
    if payment is None or payment.order != order or str(payment.polls) != n:
        return
    if payment.phase is Phase.REVERSING:
        _ask_provider(stage, PayVerb.CANCEL)
    elif payment.phase is Phase.COLLECTING:
        known = payment.code_shown or not _is_qr(payment)
        _ask_provider(stage, PayVerb.QUERY if known else PayVerb.PRECREATE)


def _succeeded(stage: Stage, payment: Payment, answer: PaymentAnswered) -> None:
    if payment.phase is Phase.REVERSING:
        return  # our cancel sends the money back; its answer ends this
    stage.refuse(payment.cancel_reply, "not_now")
    tender = _provider_tender(payment)
    assert tender is not None
    taken = (*payment.taken, as_taken(tender, payment.order, answer))
    payment = replace(payment, taken=taken, cancel_reply=None)
    if _provider_tender(payment) is None:
        stage.reply(payment.reply)
        _finish(stage, payment, taken)
        return
    order = f"{taken[0].order}-{len(taken)}"
    stage.change(payment=replace(payment, order=order, polls=0, cancels=0, code_shown=False), prompt=None)
    _collect(stage)


def _give_up(stage: Stage, payment: Payment, prompt_code: str, why: str) -> None:
    """Not paid: give back what other tenders paid, then the benefits, and go on with the same basket."""
    session = stage.session
    assert session.id is not None
    stage.refuse(payment.reply, why if why in MEMBER_REFUSALS else "pay_failed", why)
    if payment.taken:
        _undo(stage, payment, why)
        return
    stage.reply(payment.cancel_reply)
    if payment.uses:
        stage.ask(ReleaseUses(session.id, payment.uses))
    if payment.vouchers:
        stage.ask(ReleaseVouchers(session.id, payment.vouchers))
    if not payment.undoing:
        stage.incident(payment.terminal, "payment_failed", why)
    stage.change(payment=None, state=ScreenState.QUOTED)
    stage.prompt(prompt_code)


def _undo(stage: Stage, payment: Payment, why: str) -> None:
    """All of the tenders or none: cancel the one that was paid last; its answer brings the next."""
    if not payment.undoing:
        stage.incident(payment.terminal, "payment_failed", why)
    undone = replace(
        payment,
        order=payment.taken[-1].order,
        taken=payment.taken[:-1],
        phase=Phase.REVERSING,
        undoing=True,
        reply=None,
        polls=POLLS_MAX,  # its polls so far were fewer: no timer of theirs is taken for one of the cancel's
        cancels=0,
    )
    stage.change(state=ScreenState.REVERSING, payment=undone)
    stage.prompt("not_paid")
    _ask_provider(stage, PayVerb.CANCEL)


def cancel(stage: Stage, event: Event) -> None:
    """Stop a payment: at the till at once, at the provider by its own cancel (state reversing)."""
    payment = stage.session.payment
    assert payment is not None
    if payment.phase in (Phase.REVERSING, Phase.RESERVING) or payment.cancel_reply is not None:
        raise Refused("lane_busy")
    payment = replace(payment, cancel_reply=stage.later(event))
    stage.keep(payment=payment)
    if payment.phase is Phase.AT_TILL:
        _give_up(stage, payment, "not_paid", "cancelled")
        return
    stage.change(state=ScreenState.REVERSING, payment=replace(payment, phase=Phase.REVERSING))
    stage.prompt("not_paid")
    _ask_provider(stage, PayVerb.CANCEL)


def _cancel_answered(stage: Stage, payment: Payment, answer: PaymentAnswered) -> None:
    if payment.phase is not Phase.REVERSING:
        return
    over = answer.outcome is PaymentOutcome.FAILED and answer.code in OVER
    if answer.outcome is PaymentOutcome.SUCCEEDED or over:
        _give_up(stage, payment, "not_paid", answer.code or "cancelled")
        return
    waiting = replace(payment, polls=payment.polls + 1, cancels=payment.cancels + 1)
    if waiting.cancels == CANCELS_ALARM:
        stage.incident(payment.terminal, "cancel_unclear", payment.order)
    if waiting.cancels >= CANCELS_MAX:
        stage.incident(payment.terminal, "payment_parked", payment.order)
        _give_up(stage, payment, "not_paid", "unclear")
        return
    if answer.outcome is PaymentOutcome.FAILED and not payment.undoing:
        # It may be paid and stay so: ask before anything else.
        waiting = replace(waiting, phase=Phase.COLLECTING, code_shown=True)
    stage.keep(payment=waiting)
    stage.wake("poll", f"{payment.order}:{waiting.polls}", cancel_pause(waiting.cancels))


def cancel_pause(cancels: int) -> timedelta:
    """How long to wait after so many cancels without a clear answer."""
    doubled: timedelta = POLL_EVERY * 2 ** min(max(0, cancels - CANCELS_QUICK_MAX), 10)
    return min(CANCEL_PAUSE_MAX, doubled)


def paid(stage: Stage, event: Event, body: Paid) -> None:
    """The till took the money: booked as reported, whatever we think of it.

    The same number with the same amount is the same report. With another amount it is other money: a till that
    counts from 1 again, or a second collection. It waits in suspense to be matched, and somebody is told.
    """
    session = stage.session
    number = dated(stage, moment(stage, event), body.till_txn)
    tenders = tuple(as_reported(tender) for tender in body.tenders)
    sale = till_sale(stage, number, taken_fen(tenders))
    payment = session.payment
    stage.reply(event)
    known = [txn for txn in session.paid_txns if txn.number == number]
    if any(txn.fen == taken_fen(tenders) for txn in known):
        return
    if known:
        stage.incident(event.terminal, "paid_again", f"{body.till_txn} {taken_fen(tenders)}")
    if session.age_missing and session.till_txn == body.till_txn:
        stage.incident(event.terminal, "age_unchecked", body.till_txn)
    if (
        known
        or not session.live
        or session.till_txn != body.till_txn
        or not session.lines
        or not _waits_for_till(payment)
    ):
        book_unknown_takings(stage, event, sale, body.till_txn, tenders)
        return
    reserved = payment is not None and payment.phase is Phase.AT_TILL and body.rev >= payment.rev
    uses = payment.uses if payment is not None else uses_of(session, stage.book, sale)
    vouchers = payment.vouchers if payment is not None else vouchers_of(session, stage.book, sale)
    if payment is not None:
        stage.reply(payment.reply)
    done = Payment(
        sale, "", Phase.AT_TILL, event.terminal, event.seq, body.tenders, uses, None, at_till=True, vouchers=vouchers
    )
    _finish(stage, done, tenders, unreserved=not reserved)


def _waits_for_till(payment: Payment | None) -> bool:
    """A payment of ours that runs by itself ends by itself: what the till reports is booked apart."""
    return payment is None or payment.at_till


def till_went_silent(stage: Stage) -> None:
    """A till that was to collect says nothing for long: the lane is free again. A late `paid` is booked as reported."""
    payment = stage.session.payment
    if payment is not None and payment.phase is Phase.AT_TILL:
        _give_up(stage, payment, "not_paid", "till_silent")


def as_reported(tender: Tender) -> SaleTender:
    """A tender as a till reports it. One that says it was handed less than it took is believed in what it took only."""
    change = None if tender.tendered_fen is None else max(0, tender.tendered_fen - tender.fen)
    return SaleTender(tender.kind, tender.fen, "", "", tender.tendered_fen, change)


def _finish(stage: Stage, payment: Payment, taken: tuple[SaleTender, ...], unreserved: bool = False) -> None:
    """Book the sale and post its uses; show the result page for 30 s."""
    session = stage.session
    assert session.id is not None
    if not payment.at_till:
        cash = tuple(as_reported(tender) for tender in payment.tenders if tender.kind in DRAWER_TENDERS)
        taken = (*taken, *cash)
    book_sale(stage, payment, taken)
    if payment.vouchers:
        member = session.member.id if session.member is not None else None
        vouchers = payment.vouchers
        post = PostVouchers(session.id, stage.book.store, payment.terminal, payment.sale, member, vouchers, stage.now)
        stage.ask(post)
    if payment.uses:
        stage.ask(
            PostUses(
                session=session.id,
                store=stage.book.store,
                terminal=payment.terminal,
                sale=payment.sale,
                paid_fen=taken_fen(taken),
                uses=payment.uses,
                biz_time=stage.now,
                seq=payment.seq,
                clerk=session.clerk,
                unreserved=unreserved,
            )
        )


def uses_posted(stage: Stage, answer: UsesPosted) -> None:
    """The uses are usage lines now: show the membership as it stands."""
    if answer.unknown and answer.terminal is not None:
        stage.incident(answer.terminal, "benefit_unknown", answer.ask)
    session = stage.session
    if session.id != answer.session or answer.member is None or not session.live:
        return
    if session.member is not None and session.member != answer.member:
        stage.change(member=answer.member)
