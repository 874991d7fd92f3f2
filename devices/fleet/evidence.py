"""What the terminals of one crew saw with their own eyes: the side of the story that the ledger is held against."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b

from models.domain.screen import ReplyBody, Screen, ScreenState

EVENTS_MAX = 2_000_000
"""Ids that one crew remembers; a run that is longer forgets the oldest answered ones."""
SAMPLES_MAX = 200_000


@dataclass(frozen=True, slots=True)
class SeenSale:
    """A result page. `tenders` are sums by kind; money in fen."""

    session: str
    store: str
    terminal: str
    receipt: str
    due_fen: int
    tenders: dict[str, int]
    voucher_fen: int = 0
    """What vouchers took off, by the last screen before the result page."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a terminal asked to pay: `key` is a session, or `till:` and the till's transaction."""

    key: str
    store: str
    fen: int
    offline: bool = False
    reported: bool = False
    """The till had the money already (`paid`, `sale`): it must be booked."""


@dataclass(slots=True)
class _Asked:
    at_s: float
    digest: bytes = b""


@dataclass(slots=True)
class CrewEvidence:
    """Everything that the checks need, as it travels to them."""

    crew: int = 0
    events: int = 0
    replies: int = 0
    duplicate_replies: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    """Answers to lies that are not what the protocol says."""
    sales: list[SeenSale] = field(default_factory=list)
    sales_twice: list[str] = field(default_factory=list)
    """Sessions whose result page named two receipts or two amounts."""
    intents: list[Intent] = field(default_factory=list)
    voids_asked: list[str] = field(default_factory=list)
    voids_seen: list[str] = field(default_factory=list)
    members: int = 0
    undesired: list[str] = field(default_factory=list)
    """Terminals that never applied a desired document, or not the newest that they were sent."""
    offline_now: list[str] = field(default_factory=list)
    mischief: dict[str, int] = field(default_factory=dict)
    """How often each kind of chaos happened."""
    reply_ms: list[float] = field(default_factory=list)
    screen_ms: list[float] = field(default_factory=list)
    outages_s: list[float] = field(default_factory=list)
    """Longest span without any reply while events were waiting, one for each that lasted over a second."""


class Witness:
    """Collects during the run; `evidence` is complete once `finish` was called."""

    def __init__(self, crew: int) -> None:
        self.evidence = CrewEvidence(crew)
        self.recent_ms: deque[float] = deque(maxlen=512)
        self.measuring = True
        self._asked: dict[str, _Asked] = {}
        self._sales: dict[str, SeenSale] = {}
        self._voucher_fen: dict[str, int] = {}
        self._expected: dict[str, frozenset[str]] = {}
        self._last_reply_s = 0.0
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Events without a reply."""
        return self._waiting

    def sent(self, event_id: str, now_s: float) -> None:
        """An event goes out; only the first time counts."""
        if event_id in self._asked:
            return
        if len(self._asked) >= EVENTS_MAX:
            self._forget()
        if self._waiting == 0:
            self._last_reply_s = now_s
        self._waiting += 1
        self._asked[event_id] = _Asked(now_s)
        self.evidence.events += 1

    def replied(self, event_id: str, payload: bytes, now_s: float) -> None:
        """A reply came, perhaps not the first."""
        digest = blake2b(payload, digest_size=8).digest()
        asked = self._asked.get(event_id)
        if asked is None:
            return  # an earlier run's, on a house that goes on
        if asked.digest:
            self.evidence.duplicate_replies += 1
            if asked.digest != digest:
                self.evidence.contradictions.append(f"{event_id}: {payload[:200].decode('utf-8', 'replace')}")
            return
        asked.digest = digest
        self.evidence.replies += 1
        self._waiting -= 1
        if now_s - self._last_reply_s > 1.0:
            self.evidence.outages_s.append(round(now_s - self._last_reply_s, 2))
        self._last_reply_s = now_s
        took_ms = (now_s - asked.at_s) * 1000
        self.recent_ms.append(took_ms)
        if self.measuring and len(self.evidence.reply_ms) < SAMPLES_MAX:
            self.evidence.reply_ms.append(took_ms)

    def refused(self, reply: ReplyBody) -> None:
        """Count a refusal by its code, and hold it against what a liar should hear."""
        code = reply.error.code if reply.error is not None else ""
        if code:
            self.evidence.refusals[code] = self.evidence.refusals.get(code, 0) + 1
        expected = self._expected.pop(str(reply.id), None)
        if expected is not None and code not in expected:
            self.evidence.unexpected.append(f"{code or 'ok'} instead of {'/'.join(sorted(expected))}: {reply.id}")

    def expect(self, event_id: str, *codes: str) -> None:
        """The answer to this event must be one of these codes; the empty one is a reply without error."""
        self._expected[event_id] = frozenset(codes)

    def shown(self, store: str, terminal: str, screen: Screen) -> None:
        """A newer screen; a result page is a sale that this terminal saw."""
        if screen.prompt is not None and screen.prompt.code == "voided" and screen.receipt is not None:
            self.evidence.voids_seen.append(screen.receipt.no)
        if screen.state is not ScreenState.PAID or screen.receipt is None:
            self._note_vouchers(screen)
            return
        tenders: dict[str, int] = {}
        for tender in screen.receipt.tenders:
            tenders[tender.kind] = tenders.get(tender.kind, 0) + tender.fen
        voucher_fen = self._voucher_fen.get(screen.session, 0)
        seen = SeenSale(screen.session, store, terminal, screen.receipt.no, screen.due_fen, tenders, voucher_fen)
        first = self._sales.setdefault(screen.session, seen)
        if (first.receipt, first.due_fen) != (seen.receipt, seen.due_fen):
            self.evidence.sales_twice.append(f"{first} and {seen}")

    def _note_vouchers(self, screen: Screen) -> None:
        """What the vouchers of a visit take off now; forgotten with the visit."""
        fen = sum(one.discount_fen for one in screen.vouchers)
        if fen and screen.state is not ScreenState.CLOSED:
            self._voucher_fen[screen.session] = fen
        else:
            self._voucher_fen.pop(screen.session, None)

    @property
    def sales(self) -> int:
        """Sales seen."""
        return len(self._sales)

    def did(self, what: str) -> None:
        """A piece of chaos happened."""
        self.evidence.mischief[what] = self.evidence.mischief.get(what, 0) + 1

    def finish(self) -> CrewEvidence:
        """The whole of it. Call it when everything is quiet."""
        self.evidence.sales = list(self._sales.values())
        self.evidence.unanswered = [event_id for event_id, asked in self._asked.items() if not asked.digest][:1000]
        return self.evidence

    def _forget(self) -> None:
        for event_id in [one for one, asked in self._asked.items() if asked.digest][: EVENTS_MAX // 10]:
            del self._asked[event_id]
