"""What keeps a business day of a legal entity open, store by store. The day itself closes for the whole entity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.queries.ledger_pages import psycopg_of
from gateway.views import View
from models.tables.differences import Line, LineState
from models.tables.drawers import uncounted


class StoreOpenView(View):
    """A store's open items: lines that nobody explained with what they differ by, and drawers that nobody counted (they
    warn, and stop nothing). `store` is "" for lines that name none."""

    store: str
    open_lines: int
    difference_fen: int
    uncounted_drawers: list[str]


async def open_by_store(session: AsyncSession, entity: str, day: date, lines: Sequence[Line]) -> list[StoreOpenView]:
    """Stores with something open, by their ids. `lines`: of this entity and day."""
    drawers: dict[str, list[str]] = {}
    for one in await uncounted(await psycopg_of(session), entity, day.isoformat()):
        store, _, drawer = one.partition("/")
        drawers.setdefault(store, []).append(drawer)
    waiting = [line for line in lines if line.state is LineState.OPEN]
    stores = sorted({line.store for line in waiting} | set(drawers))
    return [
        StoreOpenView(
            store=store,
            open_lines=sum(line.store == store for line in waiting),
            difference_fen=sum(line.difference_fen for line in waiting if line.store == store),
            uncounted_drawers=drawers.get(store, []),
        )
        for store in stores
    ]
