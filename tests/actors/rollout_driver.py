"""A rollout's driver by hand: journal kept, terminals moved by the test, hours of the night."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from actors.rollout import tick
from actors.rollout_commands import receive
from actors.rollout_effects import (
    Activate,
    Journal,
    Observation,
    Restore,
    RolloutCommand,
    RolloutTurn,
    SetDesired,
    Start,
)
from models.domain.ids import TerminalId
from models.domain.rollout import (
    Observed,
    RolloutState,
    Site,
    TargetState,
)
from models.domain.rollout_journal import Rollout, StageMoved, folded
from models.domain.rollout_plan import PlannedStore
from tests.domain.rollouts import (
    AUTHOR,
    CONFIG,
    NOW,
    old,
    policy,
    rollout,
    rules,
)

E = TypeVar("E")


class Driver:
    """Performs turns by hand: journal kept, terminals moved by the test."""

    def __init__(self, started: Rollout, sites: tuple[Site, ...], **sight: Any) -> None:
        self.rollout = started
        self.seen: dict[TerminalId, Observed] = {
            one.terminal: old(**sight) for place in sites for one in place.terminals
        }
        self.arrivals: tuple[PlannedStore, ...] = ()
        self.last: RolloutTurn = RolloutTurn(started)

    def observation(self) -> Observation:
        return Observation(self.seen, arrivals=self.arrivals)

    def tell(self, told: RolloutCommand, at: datetime = NOW) -> RolloutTurn:
        return self._took(receive(self.rollout, told, self.observation(), at))

    def tick(self, at: datetime = NOW) -> RolloutTurn:
        return self._took(tick(self.rollout, self.observation(), at))

    def _took(self, turn: RolloutTurn) -> RolloutTurn:
        entries = [one.entry for one in turn.effects if isinstance(one, Journal)]
        assert folded(self.rollout, entries) == turn.rollout, "the rollout is the fold of its journal"
        if any(isinstance(one, StageMoved) for one in entries):
            assert isinstance(entries[0], StageMoved), "a stage is open before its targets are asked"
        orders = [n for n, one in enumerate(turn.effects) if isinstance(one, SetDesired | Restore | Activate)]
        assert not orders or min(orders) >= len(entries), "journal before publish"
        self.rollout, self.last = turn.rollout, turn
        return turn

    def all(self, **sight: Any) -> None:
        for target in self.seen:
            self.seen[target] = replace(self.seen[target], **sight)

    def become(self, sight: Observed, *targets: str) -> None:
        for target in self.seen:
            if not targets or target in targets:
                self.seen[target] = sight

    def stands(self) -> RolloutState:
        return self.rollout.state

    def of(self, kind: type[E]) -> list[E]:
        return [one for one in self.last.effects if isinstance(one, kind)]

    def states(self) -> Mapping[str, TargetState]:
        return {target: self.rollout.mark(target).state for target in self.seen}


def driver(*sites: Site, artefact: Any = CONFIG, stages: tuple[dict[str, Any], ...] = (), **over: Any) -> Driver:
    started = Driver(rollout(policy(*stages, **over), *sites, artefact=artefact), sites)
    started.tell(Start(AUTHOR))
    return started


NIGHT = [{"begins": "02:00", "until": "05:00", "weekdays": [1, 2, 3, 4, 5, 6, 7]}]
BY_NIGHT = {"name": "all", "stores": "all"} | rules(
    windows=NIGHT, queue_deadline_s=200_000, in_progress_deadline_s=7_200
)
AT_NIGHT = 17 * 3600  # 02:00 of the next day in Shanghai
