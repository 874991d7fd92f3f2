"""1.0 becomes 2.0 in the running house: from the image store to a terminal that asks for digits no more, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from devices.agent_config import AgentConfig
from devices.simulator import SimulatedTerminal
from models.domain.errors import Refused
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.screen import Screen, ScreenState
from runtime import administration, commands
from runtime.images import Images, Offered
from runtime.plant import Plant
from tests.faces.conftest import LFW10
from tests.integration.house import House, PatientUsers, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

STORE, LANE, DELIVERED = "gz-panyu", "upgrading", "dragonfly 1.0.0"
PLAN, TAIL, SHOTS, STRAIGHT = "light-10", "4719", ("0004", "0005", "0008"), "0010"
NEW, OLD = (b'{"storeops_image":1,"profile":"dragonfly-%d"}\n' % n + bytes(200_000) for n in (2, 1))


def photograph(number: str) -> bytes:
    return (LFW10 / "Hugo_Chavez" / f"Hugo_Chavez_{number}.jpg").read_bytes()


async def add(house: House, plant: Plant, number: str, image: bytes, profile: str) -> None:
    file = house.folder / f"dragonfly-{number}.bin"
    file.write_bytes(image)
    await Images([plant]).add(Offered(file, "dragonfly", number, profile), "test")


async def order(plant: Plant, terminal: str, number: str) -> None:
    images = Images([plant])
    release = images.release(await images.find(f"dragonfly {number}"))
    results = await commands.set_desired(plant, [terminal], commands.Change(software=release))
    assert results[terminal].ok, results


async def run_now(plant: Plant, terminal: SimulatedTerminal, number: str) -> None:
    version = f"dragonfly {number}"
    await eventually(lambda: terminal.agent.duties.fetched == version, f"{version} is fetched")
    asked = commands.new_command("activate", [], 20)
    row = await commands.command(plant, terminal.agent.config.terminal, asked)
    assert (row["status"], row["detail"]) == ("done", version), row


def family(house: House, terminal: str) -> tuple[str, str]:
    [row] = house.rows(f"SELECT profile, delivered_profile FROM terminal WHERE id = '{terminal}'")
    return row[0], row[1]


async def looked(terminal: SimulatedTerminal) -> Screen:
    """A visit begins, and somebody looks into the camera."""
    await terminal.open_session()
    await terminal.consent()
    return await terminal.show(photograph(STRAIGHT))


@pytest.mark.soak  # alone it passes; behind test_rollout_house its image is not fetched in 30 s
@pytest.mark.skipif(not LFW10.is_dir(), reason="needs real photographs: ../shared/faces/lfw10 beside the project")
async def test_digits_are_asked_for_before_and_not_after_and_again_after_going_back(house: House) -> None:
    plant = house.plant
    for number, image, profile in (("2.0.0", NEW, "dragonfly-2"), ("1.0.1", OLD, "dragonfly-1")):
        await add(house, plant, number, image, profile)
    name = f"{STORE}-{LANE}"
    added = await administration.add_terminal(plant, STORE, LANE, "face", "dragonfly-1", name)
    config = AgentConfig(
        host=plant.broker_host,
        port=plant.broker_port,
        region=RegionId(plant.region),
        store=StoreId(STORE),
        terminal=TerminalId(name),
        profile="dragonfly-1",
        secret=str(added["secret"]),
        software=DELIVERED,
        outbox_path=house.folder / f"{name}.sqlite",
        folder=house.folder / name,
        resend_first_s=1.0,
        reconnect_s_min=0.2,
        reconnect_s_max=1.0,
    )
    async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
        users = PatientUsers(http, plant.provider_url, "alipay")
        terminal = SimulatedTerminal.of(config, users)
        await terminal.agent.start(30.0)
        await eventually(lambda: terminal.agent.desired, "its desired document")
        before = sum(house.faces_health()["templates"].values())
        await terminal.open_session()
        await terminal.consent("recognise")
        await terminal.consent("membership")
        shots = [photograph(number) for number in SHOTS]
        member = (await terminal.enrol(PLAN, phone=f"1370000{TAIL}", user="upgrades", shots=shots)).member
        assert member is not None
        await terminal.cancel()
        await eventually(lambda: sum(house.faces_health()["templates"].values()) > before, "the face is searched")

        asked = await looked(terminal)
        assert asked.state is ScreenState.DIGITS, "a Dragonfly 1 asks always"
        await terminal.digits(TAIL)
        await terminal.cancel()

        # Power is cut while the image is on its way; another process continues where it stopped.
        await order(plant, name, "2.0.0")
        await terminal.agent.stop()
        terminal = SimulatedTerminal.of(config, users)
        await terminal.agent.start(30.0)
        assert terminal.agent.duties.running == DELIVERED
        await run_now(plant, terminal, "2.0.0")
        await eventually(lambda: family(house, name) == ("dragonfly-2", "dragonfly-1"), "the registry knows")
        known = await looked(terminal)
        assert (known.state, known.member) == (ScreenState.IDENTIFIED, member)
        await terminal.cancel()

        # A host that begins anew has it from the registry.
        killed = house.host()
        await asyncio.to_thread(killed.kill)
        await eventually(lambda: house.host().pid != killed.pid, "the host is back")
        await order(plant, name, "1.0.1")
        await run_now(plant, terminal, "1.0.1")
        await eventually(lambda: family(house, name) == ("dragonfly-1", ""), "the registry knows")
        assert (await looked(terminal)).state is ScreenState.DIGITS
        await terminal.cancel()
        await terminal.agent.stop()


async def test_who_only_calls_itself_another_family_is_not_believed(house: House, tmp_path: Path) -> None:
    plant, name = house.plant, f"{STORE}-boasting"
    image = tmp_path / "till.bin"
    image.write_bytes(b"makes a till of it")
    offered = Offered(image, "boaster", "1.0.0", "till")
    await Images([plant]).add(offered, "test")
    added = await administration.add_terminal(plant, STORE, "boasting", "face", "dragonfly-1", name)
    claimed = house.health()["families_claimed"]
    config = AgentConfig(
        host=plant.broker_host,
        port=plant.broker_port,
        region=RegionId(plant.region),
        store=StoreId(STORE),
        terminal=TerminalId(name),
        profile="dragonfly-2",
        software="boaster 1.0.0",
        secret=str(added["secret"]),
    )
    async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
        terminal = SimulatedTerminal.of(config, PatientUsers(http, plant.provider_url, "alipay"))
        await terminal.agent.start(30.0)
        await eventually(lambda: house.health()["families_claimed"] > claimed, "the claim is counted")
        assert family(house, name) == ("dragonfly-1", "")
        incidents = house.rows(f"SELECT kind FROM incident WHERE terminal = '{name}'")
        assert incidents == [("family_claimed",)]
        # And an image that would take from its lane what it needs is refused.
        images = Images([plant])
        release = images.release(await images.find("boaster 1.0.0"))
        try:
            results = await commands.set_desired(plant, [name], commands.Change(software=release))
            assert results[name].code == "unfit_role"
        except Refused as refused:
            assert refused.code == "unfit_role"  # noqa: PT017
        await terminal.agent.stop()
