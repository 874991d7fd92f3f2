"""A host that lost its slot writes no row and sends nothing, wherever it was when it was frozen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from devices.link import Delivery, DeliveryReceipt, LinkError, LinkListener, Outgoing
from devices.topics import up_filters
from models.domain.errors import Fenced, Refused, RetryLater
from models.domain.ids import RegionId, StoreId, shard_of
from models.tables import journal, layouts
from models.tables.journal import Slot
from runtime.bench import failures
from runtime.fencing import FRESH_S, Fence, FencedLink, fenced_pool, slot_filters
from runtime.plant import HOST_DATABASE_OPTIONS, Plant, connector, limit_transactions
from tests.integration.house import House, Note

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

REGION = RegionId("north")
Conn = psycopg.AsyncConnection[Any]


@pytest.fixture
async def conn(migrated_database_url: str) -> AsyncIterator[Conn]:
    async with await psycopg.AsyncConnection.connect(migrated_database_url, autocommit=True) as opened:
        yield opened


@dataclass
class Ended:
    """In place of the end of the process."""

    times: int = 0

    def __call__(self) -> None:
        self.times += 1


@dataclass
class Wire:
    """In place of a link: what it was told to send, whom it told."""

    sent: list[str] = field(default_factory=list)
    acked: list[DeliveryReceipt] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    filters: tuple[str, ...] = ()

    def listen(self, listener: LinkListener, filters: Any) -> None:
        self.filters = tuple(filters)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, topic: str, payload: bytes, **options: Any) -> None:
        self.sent.append(topic)

    async def publish_all(self, messages: Any) -> int:
        self.sent += [message.topic for message in messages]
        return 0

    def ack(self, receipt: DeliveryReceipt) -> bool:
        self.acked.append(receipt)
        return True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def delivered(self, delivery: Delivery) -> None:
        self.heard.append(delivery.topic)

    def connected(self, epoch: int, session_present: bool) -> None: ...

    def disconnected(self, reason: str) -> None: ...

    async def may_reconnect(self, taken_over: bool) -> bool:
        return True


class Held:
    """A fence on a clock of the test's own, with the slot that it guards."""

    def __init__(self, url: str) -> None:
        self.now, self.url, self.ended, self.looks = 100.0, url, Ended(), 0
        self.fence = Fence(self._connect, self.ended, clock=lambda: self.now)

    async def _connect(self) -> Conn:
        self.looks += 1
        if not self.url:
            raise OSError("no database")
        return await psycopg.AsyncConnection.connect(self.url, autocommit=True)


@pytest.fixture
async def held(migrated_database_url: str, conn: Conn) -> AsyncIterator[Held]:
    subject = Held(migrated_database_url)
    subject.fence.begin(await journal.claim(conn, REGION, 0, 1, "first"))
    await subject.fence.hold()
    yield subject
    await subject.fence.end()


async def test_a_look_is_good_for_two_seconds(held: Held, conn: Conn) -> None:
    await journal.claim(conn, REGION, 0, 1, "second")
    held.now += FRESH_S
    await held.fence.hold()
    held.now += 0.1
    with pytest.raises(Fenced):
        await held.fence.hold()
    assert held.ended.times == 1


async def test_without_the_database_nothing_leaves(held: Held) -> None:
    link = FencedLink(Wire(), held.fence, held.fence.slot)
    await held.fence._conn.close()  # type: ignore[union-attr]
    held.url, held.now = "", held.now + FRESH_S + 1
    with pytest.raises(RetryLater):
        await held.fence.hold()
    with pytest.raises(LinkError):
        await link.publish("so/1/x", b"")
    assert await link.publish_all([Outgoing(b"t", b"", 1, None)]) == 1
    assert held.ended.times == 0


async def test_a_thawed_host_publishes_nothing(held: Held, conn: Conn) -> None:
    wire = Wire()
    link = FencedLink(wire, held.fence, held.fence.slot)
    await link.publish("before", b"")
    await journal.claim(conn, REGION, 0, 1, "second")
    held.now += 20
    with pytest.raises(Fenced):
        await link.publish("after", b"")
    with pytest.raises(Fenced):
        await link.publish_all([Outgoing(b"after", b"", 1, None)])
    assert wire.sent == ["before"]


async def test_a_ports_transaction_is_behind_the_epoch_whatever_the_clock_says(held: Held, conn: Conn) -> None:
    pool = fenced_pool(held.fence, held.url, HOST_DATABASE_OPTIONS, 2)
    await pool.open()
    try:
        async with pool.connection() as one:
            await one.execute("CREATE TABLE trace (n int)")
        await journal.claim(conn, REGION, 0, 1, "second")
        with pytest.raises(Fenced):
            async with pool.connection() as one:
                await one.execute("INSERT INTO trace VALUES (1)")
    finally:
        await pool.close()
    cursor = await conn.execute("SELECT count(*) FROM trace")
    assert await cursor.fetchone() == (0,)
    assert held.ended.times == 1


async def test_a_hosts_transactions_are_bounded(held: Held) -> None:
    pool = fenced_pool(held.fence, held.url, HOST_DATABASE_OPTIONS, 1)
    await pool.open()
    try:
        async with pool.connection() as one:
            cursor = await one.execute("SHOW transaction_timeout")
            assert await cursor.fetchone() == ("2s",)
    finally:
        await pool.close()
    async with await connector(Plant(Path(), database_url=held.url))() as one:
        cursor = await one.execute("SHOW transaction_timeout")
        assert await cursor.fetchone() == ("2s",)


async def test_a_server_older_than_the_bound_is_not_asked_for_it() -> None:
    class Older:
        """In place of a connection to PostgreSQL 16: it would refuse the setting."""

        info = SimpleNamespace(server_version=160_004)

    await limit_transactions(cast(Conn, Older()))
    assert "transaction_timeout" not in HOST_DATABASE_OPTIONS.replace("idle_in_transaction_session_timeout", "")


# ---------------------------------------------------------------- layouts


async def test_the_next_layout_fences_the_last(conn: Conn) -> None:
    old = await journal.claim(conn, REGION, 1, 2, "old")
    layout = await layouts.current_layout(conn, REGION)
    assert layout is not None
    assert (layout.number, layout.slots) == (1, 2)
    made = await layouts.next_layout(conn, layout, 1, [])
    assert not await journal.still_holds(conn, old)
    with pytest.raises(Refused, match="slot 1"):
        await journal.claim(conn, REGION, 1, 2, "late")
    new = await journal.claim(conn, REGION, 0, 2, "new")
    assert (new.layout, new.slots) == (made.number, 1) == (2, 1)
    assert new.epoch > old.epoch, "leases of an older layout are of an older epoch"
    with pytest.raises(Refused, match="layout 1"):
        await layouts.next_layout(conn, layout, 3, [])


async def test_a_drained_slot_is_not_claimed_and_a_restart_is_counted(conn: Conn) -> None:
    first = await journal.claim(conn, REGION, 0, 1, "first")
    await layouts.release_slot(conn, REGION, first.layout, 0, first.epoch)
    await journal.claim(conn, REGION, 0, 1, "after an end in order")
    await journal.claim(conn, REGION, 0, 1, "after a crash")
    layout = await layouts.first_layout(conn, REGION, 9)
    assert (await layouts.slot_states(conn, layout))[0].restarts == 1
    await layouts.set_drained(conn, layout, [0], True)
    assert await layouts.may_claim(conn, REGION, 0, 1) is None
    with pytest.raises(Refused, match="drained"):
        await journal.claim(conn, REGION, 0, 1, "drained")
    await layouts.set_drained(conn, layout, [0], False)
    assert await layouts.may_claim(conn, REGION, 0, 1) == layout


def test_a_dedicated_store_has_its_own_host_and_leaves_its_shared_one() -> None:
    store, other = StoreId("sz-yantian"), StoreId("gz-tianhe")
    layout = layouts.Layout(REGION, 7, 2, (store,))
    own = Slot(REGION, 7, 2, 2, 1, store)
    shared = [Slot(REGION, 7, k, 2, 1, None, (store,)) for k in range(2)]
    assert layout.k_of(store) == 2
    assert [slot.owns(store) for slot in (*shared, own)] == [False, False, True]
    assert [slot.owns(other) for slot in (*shared, own)] == [k == layout.k_of(other) for k in range(3)]
    assert slot_filters(own, ("all",)) == up_filters(f"so/1/{REGION}/{shard_of(store):02x}/{store}/+")


async def test_messages_of_a_dedicated_store_are_acknowledged_and_left_alone(held: Held) -> None:
    store = StoreId("sz-yantian")
    wire, listener = Wire(), Wire()
    link = FencedLink(wire, held.fence, Slot(REGION, 1, 0, 1, 1, None, (store,)))
    link.listen(listener, ("so/1/north/+/+/+/up/#",))
    receipt = DeliveryReceipt(1, 7)
    link.delivered(Delivery(f"so/1/north/00/{store}/t/up/event", b"", receipt=receipt))
    link.delivered(Delivery("so/1/north/00/gz-tianhe/t/up/event", b""))
    assert (wire.acked, link.apart_messages) == ([receipt], 1)
    assert listener.heard == ["so/1/north/00/gz-tianhe/t/up/event"]


# ---------------------------------------------------------------- for real


async def test_a_host_that_thaws_changes_no_row_and_sends_nothing(house: House, note: Note) -> None:
    thaw = await failures.host_thawed(house.plant, [StoreId("gz-tianhe"), StoreId("sz-futian")], rate_hz=50.0)
    assert thaw.heard > 0
    assert (thaw.rows_changed, thaw.messages_sent) == (0, 0)
    assert thaw.epochs[0] == thaw.epochs[1]
    note("ended_after_thaw_s", thaw.ended_s)
    assert house.health()["epoch"] > thaw.epochs[1]
