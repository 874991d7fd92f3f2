"""Child processes: start, wait until ready, stop by pid in order, leave none behind.

Children get a session of their own, so that Ctrl-C reaches `storeops` alone and it stops them in order.
On Linux those that should not outlive it are told by the kernel (PR_SET_PDEATHSIG, through util-linux'
setpriv) when it is killed. That signal is bound to the *thread* that started the child, hence one thread
that lives as long as the process starts them all.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from models.domain.errors import NeedsOperator
from runtime.datadir import ServiceUser

LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_BYTES = 2_000
POLL_INTERVAL_S = 0.01
STOP_BUDGET_S = 1.8
"""Ctrl-C ends everything within 2 s."""

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to run one program. `env` is added to ours; its output goes to the end of `log_path`."""

    name: str
    argv: tuple[str, ...]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    run_as: ServiceUser | None = None
    dies_with_parent: bool = True
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 1.0


def raise_file_limit(files_max: int = 65_536) -> int:
    """Raises the soft limit of open files to the hard one, `files_max` at most; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_max if hard == resource.RLIM_INFINITY else min(hard, files_max)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def log_tail(path: Path, bytes_max: int = LOG_TAIL_BYTES) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - bytes_max))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def family_of(pid: int) -> list[psutil.Process]:
    """The descendants of `pid` and the members of the session that it leads, itself not included.

    `psutil.Process` carries the creation time, so a reused pid is never hit later.
    """
    found: dict[int, psutil.Process] = {}
    with suppress(psutil.NoSuchProcess):
        found = {child.pid: child for child in psutil.Process(pid).children(recursive=True)}
    for other in psutil.pids():
        with suppress(OSError, psutil.NoSuchProcess):
            if other != pid and other not in found and os.getsid(other) == pid:
                found[other] = psutil.Process(other)
    return list(found.values())


def has_ended(process: psutil.Process) -> bool:
    """True when it runs no more; one that nobody collects (a container without an init) has ended too."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_ended(processes: Sequence[psutil.Process], timeout_s: float) -> bool:
    """Waits until all have ended, `timeout_s` at most; True when they have. Collects no exit status."""
    deadline = time.monotonic() + timeout_s
    while not all(has_ended(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def kill_all(processes: Sequence[psutil.Process], timeout_s: float = 1.0) -> None:
    """SIGKILL to each that still runs; waits until they are gone, `timeout_s` at most."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_ended(processes, timeout_s)


class ChildProcess:
    """One program started by us. Blocking calls; use a thread from asyncio."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen is not None else None

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs or before it was started; negative: the signal that ended it."""
        return self._popen.poll() if self._popen is not None else None

    def start(self) -> int:
        """Starts the program and returns its pid. Raises NeedsOperator (`cannot_start`) when it is not there."""
        assert not self.running, f"{self.spec.name} runs already"
        self._popen = _spawner.submit(self._spawn).result()
        return self._popen.pid

    def wait_ready(self, check: Callable[[], bool], timeout_s: float) -> int:
        """Returns the milliseconds until `check()` held. `check` must not block long.

        Raises NeedsOperator: `exited` when the program ended, `not_ready` after `timeout_s` (it is then
        stopped); both carry the end of its log.
        """
        began = time.monotonic()
        while True:
            if check():
                return round((time.monotonic() - began) * 1000)
            if not self.running:
                raise NeedsOperator(
                    "exited",
                    f"{self.spec.name} ended with {self.exit_code}: {log_tail(self.spec.log_path)}",
                    f"see {self.spec.log_path}",
                )
            if time.monotonic() - began > timeout_s:
                self.stop()
                raise NeedsOperator(
                    "not_ready",
                    f"{self.spec.name} was not ready after {timeout_s:.0f} s: {log_tail(self.spec.log_path)}",
                    f"see {self.spec.log_path}",
                )
            time.sleep(POLL_INTERVAL_S)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when the program has ended."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Stops the program and whatever it started; True when it ended by itself in time. Safe to call twice."""
        if self._popen is None:
            return True
        if self._popen.poll() is not None:
            kill_all(family_of(self._popen.pid))
            return True
        family = family_of(self._popen.pid)
        self._popen.send_signal(self.spec.stop_signal)
        try:
            self._popen.wait(self.spec.stop_timeout_s if timeout_s is None else timeout_s)
            graceful = True
        except subprocess.TimeoutExpired:
            graceful = False
            self._popen.kill()
            self._popen.wait(2.0)
        kill_all(family)
        return graceful

    def _spawn(self) -> subprocess.Popen[bytes]:
        spec = self.spec
        argv = list(spec.argv)
        setpriv = shutil.which("setpriv") if sys.platform == "linux" and spec.dies_with_parent else None
        if setpriv is not None:
            argv = [setpriv, "--pdeathsig", spec.stop_signal.name.removeprefix("SIG"), "--", *argv]
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        if spec.log_path.exists() and spec.log_path.stat().st_size > LOG_BYTES_MAX:
            spec.log_path.replace(spec.log_path.with_suffix(spec.log_path.suffix + ".1"))
        try:
            with spec.log_path.open("ab") as log:
                spec.log_path.chmod(0o600)
                if spec.run_as is None:
                    return subprocess.Popen(
                        argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=spec.cwd,
                        env={**os.environ, **spec.env}, start_new_session=True,
                    )  # fmt: skip
                # Another user gets nothing of our environment but what every program needs.
                environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", **spec.env}
                return subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=spec.cwd or Path("/"),
                    env=environment, start_new_session=True, umask=0o077,
                    user=spec.run_as.uid, group=spec.run_as.gid, extra_groups=[],
                )  # fmt: skip
        except OSError as error:
            raise NeedsOperator(
                "cannot_start", f"{spec.name}: {error}", f"check that {spec.argv[0]} is installed"
            ) from error


class ProcessStack:
    """Children in the order of their start, stopped in the reverse order within one budget."""

    def __init__(self) -> None:
        self._children: list[ChildProcess] = []

    @property
    def children(self) -> tuple[ChildProcess, ...]:
        return tuple(self._children)

    def start(self, spec: ProcessSpec, ready: Callable[[], bool], timeout_s: float = 20.0) -> ChildProcess:
        """Starts `spec`, waits for `ready` and remembers it. Raises as `wait_ready`; then nothing is left of it."""
        child = ChildProcess(spec)
        child.start()
        try:
            child.wait_ready(ready, timeout_s)
        except BaseException:
            child.stop()
            raise
        self._children.append(child)
        return child

    def dead(self) -> tuple[ChildProcess, ...]:
        """Those that ended without being asked to."""
        return tuple(child for child in self._children if not child.running)

    def stop(self, budget_s: float = STOP_BUDGET_S) -> None:
        """Stops all, last started first; each gets its own time-out, all together `budget_s`."""
        deadline = time.monotonic() + budget_s
        while self._children:
            child = self._children.pop()
            child.stop(max(0.05, min(child.spec.stop_timeout_s, deadline - time.monotonic())))
