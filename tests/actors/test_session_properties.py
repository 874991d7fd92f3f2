"""Whatever comes in whatever order: a turn or a refusal from the closed list, one reply per event, no lane stuck.

`Lane` checks after each turn what always holds (see there); here hypothesis chooses the events, the answers and
the time that passes, and a table sends every event type in every state.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.effects import Ask
from actors.ports import (
    EndLease,
    EnrolFace,
    EnrolMember,
    FindMember,
    FindSale,
    GrantLease,
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
from actors.session import receive
from models.domain.events import (
    AgeCheck,
    Amount,
    Basket,
    Cancel,
    Claim,
    Complaint,
    Confirm,
    Consent,
    Digits,
    Enrol,
    EventBody,
    FaceShown,
    Identify,
    Lease,
    LeaseEnd,
    OfflineSale,
    Paid,
    Purpose,
    Remove,
    Return,
    ReturnLine,
    SaleBenefit,
    Scan,
    SessionOpen,
    Tender,
    TenderKind,
    TillLine,
    Void,
    Voucher,
)
from models.domain.facts import SaleMade, SaleReturned, SaleVoided
from models.domain.ids import BenefitId, LeaseId, MemberId, MembershipId, SessionId, StoreId
from models.domain.messages import (
    EnrolAnswered,
    FaceAnswered,
    FaceOutcome,
    KeyRow,
    LeaseEnded,
    LeaseGranted,
    MemberFound,
    PastReturn,
    PaymentOutcome,
    ReleaseAnswered,
    ReserveAnswered,
    SaleFound,
    SealedTemplate,
    TemplateRow,
    TimerFired,
    UsesPosted,
)
from models.domain.screen import LeaseGrant, ScreenState
from tests.actors.lane import JPEG, NOW, PLAN, Lane, buy, cash, face_pay, member, qr, with_vouchers

TEMPLATE = SealedTemplate(
    TemplateRow("tpl", MemberId("p-1"), "net", b"sealed", "tpl", "default"), KeyRow("tpl", MemberId("p-1"), 1, b"key")
)
BASKET = Basket("txn-a", 1, (TillLine(1, "c", "Item", 1, 1200, 1200),), 1200)

COUPON = BenefitId("coupon8")
GRANT = LeaseGrant(LeaseId("le-1"), MembershipId("m-1"), COUPON, 1, "2026-05-02T02:00:00+00:00")
OFFLINE = OfflineSale(
    BASKET.lines, (cash(400),), 1200, (SaleBenefit(LeaseId("le-1"), MembershipId("m-1"), COUPON, 800),)
)
OWNERS = ["storeops", "pos", "none"]

BODIES: tuple[EventBody, ...] = (
    SessionOpen(), SessionOpen("txn-a"), Digits("1234"), Digits("x"), Consent(Purpose.RECOGNISE, "v1", True),
    Consent(Purpose.RECOGNISE, "v1", False), Consent(Purpose.MEMBERSHIP, "v1", True),
    Consent(Purpose.MARKETING, "v0", True), Enrol(PLAN.id, "huabei_hold"), Enrol(PLAN.id, "sesame_credit"),
    Scan("tea", 1), Scan("gum", 2), Scan("nothing", 1), Remove(1), BASKET, Basket("txn-b", 2, BASKET.lines, 1200),
    Basket("txn-a", 3, BASKET.lines, 1), Confirm(1, ()), Paid("txn-a", 2, (Tender(TenderKind.CARD, 1200),)),
    Paid("txn-z", 1, (cash(1200, 2000),)), Cancel(), Void("s1-l1-000001"), Complaint("face"),
    FaceShown(JPEG, "frame"), FaceShown(JPEG, "crop", 0.9),
    Identify("phone", "13800001234"), Amount("txn-a", 1200), Amount("txn-b", 7), Voucher("V-1"), Claim("light-10"),
    Claim("noodles"), AgeCheck(True), AgeCheck(False), Lease(COUPON, 1), Lease(BenefitId("none"), 1),
    LeaseEnd(LeaseId("le-1")), Return("s1-l1-000001", (ReturnLine(1, 1),), "damaged"),
    Return("s1-l1-000001", (ReturnLine(9, 1),), ""), Scan("beer", 1), OFFLINE,
    OfflineSale(BASKET.lines, (cash(1000),), 999, (), "txn-z"),
)  # fmt: skip


# ---------------------------------------------------------------- every event type in every state


def _open(lane: Lane) -> None:
    lane.send(SessionOpen("txn-a"))


def _identified(lane: Lane) -> None:
    _open(lane)
    lane.identify()


def _quoted(lane: Lane) -> None:
    _identified(lane)
    lane.send(Scan("tea", 1))
    lane.send(BASKET)
    lane.send(Amount("txn-a", 1200))


def _digits(lane: Lane) -> None:
    _open(lane)
    lane.consent()
    lane.later(FaceShown(JPEG, "frame"))
    lane.face_answer(FaceOutcome.DIGITS, sealed=b"probe")


def _asked_face(lane: Lane) -> None:
    _open(lane)
    lane.consent()
    lane.later(FaceShown(JPEG, "frame"))


def _enrolling(lane: Lane) -> None:
    _open(lane)
    lane.consent(Purpose.MEMBERSHIP)
    lane.consent()
    lane.send(Enrol(PLAN.id, "huabei_hold"))


def _shooting(lane: Lane) -> None:
    _enrolling(lane)
    ask, request = lane.asked(EnrolMember)
    lane.tell(EnrolAnswered(ask, request.session, member()))
    lane.later(FaceShown(JPEG, "frame"))


def _reserving(lane: Lane) -> None:
    _quoted(lane)
    lane.confirm(face_pay(400))


def _asking(lane: Lane) -> None:
    _reserving(lane)
    lane.reserve_answer()


def _collecting(lane: Lane) -> None:
    _asking(lane)
    lane.pay_answer(PaymentOutcome.PENDING)


def _reversing(lane: Lane) -> None:
    _collecting(lane)
    lane.send(Cancel())


def _at_till(lane: Lane) -> None:
    _quoted(lane)
    lane.confirm(collect="till")
    lane.reserve_answer()


def _paid(lane: Lane) -> None:
    _asking(lane)
    lane.pay_answer(PaymentOutcome.SUCCEEDED)


def _closed(lane: Lane) -> None:
    _paid(lane)
    lane.after(31)


def _voiding(lane: Lane) -> None:
    _open(lane)
    lane.later(Void("s1-l1-000001"))


def _returning(lane: Lane) -> None:
    _open(lane)
    lane.later(Return("s1-l1-000001", (ReturnLine(1, 1),), "damaged"))


def _finding(lane: Lane) -> None:
    _open(lane)
    lane.later(Identify("phone", "13800001234"))


def _leasing(lane: Lane) -> None:
    _identified(lane)
    lane.later(Lease(COUPON, 2))


def _underage(lane: Lane) -> None:
    _open(lane)
    lane.send(Scan("beer", 1))
    lane.send(Basket("txn-a", 1, (TillLine(1, "c", "Beer", 1, 800, 800, None, ("age_18",)),), 800))


STATES: dict[str, tuple[Callable[[Lane], None], str]] = {
    "nobody": (lambda _: None, "closed"),
    "open": (_open, "open"),
    "identified": (_identified, "identified"),
    "quoted": (_quoted, "quoted"),
    "digits": (_digits, "digits"),
    "face asked": (_asked_face, "open"),
    "enrolling": (_enrolling, "enrolling"),
    "shooting": (_shooting, "enrolling"),
    "reserving": (_reserving, "paying"),
    "asking": (_asking, "paying"),
    "collecting": (_collecting, "paying"),
    "reversing": (_reversing, "reversing"),
    "at till": (_at_till, "paying"),
    "paid": (_paid, "paid"),
    "closed": (_closed, "closed"),
    "voiding": (_voiding, "open"),
    "returning": (_returning, "open"),
    "finding": (_finding, "open"),
    "leasing": (_leasing, "identified"),
    "underage": (_underage, "basket"),
}


CASES = [
    *((owner, name) for owner in ("storeops", "pos") for name in STATES),
    *(("none", name) for name in ("nobody", "open", "quoted", "collecting", "paid")),
]
"""An amount-only store differs in its basket alone."""


def in_state(name: str, owner: str) -> Lane:
    lane = Lane(owner)
    reach, state = STATES[name]
    reach(lane)
    assert lane.state == (state if (name, owner) != ("underage", "none") else "open"), "an amount has no age"
    return lane


@pytest.mark.parametrize(("owner", "name"), CASES)
def test_every_event_in_every_state_is_answered(owner: str, name: str) -> None:
    for body in BODIES:
        lane = in_state(name, owner)
        if isinstance(body, Confirm):
            body = Confirm(lane.session.rev, (cash(400),))
        reply = lane.send(body)
        if isinstance(body, Paid):
            assert reply is not None
            assert reply.ok, "paid is never refused"
        end(lane)


@pytest.mark.parametrize("name", STATES)
def test_stale_timers_are_ignored(name: str) -> None:
    lane = in_state(name, "storeops")
    for kind in ("reply", "face", "poll", "void", "close", "idle", "enrol"):
        for ref in ("", "x", "x:1", f"{lane.session.id}:0", "00000000-0000-4000-8000-000000000000:3"):
            before = lane.session
            lane.tell(TimerFired(kind, ref, NOW))
            assert lane.session == before


def test_an_unknown_timer_is_a_bug() -> None:
    lane = Lane()
    lane.book = with_vouchers(lane.book)
    with pytest.raises(ValueError, match="unknown timer"):
        receive(lane.session, TimerFired("breakfast", "", NOW), "cause", NOW, lane.book)


@pytest.mark.parametrize("name", STATES)
def test_foreign_answers_change_nothing(name: str) -> None:
    lane = in_state(name, "storeops")
    foreign = SessionId("another")
    request = PaymentRequest(
        PayVerb.PAY, foreign, lane.book.entity, StoreId("s1"), lane.event(Cancel()).terminal, "P0", 1, TenderKind.FACE
    )
    for message in (
        FaceAnswered(foreign, "q", FaceOutcome.ACCEPTED, member()),
        EnrolAnswered("a", foreign, member()),
        ReserveAnswered("a", foreign, True),
        lane.payment("a", request, PaymentOutcome.SUCCEEDED),
        UsesPosted("a", foreign, member(1)),
        ReleaseAnswered("a", foreign),
        SaleFound("q", None, "r"),
        MemberFound("q", foreign, member()),
        LeaseGranted("a", foreign, GRANT),
        LeaseEnded("a", foreign),
    ):
        before = lane.session
        lane.tell(message)
        assert lane.session == before


@pytest.mark.parametrize(("owner", "name"), CASES)
def test_what_the_screen_offers_is_not_refused_as_impossible(owner: str, name: str) -> None:
    """`actions` names event types allowed now: none of them may be answered with a code that says `never now`."""
    impossible = {"not_now", "lane_busy", "no_session", "already_identified", "basket_is_tills", "basket_is_ours"}
    offers: dict[str, EventBody] = {
        "consent": Consent(Purpose.MARKETING, "v1", True),
        "face": FaceShown(JPEG, "frame"),
        "cancel": Cancel(),
        "digits": Digits("1234"),
        "enrol": Enrol(PLAN.id, "huabei_hold"),
        "scan": Scan("tea", 1),
        "remove": Remove(1),
        "basket": Basket("txn-a", 9, BASKET.lines, 1200),
        "paid": Paid("txn-a", 1, (Tender(TenderKind.CARD, 400),)),
        "session.open": SessionOpen(),
        "identify": Identify("phone", "13800001234"),
        "amount": Amount("txn-a", 900),
        "lease": Lease(COUPON, 1),
    }
    lane = in_state(name, owner)
    if lane.screen is None or name in ("voiding", "returning", "reserving"):
        return
    for action in lane.screen.actions:
        lane = in_state(name, owner)
        body = Confirm(lane.session.rev, (cash(400),)) if action == "confirm" else offers.get(action, AgeCheck(True))
        reply = lane.send(body, clerk="c-17")
        code = reply.error.code if reply is not None and reply.error is not None else ""
        assert code not in impossible, action


# ---------------------------------------------------------------- any order


def answer(lane: Lane, ask: Ask, choice: int) -> None:
    """One of the answers that the world may give; `choice` picks."""
    request = ask.request
    session = lane.session.id or SessionId("")
    outcomes = [PaymentOutcome.SUCCEEDED, PaymentOutcome.FAILED, PaymentOutcome.PENDING, PaymentOutcome.UNKNOWN]
    match request:
        case IdentifyFace() | RescoreFace():
            faces = [FaceOutcome.ACCEPTED, FaceOutcome.DIGITS, FaceOutcome.NOT_RECOGNISED, FaceOutcome.LOST]
            faces.append(FaceOutcome.BUSY)
            who = member(choice % 3)
            lane.tell(FaceAnswered(request.session, ask.id, faces[choice % 5], member=who, sealed=b"probe"))
        case TakeShot():
            shots = [FaceOutcome.SHOT_TAKEN, FaceOutcome.SHOT_TAKEN, FaceOutcome.BUSY, FaceOutcome.LOST]
            shots.append(FaceOutcome.QUALITY)
            why = "take_off_mask" if choice % 2 and not request.mask_asked else "more_light"
            lane.tell(FaceAnswered(request.session, ask.id, shots[choice % 5], reason=why, sealed=b"shot"))
        case EnrolFace():
            ends = [FaceOutcome.ENROLLED, FaceOutcome.SHOTS_DISAGREE, FaceOutcome.BUSY]
            lane.tell(FaceAnswered(request.session, ask.id, ends[choice % 3], templates=(TEMPLATE,)))
        case EnrolMember():
            who_now = member() if choice % 3 == 0 else None
            lane.tell(EnrolAnswered(ask.id, request.session, who_now, pending=choice % 3 == 1))
        case ReserveUses():
            lane.tell(ReserveAnswered(ask.id, request.session, choice % 3 > 0, "benefit_gone", member(0)))
        case PostUses():
            lane.tell(UsesPosted(ask.id, request.session, member(choice % 5)))
        case ReleaseUses() | ReverseUses() | PostVouchers() | ReleaseVouchers() | ReturnVouchers():
            lane.tell(ReleaseAnswered(ask.id, session))
        case PaymentRequest():
            code = ["", "closed", "refused", ""][choice % 4]
            lane.tell(lane.payment(ask.id, request, outcomes[choice % 4], code=code, collection_code="https://qr"))
        case ReserveVouchers():
            gone = () if choice % 3 else tuple(one.voucher for one in request.vouchers[:1])
            lane.tell(ReserveAnswered(ask.id, request.session, not gone, "voucher_used", gone=gone))
        case FindSale():
            lane.tell(found(lane, ask.id, choice))
        case FindMember():
            lane.tell(MemberFound(ask.id, request.session, member(choice % 4) if choice % 3 else None))
        case GrantLease():
            code = "" if choice % 3 else "benefit_gone"
            lane.tell(LeaseGranted(ask.id, request.session, GRANT if not code else None, code, member(choice % 5)))
        case EndLease():
            lane.tell(LeaseEnded(ask.id, session, "" if choice % 4 else "unknown_lease"))


def found(lane: Lane, question: str, choice: int) -> SaleFound:
    sales = lane.sales
    if not sales:
        return SaleFound(question, None, "r")
    sale = sales[choice % len(sales)]
    return SaleFound(
        question, sale.id, sale.receipt, sale.store, sale.business_date,
        voided=any(isinstance(fact, SaleVoided) and fact.sale == sale.id for fact in lane.facts),
        gross_fen=sale.gross_fen, discount_fen=sale.discount_fen, rounding_fen=sale.rounding_fen,
        tenders=sale.tenders, uses=sale.uses, entity=sale.entity, agency_fen=sale.agency_fen, lines=sale.lines,
        returns=tuple(PastReturn(back.lines, back.tenders, back.uses, back.vouchers) for back in returns(lane, sale)),
        vouchers=sale.vouchers,
    )  # fmt: skip


def returns(lane: Lane, sale: SaleMade) -> list[SaleReturned]:
    return [fact for fact in lane.facts if isinstance(fact, SaleReturned) and fact.sale == sale.id]


def end(lane: Lane) -> None:
    """The world answers well in the end: then nobody waits, and the lane is free."""
    for _ in range(60):
        for ask in list(lane.asks):
            lane.asks.remove(ask)
            well = {ReserveUses: 1, PaymentRequest: 0, EnrolMember: 0}.get(type(ask.request), 2)
            answer(lane, ask, well)
        lane.after(30)
    lane.nobody_waits()
    assert lane.session.id is None or lane.state == "closed"
    assert not lane.session.busy
    kept = repr(lane.session)
    assert not [sealed for sealed in (b"probe", b"shot") if repr(sealed) in kept], "the visit's row keeps no face"


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, len(BODIES) - 1)),
        st.tuples(st.just("event"), st.sampled_from([4, 6, 8, 10, 14, len(BODIES) - 1])),
        st.tuples(st.just("pay"), st.integers(0, 4)),
        st.tuples(st.just("answer"), st.integers(0, 11)),
        st.tuples(st.just("answer again"), st.integers(0, 11)),
        st.tuples(st.just("after"), st.sampled_from([1, 3, 4, 10, 31, 60, 301])),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(owner=st.sampled_from(OWNERS), name=st.sampled_from(list(STATES)), moves=MOVES)
def test_any_order_ends_with_everybody_answered(owner: str, name: str, moves: list[tuple[str, int]]) -> None:
    lane = in_state(name, owner)
    answered: list[Ask] = []
    for move, choice in moves:
        match move:
            case "event":
                lane.send(BODIES[choice])
            case "pay":
                due = lane.screen.due_fen if lane.screen is not None else 0
                all_cash = lane.screen.cash_due_fen if lane.screen is not None else 0
                tenders = [(cash(all_cash),), (face_pay(due),), (qr(due),), (), (cash(5), face_pay(due - 5))][choice]
                lane.confirm(*tenders, collect="till" if choice == 3 else None)
            case "answer" if lane.asks:
                ask = lane.asks.pop(choice % len(lane.asks))
                answered.append(ask)
                answer(lane, ask, choice)
            case "answer again" if answered:
                answer(lane, answered[choice % len(answered)], choice)
            case "after":
                lane.after(choice)
            case _:
                pass
    end(lane)
    orders = [tender.order for sale in lane.sales for tender in sale.tenders if tender.order]
    assert len(orders) == len(set(orders)), "one order pays one sale"
    assert len({sale.id for sale in lane.sales}) == len(lane.sales)
    assert len({sale.receipt for sale in lane.sales}) == len(lane.sales)
    uses = [use.usage for sale in lane.sales for use in sale.uses]
    assert len(uses) == len(set(uses))
    for sale in lane.sales:
        back = [tender.fen for fact in returns(lane, sale) for tender in fact.tenders]
        assert sum(back) <= sum(tender.fen for tender in sale.tenders if tender.kind is not TenderKind.COUPON)
        voided = any(isinstance(fact, SaleVoided) and fact.sale == sale.id for fact in lane.facts)
        assert not (voided and back), "a void and a return exclude each other"


# ---------------------------------------------------------------- what the states and sales are


def test_the_states_of_the_table_are_those_of_the_screen() -> None:
    """DECLINED is the protocol's; a payment that failed returns to QUOTED."""
    reached = {state for _, state in STATES.values()}
    assert reached == {str(state) for state in ScreenState} - {"declined"}


def test_a_sale_names_what_was_bought() -> None:
    lane = Lane()
    lane.book = with_vouchers(lane.book)
    lane.open()
    buy(lane, "tea", "gum")
    lane.confirm(cash(1200))
    (fact,) = [fact for fact in lane.facts if isinstance(fact, SaleMade)]
    assert [(line.code, line.net_fen) for line in fact.lines] == [("tea", 1200), ("gum", 3)]
