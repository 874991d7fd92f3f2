"""Chapter three: what is bought. Ours by scanning, or the till's whole basket with a rising revision."""

from __future__ import annotations

from dataclasses import replace

from actors.pricing import quote
from actors.stage import Stage
from actors.visit import Line, Session
from models.domain.errors import Refused
from models.domain.events import Basket, Event, Remove, Scan
from models.domain.screen import ScreenState

LINES_MAX = 200
QUANTITY_MAX = 99


def scan(stage: Stage, event: Event, body: Scan) -> None:
    """Add an item at today's price; the same item again adds to its line."""
    session = stage.session
    if stage.book.basket_owner != "storeops":
        raise Refused("basket_is_tills")
    _may_change(session)
    item = stage.book.chain_book.items.get(body.code)
    if item is None:
        raise Refused("unknown_item")
    old = next((line for line in session.lines if line.code == body.code), None)
    quantity = body.quantity + (old.quantity if old is not None else 0)
    if not 1 <= quantity <= QUANTITY_MAX:
        raise Refused("bad_quantity")
    if old is not None:
        lines = tuple(replace(line, quantity=quantity) if line is old else line for line in session.lines)
    else:
        if len(session.lines) >= LINES_MAX:
            raise Refused("basket_full")
        number = max((line.line for line in session.lines), default=0) + 1
        name = item.name.to(stage.book.language)
        flags = tuple(sorted(item.flags))
        lines = (*session.lines, Line(number, item.code, name, quantity, item.unit_fen, flags))
    _changed(stage, lines)
    stage.reply(event)


def remove(stage: Stage, event: Event, body: Remove) -> None:
    """Take a line out."""
    session = stage.session
    if stage.book.basket_owner != "storeops":
        raise Refused("basket_is_tills")
    _may_change(session)
    lines = tuple(line for line in session.lines if line.line != body.line)
    if len(lines) == len(session.lines):
        raise Refused("no_such_line")
    _changed(stage, lines)
    stage.reply(event)


def till_basket(stage: Stage, event: Event, body: Basket) -> None:
    """Take the till's basket as it is: its prices are the base, we only adjust."""
    session = stage.session
    if stage.book.basket_owner != "pos":
        raise Refused("basket_is_ours")
    _may_change(session)
    if body.rev <= session.basket_rev:
        raise Refused("stale_rev")
    if len(body.lines) > LINES_MAX:
        raise Refused("basket_full")
    if sum(line.net_fen for line in body.lines) != body.total_fen:
        raise Refused("total_mismatch")
    lines = tuple(
        Line(line.line, line.code, line.name, line.quantity, line.unit_fen, tuple(line.flags), line.net_fen)
        for line in body.lines
    )
    stage.keep(basket_rev=body.rev, till_txn=body.till_txn)
    _changed(stage, lines)
    stage.reply(event)


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
