"""A world for the face desk: workers that take their time, die and come back; virtual time; books of what happened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from actors.face_desk import IN_FLIGHT_MAX, Act, Busy, DeskPolicy, FaceDesk, Lost, Restart, Send, Start, Stop
from actors.face_lines import Verb
from models.domain.ids import StoreId

LATE_S = 0.06
"""An answer that is given up comes with the next tick."""


@dataclass
class Process:
    """One worker of the world: what is with it, in order, each with its life."""

    up_at_s: float
    queue: list[tuple[str, int]] = field(default_factory=list)
    done_at_s: float = 0.0
    starts: bool = True


class World:
    """Does what the desk says, and checks that it may say so."""

    def __init__(self, policy: DeskPolicy, look_s: float = 0.02, start_s: float = 1.0) -> None:
        self.now = 100.0
        self.policy, self.look_s, self.start_s = policy, look_s, start_s
        self.desk = FaceDesk(policy, self.now)
        self.processes: dict[int, Process] = {}
        self.asked: dict[str, tuple[StoreId, float, float]] = {}
        """Store, when, deadline."""
        self.ends: dict[str, tuple[str, float]] = {}
        self.sent: Counter[str] = Counter()
        self.cores: int | None = None
        """How many processes may run; None: as many as are started."""
        self.do(self.desk.tick(self.now))

    # ------------------------------------------------------------ what happens

    def ask(self, question: str, store: str, verb: Verb = Verb.IDENTIFY, within_s: float = 2.8) -> None:
        deadline = self.now + within_s
        self.asked.setdefault(question, (StoreId(store), self.now, deadline))
        self.do(self.desk.ask(question, StoreId(store), verb, deadline, self.now))

    def die(self, n: int) -> None:
        """A worker's process ends; it is started again."""
        process = self.processes.get(n)
        if process is None or process.up_at_s > self.now:
            return
        life = self.desk.life_of(n)
        assert life is not None
        self.processes[n] = Process(self.now + self.start_s)
        self.do(self.desk.lost(n, life, self.now))

    def freeze(self, n: int) -> None:
        """A worker does not answer any more."""
        if n in self.processes and self.processes[n].queue:
            self.processes[n].done_at_s = float("inf")

    def run(self, seconds: float, step_s: float = 0.01) -> None:
        """Time passes."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now += min(step_s, until - self.now)
            self._work()
            self.do(self.desk.tick(self.now))

    def settle(self) -> None:
        """Nobody asks any more: everything that is open ends."""
        self.run(4.0, 0.05)

    # ------------------------------------------------------------ inside

    def _work(self) -> None:
        for n, process in list(self.processes.items()):
            life = self.desk.life_of(n)
            if process.starts and process.up_at_s <= self.now:
                process.starts = False
                assert life is not None
                self.do(self.desk.ready(n, life, self.now))
            while process.queue and process.done_at_s <= self.now and n in self.processes:
                question, of = process.queue.pop(0)
                process.done_at_s = max(process.done_at_s, self.now - self.look_s) + self.look_s
                if self.desk.is_open(question):
                    self._end(question, "answered")
                self.do(self.desk.answered(n, of, question, self.now))

    def _end(self, question: str, how: str) -> None:
        assert question in self.asked, question
        assert question not in self.ends, f"{question} ended twice"
        self.ends[question] = (how, self.now)

    def do(self, acts: list[Act]) -> None:
        for act in acts:
            match act:
                case Send(question, n, life):
                    process = self.processes[n]
                    assert process.up_at_s <= self.now, "sent to a worker that is not there"
                    assert life == self.desk.life_of(n)
                    assert len(process.queue) < IN_FLIGHT_MAX
                    assert question not in self.ends
                    if not process.queue:
                        process.done_at_s = self.now + self.look_s
                    process.queue.append((question, life))
                    self.sent[question] += 1
                case Busy(question, why):
                    self._end(question, str(why))
                case Lost(question):
                    self._end(question, "lost")
                case Start(n, _):
                    assert n not in self.processes
                    room = self.cores is None or len(self.processes) < self.cores
                    self.processes[n] = Process(self.now + self.start_s if room else float("inf"))
                case Restart(n):
                    self.processes[n] = Process(self.now + self.start_s)
                case Stop(n):
                    assert not [one for one in self.processes[n].queue if one[0] not in self.ends], (
                        "work was thrown away"
                    )
                    del self.processes[n]
        self._check()

    def _check(self) -> None:
        rule = self.policy.scaling
        assert rule.workers_min <= len(self.processes), "fewer than the least"
        staying = [one for one in self.desk.snapshot(self.now)["workers"] if one["state"] != "draining"]
        assert rule.workers_min <= len(staying) <= rule.workers_max

    # ------------------------------------------------------------ the books

    def outcomes(self, store: str | None = None) -> Counter[str]:
        return Counter(
            how for question, (how, _) in self.ends.items() if store is None or self.asked[question][0] == store
        )

    def waits_ms(self, store: str, how: str) -> list[float]:
        return [
            (at - self.asked[question][1]) * 1000
            for question, (end, at) in self.ends.items()
            if end == how and self.asked[question][0] == store
        ]

    def check_ended(self) -> None:
        """Everything that was asked ended once, and in time."""
        assert set(self.asked) == set(self.ends)
        for question, (_, at) in self.ends.items():
            assert at <= self.asked[question][2] + LATE_S, question
        assert self.desk.snapshot(self.now)["open"] == 0
