"""The face desk: which question goes to which worker, who is told at once that it is busy, how many workers there are.

A state machine without I/O; time is an argument, in seconds of any clock that does not jump. Whoever hosts it calls a
verb, and does what it returns, in order: send, answer, start, stop. Every question that was asked ends once: answered
by a worker, or by `Busy`, or by `Lost`. A question is looked at again when its worker died, which is harmless: faces
have no effect outside, and what is made of them is named after the question.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from actors.face_lines import LOOK_UNITS, Asked, Lines, Verb
from actors.face_scaling import Scaler, Scaling
from models.domain.ids import StoreId

IN_FLIGHT_MAX = 2
"""Of one worker: one runs, one waits beside it, so that it never idles while an answer travels."""
DEATHS_MAX = 2
"""A question that was running at so many deaths of workers may be their cause: it is not asked again."""
WAITING_MAX = 4_096
WAITING_OF_A_STORE_MAX = 256
LOOK_S_AT_FIRST, LOOK_S_MAX = 0.03, 1.0
"""What a look is taken to last: one that was held up for long must not make the desk turn everybody away."""
LEARN = 0.1
"""How much a new observation weighs in the average."""


class Why(StrEnum):
    """Why somebody is told that it is busy."""

    SHED = "shed"
    """At once: its turn would come too late."""
    EXPIRED = "expired"
    """It was let in and waited too long: others came first, or workers died."""


@dataclass(frozen=True, slots=True)
class Send:
    """Ask this worker. Its answer or its death is reported with the same `life`."""

    question: str
    worker: int
    life: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Tell the one who asked: nobody looked; go on by phone number, code or cash."""

    question: str
    why: Why


@dataclass(frozen=True, slots=True)
class Lost:
    """Tell the one who asked: workers died while they looked at this."""

    question: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start this worker; say `ready` when it answers."""

    worker: int
    spare: bool
    """It may wait for a free core: the least number is running without it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End this worker: nothing is with it any more."""

    worker: int


@dataclass(frozen=True, slots=True)
class Restart:
    """End this worker's process, it is stuck; it is started again. Say `ready` when it answers."""

    worker: int


Act = Send | Busy | Lost | Start | Stop | Restart


class WorkerState(StrEnum):
    """Of one worker."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class DeskPolicy:
    """The desk's patience."""

    scaling: Scaling = field(default_factory=Scaling)
    start_s_max: float = 60.0
    """A worker that is not there by then is not waited for; a spare one found no free core."""
    stuck_s_max: float = 10.0
    """A worker that has one question for so long is ended."""


@dataclass(slots=True)
class _Worker:
    n: int
    state: WorkerState
    since_s: float
    life: int
    with_it: deque[Asked] = field(default_factory=deque)
    """Questions, the one that runs first; some may have been given up meanwhile."""
    head_s: float = 0.0
    """Since when the first one runs."""
    answers: int = 0
    deaths: int = 0


@dataclass(slots=True)
class _Open:
    """A question that has no answer yet."""

    asked: Asked
    deaths: int = 0
    worker: int | None = None


@dataclass(slots=True)
class DeskCounts:
    """Since the desk began."""

    asked: int = 0
    answered: int = 0
    shed: int = 0
    expired: int = 0
    redispatched: int = 0
    lost: int = 0
    started: int = 0
    stopped: int = 0
    stuck: int = 0


class FaceDesk:
    """Not for several threads."""

    def __init__(self, policy: DeskPolicy, now_s: float, found: Iterable[int] = ()) -> None:
        """`found`: workers that run already, of an earlier desk; each is `ready` once that is said of it."""
        self._policy = policy
        self._lines = Lines()
        self._open: dict[str, _Open] = {}
        self._ends: list[tuple[float, int, str]] = []
        """When each open question is given up, soonest first."""
        self._scaler = Scaler(policy.scaling, now_s)
        self._lives = 0
        self._workers = {n: _Worker(n, WorkerState.STARTING, now_s, self._next_life()) for n in found}
        self._look_s = LOOK_S_AT_FIRST
        self.counts = DeskCounts()

    # ------------------------------------------------------------ questions

    def ask(self, question: str, store: StoreId, verb: Verb, deadline_s: float, now_s: float) -> list[Act]:
        """A question that is to be answered by `deadline_s`. One that is open already is joined: nothing happens."""
        if question in self._open:
            return []
        self.counts.asked += 1
        asked = Asked(question, store, verb, deadline_s, now_s)
        acts: list[Act] = []
        if self._too_late(asked, now_s) or self._lines.waiting_of(store) >= WAITING_OF_A_STORE_MAX:
            return [self._shed(question)]
        if len(self._lines) >= WAITING_MAX:
            gives_way = self._lines.last_of_longest()
            assert gives_way is not None
            if self._lines.longest() <= self._lines.waiting_of(store) + 1:
                return [self._shed(question)]
            self._lines.drop(gives_way)
            del self._open[gives_way.question]
            acts.append(self._shed(gives_way.question))
        self._open[question] = _Open(asked)
        self._lines.put(asked)
        heapq.heappush(self._ends, (deadline_s - self._look_s, self.counts.asked, question))
        return acts + self._dispatch(now_s)

    def answered(self, worker: int, life: int, question: str, now_s: float) -> list[Act]:
        """The worker answered. Pass the answer on when `is_open` said so before."""
        one = self._alive(worker, life)
        asked = next((each for each in one.with_it if each.question == question), None) if one is not None else None
        if one is None or asked is None:
            return []
        self._see(now_s)
        if one.with_it[0] is asked:
            self._learn(asked, now_s - one.head_s)
        one.with_it.remove(asked)
        one.head_s = now_s
        one.answers += 1
        self.counts.answered += self._open.pop(question, None) is not None
        return self._drained(one, now_s) + self._dispatch(now_s)

    def unsent(self, worker: int, life: int, question: str, now_s: float) -> list[Act]:
        """It was given up before it went out: the worker never had it, and is not stuck with it."""
        one = self._alive(worker, life)
        asked = next((each for each in one.with_it if each.question == question), None) if one is not None else None
        if one is None or asked is None:
            return []
        self._see(now_s)
        if one.with_it[0] is asked:
            one.head_s = now_s
        one.with_it.remove(asked)
        return self._drained(one, now_s) + self._dispatch(now_s)

    def is_open(self, question: str) -> bool:
        """Whether somebody still waits for the answer."""
        return question in self._open

    # ------------------------------------------------------------ workers

    def ready(self, worker: int, life: int, now_s: float) -> list[Act]:
        """The worker answers."""
        one = self._alive(worker, life)
        if one is None or one.state is not WorkerState.STARTING:
            return []
        self._see(now_s)
        one.state, one.since_s = WorkerState.READY, now_s
        return self._dispatch(now_s)

    def lost(self, worker: int, life: int, now_s: float) -> list[Act]:
        """The worker's process ended; somebody else starts it again. What it had goes to others, first in turn."""
        one = self._alive(worker, life)
        if one is None:
            return []
        self._see(now_s)
        acts = self._bereave(one)
        if one.state is WorkerState.DRAINING:
            acts += self._drained(one, now_s)
        else:
            one.state, one.since_s = WorkerState.STARTING, now_s
        return acts + self._dispatch(now_s)

    def life_of(self, worker: int) -> int | None:
        """The life that the worker is in; None when there is no such worker."""
        one = self._workers.get(worker)
        return None if one is None else one.life

    # ------------------------------------------------------------ time

    def tick(self, now_s: float) -> list[Act]:
        """Time passed: give up what waited too long, end what is stuck, start or drain workers."""
        acts = self._give_up(now_s)
        for one in list(self._workers.values()):
            if one.with_it and now_s - one.head_s > self._policy.stuck_s_max:
                self.counts.stuck += 1
                acts += [Restart(one.n), *self.lost(one.n, one.life, now_s)]
            elif one.state is WorkerState.STARTING and now_s - one.since_s > self._policy.start_s_max:
                acts += self._not_there(one, now_s)
        self._see(now_s)
        return acts + self._scale(now_s) + self._dispatch(now_s)

    def next_tick_s(self, now_s: float) -> float:
        """In how many seconds to call `tick` at the latest: soon while anything waits."""
        if not self._open:
            return 0.5
        return min(0.05, max(0.005, self._ends[0][0] - now_s)) if self._ends else 0.05

    def snapshot(self, now_s: float) -> dict[str, Any]:
        """Plain values for a console."""
        oldest = self._lines.oldest_s()
        return {
            **asdict(self.counts),
            "waiting": len(self._lines),
            "open": len(self._open),
            "oldest_ms": 0 if oldest is None else round((now_s - oldest) * 1000),
            "look_ms": round(self._look_s * 1000, 1),
            "busy_workers": round(self._scaler.busy_workers, 2),
            "workers_min": self._policy.scaling.workers_min,
            "workers_max": self._policy.scaling.workers_max,
            "workers": [
                {"n": one.n, "state": str(one.state), "with_it": len(one.with_it), "answered": one.answers}
                | {"deaths": one.deaths, "since_s": round(now_s - one.since_s, 1)}
                for one in sorted(self._workers.values(), key=lambda one: one.n)
            ],
        }

    # ------------------------------------------------------------ inside

    def _next_life(self) -> int:
        """Never used before: what is heard of an earlier life, or of an earlier worker of the same number, is stale."""
        self._lives += 1
        return self._lives

    def _alive(self, worker: int, life: int) -> _Worker | None:
        one = self._workers.get(worker)
        return one if one is not None and one.life == life else None

    def _too_late(self, asked: Asked, now_s: float) -> bool:
        """Whether its turn would come too late, as far as can be seen now."""
        serving = [one for one in self._workers.values() if one.state is WorkerState.READY]
        work = self._lines.ahead_of(asked.store, asked.verb)
        work += sum(each.units for one in serving for each in one.with_it)
        wait_s = work / LOOK_UNITS * self._look_s / max(1, len(serving))
        own_s = asked.units / LOOK_UNITS * self._look_s
        # With nothing before it any question is tried: it is how the desk learns that looks are quick again.
        return work > 0 and now_s + wait_s + own_s > asked.deadline_s

    def _shed(self, question: str) -> Busy:
        self.counts.shed += 1
        return Busy(question, Why.SHED)

    def _dispatch(self, now_s: float) -> list[Act]:
        acts: list[Act] = []
        while len(self._lines):
            free = [
                one
                for one in self._workers.values()
                if one.state is WorkerState.READY and len(one.with_it) < IN_FLIGHT_MAX
            ]
            if not free:
                break
            one = min(free, key=lambda one: (len(one.with_it), one.n))
            asked = self._lines.take()
            self._see(now_s)
            if not one.with_it:
                one.head_s = now_s
            one.with_it.append(asked)
            self._open[asked.question].worker = one.n
            acts.append(Send(asked.question, one.n, one.life))
        return acts

    def _bereave(self, one: _Worker) -> list[Act]:
        """Put back what a dead worker had, the first one first in turn again."""
        acts: list[Act] = []
        one.life = self._next_life()
        one.deaths += 1
        running = one.with_it[0].question if one.with_it else None
        for asked in reversed(one.with_it):
            open_ = self._open.get(asked.question)
            if open_ is None:
                continue
            open_.worker = None
            open_.deaths += asked.question == running  # only what ran can have been the cause
            if open_.deaths >= DEATHS_MAX:
                del self._open[asked.question]
                self.counts.lost += 1
                acts.append(Lost(asked.question))
            else:
                self.counts.redispatched += 1
                self._lines.put(asked, again=True)
        one.with_it.clear()
        return acts

    def _give_up(self, now_s: float) -> list[Act]:
        """A waiting question when it could not be looked at in time any more, one that is looked at at its deadline."""
        acts: list[Act] = []
        while self._ends and self._ends[0][0] <= now_s:
            _, number, question = heapq.heappop(self._ends)
            open_ = self._open.get(question)
            if open_ is None:
                continue
            if open_.worker is not None and now_s < open_.asked.deadline_s:
                heapq.heappush(self._ends, (open_.asked.deadline_s, number, question))
                continue
            self._lines.drop(open_.asked)
            del self._open[question]
            self.counts.expired += 1
            acts.append(Busy(question, Why.EXPIRED))
        return acts

    def _learn(self, asked: Asked, took_s: float) -> None:
        """Of looks only: what needs no picture takes next to nothing."""
        if asked.units == LOOK_UNITS:
            self._look_s += LEARN * (min(took_s, LOOK_S_MAX) - self._look_s)

    def _see(self, now_s: float) -> None:
        self._scaler.saw(sum(1 for one in self._workers.values() if one.with_it), now_s)

    # ------------------------------------------------------------ how many

    def _scale(self, now_s: float) -> list[Act]:
        staying = [one for one in self._workers.values() if one.state is not WorkerState.DRAINING]
        starting = sum(one.state is WorkerState.STARTING for one in staying)
        oldest = self._lines.oldest_s()
        waited_s = 0.0 if oldest is None else now_s - oldest
        wanted = self._scaler.wanted(len(staying), starting, waited_s, now_s)
        if wanted > len(staying):
            return self._grow(wanted - len(staying), now_s)
        acts: list[Act] = []
        first = sorted(staying, key=lambda one: (one.state is WorkerState.READY, -one.n))
        for one in first[: len(staying) - wanted]:
            one.state, one.since_s = WorkerState.DRAINING, now_s
            acts += self._drained(one, now_s)
        return acts

    def _grow(self, more: int, now_s: float) -> list[Act]:
        """First those that were to go and have not gone, then new ones at the lowest free numbers."""
        acts: list[Act] = []
        for one in sorted(self._workers.values(), key=lambda one: one.n):
            if more and one.state is WorkerState.DRAINING:
                one.state, one.since_s, more = WorkerState.READY, now_s, more - 1
        n = 0
        while more:
            if n not in self._workers:
                self._workers[n] = _Worker(n, WorkerState.STARTING, now_s, self._next_life())
                self.counts.started += 1
                acts.append(Start(n, spare=len(self._workers) > self._policy.scaling.workers_min))
                more -= 1
            n += 1
        return acts

    def _drained(self, one: _Worker, now_s: float) -> list[Act]:
        if one.state is not WorkerState.DRAINING or one.with_it:
            return []
        self._see(now_s)
        del self._workers[one.n]
        self.counts.stopped += 1
        return [Stop(one.n)]

    def _not_there(self, one: _Worker, now_s: float) -> list[Act]:
        """It did not come in time: a spare one is not waited for, one that is needed is started anew."""
        one.life, one.since_s = self._next_life(), now_s
        if len(self._workers) > self._policy.scaling.workers_min:
            one.state = WorkerState.DRAINING
            return self._drained(one, now_s)
        return [Restart(one.n)]
