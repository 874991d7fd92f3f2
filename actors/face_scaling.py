"""How many face workers: up when questions wait too long, down when fewer would do, each after a while and no further.

A pure rule with a little memory; the desk tells it what it sees, with the time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scaling:
    """Bounds and patience. Up and down are far apart, so that one cannot cause the other."""

    workers_min: int = 1
    workers_max: int = 1
    up_age_s: float = 0.25
    """The longest wait in the queue that is borne."""
    up_hold_s: float = 0.5
    """How long it must be exceeded: a crowd of a moment is not worth a process."""
    up_pause_s: float = 2.0
    """From one growth to the next: a new worker must be felt first."""
    down_share: float = 0.6
    """One less when the others would be busy for this part of the time at most."""
    down_hold_s: float = 60.0
    """How long that must have been so, since the last change too."""
    window_s: float = 1.0
    """Over which the busy part is averaged."""

    def __post_init__(self) -> None:
        if not 1 <= self.workers_min <= self.workers_max:
            raise ValueError(f"{self.workers_min} to {self.workers_max} face workers")


class Scaler:
    """Says how many there should be."""

    def __init__(self, scaling: Scaling, now_s: float) -> None:
        self._scaling = scaling
        self._changed_s = now_s
        self._pressed_s: float | None = None
        self._slack_s: float | None = None
        self._window_s = now_s
        self._busy_s = 0.0
        self._last_s = now_s
        self.busy_workers = 0.0
        """The mean over the last whole window."""

    def saw(self, busy: int, now_s: float) -> None:
        """So many workers were busy since the last time."""
        self._busy_s += busy * (now_s - self._last_s)
        self._last_s = now_s
        if now_s - self._window_s >= self._scaling.window_s:
            self.busy_workers = self._busy_s / (now_s - self._window_s)
            self._window_s, self._busy_s = now_s, 0.0

    def wanted(self, workers: int, starting: int, oldest_wait_s: float, now_s: float) -> int:
        """How many of `workers` (those that drain are not among them) there should be from now on."""
        rule = self._scaling
        if workers < rule.workers_min:
            return rule.workers_min
        self._note(workers, starting, oldest_wait_s, now_s)
        if workers > rule.workers_max:
            return rule.workers_max
        pressed = self._pressed_s is not None and now_s - self._pressed_s >= rule.up_hold_s
        if pressed and not starting and now_s - self._changed_s >= rule.up_pause_s and workers < rule.workers_max:
            self._change(now_s)
            return min(rule.workers_max, workers + max(1, workers // 2))
        slack = self._slack_s is not None and now_s - max(self._slack_s, self._changed_s) >= rule.down_hold_s
        if slack and workers > rule.workers_min:
            self._change(now_s)
            return workers - 1
        return workers

    def _note(self, workers: int, starting: int, oldest_wait_s: float, now_s: float) -> None:
        rule = self._scaling
        if oldest_wait_s < rule.up_age_s:
            self._pressed_s = None
        elif self._pressed_s is None:
            self._pressed_s = now_s
        spare = self.busy_workers <= rule.down_share * (workers - 1)
        if starting or not spare or oldest_wait_s >= rule.up_age_s / 2:
            self._slack_s = None
        elif self._slack_s is None:
            self._slack_s = now_s

    def _change(self, now_s: float) -> None:
        self._changed_s, self._pressed_s, self._slack_s = now_s, None, None
