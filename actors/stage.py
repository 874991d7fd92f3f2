"""A turn being written: collects the new state and its effects, and makes ids from the message's own.

Local to one call of `session.receive`; what leaves it are values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from actors.effects import Ask, ClockKind, Effect, Reply, Save, Show, Tell, Turn, Wake
from actors.ports import AskRequest
from actors.screens import render
from actors.visit import OpenReply, Question, Session
from models.domain.book import StoreBook
from models.domain.events import Event
from models.domain.facts import Fact, Incident
from models.domain.ids import SessionId, TerminalId, derived_id, event_cause
from models.domain.messages import Address, IncidentNoted, StoreMessage
from models.domain.screen import LeaseGrant
from models.domain.texts import prompt, refusal

REPLY_AFTER = timedelta(seconds=10)
"""At the latest an event is answered after this, `pending` if its question is still open."""

FACE_DEADLINE = timedelta(seconds=3)
"""A face is not durable: after this the customer is asked to look again."""


_FIELDS = tuple(field.name for field in fields(Session))
_AT = {name: n for n, name in enumerate(_FIELDS)}
_VALUES = attrgetter(*_FIELDS)


def _with(session: Session, changes: Mapping[str, Any]) -> Session:
    """As dataclasses.replace, in half its time: a turn does it several times, with a field for each part of a visit."""
    values = list(_VALUES(session))
    for name, value in changes.items():
        values[_AT[name]] = value
    return Session(*values)


class Stage:
    """The turn of one message."""

    def __init__(self, session: Session, cause: str, now: datetime, book: StoreBook) -> None:
        self.session = session
        self.cause = cause
        self.now = now
        self.book = book
        self._effects: list[Effect] = []
        self._made = 0
        self._show = False
        self._revised: SessionId | None = None

    def turn(self) -> Turn[Session]:
        """The finished turn; a screen, if one is due, is drawn once, from the final state."""
        if self._show:
            if self._revised is None or self._revised != self.session.id:
                self.session = _with(self.session, {"rev": self.session.rev + 1})
            self._effects.append(Show(render(self.session, self.book)))
        return Turn(self.session, tuple(self._effects))

    def new_id(self) -> str:
        """The next id of this turn: the same when the turn is repeated."""
        self._made += 1
        return derived_id(self.cause, self._made)

    def change(self, **fields: Any) -> None:
        """Change the session's fields; the screen is drawn at the end of the turn."""
        self.session = _with(self.session, fields)
        self._show = True

    def revise(self, **fields: Any) -> None:
        """Change fields before the message is looked at: what names the revision so far is stale from here on."""
        self.change(rev=self.session.rev + 1, **fields)
        self._revised = self.session.id

    def keep(self, **fields: Any) -> None:
        """Change fields that no screen shows."""
        self.session = _with(self.session, fields)

    def prompt(self, code: str, **params: str | int) -> None:
        """Ask the customer something; the code must be on the published list."""
        self.change(prompt=prompt(code, self.book.language, **params))

    def show_again(self) -> None:
        """The current screen as it stands, for one who has an old one; rev does not rise."""
        if not self._show:
            self._effects.append(Show(render(self.session, self.book)))

    def ask(self, request: AskRequest, ask_id: str | None = None) -> str:
        """Ask a port; returns the question's id."""
        ask_id = ask_id or self.new_id()
        self._effects.append(Ask(ask_id, request))
        return ask_id

    def save(self, fact: Fact) -> None:
        """Save a fact in this commit."""
        self._effects.append(Save(fact))

    def tell_store(self, message: StoreMessage) -> None:
        """Tell the store of this lane."""
        to = Address(self.book.region, self.book.store, "store", self.book.store)
        self._effects.append(Tell(to, message))

    def incident(self, terminal: TerminalId, kind: str, detail: str = "") -> None:
        """Record something that a rollout gate counts."""
        self.save(Incident(self.new_id(), self.book.store, terminal, kind, self.now, detail))
        self.tell_store(IncidentNoted(kind))

    def wake(self, kind: str, ref: str, after: timedelta) -> None:
        """Wake this session by the wall clock."""
        self._effects.append(Wake(ClockKind.WALL, kind, ref, after=after))

    def reply(self, to: OpenReply | Event | None, *, pending: bool = False, lease: LeaseGrant | None = None) -> None:
        """Answer an event: it was done."""
        if to is not None:
            self._effects.append(Reply(to.terminal, to.id, pending=pending, session=self._session_id(), lease=lease))

    def refuse(self, to: OpenReply | None, code: str, message: str = "") -> None:
        """Answer an event whose question ended badly."""
        if to is not None:
            error = refusal(code, self.book.language, message)
            self._effects.append(Reply(to.terminal, to.id, ok=False, session=self._session_id(), error=error))

    def refuse_event(self, event: Event, code: str) -> None:
        """Refuse an event and still do something, such as showing the newest screen."""
        self.refuse(OpenReply(event.id, event.terminal), code)

    def wait_for_face(self, question: str, kind: str, reply: OpenReply | None) -> None:
        """The one face question is open now; its deadline is durable, the image is not."""
        self.keep(question=Question(question, kind, reply))
        self.wake("face", question, FACE_DEADLINE)

    def later(self, event: Event) -> OpenReply:
        """The answer to this event comes with the turn that ends its question, or as pending after 10 s."""
        self.wake("reply", event_cause(event.terminal, event.id), REPLY_AFTER)
        return OpenReply(event.id, event.terminal)

    def _session_id(self) -> SessionId | None:
        return self.session.id
