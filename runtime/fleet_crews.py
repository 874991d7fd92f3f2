"""The crews seen from the command line: a few processes, told what to do line by line, their ticks added up."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from devices.fleet.evidence import CrewEvidence
from devices.fleet.orders import CrewOrder, Day, Runs, Tick
from models.domain.errors import Bug
from runtime.datadir import write_private
from runtime.fleet_crew import LINE_BYTES_MAX, Command
from runtime.processes import log_tail

LANES_PER_CREW = 500
"""One process holds 1,500 terminals and their visits on a fraction of a core; more than one spreads the peaks."""
CREWS_MAX = 8
STOP_S_MAX = 20.0


class CrewProcess:
    """One crew. Commands are answered in order; an answer that is an error raises Bug `crew_failed`."""

    def __init__(self, order: CrewOrder, folder: Path) -> None:
        self.order = order
        self.tick: Tick | None = None
        self.cpu_s = 0.0
        self.log = folder / f"crew-{order.crew}.log"
        self._folder = folder
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """The process, and its order."""
        order_file = self._folder / f"crew-{self.order.crew}.order"
        write_private(order_file, msgspec.json.encode(self.order).decode())  # secrets are in it
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "runtime.fleet_crew",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES_MAX,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C reaches us; the crew ends with its stdin
            )
        self._reading = asyncio.create_task(self._read())
        await self.ask(Command("begin", path=str(order_file)))
        order_file.unlink()

    async def ask(self, command: Command) -> Any:
        """Tell it, and return its answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")
        await self._process.stdin.drain()
        answer = await self._answers.get()
        if "error" in answer:
            raise Bug("crew_failed", f"crew {self.order.crew}, {command.do}: {answer['error']} {log_tail(self.log)}")
        return answer["value"]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = msgspec.json.decode(line)
            if "tick" in said:
                self.tick, self.cpu_s = msgspec.convert(said["tick"], Tick), said["cpu_s"]
            else:
                self._answers.put_nowait(said)
        self._answers.put_nowait({"error": "its process ended"})

    async def report(self) -> CrewEvidence:
        """What its terminals saw."""
        path = self._folder / f"crew-{self.order.crew}.evidence"
        await self.ask(Command("report", path=str(path)))
        evidence = msgspec.json.decode(path.read_bytes(), type=CrewEvidence)
        path.unlink()
        return evidence

    def kill(self) -> None:
        """At once: it looks at its stdin only between two commands, and a day is one."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Close its stdin: it disconnects in order; killed when that takes too long."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S_MAX)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading


class Crews:
    """All of them, as one."""

    def __init__(self, order: CrewOrder, folder: Path, count: int | None = None) -> None:
        """`order` has all lanes; `count` None: by the number of lanes."""
        count = count or min(CREWS_MAX, os.cpu_count() or 1, 1 + (len(order.lanes) - 1) // LANES_PER_CREW)
        self.processes = [
            CrewProcess(replace(order, crew=n, lanes=order.lanes[n::count]), folder) for n in range(count)
        ]

    async def start(self) -> None:
        """The processes."""
        await asyncio.gather(*(one.start() for one in self.processes))

    async def tell(self, make: Callable[[CrewProcess], Command]) -> list[Any]:
        """The same command to each, answered by all."""
        return list(await asyncio.gather(*(one.ask(make(one)) for one in self.processes)))

    async def connect(self) -> float:
        """Every terminal; the seconds until the last one was up."""
        return float(max(await self.tell(lambda _: Command("connect"))))

    async def day(self, day: Day) -> None:
        """A day for each, its share of the rate by its share of the lanes."""
        lanes = sum(len(one.order.lanes) for one in self.processes)
        await self.tell(
            lambda one: Command(
                "day", day=replace(day, rate_per_s=day.rate_per_s * len(one.order.lanes) / max(1, lanes))
            )
        )

    async def measure(self, on: bool) -> None:
        """Keep latency samples from now on, from nothing; or no more."""
        await self.tell(lambda _: Command("measure", on=on))

    async def settled(self, deadline_s: float) -> float:
        """Until all terminals are connected and have every reply; the seconds."""
        return float(max(await self.tell(lambda _: Command("settled", seconds=deadline_s))))

    async def quiet(self, deadline_s: float) -> float:
        """Let the last customers go; the seconds."""
        return float(max(await self.tell(lambda _: Command("quiet", seconds=deadline_s))))

    async def pile_up(self, messages: int) -> float:
        """Events into the broker, as fast as it takes them; the seconds."""
        share = messages // len(self.processes)
        return float(max(await self.tell(lambda _: Command("backlog", messages=share))))

    async def drained(self, deadline_s: float) -> float:
        """The moment of the last reply to them, on the system's monotonic clock."""
        return float(max(await self.tell(lambda _: Command("drained", seconds=deadline_s))))

    async def software(self) -> list[Runs]:
        """What all terminals run."""
        told = await self.tell(lambda _: Command("software"))
        return [msgspec.convert(one, Runs) for each in told for one in each]

    async def report(self) -> list[CrewEvidence]:
        """What all terminals saw."""
        return [await one.report() for one in self.processes]

    @property
    def tick(self) -> Tick:
        """Added up; the latency is the slowest crew's."""
        ticks = [one.tick for one in self.processes if one.tick is not None]
        sums = {
            name: sum(getattr(tick, name) for tick in ticks)
            for name in ("online", "events", "replies", "waiting", "visits", "busy", "sales", "failed")
        }
        hour = max((tick.hour for tick in ticks), default=0.0)
        slowest_ms = max((tick.reply_p50_ms for tick in ticks), default=0.0)
        return Tick(crew=-1, hour=hour, reply_p50_ms=slowest_ms, **sums)

    @property
    def cpu_s(self) -> float:
        """Processor time of the load side so far."""
        return sum(one.cpu_s for one in self.processes)

    def kill(self) -> None:
        """All of them, in the middle of whatever they do; `stop` afterwards."""
        for one in self.processes:
            one.kill()

    async def stop(self) -> None:
        """All of them; leaves no process."""
        await asyncio.gather(*(one.stop() for one in self.processes))


def latencies(samples: Sequence[float]) -> dict[str, float | int]:
    """n, p50 and p99 in milliseconds (nearest rank)."""
    if not samples:
        return {"n": 0, "p50": 0.0, "p99": 0.0}
    ordered = sorted(samples)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"n": len(ordered), "p50": rank(0.5), "p99": rank(0.99)}
