"""A simulated counter: terminals that keep each event until its reply, and people with little patience."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from devices import codec
from devices.topics import Down, Up, parse, topic_of
from models.domain.registry import RegisteredTerminal
from models.domain.screen import LeaseGrant, ReplyBody, Screen
from runtime.testing.ports import phone_of, photograph, tail_of

RESEND_FIRST_S = 5.0
RESEND_S_MAX = 60.0
FACE_AGE_S_MAX = 10.0

SendUp = Callable[[str, bytes, Mapping[str, str]], None]


@dataclass(slots=True, eq=False)
class Waiting:
    """An event without its reply."""

    topic: str
    payload: bytes
    properties: Mapping[str, str]
    reply: asyncio.Future[ReplyBody]
    until: float | None = None


class SimulatedDevice:
    """One MQTT client of a lane. Sends the same bytes again until their reply: after 5 s, doubling to 60 s."""

    def __init__(
        self, record: RegisteredTerminal, send_up: SendUp, rng: random.Random, wall: Callable[[], datetime]
    ) -> None:
        self.record = record
        self.screen: Screen | None = None
        self.waiting: dict[str, Waiting] = {}
        self.replies: dict[str, ReplyBody] = {}
        self._send_up = send_up
        self._rng = rng
        self._wall = wall
        self._seq = 0
        self._boot = self._uuid()
        self._moved = asyncio.Event()

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def birth(self) -> None:
        """Connect anew: whatever is on the lane's screen is shown again."""
        document = {
            "v": 1,
            "online": True,
            "boot": self._boot,
            "conn": self._uuid(),
            "software": "simulated",
            "profile": self.record.profile,
            "ts": self._wall().isoformat(),
        }
        self._send_up(str(topic_of(self.record, Up.PRESENCE)), msgspec.json.encode(document), {})
        self.resend()

    def resend(self) -> None:
        """Everything without a reply, once more."""
        for one in self.waiting.values():
            self._send_up(one.topic, one.payload, one.properties)

    def heard(self, topic: str, payload: bytes) -> None:
        """A message of the host."""
        match parse(topic).channel:
            case Down.REPLY:
                reply = codec.decode_reply(payload)
                one = self.waiting.pop(reply.id or "", None)
                if one is not None and reply.id is not None:
                    self.replies[reply.id] = reply
                    if not one.reply.done():
                        one.reply.set_result(reply)
            case Down.SCREEN:
                screen = codec.decode_screen(payload)
                old = self.screen
                if old is None or old.session != screen.session or old.rev <= screen.rev:
                    self.screen = screen
                    self._moved.set()
                    self._moved = asyncio.Event()
            case Down.COMMAND:
                self.birth()
            case _:
                pass

    async def send(
        self,
        kind: str,
        body: Mapping[str, Any],
        session: str | None,
        *,
        clerk: str | None = None,
        stored_s: float | None = None,
    ) -> ReplyBody:
        """Send one event; its reply, however long that takes. `stored_s`: it happened offline, so long ago."""
        self._seq += 1
        ident = self._uuid()
        envelope = {
            "v": 1,
            "id": ident,
            "boot": self._boot,
            "seq": self._seq,
            "ts": (self._wall() - timedelta(seconds=stored_s or 0)).isoformat(),
            "mono_ms": 0,
            "type": kind,
            "session": session,
            "clerk": clerk,
            "replay": stored_s is not None,
            "body": body,
        }
        return await self._deliver(ident, Up.EVENT, msgspec.json.encode(envelope), {})

    async def show(self, jpeg: bytes, session: str) -> ReplyBody:
        """Send one face; given up after 10 s, never stored."""
        self._seq += 1
        ident = self._uuid()
        properties = {"id": ident, "boot": self._boot, "seq": str(self._seq), "session": session, "kind": "frame"}
        return await self._deliver(ident, Up.FACE, jpeg, properties, FACE_AGE_S_MAX)

    async def _deliver(
        self, ident: str, channel: Up, payload: bytes, properties: Mapping[str, str], age_s_max: float | None = None
    ) -> ReplyBody:
        loop = asyncio.get_running_loop()
        until = None if age_s_max is None else loop.time() + age_s_max
        one = Waiting(str(topic_of(self.record, channel)), payload, properties, loop.create_future(), until)
        self.waiting[ident] = one
        pause_s = RESEND_FIRST_S
        while True:
            self._send_up(one.topic, payload, properties)
            try:
                async with asyncio.timeout(pause_s * self._rng.uniform(0.8, 1.2)):
                    return await asyncio.shield(one.reply)
            except TimeoutError:
                pause_s = min(RESEND_S_MAX, pause_s * 2)
                if until is not None and loop.time() >= until:
                    self.waiting.pop(ident, None)
                    raise

    async def wait_for(self, fits: Callable[[Screen], bool], timeout_s: float) -> bool:
        """Wait for a screen; after a while connect anew, for a screen may get lost. False after `timeout_s`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.screen is None or not fits(self.screen):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(min(left, 15.0)):
                    await self._moved.wait()
            except TimeoutError:
                self.birth()
        return True


@dataclass(slots=True)
class Report:
    """What people at a counter know of their own, to be compared with the books."""

    paid_by_till: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    confirms: dict[str, bool] = field(default_factory=dict)
    receipts: list[str] = field(default_factory=list)


class Counter:
    """A lane and whoever stands there. Each verb is what one would do, and copes with what one would meet."""

    def __init__(self, face: SimulatedDevice, till: SimulatedDevice | None = None) -> None:
        self.face = face
        self.till = till
        self.report = Report()
        self.visit: str | None = None

    @property
    def screen(self) -> Screen | None:
        """The screen of this visit, if it is shown."""
        screen = self.face.screen
        return screen if screen is not None and screen.session == self.visit else None

    @property
    def state(self) -> str:
        """The state of this visit as shown; empty when another is."""
        return str(self.screen.state) if self.screen is not None else ""

    async def open(self, till_txn: str | None = None) -> None:
        """A customer steps up, once the lane is free."""
        while True:
            body = {} if till_txn is None else {"till_txn": till_txn}
            device = self.till or self.face
            reply = await device.send("session.open", body, None)
            if reply.ok and reply.session is not None:
                self.visit = reply.session
                await self.wait(lambda s: s.session == self.visit)
                return
            await asyncio.sleep(2.0)

    async def wait(self, fits: Callable[[Screen], bool], timeout_s: float = 100.0) -> bool:
        """Wait for a screen of the lane."""
        return await self.face.wait_for(fits, timeout_s)

    async def do(self, kind: str, body: Mapping[str, Any]) -> ReplyBody:
        """One event of this visit."""
        return await self.face.send(kind, body, self.visit)

    async def consent(self, purpose: str, *, granted: bool = True) -> ReplyBody:
        """Grant or refuse one purpose."""
        return await self.do("consent", {"purpose": purpose, "text": "v1", "granted": granted})

    async def look(self, who: str, *, twin: bool = False) -> bool:
        """Look into the camera until the image arrives, a few times at most. True when somebody was recognised."""
        for _ in range(4):
            assert self.visit is not None
            try:
                reply = await self.face.show(photograph(who, twin), self.visit)
            except TimeoutError:
                continue
            if reply.ok:
                if await self.wait(lambda s: s.state == "digits" or s.member is not None, 4.0) and twin:
                    await self.do("digits", {"tail": tail_of(who)})
                    await self.wait(lambda s: s.state != "digits", 5.0)
                break
            if reply.error is not None and reply.error.code not in ("face_lost", "question_open"):
                break
            await asyncio.sleep(1.0)
        return self.screen is not None and self.screen.member is not None

    async def enrol(self, who: str, *, shots: bool = True) -> None:
        """Become a member; the camera asks for shots until it is content."""
        await self.consent("membership")
        if shots:
            await self.consent("recognise")
        reply = await self.do("enrol", {"plan": "light-10", "guarantee": "huabei_hold", "phone": phone_of(who)})
        if not reply.ok:
            return
        await self.wait(lambda s: s.state == "enrolling" or s.member is not None, 10.0)
        for _ in range(16):
            await self.wait(lambda s: s.state != "enrolling" or _asks_for_shot(s), 20.0)
            if self.state != "enrolling":
                return
            assert self.visit is not None
            before = self.screen
            try:
                await self.face.show(photograph(who), self.visit)
            except TimeoutError:
                continue
            rev = before.rev if before is not None else 0
            await self.wait(lambda s, rev=rev: s.rev > rev, 5.0)  # type: ignore[misc]
        await self.do("cancel", {})

    async def identify(self, who: str) -> bool:
        """Type a phone number. True when it is a member's."""
        await self.do("identify", {"by": "phone", "value": phone_of(who)})
        return self.screen is not None and self.screen.member is not None

    async def lease(self, uses: int) -> LeaseGrant | None:
        """Keep uses of the member's coupon for later; None: not granted, or the answer came too late."""
        return (await self.do("lease", {"benefit": "coupon8", "uses": uses})).lease

    async def sell_offline(self, txn: str, lease: LeaseGrant | None, stored_s: float) -> None:
        """A tea was sold for cash while nobody could be asked, with a use of the lease; the sale comes now."""
        off = 800 if lease is not None else 0
        body = {
            "till_txn": txn,
            "lines": [{"line": 1, "code": "tea", "name": "Tea", "quantity": 1, "unit_fen": 1200, "net_fen": 1200}],
            "tenders": [{"kind": "cash", "fen": 1200 - off}],
            "total_fen": 1200,
            "benefits": [],
        }
        if lease is not None:
            used = {"lease": lease.id, "membership": lease.membership, "benefit": lease.benefit, "fen": off}
            body["benefits"] = [used]
        self.report.paid_by_till.setdefault(txn, []).append(("cash", 1200 - off))
        reply = await self.face.send("sale", body, None, stored_s=stored_s)
        assert reply.ok, "a sale that was made is never refused"

    async def bring_back(self, receipt: str, line: int = 1, quantity: int = 1) -> ReplyBody:
        """Goods of a receipt come back."""
        body = {"receipt": receipt, "lines": [{"line": line, "quantity": quantity}], "reason": "damaged"}
        return await self.do("return", body)

    async def scan(self, *codes: str) -> None:
        """Scan these; a clerk looks at who buys beer."""
        for code in codes:
            await self.do("scan", {"code": code, "quantity": 1})
        if "beer" in codes:
            await self.face.send("age_check", {"result": "ok"}, self.visit, clerk="c-17")
        await self.wait(lambda s: s.state == "quoted" and s.session == self.visit, 20.0)

    async def pay(self, tenders: Callable[[Screen], list[dict[str, Any]]], act: Callable[[Screen], None]) -> bool:
        """Confirm what is shown, again if the price changed or the payment failed; `act` is what the customer does."""
        for _ in range(8):
            await self.wait(lambda s: s.session != self.visit or s.state in ("quoted", "paid", "closed"), 120.0)
            screen = self.screen
            if screen is None or screen.state != "quoted":
                break
            reply = await self.do("confirm", {"rev": screen.rev, "tenders": tenders(screen)})
            self.report.confirms[str(reply.id)] = reply.ok
            if not reply.ok:
                await asyncio.sleep(1.0)
                await self.wait(lambda s, rev=screen.rev: s.session != self.visit or s.rev > rev, 5.0)  # type: ignore[misc]
                continue
            await self.wait(lambda s: s.state != "quoted", 16.0)
            for _ in range(40):
                if self.state not in ("paying", "reversing"):
                    break
                if self.screen is not None:
                    act(self.screen)
                await asyncio.sleep(2.0)
                await self.wait(lambda s: s.state not in ("paying", "reversing"), 3.0)
        return self.state == "paid"

    async def basket(self, txn: str, rev: int, prices: list[int]) -> ReplyBody:
        """The till's whole basket."""
        lines = [
            {
                "line": n,
                "code": f"c{n}",
                "name": f"Item {n}",
                "quantity": 1,
                "unit_fen": fen,
                "net_fen": fen,
                "flags": [],
            }
            for n, fen in enumerate(prices, 1)
        ]
        body = {"till_txn": txn, "rev": rev, "lines": lines, "total_fen": sum(prices)}
        assert self.till is not None
        return await self.till.send("basket", body, None)

    async def paid(self, txn: str, rev: int, kind: str, fen: int) -> None:
        """The till took the money and reports it, until somebody has heard."""
        assert self.till is not None
        self.report.paid_by_till.setdefault(txn, []).append((kind, fen))
        reply = await self.till.send(
            "paid", {"till_txn": txn, "rev": rev, "tenders": [{"kind": kind, "fen": fen}]}, None
        )
        assert reply.ok, "paid is never refused"


def _asks_for_shot(screen: Screen) -> bool:
    return screen.prompt is not None and screen.prompt.code in ("look_at_camera", "face_lost", "come_closer")
