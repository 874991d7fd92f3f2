"""The price desk of a house: a file that came by the API, for every database that has the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from models.domain.errors import Refused
from models.domain.price_file import effective_time
from models.tables.chain_books import newest_document
from runtime.plant import Plant
from runtime.price_import import Wanted, chain_terms, digest_of, import_everywhere


async def effective_at(urls: Sequence[str], chain: str, text: str) -> datetime | None:
    """What was typed, in the chain's zone; None: at once. Raises Refused `bad_time`, `unknown_chain`."""
    if not text:
        return None
    for url in dict.fromkeys(urls):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            if await newest_document(conn, chain) is not None:
                zone, _ = await chain_terms(conn, chain)
                break
    else:
        raise Refused("unknown_chain", f"there is no chain {chain!r} with a book", "see `storeops status`")
    try:
        return effective_time(text, zone)
    except ValueError:
        raise Refused("bad_time", f"{text[:40]!r} is no time", "write 2026-12-01T06:00, or a date") from None


class PricesOfAHouse:
    """Implements gateway.prices.PriceDesk. Reading a file takes a second, so it is done in a thread, one at a time."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self._urls = [plant.database_url for plant in plants]
        self._alone = asyncio.Lock()

    async def take(
        self, chain: str, body: bytes, *, effective: str, dry_run: bool, force: bool, jump_percent: int, now: datetime
    ) -> dict[str, Any]:
        """See PriceDesk."""
        at = await effective_at(self._urls, chain, effective)
        wanted = Wanted(chain, digest_of(body), at, dry_run, force, jump_percent)
        async with self._alone:
            done = await asyncio.to_thread(asyncio.run, import_everywhere(self._urls, body, wanted, now))
        return done[0].as_document()
