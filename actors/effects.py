"""What a turn asks the host to do. Effects are values: the host commits first, then performs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from actors.ports import AskRequest
from models.domain.facts import Fact
from models.domain.ids import MessageId, SessionId, TerminalId
from models.domain.messages import Address, FamilyMoved, StoreMessage
from models.domain.screen import LeaseGrant, ReplyError, Screen
from models.domain.twin import PendingCommand, SoftwareVersion

S = TypeVar("S")


class ClockKind(StrEnum):
    """Two clocks (architecture.md section 3): the wall's, and the business clock that a demo may move."""

    WALL = "wall"
    BUSINESS = "business"


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer one event, once. Sent again to a duplicate from the inbox."""

    terminal: TerminalId
    id: MessageId
    ok: bool = True
    pending: bool = False
    session: SessionId | None = None
    error: ReplyError | None = None
    lease: LeaseGrant | None = None


@dataclass(frozen=True, slots=True)
class Show:
    """Show this document on every screen of the lane."""

    screen: Screen


@dataclass(frozen=True, slots=True)
class Save:
    """Write a business fact in the same commit as the state that it follows from."""

    fact: Fact


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a port; the answer comes back as a message. `id` is the question's id and idempotency key."""

    id: str
    request: AskRequest


@dataclass(frozen=True, slots=True)
class Tell:
    """A message to another entity of the same store, handled in the same commit."""

    to: Address
    message: StoreMessage | FamilyMoved


@dataclass(frozen=True, slots=True)
class Wake:
    """Call back with TimerFired(kind, ref) at `due` (BUSINESS) or `after` from now (WALL)."""

    clock: ClockKind
    kind: str
    ref: str
    after: timedelta | None = None
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Desire:
    """Publish the document of this generation; its row is written in the same commit. `config`: canonical JSON."""

    gen: int
    config: str
    software: SoftwareVersion | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """Tell the terminal, with what is left of the deadline as the message's expiry; again after a restart."""

    command: PendingCommand


Effect = Reply | Show | Save | Ask | Tell | Wake | Desire | Command


@dataclass(frozen=True, slots=True)
class Turn(Generic[S]):
    """The result of one message: the new state, and what to do once it is durable."""

    state: S
    effects: tuple[Effect, ...] = ()
