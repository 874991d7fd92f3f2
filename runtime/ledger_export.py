"""The ledger as an hledger journal: plain text that a program of somebody else reads, checks and sums up.

Amounts are exact decimals made from integer fen. Money that moved is real postings; the pending book (holds and notes)
is balanced virtual postings under `pending:`, which `hledger --real` leaves out.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from models.domain.accounts import Nature, nature_of
from models.domain.ledger import Book, Entry
from models.domain.money import format_yuan
from models.tables.ledger_balances import Balance, balances
from models.tables.ledger_journal import Booked, stream

PENDING = "pending"
_TYPES = {
    Nature.ASSET: "A",
    Nature.LIABILITY: "L",
    Nature.EQUITY: "E",
    Nature.INCOME: "R",
    Nature.EXPENSE: "X",
}
_MEANS_SOMETHING = re.compile(r"[\x00-\x1f%,;()|\[\]]")


def account_name(entity: str, account: str, book: Book) -> str:
    """How an account is called in the journal: entity first, `pending:` before it for the pending book."""
    name = f"{entity}:{account}"
    return f"{PENDING}:{name}" if book is Book.PENDING else name


def heading(accounts: Sequence[Balance]) -> str:
    """Declarations, so that `hledger check --strict` finds a name that was made up."""
    lines = ["; storeops ledger, exported for hledger", "commodity CNY 1000.00", ""]
    for one in accounts:
        nature = nature_of(one.account) if one.book is Book.POSTED else None
        kind = f"  ; type:{_TYPES[nature]}" if nature is not None else ""
        lines.append(f"account {account_name(one.entity, one.account, one.book)}{kind}")
    return "\n".join(lines) + "\n"


def transaction_text(booked: Booked) -> str:
    """One transaction: its request number is the code, its kind and what it is about the description."""
    one = booked.transaction
    day = min(entry.business_date for entry in one.entries)
    about = f" | {_plain(one.memo)}" if one.memo else ""
    tags = [f"txn:{one.id}", f"request:{_plain(one.request_number)}", f"booked:{booked.booked_at.isoformat()}"]
    if one.refers_to:
        tags.append(f"refers:{one.refers_to}")
    if booked.trace:
        tags.append(f"trace:{_plain(booked.trace)}")
    lines = [f"{day} * ({_plain(one.request_number)}) {_plain(one.kind)}{about}", f"    ; {', '.join(tags)}"]
    lines += [_posting(entry, day) for entry in one.entries]
    return "\n".join(lines) + "\n"


def _posting(entry: Entry, day: str) -> str:
    name = account_name(entry.entity, entry.account, entry.book)
    name = f"[{name}]" if entry.book is Book.PENDING else name
    dated = "" if entry.business_date == day else f"  ; date:{entry.business_date}"
    return f"    {name:<48}  CNY {format_yuan(entry.amount_fen)}{dated}"


def _plain(text: str) -> str:
    """Without what means something in a journal's line, percent-encoded: `(` is %28."""
    return _MEANS_SOMETHING.sub(lambda found: f"%{ord(found[0]):02X}", text)


async def hledger(conn: AsyncConnection[TupleRow]) -> AsyncIterator[str]:
    """The whole journal in pieces, by business date."""
    yield heading(await balances(conn, zeros=True))
    async for booked in stream(conn):
        yield "\n" + transaction_text(booked)
