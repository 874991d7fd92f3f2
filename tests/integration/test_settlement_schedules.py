"""Schedules of settlement on real PostgreSQL end as they do over rows in memory, row by row."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from actors.ports import ReverseUses
from gateway.providers.port import PaymentProvider
from models.domain.ids import BenefitId, SaleId, SessionId, StoreId, UsageId
from models.domain.ledger import hold_placed
from models.domain.messages import SaleUse
from models.domain.payments import PayResult, Succeeded, answer_document
from models.tables import credit_records
from models.tables.control import control_totals
from models.tables.ledger import insert_transactions, load_transaction
from models.tables.memberships import STANDING_COLUMNS, insert_membership, save_hold, standing_from
from models.tables.plans import save_plan
from models.tables.settlement import calls_of
from runtime.credits import note_use
from runtime.memberships import Memberships
from runtime.postgres import EmbeddedPostgres
from tests.conftest import fresh_database
from tests.integration.money_shop import seed
from tests.simulation.settlement_provider import SUBJECT, Does
from tests.simulation.settlement_rows import in_memory
from tests.simulation.settlement_schedules import CHAIN, REGION, Beside, Committed, Play, Profile, Schedule, play
from tests.simulation.settlement_uses import PAID_FEN
from tests.simulation.settlement_world import (
    PLAN,
    PLANS,
    PROVIDER,
    REVERSED_BY,
    MemoryWorld,
    agreement_of,
    drawn,
    planted,
)

Pool = AsyncConnectionPool[AsyncConnection[Any]]

_MEMBER = """
INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user, joined_at)
VALUES (%(member)s, %(chain)s, %(region)s, %(store)s, '', %(id)s, '0000', %(id)s, %(enrolled_at)s)
"""
_USE = """
INSERT INTO usage (id, membership, benefit, fen, class, paid_fen, reversed_fen, biz_time, received_at, entity, store,
                   terminal, sale, seq)
VALUES (%s, %s, 'coupon8', %s, 'REGULAR', %s, 0, %s, %s, %s, %s, 't-1', %s, 1)
"""
_TELL = """
UPDATE settlement_call SET state = 'ANSWERED', answer = %s
WHERE request_number = %s AND state = 'POSTED' AND answer->>'answer' = 'failed'
"""
_TOLD = "UPDATE credit_use SET state = 'done' WHERE state = 'open'"
_BLOCKED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND backend_type = 'client backend'
"""


class SqlWorld:
    """See World."""

    def __init__(self, pool: Pool, watch: AsyncConnection[Any]) -> None:
        self._pool = pool
        self._watch = watch
        self._last_use = ""

    def pool(self) -> Pool:
        return self._pool

    async def plant(self, profile: Profile) -> dict[str, int]:
        await seed(self._pool)
        holds: dict[str, int] = {}
        async with self._pool.connection() as conn, conn.cursor() as cur:
            for plan in (PLAN, *PLANS.values()):
                await save_plan(cur, CHAIN, plan)
            for one, uses in planted(profile):
                await cur.execute(_MEMBER, {name: getattr(one, name) for name in one.__slots__ if name != "plan"})
                await insert_membership(cur, one, clerk=None)
                counted = (one.used_fen, one.task_done, one.id)
                await cur.execute("UPDATE membership SET used_fen = %s, task_done = %s WHERE id = %s", counted)
                secured = one.id == SUBJECT and profile is Profile.CREDIT
                if secured:
                    await credit_records.insert_agreement(cur, agreement_of(one))
                if one.hold_fen:
                    await save_hold(cur, one.id, one.hold_no, one.hold_fen)
                for use in uses:
                    place, at = use.place, one.enrolled_at
                    values_of = (use.id, one.id, use.fen, PAID_FEN, at, at, place.entity, place.store, f"s-{use.id}")
                    await cur.execute(_USE, values_of)
                    if secured:
                        await note_use(cur, one, use.id, f"s-{use.id}", use.fen, PAID_FEN, at, at)
                        await cur.execute(_TOLD)
                    self._last_use = use.id if one.id == SUBJECT else self._last_use
                if one.hold_fen:
                    holds[one.hold_no] = one.hold_fen
                    day = one.business_date(one.enrolled_at)
                    placed = hold_placed(
                        one.hold_order, entity=one.owner, provider=PROVIDER, hold_fen=one.hold_fen, business_date=day
                    )
                    await insert_transactions(cur, [placed], one.enrolled_at)
        return holds

    async def reverse(self, fen: int, now: datetime) -> None:
        def nobody(_owner: object, _provider: object = "") -> PaymentProvider:
            raise AssertionError("a reversal asks nobody")

        [(subject, uses)] = [(one, uses) for one, uses in planted(Profile.FEE) if one.id == SUBJECT]
        assert uses
        use = SaleUse(UsageId(self._last_use), subject.id, BenefitId("coupon8"), fen)
        request = ReverseUses(SessionId("v"), StoreId("s-own"), SaleId("r"), (use,), now)
        memberships = Memberships(self._pool, nobody, pepper=b"a pepper", wall=lambda: now)
        await memberships.ask(REVERSED_BY, request)
        async with self._pool.connection() as conn:
            await conn.execute(_TOLD)

    async def tell(self, number: str) -> bool:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await cur.execute("SELECT fen FROM settlement_call WHERE request_number = %s", (number,))
            row = await cur.fetchone()
            fen = row[0] if row else 0
            taken = Succeeded(PayResult(fen, fen, fen, fen, (), f"T{number}"))
            await cur.execute(_TELL, (Jsonb(answer_document(taken)), number))
            return cur.rowcount == 1

    async def state(self) -> Committed:
        conn = self._watch
        async with conn.cursor() as cur:
            await cur.execute("SELECT id FROM membership")
            ids = [row[0] for row in await cur.fetchall()]
            calls = [call for id_ in ids for call in await calls_of(cur, id_)]
            await cur.execute("SELECT id FROM txn")
            booked = [row[0] for row in await cur.fetchall()]
            transactions = {id_: txn for id_ in booked if (txn := await load_transaction(cur, id_)) is not None}
            await cur.execute(f"SELECT {STANDING_COLUMNS} FROM membership")
            standings = [await standing_from(cur, row) for row in await cur.fetchall()]
        return Committed({one.id: one for one in standings}, {call.number: call for call in calls}, transactions)

    async def blocked(self) -> int:
        row = await (await self._watch.execute(_BLOCKED)).fetchone()
        assert row is not None
        return int(row[0])

    async def totals_agree(self, batch_at: datetime) -> bool:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            return (await control_totals(cur, CHAIN, REGION, batch_at)).agree


async def on_both(server: EmbeddedPostgres, template: str, schedule: Schedule) -> None:
    """Plays it twice; every row that counts is the same."""
    with in_memory():
        memory = await play(schedule, MemoryWorld())
    with fresh_database(server, template) as url:
        async with (
            AsyncConnectionPool[AsyncConnection[Any]](url, min_size=1, max_size=6, open=False) as pool,
            await AsyncConnection.connect(url, autocommit=True) as watch,
        ):
            real = await play(schedule, SqlWorld(pool, watch))
            assert await rows(real) == await rows(memory), schedule
            assert real.points == memory.points


async def rows(played: Play) -> tuple[Any, ...]:
    state = await played.world.state()
    calls = sorted((replace(call, hold_no="", captured_number="") for call in state.calls.values()), key=str)
    booked = sorted(state.transactions.values(), key=lambda txn: txn.id)
    entries = [(txn.kind, txn.request_number, txn.entries, txn.memo) for txn in booked]
    return state.standings, calls, entries, played.provider.named


PLAIN = [
    Schedule(Profile.CLAWBACK, (Does.EFFECT_UNHEARD,), crash=9, early=True),
    Schedule(Profile.ONE_USE, (Does.FAILS, Does.FAILS), crash=20, reversal=27, chunk=1),
    Schedule(Profile.SHARED, (Does.FAILS_AND_COLLECTS,), reversal=12, beside=Beside.WHOLE_LEASE_OVER, beside_at=6),
]
"""What the others of a kind do is found in soak, too: drawn ones of every profile."""
SOAKED = [
    Schedule(Profile.FEE, (Does.ARRIVES_LATE,), reversal=7, beside=Beside.WHOLE_LEASE_OVER, beside_at=6),
    Schedule(Profile.UNUSED, (Does.PENDS_THEN_SUCCEEDS,), crash=6, beside=Beside.IN_TURN, beside_at=2),
    Schedule(Profile.FREE, (Does.FAILS_AND_COLLECTS,), reversal=12, back_fen=1),
    Schedule(Profile.TASK_KEPT, (Does.FAILS,), crash=0, reversal=0),
    Schedule(Profile.TASK_KEPT, (Does.NO_EFFECT,), crash=5, reversal=3),
    Schedule(Profile.TASK_MISSED, (Does.PENDS_THEN_FAILS, Does.SUCCEEDS), crash=0, reversal=0, back_fen=299),
    Schedule(Profile.CREDIT, (Does.ARRIVES_LATE,), crash=6, reversal=9),
    Schedule(Profile.CREDIT, (Does.FAILS, Does.EFFECT_UNCLEAR), crash=0, reversal=0),
    Schedule(Profile.SHARED, (Does.FAILS, Does.FAILS), reversal=20, back_fen=799),
]


@pytest.mark.parametrize("schedule", PLAIN, ids=lambda schedule: schedule.profile.value)
async def test_memory_and_postgresql_play_the_same(
    embedded_postgres: EmbeddedPostgres, migrated_template: str, schedule: Schedule
) -> None:
    await on_both(embedded_postgres, migrated_template, schedule)


@pytest.mark.soak
@pytest.mark.parametrize("schedule", SOAKED, ids=str)
async def test_memory_and_postgresql_play_more_of_the_same(
    embedded_postgres: EmbeddedPostgres, migrated_template: str, schedule: Schedule
) -> None:
    await on_both(embedded_postgres, migrated_template, schedule)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(200))
async def test_drawn_schedules_too(embedded_postgres: EmbeddedPostgres, migrated_template: str, number: int) -> None:
    await on_both(embedded_postgres, migrated_template, drawn(random.Random(number)))
