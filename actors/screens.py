"""Draw the screen document of a session: everything a terminal shows follows from the state and the book."""

from __future__ import annotations

from actors.pricing import (
    offered_vouchers,
    quote,
    saves_now_fen,
    shown_lines,
    shown_vouchers,
    voucher_saves_now_fen,
)
from actors.visit import Phase, Session
from models.domain.book import StoreBook
from models.domain.charging import charge_fen
from models.domain.events import Purpose, TenderKind
from models.domain.kill_switch import Switch
from models.domain.messages import MembershipView
from models.domain.plans import Plan
from models.domain.screen import (
    Screen,
    ScreenMember,
    ScreenMembership,
    ScreenOffer,
    ScreenState,
)

_ACTIONS: dict[ScreenState, tuple[str, ...]] = {
    ScreenState.OPEN: ("consent", "face", "cancel", "enrol"),
    ScreenState.DIGITS: ("digits", "cancel"),
    ScreenState.ENROLLING: ("face", "cancel"),
    ScreenState.IDENTIFIED: ("consent", "cancel", "enrol"),
    ScreenState.BASKET: ("consent", "face", "cancel", "enrol"),
    ScreenState.QUOTED: ("confirm", "consent", "face", "cancel", "enrol"),
    ScreenState.PAYING: ("cancel",),
    ScreenState.PAID: ("session.open", "consent", "enrol"),
    ScreenState.REVERSING: (),
    ScreenState.DECLINED: ("confirm", "cancel"),
    ScreenState.CLOSED: ("session.open",),
}

_STOPS: dict[Switch, frozenset[str]] = {
    Switch.FACE: frozenset({"face"}),
    Switch.BENEFITS: frozenset({"lease"}),
    Switch.OFFERS: frozenset({"claim", "enrol"}),
}
"""Event types that a kill switch refuses."""

_OFFER_STATES = frozenset({ScreenState.OPEN, ScreenState.IDENTIFIED, ScreenState.QUOTED, ScreenState.PAID})


def render(session: Session, book: StoreBook) -> Screen:
    """The whole document at the session's revision. Raises AssertionError when nobody came yet."""
    assert session.id is not None
    if session.state is ScreenState.CLOSED:
        # The next person must not read who was here, what they bought and what they owe.
        return Screen(session.id, session.rev, session.state, session.basket_rev, actions=_actions(session, book))
    if session.receipt is not None and session.paid is not None:
        return _result_page(session, book)
    priced = quote(session, book)
    return Screen(
        session=session.id,
        rev=session.rev,
        state=session.state,
        basket_rev=session.basket_rev,
        member=_member(session),
        lines=shown_lines(priced, book),
        gross_fen=priced.gross_fen,
        discount_fen=priced.discount_fen,
        due_fen=priced.due_fen,
        cash_due_fen=priced.cash_due_fen,
        membership=_membership(session, book),
        offers=_offers(session, book),
        prompt=session.prompt,
        actions=_actions(session, book),
        vouchers=shown_vouchers(session, book),
    )


def _result_page(session: Session, book: StoreBook) -> Screen:
    assert session.id is not None
    assert session.receipt is not None
    assert session.paid is not None
    lines = session.receipt.lines
    gross = sum(line.net_fen + line.discount_fen for line in lines)
    discount = sum(line.discount_fen for line in lines)
    taken = sum(part.fen for part in session.paid if part.kind != TenderKind.COUPON)
    return Screen(
        session=session.id,
        rev=session.rev,
        state=session.state,
        basket_rev=session.basket_rev,
        member=_member(session),
        lines=lines,
        gross_fen=gross,
        discount_fen=discount,
        due_fen=gross - discount,
        cash_due_fen=taken,
        paid=session.paid,
        membership=_membership(session, book),
        offers=_offers(session, book),
        prompt=session.prompt,
        actions=_actions(session, book),
        receipt=session.receipt,
    )


def _member(session: Session) -> ScreenMember | None:
    return ScreenMember(session.member.name) if session.member is not None else None


def _membership(session: Session, book: StoreBook) -> ScreenMembership | None:
    view: MembershipView | None = session.member.membership if session.member is not None else None
    if view is None:
        return None
    plan = book.chain_book.plans.get(view.plan)
    return ScreenMembership(
        plan=plan.name.to(book.language) if plan is not None else view.plan,
        used_fen=view.used_fen,
        fee_fen=view.fee_fen,
        if_settled_now_fen=charge_fen(
            view.fee_fen, view.used_fen, task_target=view.task_target, task_done=view.task_done
        ),
        uses_left=sum(benefit.uses_left for benefit in view.benefits),
        expires=view.expires_at.isoformat(),
    )


def _offers(session: Session, book: StoreBook) -> tuple[ScreenOffer, ...]:
    """Plans that this customer may enter now and coupons that they may claim, with what the basket saves at once."""
    if session.state not in _OFFER_STATES or Switch.OFFERS in session.off:
        return ()
    claimable = () if session.state is ScreenState.PAID else offered_vouchers(session, book)
    coupons = tuple(
        ScreenOffer(one.id, one.name.to(book.language), 0, voucher_saves_now_fen(session, book, one), (), "voucher")
        for one in claimable
    )
    return _plans(session, book) + coupons


def _plans(session: Session, book: StoreBook) -> tuple[ScreenOffer, ...]:
    member = session.member
    if member is not None and member.membership is not None:
        return ()
    return tuple(
        ScreenOffer(
            id=plan.id,
            plan=plan.name.to(book.language),
            fee_fen=plan.fee_fen,
            saves_now_fen=saves_now_fen(session, book, plan),
            guarantees=_guarantees(session, plan),
        )
        for plan in book.chain_book.plans.values()
    )


def _guarantees(session: Session, plan: Plan) -> tuple[str, ...]:
    """What the plan takes; of somebody who was refused one, what it takes instead."""
    if session.instead is not None and session.instead.plan == plan.id:
        return session.instead.guarantees
    return tuple(str(kind) for kind in plan.guarantees)


def _actions(session: Session, book: StoreBook) -> tuple[str, ...]:
    """The event types that would not be refused now."""
    actions = list(_ACTIONS[session.state])
    if session.state in (ScreenState.OPEN, ScreenState.IDENTIFIED, ScreenState.BASKET, ScreenState.QUOTED):
        actions += {"storeops": ["scan", "remove"], "none": ["amount"]}.get(book.basket_owner, ["basket"])
        if session.member is None:
            actions.append("identify")
        actions += ["voucher"] if book.chain_book.vouchers or book.chain_book.points is not None else []
        actions += ["claim"] if session.state in _OFFER_STATES and offered_vouchers(session, book) else []
        known = session.member
        if known is not None and known.tenders and session.proved == known.id and not session.two_factors:
            actions.append("digits")
    if session.state is ScreenState.BASKET:
        actions.append("age_check")
    view = session.member.membership if session.member is not None else None
    if view is not None and any(benefit.uses_left for benefit in view.benefits) and session.state in _OFFER_STATES:
        actions.append("lease")
    if session.payment is not None and session.payment.phase is Phase.AT_TILL:
        actions.append("paid")
    if session.member is not None or session.consent(Purpose.RECOGNISE) is None:
        actions = [action for action in actions if action != "face" or session.state is ScreenState.ENROLLING]
    if (session.member is not None and session.member.membership is not None) or session.busy:
        actions = [action for action in actions if action != "enrol"]
    return tuple(action for action in actions if not any(action in _STOPS[switch] for switch in session.off))
