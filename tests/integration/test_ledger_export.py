"""An independent program reads the whole ledger, checks it strictly, and finds our balances to the fen."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from psycopg import AsyncConnection

from models.domain import ledger
from models.domain.ids import LegalEntityId
from models.domain.ledger import Book, Entry, Transaction
from models.tables.ledger_balances import balances, take_snapshot
from models.tables.ledger_journal import Booked
from runtime.ledger_export import account_name, hledger, transaction_text
from tests.integration.books import MOMENT, book_all, story

PROGRAM = shutil.which("hledger")
needs_hledger = pytest.mark.skipif(PROGRAM is None, reason="needs hledger: apt-get install hledger")


def asked(journal: str, *arguments: str, status: int = 0) -> str:
    assert PROGRAM is not None
    done = subprocess.run(
        [PROGRAM, "-f", "-", *arguments], input=journal, capture_output=True, text=True, timeout=30, check=False,
        env={"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout


def fen(amount: str) -> int:
    """`CNY -12.34` -> -1234; hledger writes 0 alone."""
    if amount == "0":
        return 0
    found = re.fullmatch(r"CNY (-?)(\d+)\.(\d\d)", amount)
    assert found, amount
    return (-1 if found[1] else 1) * (int(found[2]) * 100 + int(found[3]))


@needs_hledger
async def test_hledger_accepts_the_export_and_finds_our_balances(migrated_database_url: str) -> None:
    booked = story(21, steps=60)
    legs = (Entry(0, "chain", "bank", 10**12, "2026-11-03"), Entry(1, "chain", "suspense", -(10**12), "2026-11-03"))
    odd = Transaction("adjustment", "odd (1); 50%, |x|", legs, "备注; (x)")
    async with await AsyncConnection.connect(migrated_database_url, autocommit=True) as conn:
        await book_all(conn, booked)
        await take_snapshot(conn, MOMENT)
        await book_all(conn, [odd], commits=1)
        journal = "".join([piece async for piece in hledger(conn)])
        ours = {account_name(one.entity, one.account, one.book): one.fen for one in await balances(conn)}
    asked(journal, "check", "--strict")
    rows = csv.reader(io.StringIO(asked(journal, "balance", "--flat", "--no-total", "--output-format", "csv")))
    theirs = {name: fen(amount) for name, amount in rows if name != "account"}
    assert theirs == ours
    assert any(name.startswith("pending:") for name in theirs)
    real = asked(journal, "balance", "--real", "--flat", "--no-total", "--output-format", "csv")
    assert "pending:" not in real
    assert "sales_gross" in asked(journal, "accounts", "type:R")
    whole = asked(journal, "stats")
    transactions = len([one for one in [*booked, odd] if one.entries])
    assert re.search(rf"Transactions\s+: {transactions} ", whole)
    one = next(one for one in booked if one.kind == "sale_paid")
    assert one.request_number in asked(journal, "print", f"tag:txn=^{one.id}$")


@needs_hledger
async def test_hledger_refuses_what_does_not_balance() -> None:
    """The check can fail: a fen more on one side is found."""
    sale = next(one for one in story(1) if one.kind == "sale_paid")
    text = transaction_text(Booked(sale, MOMENT, ""))
    wrong = re.sub(
        r"CNY -(\d+)\.(\d)(\d)\n", lambda found: f"CNY -{int(found[1]) + 1}.{found[2]}{found[3]}\n", text, count=1
    )
    assert wrong != text
    asked(text, "check")
    asked(wrong, "check", status=1)


def test_a_transaction_reads_like_a_journal() -> None:
    hold = ledger.hold_placed(
        "H(1)", entity=LegalEntityId("chain"), provider="alipay", hold_fen=1000, business_date="2026-11-02"
    )
    text = transaction_text(Booked(hold, datetime(2026, 11, 2, 4, tzinfo=UTC), "trace-1"))
    assert text.splitlines()[0] == "2026-11-02 * (H%281%29) hold_placed"
    assert f"txn:{hold.id}, request:H%281%29, booked:2026-11-02T04:00:00+00:00, trace:trace-1" in text
    assert "[pending:chain:hold:alipay]" in text
    assert text.count("CNY 10.00") == text.count("CNY -10.00") == 1
    assert account_name("chain", "till:s:1", Book.POSTED) == "chain:till:s:1"
