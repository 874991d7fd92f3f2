"""A backlog: events that pile up at the broker while nobody reads them, and how fast they are drained afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import uuid_utils

from devices.fleet.agent import FleetAgent
from devices.fleet.lies import new_id
from devices.link import LinkError
from devices.mqtt import MqttLink

RESEND_S = 5.0
SENDING_MAX = 2_000
"""Publishes on their way to the broker at the same time."""


class Backlog:
    """Events that pile up at the broker while nobody reads them. Each terminal sends its share, in its own order."""

    def __init__(self, agents: Sequence[FleetAgent]) -> None:
        self._agents = agents
        self._open: dict[str, tuple[FleetAgent, bytes]] = {}
        self._last_reply_s = 0.0
        self.resent = 0
        self._empty = asyncio.Event()

    async def pile_up(self, messages: int) -> float:
        """Send so many complaints, the cheapest event with a row; returns the seconds until the broker had them all."""
        loop = asyncio.get_running_loop()
        began, places = loop.time(), asyncio.Semaphore(SENDING_MAX)
        boots = {agent.config.terminal: (str(uuid_utils.uuid4()), itertools.count(1)) for agent in self._agents}
        for agent in self._agents:
            agent.on_reply_id = self._replied

        async def send(agent: FleetAgent) -> None:
            boot, seq = boots[agent.config.terminal]
            event_id = new_id()
            envelope = {"v": 1, "id": event_id, "boot": boot, "seq": next(seq), "ts": "2026-11-22T04:00:00.000Z"}
            envelope |= {"type": "complaint", "session": None, "body": {"about": "other"}}
            payload = msgspec.json.encode(envelope)
            self._open[event_id] = agent, payload
            async with places:
                await MqttLink.publish(agent.link, f"{agent.topic}/up/event", payload)

        chosen = itertools.islice(itertools.cycle(self._agents), messages)
        await asyncio.gather(*(send(agent) for agent in chosen))
        return loop.time() - began

    async def drained(self, deadline_s: float) -> float:
        """Wait for the last reply; returns its moment on the system's monotonic clock. Raises TimeoutError.

        What has no reply 5 s from now is sent again, as a terminal does.
        """
        async with asyncio.timeout(deadline_s):
            while self._open:
                self._empty.clear()
                try:
                    await asyncio.wait_for(self._empty.wait(), RESEND_S)
                except TimeoutError:
                    await self._again()
        return self._last_reply_s

    async def _again(self) -> None:
        for agent, payload in list(self._open.values()):
            self.resent += 1
            with suppress(LinkError):
                await MqttLink.publish(agent.link, f"{agent.topic}/up/event", payload)

    def _replied(self, event_id: str) -> None:
        if event_id in self._open:
            del self._open[event_id]
            self._last_reply_s = asyncio.get_running_loop().time()
            if not self._open:
                self._empty.set()
