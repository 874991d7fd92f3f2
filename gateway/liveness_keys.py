"""What the console, the API and the command line ask of the desk that keeps terminals' keys for signed liveness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LivenessKeyState:
    """One public key of a terminal's depth camera. `ended_at` None: scores that it signed count."""

    fingerprint: str
    public_key: str
    """Base64url, 43 characters."""
    added_at: datetime
    added_by: str
    ended_at: datetime | None
    ended_by: str


@dataclass(frozen=True, slots=True)
class LivenessKeysChange:
    """What was done, durable and in the audit. `ended`: fingerprints that count no more."""

    terminal: str
    added: str
    """A fingerprint; empty: none."""
    ended: tuple[str, ...]
    told: bool
    """The terminal's host knows already; otherwise it sees it within seconds, or when it is back."""


class LivenessKeys(Protocol):
    """One deployment's.

    Raises Refused: `unknown_terminal`, `bad_key`, `no_depth`, `key_known`, `key_ended`, `key_elsewhere`, `keys_full`,
    `unknown_key`.
    """

    async def keys(self, terminal: str) -> Sequence[LivenessKeyState]:
        """All that were ever registered, those that count first."""

    async def register(self, terminal: str, key: str, by: str, *, replace: bool = False) -> LivenessKeysChange:
        """A key may sign from now on, beside the one that does already; with `replace` in its place."""

    async def revoke(self, terminal: str, fingerprint: str | None, by: str) -> LivenessKeysChange:
        """One key, or all of the terminal's, sign nothing any more, for ever."""
