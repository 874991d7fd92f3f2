"""What a chain's rollouts are counted by: what their driver did, how they stand, how long a tick takes."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from models.domain.rollout import RolloutId, RolloutState, TargetState
from models.domain.rollout_journal import Rollout
from runtime.metrics import LATENCY_MS

_RETURNS = (RolloutState.ROLLING_BACK, RolloutState.ROLLBACK_STUCK, RolloutState.ROLLED_BACK)
REMEMBERED_MAX = 200
_DONE = (RolloutState.COMPLETED, RolloutState.TAILING)


@dataclass(slots=True)
class RoundCounts:
    """What a driver did, and saw happen, since it began."""

    ticks: int = 0
    entries: int = 0
    orders: int = 0
    conflicts: int = 0
    """Orders against a generation that had moved: looked at again."""
    refused: int = 0
    """Orders that a terminal's host refused for another reason."""
    lost_races: int = 0
    """Ticks whose journal somebody else had written meanwhile."""
    errors: int = 0
    halts: int = 0
    """Rollouts that stopped, by their gate or by a person."""
    rollbacks: int = 0
    completions: int = 0


class RolloutFigures:
    """Holds each rollout that is active as its last tick left it, and of the last ones that are over the state."""

    def __init__(self, counts: RoundCounts) -> None:
        self._counts = counts
        self._active: dict[RolloutId, Rollout] = {}
        self._last: dict[RolloutId, tuple[RolloutState, int | None]] = {}
        self._tick_ms = [0] * (len(LATENCY_MS) + 1)

    def ticked(self, rollout: Rollout, ms: float) -> None:
        """A tick took so long, reading and writing included, and left the rollout so."""
        self._tick_ms[bisect_left(LATENCY_MS, ms)] += 1
        self._active[rollout.id] = rollout
        state, halted_at = self._last.pop(rollout.id, (rollout.state, rollout.halted_at))
        self._last[rollout.id] = rollout.state, rollout.halted_at
        while len(self._last) > REMEMBERED_MAX:
            self._last.pop(next(iter(self._last)))
        if state is rollout.state:
            return
        self._counts.halts += rollout.state is RolloutState.HALTED or rollout.halted_at != halted_at
        self._counts.rollbacks += rollout.state in _RETURNS and state not in _RETURNS
        self._counts.completions += rollout.state in _DONE and state not in _DONE

    def keep(self, active: Collection[RolloutId]) -> None:
        """The others are over."""
        self._active = {number: rollout for number, rollout in self._active.items() if number in active}

    def snapshot(self) -> dict[str, Any]:
        """Counters, buckets of `tick_ms`, and by state: rollouts that are `standing`, terminals of them (`targets`)."""
        standing = Counter(str(one.state) for one in self._active.values())
        targets: Counter[str] = Counter()
        for rollout in self._active.values():
            stores = [store for stage in rollout.plan.stages for store in stage.stores]
            marks = (rollout.mark(one.terminal) for store in (*stores, *rollout.tail) for one in store.targets)
            targets.update(str(one.state) for one in marks)
        return {
            **asdict(self._counts),
            "tick_ms": list(self._tick_ms),
            "standing": {str(state): standing[state] for state in RolloutState if state.active},
            "targets": {str(state): targets[state] for state in TargetState},
        }
