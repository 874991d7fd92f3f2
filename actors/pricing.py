"""A session's basket through the pricing rules: the screen's preview and the charge are one computation."""

from __future__ import annotations

from dataclasses import replace

from actors.visit import Line, Session
from models.domain.book import StoreBook
from models.domain.ids import SaleId, UsageId, derived_id
from models.domain.messages import BenefitLeft, MembershipView, MemberView, SaleUse
from models.domain.plans import ALWAYS_EXCLUDED, Plan
from models.domain.pricing import BasketLine, LightOffer, Quote, price
from models.domain.pricing import saves_now_fen as _saves_now_fen
from models.domain.screen import ScreenLine


class _Last:
    """The last answer, because one turn asks the same question up to six times: whether the basket can be priced, what
    the screen shows, what is due. Held by identity: what a quote follows from are values that nobody changes.
    """

    lines: tuple[Line, ...] | None = None
    basket: tuple[BasketLine, ...] = ()
    quoted: tuple[tuple[Line, ...], MemberView | None, StoreBook, Quote] | None = None


def basket_lines(lines: tuple[Line, ...]) -> tuple[BasketLine, ...]:
    """The session's lines as the rules take them."""
    if _Last.lines is not lines:
        _Last.basket = tuple(
            BasketLine(
                line.line, line.code, line.name, line.quantity, line.unit_fen, frozenset(line.flags), line.base_fen
            )
            for line in lines
        )
        _Last.lines = lines
    return _Last.basket


def quote(session: Session, book: StoreBook) -> Quote:
    """The basket priced for this member with the pinned book. Same question, same answer."""
    last = _Last.quoted
    if last is not None and last[0] is session.lines and last[1] is session.member and last[2] is book:
        return last[3]
    priced = price(basket_lines(session.lines), _light(session, book), book.chain_book.items)
    _Last.quoted = (session.lines, session.member, book, priced)
    return priced


def saves_now_fen(session: Session, book: StoreBook, plan: Plan) -> int:
    """What enrolling now would take off this basket."""
    return _saves_now_fen(basket_lines(session.lines), plan, book.chain_book.items) if session.lines else 0


def _light(session: Session, book: StoreBook) -> LightOffer | None:
    view = session.member.membership if session.member is not None else None
    plan = book.chain_book.plans.get(view.plan) if view is not None else None
    if view is None or plan is None:
        return None
    left = {str(benefit.benefit): benefit.uses_left for benefit in view.benefits}
    if book.basket_owner == "none":
        left = {benefit: uses for benefit, uses in left.items() if _for_whole_baskets(plan, benefit)}
    return LightOffer(plan, view.used_fen, left, view.fee_fen)


def _for_whole_baskets(plan: Plan, benefit: str) -> bool:
    """An amount names no goods: only a benefit that excludes no more than the law does can be given on it."""
    offered = plan.benefit(benefit)
    return offered is not None and offered.scope.excluded_flags <= ALWAYS_EXCLUDED


def uses_of(session: Session, book: StoreBook, sale: SaleId) -> tuple[SaleUse, ...]:
    """The benefit uses of the current quote, numbered by the sale."""
    view = session.member.membership if session.member is not None else None
    if view is None:
        return ()
    return tuple(
        SaleUse(UsageId(derived_id(sale, f"use{n}")), view.id, use.benefit, use.fen)
        for n, use in enumerate(quote(session, book).uses)
    )


def shown_lines(priced: Quote, book: StoreBook) -> tuple[ScreenLine, ...]:
    """The quote's lines as the screen shows them and the sale keeps them: one and the same."""
    return tuple(
        ScreenLine(
            line.line,
            line.code,
            line.name,
            line.quantity,
            line.unit_fen,
            line.discount_fen,
            line.net_fen,
            line.why.to(book.language) if line.why is not None else "",
        )
        for line in priced.lines
    )


def after_uses(member: MemberView | None, uses: tuple[SaleUse, ...]) -> MemberView | None:
    """The membership as it stands once these uses count; the port's own figures follow."""
    view: MembershipView | None = member.membership if member is not None else None
    if member is None or view is None or not uses:
        return member
    taken = [use.benefit for use in uses]
    left = tuple(
        BenefitLeft(benefit.benefit, max(0, benefit.uses_left - taken.count(benefit.benefit)))
        for benefit in view.benefits
    )
    used = view.used_fen + sum(use.fen for use in uses)
    return replace(member, membership=replace(view, used_fen=used, benefits=left))


__all__ = ["Quote", "after_uses", "basket_lines", "quote", "saves_now_fen", "shown_lines", "uses_of"]
