"""A real house for tests: `storeops up` on a scratch folder, its parts by pid, its customers, its books."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from devices.agent_config import AgentConfig
from devices.simulator import ProviderUsers, SimulatedTerminal
from gateway.providers.simulator import SimulatorAdmin
from models.domain.errors import NeedsOperator, RetryLater
from models.domain.ids import RegionId, StoreId, TerminalId
from models.faces.segments import scope_of, wipe_scope
from runtime import administration
from runtime.plant import Plant, read_plant
from runtime.ports import free_port
from runtime.processes import has_ended, kill_all, log_tail, wait_ended
from runtime.settings import ENV_PREFIX
from tests.integration.warm_cli import WarmCli

ROOT = Path(__file__).resolve().parents[2]
CHAIN_FILE = ROOT / "configs" / "chains" / "demo.yaml"
WHEEL_DIR = ROOT / "var" / "photos"
READY_S_MAX = 180.0
"""The promise of 30 s is for a machine with nothing else to do; tests may share theirs."""
STOP_S_MAX = 30.0
RECOVERED_S_MAX = 60.0
PAUSE = threading.Event()
"""Never set: the pause between two looks of a poll that has a deadline."""
WATER, NOODLES = ("6901234561005", 200), ("6901234561098", 1590)
"""Two articles of the demonstration's chain: code and price in fen."""


def environment() -> dict[str, str]:
    """Ours without settings of the person who runs the tests, and without an engine to join."""
    return {name: value for name, value in os.environ.items() if not name.startswith((ENV_PREFIX, "RAY_"))}


def storeops(*arguments: str, timeout_s: float = 60.0, cold: bool = False) -> dict[str, Any]:
    """One verb of the command line with `--json`; its object. `cold`: by `python -m runtime`, as a person starts it."""
    if cold:
        done = subprocess.run(
            [sys.executable, "-m", "runtime", *arguments, "--json"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        code, told, errors = done.returncode, done.stdout, done.stderr
    else:
        code, told, errors = _warm_cli().run((*arguments, "--json"), environment(), timeout_s)
    assert code == 0, errors
    result: dict[str, Any] = json.loads(told)
    return result


@functools.cache
def _warm_cli() -> WarmCli:
    return WarmCli(environment())


class House:
    """One deployment. `start` and `stop` may follow each other: the data folder stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "up.log"
        self._settings = folder / "settings.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        self._plant: Plant | None = None
        self._family: list[psutil.Process] = []
        self._engine: EngineProbe | None = None
        self._terminals = 0
        folder.chmod(0o755)  # the servers' user passes through it when root starts them
        values = {
            "region": {"name": "south-china", "chain": "sunrise"},
            "broker": {"port": free_port()},
            "gateway": {"port": free_port()},
            "ray": {"dashboard": False},
            "faces": {"policy": "demo"},
            "clock": {"may_jump": True},
        }
        self._settings.write_text(yaml.safe_dump(values))

    # ------------------------------------------------------------ life

    def start(self) -> float:
        """Start it and wait until it is ready; returns the seconds that took."""
        began = time.monotonic()
        command = [sys.executable, "-m", "runtime", "up", "--data", str(self.data)]
        command += ["--config", str(self._settings), "--chain", str(CHAIN_FILE)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=log)
        self._plant = self._wait_ready(began)
        return time.monotonic() - began

    def _wait_ready(self, began: float) -> Plant:
        assert self._process is not None
        while True:
            try:
                return read_plant(self.data)
            except NeedsOperator:
                over = time.monotonic() - began > READY_S_MAX
                if over or self._process.poll() is not None:
                    self.kill()
                    why = "not ready" if over else f"ended with {self._process.returncode}"
                    raise AssertionError(f"the house: {why}\n{log_tail(self.log, 8_000)}") from None
                PAUSE.wait(0.05)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def plant(self) -> Plant:
        assert self._plant is not None, "start() comes first"
        return self._plant

    def family(self) -> list[psutil.Process]:
        """`up` and everything that it started, itself first."""
        assert self._process is not None
        me = psutil.Process(self._process.pid)
        return [me, *me.children(recursive=True)]

    def stop(self) -> tuple[float, list[str]]:
        """SIGINT, as Ctrl-C; seconds until every process of it was gone, and the command lines of those that stayed."""
        assert self._process is not None
        self.leave_engine()
        family = self._family = self.family()
        began = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGINT did not end the house\n{log_tail(self.log, 8_000)}") from None
        wait_ended(family, max(0.0, STOP_S_MAX - (time.monotonic() - began)))
        took = time.monotonic() - began
        assert self._process.returncode == 0, log_tail(self.log, 8_000)
        left = [_shown(one) for one in family if not has_ended(one)]
        return took, left + self.strays()

    def strays(self) -> list[str]:
        """Processes that name this house's folder, whoever started them."""
        return [_shown(one) for one in psutil.process_iter() if str(self.data) in _shown(one)]

    def kill(self) -> None:
        """The end of a test that failed, too: no process of it stays."""
        self.leave_engine()
        if self.running:
            self._family = self.family()
        kill_all(self._family, STOP_S_MAX)
        if self._process is not None:
            self._process.wait(STOP_S_MAX)
        wipe_scope(scope_of(str(self.data)))  # as its next start would, if there is one

    # ------------------------------------------------------------ parts by pid

    def part(self, *words: str) -> psutil.Process:
        """The one process of the family whose command line has all these words. Waits until there is one."""
        found: list[psutil.Process] = []

        def one() -> bool:
            found[:] = [each for each in self.family()[1:] if all(word in _shown(each) for word in words)]
            return len(found) == 1

        wait_until(one, f"one process {words}")
        return found[0]

    def host(self, k: int = 0) -> psutil.Process:
        """The process of a slot's host, as the slot's row names it."""
        [(holder,)] = self.rows(
            "SELECT holder FROM slot JOIN layout USING (region, layout) WHERE ended_at IS NULL AND k = %s", (k,)
        )
        return psutil.Process(int(str(holder).removeprefix("pid ")))

    def face_worker(self) -> psutil.Process:
        return self.part("ray::HostedFaceWorker")

    def broker(self) -> psutil.Process:
        return psutil.Process(int((self.data / "broker.pid").read_text()))

    def gateway(self) -> psutil.Process:
        return self.part("serve-gateway")

    def provider(self) -> psutil.Process:
        return self.part("provider-sim")

    def postmaster(self) -> psutil.Process:
        """The database server's parent process. Raises NoSuchProcess while none runs."""
        for found in self.data.rglob("postmaster.pid"):
            with contextlib.suppress(FileNotFoundError, IndexError):  # it ends, or begins, at this moment
                return psutil.Process(int(found.read_text().splitlines()[0]))
        raise psutil.NoSuchProcess(0, msg="no database server")

    def has_another_postmaster(self, than: psutil.Process) -> bool:
        """The database server was started again."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.postmaster().pid != than.pid
        return False

    # ------------------------------------------------------------ the books

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.plant.database_url, autocommit=True, connect_timeout=20) as conn:
            return conn.execute(query, values).fetchall()

    def documents(self, query: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """Rows by column name."""
        with psycopg.connect(
            self.plant.database_url, autocommit=True, row_factory=dict_row, connect_timeout=20
        ) as conn:
            return conn.execute(query, values).fetchall()

    def ledger_of(self, sale: str) -> dict[tuple[str, str], int]:
        """(entity, account) -> fen of the transaction that booked a sale."""
        rows = self.rows(
            """SELECT e.entity, e.account, sum(e.amount_fen)::bigint FROM txn t JOIN entry e ON e.txn = t.id
               WHERE t.request_number = %s GROUP BY e.entity, e.account""",
            (sale,),
        )
        return {(entity, account): fen for entity, account, fen in rows}

    def check_books(self) -> None:
        """True whatever happened: nothing open, every transaction sums to 0, each thing once, no dead letter."""
        wait_until(lambda: not self.rows("SELECT id FROM outbox WHERE done_at IS NULL"), "every ask is answered")
        assert not self.rows("SELECT txn, entity FROM entry GROUP BY txn, entity, book HAVING sum(amount_fen) <> 0")
        assert not self.rows("SELECT id, error FROM dead_letter")
        assert not self.rows("SELECT till_txn FROM sale WHERE till_txn <> '' GROUP BY till_txn HAVING count(*) > 1")
        assert not self.rows("SELECT session FROM sale WHERE session <> '' GROUP BY session HAVING count(*) > 1")
        assert not self.rows(
            "SELECT s.id, s.due_fen, s.suspense_fen, count(t.id) FROM sale s LEFT JOIN txn t ON t.request_number = s.id"
            " AND t.kind <> 'points_moved' GROUP BY s.id HAVING count(t.id) <> (s.due_fen + s.suspense_fen > 0)::int"
        )

    async def check_provider(self) -> int:
        """The provider's own books and ours are the same money; returns it in fen."""
        async with SimulatorAdmin(self.plant.provider_url) as admin:
            theirs = int((await admin.books())["net_fen"])
        [(ours,)] = self.rows(
            """SELECT coalesce(sum(e.amount_fen), 0)::bigint FROM entry e JOIN txn t ON t.id = e.txn
               WHERE e.account IN ('provider_clearing:alipay', 'provider_clearing:wechat') AND e.book = 'posted'
                 AND t.kind <> 'reconciled'"""
        )
        assert theirs == ours
        return theirs

    # ------------------------------------------------------------ the engine

    def health(self) -> dict[str, Any]:
        """The host's counters."""
        return self._probe().ask("host")

    def hosts(self, change: str = "snapshot") -> dict[str, Any]:
        """What `storeops hosts` prints, or does: `resize 3`, `dedicate STORE`, `drain 0`, `resume`."""
        return self._probe().ask(change)

    def software(self, verb: str, terminal: str, version: str) -> dict[str, Any]:
        """`software`: order a recorded version; `activate`: tell it to run it, and wait for what became of that."""
        return self._probe().ask(f"{verb} {terminal} {version}")

    def probe_killed(self, change: str) -> None:
        """A change of hosts in the middle of which its process is killed: see engine_probe."""
        self._probe().ends(change)
        self._engine = None

    def metrics_url(self) -> str:
        """Where the engine answers Prometheus."""
        return str(self._probe().ask("metrics")["url"])

    def faces_health(self) -> dict[str, Any]:
        """The face worker's snapshot."""
        return self._probe().ask("faces")

    def _probe(self) -> EngineProbe:
        if self._engine is None:
            self._engine = EngineProbe(self.plant, self.folder / "probe.log")
        return self._engine

    def leave_engine(self) -> None:
        """End the probe, if there is one: it is no part of the house."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    # ------------------------------------------------------------ terminals

    async def register(self, store: str, lane: str, role: str = "face") -> dict[str, Any]:
        """A new terminal, let into the broker; what `storeops terminal add` prints."""
        self._terminals += 1
        profile = "till" if role == "till" else "dragonfly-2"
        name = f"{store}-{lane}-{role}-{self._terminals}"
        added = await administration.add_terminal(self.plant, store, lane, role, profile, name)
        return {**added, "store": store, "profile": profile}

    @asynccontextmanager
    async def terminal(
        self, store: str, lane: str, role: str = "face", provider: str = "alipay"
    ) -> AsyncIterator[SimulatedTerminal]:
        """A new terminal, connected, with the simulated provider's customers before it."""
        added = await self.register(store, lane, role)
        async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
            terminal = SimulatedTerminal.of(
                AgentConfig(
                    host=self.plant.broker_host,
                    port=self.plant.broker_port,
                    region=RegionId(self.plant.region),
                    store=StoreId(store),
                    terminal=TerminalId(added["username"]),
                    profile=added["profile"],
                    secret=added["secret"],
                    outbox_path=self.folder / f"{added['username']}.sqlite",
                    resend_first_s=1.0,
                    reconnect_s_min=0.2,
                    reconnect_s_max=1.0,
                ),
                PatientUsers(http, self.plant.provider_url, provider),
            )
            terminal.screen_timeout_s = terminal.reply_timeout_s = RECOVERED_S_MAX
            await terminal.agent.start(RECOVERED_S_MAX)
            try:
                # Consent texts come with it.
                await eventually(lambda: terminal.agent.desired, f"the desired document of {added['username']}")
                yield terminal
            finally:
                await terminal.agent.stop()


class PatientUsers(ProviderUsers):
    """Customers whose phone has no network for a while: they try again."""

    async def _post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        async with asyncio.timeout(RECOVERED_S_MAX):
            while True:
                try:
                    return await super()._post(path, body)
                except RetryLater:
                    await asyncio.sleep(0.02)


class EngineProbe:
    """A process that joined the engine and answers health questions: the engine's client stays out of the tests'."""

    def __init__(self, plant: Plant, log_path: Path) -> None:
        self._log = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.engine_probe", str(plant.data_dir)],
                cwd=ROOT,
                env={**environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": plant.ray_token_path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._lock = threading.Lock()

    def ask(self, name: str, timeout_s: float = RECOVERED_S_MAX) -> dict[str, Any]:
        """The snapshot, however long its process takes to come back."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                assert self._process.stdin is not None
                assert self._process.stdout is not None
                assert self._process.poll() is None, f"the probe ended: {log_tail(self._log)}"
                self._process.stdin.write(f"{name}\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            assert line, f"the probe ended: {log_tail(self._log)}"
            answer: dict[str, Any] = json.loads(line)
            if "error" not in answer:
                return answer
            assert time.monotonic() < deadline, answer
            PAUSE.wait(0.05)

    def ends(self, name: str) -> None:
        """Ask for something that it does not live to answer."""
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
            assert self._process.wait(RECOVERED_S_MAX) == -signal.SIGKILL, log_tail(self._log)
        self.close()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(20.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20.0)


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = RECOVERED_S_MAX) -> float:
    """Ask until it holds; returns the seconds. An outage on the way (database, process) counts as not yet."""
    began = time.monotonic()
    while True:
        try:
            if holds():
                return time.monotonic() - began
        except (psycopg.OperationalError, psutil.NoSuchProcess) as error:
            last: object = error
        else:
            last = ""
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {what} {last}"
        PAUSE.wait(0.02)


async def eventually(holds: Callable[[], object], what: str, timeout_s: float = RECOVERED_S_MAX) -> float:
    """The same without holding up the event loop."""
    return await asyncio.to_thread(wait_until, holds, what, timeout_s)


def _shown(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


class Note:
    """Keeps measured figures: with the test's report, and in the captured output."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._properties: list[tuple[str, object]] = request.node.user_properties
        self._name = request.node.name

    def __call__(self, name: str, seconds: float) -> None:
        """Seconds, to the hundredth."""
        self._properties.append((name, round(seconds, 2)))
        sys.stdout.write(f"measured {self._name} {name} {seconds:.2f} s\n")
