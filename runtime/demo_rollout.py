"""The demonstration's rollout: louder terminals, first in two stores, then six, then all; it waits for Promote.

The rules are those of configs/rollouts/configuration.yaml without what a demonstration has no days for: evidence,
attachments, and half an hour of soaking. It is planned and started like any other, and driven by the house's own actor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from actors.rollout_effects import Start
from models.domain.ids import StoreId
from models.domain.kill_switch import Scope, ScopeKind
from models.domain.permissions import Grant, Permission
from models.domain.plan_reader import Text
from models.domain.rollout import PersonId, RolloutId, RolloutPolicy, RolloutState, Selector, StageState
from models.domain.rollout_journal import Rollout
from models.domain.rollout_part import patch_artefact
from runtime.permissions_cli import change_everywhere
from runtime.plant import Plant
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_files import policy_path, read_policy

AUTHOR = PersonId("cli:headquarters")
VISITOR = "visitor"
"""Whoever follows the demonstration's link: somebody other than the author, who may promote."""
PATCH = {"sound": {"volume_percent": 60}}
SOAK_S = 15
SECOND_STAGE_STORES = 6
KNOWN_AS = "demonstration"
WAITS_S_MAX = 60.0


def policy_of(pilot: Sequence[StoreId]) -> RolloutPolicy:
    """The named stores, six, the rest; each stage by a person who is not the author."""
    shipped = read_policy(policy_path("configuration"))
    first, second, last = (
        replace(
            stage,
            policy=replace(stage.policy, soak_s=SOAK_S, jitter_s=0, executed_min=1, evidence=None, attachments=()),
        )
        for stage in shipped.stages
    )
    stages = (
        replace(first, stores=len(pilot), named=tuple(pilot)),
        replace(second, name="six", stores=SECOND_STAGE_STORES),
        last,
    )
    title = Text("演示：2 → 6 → 全部", "the demonstration: 2, 6, all")
    return replace(shipped, name="demonstration", title=title, stages=stages, tail=False)


async def begin(plant: Plant, pilot: Sequence[StoreId], say: Callable[[str], None]) -> RolloutId:
    """Plan and start it once in the life of a data folder; a second demonstration finds it where people left it."""
    for permission in (Permission.ROLLOUT_CREATE, Permission.ROLLOUT_PROMOTE, Permission.ROLLOUT_HALT):
        grant = Grant(VISITOR, permission, Scope(ScopeKind.CHAIN, plant.chain))
        await change_everywhere([plant.database_url], grant, True, AUTHOR)
    databases = Databases([plant])
    await databases.open()
    try:
        desk = RolloutDesk(databases)
        planned = await desk.plan(
            policy_of(pilot), patch_artefact(PATCH), Selector(all_stores=True), AUTHOR, number=KNOWN_AS
        )
        if planned.rollout.state is RolloutState.DRAFT:
            await desk.tell(planned.rollout.id, Start(AUTHOR))
            say(f"a rollout begins in {' and '.join(pilot)}: {plant.gateway_url}/rollouts")
        return planned.rollout.id
    finally:
        await databases.close()


async def passed_its_gate(plant: Plant, number: RolloutId, say: Callable[[str], None]) -> bool:
    """Wait until the pilot's gate asks for a person, or a person has decided already; False after a minute."""
    databases = Databases([plant])
    await databases.open()
    try:
        desk, end = RolloutDesk(databases), time.monotonic() + WAITS_S_MAX
        while time.monotonic() < end:
            turn = (await desk.show(number)).turn
            if _decided(turn.rollout):
                say(f"the rollout: {turn.why.en}")
                return True
            await asyncio.sleep(0.5)
        return False
    finally:
        await databases.close()


def _decided(rollout: Rollout) -> bool:
    pilot = rollout.stages[0].state
    return pilot in (StageState.AWAITS_APPROVAL, StageState.PASSED) or not rollout.state.active
