"""A terminal that software makes another family, and the visit that is open meanwhile: it goes on as it began."""

from __future__ import annotations

from dataclasses import replace

from actors.stage import Stage
from actors.visit import Former
from models.domain.events import Event
from models.domain.messages import FamilyMoved, SessionMessage


def heed(stage: Stage, message: SessionMessage) -> SessionMessage:
    """Remember what a terminal could do when the visit began; an event comes back with that, until the visit closes."""
    session = stage.session
    if not session.live:
        return message
    if isinstance(message, FamilyMoved):
        if all(one.terminal != message.terminal for one in session.former):
            stage.keep(former=(*session.former, Former(message.terminal, message.traits)))
    elif isinstance(message, Event) and session.former:
        traits = next((one.traits for one in session.former if one.terminal == message.terminal), message.traits)
        return replace(message, traits=traits)
    return message
