"""The tree of errors, by what to do next (style.md 9). HTTP numbers live only in the gateway's table."""

from __future__ import annotations


class StoreOpsError(Exception):
    """Root of every error that this software raises on purpose.

    `code` is stable and machine-readable; `do` says what to do next, in a person's words.
    """

    def __init__(self, code: str, message: str = "", do: str = "") -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message or code
        self.do = do


class Refused(StoreOpsError):
    """The request makes no sense now; tell the person. Old state stands, nothing happened."""


class RetryLater(StoreOpsError):
    """Nothing happened; the same request may succeed after `after_s` seconds."""

    def __init__(self, code: str, message: str = "", do: str = "", after_s: float = 5.0) -> None:
        super().__init__(code, message, do)
        self.after_s = after_s


class NeedsOperator(StoreOpsError):
    """Parked: a person must decide."""


class Bug(StoreOpsError):
    """Cannot happen; crash, be restarted, be counted."""


class Fenced(StoreOpsError):
    """Another host owns these shards now; this one must exit without a further effect."""
