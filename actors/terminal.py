"""One terminal as we know it: is it there, what does it run. Events of customers go to its lane's session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from actors.effects import Turn
from models.domain.presence import Birth, CommandResponse, Death, Reported, TerminalMessage


@dataclass(frozen=True, slots=True)
class Terminal:
    """The twin's reported half. `conn` numbers the connection: a Will of an older one says nothing."""

    online: bool = False
    boot: str = ""
    conn: str = ""
    software: str = ""
    profile: str = ""
    applied_gen: int = 0
    config_hash: str = ""
    changed_at: datetime | None = None
    births: int = 0


def receive(terminal: Terminal, message: TerminalMessage, now: datetime) -> Turn[Terminal]:
    """Decide what one presence, report or answer does to a terminal. Pure; never refuses."""
    match message:
        case Birth():
            born = replace(
                terminal,
                online=True,
                boot=message.boot,
                conn=message.conn,
                software=message.software,
                profile=message.profile,
                changed_at=now,
                births=terminal.births + (message.conn != terminal.conn),
            )
            return Turn(born)
        case Death():
            if message.conn != terminal.conn:
                return Turn(terminal)
            return Turn(replace(terminal, online=False, changed_at=now))
        case Reported():
            return Turn(
                replace(
                    terminal,
                    applied_gen=message.applied_gen,
                    config_hash=message.config_hash,
                    software=message.software,
                )
            )
        case CommandResponse():
            return Turn(terminal)
        case _:
            assert_never(message)
