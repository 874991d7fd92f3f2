"""A chain's articles as rows: one for each that came or changed in a version of the book, a null for each that went.

A version of 100,000 articles is what changed in it, and hosts keep each article once however many versions have it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection, AsyncCursor
from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.domain.assortment import Assortment
from models.domain.calendar import require_instant
from models.domain.plans import Text
from models.domain.pricing import Item
from models.tables.base import document

ITEMS_AT_ONCE = 2_000
"""Rows of one page: a host that loads 100,000 does not stand still for longer than a page takes to read."""


class ItemRow(SQLModel, table=True):
    """An article from a version of its chain's book on; `doc` null: it is not sold any more."""

    __tablename__ = "item"
    __table_args__ = (Index("item_version", "chain", "version", "code", unique=True),)
    chain: str = Field(primary_key=True)
    code: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    doc: dict[str, object] | None = document(nullable=True)


class _Name(msgspec.Struct, frozen=True):
    zh: str
    en: str


class _Doc(msgspec.Struct, frozen=True, omit_defaults=True):
    """An article as its row keeps it."""

    name: _Name
    unit_fen: int
    flags: tuple[str, ...] = ()
    tax: str = ""
    later: tuple[tuple[datetime, int | None], ...] = ()


_decoder = msgspec.json.Decoder(_Doc | None)
_NO_FLAGS: frozenset[str] = frozenset()


def item_from_json(code: str, doc: bytes | str) -> Item | None:
    """The article of a row's document. Raises msgspec.ValidationError for one that is none."""
    read = _decoder.decode(doc)
    if read is None:
        return None
    return Item(
        code,
        Text(zh=read.name.zh, en=read.name.en),
        read.unit_fen,
        frozenset(read.flags) if read.flags else _NO_FLAGS,
        read.tax,
        tuple((require_instant(at), fen) for at, fen in read.later),
    )


def item_document(item: Item) -> str:
    """What `item_from_json` reads back."""
    doc = _Doc(_Name(item.name.zh, item.name.en), item.unit_fen, tuple(sorted(item.flags)), item.tax, item.later)
    return msgspec.json.encode(doc).decode()


async def load_items(
    conn: AsyncConnection[Any], chain: str, above: int = 0
) -> AsyncIterator[list[tuple[int, str, Item | None]]]:
    """What changed in the versions above `above`, in their order, a page at a time: (version, code, article)."""
    version, code = above, "\uffff"
    while True:
        cursor = await conn.execute(
            """SELECT version, code, coalesce(doc, 'null'::jsonb)::text FROM item
               WHERE chain = %s AND (version, code) > (%s, %s) ORDER BY version, code LIMIT %s""",
            (chain, version, code, ITEMS_AT_ONCE),
        )
        rows = await cursor.fetchall()
        if rows:
            yield [(row[0], row[1], item_from_json(row[1], row[2])) for row in rows]
            version, code = rows[-1][:2]
        if len(rows) < ITEMS_AT_ONCE:
            return


async def load_assortment(conn: AsyncConnection[Any], chain: str, assortment: Assortment | None = None) -> Assortment:
    """All versions of a chain's articles; one that is given learns what came since."""
    known = Assortment() if assortment is None else assortment
    last = known.complete
    async for page in load_items(conn, chain, last):
        for version, code, item in page:
            known.put(version, code, item)
        last = page[-1][0]
    known.complete = max(known.complete, last)
    return known


async def save_items(cur: AsyncCursor[Any], chain: str, version: int, changed: Mapping[str, Item | None]) -> None:
    """Write what changes in a version; None: gone."""
    async with cur.copy("COPY item (chain, code, version, doc) FROM STDIN") as copy:
        for code, item in changed.items():
            await copy.write_row((chain, code, version, None if item is None else item_document(item)))


def changes(old: Mapping[str, Item], new: Iterable[Item]) -> dict[str, Item | None]:
    """What has to be written for `new` to follow `old`: each new or changed article, None for each that went."""
    wanted = {item.code: item for item in new}
    changed: dict[str, Item | None] = {code: item for code, item in wanted.items() if old.get(code) != item}
    changed.update({code: None for code in old if code not in wanted})
    return changed
