"""What a terminal says of itself: there, gone, what it runs, how a command went; and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.domain.events import Traits
from models.domain.ids import LaneId, MessageId
from models.domain.twin import CommandAsked, DesiredAsked


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
    """What the terminal runs. `health` is its own JSON object, "" when there is none or too much."""

    applied_gen: int
    config_hash: str
    software: str
    boot: str
    health: str = ""


@dataclass(frozen=True, slots=True)
class CommandResponse:
    """A terminal's answer to a command."""

    command: MessageId
    status: str
    detail: str


@dataclass(frozen=True, slots=True)
class PresenceAsked:
    """The broker forgot, so its retained presence says nothing: `resync` was sent under this command id."""

    command: MessageId


@dataclass(frozen=True, slots=True)
class SkewFound:
    """The host's estimate of the terminal's clock moved: milliseconds ahead of ours."""

    skew_ms: int
    alarming: bool


@dataclass(frozen=True, slots=True)
class GapSkipped:
    """A money event went on although messages before it never came: seqs `first`..`last` of a boot."""

    boot: str
    first: int
    last: int
    event: str


@dataclass(frozen=True, slots=True)
class FamilyFound:
    """The software that the terminal reports makes it another family: `profile`, in place of `before`.

    `traits`: what `before` could do; a visit that is open at `lane` keeps them until it closes.
    """

    before: str
    profile: str
    lane: LaneId
    traits: Traits


@dataclass(frozen=True, slots=True)
class FamilyClaimed:
    """The terminal's birth names another family than the registry, and no image is recorded that makes it one."""

    claimed: str
    in_force: str


@dataclass(frozen=True, slots=True)
class Retired:
    """The terminal was taken out of service and its retained topics are cleared."""


TerminalMessage = (
    Birth
    | Death
    | Reported
    | CommandResponse
    | PresenceAsked
    | CommandAsked
    | DesiredAsked
    | SkewFound
    | GapSkipped
    | FamilyFound
    | FamilyClaimed
    | Retired
)
