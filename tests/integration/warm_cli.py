"""`storeops` verbs without the seconds of its imports: each runs in a process of its own, forked from a warm one.

The verb's process has its own arguments, environment, output and exit code, as `python -m runtime` has; that the
program starts from nothing is shown by the house itself and by the tests that say `cold`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

IMPORTED_BY_VERBS = (
    "runtime.administration",
    "runtime.config_views",
    "runtime.layouts",
    "runtime.ray_faces",
    "runtime.settlement_desk",
)
ROOT = Path(__file__).resolve().parents[2]


class WarmCli:
    """The warm process, started at the first verb. One verb at a time; threads wait for each other."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._server = subprocess.Popen(
            # The engine's library reads its way of proving itself once, when it is imported.
            [sys.executable, "-m", "tests.integration.warm_cli"],
            cwd=ROOT,
            env={**env, "RAY_AUTH_MODE": "token"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def run(self, arguments: tuple[str, ...], env: Mapping[str, str], timeout_s: float) -> tuple[int, str, str]:
        """Exit code, standard output, standard error. Raises TimeoutExpired; the verb's process is gone then."""
        with self._lock, tempfile.TemporaryDirectory(prefix="so-cli-") as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            self._say({"argv": arguments, "env": dict(env), "out": str(out), "err": str(err)})
            child = self._hear()
            late = threading.Timer(timeout_s, os.kill, (child, signal.SIGKILL))
            late.start()
            try:
                code = self._hear()
            finally:
                late.cancel()
            if code == -signal.SIGKILL:
                raise subprocess.TimeoutExpired(["storeops", *arguments], timeout_s, stderr=err.read_bytes())
            return code, out.read_text(), err.read_text()

    def close(self) -> None:
        """It holds nothing: it is ended."""
        self._server.kill()
        for pipe in (self._server.stdin, self._server.stdout):
            if pipe is not None:
                pipe.close()
        self._server.wait(20.0)

    def _say(self, request: Mapping[str, object]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()

    def _hear(self) -> int:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, f"the warm process ended: {self._server.wait(20.0)}"
        return int(line)


def serve() -> None:
    """Fork for each line; in the child, become the verb and return from here with its SystemExit."""
    from runtime.__main__ import main

    for name in IMPORTED_BY_VERBS:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"
    answers = os.fdopen(os.dup(1), "w")
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    while line := requests.readline():
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            requests.close()
            answers.close()
            for path, number, flags in (
                (os.devnull, 0, os.O_RDONLY),
                (asked["out"], 1, os.O_WRONLY | os.O_CREAT),
                (asked["err"], 2, os.O_WRONLY | os.O_CREAT),
            ):
                opened = os.open(path, flags, 0o600)
                os.dup2(opened, number)
                os.close(opened)
            os.environ.clear()
            os.environ.update(asked["env"])
            sys.argv = ["storeops", *asked["argv"]]
            main()
        answers.write(f"{child}\n")
        answers.flush()
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
