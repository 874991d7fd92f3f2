"""Chaos on the terminals' side: what shops, networks and bad devices do. Each kind is one coroutine for one lane."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import uuid_utils

from devices.fleet.agent import FleetAgent
from devices.fleet.lies import broken_messages, lies
from devices.fleet.orders import Chaos
from devices.fleet.visits import Counter
from devices.link import Delivery, LinkError
from devices.mqtt import MqttLink
from models.domain.errors import StoreOpsError

SHARES: dict[Chaos, float] = {
    Chaos.OFFLINE: 0.08,
    Chaos.FLAPPING: 0.06,
    Chaos.DUPLICATES: 0.15,
    Chaos.REORDERING: 0.08,
    Chaos.LYING: 0.04,
    Chaos.BROKEN: 0.04,
    Chaos.SLOW: 0.05,
    Chaos.TAKEOVER: 0.03,
    Chaos.STRANGERS: 0.01,
}
"""Of the lanes, at least one."""
FOREVER = 0.02
Trouble = Callable[[Counter, random.Random, asyncio.Event], Awaitable[None]]


def afflicted(counters: list[Counter], chaos: tuple[Chaos, ...], rng: random.Random) -> list[tuple[Chaos, Counter]]:
    """Which lane has which trouble: drawn from the seed, each kind at least once."""
    chosen: list[tuple[Chaos, Counter]] = []
    for kind in chaos:
        if kind in SHARES:
            count = max(1, round(SHARES[kind] * len(counters)))
            chosen += [(kind, counter) for counter in rng.sample(counters, min(count, len(counters)))]
    return chosen


async def trouble(kind: Chaos, counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    """Play one kind in one lane until the day is over; then everything is plugged in again. Never raises."""
    try:
        while not over.is_set():
            await _until(over, rng.expovariate(1 / PAUSE_S[kind]))
            if not over.is_set():
                with contextlib.suppress(StoreOpsError, TimeoutError, OSError):
                    await TROUBLES[kind](counter, rng, over)
    finally:
        for agent in counter.agents:
            agent.mischief.duplicate = agent.mischief.reorder = 0.0
            agent.link.resume_reading()
            agent.restore()


async def _until(over: asyncio.Event, seconds: float) -> None:
    """Sleep, but not beyond the day's end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)


async def _underground(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    """The whole lane loses the network and goes on selling; on return everything comes in one storm."""
    async with counter.lock:
        for agent in counter.agents:
            agent.drop()
        counter.agents[0].witness.did("offline")
        ends = asyncio.get_running_loop().time() + rng.uniform(3.0, 15.0)
        while asyncio.get_running_loop().time() < ends and not over.is_set():
            await _until(over, rng.expovariate(1.0))
            await _sell_offline(counter, rng)
        for agent in counter.agents:
            agent.restore()
        for agent in counter.agents:
            await _answered(agent, over)


async def _sell_offline(counter: Counter, rng: random.Random) -> None:
    """A till takes the money and says so; without one the scans of a customer who gives up are all there is."""
    if counter.lane.pos and counter.till is not None:
        agent, article = counter.till.agent, counter.article()
        txn = str(uuid_utils.uuid7())
        line = {"line": 1, "code": article.code, "name": article.name, "quantity": 1, "unit_fen": article.unit_fen}
        line |= {"net_fen": article.unit_fen, "flags": []}
        basket = {"till_txn": txn, "rev": 1, "lines": [line], "total_fen": article.unit_fen}
        await _ask_later(agent, "basket", basket)
        tender = {"kind": rng.choice(("cash", "card")), "fen": article.unit_fen // 10 * 10}
        await _ask_later(agent, "paid", {"till_txn": txn, "rev": 0, "tenders": [tender]})
        return
    agent = rng.choice(counter.agents)
    await _ask_later(agent, "complaint", {"about": "other"})


async def _ask_later(agent: object, event_type: str, body: dict[str, object]) -> None:
    """Into the outbox; the reply comes when the network is back."""
    assert isinstance(agent, FleetAgent)
    with contextlib.suppress(StoreOpsError):
        await agent.request(event_type, body, timeout_s=FOREVER)


async def _answered(agent: FleetAgent, over: asyncio.Event, deadline_s: float = 60.0) -> None:
    """Wait until nothing of it is without a reply, or the day is over."""
    async with asyncio.timeout(deadline_s):
        while agent.outbox.entries() and not over.is_set():  # noqa: ASYNC110 - replies have no common event
            await asyncio.sleep(0.1)


async def _flap(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    """A link that goes and comes in the middle of whatever happens."""
    agent = rng.choice(counter.agents)
    agent.witness.did("flapping")
    for _ in range(rng.randint(1, 4)):
        agent.drop()
        await _until(over, rng.uniform(0.05, 1.0))
        agent.restore()
        await _until(over, rng.uniform(0.05, 1.5))


async def _duplicate(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    for agent in counter.agents:
        agent.mischief.duplicate = 0.5
    await _until(over, rng.uniform(5.0, 20.0))


async def _reorder(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    for agent in counter.agents:
        agent.mischief.reorder = 0.3
    await _until(over, rng.uniform(5.0, 20.0))


async def _slow(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    """It stops reading; what is sent to it piles up at the broker."""
    agent = rng.choice(counter.agents)
    agent.witness.did("slow")
    agent.link.pause_reading()
    await _until(over, rng.uniform(2.0, 8.0))
    agent.link.resume_reading()


async def _lie(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:  # noqa: ARG001 - over at once
    async with counter.lock:
        agent = rng.choice(counter.agents)
        for topic, payload, event_id, codes in lies(agent, rng):
            agent.witness.did("lying")
            await _say(agent, topic, payload, event_id, codes)


async def _break(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:  # noqa: ARG001 - over at once
    async with counter.lock:
        agent = rng.choice(counter.agents)
        for topic, payload, event_id, codes in broken_messages(agent, rng):
            agent.witness.did("broken")
            await _say(agent, topic, payload, event_id, codes)


async def _say(agent: FleetAgent, topic: str, payload: bytes, event_id: str | None, codes: tuple[str, ...]) -> None:
    """Past the agent's outbox: sent again by nobody, so only a refusal that comes is looked at."""
    if event_id is not None:
        agent.witness.expect(event_id, *codes)
    with contextlib.suppress(LinkError):
        await MqttLink.publish(agent.link, topic, payload, timeout_s=2.0)


class _Rival:
    """A second client with a terminal's name. It acknowledges nothing, so the broker keeps it for the right one."""

    def delivered(self, delivery: Delivery) -> None:
        """Heard, and left with the broker."""

    def connected(self, epoch: int, session_present: bool) -> None:
        """It only takes the name."""

    def disconnected(self, reason: str) -> None:
        """The right one took it back."""

    async def may_reconnect(self, taken_over: bool) -> bool:  # noqa: ARG002 - neither way
        """Once is enough."""
        return False


async def _take_over(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    agent = rng.choice(counter.agents)
    rival = MqttLink(agent.link.config)
    rival.listen(_Rival(), (f"{agent.topic}/down/#",))
    agent.witness.did("takeover")
    await rival.start()
    await _until(over, rng.uniform(0.2, 1.5))
    await rival.stop()


async def _strange(counter: Counter, rng: random.Random, over: asyncio.Event) -> None:
    """The right name, a wrong secret: the broker refuses it."""
    agent = rng.choice(counter.agents)
    stranger = MqttLink(replace(agent.link.config, client_id=f"{agent.config.terminal}.x", password="wrong"))  # noqa: S106
    stranger.listen(_Rival(), (f"{agent.topic}/down/#",))
    agent.witness.did("strangers")
    await stranger.start()
    await _until(over, 0.5)
    if stranger.online:
        agent.witness.evidence.unexpected.append(f"a wrong secret was let in as {agent.config.terminal}")
    await stranger.stop()


TROUBLES: dict[Chaos, Trouble] = {
    Chaos.OFFLINE: _underground,
    Chaos.FLAPPING: _flap,
    Chaos.DUPLICATES: _duplicate,
    Chaos.REORDERING: _reorder,
    Chaos.LYING: _lie,
    Chaos.BROKEN: _break,
    Chaos.SLOW: _slow,
    Chaos.TAKEOVER: _take_over,
    Chaos.STRANGERS: _strange,
}
PAUSE_S: dict[Chaos, float] = {
    Chaos.OFFLINE: 8.0,
    Chaos.FLAPPING: 4.0,
    Chaos.DUPLICATES: 1.0,
    Chaos.REORDERING: 1.0,
    Chaos.LYING: 3.0,
    Chaos.BROKEN: 4.0,
    Chaos.SLOW: 5.0,
    Chaos.TAKEOVER: 6.0,
    Chaos.STRANGERS: 4.0,
}
"""Mean pause between two times of it, in one afflicted lane."""
