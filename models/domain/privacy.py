"""Privacy as rules of values: what a consent permits, when data must go, who is too young, what a person may ask for.

Nothing here reads a clock or a table: the caller counts and hands over the day, the rule decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# ---------------------------------------------------------------- the audit's chain

GENESIS_SHA256 = "0" * 64
"""What the first event of an audit names as the one before it."""

Detail = Mapping[str, "str | int | bool | Sequence[str] | None"]
"""What an audit event says beside its subject. No float (its text differs between writers), no personal data."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit: who did what to whom, chained to the line before."""

    n: int
    at: datetime
    kind: str
    subject: str
    by: str
    detail: Detail
    prev_sha256: str
    sha256: str


def audit_sha256(n: int, at: datetime, kind: str, subject: str, by: str, detail: Detail, prev_sha256: str) -> str:
    """SHA-256, hexadecimal, of the event in canonical JSON: sorted keys, ASCII, microseconds since 1970."""
    micros = round((at - datetime.fromisoformat("1970-01-01T00:00:00+00:00")) / timedelta(microseconds=1))
    text = json.dumps(
        [n, micros, kind, subject, by, detail, prev_sha256], sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def chain_fault(events: Sequence[AuditEvent], n: int, prev_sha256: str) -> str | None:
    """What is wrong with the first event that does not follow event `n`, whose digest is `prev_sha256`; None: nothing.

    `events` in rising order. The words are for a log and an auditor: "event 7 is missing", "event 7 was changed".
    """
    for event in events:
        n += 1
        if event.n != n:
            return f"event {n} is missing"
        if event.prev_sha256 != prev_sha256:
            return f"event {n} does not follow event {n - 1}"
        said = audit_sha256(event.n, event.at, event.kind, event.subject, event.by, event.detail, event.prev_sha256)
        if said != event.sha256:
            return f"event {n} was changed"
        prev_sha256 = event.sha256
    return None


def check_detail(detail: Detail) -> None:
    """Raises TypeError or ValueError for what would not come back from the database as it was written."""
    for key, value in detail.items():
        parts = value if isinstance(value, list | tuple) else (value,)
        for part in parts:
            if not isinstance(part, str | int | bool | None):
                raise TypeError(f"audit detail {key!r} holds {type(part).__name__}")
            if isinstance(part, str) and "\x00" in part:
                raise ValueError(f"audit detail {key!r} holds a NUL")
