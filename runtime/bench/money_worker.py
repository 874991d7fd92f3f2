"""A worker of `storeops bench money`: settles regions one after another, in a process of its own.

One JSON object on standard input, `go` when all workers are connected, one JSON object on standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.port import PaymentProvider
from models.domain.payments import Answer, PayResult, ReleaseResult, Succeeded
from runtime.bench.money_ledger import backend_cpu_s
from runtime.settlement import SettlementLimits, SettlementRunner

LIMITS = SettlementLimits(chunk_calls_max=5_000, calls_per_s_max=1e6, calls_in_flight_max=5_000)


class AtOnce:
    """A provider that does everything that it is asked, at once."""

    async def capture(self, *, number: str, amount_fen: int, **_: object) -> Answer[PayResult]:
        return Succeeded(PayResult(amount_fen, amount_fen, amount_fen, amount_fen, (), f"T{number}"))

    async def unfreeze(self, *, hold_no: str, amount_fen: int, **_: object) -> Answer[ReleaseResult]:
        return Succeeded(ReleaseResult(hold_no, amount_fen))


class Asking:
    """How long the provider was asked, in wall time and in this process's CPU."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._began = (0.0, 0.0)

    async def __call__(self, step: str) -> None:
        if step == "claimed":
            self._began = (time.monotonic(), time.process_time())
        elif step == "asked":
            self.wall_s += time.monotonic() - self._began[0]
            self.cpu_s += time.process_time() - self._began[1]


async def work(task: dict[str, Any]) -> dict[str, float]:
    """Settle; what it took, the CPU without the asking."""
    provider, asking = cast("PaymentProvider", AtOnce()), Asking()
    limits = SettlementLimits() if task["paced"] else LIMITS
    async with AsyncConnectionPool[AsyncConnection[Any]](task["url"], min_size=1, max_size=1, open=False) as pool:
        async with pool.connection() as conn:
            backend = conn.info.backend_pid
        _say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        began, cpu_s = time.monotonic(), time.process_time() + backend_cpu_s([backend])
        for region in task["regions"]:
            runner = SettlementRunner(task["chain"], region, pool, lambda *_: provider, limits, between_steps=asking)
            report = await runner.run(datetime.fromisoformat(task["now"]))
            if not report.ok or report.open_calls:
                raise SystemExit(f"{region}: {report}")
        return {
            "wall_s": time.monotonic() - began,
            "asking_s": asking.wall_s,
            "cpu_s": time.process_time() + backend_cpu_s([backend]) - cpu_s - asking.cpu_s,
        }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _say(json.dumps(asyncio.run(work(json.loads(sys.stdin.readline())))))
