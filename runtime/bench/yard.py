"""A place to measure hosts on: the embedded PostgreSQL and broker, a made-up chain of any size, hosts as processes.

No Ray here: a host's process runs what the hosted actor runs, and nothing else of the machine is busy.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
from psycopg import AsyncConnection

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, RegionId, StoreId
from models.tables.migrate import upgrade
from runtime.broker import EmbeddedBroker
from runtime.chain_tables import apply_chain
from runtime.chains import ChainDoc, LaneDoc, Name, StoreDoc, TerminalDoc, read_chain
from runtime.datadir import open_data_dir, write_private
from runtime.plant import Plant
from runtime.postgres import EmbeddedPostgres
from runtime.processes import log_tail
from runtime.settings import CONFIGS

REGION = RegionId("bench")
STOP_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Yard:
    """Where everything is, and which lanes there are."""

    folder: Path
    plant: Plant
    stores: tuple[StoreId, ...]

    @contextmanager
    def host(self, kind: str) -> Iterator[HostProcess]:
        """A host process of one kind (`real`, `bare`), ready; stopped at the end."""
        process = HostProcess(self, kind)
        process.start()
        try:
            yield process
        finally:
            process.stop()


class HostProcess:
    """One host in a process of its own. It says `ready` on its standard output, and ends when its input closes."""

    def __init__(self, yard: Yard, kind: str) -> None:
        self._yard, self._kind = yard, kind
        self._log = yard.folder / f"{kind}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves. Raises NeedsOperator with the end of its log."""
        plant = self._yard.folder / "plant.json"
        if not plant.exists():
            write_private(plant, msgspec.json.encode(self._yard.plant, enc_hook=str).decode())
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "runtime.bench.host_process", self._kind, str(plant)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != b"ready":
            raise NeedsOperator("bench_host", f"the {self._kind} host: {log_tail(self._log)}", "see the log")

    def command(self, line: str) -> str:
        """Say something to it; its answer, one line."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().strip()

    def cpu_s(self) -> float:
        """User and system seconds of the process so far."""
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def memory_mib(self) -> float:
        """What only this process holds (unique set size)."""
        assert self._process is not None
        return float(psutil.Process(self._process.pid).memory_full_info().uss / 2**20)

    def stop(self) -> None:
        """Close its input and wait; killed when it stays."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def scratch_postgres() -> Iterator[tuple[Path, EmbeddedPostgres]]:
    """A scratch folder with a database server in it; stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="so-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's user walks through it when we are root
        server = EmbeddedPostgres(folder / "data")
        server.start()
        try:
            yield folder, server
        finally:
            server.stop(STOP_S_MAX)


@contextmanager
def open_yard(folder: Path, stores: int, terminals: int = 1) -> Iterator[Yard]:
    """Servers started and a chain of so many stores registered, one lane of so many terminals in each."""
    data = open_data_dir(folder / "data")
    postgres, broker = EmbeddedPostgres(data), EmbeddedBroker(data, "mosquitto")
    try:
        url = postgres.start()
        info = broker.start()
        upgrade(url)
        doc = chain(stores, terminals)
        plant = Plant(
            data.root,
            ChainId(doc.chain),
            REGION,
            1,
            url,
            info.host,
            info.port,
            broker_user=info.username,
            broker_password=info.password,
        )
        asyncio.run(_register(url, doc))
        yield Yard(folder, plant, tuple(StoreId(store.id) for store in doc.stores))
    finally:
        broker.stop()
        postgres.stop()


def chain(stores: int, terminals: int) -> ChainDoc:
    """The demonstration's chain with other stores: their baskets are ours, one lane in each."""
    demo = read_chain(CONFIGS / "chains" / "demo.yaml")
    return demo.model_copy(
        update={
            "stores": tuple(
                StoreDoc(id=f"s{n:04d}", name=Name(zh=f"{n} 号店", en=f"Store {n}"), entity=demo.entities[0].id)
                for n in range(stores)
            ),
            "lanes": (
                LaneDoc(
                    lane="l1",
                    terminals=tuple(
                        TerminalDoc(suffix=f"t{n}", role="face", profile="dragonfly-2") for n in range(terminals)
                    ),
                ),
            ),
        }
    )


async def _register(url: str, doc: ChainDoc) -> None:
    async with await AsyncConnection.connect(url) as conn:
        await apply_chain(conn, doc, REGION, "bench")
