"""Bytes from a terminal that are refused at the door, each with a stable code and what to do about it."""

from __future__ import annotations

from enum import StrEnum

from models.domain.errors import Refused
from models.domain.ids import MessageId


class WireCode(StrEnum):
    """Why the codec refuses a message. Stable: vendors branch on it; codes may be added, never renamed."""

    BAD_JSON = "bad_json"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_TYPE = "unknown_type"
    BAD_FIELD = "bad_field"
    TOO_LARGE = "too_large"
    BAD_TOPIC = "bad_topic"
    WRONG_SHARD = "wrong_shard"
    WRONG_STORE = "wrong_store"
    BAD_ID = "bad_id"
    NOT_JPEG = "not_jpeg"


class Undecodable(Refused):
    """A message that no entity will see.

    `id` is the message's own id when that much could be read, so that its sender can drop it; else None, and
    the answer goes out with `id: null`, at most one a second for each terminal.
    """

    def __init__(self, code: WireCode, message: str, do: str, message_id: MessageId | None = None) -> None:
        super().__init__(code.value, message, do)
        self.id = message_id
