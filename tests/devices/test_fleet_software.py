"""Software of the fleet's terminals over a real broker: who has which fault runs, reports and answers what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import httpx
import msgspec
import pytest

from devices import codec
from devices.fleet import software
from devices.fleet.agent import FleetAgent
from devices.fleet.evidence import Witness
from devices.fleet.orders import Fault
from devices.fleet.software import MemorySoftware
from devices.software import FetchBroken
from devices.wire import SoftwareRelease
from models.domain.errors import Refused
from runtime.broker import EmbeddedBroker
from tests.devices.files import FileServer, serving
from tests.devices.support import agent_config, fresh, until

OLD, NEW = "fleet 1.0.0", "fleet 2.0.0"


@pytest.fixture
def files() -> Iterator[FileServer]:
    with serving() as server:
        server.files |= {f"/{version}": version.encode() for version in ("old", "new")}
        yield server


def release(files: FileServer, version: str, name: str) -> SoftwareRelease:
    return SoftwareRelease(version, f"{files.url}/{name}", sha256(name.encode()).hexdigest(), len(name))


class Device:
    """One terminal of the fleet, told directly what its host would tell it."""

    def __init__(self, broker: EmbeddedBroker, fault: Fault, http: httpx.AsyncClient) -> None:
        self.agent = FleetAgent(agent_config(broker, fresh(), software=OLD), Witness(0), ThreadPoolExecutor(1), 1)
        self.agent.take_software(MemorySoftware(OLD, asyncio.Semaphore(2), fault), http)
        assert self.agent.software is not None
        self.duties = self.agent.software

    async def told(self, gen: int, wanted: SoftwareRelease) -> None:
        payload = codec.encode_desired(gen, {}, wanted)
        await self.duties.desire(payload, codec.decode_desired(payload))

    async def starts(self, gen: int, wanted: SoftwareRelease) -> tuple[str, str, str]:
        """What it answers, really runs, and reports."""
        await self.told(gen, wanted)
        await until(lambda: self.duties.fetched == wanted.version)
        try:
            answer = await self.duties._activate({})
        except Refused as error:
            answer = error.code
        runs = self.duties.runs()
        return answer, runs.version, runs.reported


async def test_each_fault_shows_what_it_is_named_after(
    shared_broker: EmbeddedBroker, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software, "BOOT_S", (0.0, 0.01))
    monkeypatch.setattr(software, "FLAP_EVERY_S", 0.05)
    old, new = release(files, OLD, "old"), release(files, NEW, "new")
    async with httpx.AsyncClient(timeout=30.0) as http:
        devices = {fault: Device(shared_broker, fault, http) for fault in Fault if fault is not Fault.OFFLINE}
        await asyncio.gather(*(one.agent.start(10.0) for one in devices.values()))
        silent = devices.pop(Fault.SILENT)
        try:
            began = {fault: one.agent.boot for fault, one in devices.items()}
            found = dict(
                zip(devices, await asyncio.gather(*(one.starts(1, new) for one in devices.values())), strict=True)
            )
            assert found == {
                Fault.NONE: (NEW, NEW, NEW),
                Fault.REFUSES: ("self_test", OLD, OLD),
                Fault.UNWELL: (NEW, NEW, NEW),
                Fault.SAYS_DONE: (NEW, OLD, OLD),
                Fault.OLD_BOOT: (NEW, OLD, NEW),
                Fault.FLAPS: (NEW, NEW, NEW),
            }
            same = {fault for fault, one in devices.items() if one.agent.boot == began[fault]}
            assert same == {Fault.REFUSES, Fault.SAYS_DONE, Fault.OLD_BOOT}
            assert {fault for fault, one in devices.items() if "desired_refused" in one.duties.health()} == {
                Fault.UNWELL
            }
            await until(lambda: devices[Fault.FLAPS].agent.counts.reboots >= 3)
            await silent.told(1, new)
            await asyncio.sleep(0)
            assert not silent.duties.fetched

            await asyncio.gather(*(one.told(2, old) for one in (silent, *devices.values())))
            back = [devices[fault] for fault in (Fault.NONE, Fault.UNWELL, Fault.OLD_BOOT, Fault.FLAPS)]
            answers = await asyncio.gather(*(one.starts(3, old) for one in back))
            assert answers == [(OLD, OLD, OLD)] * 4, "what it was delivered with it always takes"
            everybody = [one.duties.runs() for one in (silent, *devices.values())]
            assert {(one.version, one.reported, one.applied_gen >= 2) for one in everybody} == {(OLD, OLD, True)}
        finally:
            await asyncio.gather(*(one.agent.stop() for one in (silent, *devices.values())))


async def test_an_image_that_is_not_what_was_promised_is_not_kept(files: FileServer) -> None:
    store = MemorySoftware(OLD, asyncio.Semaphore(1))
    async with httpx.AsyncClient(timeout=30.0) as http:
        wrong = msgspec.structs.replace(release(files, NEW, "new"), sha256="0" * 64)
        with pytest.raises(FetchBroken):
            await store.fetch(wrong, http)
    with pytest.raises(Refused) as refused:
        store.activate(wrong)
    assert refused.value.code == "not_fetched"
