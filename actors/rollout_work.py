"""What one tick works on: marks that move, entries and orders that come of it. Lives for one tick only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from actors.rollout_effects import Activate, Observation, Restore, SetDesired
from models.domain.calendar import zone_of
from models.domain.ids import MessageId, TerminalId, derived_id
from models.domain.rollout import LocalWindow, Observed, RolloutState, StagePolicy, TargetState
from models.domain.rollout_journal import (
    ON_THE_WAY,
    UNTOUCHED,
    Entry,
    Mark,
    Rollout,
    RolloutMoved,
    StageMark,
    TargetMoved,
    folded,
)
from models.domain.rollout_part import at_store
from models.domain.rollout_plan import PlannedStore, PlannedTarget
from models.domain.rollout_target import UNSEEN, assess, assess_return, fail_in_queue

Order = SetDesired | Restore | Activate
Place = tuple[int, PlannedStore]
"""A store and the stage whose rules it follows; the tail follows the last one's."""


@dataclass(slots=True)
class Found:
    """Stores by what they may need, as one look finds them; a store may be in several."""

    queued: list[Place] = field(default_factory=list)
    """With a terminal that waits and answers."""
    on_the_way: list[Place] = field(default_factory=list)
    asked: list[Place] = field(default_factory=list)
    failed: list[Place] = field(default_factory=list)
    """With a mandatory terminal that was asked and has an error, whatever became of it: the store failed."""
    failed_alone: list[tuple[PlannedStore, PlannedTarget]] = field(default_factory=list)
    """Terminals without which a store succeeds."""
    returning: list[Place] = field(default_factory=list)


_ENDS = (RolloutState.COMPLETED, RolloutState.TAILING, RolloutState.ROLLED_BACK)


class Work:
    """One tick's scratch. `rollout` moves with each entry, its marks are in `marks`."""

    def __init__(self, rollout: Rollout, seen: Observation, now: datetime) -> None:
        self.rollout = rollout
        self.seen = seen
        self.now = now
        self.marks = dict(rollout.marks)
        self.found = Found()
        self.orders: list[Order] = []
        self.ordered: set[TerminalId] = set()
        """Who got an order in this tick."""
        self.at_store = at_store(rollout.artefact)
        """What is asked of one terminal of a store is asked of the store."""
        self._before = rollout
        self._entries: list[Entry] = []
        self._moved: dict[TerminalId, Mark] = {}
        self._open: dict[tuple[str, int], bool] = {}

    def write(self, entry: Entry) -> None:
        """A journal entry about the rollout or a stage."""
        self._entries.append(entry)
        self.rollout = folded(self.rollout, (entry,))

    def move(self, target: TerminalId, mark: Mark) -> None:
        """A target's new mark: one journal entry, however often it moves in this tick."""
        self.marks[target] = mark
        self._moved[target] = mark

    def entries(self) -> tuple[Entry, ...]:
        """What is to be written, in an order in which any beginning of it makes sense by itself.

        A stage is open before its targets are asked, a rollback has begun before they go back; what ends the rollout
        comes after the targets on which it rests.
        """
        targets = (TargetMoved(self.now, target, mark) for target, mark in self._moved.items())
        ends = [one for one in self._entries if isinstance(one, RolloutMoved) and one.state in _ENDS]
        return (*(one for one in self._entries if one not in ends), *targets, *ends)

    def result(self) -> Rollout:
        """The rollout after this tick: the fold of what it began with and `entries()`."""
        count = self._before.entries + len(self._entries) + len(self._moved)
        return replace(self.rollout, marks=self.marks if self._moved else self._before.marks, entries=count)

    # ------------------------------------------------------------ looking

    def places(self, since: int = 0) -> Iterator[Place]:
        """The stores of every stage that is open, from stage `since` on, in the order of asking; the tail last.

        Of later stages those that were taken over from another rollout: they are asked in their turn, and a rollback
        brings them back.
        """
        plan, last = self.rollout.plan, self.rollout.stage
        for number in range(since, last + 1):
            for store in plan.stages[number].stores:
                yield number, store
        if since:
            return
        for store in self.rollout.tail:
            yield max(last, 0), store
        if self.rollout.supersedes is not None:
            for number in range(last + 1, len(plan.stages)):
                for store in plan.stages[number].stores:
                    if any(one.terminal in self.marks for one in store.targets):
                        yield number, store

    def policy(self, stage: int) -> StagePolicy:
        """The rules of a stage."""
        return self.rollout.policy.stages[stage].policy

    def sight(self, target: TerminalId) -> Observed:
        """What is seen of a target; UNSEEN when nothing is."""
        return self.seen.targets.get(target, UNSEEN)

    def look(self, since: int = 0) -> None:
        """Hold every target of the open stages against what it reports, and note which stores need anything.

        This loop is the whole cost of a tick in which nothing happens.
        """
        artefact, now, marks, seen = self.rollout.artefact, self.now, self.marks, self.seen.targets
        back, stages, found = self.rollout.policy.rollback, self.rollout.stages, self.found
        asking, last = self.rollout.state in (RolloutState.RUNNING, RolloutState.TAILING), self.rollout.stage
        for place in self.places(since):
            number, store = place
            policy, stage = self.policy(number), stages[number]
            queued = way = failed = returning = asked = False
            for target in store.targets:
                terminal = target.terminal
                mark = marks.get(terminal, UNTOUCHED)
                sight = seen.get(terminal, UNSEEN)
                if mark.state is TargetState.ROLLING_BACK:
                    after = assess_return(mark, artefact, sight, now, back)
                else:
                    after = assess(mark, artefact, sight, now, policy)
                state = after.state
                if state is TargetState.QUEUED and asking and _queued_too_long(after, stage, policy, now):
                    after = fail_in_queue(after, now)
                    state = after.state
                if after is not mark:
                    self.move(terminal, after)
                if state is TargetState.QUEUED:
                    queued = queued or (sight.online and number <= last)
                elif state in ON_THE_WAY:
                    way = True
                elif state is TargetState.ROLLING_BACK:
                    returning = True
                if after.previous is not None:
                    asked = True
                    if after.error is not None and not target.mandatory:
                        found.failed_alone.append((store, target))
                    failed = failed or (after.error is not None and target.mandatory)
            if queued:
                found.queued.append(place)
            if way:
                found.on_the_way.append(place)
            if returning:
                found.returning.append(place)
            if asked:
                found.asked.append(place)
            if failed:
                found.failed.append(place)

    def window_open(self, store: PlannedStore, stage: int) -> bool:
        """Whether the store's terminals may change now, by the clock on its wall."""
        policy = self.policy(stage)
        if not policy.windows:
            return True
        zone = store.zone or self.rollout.policy.zone
        known = self._open.get((zone, stage))
        if known is None:
            local = self.now.astimezone(zone_of(zone))
            known = any(_inside(one, local) for one in policy.windows)
            self._open[zone, stage] = known
        return known

    # ------------------------------------------------------------ orders

    def set_desired(self, store: PlannedStore, target: TerminalId) -> None:
        """Ask for the artefact, against the generation that stands there now."""
        artefact, gen = self.rollout.artefact, self.sight(target).gen
        order = SetDesired(
            self._id("ask", target, gen), target, store.store, artefact.kind, artefact.payload, expected_gen=gen
        )
        self._order(order)

    def restore(self, store: PlannedStore, target: TerminalId, part: str) -> None:
        """Ask for what stood there before."""
        kind, gen = self.rollout.artefact.kind, self.sight(target).gen
        self._order(Restore(self._id("restore", target, gen), target, store.store, kind, part, expected_gen=gen))

    def activate(self, store: PlannedStore, target: TerminalId, version: str, attempt: int) -> None:
        """Tell it to start a fetched version; each attempt is a command of its own."""
        self._order(Activate(self._id(f"activate:{version}", target, attempt), target, store.store, version))

    def _order(self, order: Order) -> None:
        self.orders.append(order)
        self.ordered.add(order.target)

    def _id(self, what: str, target: TerminalId, n: int) -> MessageId:
        return MessageId(derived_id(self.rollout.id, f"{what}:{target}:{n}"))


def _queued_too_long(mark: Mark, stage: StageMark, policy: StagePolicy, now: datetime) -> bool:
    since = queued_since(mark, stage)
    return since is not None and now - since >= timedelta(seconds=policy.queue_deadline_s)


def queued_since(mark: Mark, stage: StageMark) -> datetime | None:
    """From when a target's turn is reckoned: its stage's opening (or resumption), or its own return."""
    if mark.since is None or stage.queue_since is None:
        return stage.queue_since
    return max(mark.since, stage.queue_since)


def _inside(window: LocalWindow, local: datetime) -> bool:
    clock, today = local.timetz().replace(tzinfo=None), local.isoweekday()
    if window.begins < window.until:
        return today in window.weekdays and window.begins <= clock < window.until
    if clock >= window.begins:
        return today in window.weekdays
    return clock < window.until and (today - 2) % 7 + 1 in window.weekdays
