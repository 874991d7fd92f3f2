"""1.0 becomes 2.0 in the running house: from the image store to a terminal that asks for digits no more, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from devices.agent_config import AgentConfig
from devices.simulator import SimulatedTerminal
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.screen import Screen, ScreenState
from runtime import administration
from runtime.images import Images, Offered
from runtime.plant import Plant
from runtime.rollout_files import policy_path
from tests.faces.conftest import LFW10
from tests.integration.house import House, PatientUsers, eventually, storeops

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

STORE, LANE, DELIVERED = "gz-panyu", "upgrading", "dragonfly 1.0.0"
PLAN, TAIL, SHOTS, STRAIGHT = "light-10", "4719", ("0001", "0007", "0009"), "0002"
NEW, OLD = (b'{"storeops_image":1,"profile":"dragonfly-%d"}\n' % n + bytes(200_000) for n in (2, 1))


def photograph(number: str) -> bytes:
    return (LFW10 / "Colin_Powell" / f"Colin_Powell_{number}.jpg").read_bytes()


async def add(house: House, plant: Plant, number: str, image: bytes, profile: str) -> None:
    file = house.folder / f"dragonfly-{number}.bin"
    file.write_bytes(image)
    await Images([plant]).add(Offered(file, "dragonfly", number, profile), "test")


async def order(house: House, terminal: str, number: str) -> None:
    answer = await asyncio.to_thread(house.software, "software", terminal, f"dragonfly {number}")
    assert answer["ok"], answer


async def run_now(house: House, terminal: SimulatedTerminal, number: str) -> None:
    version, name = f"dragonfly {number}", terminal.agent.config.terminal
    await eventually(lambda: terminal.agent.duties.fetched == version, f"{version} is fetched")
    answer = await asyncio.to_thread(house.software, "activate", name, version)
    assert answer == {"status": "done", "detail": version}


async def registered(house: House, store: str, lane: str) -> AgentConfig:
    """A new Dragonfly 1 with a folder of its own, as it was delivered."""
    plant, name = house.plant, f"{store}-{lane}"
    added = await administration.add_terminal(plant, store, lane, "face", "dragonfly-1", name)
    return AgentConfig(
        host=plant.broker_host,
        port=plant.broker_port,
        region=RegionId(plant.region),
        store=StoreId(store),
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


def family(house: House, terminal: str) -> tuple[str, str]:
    [row] = house.rows(f"SELECT profile, delivered_profile FROM terminal WHERE id = '{terminal}'")
    return row[0], row[1]


async def looked(terminal: SimulatedTerminal) -> Screen:
    """A visit begins, and somebody looks into the camera."""
    await terminal.open_session()
    await terminal.consent()
    return await terminal.show(photograph(STRAIGHT))


@pytest.mark.skipif(not LFW10.is_dir(), reason="needs real photographs: ../shared/faces/lfw10 beside the project")
async def test_digits_are_asked_for_before_and_not_after_and_again_after_going_back(house: House) -> None:
    plant = house.plant
    for number, image, profile in (("2.0.0", NEW, "dragonfly-2"), ("1.0.1", OLD, "dragonfly-1")):
        await add(house, plant, number, image, profile)
    config = await registered(house, STORE, LANE)
    name = config.terminal
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
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
        await order(house, name, "2.0.0")
        await terminal.agent.stop()
        terminal = SimulatedTerminal.of(config, users)
        await terminal.agent.start(30.0)
        assert terminal.agent.duties.running == DELIVERED
        await run_now(house, terminal, "2.0.0")
        await eventually(lambda: family(house, name) == ("dragonfly-2", "dragonfly-1"), "the registry knows")
        known = await looked(terminal)
        assert (known.state, known.member) == (ScreenState.IDENTIFIED, member)
        await terminal.cancel()

        # A host that begins anew has it from the registry.
        killed = house.host()
        await asyncio.to_thread(killed.kill)
        await eventually(lambda: house.host().pid != killed.pid, "the host is back")
        await order(house, name, "1.0.1")
        await run_now(house, terminal, "1.0.1")
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
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
        terminal = SimulatedTerminal.of(config, PatientUsers(http, plant.provider_url, "alipay"))
        await terminal.agent.start(30.0)
        await eventually(lambda: house.health()["families_claimed"] > claimed, "the claim is counted")
        assert family(house, name) == ("dragonfly-1", "")
        incidents = house.rows(f"SELECT kind FROM incident WHERE terminal = '{name}'")
        assert incidents == [("family_claimed",)]
        # And an image that would take from its lane what it needs is refused.
        answer = await asyncio.to_thread(house.software, "software", name, "boaster 1.0.0")
        assert answer == {"ok": False, "code": "unfit_role"}
        await terminal.agent.stop()


# ---------------------------------------------------------------- a rollout


def ladder(house: House) -> Path:
    """The shipped rules for software in two stages of a store each: at any hour, with a soak of a second."""
    rules = yaml.safe_load(policy_path("software").read_text("utf-8"))
    rules |= {"mandatory_roles": ["face"], "tail": False}
    rules["every_stage"] |= {"windows": [], "soak_s": 1, "jitter_s": 0}
    pilot, _, everybody = rules["stages"]
    pilot |= {"stores": 1, "executed_min": 1, "in_flight_stores_max": 1, "starts_per_minute_max": 1}
    rules["stages"] = [pilot, everybody | {"executed_min": 1, "error_stores_max": 0}]
    path = house.folder / "ladder.yaml"
    path.write_text(yaml.safe_dump(rules, allow_unicode=True), "utf-8")
    return path


@pytest.mark.soak  # who is busy is told again after a minute
async def test_a_rollout_takes_two_stores_to_2_0_and_back_although_its_actor_is_killed(house: House) -> None:
    plant, stores = house.plant, (STORE, "gz-haizhu")
    for number, image, profile in (("2.0.2", NEW + b"2", "dragonfly-2"), ("1.0.2", OLD + b"2", "dragonfly-1")):
        await add(house, plant, number, image, profile)
    configs = [await registered(house, store, "rolling") for store in stores]
    names = [config.terminal for config in configs]
    others = house.rows("SELECT id FROM terminal WHERE store = ANY(%s) AND id <> ALL(%s)", (list(stores), names))

    def told(*words: str) -> dict[str, Any]:
        return storeops("rollout", *words, "--data", str(house.data))

    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
        users = PatientUsers(http, plant.provider_url, "alipay")
        terminals = [SimulatedTerminal.of(config, users) for config in configs]
        boots = [terminal.agent.boot for terminal in terminals]
        for terminal in terminals:
            await terminal.agent.start(30.0)
        words = ["plan", "--policy", str(ladder(house)), "--as", "author", "--select", "role=face"]
        words += [f"--select=store={store}" for store in stores]
        words += [f"--select=!terminal={name}" for (name,) in others]
        words += ["--software", "dragonfly 2.0.2", "--fallback", "dragonfly 1.0.2"]
        planned = await asyncio.to_thread(told, *words)
        number = planned["id"]
        first, second = (
            next(one for one in terminals if one.agent.config.store == stage["stores"][0])
            for stage in planned["stages"]
        )
        await asyncio.to_thread(told, "start", number, "--as", "author")
        seen = "SELECT 1 FROM rollout_journal WHERE rollout = %s AND doc->'mark'->>'state' = 'awaits_approval'"
        await eventually(lambda: house.rows(seen, (number,)), "the first store is there")
        assert [one.agent.duties.running for one in (first, second)] == ["dragonfly 2.0.2", DELIVERED]
        assert family(house, first.agent.config.terminal) == ("dragonfly-2", "dragonfly-1")

        # In the other one somebody is served; the actor dies meanwhile.
        await second.open_session()
        await asyncio.to_thread(told, "promote", number, "--as", "approver")
        busy = "SELECT 1 FROM rollout_journal WHERE rollout = %s AND doc->'mark'->>'reason' = 'busy'"
        await eventually(lambda: house.rows(busy, (number,)), "it serves somebody")
        shown = await asyncio.to_thread(told, "explain", number, second.agent.config.terminal)
        assert "it serves somebody" in shown["entries"][-1]["words"]
        driver = house.part("ray::HostedRollouts")
        await asyncio.to_thread(driver.kill)
        assert second.agent.duties.running == DELIVERED
        await second.cancel()
        await eventually(lambda: state(house, number) == "completed", "both are there", 120.0)
        assert {one.agent.duties.running for one in terminals} == {"dragonfly 2.0.2"}
        assert not set(boots) & {one.agent.boot for one in terminals}
        assert {family(house, name) for name in names} == {("dragonfly-2", "dragonfly-1")}

        await asyncio.to_thread(told, "rollback", number, "--as", "approver", "--reason", "a test")
        await eventually(lambda: state(house, number) == "rolled_back", "both are back", 60.0)
        assert {one.agent.duties.running for one in terminals} == {"dragonfly 1.0.2"}
        await eventually(lambda: {family(house, name) for name in names} == {("dragonfly-1", "")}, "and asks again")
        for terminal in terminals:
            await terminal.agent.stop()


def state(house: House, number: str) -> str:
    [(found,)] = house.rows("SELECT state FROM rollout WHERE id = %s", (number,))
    return str(found)
