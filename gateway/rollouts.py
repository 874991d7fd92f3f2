"""What the console and the API ask of a chain's rollouts, which the runtime implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.rollout_effects import RolloutCommand, RolloutTurn
from models.domain.errors import StoreOpsError
from models.domain.ids import RegionId, StoreId
from models.domain.kill_switch import Place
from models.domain.rollout import Artefact, PersonId, RolloutId, RolloutPolicy, Selector
from models.domain.rollout_journal import Rollout
from models.domain.twin import SoftwareVersion
from models.tables.rollouts import Decision, Header, StageOutlook


@dataclass(frozen=True, slots=True)
class Planned:
    """A draft, what each of its stages will see, and which rollout stands in its way."""

    rollout: Rollout
    outlooks: tuple[StageOutlook | None, ...]
    conflict: RolloutId | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A rollout as it stands at this moment: its turn has counts and gates of every open stage, and its why."""

    header: Header
    turn: RolloutTurn
    outlooks: tuple[StageOutlook | None, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """One wrong value of a policy's text: line and column count from 1; `path` as `stages[1].soak_s`."""

    line: int
    column: int
    path: str
    reason: str


def reach(rollout: Rollout) -> list[Place]:
    """Where a permission must hold; with a tail all over the chain first: nobody knows which stores will open."""
    stores = [*(store for stage in rollout.plan.stages for store in stage.stores), *rollout.tail]
    whole = [Place(rollout.chain, RegionId(""), StoreId(""))] if rollout.policy.tail else []
    return [*whole, *(Place(rollout.chain, store.region, store.store) for store in stores)]


class PolicyWrong(StoreOpsError):
    """A policy that nobody can follow; `problems` in the order of the lines."""

    def __init__(self, problems: Sequence[PolicyProblem]) -> None:
        first = problems[0]
        text = f"line {first.line}, column {first.column}: {first.path or 'policy'}: {first.reason}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__("policy_wrong", text + more, "mend these lines")
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class ShippedPolicy:
    """A policy that comes with the software, and the YAML that says it."""

    policy: RolloutPolicy
    text: str


class ChainDesk(Protocol):
    """One chain's rollouts. Commands are durable when they return; the chain's actor follows within a round."""

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
        """Resolve and freeze, keep nothing. `number` repeated gives the draft that was kept under it."""

    async def keep(self, planned: Planned) -> Planned:
        """Keep what was previewed as a draft; once, however often it is said."""

    async def tell(self, number: RolloutId, told: RolloutCommand) -> RolloutTurn:
        """Do what somebody says. Raises Refused with the rollout's reasons, RetryLater `rollout_busy`."""

    async def supersede(self, old: RolloutId, new: RolloutId, by: PersonId) -> RolloutTurn:
        """The draft `new` begins and takes over what `old` changed, which ends. Returns the new one's turn."""

    async def show(self, number: RolloutId) -> Shown:
        """As it stands now, at most a second old."""

    async def candidate_of_prices(self, body: bytes, *, force: bool = False) -> Artefact:
        """A price file as a candidate of the chain's book: kept, and in force nowhere."""

    async def candidate_of_plans(self, plans: Sequence[Mapping[str, Any]]) -> Artefact:
        """Plans, new ones or next versions, likewise. Raises PlanError."""

    async def candidate_of_version(self, version: int) -> Artefact:
        """A candidate that is kept. Raises Refused `unknown_book`."""


class Rollouts(Protocol):
    """All chains of a deployment."""

    async def of(self, chain: str) -> ChainDesk:
        """The desk of a chain. Raises Refused `unknown_chain`."""

    async def release(self, version: str) -> SoftwareVersion:
        """A version of the image store, as a terminal's document names it. Raises Refused `unknown_version`."""

    def policies(self) -> Sequence[ShippedPolicy]:
        """Those that come with the software, by name."""

    def policy_in(self, text: str) -> RolloutPolicy:
        """The policy that a YAML text says. Raises PolicyWrong."""
