"""Child processes: ready when they say so, gone when we go."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from models.domain.errors import NeedsOperator
from runtime.ports import accepts, free_port, is_free, preferred_or_free
from runtime.processes import ChildProcess, ProcessSpec, ProcessStack, has_ended, log_tail, raise_file_limit, wait_ended
from tests.conftest import within

pytestmark = pytest.mark.integration
WAIT_S = 30.0
READY = "print('ready', flush=True); import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY
FORKING = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']); " + READY


def spec(tmp_path: Path, program: str, name: str = "child") -> ProcessSpec:
    return ProcessSpec(name, (sys.executable, "-c", program), tmp_path / f"{name}.log")


def says_ready(log: Path) -> Callable[[], bool]:
    return lambda: "ready" in log_tail(log)


def started(tmp_path: Path, program: str, name: str = "child") -> ChildProcess:
    child = ChildProcess(spec(tmp_path, program, name))
    child.start()
    child.wait_ready(lambda: "ready" in log_tail(child.spec.log_path), WAIT_S)
    return child


def test_it_is_ready_when_it_says_so_and_ends_by_itself(tmp_path: Path) -> None:
    child = started(tmp_path, READY)
    assert child.running
    assert child.stop()
    assert child.exit_code == -signal.SIGTERM
    assert child.stop(), "a second stop does nothing"
    assert child.spec.log_path.stat().st_mode & 0o777 == 0o600


def test_the_stubborn_are_killed_in_time(tmp_path: Path) -> None:
    numbers = itertools.count()

    def stopped() -> float:
        child = started(tmp_path, STUBBORN, str(next(numbers)))
        began = time.monotonic()
        assert not child.stop(timeout_s=0.2)
        took = time.monotonic() - began
        assert child.exit_code == -signal.SIGKILL
        return took

    within(2.0, stopped)


@pytest.mark.parametrize("killed_first", [False, True])
def test_what_it_started_goes_with_it(tmp_path: Path, killed_first: bool) -> None:
    child = started(tmp_path, FORKING)
    assert child.pid is not None
    (grandchild,) = psutil.Process(child.pid).children()
    if killed_first:
        child.signal(signal.SIGKILL)
        assert wait_ended([psutil.Process(child.pid)], WAIT_S)
    child.stop()
    assert has_ended(grandchild)


def test_one_that_ends_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = ChildProcess(spec(tmp_path, "import sys; print('no such table'); sys.exit(3)"))
    child.start()
    with pytest.raises(NeedsOperator, match="ended with 3: no such table") as refused:
        child.wait_ready(lambda: False, WAIT_S)
    assert refused.value.code == "exited"


def test_one_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    child = ChildProcess(spec(tmp_path, READY))
    child.start()
    with pytest.raises(NeedsOperator) as refused:
        child.wait_ready(lambda: False, 0.2)
    assert refused.value.code == "not_ready"
    assert not child.running


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    child = ChildProcess(ProcessSpec("ghost", ("/nonexistent/ghost",), tmp_path / "l", dies_with_parent=False))
    with pytest.raises(NeedsOperator) as refused:
        child.start()
    assert refused.value.code == "cannot_start"


def test_a_stack_stops_in_reverse_order_within_one_budget(tmp_path: Path) -> None:
    numbers = itertools.count()

    def stopped() -> float:
        stack, folder = ProcessStack(), tmp_path / str(next(numbers))
        folder.mkdir()
        for name in ("a", "b", "c"):
            path = folder / f"{name}.log"
            program = READY if name == "b" else STUBBORN
            stack.start(spec(folder, program, name), says_ready(path), WAIT_S)
        children = stack.children
        ends: list[str] = []
        for child in children:
            original = child.stop

            def stop(timeout_s: float | None = None, child: ChildProcess = child, original: object = original) -> bool:
                ends.append(child.spec.name)
                assert callable(original)
                return bool(original(timeout_s))

            child.stop = stop  # type: ignore[method-assign]
        began = time.monotonic()
        stack.stop(budget_s=0.6)
        took = time.monotonic() - began
        assert ends == ["c", "b", "a"]
        assert not any(child.running for child in children)
        return took

    within(2.0, stopped)


def test_the_dead_are_noticed(tmp_path: Path) -> None:
    stack = ProcessStack()
    path = tmp_path / "child.log"
    child = stack.start(spec(tmp_path, READY), lambda: "ready" in log_tail(path), WAIT_S)
    assert stack.dead() == ()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert wait_ended([psutil.Process(child.pid)], WAIT_S)
    assert stack.dead() == (child,)
    stack.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_dies_with_a_killed_parent_but_not_with_the_thread_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, signal, threading\n"
        "from runtime.processes import ChildProcess, ProcessSpec, log_tail\n"
        "log = pathlib.Path(sys.argv[1]) / 'c.log'\n"
        "c = ChildProcess(ProcessSpec('c', (sys.executable, '-c', sys.argv[2]), log))\n"
        "def start():\n"
        "    c.start(); c.wait_ready(lambda: 'ready' in log_tail(log), 10)\n"
        "t = threading.Thread(target=start); t.start(); t.join()\n"
        "print(c.pid, flush=True); signal.pause()"
    )
    command = [sys.executable, "-c", script, str(tmp_path), READY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        threading.Event().wait(0.2)  # the thread's death would have reached it by now
        assert not has_ended(child)
        parent.kill()
    assert wait_ended([child], WAIT_S)


def test_ctrl_c_does_not_reach_children(tmp_path: Path) -> None:
    child = started(tmp_path, READY)
    assert child.pid is not None
    assert os.getsid(child.pid) == child.pid
    assert os.getpgid(child.pid) != os.getpgid(0)
    child.stop()


def test_ports() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        assert not is_free(port)
        assert accepts(port)
        assert preferred_or_free(port) > port
        with pytest.raises(NeedsOperator, match=str(port)):
            preferred_or_free(port, tries=1)
    assert is_free(port)
    assert not accepts(port)
    assert preferred_or_free(port) == port
    assert is_free(free_port())
    assert preferred_or_free(0) > 0


def test_the_file_limit_rises_only() -> None:
    before = raise_file_limit()
    assert raise_file_limit() == before
    assert raise_file_limit(1) == before
