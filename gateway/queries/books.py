"""The chain's book as the virtual terminal needs it: what to scan, which consents to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy.dialects.postgresql import distinct_on
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.items import ItemRow
from models.tables.registry import BookRow

SHELF_ITEMS_MAX = 12


class Words(msgspec.Struct, frozen=True):
    """One text in both languages."""

    zh: str = ""
    en: str = ""


class ShelfItem(msgspec.Struct, frozen=True):
    """An article to put into the basket."""

    code: str
    name: Words
    unit_fen: int


class ConsentWords(msgspec.Struct, frozen=True):
    """A consent as it is asked for; the event names its version."""

    purpose: str
    version: str
    zh: str
    en: str


class Shelf(msgspec.Struct, frozen=True):
    """The part of a book that the page shows."""

    items: tuple[ShelfItem, ...] = ()
    consents: tuple[ConsentWords, ...] = ()


async def shelf(session: AsyncSession, chain: str) -> Shelf:
    """A few articles and the consent texts in force; an empty shelf when the chain has no book yet."""
    in_force = col(BookRow.chain) == chain, ~col(BookRow.candidate)
    query = select(BookRow).where(*in_force).order_by(col(BookRow.version).desc()).limit(1)
    book = (await session.exec(query)).first()
    if book is None:
        return Shelf()
    newest = (
        select(ItemRow.code, ItemRow.doc)
        .where(col(ItemRow.chain) == chain, col(ItemRow.version) <= book.version)
        .ext(distinct_on(col(ItemRow.code)))
        .order_by(col(ItemRow.code), col(ItemRow.version).desc())
        .limit(2 * SHELF_ITEMS_MAX)
    )
    listed = [{"code": code, **item} for code, item in (await session.exec(newest)).all() if item is not None]
    return Shelf(
        tuple(msgspec.convert(entry, ShelfItem) for entry in listed[:SHELF_ITEMS_MAX]),
        tuple(_entries(book.doc, "consents", ConsentWords)),
    )


def _entries(doc: Mapping[Any, Any], key: str, kind: Any) -> list[Any]:
    """Entries of a list, or of a mapping by code."""
    found = doc.get(key, [])
    entries = list(found.values()) if isinstance(found, dict) else found
    return [msgspec.convert(entry, kind) for entry in entries]
