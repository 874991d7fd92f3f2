"""A statement against the real tables: what the database leaves out and the rule decides, postings, and closed days."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.port import Statements
from gateway.reconciliation import CloseResult
from models.domain.difference_postings import Remedy
from models.domain.differences import FeeTerms, OurLine, Verdict, examine
from models.domain.errors import Refused, RetryLater
from models.domain.ids import LegalEntityId
from models.domain.ledger import Place, Taking, sale_paid
from models.domain.payments import Unknown
from models.domain.reconciliation import LineKind, StatementFile, StatementLine, totals_of
from models.tables.differences import DayRun, LineState, list_days, list_lines
from models.tables.ledger import insert_transactions
from models.tables.privacy import verify
from models.tables.reconciliation import Account
from runtime.day_close import DayClose
from runtime.postgres import EmbeddedPostgres
from runtime.reconciling import Pool, Reconciler
from runtime.testing.planted_sales import PlantedDay, amount_fen, order_of
from tests.conftest import fresh_database
from tests.integration.money_shop import OWN, seed

DAY = date(2026, 3, 1)
NEXT = DAY + timedelta(days=1)
RIPE = DAY + timedelta(days=3)
CHAIN = Account("alipay", "chain")
TERMS = {"alipay": FeeTerms(60)}
NOW = datetime(2026, 3, 2, 4, tzinfo=UTC)


class NoStatement:
    async def statement(self, *, day: date) -> Unknown:
        return Unknown(f"not_ready {day}", absent=True)


def nobody(_provider: str, _entity: LegalEntityId) -> Statements:
    return NoStatement()


@pytest.fixture
async def pool(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> AsyncIterator[Pool]:
    with fresh_database(embedded_postgres, migrated_template) as url:
        async with AsyncConnectionPool[AsyncConnection[Any]](url, min_size=1, open=False) as opened:
            await seed(opened)
            yield opened


@pytest.fixture
def reconciler(pool: Pool) -> Reconciler:
    return Reconciler(pool, nobody, wall=lambda: NOW)


@pytest.fixture
def agreed(pool: Pool) -> Reconciler:
    """It knows what the provider may charge."""
    return Reconciler(pool, nobody, terms=TERMS, wall=lambda: NOW)


@pytest.fixture
def days(pool: Pool, reconciler: Reconciler) -> DayClose:
    return DayClose(pool, reconciler, ["alipay"], wall=lambda: NOW)


def planted(count: int = 40, day: date = DAY, word: str = "x") -> PlantedDay:
    return PlantedDay("alipay", "chain", OWN, day, count, word)


async def plant(pool: Pool, *days: PlantedDay) -> None:
    async with pool.connection() as conn, conn.cursor() as cur:
        for one in days:
            await one.plant(cur)


def statement(lines: Sequence[StatementLine], day: date = DAY) -> StatementFile:
    return StatementFile("alipay", "chain", day, totals_of(lines), lines)


def paid(order: str, fen: int, day: date = DAY, fee_fen: int = 0) -> StatementLine:
    at = datetime(day.year, day.month, day.day, 4, tzinfo=UTC)
    return StatementLine("alipay", "chain", LineKind.PAYMENT, order, "", f"T-{order}", fen, fen, fee_fen, at, day)


def charged(line: StatementLine) -> StatementLine:
    bounds = TERMS["alipay"].bounds(line.kind, line.receipt_fen)
    return replace(line, fee_fen=bounds[1])


async def account_fen(pool: Pool, account: str, day: date | None = None) -> int:
    async with pool.connection() as conn:
        cur = await conn.execute(
            "SELECT coalesce(sum(amount_fen), 0)::bigint FROM entry WHERE entity = 'chain' AND account = %s"
            " AND (%s::text IS NULL OR business_date = %s)",
            (account, day and day.isoformat(), day and day.isoformat()),
        )
        row = await cur.fetchone()
    assert row is not None
    return int(row[0])


async def sell(pool: Pool, order: str, fen: int, day: date) -> None:
    """One more sale of the chain's own store, booked as any other."""
    async with pool.connection() as conn, conn.cursor() as cur:
        await cur.execute(
            "INSERT INTO sale (id, receipt, session, store, lane, terminal, entity, business_date, at, gross_fen,"
            " discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders, uses, till_txn)"
            " SELECT id, %(order)s, session, store, lane, terminal, entity, %(day)s, at, %(fen)s, 0, %(fen)s, 0, 0, 0,"
            " lines, jsonb_build_array(jsonb_build_object('kind', 'code', 'fen', %(fen)s::bigint, 'order',"
            " %(order)s::text)), uses, '' FROM (SELECT 'sale-' || %(order)s AS id, '' AS session, 's-own' AS store,"
            " 'l' AS lane, 't' AS terminal, 'chain' AS entity, now() AS at, '[]'::jsonb AS lines,"
            " '[]'::jsonb AS uses) AS one",
            {"order": order, "day": day.isoformat(), "fen": fen},
        )
        posting = sale_paid(
            f"sale-{order}",
            place=Place(OWN, LegalEntityId("chain")),
            takings=[Taking(fen, provider="alipay")],
            due_fen=fen,
            business_date=day.isoformat(),
        )
        await insert_transactions(cur, [posting], NOW)


# ---------------------------------------------------------------- the run


async def test_a_day_without_faults_closes_with_difference_0(pool: Pool, agreed: Reconciler) -> None:
    days = DayClose(pool, agreed, ["alipay"], wall=lambda: NOW)
    day = planted()
    await plant(pool, day)
    await agreed.keep(statement([charged(line) for line in day.lines()]))
    run = await agreed.run(CHAIN, DAY, NEXT)
    assert (run.matched, run.lines, run.difference_fen) == (40, 0, 0)
    assert run.fee_fen == await account_fen(pool, "provider_fee:alipay", DAY) > 0
    assert run.statement_fen == await account_fen(pool, CHAIN.clearing, DAY)
    again = await agreed.run(CHAIN, DAY, NEXT)
    assert replace(again, runs=1) == run, "a second run books nothing"
    closed = await days.close("chain", DAY, NOW, "test")
    assert closed.closed, closed.obstacles


async def test_the_database_and_the_rule_over_values_find_the_same(pool: Pool, agreed: Reconciler) -> None:
    """Random days with every fault; `examine` reads the same lines and must come to the same."""
    random_ = random.Random(7)
    for n in range(6):
        day = DAY + timedelta(days=10 * n)
        source = planted(60, day, f"seed{n}")
        await plant(pool, source)
        ours = [
            OurLine(LineKind.PAYMENT, order_of(source.seed, i), "", amount_fen(i), f"txn{i}", OWN) for i in range(60)
        ]
        lines: list[StatementLine] = []
        for line in map(charged, source.lines()):
            what = random_.randrange(12)
            if what == 0:
                continue
            lines.append(line)
            match what:
                case 1:
                    lines.append(line)
                case 2:
                    lines[-1] = replace(line, receipt_fen=line.receipt_fen + 1)
                case 3:
                    lines[-1] = replace(line, fee_fen=line.fee_fen + 3)
                case 4:
                    lines.append(paid(f"Q{n}-{len(lines)}", 77, day))
        random_.shuffle(lines)
        as_of = day + timedelta(days=random_.choice([1, 5]))
        rule = examine(day, as_of, lines, ours, terms=TERMS["alipay"])
        await agreed.keep(statement(lines, day))
        run = await agreed.run(CHAIN, day, as_of)
        async with pool.connection() as conn:
            stored = await list_lines(conn, day=day)
        assert run.matched + sum(one.provider_fen != 0 and one.ours_fen != 0 for one in stored) <= len(lines)
        assert Counter((one.verdict, one.order_no, one.difference_fen) for one in stored) == Counter(
            (one.verdict, one.order_no, one.difference_fen) for one in rule.findings
        )
        assert run.fee_fen == rule.accepted_fee_fen
        standing = sum(one.difference_fen for one in stored if not one.posted_to)
        assert run.difference_fen == standing == (run.statement_fen or 0) - await account_fen(pool, CHAIN.clearing, day)


async def test_timing_is_posted_and_ends_at_0_when_the_other_day_comes(pool: Pool, reconciler: Reconciler) -> None:
    await plant(pool, planted(3), planted(3, NEXT, "y"))
    late = [paid("PL", 500)]
    await reconciler.keep(statement([*planted(3).lines(), *late]))
    await sell(pool, "PL", 500, NEXT)
    first = await reconciler.run(CHAIN, DAY, NEXT)
    assert (first.difference_fen, first.open_lines) == (0, 0)
    assert await account_fen(pool, "timing:alipay") == -500
    await reconciler.keep(statement(list(planted(3, NEXT, "y").lines()), NEXT))
    second = await reconciler.run(CHAIN, NEXT, RIPE)
    assert (second.difference_fen, second.open_lines) == (0, 0)
    assert await account_fen(pool, "timing:alipay") == 0
    async with pool.connection() as conn:
        pairs = {(one.day, one.pair_day) for one in await list_lines(conn)}
    assert pairs == {(DAY, NEXT), (NEXT, DAY)}
    await reconciler.run(CHAIN, NEXT, RIPE + timedelta(days=30))
    async with pool.connection() as conn:
        assert {one.state for one in await list_lines(conn)} == {LineState.POSTED}, "what is paired does not ripen"


async def test_timing_that_nobody_answers_is_a_difference_after_two_days(
    pool: Pool, reconciler: Reconciler, days: DayClose
) -> None:
    await reconciler.keep(statement([paid("P1", 500)]))
    run = await reconciler.run(CHAIN, DAY, NEXT)
    assert (run.difference_fen, run.open_lines) == (0, 0)
    assert (await days.close("chain", DAY, NOW, "test")).closed
    await reconciler.keep(statement([], RIPE))
    await reconciler.run(CHAIN, RIPE, RIPE)
    refused = await days.close("chain", NEXT, NOW + timedelta(days=3), "test")
    [obstacle] = refused.obstacles
    assert (refused.closed, obstacle.code) == (False, "open_lines")
    async with pool.connection() as conn:
        [line] = await list_lines(conn, state="open")
    assert (line.verdict, obstacle.lines) == (Verdict.PROVIDER_ONLY, (line.id,))
    await reconciler.resolve(line.id, Remedy.SUSPENSE, "the customer is looked for", "test")
    assert await account_fen(pool, "timing:alipay") == 0
    assert await account_fen(pool, "suspense:alipay", NEXT) == -500, "the closed day is left alone"
    assert (await days.close("chain", NEXT, NOW + timedelta(days=3), "test")).closed


@pytest.mark.parametrize("remedy", [None, *Remedy])
async def test_a_difference_keeps_the_day_open_until_somebody_says_why(
    pool: Pool, reconciler: Reconciler, days: DayClose, remedy: Remedy | None
) -> None:
    await plant(pool, planted(3))
    lines = list(planted(3).lines())
    lines[1] = replace(lines[1], receipt_fen=lines[1].receipt_fen - 1)
    await reconciler.keep(statement(lines))
    refused = await days.close("chain", DAY, NOW, "test")
    assert [one.code for one in refused.obstacles] == ["open_lines"]
    assert refused.runs[0].difference_fen == -1
    [line_id] = refused.obstacles[0].lines
    with pytest.raises(Refused, match="why"):
        await reconciler.explain(line_id, "  ", "test")
    if remedy is None:
        await reconciler.explain(line_id, "a fen was lost in the coupon", "test")
    else:
        await reconciler.resolve(line_id, remedy, "known", "test")
    with pytest.raises(Refused, match="already"):
        await reconciler.explain(line_id, "again", "test")
    closed = await days.close("chain", DAY, NOW, "test")
    assert closed.closed, closed.obstacles
    assert closed.runs[0].difference_fen == (-1 if remedy is None else 0)
    async with pool.connection() as conn:
        [day] = await list_days(conn)
        assert (await verify(conn)).ok
        audited = await (await conn.execute("SELECT kind FROM audit_event ORDER BY n")).fetchall()
    assert day.closed
    assert [row[0] for row in audited] == [
        "reconciliation.explained" if remedy is None else "reconciliation.posted",
        "day.closed",
    ]


async def test_what_a_later_run_does_not_find_is_taken_back(pool: Pool, reconciler: Reconciler) -> None:
    await reconciler.keep(statement([paid("P1", 500), paid("P2", 300)]))
    await reconciler.run(CHAIN, DAY, NEXT)
    assert await account_fen(pool, "timing:alipay") == -800
    await sell(pool, "P1", 500, DAY)
    run = await reconciler.run(CHAIN, DAY, RIPE)
    assert (run.matched, run.lines) == (1, 1)
    assert await account_fen(pool, "timing:alipay") == -300
    async with pool.connection() as conn:
        [line] = await list_lines(conn)
    assert (line.order_no, line.state, line.verdict) == ("P2", LineState.OPEN, Verdict.PROVIDER_ONLY)


# ---------------------------------------------------------------- statements


async def test_a_statement_whose_lines_are_not_its_totals_is_refused_whole(pool: Pool, reconciler: Reconciler) -> None:
    lines = [paid("P1", 500), paid("P\\2\t", 300)]
    with pytest.raises(Refused) as refused:
        await reconciler.keep(StatementFile("alipay", "chain", DAY, totals_of(lines[:1]), lines))
    assert refused.value.code == "statement_incomplete"
    async with pool.connection() as conn:
        assert await (await conn.execute("SELECT 1 FROM statement_line")).fetchall() == []
    await reconciler.keep(statement(lines))
    await reconciler.keep(statement(lines))
    async with pool.connection() as conn:
        rows = await (await conn.execute("SELECT order_no FROM statement_line ORDER BY n")).fetchall()
    assert rows == [("P1",), ("P\\2\t",)], "fetched again it stands once, as it came"


async def test_a_statement_that_is_not_there_is_asked_for_later(reconciler: Reconciler) -> None:
    with pytest.raises(RetryLater) as later:
        await reconciler.fetch(CHAIN, DAY)
    assert later.value.code == "statement_not_ready"


async def test_more_differences_than_a_person_can_look_at_is_the_wrong_statement(pool: Pool) -> None:
    small = Reconciler(pool, nobody, limits=replace(Reconciler(pool, nobody).limits, differences_max=5))
    await plant(pool, planted(6))
    await small.keep(statement([]))
    with pytest.raises(Refused) as refused:
        await small.run(CHAIN, DAY, NEXT)
    assert refused.value.code == "too_many_differences"


# ---------------------------------------------------------------- closed days


async def test_a_closed_day_takes_nothing_more_and_reopens_with_a_reason(
    pool: Pool, reconciler: Reconciler, days: DayClose
) -> None:
    await plant(pool, planted(3))
    await reconciler.keep(statement(list(planted(3).lines())))
    assert (await days.close("chain", DAY, NOW, "test")).closed
    before = await account_fen(pool, CHAIN.clearing, DAY)
    await sell(pool, "late", 700, DAY)
    assert await account_fen(pool, CHAIN.clearing, DAY) == before
    assert await account_fen(pool, CHAIN.clearing, NEXT) == 700, "it belongs to the next open day"
    for refused in (
        reconciler.run(CHAIN, DAY, NEXT),
        reconciler.keep(statement([])),
        days.close("chain", DAY, NOW, "test"),
        days.reopen("chain", DAY, " ", "test"),
        days.reopen("chain", NEXT, "why not", "test"),
    ):
        with pytest.raises(Refused):
            await refused
    await days.reopen("chain", DAY, "a till was forgotten", "test")
    await sell(pool, "later", 70, DAY)
    assert await account_fen(pool, CHAIN.clearing, DAY) == before + 70
    [event] = await days.status("chain")
    assert (event.state, event.reason) == ("open", "a till was forgotten")


async def test_a_day_that_is_not_over_or_has_no_statement_says_so(
    pool: Pool, reconciler: Reconciler, days: DayClose
) -> None:
    await plant(pool, planted(3))
    early = await days.close("chain", DAY, datetime(2026, 3, 1, 15, 59, tzinfo=UTC), "test")
    assert [one.code for one in early.obstacles] == ["not_over"], "it is 23:59 in Shanghai"
    assert await days.status() == [], "nothing was touched"
    missing = await days.close("chain", DAY, NOW, "test")
    assert [one.code for one in missing.obstacles] == ["no_statement"]
    await sell(pool, "meanwhile", 10, DAY)
    assert await account_fen(pool, CHAIN.clearing, DAY) > 10, "the door is open again"
    empty = await days.close("north", DAY, NOW, "test")
    assert empty.closed, "an entity where nothing happened needs no statement"


async def test_a_close_that_was_cut_off_begins_again(pool: Pool, reconciler: Reconciler, days: DayClose) -> None:
    await plant(pool, planted(3))
    await reconciler.keep(statement(list(planted(3).lines())))
    await days.shut("chain", DAY, "test")  # and then the process died
    closed: CloseResult = await days.close("chain", DAY, NOW, "test")
    assert closed.closed
    runs: tuple[DayRun, ...] = closed.runs
    assert [run.difference_fen for run in runs] == [0]


async def test_days_close_in_order_up_to_the_one_that_is_asked_for(
    pool: Pool, reconciler: Reconciler, days: DayClose
) -> None:
    assert (await days.close("chain", DAY, NOW, "test")).closed
    await plant(pool, planted(2, NEXT))
    later = NOW + timedelta(days=9)
    stuck = await days.close("chain", DAY + timedelta(days=5), later, "test")
    assert (stuck.day, [one.code for one in stuck.obstacles]) == (NEXT, ["no_statement"])
    await reconciler.keep(statement(list(planted(2, NEXT).lines()), NEXT))
    done = await days.close("chain", DAY + timedelta(days=5), later, "test")
    assert (done.closed, done.day) == (True, DAY + timedelta(days=5))
