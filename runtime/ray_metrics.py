"""The sink that Ray exports for Prometheus: `ray_storeops_…` on each node's metrics port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from runtime.metrics import LATENCY_MS, Kind, Metric


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
