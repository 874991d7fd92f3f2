"""A host for one lane in a test: the real session machine behind the real bridge, its questions answered at once.

Faces are decided by the image's first bytes (a scripted eye); payments go to a running provider simulator.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from actors.effects import Ask
from actors.ports import (
    EnrolFace,
    EnrolMember,
    FindSale,
    IdentifyFace,
    PaymentRequest,
    PayVerb,
    PostUses,
    PostVouchers,
    ReleaseUses,
    ReleaseVouchers,
    RescoreFace,
    ReserveUses,
    ReserveVouchers,
    ReturnVouchers,
    ReverseUses,
    TakeShot,
)
from devices import codec
from devices.bridge import Bridge, Inbound
from devices.mqtt import MqttLink
from devices.topics import Up
from gateway.providers.alipay import AlipayProvider
from gateway.providers.port import Scene
from models.domain.events import Event, FaceShown
from models.domain.facts import SaleMade
from models.domain.ids import event_cause
from models.domain.liveness import ChallengeMode, LivenessPolicy
from models.domain.messages import (
    EnrolAnswered,
    FaceAnswered,
    FaceOutcome,
    PaymentAnswered,
    PaymentOutcome,
    ReleaseAnswered,
    ReserveAnswered,
    SaleFound,
    SessionMessage,
    UsesPosted,
)
from models.domain.payments import Failed, Pending, Succeeded
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, Screen
from runtime.broker import EmbeddedBroker
from tests.actors.lane import NOW, Lane, member
from tests.devices.support import link_config, until

BLURRED = b"\xff\xd8 blurred"
STRANGER = b"\xff\xd8 stranger"
UNSURE = b"\xff\xd8 unsure"
MASKED = b"\xff\xd8 masked"
"""Seems to wear a mask, and does not."""
STRAIGHT, TURNED = b"\xff\xd8 straight", b"\xff\xd8 turned"
"""Somebody who is asked to turn the head to the left, and has done so."""
BUSY = b"\xff\xd8 busy"
"""Nobody has the time for the first `busy_left` looks."""


class LaneHost:
    """Serves the terminals of one lane until closed."""

    def __init__(
        self,
        broker: EmbeddedBroker,
        terminals: list[RegisteredTerminal],
        provider: AlipayProvider | None = None,
        basket_owner: str = "storeops",
    ) -> None:
        self.terminals = {terminal.terminal: terminal for terminal in terminals}
        self.lane = Lane(basket_owner)
        turns = LivenessPolicy(challenge=ChallengeMode.ALWAYS)
        self.lane.book = replace(self.lane.book, chain_book=replace(self.lane.book.chain_book, liveness=turns))
        self.connected_once = False
        self._provider = provider
        self._images: dict[str, bytes] = {}
        self.busy_left = 0
        self._told: set[str] = set()
        self._shown: Screen | None = None
        self._task: asyncio.Task[None] | None = None
        first = terminals[0]
        self.bridge = Bridge(MqttLink(link_config(broker)), first.region, [first.shard], self)

    def connected(self, epoch: int, session_present: bool) -> None:
        self.connected_once = True

    def disconnected(self, reason: str) -> None:
        pass

    async def may_reconnect(self, taken_over: bool) -> bool:
        return True

    async def __aenter__(self) -> LaneHost:
        await self.bridge.start()
        await until(lambda: self.connected_once)
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        results = await asyncio.gather(self._task, return_exceptions=True)
        await self.bridge.stop()
        assert isinstance(results[0], asyncio.CancelledError), results[0]

    async def _serve(self) -> None:
        while True:
            try:
                async with asyncio.timeout(0.05):
                    inbound = await self.bridge.receive()
            except TimeoutError:
                if self.lane.session.payment is not None:
                    self.lane.after(3)
            else:
                self._handle(inbound)
                self.bridge.ack(inbound)
            await self._publish()
            while self.lane.asks:
                self.lane.tell(await self._answer(self.lane.asks.pop(0)))
                await self._publish()

    def _handle(self, inbound: Inbound) -> None:
        terminal = self.terminals.get(inbound.topic.terminal)
        if terminal is None or inbound.topic.channel not in (Up.EVENT, Up.FACE):
            return
        event: Event
        if inbound.topic.channel is Up.FACE:
            event = codec.decode_face(inbound.payload, inbound.properties, terminal, NOW)
            assert isinstance(event.body, FaceShown)
            self._images[event_cause(event.terminal, event.id)] = event.body.jpeg
        else:
            event = codec.decode_event(inbound.payload, terminal)
        if event.id not in self.lane.sent:
            self.lane.sent[event.id] = self.lane.now
            self.lane._turn(event, event.id, event)

    async def _publish(self) -> None:
        for reply in [reply for reply in self.lane.replies.values() if reply.id not in self._told]:
            self._told.add(reply.id)
            body = ReplyBody(reply.id, reply.ok, reply.pending, reply.session, reply.error)
            await self.bridge.publish_reply(self.terminals[reply.terminal], body)
        if self.lane.screen is not None and self.lane.screen is not self._shown:
            self._shown = self.lane.screen
            for terminal in self.terminals.values():
                await self.bridge.publish_screen(terminal, self._shown)

    # ------------------------------------------------------------ the world

    async def _answer(self, ask: Ask) -> SessionMessage:
        request = ask.request
        match request:
            case IdentifyFace() | TakeShot():
                return self._look(ask.id, request)
            case RescoreFace():
                return FaceAnswered(request.session, ask.id, FaceOutcome.ACCEPTED, member())
            case EnrolFace():
                return FaceAnswered(request.session, ask.id, FaceOutcome.ENROLLED)
            case EnrolMember():
                return EnrolAnswered(ask.id, request.session, member())
            case ReserveUses():
                return ReserveAnswered(ask.id, request.session, ok=True)
            case ReserveVouchers():
                return ReserveAnswered(ask.id, request.session, ok=True)
            case PostVouchers() | ReleaseVouchers() | ReturnVouchers():
                return ReleaseAnswered(ask.id, request.session)
            case PostUses():
                return UsesPosted(ask.id, request.session, member(uses_left=4, used_fen=800))
            case PaymentRequest():
                return await self._pay(ask.id, request)
            case FindSale():
                sale = next(s for s in self.lane.facts if isinstance(s, SaleMade) and s.receipt == request.receipt)
                return SaleFound(
                    ask.id,
                    sale.id,
                    sale.receipt,
                    sale.store,
                    sale.business_date,
                    gross_fen=sale.gross_fen,
                    discount_fen=sale.discount_fen,
                    rounding_fen=sale.rounding_fen,
                    tenders=sale.tenders,
                    uses=sale.uses,
                )
            case ReleaseUses() | ReverseUses():
                raise AssertionError("no test here goes this way")
        raise AssertionError(f"an ask that is not answered here: {request}")

    def _look(self, question: str, request: IdentifyFace | TakeShot) -> FaceAnswered:
        image = self._images.pop(request.image)
        if image.startswith(BUSY) and self.busy_left:
            self.busy_left -= 1
            return FaceAnswered(request.session, question, FaceOutcome.BUSY, reason="shed")
        if image.startswith(BLURRED):
            return FaceAnswered(request.session, question, FaceOutcome.QUALITY, reason="come_closer")
        if isinstance(request, TakeShot):
            if image.startswith(MASKED) and not request.mask_asked:
                return FaceAnswered(request.session, question, FaceOutcome.QUALITY, reason="take_off_mask")
            return FaceAnswered(request.session, question, FaceOutcome.SHOT_TAKEN, sealed=image)
        if image.startswith(STRANGER):
            return FaceAnswered(request.session, question, FaceOutcome.NOT_RECOGNISED)
        if image.startswith(STRAIGHT) and request.challenge.following is not None:
            return FaceAnswered(request.session, question, FaceOutcome.CHALLENGE, reason="left", sealed=image)
        if image.startswith((UNSURE, STRAIGHT)):
            return FaceAnswered(request.session, question, FaceOutcome.DIGITS, sealed=image)
        return FaceAnswered(request.session, question, FaceOutcome.ACCEPTED, member())

    async def _pay(self, ask: str, request: PaymentRequest) -> PaymentAnswered:
        assert self._provider is not None
        found = PaymentAnswered(ask, request.session, request.order, request.verb.value, PaymentOutcome.UNKNOWN)
        if request.verb is PayVerb.PRECREATE:
            made = await self._provider.precreate(number=request.order, amount_fen=request.fen, subject="basket")
            assert isinstance(made, Pending)
            return replace(found, outcome=PaymentOutcome.SUCCEEDED, collection_code=made.code_text or "")
        if request.verb is PayVerb.PAY:
            assert request.auth is not None
            answer = await self._provider.pay(
                number=request.order,
                amount_fen=request.fen,
                subject="basket",
                auth_code=request.auth.token,
                scene=Scene.FACE if request.kind == "face" else Scene.PAYMENT_CODE,
            )
        else:
            answer = await self._provider.query_payment(number=request.order, amount_fen=request.fen)
        if isinstance(answer, Succeeded):
            return replace(found, outcome=PaymentOutcome.SUCCEEDED, trade_no=answer.result.provider_trade_no)
        if isinstance(answer, Failed):
            return replace(found, outcome=PaymentOutcome.FAILED, code=answer.code)
        return found
