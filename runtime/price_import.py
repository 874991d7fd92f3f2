"""A price file becomes the next version of a chain's book, in every database that has the chain: all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from models.domain.errors import Refused
from models.domain.price_file import Diff, PriceFile, PriceFileError, difference, next_items, read_price_file
from models.domain.taxes import read_taxes
from models.tables.chain_books import (
    PRICE_FILE,
    insert_book,
    last_version,
    lock_books,
    newest_document,
    require_no_rollout,
    save_candidate,
)
from models.tables.items import changes, load_assortment

JUMPS_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which file for which chain, and how. `jump_percent`: more needs `force`. `digest`: SHA-256 of the file, hex.

    `candidate`: for a rollout in stages; nobody uses it until then.
    """

    chain: str
    digest: str
    effective: datetime | None = None
    dry_run: bool = False
    force: bool = False
    jump_percent: int = 50
    candidate: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of it. `version` 0: nothing was written, because nothing changes or it was a dry run."""

    chain: str
    version: int
    lines: int
    diff: Diff
    dry_run: bool

    def as_document(self) -> dict[str, Any]:
        """For JSON; at most JUMPS_SHOWN_MAX jumps, and how many there are."""
        diff = asdict(self.diff)
        jumps = [
            {**one, "at": None if one["at"] is None else one["at"].isoformat()}
            for one in diff.pop("jumps")[:JUMPS_SHOWN_MAX]
        ]
        return {
            "chain": self.chain,
            "version": self.version,
            "dry_run": self.dry_run,
            "lines": self.lines,
            **diff,
            "jumps": len(self.diff.jumps),
            "jumps_shown": jumps,
        }


def digest_of(body: bytes) -> str:
    """The file's SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


def text_of(body: bytes) -> Iterable[str]:
    """The file's lines. Raises PriceFileError for what is no UTF-8."""
    try:
        return body.decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise PriceFileError([f"line {line}: no UTF-8: export it as CSV in UTF-8"]) from None


async def read_for_chain(
    conn: AsyncConnection[Any], chain: str, body: bytes, progress: Callable[[int], None] = lambda _: None
) -> PriceFile:
    """Check a file against the chain's zone and tax codes. Raises Refused `unknown_chain`, `prices_wrong`."""
    zone, taxes = await chain_terms(conn, chain)
    return read_checked(body, zone, taxes, progress)


async def chain_terms(conn: AsyncConnection[Any], chain: str) -> tuple[str, dict[str, int]]:
    """The chain's time zone and its tax codes. Raises Refused `unknown_chain`."""
    newest = await newest_document(conn, chain)
    cursor = await conn.execute("SELECT zone FROM store WHERE chain = %s ORDER BY id LIMIT 1", (chain,))
    row = await cursor.fetchone()
    if newest is None:
        raise Refused("unknown_chain", f"there is no chain {chain!r} with a book", "see `storeops status`")
    return row[0] if row is not None else "Asia/Shanghai", dict(read_taxes(newest[1].get("taxes") or {}))


def read_checked(
    body: bytes, zone: str, taxes: dict[str, int], progress: Callable[[int], None] = lambda _: None
) -> PriceFile:
    """The file, or Refused `prices_wrong` with its lines."""
    try:
        return read_price_file(text_of(body), zone, taxes, progress)
    except PriceFileError as error:
        left = error.total - len(error.faults)
        told = [f"{error.total} faults", *error.faults, *([f"and {left:,} more"] if left else [])]
        raise Refused("prices_wrong", "\n".join(told), "mend these lines; nothing was taken") from None


async def import_prices(conn: AsyncConnection[Any], file: PriceFile, wanted: Wanted, now: datetime) -> Imported:
    """Write the next book of this database, in one transaction. Raises Refused `price_jumps` unless forced, and
    `book_on_its_way` while a rollout brings another one.

    The same file again changes nothing. `now`: business time, which decides what a price is until then; the book's
    row carries the database's own time.
    """
    async with conn.transaction(), conn.cursor() as cur:
        await lock_books(cur, wanted.chain)
        newest = await newest_document(cur, wanted.chain)
        if newest is None:
            raise Refused("unknown_chain", f"there is no chain {wanted.chain!r} with a book", "see `storeops status`")
        version, document = newest
        known = await load_assortment(conn, wanted.chain)
        old = known.at(version)
        new = next_items(file, old, now, wanted.effective)
        diff = difference(old, new, now, wanted.jump_percent)
        if wanted.dry_run or not changes(old, new.values()):
            return Imported(wanted.chain, 0, file.lines, diff, wanted.dry_run)
        if diff.jumps and not wanted.force:
            raise _jumps(diff, wanted.jump_percent)
        cursor = await cur.execute("SELECT clock_timestamp()")
        row = await cursor.fetchone()
        assert row is not None
        last = await last_version(cur, wanted.chain)
        source = {"sha256": wanted.digest, "lines": file.lines}
        if wanted.candidate:
            goods = list(new.values())
            made = await save_candidate(cur, wanted.chain, document, (PRICE_FILE, source), goods, row[0])
            return Imported(wanted.chain, made, file.lines, diff, False)
        await require_no_rollout(cur, wanted.chain)
        document = {**document, PRICE_FILE: {**source, "version": last + 1}}
        await insert_book(cur, wanted.chain, last + 1, document, changes(known.at(last), new.values()), row[0])
    return Imported(wanted.chain, last + 1, file.lines, diff, False)


def _jumps(diff: Diff, percent: int) -> Refused:
    shown = ", ".join(f"{one.code} {one.from_fen} -> {one.to_fen} fen" for one in diff.jumps[:5])
    return Refused(
        "price_jumps",
        f"{len(diff.jumps)} prices move by more than {percent} %: {shown}",
        "look at them with --dry-run; if they are right, --force",
    )


async def import_everywhere(
    urls: Sequence[str], body: bytes, wanted: Wanted, now: datetime, progress: Callable[[int], None] = lambda _: None
) -> list[Imported]:
    """One after the other for each database that has the chain. Every one is checked before the first is written.

    Raises Refused `unknown_chain`, `prices_wrong`, `price_jumps`.
    """
    having = []
    for url in dict.fromkeys(urls):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            if await newest_document(conn, wanted.chain) is not None:
                having.append(url)
    if not having:
        raise Refused("unknown_chain", f"there is no chain {wanted.chain!r} with a book", "see `storeops status`")
    done: list[Imported] = []
    file: PriceFile | None = None
    # One database is checked and written in one transaction; several are all checked first.
    rounds = (wanted.dry_run,) if wanted.dry_run or len(having) == 1 else (True, False)
    for dry_run in rounds:
        done = []
        for url in having:
            async with await AsyncConnection.connect(url, autocommit=True) as conn:
                if file is None:
                    file = await read_for_chain(conn, wanted.chain, body, progress)
                one = await import_prices(conn, file, _as(wanted, dry_run), now)
            if one.diff.jumps and not wanted.force and not wanted.dry_run:
                raise _jumps(one.diff, wanted.jump_percent)
            done.append(one)
    return done


def _as(wanted: Wanted, dry_run: bool) -> Wanted:
    return Wanted(wanted.chain, wanted.digest, wanted.effective, dry_run, wanted.force, wanted.jump_percent)
