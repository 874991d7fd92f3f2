"""Hosts of a region change their number under load: every sale is there once, and each store has one host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from devices.simulator import SimulatedTerminal
from models.domain.ids import StoreId, shard_of
from models.domain.screen import ScreenState
from tests.integration.house import WATER, House, Note
from tests.integration.test_kills import browser
from tests.integration.wire import Sender, Wire, open_wire

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STORES = ("sz-yantian", "gz-tianhe", "sz-futian", "gz-liwan")
SALE_S_MIN = 0.1
PATIENCE_S = 60.0


@dataclass
class Shoppers:
    """A terminal in each of four stores that sells without a pause."""

    house: House
    name: str
    sold: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    closing: bool = False

    @asynccontextmanager
    async def shopping(self) -> AsyncIterator[Wire]:
        """They shop while the body runs; afterwards everything is counted."""
        async with AsyncExitStack() as stack:
            ear = await stack.enter_async_context(open_wire(self.house.plant))
            terminals = []
            for store in STORES:
                terminal = await stack.enter_async_context(self.house.terminal(store, self.name))
                terminal.screen_timeout_s = terminal.reply_timeout_s = PATIENCE_S
                terminals.append((store, terminal))
            async with asyncio.TaskGroup() as lanes:
                for store, terminal in terminals:
                    lanes.create_task(self._shop(store, terminal))
                await self._one_each()
                try:
                    yield ear
                    await self._one_each()
                finally:
                    self.closing = True
            assert not ear.contradictions()
        self._check()

    async def _shop(self, store: str, at: SimulatedTerminal) -> None:
        clock = asyncio.get_running_loop().time
        while not self.closing:
            began = clock()
            await at.open_session()
            await at.scan(WATER[0], 2)
            screen = await at.pay_cash(500)
            assert screen.state is ScreenState.PAID, screen
            self.slowest_s = max(self.slowest_s, clock() - began)
            self.sold[store] = self.sold.get(store, 0) + 1
            # On a fast machine a lane of ours would be a flood: a till sends 50 events a second at most (floods.py).
            await asyncio.sleep(SALE_S_MIN - (clock() - began))

    async def _one_each(self) -> None:
        """A sale in every store from now."""
        before = dict(self.sold)
        async with asyncio.timeout(PATIENCE_S):
            while any(self.sold.get(store, 0) <= before.get(store, 0) for store in STORES):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def _check(self) -> None:
        sales = self.house.rows(
            "SELECT store, count(*)::int, sum(due_fen)::int FROM sale WHERE lane = %s GROUP BY store", (self.name,)
        )
        assert {store: (count, fen) for store, count, fen in sales} == {
            store: (count, count * 2 * WATER[1]) for store, count in self.sold.items()
        }


async def change(house: House, verb: str) -> None:
    await asyncio.to_thread(house.hosts, verb)


async def test_hosts_change_under_load_and_no_sale_is_lost_or_doubled(house: House, note: Note) -> None:
    shoppers = Shoppers(house, "relayout")
    mine = StoreId(STORES[0])
    try:
        async with shoppers.shopping() as ear:
            await change(house, "resize 3")
            found = await asyncio.to_thread(house.hosts)
            assert (found["slots"], len(found["hosts"])) == (3, 3)
            assert {row["state"] for row in found["hosts"]} == {"serving"}
            assert len({row["pid"] for row in found["hosts"]}) == 3
            await through_the_gateway(house)

            await change(house, f"dedicate {mine}")
            found = await asyncio.to_thread(house.hosts)
            assert found["dedicated"] == [mine]
            own, shared = found["hosts"][3], found["hosts"][shard_of(mine) % 3]
            assert (own["store"], own["state"]) == (mine, "serving")
            before = own["messages"]
            await sale_in(house, ear, mine)
            found = await asyncio.to_thread(house.hosts)
            assert found["hosts"][3]["messages"] > before
            assert found["hosts"][shard_of(mine) % 3]["apart_messages"] > shared["apart_messages"]

            await change(house, f"undedicate {mine}")
            await change(house, "resize 1")
    finally:
        house.rows("DELETE FROM dedicated_store RETURNING 1")
        await change(house, "resize 1")
    note("slowest_visit_s", shoppers.slowest_s)
    await asyncio.to_thread(house.check_books)
    found = await asyncio.to_thread(house.hosts)
    assert [row["slot"] for row in found["hosts"]] == [f"{house.plant.region}/0"]
    assert found["hosts"][0]["restarts"] == 0


async def sale_in(house: House, ear: Wire, store: str) -> None:
    """A visit's first message at a new terminal of the store, answered."""
    sender = Sender(house.plant, await house.register(store, "relayout-probe"))
    await sender.begin(ear)


async def through_the_gateway(house: House) -> None:
    """A virtual terminal's event reaches the host of its store, whichever that is."""
    async with browser(house) as http:
        for store in STORES:
            sender = Sender(house.plant, await house.register(store, "relayout-web"))
            answer = await http.post(
                f"/api/v1/terminals/{sender.terminal}/events", json=sender.event("session.open", {})
            )
            assert answer.status_code == httpx.codes.OK, answer.text
            assert json.loads(answer.text)["reply"]["ok"]


async def test_a_drained_host_stays_stopped_and_its_messages_wait(house: House) -> None:
    async with open_wire(house.plant) as ear:
        sender = Sender(house.plant, await house.register(STORES[0], "drain"))
        await sender.begin(ear)
        try:
            await change(house, "drain 0")
            found = await asyncio.to_thread(house.hosts)
            assert [row["state"] for row in found["hosts"]] == ["drained"]
            question = sender.event("complaint", {"about": "other"})
            await ear.send(sender.up, json.dumps(question).encode())
            with pytest.raises(TimeoutError):
                await ear.reply(lambda reply: reply.id == question["id"], 0.5)
        finally:
            await change(house, "resume")
        reply = await ear.reply(lambda reply: reply.id == question["id"])
        assert reply.document["ok"]
    assert house.rows("SELECT count(*) FROM inbox WHERE id = %s", (question["id"],)) == [(1,)]
