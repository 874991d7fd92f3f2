"""Raw SQL against the ledger: whatever a program or a person with the application's role sends, the books hold."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from models.tables.ledger_faults import verify
from runtime.postgres import EmbeddedPostgres
from tests.conftest import fresh_database

TXN = "INSERT INTO txn (id, kind, request_number, memo, trace, booked_at) VALUES (%s, %s, %s, '', '', now())"
LEGS = """INSERT INTO entry (txn, leg, entity, account, amount_fen, business_date, book) VALUES
    (%(txn)s, %(leg)s, 'chain', %(account)s, %(fen)s, %(date)s, %(book)s),
    (%(txn)s, %(leg)s + 1, %(entity)s, 'b', - %(fen)s, %(date)s, %(book)s)"""
GOOD = {"leg": 0, "account": "a", "fen": 800, "date": "2026-01-01", "book": "posted", "entity": "chain"}
COPY = "COPY entry (txn, leg, entity, account, amount_fen, business_date, book) FROM STDIN"


def booked(conn: psycopg.Connection, name: str = "t1") -> None:
    """A transaction that stands."""
    with conn.transaction():
        conn.execute(TXN, (name, "k", f"r-{name}"))
        conn.execute(LEGS, {**GOOD, "txn": name})


def sums(url: str, name: str = "t1") -> list[tuple[object, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT txn, leg, amount_fen FROM entry WHERE txn = %s ORDER BY 2", (name,)).fetchall()


WHOLE = [("t1", 0, 800), ("t1", 1, -800)]


@pytest.fixture(scope="module")
def books(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Where t1 stands; every test brings transactions of its own."""
    with fresh_database(embedded_postgres, migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            booked(conn)
        yield url


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4()}"


@pytest.mark.parametrize(
    "changed",
    [
        {"fen": 0},
        {"fen": 1_000_000_000_001},
        {"book": "draft"},
        {"account": "Sales Gross"},
        {"account": "sales_gross:"},
        {"account": "till:s:lane:more"},
        {"account": "till:s\nx"},
        {"account": "a" * 200},
        {"entity": ""},
        {"entity": "two words"},
        {"date": "2026-02-30"},
        {"date": "2026-2-3"},
        {"date": "02/03/2026"},
        {"date": "+2026-1-01"},
        {"leg": -1},
        {"leg": 1},
    ],
    ids=str,
)
def test_a_leg_is_bounded_and_well_formed(books: str, changed: dict[str, object], name: str) -> None:
    with psycopg.connect(books) as conn:
        conn.execute(TXN, (name, "k", name))
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute(LEGS, {**GOOD, "txn": name, **changed})
    with psycopg.connect(books) as conn:  # the same, unchanged, is good
        conn.execute(TXN, (name, "k", name))
        conn.execute(LEGS, {**GOOD, "txn": name})


@pytest.mark.parametrize(("kind", "number"), [("k", ""), ("", "r"), ("k" * 41, "r"), ("k", "r" * 201)])
def test_a_transaction_has_a_kind_and_a_request_number(books: str, kind: str, number: str, name: str) -> None:
    with psycopg.connect(books) as conn, pytest.raises(psycopg.errors.CheckViolation, match="txn_formed"):
        conn.execute(TXN, (name, kind, number))


def test_a_request_number_is_booked_once_per_kind_also_by_four_at_once(books: str, name: str) -> None:
    outcomes: list[str] = []

    def book(n: int) -> None:
        try:
            with psycopg.connect(books) as conn:
                together.wait(20)
                conn.execute(TXN, (f"{name}-{n}", "settled", name))
                conn.execute(LEGS, {**GOOD, "txn": f"{name}-{n}"})
            outcomes.append("booked")
        except psycopg.errors.UniqueViolation:
            outcomes.append("refused")

    together = threading.Barrier(4)
    threads = [threading.Thread(target=book, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["booked", "refused", "refused", "refused"]
    with psycopg.connect(books) as conn:
        assert conn.execute("SELECT count(*) FROM txn WHERE request_number = %s", (name,)).fetchall() == [(1,)]
        conn.execute(TXN, (f"{name}-9", "hold_ended", name))  # another kind of the same request is another booking


@pytest.mark.parametrize("leg", [0, 2, 7])
def test_no_leg_is_added_to_what_was_booked_not_even_balanced_ones(books: str, leg: int) -> None:
    with psycopg.connect(books) as conn, pytest.raises(psycopg.errors.IntegrityError):
        conn.execute(LEGS, {**GOOD, "txn": "t1", "leg": leg})
    assert sums(books) == WHOLE


def test_nor_in_the_commit_that_books_it(books: str, name: str) -> None:
    with psycopg.connect(books) as conn:
        conn.execute(TXN, (name, "k", name))
        conn.execute(LEGS, {**GOOD, "txn": name})
        with pytest.raises(psycopg.errors.CheckViolation, match="0, 1, 2"):
            conn.execute(LEGS, {**GOOD, "txn": name, "leg": 2})
    assert sums(books) == WHOLE


def test_a_transaction_without_legs_gets_none_later(books: str, name: str) -> None:
    with psycopg.connect(books) as conn:
        conn.execute(TXN, (name, "k", name))
    with psycopg.connect(books) as conn, pytest.raises(psycopg.errors.CheckViolation, match="never added later"):
        conn.execute(LEGS, {**GOOD, "txn": name})


def test_legs_need_their_transaction_and_do_not_see_one_of_another_connection(books: str, name: str) -> None:
    with psycopg.connect(books) as one, psycopg.connect(books) as other:
        one.execute(TXN, (name, "k", name))
        with pytest.raises(psycopg.errors.CheckViolation, match="no such transaction"):
            other.execute(LEGS, {**GOOD, "txn": name})
        one.execute(LEGS, {**GOOD, "txn": name})


def test_halves_by_two_connections_are_two_refusals(books: str, name: str) -> None:
    half = "INSERT INTO entry VALUES (%s, %s, 'chain', 'a', %s, '2026-01-01', 'posted')"
    with psycopg.connect(books) as one, psycopg.connect(books) as other:
        one.execute(TXN, (name, "k", name))
        with pytest.raises(psycopg.errors.CheckViolation, match="leaves 800"):
            one.execute(half, (name, 0, 800))
        with pytest.raises(psycopg.errors.CheckViolation, match="leaves -800"):
            other.execute(half, (name, 1, -800))
    assert sums(books) == WHOLE


def copied(conn: psycopg.Connection, name: str, debit: int, credit: int) -> None:
    with conn.cursor() as cur, cur.copy(COPY) as copy:
        copy.write_row((name, 0, "chain", "a", debit, "2026-01-01", "posted"))
        copy.write_row((name, 1, "chain", "b", credit, "2026-01-01", "posted"))


def test_copy_is_looked_at_as_well(books: str, name: str) -> None:
    with psycopg.connect(books) as conn:
        conn.execute(TXN, (name, "k", name))
        copied(conn, name, 800, -800)
    assert sums(books, name) == [(name, 0, 800), (name, 1, -800)]
    with psycopg.connect(books) as conn:
        conn.execute(TXN, (f"{name}-2", "k", f"{name}-2"))
        with pytest.raises(psycopg.errors.CheckViolation, match="leaves 1 fen"):
            copied(conn, f"{name}-2", 800, -799)
    with psycopg.connect(books) as conn, pytest.raises(psycopg.errors.UniqueViolation):
        copied(conn, "t1", 5, -5)
    assert sums(books) == WHOLE


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET amount_fen = amount_fen",
        "UPDATE txn SET memo = 'x' WHERE false",
        "DELETE FROM entry WHERE txn = 't1'",
        "DELETE FROM txn",
        "TRUNCATE entry",
        "TRUNCATE txn, entry CASCADE",
        "INSERT INTO entry VALUES ('t1', 0, 'chain', 'a', 1, '2026-01-01', 'posted')"
        " ON CONFLICT (txn, leg) DO UPDATE SET amount_fen = 1",
        "INSERT INTO txn VALUES ('t1', 'k', 'r', '', NULL, '', now()) ON CONFLICT (id) DO UPDATE SET memo = 'x'",
        "MERGE INTO entry e USING (SELECT 't1' AS txn) n ON e.txn = n.txn WHEN MATCHED THEN DELETE",
        "WITH gone AS (DELETE FROM entry RETURNING *) SELECT * FROM gone",
        "SELECT 1; DELETE FROM entry",
        "BEGIN; SAVEPOINT s; UPDATE entry SET account = 'c'; COMMIT",
    ],
)
def test_what_is_booked_stays_also_for_the_applications_role(books: str, statement: str) -> None:
    with psycopg.connect(books, autocommit=True) as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("storeops",), "the role that the application has"
        assert conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
        with pytest.raises(psycopg.errors.CheckViolation, match="append-only"):
            conn.execute(statement.encode())
    assert sums(books) == WHOLE


def test_the_applications_role_cannot_step_around_the_triggers(books: str) -> None:
    with psycopg.connect(books, autocommit=True) as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SET session_replication_role = replica")
        enabled = conn.execute(
            "SELECT tgenabled::text FROM pg_trigger"
            " WHERE tgrelid IN ('entry'::regclass, 'txn'::regclass) AND NOT tgisinternal"
        ).fetchall()
    assert enabled == [("A",)] * 3, "they fire in a replica's session too"


async def test_a_guard_that_was_hollowed_out_is_found(books: str) -> None:
    """The owner of the functions may write them anew: the triggers stand, and let everything through."""
    async with await psycopg.AsyncConnection.connect(books, autocommit=True) as conn:

        async def gone() -> tuple[str, ...]:
            [guards] = [fault for fault in (await verify(conn)).faults if fault.what == "guard_is_gone"]
            return tuple(sorted(guards.examples))

        expected = {
            "ledger_entries_balance": ("entry_balances",),
            "ledger_is_append_only": ("entry_append_only", "txn_append_only"),
        }
        for function, guards in expected.items():
            kept = await (await conn.execute("SELECT pg_get_functiondef(%s::regproc)", (function,))).fetchone()
            assert kept is not None
            hollow = (
                f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
            )
            await conn.execute(hollow.encode())
            assert await gone() == guards
            await conn.execute(kept[0].encode())
        assert await gone() == ()
