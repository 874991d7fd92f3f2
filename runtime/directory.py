"""Who stands where, and what the books say: a host's copy of the registry, looked up again for newcomers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from models.domain.assortment import Assortment
from models.domain.book import ChainBook, StoreBook
from models.domain.chain_settings import get
from models.domain.ids import ChainId, LaneId, RegionId, StoreId, TerminalId
from models.domain.kill_switch import CONFIG_KEY, KillSwitch, Place, switches_off
from models.domain.registry import RegisteredTerminal
from models.domain.software import Recorded
from models.domain.twin import STORE_GEN
from models.tables.directory import load_books, load_owners, load_terminals
from models.tables.kill_switches import load_standing
from models.tables.software import load_changed, load_recorded
from runtime.chain_config import Layers
from runtime.offline_prices import offline_prices

LOOK_UP_EVERY_S = 1.0
"""A stranger's topic makes the directory read again, at most so often for each stranger."""
STRANGERS_MAX = 10_000


class Directory:
    """Terminals by id and lane, and the books of their stores."""

    def __init__(self, region: RegionId) -> None:
        self._region = region
        self._terminals: dict[TerminalId, RegisteredTerminal] = {}
        self._lanes: dict[tuple[StoreId, LaneId], list[RegisteredTerminal]] = {}
        self._stores: dict[StoreId, StoreBook] = {}
        self._versions: dict[tuple[ChainId, int], ChainBook] = {}
        self._assortments: dict[ChainId, Assortment] = {}
        self._looked_up: OrderedDict[TerminalId, float] = OrderedDict()
        self._standing: list[KillSwitch] | None = None
        self._layers = Layers()
        self._recorded: dict[str, Recorded] = {}
        self._delivered: dict[TerminalId, str] = {}

    async def load(self, conn: AsyncConnection[TupleRow]) -> None:
        """Read everything of the region."""
        self._terminals = await load_terminals(conn, self._region)
        self._recorded = await load_recorded(conn)
        self._delivered = await load_changed(conn, self._region)
        self._lanes = {}
        for record in self._terminals.values():
            self._lanes.setdefault((record.store, record.lane), []).append(record)
        today = datetime.now(UTC).date().isoformat()
        await self._layers.load(conn, self._region)
        off = {store: book.off for store, book in self._stores.items()}  # until its visits are told
        self._stores, self._versions = await load_books(conn, self._region, today, self._assortments)
        for store, book in self._stores.items():
            settings = self._layers.scope(book.chain_book.chain, store).settings
            self._stores[store] = replace(book, settings=settings, off=off.get(store, settings.off))
        self._standing = None

    async def refresh_owners(self, conn: AsyncConnection[TupleRow]) -> None:
        """Learn which stores change hands, and when: said while the host runs, from a coming business date on."""
        owners = await load_owners(conn, self._region)
        for store, book in self._stores.items():
            if book.owners != owners.get(store, ()):
                self._stores[store] = replace(book, owners=owners.get(store, ()))

    async def refresh_switches(self, conn: AsyncConnection[TupleRow], now: datetime) -> list[StoreId]:
        """Learn what is switched off at wall time `now`; the stores where that is another answer than before."""
        standing = [one for one in await load_standing(conn) if one.in_force(now)]
        if standing == self._standing:
            return []
        self._standing = standing
        moved = []
        for store, book in self._stores.items():
            thrown = switches_off(standing, Place(book.chain_book.chain, book.region, store), now)
            off = tuple(sorted({*thrown, *book.settings.off}))
            if off != book.off:
                self._stores[store] = replace(book, off=off)
                moved.append(store)
        return moved

    async def look_up(self, conn: AsyncConnection[TupleRow], terminal: TerminalId) -> RegisteredTerminal | None:
        """A terminal that may have been registered since; reads the region again, once a second at most for each.

        Not once a second for all: then the first message of a terminal would be lost because another one came.
        """
        now = time.monotonic()
        last = self._looked_up.get(terminal)
        if last is None or now - last >= LOOK_UP_EVERY_S:
            await self.load(conn)
            self._looked_up[terminal] = now
            self._looked_up.move_to_end(terminal)
            if len(self._looked_up) > STRANGERS_MAX:
                self._looked_up.popitem(last=False)
        return self._terminals.get(terminal)

    async def look_up_by(
        self, connect: Callable[[], Awaitable[AsyncConnection[TupleRow]]], terminal: TerminalId
    ) -> RegisteredTerminal | None:
        """The same on a connection of its own."""
        async with await connect() as conn:
            return await self.look_up(conn, terminal)

    def terminal(self, terminal: TerminalId) -> RegisteredTerminal | None:
        """The terminal, if it is registered in this region."""
        return self._terminals.get(terminal)

    def terminals(self) -> list[RegisteredTerminal]:
        """All of the region."""
        return list(self._terminals.values())

    def lane(self, store: StoreId, lane: LaneId) -> list[RegisteredTerminal]:
        """The terminals that stand in a lane."""
        return self._lanes.get((store, lane), [])

    def recorded(self, version: str) -> Recorded | None:
        """The image that is recorded for a version of software."""
        return self._recorded.get(version)

    def delivered(self, record: RegisteredTerminal) -> str:
        """The family that was registered, whatever software has made of the terminal."""
        return self._delivered.get(record.terminal, record.profile)

    def became(self, terminal: TerminalId, profile: str) -> None:
        """The terminal is another family: what was committed is true here from the next message on."""
        record = self._terminals.get(terminal)
        if record is None or record.profile == profile:
            return
        self._delivered.setdefault(terminal, record.profile)
        now = self._terminals[terminal] = replace(record, profile=profile)
        lane = self._lanes[record.store, record.lane]
        lane[lane.index(record)] = now

    def book_of(self, store: StoreId, version: int) -> StoreBook:
        """The store's book: a pinned version, or the newest for 0. Raises KeyError for a store without one."""
        book = self._stores[store]
        pinned = self._versions.get((book.chain_book.chain, version))
        if pinned is None or pinned is book.chain_book:
            return book
        return replace(book, chain_book=pinned)

    def config_key(self, record: RegisteredTerminal, book: StoreBook) -> Hashable:
        """Equal for terminals of the same desired configuration."""
        settings = self._layers.key(record, book)
        return (book.chain_book.chain, book.version, book.gen, book.basket_owner, book.off, settings)

    def desired_config(self, record: RegisteredTerminal, book: StoreBook) -> dict[str, Any]:
        """The configuration half of `desired`: the terminal's settings, and what comes from the chain's book."""
        settings = self._layers.effective(record, book).document
        sells_alone = get(settings, "offline_sales.enabled")
        offline = offline_prices(book) if sells_alone else None
        return {
            **settings,
            **({} if offline is None else {"offline": offline}),
            **({CONFIG_KEY: [str(switch) for switch in book.off]} if book.off else {}),
            **({"book": book.version, STORE_GEN: book.gen} if book.gen else {}),
            "language": book.language,
            "basket_owner": book.basket_owner,
            "consents": [
                {
                    "purpose": str(text.purpose),
                    "version": text.version,
                    "text": text.zh if book.language == "zh" else text.en,
                }
                for text in book.chain_book.consents
            ],
        }
