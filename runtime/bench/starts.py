"""How long programs take from their exec until they answer: `storeops up`, and the barest of its kind."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from models.domain.errors import NeedsOperator
from runtime.ports import LOOPBACK, free_port
from runtime.processes import ChildProcess, ProcessSpec, family_of, has_ended, kill_all, wait_ended
from runtime.settings import CONFIGS

ANSWER_S_MAX = 120.0
STOP_S_MAX = 15.0
LOOK_EVERY_S = 0.01

HELLO = """
import sys, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""
RAY = """
import sys, ray
ray.init(address="local", _temp_dir=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def http_status(port: int, path: str) -> int | None:
    """The status that 127.0.0.1 answers a browser with; None when nobody does."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5.0)
    try:
        connection.request("GET", path, headers={"Accept": "text/html"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def storeops_command() -> tuple[str, ...]:
    """The installed program beside this Python, else the module."""
    script = Path(sys.executable).with_name("storeops")
    return (str(script),) if script.exists() else (sys.executable, "-m", "runtime")


@dataclass(frozen=True, slots=True)
class UpTimes:
    """Seconds from the exec of `storeops up`."""

    console_s: float
    ready_s: float


class UpHouse:
    """`storeops up` as a person starts it, on a folder and ports of its own; the demonstration's chain."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._log = folder / "up.log"
        self._config = folder / "bench.yaml"
        self.port = free_port()
        values = {
            "data_dir": str(self.data),
            "gateway": {"port": self.port},
            "broker": {"port": 0},
            "region": {"name": "south-china", "chain": "sunrise"},
            "faces": {"policy": "demo"},
        }
        self._config.write_text(yaml.safe_dump(values), encoding="utf-8")
        self._child: ChildProcess | None = None

    def start(self) -> UpTimes:
        """Start it and wait until it is ready: the console answers, then says that the house does.

        Raises NeedsOperator with the end of its log.
        """
        chain = CONFIGS / "chains" / "demo.yaml"
        argv = (*storeops_command(), "up", "--config", str(self._config), "--chain", str(chain))
        # The house must live on when a thread of ours ends, and be stopped by us as by Ctrl-C.
        child = ChildProcess(ProcessSpec("up", argv, self._log, stop_signal=signal.SIGINT, stop_timeout_s=STOP_S_MAX))
        self._child = child
        began = time.monotonic()
        child.start()
        # The page itself, not only liveness: what starts, or the way to sign in.
        child.wait_ready(lambda: http_status(self.port, "/") in {200, 303}, ANSWER_S_MAX)
        console_s = time.monotonic() - began
        child.wait_ready(lambda: http_status(self.port, "/readyz") == 200, ANSWER_S_MAX)
        return UpTimes(console_s, time.monotonic() - began)

    def stop(self) -> float:
        """Ctrl-C, then wait; returns its seconds. Raises NeedsOperator `left_behind` when a process stays."""
        if self._child is None or self._child.pid is None or not self._child.running:
            return 0.0
        family = family_of(self._child.pid)
        began = time.monotonic()
        self._child.signal(signal.SIGINT)
        child, self._child = self._child, None
        while child.running and time.monotonic() - began < STOP_S_MAX:
            time.sleep(LOOK_EVERY_S)
        took_s = time.monotonic() - began
        wait_ended(family, 1.0)
        left = [one for one in family if not has_ended(one)]
        child.stop()
        kill_all(left)
        if left:
            raise NeedsOperator("left_behind", f"`storeops up` left {len(left)} processes", f"see {self._log}")
        return took_s


def hello_s() -> float:
    """A FastAPI app with one route under uvicorn: exec to its first answer."""
    port = free_port()
    began = time.monotonic()
    with subprocess.Popen((sys.executable, "-c", HELLO, str(port))) as process:
        try:
            while http_status(port, "/healthz") != 200:
                if process.poll() is not None or time.monotonic() - began > ANSWER_S_MAX:
                    raise NeedsOperator("bare_start", "a bare FastAPI app did not start", "run `storeops doctor`")
                time.sleep(LOOK_EVERY_S)
            return time.monotonic() - began
        finally:
            process.kill()


def bare_ray_s() -> float:
    """`ray.init(address="local")` with Ray's own defaults in a fresh process: exec to its return."""
    temporary = Path(tempfile.mkdtemp(prefix="so-b-"))
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    command = (sys.executable, "-c", RAY, str(temporary))
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == b"ready":
                return time.monotonic() - began
        raise NeedsOperator("bare_ray", "a bare ray.init ended without being ready", "run `storeops doctor`")
    finally:
        family = family_of(process.pid)
        process.kill()
        process.communicate()
        kill_all(family)
        shutil.rmtree(temporary, ignore_errors=True)
