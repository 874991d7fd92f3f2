"""Counts of stores and days out of a real database: what counts, on which day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest
from psycopg import AsyncConnection
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlmodel import Session, SQLModel

from models.domain.evidence import Arm, DayCount, GateSpec, MetricId, StageKind
from models.domain.evidence_metrics import METRICS
from models.domain.ids import StoreId
from models.tables import evidence
from models.tables.entities import DeadLetterRow, OutboxRow
from models.tables.evidence import DAYS_MAX, metrics_read, read_days, read_samples
from models.tables.members import MemberRow, MembershipRow
from models.tables.privacy import FaceDecisionDayRow
from models.tables.registry import StoreRow
from models.tables.sales import FaceDecisionRow, IncidentRow, SaleRow
from runtime.evidence_desk import prepare, verdict_due
from runtime.postgres import EmbeddedPostgres, sqlalchemy_url
from tests.conftest import fresh_database

A, B = StoreId("s-a"), StoreId("s-b")
DAY = date(2026, 6, 10)
NOON = datetime(2026, 6, 10, 4, tzinfo=UTC)
"""Noon in Shanghai."""
NIGHT = datetime(2026, 6, 10, 18, tzinfo=UTC)
"""02:00 of the 11th in Shanghai: still the 10th in a shop that cuts at 4."""


@pytest.fixture(scope="module")
def url(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    with fresh_database(embedded_postgres, migrated_template) as made:
        engine = create_engine(sqlalchemy_url(made), poolclass=NullPool)
        with Session(engine) as session:
            for rows in (stores(), happened(), [member()], memberships()):
                session.add_all(rows)
                session.flush()
            session.commit()
        engine.dispose()
        yield made


def stores() -> list[SQLModel]:
    return [
        StoreRow(
            id=store,
            chain="c",
            region="r",
            shard=0,
            name_zh="x",
            name_en="x",
            zone="Asia/Shanghai",
            cutoff_hour=cutoff,
            opened_at=NOON - timedelta(days=days),
        )
        for store, cutoff, days in ((A, 4, 400), (B, 0, 2))
    ]


def sale(n: int, store: str, day: str, fen: int, voided: datetime | None) -> SQLModel:
    return SaleRow(
        id=f"sale-{n}",
        receipt=f"r-{n}",
        session="v",
        store=store,
        lane="1",
        terminal="t",
        entity="e",
        business_date=day,
        at=NOON,
        gross_fen=fen,
        discount_fen=0,
        due_fen=fen,
        rounding_fen=0,
        suspense_fen=0,
        agency_fen=0,
        lines=[],
        tenders=[],
        uses=[],
        vouchers=[],
        voided_at=voided,
    )


def decided(n: int, outcome: str) -> SQLModel:
    return FaceDecisionRow(
        id=f"f-{n}",
        session="v",
        store=A,
        at=NOON,
        outcome=outcome,
        templates_searched=1,
        threshold_ppm=1,
        best_ppm=1,
        second_ppm=1,
        net_sha256="",
        reason="",
        scope="store",
        looks=1,
        floor_ppm=1,
        margin_ppm=1,
        liveness="",
        partial=False,
        digits_given=False,
        digits_required=False,
        amount_limited=False,
        elsewhere=False,
        calibration="",
    )


def asked(n: int, port: str, took_ms: int | None) -> SQLModel:
    return OutboxRow(
        id=f"o-{n}",
        region="r",
        shard=0,
        store=A,
        entity_kind="session",
        entity_id="x",
        port=port,
        verb="pay",
        request={},
        idempotency_key=f"k-{n}",
        not_before=NOON,
        attempts=1,
        created_at=NOON,
        done_at=None if took_ms is None else NOON + timedelta(milliseconds=took_ms),
    )


def happened() -> list[SQLModel]:
    sales = [
        (A, "2026-06-10", 1000, None),
        (A, "2026-06-10", 500, None),
        (A, "2026-06-10", 9900, NOON),
        (A, "2026-06-09", 700, None),
        (B, "2026-06-10", 300, None),
    ]
    incidents = [
        (A, "payment_failed", NOON),
        (A, "payment_failed", NIGHT),
        (B, "payment_failed", NIGHT),
        (A, "complaint", NOON),
        (A, "face_refused", NOON),
        (A, "cancel_unclear", NOON),
        (A, "clock_skew", NOON),
        (A, "paid_again", NOON),
    ]
    asks = [("payments", 250), ("payments", 350), ("vouchers", 9000), ("payments", None)]
    return [
        *(sale(n, *one) for n, one in enumerate(sales)),
        *(
            IncidentRow(id=f"i-{n}", store=store, terminal="t", kind=kind, at=at)
            for n, (store, kind, at) in enumerate(incidents)
        ),
        DeadLetterRow(
            terminal="t",
            id="m",
            region="r",
            store=A,
            entity_kind="session",
            entity_id="x",
            message={},
            error="boom",
            at=NOON,
        ),
        *(decided(n, outcome) for n, outcome in enumerate(("accepted", "not_recognised", "digits"))),
        FaceDecisionDayRow(store=A, day="2026-06-09", outcome="not_recognised", reason="", decisions=7),
        FaceDecisionDayRow(store=A, day="2026-06-09", outcome="accepted", reason="", decisions=3),
        *(asked(n, *one) for n, one in enumerate(asks)),
    ]


def member() -> SQLModel:
    return MemberRow(id="m", chain="c", region="r", home_store=A, joined_at=NOON)


def memberships() -> list[SQLModel]:
    return [
        MembershipRow(
            id=f"p-{n}",
            enrol_key=f"k-{n}",
            member="m",
            chain="c",
            region="r",
            store=A,
            terminal="t",
            plan=f"plan-{n}",
            plan_version=1,
            owner="e",
            generation=generation,
            state=state,
            fee_fen=1000,
            fee_eff_fen=1000,
            guarantee="huabei_hold",
            enrolled_at=NOON,
            expires_at=NOON,
            cutoff_at=NOON,
        )
        for n, (state, generation) in enumerate((("ACTIVE", 1), ("REJECTED", 1), ("ACTIVE", 2)))
    ]


EXPECTED = {
    "payment_failure_rate": (2, 4),
    "unclear_money": (1, 2),
    "errors": (1, 2),
    "terminal_faults": (1, 2),
    "complaints": (1, 2),
    "face_refusals": (1, 2),
    "face_unrecognised_rate": (1, 3),
    "payment_answer_ms": (600, 2),
    "sales_per_day": (2, 1),
    "takings_per_day": (1500, 1),
    "basket_fen": (1500, 2),
    "enrolments": (1, 2),
}


@pytest.mark.parametrize("metric", sorted(METRICS))
async def test_each_metric_counts_what_its_definition_says(url: str, metric: MetricId) -> None:
    async with await AsyncConnection.connect(url) as conn:
        days = await read_days(conn, metric, [A, B], DAY - timedelta(days=3), DAY + timedelta(days=2))
    by_day = {one.day: one for one in days[A]}
    assert by_day[DAY] == DayCount(DAY, *EXPECTED[metric])
    assert len(days[A]) == 5, "a row for each day, zeros too"
    assert [one.day for one in days[B]] == [DAY + timedelta(days=n) for n in (-2, -1, 0, 1)], "none before it opened"


def test_every_metric_has_a_statement_and_every_statement_a_metric() -> None:
    assert metrics_read() == set(METRICS) == set(EXPECTED)


async def test_decisions_past_their_retention_still_count(url: str) -> None:
    async with await AsyncConnection.connect(url) as conn:
        days = await read_days(conn, MetricId("face_unrecognised_rate"), [A], DAY - timedelta(days=1), DAY)
    assert days[A] == (DayCount(DAY - timedelta(days=1), 7, 10),)


async def test_a_shop_that_cuts_at_four_books_the_night_to_the_day_before(url: str) -> None:
    async with await AsyncConnection.connect(url) as conn:
        days = await read_days(conn, MetricId("payment_failure_rate"), [B], DAY, DAY + timedelta(days=2))
    assert [one.numerator for one in days[B]] == [0, 1]


async def test_samples_are_split_at_each_store_s_own_start(url: str) -> None:
    metric = MetricId("sales_per_day")
    async with await AsyncConnection.connect(url) as conn:
        found = await read_samples(
            partial(read_days, conn), [metric], {A: DAY}, [B, StoreId("unknown")], 3, DAY + timedelta(days=1)
        )
        with pytest.raises(ValueError, match="no store"):
            await read_samples(partial(read_days, conn), [metric], {}, [B], 3, DAY)
        with pytest.raises(ValueError, match="days"):
            await read_days(conn, metric, [A], DAY, DAY + timedelta(days=DAYS_MAX + 1))
    a, b, unknown = found[metric]
    assert (a.arm, [one.numerator for one in a.before], [one.numerator for one in a.after]) == (
        Arm.TREATED,
        [0, 0, 1],
        [2],
    )
    assert (b.arm, len(b.before), len(b.after)) == (Arm.CONTROL, 2, 1)
    assert not unknown.seen


async def test_a_stage_is_prepared_and_judged_from_the_database(url: str) -> None:
    rule = GateSpec(StageKind.SAFETY, (MetricId("errors"),), look_days=(1,), before_days=3)
    async with await AsyncConnection.connect(url) as conn:
        ready = await prepare(partial(read_days, conn), rule, [A], {A: {"region": "r"}, B: {"region": "r"}}, DAY)
        assert (ready.all_controls, ready.short, ready.outlook) == ((B,), (), None)
        assert await verdict_due(partial(read_days, conn), rule, {A: DAY}, ready.all_controls, DAY) is None
        first = await verdict_due(partial(read_days, conn), rule, {A: DAY}, ready.all_controls, DAY + timedelta(days=1))
        again = await verdict_due(
            partial(read_days, conn), rule, {A: DAY}, ready.all_controls, DAY + timedelta(days=30)
        )
    assert first is not None
    assert first == again
    [finding] = first.findings
    assert (finding.store, finding.before, finding.after) == (A, 0, 500)
    primary = replace(rule, kind=StageKind.PRIMARY, primary=MetricId("takings_per_day"))
    async with await AsyncConnection.connect(url) as conn:
        ready = await prepare(partial(read_days, conn), primary, [A], {A: {"region": "r"}, B: {"region": "q"}}, DAY)
    assert (ready.all_controls, ready.short) == ((), (A,))
    assert ready.outlook is not None
    assert not ready.outlook.enough


async def test_the_answers_of_a_few_stores_are_found_by_their_index(url: str) -> None:
    async with await AsyncConnection.connect(url) as conn:
        await conn.execute("SET enable_seqscan = off")
        counted, numerator, denominator = evidence._STATEMENTS[MetricId("payment_answer_ms")]
        statement = evidence._GRID.format(counted=counted, numerator=numerator, denominator=denominator)
        cursor = await conn.execute(f"EXPLAIN {statement}", {"stores": [A], "since": DAY, "until": DAY})
        asked = [line for (line,) in await cursor.fetchall()]
    assert any("outbox_answered" in line for line in asked), "all asks ever made are read instead"
