"""Bytes that are refused hold up nobody: their answers leave beside the batches, a bounded number at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from devices.topics import Up, topic_of
from models.domain.plans import Plan
from runtime.door import ANSWERS_IN_FLIGHT_MAX, REFUSAL_PUBLISH_S_MAX
from runtime.testing.shop import ShopSimulation

GARBAGE = 150
ON_THE_WAY_S = 0.1
"""Virtual: longer than the broker takes for a message."""


def test_a_broker_that_takes_no_answer_holds_up_no_batch(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        clock, device = asyncio.get_running_loop().time, shop.ours.face
        waiting: list[float] = []

        async def never(*_: Any) -> bool:
            waiting.append(clock())
            await asyncio.Event().wait()
            return False

        assert (await device.send("complaint", {"about": "price"}, None)) is not None, "the host serves"
        shop.host._bridge.publish_undecodable = never  # type: ignore[assignment,method-assign]
        topic = str(topic_of(device.record, Up.TELEMETRY))
        began = clock()
        for _ in range(GARBAGE):
            shop.broker.publish_up(topic, b"{", {})
            await asyncio.sleep(0.001)
        reply = await shop.second.face.send("session.open", {}, None)
        assert reply.ok
        assert clock() - began < REFUSAL_PUBLISH_S_MAX, "the answers are still on their way"
        await asyncio.sleep(ON_THE_WAY_S)
        assert len(waiting) == ANSWERS_IN_FLIGHT_MAX
        counts = shop.host.counts
        assert (counts.undecodable, counts.publish_failures) == (GARBAGE, GARBAGE - ANSWERS_IN_FLIGHT_MAX)
        await asyncio.sleep(REFUSAL_PUBLISH_S_MAX + 0.1)
        assert counts.publish_failures == GARBAGE, "each was given up after a second"
        assert not shop.broker.held, "and acknowledged"

    ShopSimulation(3, plan).run(script)
