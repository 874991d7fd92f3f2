"""Keyset pages: the cursor is the last row's key, so that no page is ever skipped or read from the start."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeVar
from urllib.parse import urlencode

import msgspec
from fastapi import Query, Request, Response

from gateway.errors import Problem

T = TypeVar("T")

CURSOR_CHARACTERS_MAX = 400

Limit = Annotated[int, Query(ge=1, le=200, description="rows of one page")]
Cursor = Annotated[str | None, Query(max_length=CURSOR_CHARACTERS_MAX, description="`next` of the page before")]


def encode_cursor(key: Sequence[str]) -> str:
    """An opaque text for the key of the last row."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(key))).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, parts: int) -> tuple[str, ...] | None:
    """The key that `encode_cursor` wrote; None for no cursor. Raises Problem 422 for anything else."""
    if not cursor:
        return None
    try:
        key = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[str])
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise Problem(422, "invalid_cursor", "the cursor is not one of ours", "start without a cursor") from error
    if len(key) != parts:
        raise Problem(422, "invalid_cursor", "the cursor belongs to another list", "start without a cursor")
    return tuple(key)


def decode_instant(text: str) -> datetime:
    """An instant out of a cursor. Raises Problem 422 for anything else."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise Problem(422, "invalid_cursor", "the cursor is not one of ours", "start without a cursor") from error
    if instant.tzinfo is None:
        raise Problem(422, "invalid_cursor", "the cursor is not one of ours", "start without a cursor")
    return instant


def cut(rows: Sequence[T], limit: int) -> tuple[list[T], bool]:
    """The page out of `limit + 1` rows, and whether there is another one."""
    return list(rows[:limit]), len(rows) > limit


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """The Link header of RFC 8288, for clients that follow it."""
    if cursor is not None:
        query = urlencode({**dict(request.query_params), "cursor": cursor})
        response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
