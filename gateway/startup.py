"""What starts, and how far it is: shown on the start-up page while the rest of the house comes up.

Whoever starts the parts writes one small JSON file; the gateway, a process of its own, reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

STARTUP_BYTES_MAX = 64 * 1024


class PartState(StrEnum):
    """How far one part is."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Part:
    """One part that starts. `name`: database, broker, ray, hosts, faces, simulator, …

    `ms` is how long it took, or has been starting. `detail` is shown to anyone who can reach the gateway while
    no session can be checked yet: no secrets in it.
    """

    name: str
    state: PartState
    ms: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Startup:
    """All parts in the order they start. `links` and `versions` are shown on the System page after sign-in.

    `links` known to the console: `ray_dashboard`, `provider_simulator`.
    """

    parts: tuple[Part, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


StartupReport = Callable[[], Startup]


def startup_document(startup: Startup, ready: bool) -> dict[str, object]:
    """What the start-up page ticks off; without links or versions, which are for signed-in people."""
    parts = [{"name": part.name, "state": part.state, "ms": part.ms, "detail": part.detail} for part in startup.parts]
    return {"ready": ready, "parts": parts}


def nothing_starts() -> Startup:
    """For a gateway whose parts run already."""
    return Startup()


def startup_from_file(path: Path) -> StartupReport:
    """Reads the file at each call; a file that is not there yet or half written counts as empty."""

    def report() -> Startup:
        try:
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(STARTUP_BYTES_MAX), type=Startup)
        except (OSError, msgspec.DecodeError):
            return Startup()

    return report


def write_startup(path: Path, startup: Startup) -> None:
    """Replaces the file in one step, so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(startup))
    temporary.replace(path)
