"""Load: visits at many lanes, one event in flight at each, over a few connections. Nothing is decoded that need not be.

A visit is ten events: session.open, eight scans, and a cash `confirm` of exactly what the screen showed. Each gets one
reply and one screen; the last books a sale with its ledger transaction, and tells the store.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from devices.topics import prefix
from models.domain.ids import RegionId, StoreId, TerminalId
from runtime.bench.lean_mqtt import LeanClient, text
from runtime.plant import Plant

CONNECTIONS = 4
ITEMS = ((b"6901234561005", 200), (b"6901234561012", 300), (b"6901234561029", 450), (b"6901234561036", 350))
"""Articles of the demonstration's chain: code and price in fen; all sums are whole tens, as cash is."""
SCANS = 8
STAMP = b"2026-11-22T04:00:00.123Z"
RESEND_S = 5.0
"""A terminal sends an event again until its reply."""
SETTLE_S_MAX = 60.0


@dataclass(slots=True, eq=False)
class Lane:
    """One terminal."""

    topic: bytes
    boot: bytes
    client: LeanClient | None = None
    seq: int = 0
    step: int = 0
    scans: int = SCANS
    """Of the visit that runs. The first visits are shorter, so that the lanes are not in step."""
    due_fen: int = 0
    sent_at: float = 0.0
    payload: bytes = b""
    resent: int = 0
    waits: bool = False
    replied: bool = False
    shown: bool = False


@dataclass(slots=True)
class Figures:
    """What came back."""

    sent: int = 0
    replies: int = 0
    screens: int = 0
    refused: int = 0
    resent: int = 0
    first_refusal: bytes = b""
    reply_ms: list[float] = field(default_factory=list)
    screen_ms: list[float] = field(default_factory=list)


class Visits:
    """Plays visits at every store's lane. Closed loop: a lane sends when its last event has its reply and screen."""

    def __init__(self, plant: Plant, region: RegionId, stores: Sequence[StoreId], *, keep_samples: bool = True) -> None:
        self._plant, self._region, self._stores = plant, region, stores
        self._keep = keep_samples
        self.figures = Figures()
        self._down: dict[bytes, tuple[Lane, bool]] = {}
        self._lanes: list[Lane] = []
        self._clients: list[LeanClient] = []
        self._running = False
        self._settled = asyncio.Event()

    async def start(self) -> None:
        """Connect and subscribe. Raises OSError or TimeoutError."""
        for n in range(CONNECTIONS):
            stores = self._stores[n::CONNECTIONS]
            prefixes = [prefix(self._region, store, TerminalId(f"{store}-t0")) for store in stores]
            lanes = [Lane(text(f"{one}/up/event"), str(uuid.uuid4()).encode()) for one in prefixes]
            for one, lane in zip(prefixes, lanes, strict=True):
                lane.scans = 1 + len(self._lanes) % SCANS
                self._lanes.append(lane)
                self._down[f"{one}/down/reply".encode()] = (lane, True)
                self._down[f"{one}/down/screen".encode()] = (lane, False)
            client = await LeanClient.connect(
                self._plant.broker_host,
                self._plant.broker_port,
                f"load-{self._region}-{n}",
                self._plant.broker_user,
                self._plant.broker_password,
                [f"{one}/down/{channel}" for one in prefixes for channel in ("reply", "screen")],
                self._heard,
            )
            self._clients.append(client)
            for lane in lanes:
                lane.client = client
        self._resending = asyncio.create_task(self._resend())

    def stop(self) -> None:
        """Disconnect."""
        self._resending.cancel()
        for client in self._clients:
            client.close()

    # ------------------------------------------------------------ pace

    async def flat_out(self, seconds: float) -> float:
        """Every lane sends as soon as it may; returns messages per second, counted at their replies."""
        self._running = True
        for lane in self._lanes:
            self._send(lane)
        began, replies = time.perf_counter(), self.figures.replies
        await asyncio.sleep(seconds)
        rate = (self.figures.replies - replies) / (time.perf_counter() - began)
        self._running = False
        await self.settle()
        return rate

    async def at_rate(self, per_second: float, seconds: float) -> None:
        """Events at a steady pace, round the lanes; a lane whose last event is open is passed over."""
        loop = asyncio.get_running_loop()
        began, n = loop.time(), 0
        while (now := loop.time()) - began < seconds:
            while n < (now - began) * per_second:
                lane = self._lanes[n % len(self._lanes)]
                if not lane.waits:
                    self._send(lane)
                n += 1
            await asyncio.sleep(max(0.0, began + n / per_second - loop.time()))
        await self.settle()

    async def settle(self) -> None:
        """Until nothing is open. Raises TimeoutError."""
        async with asyncio.timeout(SETTLE_S_MAX):
            while any(lane.waits for lane in self._lanes):
                self._settled.clear()
                await self._settled.wait()

    # ------------------------------------------------------------ one event

    def _send(self, lane: Lane) -> None:
        assert lane.client is not None
        lane.seq += 1
        if lane.step == 0:
            kind, body = b"session.open", b"{}"
        elif lane.step <= lane.scans:
            code, fen = ITEMS[lane.step % len(ITEMS)]
            kind, body = b"scan", b'{"code":"%s","quantity":1}' % code
            lane.due_fen += fen
        else:
            kind = b"confirm"
            body = b'{"rev":%d,"tenders":[{"kind":"cash","fen":%d}]}' % (lane.scans + 1, lane.due_fen)
        lane.step += 1
        if kind == b"confirm":
            lane.step, lane.scans, lane.due_fen = 0, SCANS, 0
        payload = b'{"v":1,"id":"%08x-0000-7000-8000-000000000000","boot":"%s","seq":%d,"ts":"%s","mono_ms":1,' % (
            lane.seq,
            lane.boot,
            lane.seq,
            STAMP,
        )
        payload += b'"type":"%s","session":null,"clerk":null,"replay":false,"body":%s}' % (kind, body)
        lane.waits, lane.replied, lane.shown = True, False, False
        self.figures.sent += 1
        lane.sent_at, lane.payload, lane.resent = time.perf_counter(), payload, 0
        lane.client.publish(lane.topic, payload)

    def _heard(self, topic: bytes, payload: bytes) -> None:
        lane, is_reply = self._down[topic]
        if not lane.waits:
            return
        figures = self.figures
        if is_reply:
            if lane.replied:
                return
            lane.replied = True
            figures.replies += 1
            if b'"ok":true' not in payload:
                figures.refused += 1
                figures.first_refusal = figures.first_refusal or payload
            if self._keep:
                figures.reply_ms.append((time.perf_counter() - lane.sent_at) * 1000)
        elif not lane.shown:
            lane.shown = True
            figures.screens += 1
            if self._keep:
                figures.screen_ms.append((time.perf_counter() - lane.sent_at) * 1000)
        if lane.replied and lane.shown:
            lane.waits = False
            self._settled.set()
            if self._running:
                self._send(lane)

    async def _resend(self) -> None:
        """As terminals do. A screen that does not come is not asked for again: the next event brings a newer one."""
        while True:
            await asyncio.sleep(1.0)
            now = time.perf_counter()
            for lane in self._lanes:
                if lane.waits and now - lane.sent_at > RESEND_S * (1 + lane.resent):
                    lane.resent += 1
                    self.figures.resent += 1
                    if lane.replied:
                        lane.waits = False
                        self._settled.set()
                        if self._running:
                            self._send(lane)
                    else:
                        assert lane.client is not None
                        lane.client.publish(lane.topic, lane.payload)
