"""Evidence in the driver, on a real database: a look is spent once, harm stops by itself, too little passes nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from actors.rollout_effects import Promote
from models.domain.errors import Refused
from models.domain.evidence import GateSpec, MetricId, Outcome, StageKind
from models.domain.rollout import RolloutPolicy, RolloutState, StageState
from models.domain.rollout_gate import GateCode, Way
from runtime.postgres import EmbeddedPostgres
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_verbs import decided_in_words
from runtime.rollouts import RolloutDriver
from tests.conftest import fresh_database
from tests.integration.rollout_shop import (
    AUTHOR,
    OTHER,
    STORES,
    Clock,
    KilledHere,
    Region,
    begun_with,
    documents,
    opened,
    plant,
    report,
    small_policy,
)

pytestmark = pytest.mark.integration

RATE = MetricId("payment_failure_rate")
FIRST = date(2026, 3, 3)
"""The first full day under the change: it begins on the second of March."""
LOOK = datetime(2026, 3, 6, 1, 0, tzinfo=UTC)
"""Two full days later, and one more for the books to close."""
SALES_A_DAY = 40
PILOT = (STORES[0], STORES[1])
SAFETY = GateSpec(StageKind.SAFETY, (RATE,), look_days=(2,), before_days=14)


def sell(conn: psycopg.Connection[Any], stores: Sequence[str], since: date, days: int) -> None:
    """Every store sells the same on each day."""
    conn.execute(
        """INSERT INTO sale (id, receipt, session, store, lane, terminal, entity, business_date, at, gross_fen,
             discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders, uses, till_txn)
           SELECT concat_ws('/', s, day, n), concat_ws('/', day, n), 'v', s, 'one', 't', 'e', day, now(), 500, 0, 500,
             0, 0, 0, '[]', '[]', '[]', ''
           FROM unnest(%(stores)s::text[]) s, generate_series(1, %(n)s) n,
             (SELECT to_char(%(since)s::date + d, 'YYYY-MM-DD') FROM generate_series(0, %(days)s - 1) d) AS o (day)""",
        {"stores": list(stores), "since": since, "days": days, "n": SALES_A_DAY},
    )


def fail(conn: psycopg.Connection[Any], stores: Sequence[str], since: date, days: int, a_day: int) -> None:
    """So many payments fail on each day, one more on every other."""
    conn.execute(
        """INSERT INTO incident (id, store, terminal, kind, at, detail)
           SELECT concat_ws('/', s, %(since)s::date + d, n), s, 't', 'payment_failed',
             (%(since)s::date + d + interval '12 hours') AT TIME ZONE 'Asia/Shanghai', ''
           FROM unnest(%(stores)s::text[]) s, generate_series(0, %(days)s - 1) d,
             generate_series(1, %(n)s + d %% 2) n""",
        {"stores": list(stores), "since": since, "days": days, "n": a_day},
    )


@pytest.fixture(scope="module")
def sold(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """Six stores with a past of sixteen days, and tomorrows for those without the change."""
    with fresh_database(embedded_postgres, migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            plant(conn)
            conn.execute("UPDATE store SET opened_at = '2025-01-01'")
            since = FIRST - timedelta(days=16)
            sell(conn, STORES, since, 16)
            fail(conn, STORES, since, 16, 1)
            sell(conn, STORES[2:], FIRST, 2)
            fail(conn, STORES[2:], FIRST, 2, 1)
        yield embedded_postgres, urlsplit(url).path.lstrip("/")


@pytest.fixture
def url(sold: tuple[EmbeddedPostgres, str]) -> Iterator[str]:
    server, template = sold
    with fresh_database(server, template) as made:
        yield made


def policy(rule: GateSpec = SAFETY) -> RolloutPolicy:
    """The pilot is named, and its evidence is asked for."""
    whole = small_policy()
    pilot, rest = whole.stages
    return replace(whole, stages=(replace(pilot, named=PILOT, policy=replace(pilot.policy, evidence=rule)), rest))


async def soaked(desk: RolloutDesk, driver: RolloutDriver, url: str, clock: Clock) -> Any:
    """The pilot has the change and has soaked."""
    number = await begun_with(desk, policy())
    for _ in range(3):
        await driver.round()
        report(url)
        clock.on(5)
    return number


def looks(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute("SELECT count(*) FROM rollout_verdict").fetchone()
    assert row is not None
    return int(row[0])


async def test_harm_halts_and_rolls_back_by_itself(url: str) -> None:
    clock, before = Clock(), documents(url)
    with psycopg.connect(url, autocommit=True) as conn:
        sell(conn, PILOT, FIRST, 2)
        fail(conn, PILOT, FIRST, 2, 12)
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        number = await soaked(desk, driver, url, clock)
        waits = await desk.show(number)
        assert waits.turn.why.en == "waits for: the first look, after 2 full days"
        clock.now = LOOK - timedelta(hours=10)  # the second day is over, its books are not
        await driver.round()
        assert looks(url) == 0
        clock.now = LOOK
        assert (await desk.show(number)).turn.stages[0].gate.code is GateCode.EVIDENCE_MISSING
        assert looks(url) == 0, "whoever only watches spends nothing"
        for _ in range(4):
            await driver.round()
            report(url)
            clock.on(5)
        shown = await desk.show(number)
        assert shown.turn.rollout.state is RolloutState.ROLLED_BACK
        assert shown.turn.rollout.stages[0].state is StageState.HALTED
        assert documents(url) == before
        [decided] = await desk.decisions(number)
        assert (decided.gate.way, decided.gate.code) == (Way.HALT, GateCode.EVIDENCE_HARM)
        assert decided.verdict is not None
        assert decided.verdict.outcome is Outcome.UNSAFE
        assert {one.store for one in decided.verdict.findings if one.unsafe} == {None, *PILOT}
        assert {point.store for point in decided.verdict.points if point.arm == "treated"} == set(PILOT)
        [look] = await desk.looks(number)
        assert look.verdict == decided.verdict
        said = decided_in_words(decided, "en")
        assert "payment failures got worse" in said
        assert "1/1 unsafe" in said
        assert "succeeded 2" in said


async def test_no_harm_awaits_a_person_and_a_restart_looks_no_second_time(url: str) -> None:
    clock = Clock()
    with psycopg.connect(url, autocommit=True) as conn:
        sell(conn, PILOT, FIRST, 2)
        fail(conn, PILOT, FIRST, 2, 1)
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        number = await soaked(desk, driver, url, clock)

        async def dies(where: str) -> None:
            if where == "looked":
                raise KilledHere

        clock.now = LOOK
        with pytest.raises(KilledHere):
            await RolloutDriver(databases, hosts, clock, dies).round()  # type: ignore[arg-type]
        assert looks(url) == 1
        assert not await desk.decisions(number), "the look is journalled before anything is decided on it"
        with psycopg.connect(url, autocommit=True) as conn:
            fail(conn, PILOT, FIRST + timedelta(days=30), 1, 1)
            conn.execute("UPDATE incident SET id = id || '/late', at = at - interval '29 days' WHERE at > '2026-04-01'")
        pair = [RolloutDriver(databases, hosts, clock) for _ in range(2)]  # type: ignore[arg-type]
        await asyncio.gather(*(one.round() for one in pair))
        assert looks(url) == 1
        shown = await desk.show(number)
        assert shown.turn.stages[0].gate.code is GateCode.APPROVAL_MISSING
        [decided] = shown.decisions
        assert decided.gate.way is Way.AWAIT_APPROVAL
        assert decided.verdict is not None
        assert decided.verdict.outcome is Outcome.SAFE
        with pytest.raises(Refused) as refused:
            await desk.tell(number, Promote(AUTHOR))
        assert refused.value.code == "own_rollout"
        await desk.tell(number, Promote(OTHER))
        assert (await desk.show(number)).turn.rollout.stage == 1


async def test_too_little_data_holds_and_says_of_whom(url: str) -> None:
    clock = Clock()
    with psycopg.connect(url, autocommit=True) as conn:
        sell(conn, PILOT[:1], FIRST, 2)
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        number = await soaked(desk, driver, url, clock)
        clock.now = LOOK
        await driver.round()
        shown = await desk.show(number)
        assert shown.turn.rollout.state is RolloutState.RUNNING
        assert shown.turn.stages[0].gate.code is GateCode.EVIDENCE_INVALID
        assert shown.turn.why.en.startswith("the last look cannot be judged")
        assert PILOT[1] in shown.turn.why.en
        with pytest.raises(Refused) as refused:
            await desk.tell(number, Promote(OTHER))
        assert refused.value.code == "not_waiting"


async def test_the_first_of_two_looks_passes_nobody(url: str) -> None:
    clock = Clock()
    with psycopg.connect(url, autocommit=True) as conn:
        sell(conn, PILOT, FIRST, 9)
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Region(url, clock)
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        number = await begun_with(desk, policy(replace(SAFETY, look_days=(2, 5))))
        for moment in (clock.now, clock.now + timedelta(seconds=5), clock.now + timedelta(seconds=10), LOOK):
            clock.now = moment
            await driver.round()
            report(url)
        shown = await desk.show(number)
        assert shown.turn.stages[0].gate.code is GateCode.EVIDENCE_WAITS
        assert shown.turn.why.en.startswith("waits for: look 2, after 5 full days; so far: no harm seen in 2 stores")
        clock.now = LOOK - timedelta(days=1)  # a clock that jumps back spends nothing, and forgets nothing
        await driver.round()
        assert looks(url) == 1
        clock.now = LOOK + timedelta(days=3)
        await driver.round()
        assert looks(url) == 2
        assert (await desk.show(number)).turn.stages[0].gate.code is GateCode.APPROVAL_MISSING
