"""What a terminal says of itself: there, gone, what it runs, how a command went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.domain.ids import MessageId


@dataclass(frozen=True, slots=True)
class Birth:
    """Presence online: a new connection of a boot."""

    boot: str
    conn: str
    software: str
    profile: str
    ts: datetime


@dataclass(frozen=True, slots=True)
class Death:
    """The Will of one connection. Ignored unless `conn` is the current birth's."""

    boot: str
    conn: str


@dataclass(frozen=True, slots=True)
class Reported:
    """What the terminal runs."""

    applied_gen: int
    config_hash: str
    software: str
    boot: str


@dataclass(frozen=True, slots=True)
class CommandResponse:
    """A terminal's answer to a command."""

    command: MessageId
    status: str
    detail: str


TerminalMessage = Birth | Death | Reported | CommandResponse
