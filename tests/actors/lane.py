"""One lane under test: feeds the session machine, keeps what it asked and when it wants to be woken.

After each turn it holds the machine to what is always true: one reply per event, codes from the closed lists,
rev rising, and what was booked equal to what the screen had shown.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from actors.effects import Ask, Effect, Reply, Save, Show, Tell, Wake
from actors.ports import AskRequest, PaymentRequest, PayVerb, ReserveUses
from actors.session import receive
from actors.visit import Session
from models.domain.book import ChainBook, ConsentText, StoreBook
from models.domain.errors import Refused
from models.domain.events import (
    Cancel,
    Confirm,
    Consent,
    Event,
    EventBody,
    FaceShown,
    ProviderAuth,
    Purpose,
    Scan,
    SessionOpen,
    Tender,
    TenderKind,
    Traits,
)
from models.domain.facts import Fact, SaleMade
from models.domain.ids import (
    BenefitId,
    ChainId,
    LaneId,
    LegalEntityId,
    MemberId,
    MembershipId,
    MessageId,
    PlanId,
    RegionId,
    SessionId,
    StoreId,
    TerminalId,
)
from models.domain.messages import (
    BenefitLeft,
    FaceAnswered,
    FaceOutcome,
    MembershipView,
    MemberView,
    PaymentAnswered,
    PaymentOutcome,
    ReserveAnswered,
    SessionMessage,
    TimerFired,
)
from models.domain.periods import Days
from models.domain.plans import Benefit, GuaranteeKind, MerchantCancel, Plan, Text
from models.domain.pricing import Item
from models.domain.screen import Screen, ScreenState
from models.domain.texts import prompt_codes, refusal, refusal_codes
from tests.domain.baskets import voucher

NOW = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)
BOOT = "00000000-0000-4000-8000-00000000b007"
JPEG = b"\xff\xd8 a face"
ANY_TILL = Traits()
FACE_TERMINAL, TILL = TerminalId("t-face"), TerminalId("t-till")
R = TypeVar("R", bound=AskRequest)

PLAN = Plan(
    id=PlanId("light-10"),
    version=1,
    name=Text(zh="十元轻会员", en="Light membership 10"),
    owner_entity=LegalEntityId("chain"),
    fee_fen=1000,
    benefits=(Benefit(BenefitId("coupon8"), Text(zh="8 元优惠券", en="8-yuan coupon"), 800, 5),),
    period=Days(30),
    grace_days=1,
    cutoff_hour=0,
    zone="Asia/Shanghai",
    dunning_days=(1,),
    on_merchant_cancel=MerchantCancel.PRORATE,
    guarantees=(GuaranteeKind.HUABEI_HOLD,),
    enrol_again_after_days=0,
    funder_entity=LegalEntityId("chain"),
)

ITEMS = {
    item.code: item
    for item in (
        Item("tea", Text(zh="茶", en="Tea"), 1200),
        Item("roll", Text(zh="饭团", en="Rice roll"), 653),
        Item("gum", Text(zh="口香糖", en="Gum"), 3),
        Item("smokes", Text(zh="香烟", en="Cigarettes"), 2500, frozenset({"tobacco"})),
        Item("beer", Text(zh="啤酒", en="Beer"), 800, frozenset({"age_18"})),
        Item("top-up", Text(zh="充值", en="Top-up"), 5000, frozenset({"agency"})),
    )
}


def book(basket_owner: str = "storeops", language: str = "en", version: int = 1) -> StoreBook:
    """A store of the northern franchisee with the articles' plan."""
    consents = tuple(ConsentText(purpose, "v1", "同意", "I agree") for purpose in Purpose)
    chain = ChainBook(ChainId("acme"), version, ITEMS, {PLAN.id: PLAN}, consents, language)
    return StoreBook(
        chain, StoreId("s1"), RegionId("north"), LegalEntityId("franchisee"), "Asia/Shanghai", 4, basket_owner
    )


def with_vouchers(book: StoreBook) -> StoreBook:
    """One for whoever has its code, one that the screen offers."""
    vouchers = {"V-1": voucher("v-1", basis_points=1500), "N": voucher("noodles", value_fen=100, offered=True)}
    return replace(book, chain_book=replace(book.chain_book, vouchers=vouchers))


def member(uses_left: int = 5, used_fen: int = 0, *, membership: bool = True) -> MemberView:
    """Somebody whose membership has so many uses left."""
    view = MembershipView(
        MembershipId("m-1"),
        PLAN.id,
        1,
        PLAN.fee_fen,
        used_fen,
        (BenefitLeft(BenefitId("coupon8"), uses_left),),
        NOW + timedelta(days=30),
    )
    return MemberView(MemberId("p-1"), "张*", view if membership else None)


def cash(fen: int, tendered: int | None = None) -> Tender:
    return Tender(TenderKind.CASH, fen, None, tendered)


def face_pay(fen: int) -> Tender:
    return Tender(TenderKind.FACE, fen, ProviderAuth("alipay", "token"))


def qr(fen: int) -> Tender:
    return Tender(TenderKind.QR, fen)


class Lane:
    """The machine, its open questions and its timers."""

    def __init__(self, basket_owner: str = "storeops", language: str = "en") -> None:
        self.book = book(basket_owner, language)
        self.session = Session(lane=LaneId("l1"))
        self.now = NOW
        self.asks: list[Ask] = []
        self.timers: list[tuple[datetime, str, str]] = []
        self.facts: list[Fact] = []
        self.replies: dict[str, Reply] = {}
        self.sent: dict[str, datetime] = {}
        self.screen: Screen | None = None
        self.told: list[Tell] = []
        self._seq = 0

    # ------------------------------------------------------------ what a terminal does

    def event(
        self,
        body: EventBody,
        session: SessionId | None = None,
        *,
        terminal: TerminalId = FACE_TERMINAL,
        clerk: str | None = None,
        traits: Traits = ANY_TILL,
        sold_at: datetime | None = None,
    ) -> Event:
        self._seq += 1
        message = MessageId(str(uuid.uuid5(uuid.NAMESPACE_OID, f"event {self._seq}")))
        ts, replay = sold_at or self.now, sold_at is not None
        return Event(message, BOOT, self._seq, ts, terminal, "face", session, clerk, replay, body, traits)

    def send(
        self,
        body: EventBody,
        session: SessionId | None = None,
        *,
        terminal: TerminalId = FACE_TERMINAL,
        clerk: str | None = None,
        traits: Traits = ANY_TILL,
        sold_at: datetime | None = None,
    ) -> Reply | None:
        """Send one event; its reply if it came in the same turn. A refusal is a reply, too.

        `sold_at`: it was stored while offline, and happened then.
        """
        event = self.event(body, session, terminal=terminal, clerk=clerk, traits=traits, sold_at=sold_at)
        self.sent[event.id] = self.now
        self._turn(event, event.id, event)
        return self.replies.get(event.id)

    def ok(self, body: EventBody, session: SessionId | None = None, terminal: TerminalId = FACE_TERMINAL) -> Reply:
        reply = self.send(body, session, terminal=terminal)
        assert reply is not None
        assert reply.ok, reply
        return reply

    def refused(self, body: EventBody, code: str, session: SessionId | None = None) -> None:
        before = self.session
        reply = self.send(body, session)
        assert reply is not None
        assert reply.error is not None
        assert reply.error.code == code
        assert self.session == before, "a refusal leaves the old state"

    def later(self, body: EventBody, terminal: TerminalId = FACE_TERMINAL, clerk: str | None = None) -> str:
        """Send an event that is answered later; returns its id."""
        assert self.send(body, terminal=terminal, clerk=clerk) is None
        return next(reversed(self.sent))

    # ------------------------------------------------------------ what the world does

    def tell(self, message: SessionMessage, cause: str = "") -> None:
        self._seq += 1
        self._turn(message, cause or str(uuid.uuid5(uuid.NAMESPACE_OID, f"answer {self._seq}")), None)

    def asked(self, kind: type[R]) -> tuple[str, R]:
        """The newest open question of that kind; it is taken."""
        ask = next(ask for ask in reversed(self.asks) if isinstance(ask.request, kind))
        self.asks.remove(ask)
        assert isinstance(ask.request, kind)
        return ask.id, ask.request

    def after(self, seconds: float) -> None:
        """Let time pass; timers fire in due order."""
        until = self.now + timedelta(seconds=seconds)
        while self.timers and min(self.timers)[0] <= until:
            timer = min(self.timers)
            self.timers.remove(timer)
            due, kind, ref = timer
            self.now = max(self.now, due)
            self.tell(TimerFired(kind, ref, due), str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {ref} {due}")))
        self.now = until

    # ------------------------------------------------------------ shorthand

    def open(self, till_txn: str | None = None) -> None:
        self.ok(SessionOpen(till_txn))

    def consent(self, purpose: Purpose = Purpose.RECOGNISE, *, granted: bool = True) -> Reply | None:
        return self.send(Consent(purpose, "v1", granted))

    def identify(self, who: MemberView | None = None) -> None:
        """A face, accepted."""
        self.consent()
        self.later(FaceShown(JPEG, "frame"))
        self.face_answer(FaceOutcome.ACCEPTED, member=who or member())

    def face_answer(self, outcome: FaceOutcome, **named: object) -> None:
        question = self.session.question
        assert question is not None
        assert self.session.id is not None
        self.tell(FaceAnswered(self.session.id, question.id, outcome, **named))  # type: ignore[arg-type]

    def confirm(self, *tenders: Tender, rev: int | None = None, collect: str | None = None) -> Reply | None:
        return self.send(Confirm(self.session.rev if rev is None else rev, tenders, collect))

    def reserve_answer(self, ok: bool = True, who: MemberView | None = None) -> None:
        ask, request = self.asked(ReserveUses)
        self.tell(ReserveAnswered(ask, request.session, ok, "" if ok else "benefit_gone", who))

    def pay_answer(self, outcome: PaymentOutcome, **named: object) -> PaymentRequest:
        """The provider's answer to the newest payment request."""
        ask, request = self.asked(PaymentRequest)
        self.tell(self.payment(ask, request, outcome, **named))
        return request

    @staticmethod
    def payment(ask: str, request: PaymentRequest, outcome: PaymentOutcome, **named: object) -> PaymentAnswered:
        return PaymentAnswered(ask, request.session, request.order, str(request.verb), outcome, **named)  # type: ignore[arg-type]

    @property
    def sales(self) -> list[SaleMade]:
        return [fact for fact in self.facts if isinstance(fact, SaleMade)]

    @property
    def state(self) -> str:
        return str(self.session.state)

    @property
    def prompt(self) -> str:
        return self.session.prompt.code if self.session.prompt is not None else ""

    def waits_for(self) -> list[PayVerb]:
        """What the provider is being asked."""
        return [ask.request.verb for ask in self.asks if isinstance(ask.request, PaymentRequest)]

    # ------------------------------------------------------------ the turn, and what always holds

    def _turn(self, message: SessionMessage, cause: str, event: Event | None) -> None:
        before, shown = self.session, self.screen
        try:
            turn = receive(self.session, message, cause, self.now, self.book)
        except Refused as refused:
            assert event is not None, f"only an event may be refused, not {message}"
            error = refusal(refused.code, self.book.language, refused.message, refused.do)
            self._reply(Reply(event.terminal, event.id, ok=False, error=error))
            return
        assert turn == receive(before, message, cause, self.now, self.book), "a turn is a function"
        self.session = turn.state
        for effect in turn.effects:
            self._effect(effect)
        self._check(before, shown, turn.effects)

    def _effect(self, effect: Effect) -> None:
        match effect:
            case Reply():
                self._reply(effect)
            case Show():
                self.screen = effect.screen
            case Ask():
                assert effect.id not in {ask.id for ask in self.asks}
                self.asks.append(effect)
            case Save():
                self.facts.append(effect.fact)
            case Tell():
                self.told.append(effect)
            case Wake(after=after, due=due):
                when = due if after is None else self.now + after
                assert when is not None
                if not any(timer[1:] == (effect.kind, effect.ref) for timer in self.timers):
                    self.timers.append((when, effect.kind, effect.ref))
            case _:
                raise AssertionError(effect)

    def _reply(self, reply: Reply) -> None:
        assert reply.id in self.sent, f"a reply to nobody: {reply}"
        assert reply.id not in self.replies, f"a second reply: {reply}"
        assert reply.ok or reply.error is not None
        if reply.error is not None:
            assert reply.error.code in refusal_codes(), reply.error.code
        self.replies[reply.id] = reply

    def _check(self, before: Session, shown: Screen | None, effects: tuple[Effect, ...]) -> None:
        screens = [effect.screen for effect in effects if isinstance(effect, Show)]
        assert len(screens) <= 1
        for screen in screens:
            assert screen.session == self.session.id
            assert screen.rev == self.session.rev
            assert (
                screen.due_fen == screen.gross_fen - screen.discount_fen == sum(line.net_fen for line in screen.lines)
            )
            assert screen.prompt is None or screen.prompt.code in prompt_codes()
        if before.id == self.session.id:
            assert self.session.rev >= before.rev
            visible = replace(before, rev=0, question=None) != replace(self.session, rev=0, question=None)
            if screens and visible and self.session.state is not before.state:
                assert self.session.rev > before.rev
        if self.session.payment is None:
            assert self.session.state not in (ScreenState.PAYING, ScreenState.REVERSING)
        else:
            assert self.session.state in (ScreenState.PAYING, ScreenState.REVERSING)
        for sale in (effect.fact for effect in effects if isinstance(effect, Save)):
            if isinstance(sale, SaleMade):
                taken = sum(tender.fen for tender in sale.tenders if tender.kind is not TenderKind.COUPON)
                assert sale.gross_fen - sale.discount_fen == sale.due_fen
                assert taken == sale.due_fen - sale.rounding_fen + sale.suspense_fen
                assert sum(use.fen for use in sale.uses) in (0, sale.discount_fen)
                assert sum(line.net_fen for line in sale.lines) == sale.due_fen
                if sale.lines and sale.received_at is None:
                    assert shown is not None
                    assert sale.due_fen == shown.due_fen, "preview == charge"

    def nobody_waits(self) -> None:
        """Every event has its reply."""
        assert set(self.sent) == set(self.replies)


def buy(lane: Lane, *codes: str) -> None:
    """Scan these."""
    for code in codes:
        lane.ok(Scan(code, 1))


def cancel(lane: Lane) -> Reply | None:
    return lane.send(Cancel())
