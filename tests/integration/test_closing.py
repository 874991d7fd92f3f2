"""The closing commit by statement and the rule one by one write the same rows, to the last column."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.port import PaymentProvider
from models.domain.payments import AnyAnswer, answer_from_document
from models.tables.business_days import close_door
from runtime.postgres import EmbeddedPostgres
from runtime.settlement import SettlementLimits, SettlementRunner
from runtime.testing.due_memberships import ANSWER_ALL, plant_due
from tests.conftest import fresh_database
from tests.integration.money_shop import CHAIN, FRANCHISED, OWN, REGION, START, seed

NOW = START + timedelta(days=40)
MEMBERSHIPS = 120
TABLES = {
    "membership": "SELECT * FROM membership ORDER BY id",
    "settlement_call": "SELECT * FROM settlement_call ORDER BY request_number",
    "txn": "SELECT id, kind, request_number, memo, refers_to, trace, booked_at FROM txn ORDER BY id",
    "entry": "SELECT txn, leg, entity, account, amount_fen, business_date, book FROM entry ORDER BY txn, leg",
}
ODD = {
    # the provider took another amount, failed for good, said a number that is none, has not answered yet
    1: """UPDATE settlement_call SET answer = jsonb_set(answer, '{total_fen}', '1') WHERE kind = 'capture'""",
    2: """UPDATE settlement_call SET answer = '{"answer": "failed", "reason": "not_enough_funds", "code": "x"}'
          WHERE true""",
    3: "UPDATE settlement_call SET state = 'UNKNOWN' WHERE true",
    # a use was reversed while the capture was on its way: more was taken than is due
    4: """UPDATE usage u SET reversed_fen = u.fen FROM settlement_call
          WHERE u.membership = settlement_call.membership""",
    # admitted on credit: nothing is held
    5: """UPDATE membership m SET hold_state = 'none', hold_fen = 0, hold_order = '', hold_no = ''
          FROM settlement_call WHERE m.id = settlement_call.membership AND settlement_call.kind = 'capture'""",
    # it failed once already, and what is owed is a receivable
    7: """UPDATE membership m SET receivable_fen = charge_fen
          FROM settlement_call WHERE m.id = settlement_call.membership AND settlement_call.kind = 'capture'""",
    8: "UPDATE settlement_call SET attempt = 1 WHERE kind = 'capture'",
}
"""What is not plain, done to every eleventh call each."""


class Enough(Exception):
    """The run ends here."""


class Replay:
    """A provider that says what stood in the rows, whatever it is asked."""

    def __init__(self) -> None:
        self.answers: dict[str, AnyAnswer] = {}

    async def rewind(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        """The answers are not given yet."""
        async with pool.connection() as conn:
            cur = await conn.execute(
                "UPDATE settlement_call SET state = 'NEW', tries = 0, answer = NULL, answered_at = NULL"
                " FROM (SELECT request_number AS number, answer AS doc FROM settlement_call) AS told"
                " WHERE request_number = number AND state = 'ANSWERED' RETURNING number, doc"
            )
            self.answers = {row[0]: answer_from_document(row[1]) for row in await cur.fetchall()}
            await conn.execute("UPDATE settlement_call SET lease_until = '3000-01-01' WHERE state = 'UNKNOWN'")

    def __getattr__(self, name: str) -> Any:
        async def told(*, number: str, **_: object) -> AnyAnswer:
            if number not in self.answers:
                raise Enough
            return self.answers[number]

        return told


async def rows_after(
    url: str, *, plain_by_statement: bool, chunk: int, asked: bool = False, closed: bool = False
) -> tuple[dict[str, list[Any]], int]:
    """The tables after planted rows were settled, and how many commits closed them.

    `asked`: the answers come from a provider while the run goes on, instead of standing in the rows. `closed`: the
    books of both entities are closed for the day of the run, of one for two days more.
    """
    commits = 0
    replay = Replay()

    async def hook(step: str) -> None:
        nonlocal commits
        if step == "wake" and not commits:
            await answer(pool)
            if asked and not replay.answers:
                await replay.rewind(pool)
        elif step == "claimed" and not asked:
            raise Enough
        commits += step == ("answered" if asked else "booked")

    limits = SettlementLimits(chunk, chunk, calls_per_s_max=1e9, patience_s=0, plain_by_statement=plain_by_statement)
    async with AsyncConnectionPool[AsyncConnection[Any]](url, min_size=2, open=False) as pool:
        await seed(pool)
        async with pool.connection() as conn, conn.cursor() as cur:
            await plant_due(
                cur, chain=CHAIN, region=REGION, plan="light-10", owner="chain", own_store=OWN, other_entity="north",
                other_store=FRANCHISED, count=MEMBERSHIPS, seed="x", enrolled_at=START,
                expires_at=NOW - timedelta(days=9), cutoff_at=NOW - timedelta(days=8),
            )  # fmt: skip
            for entity, days in (("chain", 0), ("north", 2)) if closed else ():
                await close_door(cur, entity, NOW.date() + timedelta(days=days))
        provider = cast("PaymentProvider", replay)
        runner = SettlementRunner(
            CHAIN, REGION, pool, lambda *_: provider, limits, wall=lambda: NOW, between_steps=hook
        )
        with suppress(Enough):
            await runner.run(NOW)
        async with pool.connection() as conn:
            tables = {name: await (await conn.execute(query)).fetchall() for name, query in TABLES.items()}
    return tables, commits


async def answer(pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
    """The provider's answers, most of them plain."""
    async with pool.connection() as conn, conn.cursor() as cur:
        await cur.execute(ANSWER_ALL, {"chain": CHAIN, "region": REGION, "now": NOW})
        await cur.execute("SELECT request_number FROM settlement_call WHERE state = 'ANSWERED' ORDER BY request_number")
        calls = [row[0] for row in await cur.fetchall()]
        for nth, statement in ODD.items():
            await cur.execute(f"{statement} AND settlement_call.request_number = ANY(%s)", (calls[nth::11],))
        await cur.execute(
            "UPDATE membership m SET used_fen = (SELECT coalesce(sum(fen - reversed_fen), 0) FROM usage u"
            " WHERE u.membership = m.id)"
        )


@pytest.mark.parametrize(("chunk", "closed"), [(7, False), (5_000, True)])
async def test_both_ways_write_the_same_rows(
    embedded_postgres: EmbeddedPostgres, migrated_template: str, chunk: int, closed: bool
) -> None:
    async def settled(**how: Any) -> tuple[dict[str, list[Any]], int]:
        with fresh_database(embedded_postgres, migrated_template) as url:
            return await rows_after(url, chunk=chunk, closed=closed, **how)

    by_statement, commits = await settled(plain_by_statement=True)
    one_by_one, _ = await settled(plain_by_statement=False)
    as_asked, _ = await settled(plain_by_statement=True, asked=True)
    assert len(one_by_one["membership"]) == MEMBERSHIPS
    assert len(one_by_one["txn"]) > MEMBERSHIPS
    dates = {(row[2], row[5]) for row in one_by_one["entry"]}
    moved = {("chain", NOW.date() + timedelta(days=1)), ("north", NOW.date() + timedelta(days=3))}
    booked_on = {(entity, on.isoformat()) for entity, on in moved}
    assert (booked_on <= dates) is closed, "a closed day takes nothing more, in each entity's own books"
    answered = sum(row.count("POSTED") for row in one_by_one["settlement_call"])
    assert commits >= answered / chunk, "chunks are bounded"
    for name, rows in one_by_one.items():
        assert by_statement[name] == rows, name
        answered_rows = [row for row in rows if "UNKNOWN" not in row]
        assert [row for row in as_asked[name] if "UNKNOWN" not in row] == answered_rows, name
