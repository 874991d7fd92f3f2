"""A full queue refuses loudly, says when to come back, and is counted; the other lanes go on."""

from __future__ import annotations

import asyncio
import uuid

import msgspec

from actors.hosts import Delivered, Delivery
from models.domain.errors import RetryLater
from models.domain.plans import Plan
from runtime.deliveries import LANE_MESSAGES_MAX
from runtime.testing.shop import ShopSimulation
from runtime.testing.terminal import SimulatedDevice


def opening(device: SimulatedDevice, seq: int, boot: str) -> Delivery:
    body = {"v": 1, "id": str(uuid.UUID(int=seq)), "boot": boot, "seq": seq, "ts": "2026-05-01T02:00:00Z"}
    body |= {"mono_ms": 1, "type": "session.open", "session": None, "clerk": None, "replay": False, "body": {}}
    return Delivery(device.record.terminal, "event", msgspec.json.encode(body))


def test_one_lane_cannot_fill_the_host(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        loud, quiet, boot = shop.ours.face, shop.second.face, str(uuid.UUID(int=7))
        calls = [shop.host.deliver([opening(loud, n, boot)]) for n in range(1, LANE_MESSAGES_MAX + 11)]
        answers = await asyncio.gather(*calls, shop.host.deliver([opening(quiet, 1, boot)]), return_exceptions=True)
        refused = [one for one in answers if isinstance(one, RetryLater)]
        assert {(one.code, one.after_s) for one in refused} == {("host_full", 5.0)}
        assert (len(refused), shop.host.counts.refused_full) == (10, 10)
        served = answers[-1]
        assert isinstance(served, list)
        assert isinstance(served[0], Delivered)
        assert b'"ok":true' in served[0].reply
        again = await shop.host.deliver([opening(loud, LANE_MESSAGES_MAX + 1, boot)])
        assert b'"ok":true' in again[0].reply, "there is room now"

    ShopSimulation(5, plan).run(script)
