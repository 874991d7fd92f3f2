"""Software of thousands of terminals in one process: fetched and checked for real, kept in memory, started in seconds.

What can be wrong with a terminal (`Fault`) is wrong with every version but the one that it was delivered with.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx

from devices.duties import Duties
from devices.fleet.orders import Fault, Runs
from devices.software import FetchBroken, Running
from devices.wire import SoftwareRelease
from models.domain.errors import Refused

if TYPE_CHECKING:
    from devices.fleet.agent import FleetAgent

BOOT_S = (0.3, 1.5)
"""How long a start takes, drawn for each: a real one takes a minute."""
FLAP_EVERY_S = 4.0
FETCHES_AT_ONCE_MAX = 16
"""Of one process. Each shop has a line of its own; hundreds in one client's queue cost more than they fetch."""
FETCH_S_MAX = 30.0


class MemorySoftware:
    """See devices.software.Software. An image is fetched, checked and forgotten: its digest says that it was there."""

    def __init__(self, delivered: str, places: asyncio.Semaphore, fault: Fault = Fault.NONE) -> None:
        """`places`: downloads at the same time, for all who share it."""
        self.delivered = delivered
        self.fault = fault
        self._places = places
        self._version = delivered
        self._trial = False
        self._fetched: set[str] = set()

    @property
    def fell_back(self) -> str:
        """No trial fails here."""
        return ""

    def running(self) -> Running:
        return Running(self._version, None, self._trial)

    def begin(self) -> Running:
        return self.running()

    def intact(self) -> bool:
        return True

    def prove(self) -> None:
        self._trial = False

    def ready(self, release: SoftwareRelease) -> bool:
        return release.sha256 in self._fetched

    async def fetch(self, release: SoftwareRelease, http: httpx.AsyncClient) -> None:
        """Raises FetchBroken."""
        if release.sha256 in self._fetched:
            return
        if self.fault is Fault.SILENT and release.version != self.delivered:
            await asyncio.Event().wait()  # until another document comes
        try:
            async with self._places:
                answer = await http.get(release.url, headers={"Accept-Encoding": "identity"}, timeout=FETCH_S_MAX)
        except httpx.HTTPError as error:
            raise FetchBroken("fetch_broken", f"{type(error).__name__}: {error}", "it begins anew by itself") from error
        if answer.status_code != httpx.codes.OK or sha256(answer.content).hexdigest() != release.sha256:
            raise FetchBroken(
                "bad_image", f"HTTP {answer.status_code}, {len(answer.content)} bytes", "look at it", 60.0
            )
        self._fetched.add(release.sha256)

    def activate(self, release: SoftwareRelease) -> Running:
        if release.sha256 not in self._fetched:
            raise Refused("not_fetched", f"{release.version} is not here yet", "wait for the download")
        if self.fault is Fault.REFUSES and release.version != self.delivered:
            raise Refused("self_test", f"{release.version} fails its own test", "look at the image")
        self._version, self._trial = release.version, True
        return self.running()


class FleetDuties(Duties):
    """A terminal's duties with software in memory, over an HTTP client that the process shares, and with its fault."""

    def __init__(self, agent: FleetAgent, software: MemorySoftware, http: httpx.AsyncClient) -> None:
        super().__init__(agent, software)
        self._fleet_agent = agent
        self._software = software
        self._http = http
        self._chance = random.Random(agent.config.terminal)  # noqa: S311 - a simulation

    def _client(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return contextlib.nullcontext(self._http)

    def runs(self) -> Runs:
        """The truth beside what is reported."""
        agent, twin = self._fleet_agent, self.twin
        version = self._software.running().version
        return Runs(agent.config.terminal, version, self.running, twin.gen, twin.config_hash, agent.counts.reboots)

    async def boot(self) -> None:
        if self._fleet_agent.counts.reboots:
            await asyncio.sleep(self._chance.uniform(*BOOT_S))
        await super().boot()

    def health(self) -> dict[str, Any]:
        health = super().health()
        if self._fault is Fault.UNWELL and self.running != self._software.delivered:
            health["desired_refused"] = "the new version is not well"
        return health

    async def _activate(self, args: Mapping[str, str | int]) -> str:
        wanted = self.twin.software
        if wanted is not None and wanted.version != self._software.delivered:
            if self._fault is Fault.SAYS_DONE:
                return wanted.version
            if self._fault is Fault.OLD_BOOT:
                self.running = wanted.version
                await self._fleet_agent.report()
                return wanted.version
        running = await super()._activate(args)
        if self._fault is Fault.FLAPS and running != self._software.delivered:
            self._fleet_agent.spawn(self._flap(running))
        return running

    @property
    def _fault(self) -> Fault:
        return self._software.fault

    async def _flap(self, version: str) -> None:
        """Start again and again, as long as it is to run this version and does."""
        while True:
            await asyncio.sleep(FLAP_EVERY_S)
            if self.running != version or self.twin.software is None or self.twin.software.version != version:
                return
            await self._fleet_agent.reboot("a crash of the new version")
