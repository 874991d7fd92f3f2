"""A change of hosts that is killed between any two of its steps: the next start goes on or back, and never both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from models.domain.errors import Fenced, Refused
from models.domain.ids import RegionId, StoreId, shard_of
from models.tables import journal, layouts
from models.tables.journal import Commit, Slot
from models.tables.layouts import Layout, carried
from runtime.clock import wall_now
from tests.integration.house import WATER, House
from tests.integration.wire import Sender, open_wire

pytestmark = pytest.mark.integration
REGION, APART = RegionId("north"), StoreId("s1")
STORES = [StoreId(f"s{n}") for n in range(40)]


# ---------------------------------------------------------------- what is drained stays drained


def test_drained_slots_are_carried_over_where_they_can_be() -> None:
    two, four = Layout(REGION, 1, 2), Layout(REGION, 2, 4)
    assert carried(two, four, {1}) == [1, 3]
    assert carried(four, two, {1, 3}) == [1]
    assert carried(two, Layout(REGION, 2, 3), {0, 1}) == [0, 1, 2]
    dedicated = Layout(REGION, 2, 2, (APART,))
    assert carried(two, dedicated, {shard_of(APART) % 2}) == [shard_of(APART) % 2, 2]
    assert carried(dedicated, Layout(REGION, 3, 3, (APART,)), {2}) == [3]
    for old, new, drained in ((four, two, {1}), (two, Layout(REGION, 2, 3), {0}), (dedicated, two, {2})):
        with pytest.raises(Refused) as refused:
            carried(old, new, drained)
        assert refused.value.code == "drained_mixed"


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sets(st.sampled_from(STORES), max_size=3),
    st.sets(st.sampled_from(STORES), max_size=3),
    st.sets(st.integers(0, 14)),
)
def test_no_store_is_served_or_stopped_by_a_change_of_hosts(
    before: int, after: int, were: set[StoreId], become: set[StoreId], drained: set[int]
) -> None:
    old, new = Layout(REGION, 1, before, tuple(sorted(were))), Layout(REGION, 2, after, tuple(sorted(become)))
    try:
        kept = carried(old, new, drained & set(old.ks))
    except Refused:
        return
    for store in STORES:
        assert (new.k_of(store) in kept) is (old.k_of(store) in drained)


# ---------------------------------------------------------------- the tables, killed at every statement


class Dying(AsyncConnection[Any]):
    """Its session ends before the n-th statement: to the database that is what a killed process is."""

    left = -1

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            with psycopg.connect(self.info.dsn, password=self.info.password, autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s)", (self.info.backend_pid,))
        return await super().execute(*arguments, **options)


@pytest.fixture
async def conn(migrated_database_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(migrated_database_url, autocommit=True) as one:
        yield one


async def claims(conn: AsyncConnection[Any], layout: Layout) -> list[Slot]:
    served = [k for k, state in (await layouts.slot_states(conn, layout)).items() if not state.drained]
    return [await journal.claim(conn, REGION, k, layout.slots, f"pid {k}") for k in served]


async def writes(conn: AsyncConnection[Any], slot: Slot) -> bool:
    """May a host with this claim write now?"""
    try:
        await journal.commit_batch(conn, slot, Commit(replies=[]), 15.0, wall_now())
    except Fenced:
        return False
    return True


@pytest.mark.parametrize("drained", [False, True])
async def test_a_change_that_dies_at_any_statement_leaves_each_store_one_owner(
    conn: AsyncConnection[Any], migrated_database_url: str, drained: bool
) -> None:
    old = await layouts.first_layout(conn, REGION, 2)
    if drained:
        await layouts.set_drained(conn, old, [1], True)
    holders = await claims(conn, old)
    died = 0
    for n in range(1, 100):
        async with await Dying.connect(migrated_database_url, autocommit=True) as dying:
            dying.left = n
            try:
                made = await layouts.next_layout(dying, old, 4, ())
            except psycopg.OperationalError:
                died += 1
                assert await layouts.current_layout(conn, REGION) == old, "nothing of it is there"
                assert all([await writes(conn, slot) for slot in holders]), "who served goes on"
            else:
                break
    assert died >= 5
    assert [await writes(conn, slot) for slot in holders] == [False] * len(holders), "fenced by the commit"
    assert await layouts.current_layout(conn, REGION) == made
    states = await layouts.slot_states(conn, made)
    assert [k for k, state in states.items() if state.drained] == ([1, 3] if drained else [])
    now = await claims(conn, made)
    assert all([await writes(conn, slot) for slot in now])
    for store in STORES:
        owners = [slot for slot in (*holders, *now) if slot.owns(store) and await writes(conn, slot)]
        assert len(owners) == (0 if states[made.k_of(store)].drained else 1)
    with pytest.raises(Refused, match="not in force"):
        await layouts.next_layout(conn, old, 8, ())


# ---------------------------------------------------------------- the whole, killed at every step


IN_FORCE = "4"
STEPS = ("1", "2", "3", "commit", IN_FORCE)
"""Of a change with more hosts: processes, sessions, stop, commit, serve."""


@pytest.mark.timeout(300)
async def test_a_resize_killed_at_every_step_is_finished_by_the_next(house: House) -> None:
    region = house.plant.region

    async def one_layout() -> tuple[int, int]:
        rows = house.rows("SELECT layout, slots FROM layout WHERE region = %s AND ended_at IS NULL", (region,))
        assert len(rows) == 1
        held = "SELECT count(*) FROM slot WHERE region = %s AND layout <> %s AND holder <> ''"
        assert house.rows(held, (region, rows[0][0])) == [(0,)], "nobody holds a slot of a layout that has ended"
        return int(rows[0][0]), int(rows[0][1])

    async with open_wire(house.plant) as ear:
        sender = Sender(house.plant, await house.register("gz-tianhe", "resize-killed"))
        await sender.begin(ear)

        async def served_once() -> None:
            scan = sender.event("scan", {"code": WATER[0], "quantity": 1})
            await sender.until_answered(ear, scan)
            assert house.rows("SELECT count(*) FROM inbox WHERE id = %s", (scan["id"],)) == [(1,)]

        try:
            before = await one_layout()
            for step in STEPS:
                told = await asyncio.to_thread(house.hosts, f"resize 2 aborted {step}")
                assert told["aborted"] == step
                number, slots = await one_layout()
                assert (number > before[0], slots) == ((True, 2) if step == IN_FORCE else (False, before[1]))
            await served_once()
            await asyncio.to_thread(house.hosts, "resize 2")
            found = await asyncio.to_thread(house.hosts)
            assert [row["state"] for row in found["hosts"]] == ["serving"] * 2
            assert {row["layout"] for row in found["hosts"]} == {(await one_layout())[0]}

            await asyncio.to_thread(house.probe_killed, "resize 1 killed 3")
            assert (await one_layout())[1] == 1, "the new layout is in force"
            await served_once()
            found = await asyncio.to_thread(house.hosts)
            assert [row["state"] for row in found["hosts"]] == ["serving"], "nobody repeated the verb"
        finally:
            await asyncio.to_thread(house.hosts, "resize 1")
    await asyncio.to_thread(house.check_books)
