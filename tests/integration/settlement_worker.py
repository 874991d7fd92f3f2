"""A process that settles, to be killed: run as a program it forks a worker for each line that it is told.

A fork has nothing to import again. A line is a number of seconds by which the worker's wall clock is ahead, so that
nobody waits for the leases of those that died. It answers with the worker's pid, then with its exit status.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayAccount, AlipayGateway
from gateway.providers.signing import load_private_key, load_public_key
from runtime.settlement import SettlementLimits, SettlementRunner
from tests.integration.money_shop import CHAIN, REGION, START

NOW = START + timedelta(days=40)
"""The business time that every worker settles."""
LIMITS = SettlementLimits(chunk_memberships_max=100, chunk_calls_max=50, calls_per_s_max=1e6, patience_s=0)


class Nursery:
    """The process that forks, seen from the test."""

    def __init__(self, told: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.integration.settlement_worker", json.dumps(told)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, ahead_s: float) -> int:
        """A worker's pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{ahead_s}\n")
        self._process.stdin.flush()
        return int(self.line())

    def line(self) -> str:
        """What it says next: a pid, or the exit status of the worker."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it ended with {self._process.wait()}"
        return line.strip()

    def end(self) -> None:
        """No more workers."""
        self._process.communicate()


async def settle(told: dict[str, str], ahead: timedelta) -> None:
    """One worker's life, if nobody kills it."""
    account = AlipayAccount(
        told["gateway"], told["app"], told["seller"], load_private_key(told["key"]), load_public_key(told["pem"])
    )
    provider = AlipayProvider(AlipayGateway(account))
    async with AsyncConnectionPool[AsyncConnection[Any]](told["database"], min_size=1, max_size=4, open=False) as pool:

        def wall() -> datetime:
            return datetime.now(UTC) + ahead

        await SettlementRunner(CHAIN, REGION, pool, lambda *_: provider, LIMITS, wall=wall).run(NOW)
    await provider.aclose()


def main() -> None:
    """Forks until its input ends."""
    told: dict[str, str] = json.loads(sys.argv[1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(settle(told, timedelta(seconds=float(line))))
            os._exit(0)
        say(pid)
        _, status = os.waitpid(pid, 0)
        say(os.waitstatus_to_exitcode(status))


def say(number: int) -> None:
    """One line to the test."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
