"""A report as a benchmark would make it."""

from __future__ import annotations

from runtime.bench.form import Machine, Report, curve, report, row

MACHINE = Machine("A processor", 2, 7.8, "Linux 6.1 x86_64", "3.11.7", (0.1, 1.2))


def small_report(value_ms: float = 12.0) -> Report:
    """One promise that holds up to 15 ms, one ratio, one figure to be read."""
    rows = [
        row("event to screen, p50", value_ms, "ms", "bare round trip", 1.5, "<= 15"),
        row("messages", 2_100.0, "/s", "bare host", 3_000.0, ">= 0.6 x"),
        row("event to screen, by commits", value_ms, "ms", "bare commit", 2.0),
    ]
    return report("small", MACHINE, rows, {"event to screen, ms": curve([10.0, value_ms, 14.0, 30.5])})
