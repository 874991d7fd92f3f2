"""The sink that Ray exports for Prometheus: `ray_storeops_…` on each node's metrics port."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.util.metrics import Counter, Gauge, Histogram

from runtime.metrics import FACES, LATENCY_MS, SETTLEMENT, Kind, Metric

if TYPE_CHECKING:  # a face desk, which is to be small, pushes metrics and settles nothing
    from runtime.settlement import SettlementReport


class RaySink:
    """One per process. Ray's agent collects from every process of its node and answers Prometheus."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def add(self, metric: Metric, amount: int, labels: Mapping[str, str]) -> None:
        self._of(metric).inc(amount, dict(labels))

    def put(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        self._of(metric).set(value, dict(labels))

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        self._of(metric).observe(value, dict(labels))

    def _of(self, metric: Metric) -> Any:
        made = self._made.get(metric.name)
        if made is None:
            match metric.kind:
                case Kind.COUNTER:
                    made = Counter(metric.name, metric.meaning, metric.labels)
                case Kind.GAUGE:
                    made = Gauge(metric.name, metric.meaning, metric.labels)
                case Kind.HISTOGRAM:
                    boundaries = [float(bound) for bound in LATENCY_MS]
                    made = Histogram(metric.name, metric.meaning, boundaries, metric.labels)
            self._made[metric.name] = made
        return made


class FaceMetrics:
    """Of a face worker: pushed with each answer, of which one core gives tens a second."""

    def __init__(self, region: str) -> None:
        self._sink, self._region = RaySink(), region

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """One question of that kind."""
        began = time.monotonic()
        yield
        answers, answer_ms, _ = FACES
        labels = {"region": self._region, "kind": kind}
        self._sink.add(answers, 1, labels)
        self._sink.observe(answer_ms, (time.monotonic() - began) * 1000, labels)

    def templates(self, searchable: int) -> None:
        """How many templates can be found."""
        self._sink.put(FACES[2], searchable, {"region": self._region})


class SettlementMetrics:
    """Of a settlement actor: pushed after each run."""

    def __init__(self, region: str) -> None:
        self._sink = RaySink()
        self._labels = {"region": region}

    def ran(self, report: SettlementReport, ms: float) -> None:
        """One run ended."""
        runs, disagreements, memberships, charge_fen, run_ms = SETTLEMENT
        grown = (
            (runs, 1),
            (disagreements, 0 if report.ok else 1),
            (memberships, report.totals.memberships),
            (charge_fen, report.totals.charge_fen),
        )
        for metric, amount in grown:
            if amount > 0:
                self._sink.add(metric, amount, self._labels)
        self._sink.observe(run_ms, ms, self._labels)
