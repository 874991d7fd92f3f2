"""Which price files a chain took, and what each changed."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.paging import cut, decode_cursor, encode_cursor
from gateway.queries.ledger_pages import psycopg_of
from gateway.views import Page, View
from models.tables import price_history


class TakenFileView(View):
    """A price file that became a book. `changed`: articles that came, went or changed with it."""

    chain: str
    version: int
    taken_at: datetime
    sha256: str
    lines: int
    changed: int


class LaterPriceView(View):
    """What an article costs from an instant on; null: it is sold no more."""

    at: datetime
    fen: int | None


class ItemChangeView(View):
    """What a book did to an article: `kind` is new, gone, price or words (name, flags or tax code only)."""

    code: str
    kind: str
    name_zh: str
    name_en: str
    from_fen: int | None
    to_fen: int | None
    later: list[LaterPriceView]


async def history(session: AsyncSession, chain: str, limit: int, cursor: str | None) -> Page[TakenFileView]:
    """The chain's files, the newest first."""
    key = decode_cursor(cursor, 1)
    before = int(key[0]) if key and key[0].isdecimal() else None
    found = await price_history.taken_files(await psycopg_of(session), chain, limit=limit + 1, before=before)
    rows, more = cut(found, limit)
    views = [TakenFileView(**asdict(one)) for one in rows]
    return Page(items=views, next=encode_cursor([str(views[-1].version)]) if more else None)


async def changes(
    session: AsyncSession, chain: str, version: int, limit: int, cursor: str | None
) -> Page[ItemChangeView]:
    """What the book `version` changed, by code."""
    key = decode_cursor(cursor, 1)
    found = await price_history.item_changes(
        await psycopg_of(session), chain, version, limit=limit + 1, after=key[0] if key else ""
    )
    rows, more = cut(found, limit)
    views = [
        ItemChangeView(
            code=one.code,
            kind=str(one.kind),
            name_zh=one.name_zh,
            name_en=one.name_en,
            from_fen=one.from_fen,
            to_fen=one.to_fen,
            later=[LaterPriceView(at=at, fen=fen) for at, fen in one.later],
        )
        for one in rows
    ]
    return Page(items=views, next=encode_cursor([views[-1].code]) if more else None)
