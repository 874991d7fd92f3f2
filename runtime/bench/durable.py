"""Durable messages: real terminals' events over a real broker into a real StoreHost on a real PostgreSQL, and back.

Each message: MQTT in, dedupe read, turn, the whole commit (epoch, inbox, entity, timers, facts, ledger), reply and
screen out, PUBACK, acknowledgement. The mix is a visit's: session.open, eight scans, a cash `confirm` that books a
sale; one terminal a lane, a screen for each. Load generator, broker and database share the machine with the host.
The bare host is measured before and after, in the same run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from models.domain.errors import NeedsOperator
from runtime.bench.form import Row, curve, quantile, row
from runtime.bench.host_process import BARE_REGION
from runtime.bench.visits import Visits
from runtime.bench.yard import REGION, HostProcess, Yard, open_yard

LANES = 512
WARM_S = 3.0
BARE_PART = 0.25
"""The bare host runs so much of the real one's time, before it and after it."""
PACE_PER_S = 200.0
PACE_S_MAX = 20.0
QUIET_S_MAX = 1.0
"""Until the host that was just connected has its subscriptions."""


@dataclass(slots=True)
class Figures:
    """Of one kind of host. Rates per second, microseconds of its CPU for each message, milliseconds."""

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    reply_ms: list[float] = field(default_factory=list)
    screen_ms: list[float] = field(default_factory=list)
    paced_cpu: float = 0.0
    """Cores while paced."""


def measure(seconds: float, advance: Callable[[str], None]) -> list[Row]:
    """Flat out for `seconds`, then paced. Raises NeedsOperator `bench_refused` when events were refused."""
    return rows(*figures(seconds, advance))


def figures(seconds: float, advance: Callable[[str], None]) -> tuple[Figures, Figures]:
    """The real host's and the bare host's."""
    real, bare = Figures(), Figures()
    with tempfile.TemporaryDirectory(prefix="so-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's user walks through it when we are root
        with open_yard(folder, LANES) as yard:
            for kind, figures, part in (("bare", bare, BARE_PART), ("real", real, 1.0), ("bare", bare, BARE_PART)):
                with yard.host(kind) as host:
                    asyncio.run(_play(yard, host, kind, figures, seconds * part))
                advance(f"{kind} host")
    return real, bare


def rows(real: Figures, bare: Figures) -> list[Row]:
    """The promises, and the latency's quantiles beside each other."""
    rate, cpu_us = statistics.median(real.rates), statistics.median(real.cpu_us)
    bare_rate, bare_us = statistics.median(bare.rates), statistics.median(bare.cpu_us)
    least = "bare host: the same link, broker and database, one row with the id"
    made = [
        row("messages, durable, flat out", rate, "/s", least, bare_rate, ">= 2000"),
        row("messages, durable, by the bare host", rate, "/s", least, bare_rate, ">= 0.6 x"),
        row("host's CPU for a durable message", cpu_us, "us", least, bare_us, "<= 400"),
        row("host's CPU at 200 messages/s", max(real.paced_cpu, 0.001), "cores", least, max(bare.paced_cpu, 0.001)),
    ]
    for what, here, there in (
        ("reply", real.reply_ms, bare.reply_ms),
        ("screen", real.screen_ms, bare.screen_ms),
    ):
        for per_cent, target in ((50, "<= 8"), (99, "<= 30")):
            made.append(
                row(
                    f"event to {what} at 200 messages/s, p{per_cent}",
                    quantile(here, per_cent),
                    "ms",
                    f"bare host, p{per_cent}",
                    quantile(there, per_cent),
                    target,
                )
            )
    return made


def curves(real: Figures, bare: Figures) -> dict[str, tuple[float, ...]]:
    """For the plots."""
    return {
        "event to screen at 200/s, ms": curve(real.screen_ms),
        "event to reply at 200/s, ms": curve(real.reply_ms),
        "bare host's reply at 200/s, ms": curve(bare.reply_ms),
    }


async def _play(yard: Yard, host: HostProcess, kind: str, figures: Figures, seconds: float) -> None:
    visits = Visits(yard.plant, REGION if kind == "real" else BARE_REGION, yard.stores)
    await visits.start()
    try:
        await asyncio.sleep(QUIET_S_MAX)
        await visits.flat_out(WARM_S)
        before_s, before = host.cpu_s(), visits.figures.replies
        figures.rates.append(await visits.flat_out(seconds))
        figures.cpu_us.append((host.cpu_s() - before_s) / (visits.figures.replies - before) * 1e6)
        visits.figures.reply_ms.clear()
        visits.figures.screen_ms.clear()
        paced_s, before_s = min(seconds, PACE_S_MAX), host.cpu_s()
        await visits.at_rate(PACE_PER_S, paced_s)
        figures.paced_cpu = (host.cpu_s() - before_s) / paced_s
        figures.reply_ms += visits.figures.reply_ms
        figures.screen_ms += visits.figures.screen_ms
    finally:
        visits.stop()
    if visits.figures.refused:
        raise NeedsOperator(
            "bench_refused",
            f"{visits.figures.refused} events were refused, the first: {visits.figures.first_refusal.decode()}",
            "something else was measured: see the host's log",
        )
