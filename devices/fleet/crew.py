"""One process's share of the fleet: it connects its terminals, plays the day, becomes quiet and says what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx

from devices.agent_config import AgentConfig
from devices.fleet.agent import FleetAgent
from devices.fleet.days import demand_until, hour_at
from devices.fleet.evidence import CrewEvidence, Witness
from devices.fleet.mischief import afflicted, trouble
from devices.fleet.orders import CrewOrder, Day, FleetLane, Runs, Tick
from devices.fleet.software import FETCHES_AT_ONCE_MAX, MemorySoftware
from devices.fleet.visits import EVENTS_PER_VISIT, Counter
from devices.simulator import ProviderUsers, SimulatedTerminal
from models.domain.errors import NeedsOperator, StoreOpsError

DISPATCH_EVERY_S = 0.02
DUTIES_EVERY_S = 20.0
"""A terminal looks each second after its watchdog and its software window; 3,000 in a process look less often."""
CONNECTING_MAX = 64
"""Handshakes at the same time, in one process."""
VISITS_END_S_MAX = 90.0
"""After the day: a customer who pays waits for the provider's answer, 60 s at most."""
POLL_S = 0.05


class Crew:
    """All calls on one event loop; in this order: connect, any number of days, quiet, report, stop."""

    def __init__(self, order: CrewOrder) -> None:
        self.order = order
        self.witness = Witness(order.crew)
        self.failed = 0
        self._rng = random.Random(f"{order.seed}/{order.crew}")  # noqa: S311 - a simulation
        self._http = httpx.AsyncClient(timeout=10.0, trust_env=False, limits=httpx.Limits(max_connections=32))
        self._executor = ThreadPoolExecutor(2, "outboxes")
        self._fetches = asyncio.Semaphore(FETCHES_AT_ONCE_MAX)
        self._serving: set[asyncio.Task[None]] = set()
        self._hour = 0.0
        self.counters = [self._counter(lane, n) for n, lane in enumerate(order.lanes)]
        self.agents = [agent for counter in self.counters for agent in counter.agents]

    def _counter(self, lane: FleetLane, n: int) -> Counter:
        order = self.order
        users = ProviderUsers(self._http, order.provider_url)
        agents, terminals = [], {}
        for k, one in enumerate(lane.terminals):
            config = AgentConfig(
                host=order.broker_host,
                port=order.broker_port,
                region=order.region,
                store=lane.store,
                terminal=one.terminal,
                profile=one.profile,
                secret=one.secret,
                resend_first_s=order.resend_first_s,
                reconnect_s_min=order.reconnect_s_min,
                reconnect_s_max=order.reconnect_s_max,
                duties_every_s=DUTIES_EVERY_S,
            )
            if order.software:
                config = replace(config, software=order.software)
            agent = FleetAgent(config, self.witness, self._executor, order.seed + 1_000 * n + k)
            if order.software:
                agent.take_software(MemorySoftware(order.software, self._fetches, one.fault), self._http)
            agents.append(agent)
            name = one.role if one.role == "till" else one.terminal
            terminals[name] = SimulatedTerminal(agent, users)
        rng = random.Random(f"{order.seed}/{lane.store}")  # noqa: S311 - a simulation
        return Counter(
            lane, terminals, agents, rng, order.articles, order.plan, order.think_s, order.cash_only, order.vouchers
        )

    # ------------------------------------------------------------ connecting

    async def connect(self, timeout_s: float = 120.0) -> float:
        """All terminals, each at a moment of its own within `connect_s`; returns the seconds until the last was up.

        Raises NeedsOperator `fleet_not_connected` naming how many are missing.
        """
        loop = asyncio.get_running_loop()
        began, places = loop.time(), asyncio.Semaphore(CONNECTING_MAX)

        async def start(agent: FleetAgent) -> None:
            await asyncio.sleep(self._rng.uniform(0.0, self.order.connect_s))
            async with places:
                await agent.start(timeout_s)

        try:
            async with asyncio.timeout(self.order.connect_s + timeout_s):
                await asyncio.gather(*(start(agent) for agent in self.agents))
        except TimeoutError:
            missing = sum(not agent.online for agent in self.agents)
            raise NeedsOperator(
                "fleet_not_connected", f"{missing} of {len(self.agents)} terminals", "is the broker up? see its log"
            ) from None
        return loop.time() - began

    @property
    def online(self) -> int:
        """Terminals that are connected."""
        return sum(agent.online for agent in self.agents)

    async def settled(self, deadline_s: float) -> float:
        """Until every terminal is connected and nothing waits for a reply; the seconds. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(deadline_s):
            while not self._is_settled():  # noqa: ASYNC110 - thousands of agents have no common event
                await asyncio.sleep(POLL_S)
        return loop.time() - began

    def _is_settled(self) -> bool:
        return self.online == len(self.agents) and not any(agent.outbox.entries() for agent in self.agents)

    # ------------------------------------------------------------ a day

    async def day(self, day: Day) -> None:
        """Serve customers until the day is over, with the trouble that was ordered; then plug everything in."""
        over = asyncio.Event()
        rng = random.Random(f"{self.order.seed}/{self.order.crew}/trouble")  # noqa: S311 - a simulation
        troubles = [
            asyncio.create_task(trouble(kind, counter, random.Random(rng.random()), over))  # noqa: S311
            for kind, counter in afflicted(self.counters, self.order.chaos, rng)
        ]
        try:
            await self._serve(day)
        finally:
            over.set()
            await asyncio.gather(*troubles, return_exceptions=True)
            for agent in self.agents:
                agent.restore()

    async def _serve(self, day: Day) -> None:
        """Start visits so that the events sent keep to the day's curve, whatever a visit takes."""
        loop = asyncio.get_running_loop()
        began, sent_before = loop.time(), self.witness.evidence.events
        total = day.rate_per_s * day.seconds
        while (passed := loop.time() - began) < day.seconds:
            fraction = passed / day.seconds
            self._hour = hour_at(fraction)
            target = total * (fraction if day.flat else demand_until(fraction))
            sent = self.witness.evidence.events - sent_before
            under_way = len(self._serving) * EVENTS_PER_VISIT / 2
            for _ in range(min(64, round((target - sent - under_way) / EVENTS_PER_VISIT))):
                if not self._start_visit(day.flat):
                    break
            await asyncio.sleep(DISPATCH_EVERY_S)

    def _start_visit(self, all_open: bool) -> bool:
        """A customer enters a free, open, connected lane; False when a few tries found none."""
        for _ in range(8):
            counter = self._rng.choice(self.counters)
            opened = all_open or counter.lane.opens_h <= self._hour < counter.lane.closes_h
            if opened and not counter.lock.locked() and counter.online:
                task = asyncio.create_task(self._visit(counter))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)
                return True
        return False

    async def _visit(self, counter: Counter) -> None:
        if counter.lock.locked():
            return
        async with counter.lock:
            self.failed += not await counter.serve()

    # ------------------------------------------------------------ the end

    async def quiet(self, deadline_s: float = VISITS_END_S_MAX) -> float:
        """Let the last customers go, then wait until everything has its reply; the seconds that took.

        What is still open after `deadline_s` stays open, and the report names it.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._serving:
            _, late = await asyncio.wait(self._serving, timeout=deadline_s)
            for task in late:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            await self.settled(max(5.0, deadline_s - (loop.time() - began)))
        return loop.time() - began

    def tick(self) -> Tick:
        """Where it stands now."""
        evidence, recent = self.witness.evidence, self.witness.recent_ms
        return Tick(
            self.order.crew,
            self.online,
            evidence.events,
            evidence.replies,
            self.witness.waiting,
            sum(counter.visits for counter in self.counters),
            len(self._serving),
            self.witness.sales,
            self.failed,
            round(self._hour, 2),
            round(statistics.median(recent), 2) if recent else 0.0,
        )

    def measure(self, on: bool) -> None:
        """Latency samples are kept from now on, from nothing; or no more."""
        self.witness.measuring = on
        if on:
            self.witness.evidence.reply_ms.clear()
            for agent in self.agents:
                agent.timings.event_to_screen_ms.clear()

    def software(self) -> list[Runs]:
        """What each terminal that takes software runs, and what it says."""
        return [agent.software.runs() for agent in self.agents if agent.software is not None]

    def report(self) -> CrewEvidence:
        """What the terminals saw, all of it."""
        evidence = self.witness.finish()
        evidence.screen_ms = [ms for agent in self.agents for ms in agent.timings.event_to_screen_ms]
        evidence.undesired = [agent.config.terminal for agent in self.agents if not agent.desired]
        evidence.offline_now = [agent.config.terminal for agent in self.agents if not agent.online]
        return evidence

    async def stop(self) -> None:
        """Disconnect in order."""
        places = asyncio.Semaphore(CONNECTING_MAX)

        async def end(agent: FleetAgent) -> None:
            async with places:
                with contextlib.suppress(StoreOpsError, OSError):
                    await agent.stop()

        await asyncio.gather(*(end(agent) for agent in self.agents))
        await self._http.aclose()
        self._executor.shutdown(wait=False)
