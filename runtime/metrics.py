"""What is counted, under which name, and what it means: the list that docs/metrics.md, dashboards and alerts keep to.

Hosts and workers count in plain ints; every few seconds the differences go to a sink (Ray's metrics agent, see
runtime/ray_metrics.py). Labels are `region` and `kind` only: nothing that grows with stores or terminals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import structlog

log = structlog.get_logger()

PUSH_EVERY_S = 3.0
OBSERVED_AT_ONCE_MAX = 200
LATENCY_MS = (2, 5, 10, 15, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500)
"""Upper bounds of the latency buckets, in milliseconds; the last bucket is open."""


class Kind(StrEnum):
    """How Prometheus reads it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `key` is its place in the part's snapshot; Ray exports `ray_` + name, counters with `_total`."""

    part: str
    key: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ("region",)

    @property
    def name(self) -> str:
        """As it is pushed."""
        return f"storeops_{self.part}_{self.key}"

    @property
    def exported(self) -> str:
        """As Prometheus finds it; a histogram has `_bucket`, `_sum` and `_count` behind it."""
        return f"ray_{self.name}{'_total' if self.kind is Kind.COUNTER else ''}"


def _metrics(part: str, kind: Kind, meanings: Mapping[str, str], *labels: str) -> tuple[Metric, ...]:
    return tuple(Metric(part, key, kind, meaning, ("region", *labels)) for key, meaning in meanings.items())


HOST_COUNTERS = _metrics(
    "host",
    Kind.COUNTER,
    {
        "batches": "batches committed",
        "messages": "messages handled, timers and answers included",
        "duplicates": "messages that came again and got the same reply",
        "refused": "messages refused with a code (the sender was told)",
        "undecodable": "messages that the codec refused",
        "unknown_terminals": "messages of terminals that nobody registered",
        "wrong_store": "messages on a topic that is not the registered terminal's",
        "scores_signed": "liveness scores that the terminal's registered key signed",
        "scores_not_signed": "liveness scores without a signature, of terminals with a key: left out",
        "scores_badly_signed": "liveness scores whose signature does not fit: left out",
        "seq_gaps": "gaps in a terminal's seq",
        "dead_letters": "messages whose turn raised: a bug",
        "timers": "timers fired",
        "asks": "questions sent to ports (faces, memberships, payments)",
        "publish_failures": "replies and screens that the broker did not take in time",
        "database_outages": "times that the database connection was lost",
        "refused_full": "messages refused because a queue was full",
        "passivated": "idle entities put out of memory",
        "unsupported_versions": "messages of a protocol version that is not spoken here",
        "flooded": "messages left out: too many of one terminal, or too many faces at once",
        "unasked_responses": "responses to commands that nobody sent",
        "telemetry_dropped": "telemetry left out under load",
        "too_fast": "events above their terminal's rate: refused, or left to its repeat",
        "refused_entities": "events refused because the host holds as many entities as it may",
        "refused_outbox": "events refused because their store has as many open asks as it may",
        "families_claimed": "births that named a family which no image makes of their terminal",
        "bad_topics": "messages on malformed topics",
    },
)
HOST_GAUGES = _metrics(
    "host",
    Kind.GAUGE,
    {
        "entities": "entities in memory",
        "waiting": "messages that wait for a batch",
        "asking": "questions without an answer",
        "held": "money events that wait for a gap in seq",
        "terminals": "terminals registered in the host's stores",
        "outbox": "durable asks without an answer",
    },
)
HOST_LATENCY = (
    Metric(
        "host",
        "event_ms",
        Kind.HISTOGRAM,
        "milliseconds from an event's arrival at the host until its batch is committed and its reply and screens are "
        "with the broker",
        ("region", "kind"),
    ),
)
FACES = (
    Metric("faces", "answers", Kind.COUNTER, "questions answered, by `kind` of question", ("region", "kind")),
    Metric(
        "faces",
        "answer_ms",
        Kind.HISTOGRAM,
        "milliseconds of the face worker for one question, by `kind` of question",
        ("region", "kind"),
    ),
    Metric("faces", "templates", Kind.GAUGE, "templates that are searchable"),
)
FACE_DESK = (
    *_metrics(
        "faces",
        Kind.COUNTER,
        {
            "asked": "questions that came to the desk",
            "shed": "questions told at once that it is busy: their turn would have come too late",
            "expired": "questions told that it is busy after they had waited",
            "redispatched": "questions asked again of another worker, because theirs died",
            "lost": "questions given up because workers died over them",
            "started": "workers that the desk started",
            "stopped": "workers that the desk ended, drained",
        },
    ),
    *_metrics(
        "faces",
        Kind.GAUGE,
        {
            "waiting": "questions that wait for a worker",
            "oldest_ms": "age of the oldest of them in milliseconds; 0 when there is none",
            "workers": "workers, those that start or drain included",
        },
    ),
)
SETTLEMENT = (
    Metric("settlement", "runs", Kind.COUNTER, "settlement runs that ended"),
    Metric("settlement", "disagreements", Kind.COUNTER, "runs whose totals differ from the ledger: look at once"),
    Metric("settlement", "memberships", Kind.COUNTER, "memberships cut off"),
    Metric("settlement", "charge_fen", Kind.COUNTER, "fen charged at cutoff"),
    Metric("settlement", "run_ms", Kind.HISTOGRAM, "milliseconds of one settlement run"),
)
ROLLOUT_COUNTERS = _metrics(
    "rollouts",
    Kind.COUNTER,
    {
        "ticks": "looks at a rollout, each with what followed of it",
        "entries": "journal entries that ticks wrote",
        "orders": "orders that a terminal's host took",
        "conflicts": "orders against a document that had moved: looked at again",
        "refused": "orders that a terminal's host refused",
        "lost_races": "ticks that wrote nothing, because somebody else had written meanwhile",
        "errors": "rounds that broke",
        "halts": "rollouts that stopped, by their gate or by a person",
        "rollbacks": "rollbacks that began",
        "completions": "rollouts that came to their end",
    },
)
ROLLOUTS_BY_STATE = (
    Metric("rollouts", "standing", Kind.GAUGE, "active rollouts and drafts, `kind`: the state", ("region", "kind")),
    Metric("rollouts", "targets", Kind.GAUGE, "terminals of active rollouts, `kind`: the state", ("region", "kind")),
)
ROLLOUT_TICK = Metric(
    "rollouts", "tick_ms", Kind.HISTOGRAM, "milliseconds of one tick, reading, writing and ordering included"
)
PUSHED = (
    *HOST_COUNTERS,
    *HOST_GAUGES,
    *HOST_LATENCY,
    *FACES,
    *FACE_DESK,
    *SETTLEMENT,
    *ROLLOUT_COUNTERS,
    *ROLLOUTS_BY_STATE,
    ROLLOUT_TICK,
)
"""Everything that goes to Ray's metrics agent."""


class Sink(Protocol):
    """Where figures go."""

    def add(self, metric: Metric, amount: int, labels: Mapping[str, str]) -> None:
        """A counter grew by `amount` > 0."""

    def put(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """A gauge stands at `value`."""

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """One observation of a histogram."""


def representative_ms(bucket: int) -> float:
    """A value inside a bucket: what stands for each of its observations in sums."""
    if bucket == len(LATENCY_MS):
        return LATENCY_MS[-1] * 1.5
    low = LATENCY_MS[bucket - 1] if bucket else 0
    return (low + LATENCY_MS[bucket]) / 2


@dataclass(slots=True)
class Pusher:
    """Pushes what changed since the last time. A snapshot that shrank belongs to a new process life: counted anew."""

    sink: Sink
    region: str
    _before: dict[tuple[str, str], int] = field(default_factory=dict)
    _buckets: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def push(self, metrics: Iterable[Metric], snapshot: Mapping[str, Any]) -> None:
        """Counters and gauges of a part; a key that the snapshot lacks is left out."""
        labels = {"region": self.region}
        for metric in metrics:
            value = snapshot.get(metric.key)
            if not isinstance(value, int | float):
                continue
            if metric.kind is Kind.GAUGE:
                self.sink.put(metric, value, labels)
            elif metric.kind is Kind.COUNTER:
                self.grow(metric, int(value))

    def grow(self, metric: Metric, total: int, kind: str | None = None) -> None:
        """A counter stands at `total`."""
        key = (metric.name, kind or "")
        grown = total - self._before.get(key, 0)
        self._before[key] = total
        amount = total if grown < 0 else grown
        if amount > 0:
            self.sink.add(metric, amount, self._labels(kind))

    def stand(self, metric: Metric, by_kind: Mapping[str, float]) -> None:
        """A gauge of several kinds: each that can be, also where it is 0."""
        for kind, value in by_kind.items():
            self.sink.put(metric, value, self._labels(kind))

    async def observe(self, metric: Metric, counts: list[int], kind: str | None = None) -> None:
        """A histogram's buckets stand at `counts`. Gives the event loop its turn in between."""
        labels = self._labels(kind)
        for done, bucket in enumerate(self._new(metric, counts, kind), 1):
            self.sink.observe(metric, representative_ms(bucket), labels)
            if done % OBSERVED_AT_ONCE_MAX == 0:
                await asyncio.sleep(0)

    def _new(self, metric: Metric, counts: list[int], kind: str | None) -> list[int]:
        """The bucket of each observation that was not pushed yet."""
        key = (metric.name, kind or "")
        before = self._buckets.get(key, [0] * len(counts))
        self._buckets[key] = list(counts)
        grown = [now - was if now >= was else now for now, was in zip(counts, before, strict=True)]
        return [bucket for bucket, times in enumerate(grown) for _ in range(times)]

    def _labels(self, kind: str | None) -> dict[str, str]:
        return {"region": self.region} | ({} if kind is None else {"kind": kind})


async def push_host(pusher: Pusher, snapshot: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    """Push a host's snapshot every few seconds, for ever. A host that does not serve has nothing to say."""
    while True:
        await asyncio.sleep(PUSH_EVERY_S)
        try:
            health = await snapshot()
            pusher.push((*HOST_COUNTERS, *HOST_GAUGES), health)
            for kind, counts in dict(health.get("event_ms", {})).items():
                await pusher.observe(HOST_LATENCY[0], counts, kind)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - figures are losable, the host is not
            log.warning("metrics_not_pushed", error=f"{type(error).__name__}: {error}")


async def push_rollouts(pusher: Pusher, snapshot: Callable[[], Mapping[str, Any]]) -> None:
    """Push a chain's rollouts every few seconds, for ever; their region is that of the chain's home."""
    while True:
        await asyncio.sleep(PUSH_EVERY_S)
        try:
            figures = snapshot()
            pusher.push(ROLLOUT_COUNTERS, figures)
            for metric in ROLLOUTS_BY_STATE:
                pusher.stand(metric, figures[metric.key])
            await pusher.observe(ROLLOUT_TICK, figures["tick_ms"])
        except Exception as error:  # noqa: BLE001 - figures are losable, the rollouts are not
            log.warning("metrics_not_pushed", error=f"{type(error).__name__}: {error}")


async def push_every(
    pusher: Pusher, metrics: Sequence[Metric], snapshot: Callable[[], Awaitable[Mapping[str, Any]]]
) -> None:
    """Push counters and gauges of a part every few seconds, for ever."""
    while True:
        await asyncio.sleep(PUSH_EVERY_S)
        try:
            pusher.push(metrics, await snapshot())
        except Exception as error:  # noqa: BLE001 - figures are losable, the part is not
            log.warning("metrics_not_pushed", error=f"{type(error).__name__}: {error}")
