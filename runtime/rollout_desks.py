"""The rollouts of a deployment for its console and API: a desk for each chain, and the policies that are shipped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from time import monotonic
from typing import Any

from actors.rollout_effects import RolloutCommand, RolloutTurn
from gateway.rollouts import ChainDesk, Planned, PolicyProblem, PolicyWrong, ShippedPolicy, Shown
from models.domain.errors import NeedsOperator, Refused
from models.domain.rollout import Artefact, PersonId, RolloutId, RolloutPolicy, Selector
from models.domain.twin import SoftwareVersion
from runtime.clock import wall_now
from runtime.images import Images
from runtime.plant import Plant
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_files import PolicyFileError, parse_policy, policy_path, read_policy, shipped

SHOWN_S = 1.0
"""Whoever looks within this time after somebody else sees the same: a look reads every terminal of the open stages."""
SHOWN_MAX = 32


class RolloutsOfAHouse:
    """See gateway.rollouts.Rollouts. Connections open when a chain is asked first; `close` ends them."""

    def __init__(self, plants: Sequence[Plant], wall: Callable[[], datetime] = wall_now) -> None:
        self._plants = tuple(plants)
        self._wall = wall
        self._databases: dict[str, Databases] = {}
        self._desks: dict[str, _SharedLooks] = {}
        self._opening = asyncio.Lock()

    async def of(self, chain: str) -> ChainDesk:
        async with self._opening:
            if chain not in self._desks:
                plants = [plant for plant in self._plants if plant.chain == chain]
                if not plants:
                    names = ", ".join(dict.fromkeys(plant.chain for plant in self._plants))
                    raise Refused("unknown_chain", f"no chain {chain!r}", f"one of: {names}")
                databases = self._databases[chain] = Databases(plants)
                await databases.open()
                self._desks[chain] = _SharedLooks(RolloutDesk(databases, self._wall))
            return self._desks[chain]

    async def release(self, version: str) -> SoftwareVersion:
        images = Images(self._plants)
        return images.release(await images.find(version))

    def policies(self) -> Sequence[ShippedPolicy]:
        return _shipped()

    def policy_in(self, text: str) -> RolloutPolicy:
        try:
            return parse_policy(text)
        except PolicyFileError as error:
            problems = [PolicyProblem(one.line, one.column, one.path, one.reason) for one in error.problems]
        except NeedsOperator as error:
            problems = [PolicyProblem(1, 1, "", error.message)]
        raise PolicyWrong(problems)

    async def close(self) -> None:
        """Every connection."""
        for databases in self._databases.values():
            await databases.close()


@cache
def _shipped() -> tuple[ShippedPolicy, ...]:
    paths = [policy_path(name) for name in shipped()]
    return tuple(ShippedPolicy(read_policy(path), path.read_text(encoding="utf-8")) for path in paths)


class _SharedLooks:
    """A chain's desk; those who look at the same rollout at the same time share one look."""

    def __init__(self, desk: RolloutDesk) -> None:
        self._desk = desk
        self._looks: dict[RolloutId, tuple[float, asyncio.Task[Shown]]] = {}

    async def preview(
        self,
        policy: RolloutPolicy,
        artefact: Artefact,
        selector: Selector,
        author: PersonId,
        *,
        seed: int = 0,
        number: str | None = None,
    ) -> Planned:
        return await self._desk.preview(policy, artefact, selector, author, seed=seed, number=number)

    async def keep(self, planned: Planned) -> Planned:
        return await self._desk.keep(planned)

    async def tell(self, number: RolloutId, told: RolloutCommand) -> RolloutTurn:
        try:
            return await self._desk.tell(number, told)
        finally:
            self._looks.pop(number, None)

    async def supersede(self, old: RolloutId, new: RolloutId, by: PersonId) -> RolloutTurn:
        try:
            return await self._desk.supersede(old, new, by)
        finally:
            self._looks.pop(old, None)
            self._looks.pop(new, None)

    async def candidate_of_prices(self, body: bytes, *, force: bool = False) -> Artefact:
        return await self._desk.candidate_of_prices(body, force=force)

    async def candidate_of_plans(self, plans: Sequence[Mapping[str, Any]]) -> Artefact:
        return await self._desk.candidate_of_plans(plans)

    async def candidate_of_version(self, version: int) -> Artefact:
        return await self._desk.candidate_of_version(version)

    async def show(self, number: RolloutId) -> Shown:
        began, look = self._looks.get(number, (0.0, None))
        if look is None or (look.done() and monotonic() - began > SHOWN_S):
            look = asyncio.create_task(self._desk.show(number))
            self._looks.pop(number, None)
            self._looks[number] = (monotonic(), look)
            while len(self._looks) > SHOWN_MAX:
                self._looks.pop(next(iter(self._looks)))
        return await asyncio.shield(look)
