"""Chapter three: what is bought. Ours by scanning, the till's whole basket with a rising revision, or an amount."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from actors.pricing import quote
from actors.stage import Stage
from actors.visit import Line, Session
from models.domain.barcode import Scanned, read, weighed_fen
from models.domain.book import StoreBook
from models.domain.errors import Refused
from models.domain.events import AgeCheck, Amount, Basket, Event, Remove, Scan, TillLine
from models.domain.pricing import Flag, Item
from models.domain.screen import ScreenState

LINES_MAX = 200
QUANTITY_MAX = 99
AMOUNT_CODE = "amount"
"""The code of the line that stands for an amount."""


def scan(stage: Stage, event: Event, body: Scan) -> None:
    """Add an item at today's price; the same item again adds to its line."""
    session = stage.session
    _require_owner(stage.book, "storeops")
    _may_change(session)
    item, label = _found(stage, body.code)
    unit_fen, weighed = _price(stage, item, label)
    old = None if weighed else next((line for line in session.lines if line.code == item.code), None)
    quantity = body.quantity + (old.quantity if old is not None else 0)
    if not 1 <= quantity <= (1 if weighed else QUANTITY_MAX):
        raise Refused("bad_quantity")
    if old is not None:
        lines = tuple(replace(line, quantity=quantity) if line is old else line for line in session.lines)
    else:
        if len(session.lines) >= LINES_MAX:
            raise Refused("basket_full")
        number = max((line.line for line in session.lines), default=0) + 1
        name = item.name.to(stage.book.language)
        if label is not None and label.weight_g is not None:
            name = f"{name} {label.weight_g} g"
        lines = (*session.lines, Line(number, item.code, name, quantity, unit_fen, tuple(sorted(item.flags))))
    _changed(stage, lines)
    stage.reply(event)


def _found(stage: Stage, code: str) -> tuple[Item, Scanned | None]:
    """The article of a code, and what else its label says; a code that is listed as it is says nothing else."""
    book = stage.book.chain_book
    item = book.items.get(code)
    if item is not None:
        return item, None
    today = date.fromisoformat(stage.book.business_date(stage.now))
    label = read(code, book.codes, today)
    item = next((found for one in label.codes if (found := book.items.get(one)) is not None), None)
    if item is None:
        raise Refused("unknown_item")
    if label.use_by is not None and label.use_by < today:
        raise Refused("item_expired")
    return item, label


def _price(stage: Stage, item: Item, label: Scanned | None) -> tuple[int, bool]:
    """The price when this visit began, and whether it is that of one weighed piece."""
    unit_fen = item.fen_at(stage.session.opened_at or stage.now)
    if unit_fen is None:
        raise Refused("unknown_item")
    if label is not None and label.price_fen is not None:
        return label.price_fen, True
    if Flag.WEIGHT not in item.flags:
        return unit_fen, False
    if label is None or label.weight_g is None:
        raise Refused("weight_missing")
    return weighed_fen(unit_fen, label.weight_g), True


def remove(stage: Stage, event: Event, body: Remove) -> None:
    """Take a line out."""
    session = stage.session
    _require_owner(stage.book, "storeops")
    _may_change(session)
    lines = tuple(line for line in session.lines if line.line != body.line)
    if len(lines) == len(session.lines):
        raise Refused("no_such_line")
    _changed(stage, lines)
    stage.reply(event)


def till_basket(stage: Stage, event: Event, body: Basket) -> None:
    """Take the till's basket as it is: its prices are the base, we only adjust."""
    session = stage.session
    _require_owner(stage.book, "pos")
    _may_change(session)
    if body.rev <= session.basket_rev:
        raise Refused("stale_rev")
    if len(body.lines) > LINES_MAX:
        raise Refused("basket_full")
    if sum(line.net_fen for line in body.lines) != body.total_fen:
        raise Refused("total_mismatch")
    stage.keep(basket_rev=body.rev, till_txn=body.till_txn)
    _changed(stage, till_lines(body.lines, stage.book))
    stage.reply(event)


def till_lines(lines: tuple[TillLine, ...], book: StoreBook) -> tuple[Line, ...]:
    """A till's lines as ours. The book's flags count beside the till's: it cannot sell beer to a child by silence."""
    made = []
    for line in lines:
        item = book.chain_book.items.get(line.code)
        flags = tuple(sorted({*line.flags, *(item.flags if item is not None else ())}))
        made.append(Line(line.line, line.code, line.name, line.quantity, line.unit_fen, flags, line.net_fen))
    return tuple(made)


def amount(stage: Stage, event: Event, body: Amount) -> None:
    """What the clerk typed, as the one line of the basket; typed again, it is replaced."""
    _require_owner(stage.book, "none")
    _may_change(stage.session)
    name = "金额" if stage.book.language == "zh" else "Amount"
    stage.keep(till_txn=body.till_txn)
    _changed(stage, (Line(1, AMOUNT_CODE, name, 1, body.fen),))
    stage.reply(event)


def age_check(stage: Stage, event: Event, body: AgeCheck) -> None:
    """A clerk looked: the sale goes on, or what only adults may buy is taken out (of a till's basket by the till)."""
    session = stage.session
    if session.busy:
        raise Refused("lane_busy")
    to_enrol = stage.book.chain_book.age_check_to_enrol and session.member is None and not session.age_ok
    if not session.age_missing and not to_enrol:
        raise Refused("no_age_check")
    if session.clerk is None:
        raise Refused("clerk_missing")
    if body.ok:
        stage.keep(age_ok=True)
        _changed(stage, session.lines)
    else:
        stage.incident(event.terminal, "age_refused")
        if stage.book.basket_owner == "storeops":
            _changed(stage, tuple(line for line in session.lines if Flag.AGE_18 not in line.flags))
        stage.prompt("age_refused")
    stage.reply(event)


def _require_owner(book: StoreBook, owner: str) -> None:
    if book.basket_owner != owner:
        raise Refused({"pos": "basket_is_tills", "none": "amount_only"}.get(book.basket_owner, "basket_is_ours"))


def _may_change(session: Session) -> None:
    if session.payment is not None:
        raise Refused("lane_busy")
    if session.state is ScreenState.PAID:
        raise Refused("session_gone")


def _changed(stage: Stage, lines: tuple[Line, ...]) -> None:
    """New lines, priced at once: a basket that cannot be priced is refused, not shown."""
    quote(replace(stage.session, lines=lines), stage.book)
    state = stage.session.state
    kept = state in (ScreenState.DIGITS, ScreenState.ENROLLING)
    stage.change(lines=lines)
    if not kept:
        stage.change(state=stage.session.resting_state, prompt=None)
        if stage.session.state is ScreenState.BASKET:
            stage.prompt("age_check")
