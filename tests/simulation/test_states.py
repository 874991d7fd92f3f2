"""What a host forgets after ten idle minutes, and that nobody can tell afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from actors.store import Store
from actors.terminal import Terminal
from actors.visit import Question, Session
from models.domain.ids import LaneId, RegionId, SessionId, StoreId
from models.domain.messages import Address
from models.domain.plans import Plan
from models.domain.presence import SkewFound
from models.domain.screen import ScreenState
from models.tables.journal import Read
from runtime.directory import Directory
from runtime.engine import Item, Work
from runtime.states import GENERATION_S, GENERATIONS, LOOKED_EVERY_S, States
from runtime.testing.shop import ShopSimulation

NORTH, STORE = RegionId("north"), StoreId("s1")
CLOSED = Session(lane=LaneId("l1"), id=SessionId("v1"))
NOTHING_READ = Read(0, (), {}, {})


def lane(name: str) -> Address:
    return Address.session(NORTH, STORE, LaneId(name))


def touch(states: States, *addresses: Address) -> None:
    work = Work(states={at: states[at] for at in addresses})
    states.committed([], NOTHING_READ, work, Directory(NORTH))


def test_only_what_is_idle_and_done_is_forgotten() -> None:
    states = States()
    store, terminal = Address(NORTH, STORE, "store", STORE), Address(NORTH, STORE, "terminal", "t1")
    states.woken(store, Store(), 1)
    states.woken(terminal, Terminal(), 1)
    states.woken(lane("closed"), CLOSED, 4)
    states.woken(lane("live"), replace(CLOSED, state=ScreenState.OPEN), 2)
    states.woken(lane("asking"), replace(CLOSED, question=Question("q", "face", None)), 2)
    states.woken(lane("touched"), CLOSED, 2)
    for _ in range(GENERATIONS - 1):
        assert states.passivate() == [], "nobody is known to be idle so soon after a start"
    touch(states, lane("touched"))
    assert set(states.passivate()) == {store, lane("closed")}
    assert set(states) == {terminal, lane("live"), lane("asking"), lane("touched")}
    idle = [states.passivate() for _ in range(GENERATIONS)]
    assert idle == [[], [], [lane("touched")]], "two whole generations after it was touched"


def test_at_the_bound_who_was_used_least_recently_goes_first() -> None:
    states = States(entities_max=100)
    lanes = [lane(f"l{n}") for n in range(100)]
    for at in lanes:
        states.woken(at, CLOSED, 1)
    touch(states, *lanes[:50])
    states.passivate()
    touch(states, *lanes[50:97])
    newcomer = Item(lane("new"), SkewFound(0, alarming=False), "cause")
    assert states.admit([newcomer], 0.0) == (3, 0), "one too many, and two in a hundred beyond"
    assert set(lanes) - set(states) == set(lanes[97:]), "nobody touched them"
    for n in range(4):
        states.woken(lane(f"live{n}"), replace(CLOSED, state=ScreenState.OPEN), 1)
    assert states.admit([newcomer], LOOKED_EVERY_S / 2) == (0, 0), "not a second time so soon"
    assert states.admit([newcomer], LOOKED_EVERY_S) == (4, 0)
    assert set(lanes) - set(states) == {*lanes[97:], *lanes[:4]}, "then who was touched a generation ago"


def test_a_store_and_a_lane_go_on_where_they_were(plan: Plan) -> None:
    """The auditor holds the store's figures and the receipts' numbers against all sales, before and after."""

    async def script(shop: ShopSimulation) -> None:
        for _ in range(2):
            await sell(shop)
            await asyncio.sleep((GENERATIONS + 1) * GENERATION_S)

    shop = ShopSimulation(4, plan).run(script)
    assert shop.host.counts.passivated >= 2
    assert [sale.receipt for sale in shop.database.sales.values()] == ["s1-l1-000001", "s1-l1-000002"]


async def sell(shop: ShopSimulation) -> None:
    face = shop.ours.face
    session = (await face.send("session.open", {}, None)).session
    assert session is not None
    await face.send("scan", {"code": "tea", "quantity": 1}, session)
    reply = await face.send("confirm", {"rev": 2, "tenders": [{"kind": "cash", "fen": 1200}]}, session)
    assert reply.ok, reply.error
