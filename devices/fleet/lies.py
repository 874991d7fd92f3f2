"""What lying and broken terminals send, and what each must hear; past their agent, in a boot of their own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import uuid_utils

from devices.fleet.agent import FleetAgent
from devices.topics import prefix
from devices.wire import EVENT_BYTES_MAX
from models.domain.ids import StoreId

Message = tuple[str, bytes, str | None, tuple[str, ...]]
"""Topic, payload, the id that a reply would carry, the codes that are right answers ('' is: no refusal)."""


def lies(agent: FleetAgent, rng: random.Random) -> Iterator[Message]:
    """Well-formed and untrue. None of them may leave a trace in the books."""
    event = f"{agent.topic}/up/event"
    boot = str(uuid_utils.uuid4())
    line = {"line": 1, "code": "6901234561005", "name": "x", "quantity": 1, "unit_fen": 200, "net_fen": 200}
    basket = {"till_txn": f"lie-{rng.getrandbits(40)}", "rev": 1, "lines": [line], "total_fen": 199}
    yield _event(event, boot, 1, "basket", basket, ("total_mismatch", "lane_busy", "basket_is_ours"))
    stale = {"rev": 9_999, "tenders": [{"kind": "cash", "fen": 1}]}
    yield _event(
        event, boot, 2, "confirm", stale, ("stale_rev", "no_session", "not_now", "lane_busy", "nothing_to_pay")
    )
    foreign = prefix(agent.config.region, StoreId("no-such-store"), agent.config.terminal)
    yield f"{foreign}/up/event", _envelope(new_id(), boot, 3, "scan", {"code": "x", "quantity": 1}), None, ()
    yield _event(event, boot, 4, "void", {"receipt": "no-such-receipt"}, ("no_such_receipt", "lane_busy", "not_now"))
    death = {"v": 1, "online": False, "boot": boot, "conn": str(uuid_utils.uuid4())}
    yield f"{agent.topic}/up/presence", msgspec.json.encode(death), None, ()


def broken_messages(agent: FleetAgent, rng: random.Random) -> Iterator[Message]:
    """Not what the protocol says: garbage, too much, gaps, ids used twice."""
    event = f"{agent.topic}/up/event"
    boot = str(uuid_utils.uuid4())
    yield event, rng.randbytes(rng.randint(1, 200)), None, ()
    yield event, b'{"v":1,"id":"not-an-id"}', None, ()
    yield event, b"{" + b" " * (EVENT_BYTES_MAX + 1) + b"}", None, ()
    gap_id = new_id()
    yield event, _envelope(gap_id, boot, rng.randint(5, 500), "complaint", {"about": "other"}), gap_id, ("",)
    twice = new_id()
    first = _envelope(twice, boot, 600, "complaint", {"about": "price"})
    yield event, first, twice, ("",)
    yield event, first.replace(b"price", b"other"), twice, ("", "id_conflict")
    yield event, _envelope(twice, boot, 601, "complaint", {"about": "price"}), twice, ("", "id_conflict")


def new_id() -> str:
    """A message id."""
    return str(uuid_utils.uuid7())


def _event(topic: str, boot: str, seq: int, kind: str, body: dict[str, Any], codes: tuple[str, ...]) -> Message:
    event_id = new_id()
    return topic, _envelope(event_id, boot, seq, kind, body), event_id, codes


def _envelope(event_id: str, boot: str, seq: int, kind: str, body: dict[str, Any]) -> bytes:
    return msgspec.json.encode(
        {
            "v": 1,
            "id": event_id,
            "boot": boot,
            "seq": seq,
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "type": kind,
            "session": None,
            "body": body,
        }
    )
