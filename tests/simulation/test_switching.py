"""Kill switches in a host: which visits are told, until they obey; what expires; what slept through a lift."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from actors.visit import Payment, Phase, Session
from models.domain.ids import LaneId, RegionId, SaleId, SessionId, StoreId, TerminalId
from models.domain.kill_switch import Switch
from models.domain.messages import Address, SwitchesMoved
from models.domain.screen import ScreenState
from models.tables.journal import Slot
from runtime.directory import Directory
from runtime.engine import Item
from runtime.states import States
from runtime.switching import Switching
from runtime.terminal_care import TerminalCare
from tests.actors.lane import book

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
REGION = RegionId("north")
SLOT = Slot(REGION, 1, 0, 1, 1)
HERE, ELSEWHERE = StoreId("s1"), StoreId("s2")


class Rows:
    """A connection on which the standing switches lie."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def throw(self, switch: str, kind: str, name: str, until: datetime | None = None) -> None:
        self.rows.append((f"{switch} {name}", switch, kind, name, "why", "who", NOW, until, None, "", ""))

    async def execute(self, _query: str) -> Rows:
        return self

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows


class Stores(Directory):
    """Two stores of one chain, without a database."""

    def __init__(self) -> None:
        super().__init__(REGION)
        self._stores = {store: replace(book(), store=store) for store in (HERE, ELSEWHERE)}


class Care:
    """Which stores' terminals were looked at."""

    def __init__(self) -> None:
        self.looked: list[set[StoreId]] = []

    def switched(self, stores: Collection[StoreId]) -> None:
        self.looked.append(set(stores))


class Host:
    """What a tick needs of one."""

    def __init__(self) -> None:
        self.rows, self.states, self.care, self.told = Rows(), States(), Care(), list[Address]()
        self.switching = Switching(Stores(), self.states, cast(TerminalCare, self.care), self._put)

    def _put(self, item: Item) -> None:
        assert isinstance(item.message, SwitchesMoved)
        self.told.append(item.address)

    def visit(self, store: StoreId, lane: str, **fields: Any) -> Address:
        at = Address(REGION, store, "session", lane)
        session = Session(LaneId(lane), SessionId(lane), ScreenState.OPEN)
        self.states[at] = (replace(session, **fields), 1)
        return at

    def obeys(self, at: Address, *off: Switch) -> None:
        state = self.states[at][0]
        assert isinstance(state, Session)
        self.states[at] = (replace(state, off=off), 2)

    async def tick(self, now: datetime = NOW) -> list[Address]:
        async def run(work: Callable[[Any], Awaitable[Any]]) -> Any:
            return await work(self.rows)

        self.told.clear()
        await self.switching.look(run, SLOT, now)
        return sorted(self.told)


PAYING = Payment(SaleId("s"), "P1", Phase.ASKING, TerminalId("t"), 1, (), (), None)


async def test_visits_are_told_until_they_obey_and_terminals_once() -> None:
    host = Host()
    one, other = host.visit(HERE, "l1"), host.visit(ELSEWHERE, "l1")
    paying = host.visit(HERE, "l2", payment=PAYING)
    host.visit(HERE, "l3", state=ScreenState.CLOSED)
    assert await host.tick() == []
    host.rows.throw("face", "store", HERE)
    assert await host.tick() == [one]
    assert await host.tick() == [one], "its batch may have broken"
    host.obeys(one, Switch.FACE)
    assert await host.tick() == []
    assert host.care.looked == [{HERE}]
    host.rows.throw("offers", "chain", "acme")
    assert await host.tick() == sorted([one, other])
    assert host.care.looked[1:] == [{HERE, ELSEWHERE}]
    assert paying not in host.told, "money is on its way: it obeys by itself"


async def test_a_switch_expires_by_itself() -> None:
    host = Host()
    at = host.visit(HERE, "l1")
    host.rows.throw("benefits", "region", REGION, until=NOW + timedelta(seconds=5))
    assert await host.tick() == [at]
    host.obeys(at, Switch.BENEFITS)
    assert await host.tick(NOW + timedelta(seconds=4)) == []
    assert await host.tick(NOW + timedelta(seconds=5)) == [at]


async def test_a_visit_that_slept_through_a_lift_is_told_at_the_start() -> None:
    host = Host()
    at = host.visit(HERE, "l1", off=(Switch.FACE,))
    assert await host.tick() == [at]
