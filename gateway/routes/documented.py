"""Every error documented: what the OpenAPI document says of each operation's refusals."""

from __future__ import annotations

from typing import Any

from gateway.errors import PROBLEM_JSON
from gateway.views import ProblemView

_MEANINGS = {
    401: "no session: run `storeops login` and open its link",
    403: "the request did not come from our own page, or lacks its token",
    404: "there is no such thing",
    409: "it makes no sense now, or the first call under this key still runs",
    413: "the body is too large",
    422: "the request is not valid",
    503: "something is starting or restarting: try again after Retry-After seconds",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may refuse with these statuses, and with those any may."""
    return {
        status: {
            "model": ProblemView,
            "description": _MEANINGS[status],
            "content": {PROBLEM_JSON: {}},
        }
        for status in sorted({401, 422, 503, *statuses})
    }
