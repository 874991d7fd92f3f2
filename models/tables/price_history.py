"""Which price files became books, and what each changed of the chain's articles. Read only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from psycopg import AsyncConnection

from models.domain.pricing import Item
from models.tables.items import item_from_json


@dataclass(frozen=True, slots=True)
class TakenFile:
    """A price file that is in a book. `changed`: articles that came, went or changed with it."""

    chain: str
    version: int
    taken_at: datetime
    sha256: str
    lines: int
    changed: int


class ChangeKind(StrEnum):
    """What a book did to an article."""

    NEW = "new"
    GONE = "gone"
    PRICE = "price"
    """The price, or a later one."""
    WORDS = "words"
    """Name, flags or tax code only."""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One article. `from_fen`, `to_fen`: at once; `later`: the price from an instant on, None: gone."""

    code: str
    kind: ChangeKind
    name_zh: str
    name_en: str
    from_fen: int | None
    to_fen: int | None
    later: tuple[tuple[datetime, int | None], ...]


async def taken_files(
    conn: AsyncConnection[Any], chain: str, *, limit: int, before: int | None = None
) -> list[TakenFile]:
    """The newest first; `before`: only books with a lower version."""
    cursor = await conn.execute(
        """SELECT b.version, b.created_at, b.doc -> 'price_file' ->> 'sha256', (b.doc -> 'price_file' ->> 'lines')::int,
                  (SELECT count(*) FROM item i WHERE i.chain = b.chain AND i.version = b.version)
           FROM book b WHERE b.chain = %(chain)s AND (b.doc -> 'price_file' ->> 'version')::int = b.version
             AND NOT b.candidate
             AND (%(before)s::int IS NULL OR b.version < %(before)s::int) ORDER BY b.version DESC LIMIT %(limit)s""",
        {"chain": chain, "before": before, "limit": limit},
    )
    return [TakenFile(chain, *row) for row in await cursor.fetchall()]


async def item_changes(
    conn: AsyncConnection[Any], chain: str, version: int, *, limit: int, after: str = ""
) -> list[ItemChange]:
    """What the book `version` changed, by code; `after`: only higher codes."""
    cursor = await conn.execute(
        """SELECT i.code, i.doc::text, (SELECT o.doc::text FROM item o WHERE o.chain = i.chain AND o.code = i.code
                                        AND o.version < i.version ORDER BY o.version DESC LIMIT 1)
           FROM item i WHERE i.chain = %s AND i.version = %s AND i.code > %s ORDER BY i.code LIMIT %s""",
        (chain, version, after, limit),
    )
    return [_change(*row) for row in await cursor.fetchall()]


def _change(code: str, new_doc: str | None, old_doc: str | None) -> ItemChange:
    new, old = (None if doc is None else item_from_json(code, doc) for doc in (new_doc, old_doc))
    known = new or old
    if known is None:
        raise msgspec.ValidationError(f"article {code!r} came and went in nothing")
    later = () if new is None else new.later
    return ItemChange(
        code,
        _kind(new, old),
        known.name.zh,
        known.name.en,
        None if old is None else old.unit_fen,
        None if new is None else new.unit_fen,
        later,
    )


def _kind(new: Item | None, old: Item | None) -> ChangeKind:
    if new is None:
        return ChangeKind.GONE
    if old is None:
        return ChangeKind.NEW
    same = (new.unit_fen, new.later) == (old.unit_fen, old.later)
    return ChangeKind.WORDS if same else ChangeKind.PRICE
