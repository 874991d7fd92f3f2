"""The processes of a running house by pid, and their sudden deaths. Only the fleet's own house is ever killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from devices.fleet.orders import KILLS, Chaos
from models.domain.errors import NeedsOperator
from runtime.plant import Plant

FIRST_KILL_S = (0.15, 0.25)
"""Share of the day that passes before the first kill."""


class Parts:
    """Finds the parts of one house by what they wrote down themselves."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def hosts(self) -> list[psutil.Process]:
        """The hosts that live, as their slots' rows name them."""
        with psycopg.connect(self._plant.database_url, autocommit=True, connect_timeout=5) as conn:
            rows = conn.execute(
                "SELECT holder FROM slot WHERE region = %s AND holder LIKE 'pid %%' ORDER BY k", (self._plant.region,)
            ).fetchall()
        pids = {int(str(holder).split()[1]) for (holder,) in rows}
        return [psutil.Process(pid) for pid in sorted(pids) if psutil.pid_exists(pid)]

    def broker(self) -> psutil.Process:
        """The embedded broker."""
        return psutil.Process(int((self._plant.data_dir / "broker.pid").read_text()))

    def postmaster(self) -> psutil.Process:
        """The embedded database server's parent process."""
        found = next(iter(self._plant.data_dir.rglob("postmaster.pid")), None)
        if found is None:
            raise NeedsOperator("no_database", "no embedded database runs in this house")
        return psutil.Process(int(found.read_text().splitlines()[0]))

    def gateway(self) -> psutil.Process:
        """The HTTP edge: the process that serves on this house's port from this house's folder."""
        data = str(self._plant.data_dir)
        for one in psutil.process_iter(["cmdline"]):
            words = one.info["cmdline"] or []
            if "serve-gateway" in words and any(data in word for word in words) and words[0].find("setpriv") < 0:
                return one
        raise NeedsOperator("no_gateway", f"no gateway runs for {data}")

    def host_cpu_s(self) -> float:
        """Processor time of all hosts since they started."""
        return sum(sum(one.cpu_times()[:2]) for one in self.hosts())

    def host_rss_mib(self) -> float:
        """Resident memory of all hosts."""
        return sum(one.memory_info().rss for one in self.hosts()) / 2**20


@dataclass(frozen=True, slots=True)
class Kill:
    """One part, killed so many seconds after the day began."""

    part: Chaos
    at_s: float
    pid: int


async def kill_through_the_day(
    plant: Plant, chaos: tuple[Chaos, ...], seconds: float, rng: random.Random, say: Callable[[str], None]
) -> list[Kill]:
    """SIGKILL to each part that was ordered, in turn, spread over the first four fifths of the day; what was killed.

    Each at least once when the day is 20 s or longer, then again about every 30 s.
    """
    parts = [part for part in chaos if part in KILLS]
    if not parts:
        return []
    rng.shuffle(parts)
    rounds = max(1, round(seconds * 0.7 / (30.0 * len(parts))))
    order = parts * rounds
    finders: dict[Chaos, Callable[[Parts], psutil.Process]] = {
        Chaos.BROKER: Parts.broker,
        Chaos.HOST: lambda house: rng.choice(house.hosts()),
        Chaos.DATABASE: Parts.postmaster,
        Chaos.GATEWAY: Parts.gateway,
    }
    began, killed = asyncio.get_running_loop().time(), []
    first = seconds * rng.uniform(*FIRST_KILL_S)
    span = max(0.0, seconds * 0.85 - first)
    for n, part in enumerate(order):
        due = first + span * n / len(order)
        await asyncio.sleep(max(0.0, due - (asyncio.get_running_loop().time() - began)))
        try:
            victim = await asyncio.to_thread(finders[part], Parts(plant))
            victim.kill()
        except (psutil.NoSuchProcess, psycopg.OperationalError, NeedsOperator, OSError, IndexError):
            continue  # it is just being started again: the next one's turn
        killed.append(Kill(part, round(asyncio.get_running_loop().time() - began, 1), victim.pid))
        say(f"killed: {part} (pid {victim.pid})")
    return killed


def data_folder(plant: Plant) -> Path:
    """Where a fleet keeps its crews' logs."""
    folder = plant.data_dir / "fleet"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
