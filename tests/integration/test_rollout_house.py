"""A rollout in the running house: real terminals over MQTT, two stores, then the third, then back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from actors.rollout_effects import Promote, Start
from devices.simulator import SimulatedTerminal
from models.domain.ids import StoreId, TerminalId
from models.domain.kill_switch import Scope, ScopeKind
from models.domain.permissions import Grant, Permission
from models.domain.rollout import PersonId, RolloutId, RolloutPolicy, Selector
from models.domain.rollout_part import patch_artefact
from runtime.administration import login_link
from runtime.permissions_cli import change_everywhere
from runtime.plant import read_plants
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_files import policy_path, read_policy
from tests.integration.house import House, Note, eventually, storeops

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

AUTHOR, OTHER = PersonId("cli:author"), PersonId("cli:other")
PILOT = (StoreId("gz-haizhu"), StoreId("gz-yuexiu"))
LAST = StoreId("gz-liwan")


def quick_policy() -> RolloutPolicy:
    """The shipped ladder without soaking and evidence: the two named stores, approval, the rest."""
    policy = read_policy(policy_path("configuration"))
    pilot, _, everybody = policy.stages
    first = replace(pilot.policy, soak_s=0, jitter_s=0, evidence=None, attachments=())
    last = replace(everybody.policy, soak_s=0, jitter_s=0)
    stages = (replace(pilot, named=PILOT, policy=first), replace(everybody, policy=last))
    return replace(policy, stages=stages, tail=False)


def volume(terminal: SimulatedTerminal) -> object:
    return terminal.agent.desired.get("sound", {}).get("volume_percent")


async def test_two_stores_the_third_and_back(house: House, note: Note) -> None:
    async with (
        house.terminal(PILOT[0], "rolled") as one,
        house.terminal(PILOT[1], "rolled") as two,
        house.terminal(LAST, "rolled") as three,
    ):
        ours = {str(each.agent.config.terminal) for each in (one, two, three)}
        others = house.rows("SELECT id FROM terminal WHERE store = ANY(%s)", ([*PILOT, LAST],))
        excluded = frozenset(TerminalId(str(name)) for (name,) in others if name not in ours)
        selector = Selector(stores=frozenset({*PILOT, LAST}), excluded_terminals=excluded)
        before = [volume(each) for each in (one, two, three)]

        databases = Databases(read_plants(house.data))
        await databases.open()
        try:
            desk = RolloutDesk(databases)
            planned = await desk.plan(
                quick_policy(), patch_artefact({"sound": {"volume_percent": 37}}), selector, AUTHOR
            )
            number = planned.rollout.id
            began = asyncio.get_running_loop().time()
            await desk.tell(number, Start(AUTHOR))
            await arrives(house, number, "awaits_approval")
            note("pilot_s", asyncio.get_running_loop().time() - began)
            assert [volume(each) for each in (one, two)] == [37, 37]
            assert volume(three) == before[2]

            await desk.tell(number, Promote(OTHER))
            await eventually(lambda: state(house, number) == "completed", "every stage passed")
            assert volume(three) == 37
            told = await asyncio.to_thread(storeops, "rollout", "status", number, "--data", str(house.data))
            assert (told["state"], [one["state"] for one in told["stages"]]) == ("completed", ["passed", "passed"])

            began = asyncio.get_running_loop().time()
            await rolled_back_by_api(house, number)
            await eventually(lambda: state(house, number) == "rolled_back", "everybody is back")
            note("rollback_s", asyncio.get_running_loop().time() - began)
            assert [volume(each) for each in (one, two, three)] == before
        finally:
            await databases.close()


async def rolled_back_by_api(house: House, number: RolloutId) -> None:
    """As somebody who is signed in and may: the gateway has its desk."""
    halts = Grant("ops", Permission.ROLLOUT_HALT, Scope(ScopeKind.CHAIN, house.plant.chain))
    await change_everywhere([house.plant.database_url], halts, True, "test")
    link = await login_link(house.plant, "ops")
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        await client.get(link)
        api = link.partition("/login/")[0] + "/api/v1"
        shown = (await client.get(f"{api}/rollouts/{number}")).json()
        assert [one["counts"]["succeeded"] for one in shown["stages"]] == [2, 1]
        csrf = (await client.get(f"{api}/session")).json()["csrf"]
        headers = {"X-CSRF-Token": csrf, "Idempotency-Key": f"back-{number}"}
        told = await client.post(f"{api}/rollouts/{number}/rollback", json={"reason": "too quiet"}, headers=headers)
        assert (told.status_code, told.json()["state"]) == (200, "rolling_back"), told.text


def state(house: House, number: RolloutId) -> str:
    [(found,)] = house.rows("SELECT state FROM rollout WHERE id = %s", (number,))
    return str(found)


async def arrives(house: House, number: RolloutId, stage: str) -> None:
    """Some stage of it is journalled in this state."""
    query = "SELECT 1 FROM rollout_journal WHERE rollout = %s AND kind = 'stage' AND doc->'mark'->>'state' = %s"
    await eventually(lambda: house.rows(query, (number, stage)), f"a stage {stage}")
