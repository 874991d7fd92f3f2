"""One batch through the pure turns: messages in, one commit and the work after it out. No await, no I/O, no clock.

The same code runs in the host and in the seeded simulator, so what the simulator proves is what runs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec

from actors import session as session_actor
from actors import store as store_actor
from actors import terminal as terminal_actor
from actors.effects import Ask, ClockKind, Command, Desire, Effect, Reply, Save, Show, Tell, Turn, Wake
from actors.recognition import ask_again
from actors.store import Store
from actors.terminal import Terminal
from actors.visit import Session
from devices.codec import decode_reply, encode_reply
from models.domain.book import StoreBook
from models.domain.errors import Refused
from models.domain.events import Cancel, Event, FaceShown, OfflineSale, Paid
from models.domain.ids import LaneId, MessageId, StoreId, TerminalId
from models.domain.messages import Address, Message
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, Screen
from models.domain.texts import refusal
from models.tables.journal import Commit, DeadLetter, InboxKey, OutboxEntry, Read, Seen, TimerKey

Entity = Session | Terminal | Store
NEVER_REFUSED_FULL = (Paid, OfflineSale, Cancel)
"""Event bodies that find room where there is none: money was taken, or a payment is to end."""
_KINDS: dict[str, type[Entity]] = {"session": Session, "terminal": Terminal, "store": Store}


@dataclass(slots=True, eq=False)
class Item:
    """One message for one entity, and what must happen to its source once it is committed."""

    address: Address
    message: Message | None
    """None: nothing to handle, only the ask it answers is put off."""
    cause: str
    key: InboxKey | None = None
    kind: str = ""
    terminal: RegisteredTerminal | None = None
    timer: TimerKey | None = None
    answers: str | None = None
    """The outbox id that this message answers; None for anything else."""
    defer_s: float | None = None
    """Progress, not the end: the ask is tried again after this."""
    source: Any = None
    """The host's own: what to acknowledge, and who waits for the reply."""
    refuse: str | None = None
    """The code of a refusal that was decided before its turn: it gets none, but its place in the inbox and a reply."""
    refused: Refused | None = None
    """Set by the turn, for a sender that is no terminal."""


@dataclass(slots=True)
class Work:
    """What follows from a batch: the commit first, then the rest in this order."""

    commit: Commit = field(default_factory=Commit)
    replies: list[tuple[TerminalId, ReplyBody]] = field(default_factory=list)
    screens: dict[tuple[StoreId, LaneId], Screen] = field(default_factory=dict)
    asks: list[tuple[Address, Ask]] = field(default_factory=list)
    told: list[tuple[Address, Desire | Command]] = field(default_factory=list)
    states: dict[Address, tuple[Entity, int]] = field(default_factory=dict)
    duplicates: int = 0
    refused: int = 0
    refused_outbox: int = 0
    """Of them, because the store's outbox is full."""
    crashed: int = 0


class Engine:
    """Runs batches. `book_of(store, version)` gives the newest book for version 0."""

    def __init__(
        self,
        book_of: Callable[[StoreId, int], StoreBook],
        outbox_full: Callable[[StoreId, int], bool] = lambda store, more: False,  # noqa: ARG005 - nobody counts
    ) -> None:
        """`outbox_full(store, more)`: has it as many durable asks as it may, with `more` of this batch?"""
        self._book_of = book_of
        self._outbox_full = outbox_full

    def run(
        self,
        items: Iterable[Item],
        read: Read,
        cached: Mapping[Address, tuple[Entity, int]],
        business_now: datetime,
        wall_now: datetime,
    ) -> Work:
        """Handle the items in order. Nothing outside changes: the caller commits and keeps `states` on success."""
        return _Batch(self._book_of, read, cached, business_now, wall_now, self._outbox_full).run(items)

    def bury(self, item: Item, error: Exception, wall_now: datetime) -> Work:
        """The work of a message that the database refused: a dead letter, and its sender told."""
        read = Read(0, (), {}, {})
        return _Batch(self._book_of, read, {}, wall_now, wall_now, self._outbox_full).bury(item, error)


class _Batch:
    def __init__(
        self,
        book_of: Callable[[StoreId, int], StoreBook],
        read: Read,
        cached: Mapping[Address, tuple[Entity, int]],
        business_now: datetime,
        wall_now: datetime,
        outbox_full: Callable[[StoreId, int], bool],
    ) -> None:
        self._outbox_full = outbox_full
        self._asked: Counter[StoreId] = Counter()
        self._book_of = book_of
        self._read = read
        self._cached = cached
        self._now = business_now
        self._wall_now = wall_now
        self._work = Work()
        self._by_id: dict[tuple[TerminalId, str], Seen] = {}
        self._by_seq: dict[tuple[TerminalId, str, int], Seen] = {}
        for seen in read.seen:
            self._remember(seen)
        self._fresh: dict[tuple[TerminalId, str], int] = {}
        self._changed: set[Address] = set()

    def run(self, items: Iterable[Item]) -> Work:
        for item in items:
            self._one(item)
        commit = self._work.commit
        for address in self._changed:
            state, version = self._work.states[address]
            commit.entities[address] = (msgspec.json.encode(state), version)
            if isinstance(state, Terminal):
                commit.presence[TerminalId(address.id)] = terminal_actor.presence_of(state, address)
        return self._work

    def bury(self, item: Item, error: Exception) -> Work:
        if item.key is not None:
            self._fresh[item.key.terminal, item.key.id] = 0
            self._work.commit.inbox.append((item.key, _shard(item), item.kind, None))
        self._bury(item, error)
        self._finish(item)
        return self._work

    def _remember(self, seen: Seen) -> None:
        self._by_id[seen.key.terminal, seen.key.id] = seen
        self._by_seq[seen.key.terminal, seen.key.boot, seen.key.seq] = seen

    # ------------------------------------------------------------ dedupe before the turn

    def _one(self, item: Item) -> None:
        if item.key is not None and self._is_known(item, item.key):
            return
        if item.key is not None:
            commit = self._work.commit
            terminal = item.key.terminal
            self._fresh[terminal, item.key.id] = len(commit.inbox)
            commit.inbox.append((item.key, _shard(item), item.kind, None))
            self._remember(Seen(item.key, None))
        if item.refuse is not None:
            self._refuse(item, Refused(item.refuse, item.refuse))
        elif item.message is not None:
            self._turn(item, item.message)
        self._finish(item)

    def _finish(self, item: Item) -> None:
        """Its timer fired, its ask is answered: in the same commit."""
        commit = self._work.commit
        if item.timer is not None:
            commit.fired.append(item.timer.n)
        if item.answers is not None:
            if item.defer_s is None:
                commit.answered.append((item.answers, msgspec.json.encode(item.message)))
            else:
                commit.deferred.append((item.answers, item.defer_s))

    def _is_known(self, item: Item, key: InboxKey) -> bool:
        by_id = self._by_id.get((key.terminal, key.id))
        by_seq = self._by_seq.get((key.terminal, key.boot, key.seq))
        if by_id is None and by_seq is None:
            if key.seq <= self._read.marks.get((key.terminal, key.boot), 0):
                self._answer(item, "already_processed")
                return True
            return False
        self._work.duplicates += 1
        if by_id is None or by_seq is None or by_id.key != by_seq.key:
            self._answer(item, "id_conflict")
        elif by_id.reply is not None:
            self._work.replies.append((key.terminal, decode_reply(msgspec.json.encode(by_id.reply))))
        else:
            self._join(item)
        return True

    def _join(self, item: Item) -> None:
        """A duplicate of a pending message joins it; a face brings its image again, so it is asked again."""
        event = item.message
        if isinstance(event, Event) and isinstance(event.body, FaceShown):
            state = self._state(item.address)[0]
            again = ask_again(state, event, self._book(state, item.address)) if isinstance(state, Session) else None
            if again is not None:
                self._work.asks.append((item.address, again))

    def _answer(self, item: Item, code: str) -> None:
        assert item.key is not None
        error = refusal(code, self._book_of(item.address.store, 0).language)
        self._work.replies.append((item.key.terminal, ReplyBody(MessageId(item.key.id), False, error=error)))

    # ------------------------------------------------------------ turns

    def _turn(self, item: Item, message: Message) -> None:
        queue: deque[tuple[Address, Message]] = deque([(item.address, message)])
        done: list[tuple[Address, Entity, tuple[Effect, ...]]] = []
        overlay: dict[Address, Entity] = {}
        try:
            while queue:
                address, one = queue.popleft()
                state = overlay.get(address) or self._state(address)[0]
                turn = self._receive(address, state, one, item.cause)
                overlay[address] = turn.state
                done.append((address, turn.state, turn.effects))
                queue.extend((effect.to, effect.message) for effect in turn.effects if isinstance(effect, Tell))
        except Refused as refused:
            self._refuse(item, refused)
            return
        except Exception as error:  # noqa: BLE001 - any bug in a turn ends in a dead letter, the host lives on
            self._bury(item, error)
            return
        asks = sum(isinstance(effect, Ask) and effect.request.durable for _, _, effects in done for effect in effects)
        if asks and self._no_room(item):
            self._work.refused_outbox += 1
            self._refuse(item, Refused("busy", "the store's outbox is full"))
            return
        self._asked[item.address.store] += asks
        for address, state, effects in done:
            self._keep(address, state)
            for effect in effects:
                self._apply(address, effect, item.cause)

    def _no_room(self, item: Item) -> bool:
        """Nothing is refused but an event: what an answer or a timer asks belongs to what was committed before."""
        event = item.message
        if not isinstance(event, Event) or isinstance(event.body, NEVER_REFUSED_FULL):
            return False
        return self._outbox_full(item.address.store, self._asked[item.address.store])

    def _receive(self, address: Address, state: Entity, message: Message, cause: str) -> Turn[Any]:
        match state:
            case Session():
                if isinstance(message, Event) and message.replay:  # its moment by the wall, in business time
                    message = replace(message, ts=message.ts + (self._now - self._wall_now))
                return session_actor.receive(state, message, cause, self._now, self._book(state, address))  # type: ignore[arg-type]
            case Terminal():
                return terminal_actor.receive(state, message, address, cause, self._wall_now)  # type: ignore[arg-type]
            case Store():
                return store_actor.receive(state, message, self._now, self._book(state, address))  # type: ignore[arg-type]

    def _book(self, state: Entity, address: Address) -> StoreBook:
        pinned = state.book_version if isinstance(state, Session) and state.live else 0
        return self._book_of(address.store, pinned)

    def _state(self, address: Address) -> tuple[Entity, int]:
        if address in self._work.states:
            return self._work.states[address]
        if address in self._cached:
            return self._cached[address]
        stored = self._read.entities.get(address)
        if stored is not None:
            loaded = (decode_state(address.kind, stored.state), stored.version)
        elif address.kind == "session":
            loaded = (Session(lane=LaneId(address.id)), 0)
        else:
            loaded = (_KINDS[address.kind](), 0)  # type: ignore[call-arg]
        self._work.states[address] = loaded
        return loaded

    def _keep(self, address: Address, state: Entity) -> None:
        before, version = self._state(address)
        if state != before:
            self._changed.add(address)
            self._work.states[address] = (state, version + 1)

    # ------------------------------------------------------------ effects

    def _apply(self, address: Address, effect: Effect, cause: str) -> None:
        work = self._work
        match effect:
            case Reply():
                self._reply(effect)
            case Show():
                work.screens[address.store, LaneId(address.id)] = effect.screen
            case Save():
                work.commit.facts.append((effect.fact, cause))
            case Ask():
                self._ask(address, effect)
            case Tell():
                pass  # was handled in this very turn
            case Desire() | Command():
                work.told.append((address, effect))
            case Wake():
                due = effect.due if effect.clock is ClockKind.BUSINESS else None
                if due is None:
                    assert effect.after is not None
                    due = self._wall_now + effect.after
                work.commit.timers.append(TimerKey(address, str(effect.clock), effect.kind, effect.ref, due))

    def _ask(self, address: Address, ask: Ask) -> None:
        request = ask.request
        if request.durable:
            verb = type(request).__name__
            entry = OutboxEntry(ask.id, address, str(request.port), verb, msgspec.json.encode(request))
            self._work.commit.outbox.append(entry)
        self._work.asks.append((address, ask))

    def _reply(self, reply: Reply) -> None:
        body = ReplyBody(reply.id, reply.ok, reply.pending, reply.session, reply.error, lease=reply.lease)
        stored = encode_reply(body)
        fresh = self._fresh.get((reply.terminal, reply.id))
        inbox = self._work.commit.inbox
        if fresh is not None:
            key, shard, kind, _ = inbox[fresh]
            inbox[fresh] = (key, shard, kind, stored)
        else:
            self._work.commit.replies.append((reply.terminal, reply.id, stored))
        self._work.replies.append((reply.terminal, body))

    def _refuse(self, item: Item, refused: Refused) -> None:
        self._work.refused += 1
        item.refused = refused
        event = item.message
        if isinstance(event, Event):
            book = self._book_of(item.address.store, 0)
            error = refusal(refused.code, book.language, refused.message, refused.do)
            self._reply(Reply(event.terminal, event.id, ok=False, session=event.session, error=error))

    def _bury(self, item: Item, error: Exception) -> None:
        """Dead-letter a message whose turn raised; its sender is told, so that it does not send it for ever."""
        self._work.crashed += 1
        item.refused = Refused("internal_error", "the message could not be handled", "see the dead letters")
        text = f"{type(error).__name__}: {error}"
        sender = item.key.terminal if item.key is not None else TerminalId("")
        self._work.commit.dead.append(DeadLetter(item.cause, sender, item.address, _plain(item.message), text))
        event = item.message
        if isinstance(event, Event):
            book = self._book_of(item.address.store, 0)
            told = refusal("internal_error", book.language)
            self._reply(Reply(event.terminal, event.id, ok=False, session=event.session, error=told))


def _shard(item: Item) -> int:
    assert item.terminal is not None
    return item.terminal.shard


SECRETS = frozenset({"jpeg", "first", "phone", "auth", "value", "tail", "sealed", "shots", "templates"})
"""Fields of messages that are the customer's: images and what is made of them, numbers, tokens."""


def _plain(message: Message | None) -> bytes:
    """A message for the dead-letter table: what is the customer's is never kept."""
    document = _without_secrets(msgspec.to_builtins(message))
    return msgspec.json.encode({"type": type(message).__name__, "message": document})


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: None if name in SECRETS else _without_secrets(one) for name, one in value.items()}
    return [_without_secrets(one) for one in value] if isinstance(value, list | tuple) else value


def decode_state(kind: str, state: bytes) -> Entity:
    """An entity's state from its row. Raises msgspec.ValidationError when the row is of another shape."""
    return msgspec.json.decode(state, type=_KINDS[kind])
