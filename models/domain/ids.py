"""Typed identifiers. Every id crosses the wire as text; the type says which kind of text it is."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import NewType

ChainId = NewType("ChainId", str)
RegionId = NewType("RegionId", str)
StoreId = NewType("StoreId", str)
LaneId = NewType("LaneId", str)
TerminalId = NewType("TerminalId", str)
SessionId = NewType("SessionId", str)
MessageId = NewType("MessageId", str)
MemberId = NewType("MemberId", str)
MembershipId = NewType("MembershipId", str)
PlanId = NewType("PlanId", str)
VoucherId = NewType("VoucherId", str)
BenefitId = NewType("BenefitId", str)
UsageId = NewType("UsageId", str)
SaleId = NewType("SaleId", str)
LeaseId = NewType("LeaseId", str)
LegalEntityId = NewType("LegalEntityId", str)
"""A company that keeps its own books: the chain, or a franchisee that owns stores."""

SHARDS_TOTAL = 256
"""For ever: the shard is part of every topic (wire.md)."""

_LEVEL = re.compile(r"[a-z0-9-]{1,48}")


def is_topic_level(text: str) -> bool:
    """True when `text` may stand as one level of a topic: `[a-z0-9-]{1,48}` (wire.md)."""
    return _LEVEL.fullmatch(text) is not None


def shard_of(store: StoreId) -> int:
    """The store's shard, 0..255: first byte of sha256 of the store id in UTF-8 (architecture.md section 3)."""
    return hashlib.sha256(store.encode()).digest()[0]


def event_cause(terminal: TerminalId, event: str) -> str:
    """What ids made by an event's turn derive from. An event's id is unique per terminal only: devices with a poor
    random source repeat each other's, and must not share sales, orders or visits.
    """
    return derived_id(event, terminal)


def derived_id(cause: str, n: int | str) -> str:
    """The n-th id made by the turn of one message: uuid5(message id, n), so that a repeated turn makes the same.

    `cause` is a UUID in text form, or any text (hashed into the URL namespace first).
    """
    return derived_ids(cause, (n,))[0]


def derived_ids(cause: str, ns: Sequence[int | str]) -> tuple[str, ...]:
    """`derived_id` of one cause for each of `ns`, hashing the cause once."""
    namespace = _namespace(cause)
    return tuple(_as_text(_uuid5(namespace, str(n))) for n in ns)


def _uuid5(namespace: bytes | bytearray, name: str) -> bytearray:
    # As uuid.uuid5 makes it (RFC 9562 section 5.5), without its objects: each event of a terminal needs some.
    digest = bytearray(hashlib.sha1(namespace + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return digest


def _as_text(digest: bytearray) -> str:
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _namespace(cause: str) -> bytes | bytearray:
    """The bytes of a UUID in text form; any other text, a request number for one, is hashed into the URL namespace."""
    if not "G" <= cause[:1] <= "Z":  # as request numbers begin, and no UUID
        digits = cause.replace("-", "")
        with suppress(ValueError):
            if len(cause) == 36 and len(digits) == 32 and digits.isascii() and digits.isalnum():
                return int(digits, 16).to_bytes(16, "big")
            return uuid.UUID(cause).bytes
    return _uuid5(uuid.NAMESPACE_URL.bytes, cause)
