"""A rollout that takes another one's place: the old one ends, and what it changed is the new one's to finish or undo.

Both turns are one commit. The new one remembers of each target what stood there before the old one; a rollback of it
leaves nothing of either.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from actors.rollout_commands import receive
from actors.rollout_effects import Journal, Observation, RolloutTurn, Start, Supersede
from models.domain.errors import Refused
from models.domain.ids import TerminalId
from models.domain.plan_reader import Text
from models.domain.rollout import PersonId, RolloutState, TargetState, digest_of
from models.domain.rollout_journal import Entry, Mark, Rollout, RolloutMoved, TargetMoved, folded
from models.domain.rollout_part import PATCHED, leaf_paths

TAKEOVERS_MAX = 8
"""One after the other without an end between them: each leaves its digest in every mark."""
NAMED_MAX = 5
NOTHING_SEEN = Observation({})


def take_over(
    old: Rollout, new: Rollout, by: PersonId, in_service: Collection[TerminalId], now: datetime
) -> tuple[RolloutTurn, RolloutTurn]:
    """The turns of the one that ends and of the draft that begins. `in_service`: the chain's terminals of today.

    The same again does nothing. Raises Refused: already_over, not_running, not_a_draft, plan_changed, artefact_changed,
    supersede_misfit.
    """
    if old.state is RolloutState.SUPERSEDED and old.superseded_by == new.id:
        return RolloutTurn(old, why=old.why), RolloutTurn(new, why=new.why)
    if old.state is RolloutState.DRAFT:
        raise Refused("not_running", "it has changed nothing yet", "start the other one")
    inherited = {
        target: _inherited(old, mark)
        for target, mark in old.marks.items()
        if mark.asked and mark.state not in (TargetState.ROLLED_BACK, TargetState.SUPERSEDED)
    }
    _require_fit(old, new, inherited, in_service)
    ended = receive(old, Supersede(by, new.id), NOTHING_SEEN, now)
    begun = receive(new, Start(by), NOTHING_SEEN, now)
    why = Text(f"{by} 启动，取代 {old.id}", f"started by {by}, takes over from {old.id}")
    reached = {one.terminal for stage in new.plan.stages for store in stage.stores for one in store.targets}
    entries: tuple[Entry, ...] = (
        RolloutMoved(now, RolloutState.RUNNING, why, by, supersedes=old.id),
        *(TargetMoved(now, target, mark) for target, mark in inherited.items() if target in reached),
    )
    shown = tuple(one for one in begun.effects if not isinstance(one, Journal))
    after = folded(new, entries)
    return ended, RolloutTurn(after, (*(Journal(one) for one in entries), *shown), why=after.why)


def _inherited(old: Rollout, mark: Mark) -> Mark:
    """To be asked in its turn, and to be given back what it had before the old rollout."""
    earlier = tuple(dict.fromkeys((*mark.earlier, digest_of(old.artefact.payload))))
    return replace(
        Mark(previous=mark.previous, previous_version=mark.previous_version, asked_gen=mark.asked_gen),
        inherited=True,
        earlier=earlier,
    )


def _require_fit(
    old: Rollout, new: Rollout, inherited: dict[TerminalId, Mark], in_service: Collection[TerminalId]
) -> None:
    if (old.chain, old.artefact.key) != (new.chain, new.artefact.key):
        raise _misfit(f"one changes {old.artefact.key}, the other {new.artefact.key}", "roll the old one back")
    kind = old.artefact.kind
    if kind in PATCHED and set(leaf_paths(json.loads(old.artefact.payload))) != set(
        leaf_paths(json.loads(new.artefact.payload))
    ):
        raise _misfit("they change other settings", "name the same settings, or roll the old one back first")
    if any(len(mark.earlier) > TAKEOVERS_MAX for mark in inherited.values()):
        raise _misfit(f"{TAKEOVERS_MAX} took over from one another already", "roll the old one back first")
    reached = {one.terminal for stage in new.plan.stages for store in stage.stores for one in store.targets}
    left = sorted(target for target in inherited if target not in reached and target in in_service)
    if left:
        named = ", ".join(left[:NAMED_MAX])
        raise _misfit(
            f"it does not reach {len(left)} terminals that the old one changed: {named}", "widen its selector"
        )


def _misfit(message: str, do: str) -> Refused:
    return Refused("supersede_misfit", message, do)
