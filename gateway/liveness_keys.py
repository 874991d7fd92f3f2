"""What the console, the API and the command line ask of the desk that keeps terminals' keys for signed liveness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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

    async def register(self, terminal: str, key: str, by: str, *, replace: bool = False) -> LivenessKeysChange:
        """A key may sign from now on, beside the one that does already; with `replace` in its place."""

    async def revoke(self, terminal: str, fingerprint: str | None, by: str) -> LivenessKeysChange:
        """One key, or all of the terminal's, sign nothing any more, for ever."""
