"""The real host in virtual time: a money event overtakes its predecessor, loses it, or waits while the host dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from models.domain.plans import Plan
from models.domain.screen import ReplyBody
from runtime.testing.clock import let_pass
from runtime.testing.shop import ShopSimulation
from runtime.testing.terminal import SimulatedDevice

NO_CONSENT = {"purpose": "marketing", "text": "v1", "granted": False}


def send(device: SimulatedDevice, seq: int, kind: str, session: str) -> Awaitable[ReplyBody]:
    """One event under a seq of our choice."""
    device._seq = seq - 1
    body = NO_CONSENT if kind == "consent" else {}
    return asyncio.ensure_future(device.send(kind, body, session))


async def opened(shop: ShopSimulation) -> tuple[SimulatedDevice, str]:
    device = shop.ours.face
    reply = await device.send("session.open", {}, None)
    assert reply.session is not None
    return device, reply.session


def seqs(shop: ShopSimulation, device: SimulatedDevice) -> list[int]:
    """In the order of their commits."""
    return [row.key.seq for row in shop.database.inbox.values() if row.key.terminal == device.record.terminal]


def now() -> float:
    return asyncio.get_running_loop().time()


def test_money_that_overtook_waits_and_the_order_is_theirs(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        device, session = await opened(shop)
        cancel = send(device, 3, "cancel", session)
        await let_pass(1.0)
        assert seqs(shop, device) == [1]
        began = now()
        await send(device, 2, "consent", session)
        await cancel
        assert now() - began < 0.5
        assert seqs(shop, device) == [1, 2, 3]
        assert shop.database.incidents == []

    ShopSimulation(1, plan).run(script)


def test_what_never_comes_costs_one_wait_and_leaves_a_mark(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        device, session = await opened(shop)
        began = now()
        look = send(device, 4, "consent", session)
        await look
        assert now() - began < 0.5, "what moves no money does not wait"
        began = now()
        await send(device, 5, "cancel", session)
        assert 1.9 <= now() - began < 3.0
        began = now()
        await send(device, 6, "cancel", session)
        assert now() - began < 0.5
        await let_pass(1.0)
        assert [one.kind for one in shop.database.incidents] == ["seq_gap"]

    ShopSimulation(2, plan).run(script)


def test_a_host_that_dies_while_money_waits_loses_nothing_and_the_next_one_waits_too(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        device, session = await opened(shop)
        cancel = send(device, 3, "cancel", session)
        await let_pass(0.5)
        shop._end_life(shop._life)
        await let_pass(0.5)
        shop._boot()
        await let_pass(1.0)
        assert seqs(shop, device) == [1], "unacknowledged, delivered again, held again"
        await send(device, 2, "consent", session)
        await cancel
        assert seqs(shop, device) == [1, 2, 3]

    ShopSimulation(3, plan).run(script)
