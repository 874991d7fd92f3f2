"""One visit read back from every table it touched, for `storeops trace`: only reads, and only when a person asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

ANCHORS_MAX = 2
STEPS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Anchor:
    """What an id turned out to be: a visit (session) of a store, and how that was found."""

    session: str
    store: str
    found_as: str


@dataclass(frozen=True, slots=True)
class Step:
    """One row of one table. `cause`: the message whose turn wrote it, as far as the row says so."""

    at: datetime
    table: str
    id: str
    what: str
    cause: str = ""
    terminal: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


_ANCHORS = """
SELECT reply ->> 'session', coalesce(t.store, ''), 'event' FROM inbox i LEFT JOIN terminal t ON t.id = i.terminal
  WHERE i.id = %(id)s AND i.reply ->> 'session' IS NOT NULL
UNION SELECT session, store, 'sale' FROM sale WHERE id = %(id)s
UNION SELECT session, store, 'receipt' FROM sale WHERE receipt = %(id)s
UNION SELECT session, store, 'session' FROM sale WHERE session = %(id)s AND session <> ''
UNION SELECT o.request ->> 'session', o.store, 'order' FROM outbox o WHERE o.request ->> 'order' = %(id)s
UNION SELECT o.request ->> 'session', o.store, 'session' FROM outbox o WHERE o.request ->> 'session' = %(id)s
UNION SELECT o.request ->> 'session', o.store, 'ask' FROM outbox o WHERE o.id = %(id)s
UNION SELECT s.session, s.store, 'void' FROM sale_void v JOIN sale s ON s.id = v.sale WHERE v.id = %(id)s
UNION SELECT s.session, s.store, 'till transaction' FROM sale s WHERE s.till_txn = %(id)s AND s.till_txn <> ''
UNION SELECT session, store, 'session' FROM face_decision WHERE session = %(id)s
UNION SELECT session, store, 'decision' FROM face_decision WHERE id = %(id)s
UNION SELECT s.session, s.store, 'use' FROM usage u JOIN sale s ON s.id = u.sale WHERE u.id = %(id)s
"""

_INBOX = """
SELECT received_at, id, type, terminal, boot, seq, reply FROM inbox
WHERE terminal IN (SELECT id FROM terminal WHERE store = %(store)s) AND reply ->> 'session' = %(session)s
ORDER BY received_at, n LIMIT %(limit)s
"""

_OUTBOX = """
SELECT created_at, id, port, verb, attempts, done_at, request ->> 'order', request ->> 'fen', answer
FROM outbox WHERE store = %(store)s AND request ->> 'session' = %(session)s ORDER BY created_at, id LIMIT %(limit)s
"""

_SALES = """
SELECT at, id, receipt, terminal, due_fen, discount_fen, tenders, voided_at FROM sale WHERE session = %(session)s
"""

_LEDGER = """
SELECT t.booked_at, t.id, t.kind, t.request_number, t.trace,
  jsonb_agg(jsonb_build_array(e.account, e.amount_fen) ORDER BY e.leg)
FROM txn t JOIN entry e ON e.txn = t.id WHERE t.request_number = ANY(%(numbers)s)
GROUP BY t.booked_at, t.id, t.kind, t.request_number, t.trace ORDER BY t.booked_at, t.id
"""

_OTHERS = """
SELECT at, 'consent', id, purpose || CASE WHEN granted THEN ' granted' ELSE ' refused' END, terminal
  FROM consent WHERE session = %(session)s
UNION ALL SELECT biz_time, 'reservation', usage, 'reserved, now ' || state, '' FROM reservation
  WHERE session = %(session)s
UNION ALL SELECT v.at, 'sale_void', v.id, 'sale undone', v.terminal FROM sale_void v JOIN sale s ON s.id = v.sale
  WHERE s.session = %(session)s
UNION ALL SELECT u.received_at, 'usage', u.id, u.benefit || ' ' || u.class || ' ' || u.fen || ' fen', u.terminal
  FROM usage u JOIN sale s ON s.id = u.sale WHERE s.session = %(session)s
"""

_DECISIONS = """
SELECT at, id, outcome, reason, scope, templates_searched, threshold_ppm, best_ppm, second_ppm,
  to_jsonb(face_decision) - ARRAY['id', 'session', 'store', 'at', 'member']
FROM face_decision WHERE session = %(session)s
"""

_DEAD = """
SELECT at, id, entity_kind || ' ' || entity_id, error FROM dead_letter
WHERE id = ANY(%(causes)s) OR message ->> 'session' = %(session)s OR message -> 'message' ->> 'session' = %(session)s
"""


async def anchors(conn: AsyncConnection[TupleRow], wanted: str) -> list[Anchor]:
    """The visits that an id belongs to: of an event, a sale, a receipt, an order, a use, a till's transaction."""
    cursor = await conn.execute(f"SELECT * FROM ({_ANCHORS}) AS found LIMIT %(limit)s", {"id": wanted, "limit": 50})
    found = {(row[0], row[1]): Anchor(*row) for row in await cursor.fetchall() if row[0]}
    return list(found.values())[:ANCHORS_MAX]


async def dead_letter(conn: AsyncConnection[TupleRow], wanted: str) -> list[Step]:
    """A message that no visit saw: its dead letter alone."""
    return await _dead(conn, "", [wanted])


async def steps(conn: AsyncConnection[TupleRow], anchor: Anchor, causes: Sequence[str]) -> list[Step]:
    """Every row of the visit, oldest first. `causes`: messages whose dead letters count too."""
    values = {"session": anchor.session, "store": anchor.store, "limit": STEPS_MAX}
    found = await inbox(conn, anchor)
    found += await outbox(conn, anchor)
    cursor = await conn.execute(_SALES, values)
    sales = await cursor.fetchall()
    found += [
        Step(row[0], "sale", row[1], f"receipt {row[2]}, due {row[4]} fen", "", row[3],
             {"receipt": row[2], "due_fen": row[4], "discount_fen": row[5], "tenders": row[6]})
        for row in sales
    ]  # fmt: skip
    cursor = await conn.execute(_OTHERS, values)
    others = await cursor.fetchall()
    found += [Step(row[0], row[1], row[2], row[3], "", row[4]) for row in others]
    cursor = await conn.execute(_DECISIONS, values)
    found += [_decided(row) for row in await cursor.fetchall()]
    numbers = [row[1] for row in sales] + [row[2] for row in others if row[1] in {"sale_void", "usage"}]
    cursor = await conn.execute(_LEDGER, {"numbers": numbers})
    found += [
        Step(row[0], "txn", row[1], f"{row[2]} of {row[3]}", row[4], "", {"entries": row[5]})
        for row in await cursor.fetchall()
    ]
    found += await _dead(conn, anchor.session, list(causes))
    return sorted(found, key=lambda step: step.at)


async def inbox(conn: AsyncConnection[TupleRow], anchor: Anchor) -> list[Step]:
    """The visit's messages and their replies."""
    values = {"session": anchor.session, "store": anchor.store, "limit": STEPS_MAX}
    cursor = await conn.execute(_INBOX, values)
    return [
        Step(row[0], "inbox", row[1], f"{row[2]} seq {row[5]}", row[1], row[3],
             {"boot": row[4], "seq": row[5], "reply": row[6]})
        for row in await cursor.fetchall()
    ]  # fmt: skip


async def outbox(conn: AsyncConnection[TupleRow], anchor: Anchor) -> list[Step]:
    """The visit's durable questions: to memberships, and to the payment provider under its order number."""
    values = {"session": anchor.session, "store": anchor.store, "limit": STEPS_MAX}
    cursor = await conn.execute(_OUTBOX, values)
    found = []
    for at, ask, port, verb, attempts, done_at, order, fen, answer in await cursor.fetchall():
        detail = {"port": port, "verb": verb, "attempts": attempts, "order": order, "fen": fen}
        told = " ".join(str(part) for part in (port, verb, order and f"order {order}", fen and f"{fen} fen") if part)
        found.append(Step(at, "outbox", ask, told, "", "", {k: v for k, v in detail.items() if v is not None}))
        if done_at is not None:
            outcome = {} if not isinstance(answer, dict) else _outcome(answer)
            what = " ".join(f"{name} {value}" for name, value in outcome.items()) or "answered"
            found.append(Step(done_at, "answer", ask, f"{port}: {what}", "", "", {**outcome, "attempts": attempts}))
    return found


def _decided(row: TupleRow) -> Step:
    """Scores as cosines; who it was is the sale's to say."""
    at, decision, outcome, reason, scope, searched, *scores, weighed = row
    t, best, second = (score / 1_000_000 for score in scores)
    other = f", next {second:.3f}" if second > -1 else ""
    met = f"best {best:.3f}{other}, t {t:.3f}" if best > -1 else "nobody"
    score = weighed["device_score"]
    told = f"{outcome} {reason}: {met} in {searched} of the {scope}" + (f", score {score}" if score != "none" else "")
    return Step(at, "face_decision", decision, told, "", "", weighed)


def _outcome(answer: dict[str, Any]) -> dict[str, Any]:
    """What decides; never a name, a phone or a token."""
    kept = ("outcome", "ok", "code", "trade_no", "payer_fen")
    return {name: answer[name] for name in kept if answer.get(name) not in (None, "", 0)}


async def _dead(conn: AsyncConnection[TupleRow], session: str, causes: Sequence[str]) -> list[Step]:
    cursor = await conn.execute(_DEAD, {"causes": list(causes), "session": session})
    return [Step(row[0], "dead_letter", row[1], f"{row[2]}: {row[3]}", row[1]) for row in await cursor.fetchall()]
