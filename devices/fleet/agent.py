"""The real terminal agent with an ear on its wire, and a wire that can misbehave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from devices.agent_config import AgentConfig
from devices.fleet.evidence import Intent, Witness
from devices.fleet.software import FleetDuties, MemorySoftware
from devices.link import Delivery
from devices.mqtt import MqttLink
from devices.mqtt_paho import LinkConfig
from devices.outbox import Outbox
from devices.terminal import TerminalAgent
from devices.topics import prefix
from models.domain.ids import SessionId
from models.domain.screen import ReplyBody, Screen

_REORDER_S_MAX = 0.3


class _Id(msgspec.Struct):
    id: str


_ids = msgspec.json.Decoder(_Id)


@dataclass(slots=True)
class Mischief:
    """How this terminal's wire misbehaves now: chances of 0..1."""

    duplicate: float = 0.0
    reorder: float = 0.0


class TappedLink(MqttLink):
    """An MQTT client that tells a witness what goes out, sends some of it twice and some of it late."""

    def __init__(self, config: LinkConfig, will: Any, witness: Witness, mischief: Mischief, seed: int) -> None:
        super().__init__(config, will)
        self._witness = witness
        self._mischief = mischief
        self._chance = random.Random(seed)  # noqa: S311 - a simulation

    async def publish(self, topic: str, payload: bytes, **options: Any) -> None:
        """As MqttLink.publish; an event may be delayed behind the next ones, or sent twice."""
        if not topic.endswith("/up/event"):
            await super().publish(topic, payload, **options)
            return
        if self._online:
            self._witness.sent(_ids.decode(payload).id, self._loop.time())
        if self._mischief.reorder and self._chance.random() < self._mischief.reorder:
            self._witness.did("reordering")
            await asyncio.sleep(self._chance.uniform(0.0, _REORDER_S_MAX))
        if self._mischief.duplicate and self._chance.random() < self._mischief.duplicate:
            self._witness.did("duplicates")
            await super().publish(topic, payload, **options)
        await super().publish(topic, payload, **options)


class MemoryOutbox(Outbox):
    """An outbox without a disk: thousands of them share a process, and no fleet's process is killed."""

    def __init__(self, executor: Executor) -> None:
        super().__init__(None, executor=executor)

    async def open(self) -> None:
        """There is nothing to read."""

    async def close(self) -> None:
        """There is nothing to write."""

    async def flush(self) -> None:
        """Memory is all there is."""

    def _later(self, statement: str, values: tuple[Any, ...]) -> None:
        """No statement is kept."""


class FleetAgent(TerminalAgent):
    """A terminal of the fleet. Its outbox lives in memory: thousands of them share a process."""

    def __init__(self, config: AgentConfig, witness: Witness, executor: Executor, seed: int) -> None:
        """`executor` is shared by the whole process."""
        self.witness = witness
        self.mischief = Mischief()
        self.topic = prefix(config.region, config.store, config.terminal)
        self.on_reply_id: Callable[[str], None] | None = None
        """Called with the id of each reply, also of what this terminal sent past its outbox."""
        self._seed = seed
        self._starting = asyncio.Lock()
        self.software: FleetDuties | None = None
        super().__init__(config, outbox=MemoryOutbox(executor))
        self.on_screen = self._witnessed

    def take_software(self, software: MemorySoftware, http: httpx.AsyncClient) -> None:
        """From now on it fetches and starts what it is told to; call it before the agent starts."""
        self.duties = self.software = FleetDuties(self, software, http)

    def _link(self, config: LinkConfig) -> MqttLink:
        return TappedLink(config, self._will, self.witness, self.mischief, self._seed)

    async def reboot(self, reason: str) -> None:
        """As the agent's; two at once, a crash and an order, follow each other."""
        async with self._starting:
            await super().reboot(reason)

    def delivered(self, delivery: Delivery) -> None:
        """First the witness, then the terminal itself."""
        if delivery.topic.endswith("/down/reply") and delivery.correlation is not None:
            event_id = delivery.correlation.decode("ascii", "replace")
            self.witness.replied(event_id, delivery.payload, self._time())
            if self.on_reply_id is not None:
                self.on_reply_id(event_id)
        super().delivered(delivery)

    def _replied(self, reply: ReplyBody) -> None:
        if not reply.ok or reply.id is not None:
            self.witness.refused(reply)
        super()._replied(reply)

    def _witnessed(self, screen: Screen) -> None:
        self.witness.shown(self.config.store, self.config.terminal, screen)

    async def request(
        self,
        event_type: str,
        body: Mapping[str, Any] | None = None,
        *,
        session: SessionId | None = None,
        clerk: str | None = None,
        timeout_s: float = 15.0,
    ) -> ReplyBody:
        """As the agent's; what it asks to pay is noted first."""
        intent = _intent(self.config.store, event_type, body or {}, session, not self.online)
        if intent is not None:
            self.witness.evidence.intents.append(intent)
        if event_type == "void":
            self.witness.evidence.voids_asked.append(str((body or {})["receipt"]))
        return await super().request(event_type, body, session=session, clerk=clerk, timeout_s=timeout_s)


def _intent(
    store: str, event_type: str, body: Mapping[str, Any], session: SessionId | None, offline: bool
) -> Intent | None:
    fen = sum(int(tender["fen"]) for tender in body.get("tenders", ()))
    if event_type == "confirm" and body.get("collect") is None:
        return Intent(str(session), store, fen, offline)
    if event_type == "paid":
        return Intent(f"till:{body['till_txn']}", store, fen, offline, reported=True)
    return None
