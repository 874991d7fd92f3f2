"""A price file on a real database: all or nothing, versions that stay what they were, and hosts that learn of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId
from models.domain.plans import Text
from models.domain.pricing import Item
from models.tables.chain_books import save_book
from models.tables.terminals import registry_mark
from runtime.directory import Directory
from runtime.price_import import Imported, Wanted, digest_of, import_everywhere
from tests.integration.money_shop import CHAIN, OWN, REGION, START, seed

HEADER = "code,name_zh,name_en,price,flags\n"
DOCUMENT: dict[str, Any] = {"plans": [], "consents": []}
TEA, HAM = Item("tea", Text(zh="茶", en="Tea"), 600), Item("ham", Text(zh="火腿", en="Ham"), 800)


@dataclass
class Books:
    """A database with one chain."""

    url: str

    async def take(self, text: str, **how: Any) -> Imported:
        body = (HEADER + text).encode()
        wanted = Wanted(CHAIN, digest_of(body), **how)
        (done,) = await import_everywhere([self.url, self.url], body, wanted, START)
        return done

    async def versions(self) -> int:
        async with await AsyncConnection.connect(self.url, autocommit=True) as conn:
            row = await (await conn.execute("SELECT count(*) FROM book")).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
async def books(migrated_database_url: str) -> Books:
    async with AsyncConnectionPool(migrated_database_url, min_size=1, max_size=1, open=False) as pool:
        await seed(pool)
        async with pool.connection() as conn, conn.cursor() as cur:
            assert await save_book(cur, CHAIN, DOCUMENT, [TEA, HAM], START) == 1
    return Books(migrated_database_url)


async def test_a_file_becomes_the_next_version_and_visits_keep_theirs(books: Books) -> None:
    directory = Directory(RegionId(REGION))
    async with await AsyncConnection.connect(books.url, autocommit=True) as conn:
        await directory.load(conn)
        mark = await registry_mark(conn, RegionId(REGION))
        pinned = directory.book_of(OWN, 1)
        done = await books.take("tea,茶,Tea,6.50,\nbun,包,Bun,3.00,age_18\n")
        assert (done.version, done.diff.new, done.diff.changed, done.diff.gone) == (2, 1, 1, 1)
        assert await registry_mark(conn, RegionId(REGION)) != mark, "hosts look at this each second"
        await directory.load(conn)
    newest = directory.book_of(OWN, 0).chain_book
    assert newest.version == 2
    assert {code: item.unit_fen for code, item in newest.items.items()} == {"tea": 650, "bun": 300}
    for old in (pinned.chain_book, directory.book_of(OWN, 1).chain_book):
        assert {code: item.unit_fen for code, item in old.items.items()} == {"tea": 600, "ham": 800}


async def test_one_wrong_line_a_dry_run_and_a_jump_change_nothing(books: Books) -> None:
    for text, code in (("tea,茶,Tea,6.50,\nham,火腿,Ham,8,\n", "prices_wrong"), ("tea,茶,Tea,60.00,\n", "price_jumps")):
        with pytest.raises(Refused) as refused:
            await books.take(text)
        assert refused.value.code == code
    dry = await books.take("tea,茶,Tea,60.00,\n", dry_run=True)
    assert (dry.version, dry.diff.gone, len(dry.diff.jumps)) == (0, 1, 1)
    same = await books.take("tea,茶,Tea,6.00,\nham,火腿,Ham,8.00,\n")
    assert (same.version, same.diff.same) == (0, 2)
    assert await books.versions() == 1
    forced = await books.take("tea,茶,Tea,60.00,\n", force=True)
    assert forced.version == 2
    with pytest.raises(Refused, match="no chain"):
        await import_everywhere([books.url], b"", Wanted(ChainId("nobody"), ""), START)


async def test_the_chains_file_leaves_the_articles_of_a_price_file_alone(books: Books) -> None:
    await books.take("tea,茶,Tea,6.50,\n")
    async with await AsyncConnection.connect(books.url) as conn, conn.cursor() as cur:
        assert await save_book(cur, CHAIN, DOCUMENT, [TEA, HAM], START) == 2, "nothing else changed"
        assert await save_book(cur, CHAIN, {**DOCUMENT, "language": "en"}, [TEA, HAM], START) == 3
    directory = Directory(RegionId(REGION))
    async with await AsyncConnection.connect(books.url, autocommit=True) as conn:
        await directory.load(conn)
    newest = directory.book_of(OWN, 0)
    assert (newest.version, newest.language) == (3, "en")
    assert {code: item.unit_fen for code, item in newest.chain_book.items.items()} == {"tea": 650}


async def test_a_price_of_tomorrow_is_in_the_book_today(books: Books) -> None:
    tomorrow = START + timedelta(days=1)
    await books.take("tea,茶,Tea,6.50,\n", effective=tomorrow)
    directory = Directory(RegionId(REGION))
    async with await AsyncConnection.connect(books.url, autocommit=True) as conn:
        await directory.load(conn)
    items = directory.book_of(OWN, 0).chain_book.items
    assert [items["tea"].fen_at(at) for at in (START, tomorrow)] == [600, 650]
    assert [items["ham"].fen_at(at) for at in (START, tomorrow)] == [800, None]
