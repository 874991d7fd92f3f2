"""The preview of a price: the production price function over a basket that somebody typed, with the why of each line.

What a till would refuse to enter is refused here by the same check, and named; nothing is reserved or counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gateway.pricing_views import (
    NotTakenView,
    PreviewLineView,
    PreviewRequest,
    PreviewView,
    TakenView,
    UseView,
    WordsView,
)
from models.domain.benefits import holds_at
from models.domain.book import ChainBook
from models.domain.calendar import require_instant
from models.domain.errors import Refused
from models.domain.ids import PlanId
from models.domain.plans import Text
from models.domain.pricing import BasketLine, LightOffer, price
from models.domain.texts import refusal
from models.domain.voucher_reader import code_key
from models.domain.vouchers import Counter, Voucher, check_entry
from models.tables.registry import StoreRow


def preview(asked: PreviewRequest, book: ChainBook, store: StoreRow, now: datetime) -> PreviewView:
    """The quote. Raises Refused `unknown_item`, `unknown_plan` or `line_invalid`."""
    try:
        at = require_instant(asked.at or now, "at")
    except ValueError as error:
        raise Refused("at_invalid", str(error), "add the offset, as 2026-11-22T12:00:00+08:00") from error
    lines = [_line(book, n, one.code, one.quantity, one.unit_fen) for n, one in enumerate(asked.lines, 1)]
    light = _light(asked, book, store, at)
    counter = Counter(store.id, store.basket_owner, store.zone, at, asked.membership is not None)
    entered, refused = _entered(asked.vouchers, book, counter)
    quote = price(lines, light, book.items, entered)
    return PreviewView(
        lines=[
            PreviewLineView(
                line=one.line,
                code=one.code,
                name=words(book.items[one.code].name),
                quantity=one.quantity,
                unit_fen=one.unit_fen,
                discount_fen=one.discount_fen,
                net_fen=one.net_fen,
                why=None if one.why is None else words(one.why),
            )
            for one in quote.lines
        ],
        gross_fen=quote.gross_fen,
        discount_fen=quote.discount_fen,
        due_fen=quote.due_fen,
        cash_due_fen=quote.cash_due_fen,
        later_fen=quote.later_fen,
        effective_fen=quote.due_fen + quote.later_fen,
        optimal=quote.optimal,
        taken=[
            TakenView(code=one.code, name=words(one.name), fen=one.fen, funder=one.funder) for one in quote.vouchers
        ],
        uses=[UseView(benefit=one.benefit, fen=one.fen) for one in quote.uses],
        not_taken=[
            *refused,
            *(
                NotTakenView(code=one.code, name=words(one.name), reason=one.reason, why=words(one.why))
                for one in quote.not_taken
            ),
        ],
    )


def words(text: Text) -> WordsView:
    """A text for the API."""
    return WordsView(zh=text.zh, en=text.en)


def _line(book: ChainBook, number: int, code: str, quantity: int, unit_fen: int | None) -> BasketLine:
    item = book.items.get(code)
    if item is None:
        raise Refused("unknown_item", f"line {number}: the book has no {code!r}", "check the code")
    return BasketLine(number, code, item.name.en, quantity, item.unit_fen if unit_fen is None else unit_fen, item.flags)


def _light(asked: PreviewRequest, book: ChainBook, store: StoreRow, at: datetime) -> LightOffer | None:
    if asked.membership is None:
        return None
    plan = book.plans.get(PlanId(asked.membership.plan))
    if plan is None:
        raise Refused("unknown_plan", f"the book has no plan {asked.membership.plan!r}", "choose one of its plans")
    left = {
        str(benefit.id): benefit.quota
        for benefit in plan.benefits
        if holds_at(benefit.scope, store=store.id, channel=store.basket_owner, at=at, zone=store.zone)
    }
    return LightOffer(plan, asked.membership.used_fen, left, task_done=asked.membership.task_done)


def _entered(codes: Sequence[str], book: ChainBook, counter: Counter) -> tuple[list[Voucher], list[NotTakenView]]:
    entered: list[Voucher] = []
    refused = []
    for code in codes:
        known = book.vouchers.get(code_key(code))
        problem = _refusal(known, counter, entered)
        if known is not None and not problem:
            entered.append(known)
            continue
        said = Text(refusal(problem, "zh").message, refusal(problem, "en").message)
        name = words(known.name) if known is not None else None
        refused.append(NotTakenView(code=code, name=name, reason=problem, why=words(said)))
    return entered, refused


def _refusal(known: Voucher | None, counter: Counter, entered: Sequence[Voucher]) -> str:
    """The code of a till's refusal; empty when it may be entered."""
    if known is None:
        return "unknown_voucher"
    try:
        check_entry(known, counter, [one.id for one in entered])
    except Refused as refused:
        return refused.code
    return ""
