from __future__ import annotations

import threading

import psycopg
import pytest

from models.domain.errors import NeedsOperator
from models.tables import migrate

TXN = "INSERT INTO txn (id, kind, request_number, memo, trace, booked_at) VALUES ('t1', 'k', 'r', '', '', now())"
ENTRIES = """INSERT INTO entry (txn, leg, entity, account, amount_fen, business_date, book) VALUES
    ('t1', 0, 'chain', 'a', %s, '2026-01-01', %s), ('t1', 1, %s, 'b', -800, '2026-01-01', 'posted')"""


@pytest.fixture(scope="module")
def migrated_url(module_database_url: str) -> str:
    migrate.upgrade(module_database_url)
    return module_database_url


def test_the_database_is_what_the_tables_say_and_a_second_upgrade_changes_nothing(migrated_url: str) -> None:
    assert migrate.drift(migrated_url) == []
    assert migrate.upgrade(migrated_url) == migrate.upgrade(migrated_url)
    with psycopg.connect(migrated_url) as connection:
        assert connection.execute("SELECT id, offset_us, movable FROM business_clock").fetchall() == [(1, 0, False)]


def test_processes_that_start_together_upgrade_once(database_url: str) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            migrate.upgrade(database_url)
        except BaseException as error:  # noqa: BLE001  # reported by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_database_of_a_later_version_is_refused(database_url: str) -> None:
    migrate.upgrade(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NeedsOperator) as refused:
        migrate.upgrade(database_url)
    assert refused.value.code == "database_newer"


@pytest.mark.parametrize(
    ("amount_fen", "book", "entity"),
    [(700, "posted", "chain"), (800, "pending", "chain"), (800, "posted", "north")],
    ids=["amounts differ", "books differ", "entities differ"],
)
def test_a_transaction_that_does_not_balance_is_refused(
    migrated_url: str, amount_fen: int, book: str, entity: str
) -> None:
    with psycopg.connect(migrated_url) as connection:
        connection.execute(TXN)
        with pytest.raises(psycopg.errors.CheckViolation, match="leaves"):
            connection.execute(ENTRIES, (amount_fen, book, entity))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET amount_fen = 0",
        "DELETE FROM entry",
        "DELETE FROM txn",
        "UPDATE txn SET memo = 'x'",
        "TRUNCATE entry, txn",
    ],
)
def test_booked_money_never_changes(migrated_url: str, statement: str) -> None:
    with psycopg.connect(migrated_url) as connection:
        connection.execute(TXN)
        connection.execute(ENTRIES, (800, "posted", "chain"))
        with pytest.raises(psycopg.errors.CheckViolation, match="append-only"):
            connection.execute(statement)
