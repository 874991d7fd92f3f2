"""Of which stores a look of evidence may speak: who has the change and since when, who is still to begin."""

from __future__ import annotations

from datetime import date, timedelta

from models.domain.calendar import zone_of
from models.domain.ids import StoreId
from models.domain.rollout import TargetState
from models.domain.rollout_journal import Rollout
from models.domain.rollout_target import counts_of

_GIVEN_BACK = (TargetState.ROLLING_BACK, TargetState.ROLLED_BACK, TargetState.SUPERSEDED)


def settled(rollout: Rollout, number: int) -> bool:
    """Every store of a stage that was reached has its outcome: who soaks, or is still to be asked, is waited for."""
    counts = counts_of(rollout.plan.stages[number].stores, rollout.marks, queue_over=False)
    return counts.succeeded > 0 and not (counts.queued or counts.in_progress or counts.soaking)


def still_to_begin(rollout: Rollout, number: int) -> tuple[StoreId, ...]:
    """Stores of a stage in which nothing was changed yet: whom those that have the change are compared with."""
    return tuple(
        store.store
        for store in rollout.plan.stages[number].stores
        if not any(rollout.mark(target.terminal).asked for target in store.targets)
    )


def first_days(rollout: Rollout, number: int) -> dict[StoreId, date]:
    """Each store of a stage that has the change, with its first full business day under it, by its own clock.

    A store that failed was given back what it had: its days say nothing of the change, the gate counts it as an error.
    """
    found: dict[StoreId, date] = {}
    for store in rollout.plan.stages[number].stores:
        marks = [rollout.mark(target.terminal) for target in store.targets if target.mandatory]
        begun = [mark.proved_at for mark in marks if mark.proved_at is not None]
        if begun and not any(mark.error is not None or mark.state in _GIVEN_BACK for mark in marks):
            local = max(begun).astimezone(zone_of(store.zone or rollout.policy.zone))
            found[store.store] = local.date() + timedelta(days=1)
    return found
