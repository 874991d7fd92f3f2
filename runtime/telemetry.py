"""Counters of a host, and logs: JSON lines in the data folder for hosted processes, colours for people."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from runtime.metrics import LATENCY_MS

LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_FILES_KEPT = 3


def configure_logs(data_dir: Path | None = None, name: str = "storeops", level: int = logging.INFO) -> None:
    """Send structlog to `data_dir/logs/{name}.jsonl` (bounded, rotated), or to stderr without a folder."""
    if data_dir is not None:
        folder = data_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = logging.handlers.RotatingFileHandler(
            folder / f"{name}.jsonl", maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_KEPT
        )
        renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    else:
        handler = logging.StreamHandler(sys.stderr)
        renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("storeops")
    for old in root.handlers:
        old.close()
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=lambda *_: logging.getLogger("storeops"),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


@dataclass(slots=True)
class HostCounts:
    """Plain counters since the start; health and metrics read a copy."""

    batches: int = 0
    messages: int = 0
    duplicates: int = 0
    refused: int = 0
    undecodable: int = 0
    unknown_terminals: int = 0
    wrong_store: int = 0
    scores_signed: int = 0
    scores_not_signed: int = 0
    scores_badly_signed: int = 0
    """Liveness scores of terminals with a key, by what was found of their signature."""
    seq_gaps: int = 0
    dead_letters: int = 0
    timers: int = 0
    asks: int = 0
    publish_failures: int = 0
    database_outages: int = 0
    refused_full: int = 0
    passivated: int = 0
    unsupported_versions: int = 0
    flooded: int = 0
    unasked_responses: int = 0
    telemetry_dropped: int = 0
    too_fast: int = 0
    refused_entities: int = 0
    refused_outbox: int = 0
    families_claimed: int = 0
    event_ms: dict[str, list[int]] = field(default_factory=dict)
    """Milliseconds from arrival to reply by kind (event, face), as counts of metrics.LATENCY_MS's buckets."""

    def took(self, kind: str, ms: float) -> None:
        """One event or face was committed and answered after so many milliseconds."""
        buckets = self.event_ms.get(kind)
        if buckets is None:
            buckets = self.event_ms[kind] = [0] * (len(LATENCY_MS) + 1)
        buckets[bisect_left(LATENCY_MS, ms)] += 1
