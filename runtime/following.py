"""`storeops trace ID`: one message followed through inbox, visit, questions, provider, sale, uses and ledger.

A trace is the id of the causing message. Every id that a turn makes derives from it, and so does the message that
answers one of its questions: from the ids alone each row is led back to the event that began it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from models.domain.errors import Refused
from models.domain.ids import TerminalId, derived_id, event_cause
from models.tables import trace as tables
from models.tables.trace import Anchor, Step
from runtime.plant import Plant

IDS_A_TURN_MAX = 24
ATTEMPTS_MAX = 40
LOG_LINES_MAX = 200


@dataclass(frozen=True, slots=True)
class Trace:
    """What became of one visit. `roots`: row id -> the event that began it, where the ids say so."""

    wanted: str
    anchor: Anchor | None
    steps: tuple[Step, ...]
    roots: Mapping[str, str]
    log: tuple[Mapping[str, Any], ...]

    def root_of(self, step: Step) -> str:
        """The event that began this row; empty for a timer's doing or an unknown one."""
        return self.roots.get(step.id) or self.roots.get(step.cause, "")


async def trace(database_url: str, wanted: str, logs: Path | None = None) -> Trace:
    """Everything about the visit that `wanted` belongs to. Raises Refused when no table knows the id."""
    async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
        anchors = await tables.anchors(conn, wanted)
        if not anchors:
            dead = await tables.dead_letter(conn, wanted)
            if not dead:
                raise Refused(
                    "unknown_id",
                    f"nothing is known under {wanted!r}",
                    "give an event id (kept 72 h), a session, receipt, sale, order or till transaction",
                )
            return Trace(wanted, None, tuple(dead), {}, _log_lines(logs, [wanted]))
        anchor = anchors[0]
        messages = await tables.inbox(conn, anchor)
        asks = [step.id for step in await tables.outbox(conn, anchor) if step.table == "outbox"]
        roots = lead_back([(step.terminal, step.id) for step in messages], asks)
        found = await tables.steps(conn, anchor, list(roots))
    for step in found:
        if step.table == "sale":
            _lead_sale(step, messages, roots)
    # A sale's own number, its uses and their bookings derive from it.
    for step in found:
        if step.table == "txn" and step.cause in roots:
            roots[step.id] = roots[step.cause]
    ids = [anchor.session, *(step.id for step in found)]
    return Trace(wanted, anchor, tuple(found), roots, _log_lines(logs, ids))


async def trace_anywhere(plants: Sequence[Plant], wanted: str) -> Trace:
    """In whichever region's database it is. Raises Refused `unknown_id`, after asking all of them."""
    databases = list({plant.database_url: plant for plant in plants}.values())
    for plant in databases[:-1]:
        with suppress(Refused):
            return await trace(plant.database_url, wanted, plant.data_dir / "logs")
    return await trace(databases[-1].database_url, wanted, databases[-1].data_dir / "logs")


def lead_back(messages: Iterable[tuple[str, str]], asks: Sequence[str]) -> dict[str, str]:
    """Ids that derive from these (terminal, event id), each with the event that it comes from.

    An event's turn makes ids 1, 2, 3 …; one of them may be a question (in `asks`); its answer is a message whose id
    derives from the question, and whose turn makes ids again.
    """
    known = set(asks)
    roots: dict[str, str] = {}
    for terminal, event in messages:
        open_ = [event_cause(TerminalId(terminal), event), event]
        roots.setdefault(event, event)
        while open_:
            cause = open_.pop()
            roots.setdefault(cause, event)
            for n in (*range(1, IDS_A_TURN_MAX + 1), "sale"):
                made = derived_id(cause, n)
                if made in known and made not in roots:
                    roots[made] = event
                    open_ += _answers(made)
                elif n == "sale":
                    roots.setdefault(made, event)
    return roots


def _answers(ask: str) -> list[str]:
    progress = [derived_id(ask, f"progress{attempt}") for attempt in range(1, ATTEMPTS_MAX + 1)]
    return [derived_id(ask, "answer"), derived_id(ask, "resolved"), *progress]


def _lead_sale(sale: Step, messages: Sequence[Step], roots: dict[str, str]) -> None:
    """A sale is numbered by its confirming event; one that a till numbered is led back by its terminal and time."""
    if sale.id in roots:
        return
    before = [one for one in messages if one.terminal == sale.terminal]
    if before:
        roots[sale.id] = before[-1].id


def _log_lines(folder: Path | None, ids: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    """Lines of the structured logs that name one of the ids; the newest 200."""
    if folder is None or not folder.is_dir():
        return ()
    wanted = [one for one in ids if len(one) >= 16]
    lines = []
    for path in sorted(folder.glob("*.jsonl*")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if any(one in line for one in wanted):
                    try:
                        lines.append({"log": path.name, **json.loads(line)})
                    except ValueError:
                        continue
    return tuple(sorted(lines, key=lambda line: str(line.get("timestamp", "")))[-LOG_LINES_MAX:])


def as_document(found: Trace) -> dict[str, Any]:
    """The machine-readable result."""
    return {
        "id": found.wanted,
        "found_as": "dead letter" if found.anchor is None else found.anchor.found_as,
        "session": "" if found.anchor is None else found.anchor.session,
        "store": "" if found.anchor is None else found.anchor.store,
        "steps": [
            {
                "at": step.at.isoformat(),
                "table": step.table,
                "id": step.id,
                "what": step.what,
                "trace": found.root_of(step),
                "terminal": step.terminal,
                **step.detail,
            }
            for step in found.steps
        ],
        "log": [dict(line) for line in found.log],
    }


def as_text(found: Trace) -> str:
    """A timeline for people: seconds since the first row, table, what, and the first characters of its trace."""
    anchor = found.anchor
    head = "dead letter" if anchor is None else f"{anchor.found_as} · session {anchor.session} · store {anchor.store}"
    began = found.steps[0].at if found.steps else None
    lines = [head]
    for step in found.steps:
        assert began is not None
        mark = "→" if found.wanted in (step.id, found.root_of(step)) else " "
        after_s = (step.at - began).total_seconds()
        lines.append(f"{mark} {after_s:9.3f} s  {step.table:<13} {step.what:<58.58} {found.root_of(step)[-12:]}")
    lines += [f"  log  {line.get('timestamp', '')}  {line.get('event', '')}" for line in found.log]
    return "\n".join(lines)
