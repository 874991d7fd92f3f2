"""Becoming a member: with and without shots, before and after paying, stopped, lost, withdrawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.enrolling import ROUNDS_MAX
from actors.identifying import MISSES_MAX
from actors.ports import EnrolFace, EnrolMember, TakeShot
from models.domain.events import Confirm, Enrol, FaceShown, Identify, Purpose, Scan, SessionOpen
from models.domain.facts import TemplateMade
from models.domain.ids import MemberId, PlanId
from models.domain.messages import EnrolAnswered, FaceOutcome, KeyRow, MemberView, SealedTemplate, TemplateRow
from models.domain.plans import GuaranteeKind
from tests.actors.lane import JPEG, PLAN, Lane, buy, cancel, cash, member

FACE = FaceShown(JPEG, "frame")
ENROL = Enrol(PLAN.id, "huabei_hold", phone="13800000000")
TEMPLATE = SealedTemplate(
    TemplateRow("tpl", MemberId("p-1"), "net", b"sealed", "tpl", "default"), KeyRow("tpl", MemberId("p-1"), 1, b"key")
)


def membership_made(lane: Lane, who: MemberView | None = None) -> EnrolMember:
    ask, request = lane.asked(EnrolMember)
    lane.tell(EnrolAnswered(ask, request.session, who or member()))
    return request


def enrolling(*, face: bool = True, codes: tuple[str, ...] = ()) -> Lane:
    lane = Lane()
    lane.open()
    buy(lane, *codes)
    lane.consent(Purpose.MEMBERSHIP)
    if face:
        lane.consent()
        reply = lane.send(ENROL)
        assert reply is not None
        assert (reply.ok, reply.pending) == (True, True)
    else:
        lane.later(ENROL)
    assert lane.state == "enrolling"
    return lane


def take_shot(lane: Lane, sealed: bytes) -> None:
    event = lane.later(FACE)
    lane.asked(TakeShot)
    lane.face_answer(FaceOutcome.SHOT_TAKEN, sealed=sealed)
    assert lane.replies[event].ok


def test_membership_needs_its_own_consent() -> None:
    lane = Lane()
    lane.open()
    lane.consent(Purpose.RECOGNISE)
    lane.consent(Purpose.MARKETING)
    lane.refused(ENROL, "consent_missing")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (Enrol(PlanId("gold"), "huabei_hold"), "unknown_plan"),
        (Enrol(PLAN.id, "cash_deposit"), "guarantee_unavailable"),
    ],
)
def test_what_is_not_offered_is_refused(body: Enrol, code: str) -> None:
    lane = Lane()
    lane.open()
    lane.consent(Purpose.MEMBERSHIP)
    lane.refused(body, code)


def test_who_is_a_member_already_is_told_so() -> None:
    lane = Lane()
    lane.open()
    lane.identify()
    lane.consent(Purpose.MEMBERSHIP)
    lane.refused(ENROL, "already_member")


def test_three_shots_make_a_template() -> None:
    lane = enrolling(codes=("tea",))
    lane.refused(FACE, "question_open")  # the membership is made first
    assert membership_made(lane).phone == "13800000000"
    for n, sealed in enumerate((b"1", b"2", b"3"), 1):
        assert lane.prompt == "look_at_camera"
        assert lane.session.prompt is not None
        assert lane.session.prompt.params == {"shot": n, "of": 3}
        take_shot(lane, sealed)
    asked = lane.asked(EnrolFace)[1]
    assert (asked.shots, asked.member) == ((b"1", b"2", b"3"), "p-1")
    assert asked.consent == lane.session.consents[-1].event
    lane.face_answer(FaceOutcome.ENROLLED, templates=(TEMPLATE,))
    made = [fact for fact in lane.facts if isinstance(fact, TemplateMade)]
    assert [(fact.template, fact.key, fact.consent) for fact in made] == [
        (TEMPLATE.template, TEMPLATE.key, asked.consent)
    ]
    assert (lane.state, lane.prompt) == ("quoted", "member_ready")
    assert lane.screen is not None
    assert lane.screen.due_fen == 400, "the price is computed anew"
    lane.nobody_waits()


def test_without_consent_to_recognise_there_are_no_shots() -> None:
    lane = enrolling(face=False)
    lane.refused(FACE, "consent_missing")
    membership_made(lane)
    assert (lane.state, lane.prompt) == ("identified", "member_ready")
    lane.nobody_waits()


def test_a_bad_shot_is_asked_for_again() -> None:
    lane = enrolling()
    membership_made(lane)
    take_shot(lane, b"1")
    lane.later(FACE)
    lane.face_answer(FaceOutcome.QUALITY, reason="more_light")
    assert lane.prompt == "more_light"
    assert lane.session.enrolment is not None
    assert lane.session.enrolment.shots == (b"1",)
    take_shot(lane, b"2")
    assert lane.session.prompt is not None
    assert lane.session.prompt.params["shot"] == 3


def test_a_mask_is_asked_for_once_in_an_enrolment() -> None:
    lane = enrolling()
    membership_made(lane)
    lane.later(FACE)
    assert not lane.asked(TakeShot)[1].mask_asked
    lane.face_answer(FaceOutcome.QUALITY, reason="take_off_glasses")
    lane.later(FACE)
    assert not lane.asked(TakeShot)[1].mask_asked, "glasses are another matter"
    lane.face_answer(FaceOutcome.QUALITY, reason="take_off_mask")
    assert lane.prompt == "take_off_mask"
    lane.later(FACE)
    assert lane.asked(TakeShot)[1].mask_asked
    lane.face_answer(FaceOutcome.LOST)
    lane.later(FACE)
    assert lane.asked(TakeShot)[1].mask_asked, "in every round of it"


@pytest.mark.parametrize("outcome", [FaceOutcome.SHOTS_DISAGREE, FaceOutcome.LOST])
def test_shots_that_disagree_or_whose_key_is_gone_start_again_a_few_times(outcome: FaceOutcome) -> None:
    lane = enrolling()
    membership_made(lane)
    for round_ in range(1, ROUNDS_MAX + 1):
        for sealed in (b"1", b"2", b"3"):
            take_shot(lane, sealed)
        lane.asked(EnrolFace)
        lane.face_answer(outcome)
        if round_ < ROUNDS_MAX:
            assert lane.session.enrolment is not None
            assert lane.session.enrolment.shots == ()
            assert lane.session.prompt is not None
            assert lane.session.prompt.params["shot"] == 1
    assert (lane.state, lane.prompt) == ("identified", "member_ready")
    assert not [fact for fact in lane.facts if isinstance(fact, TemplateMade)]


def test_a_shot_lost_by_a_restart_starts_the_shots_again() -> None:
    lane = enrolling()
    membership_made(lane)
    take_shot(lane, b"1")
    event = lane.later(FACE)
    lane.after(3)
    error = lane.replies[event].error
    assert error is not None
    assert error.code == "face_lost"
    assert lane.session.prompt is not None
    assert lane.session.prompt.params == {"shot": 1, "of": 3}
    lane.nobody_waits()


def test_the_template_question_has_its_deadline_too() -> None:
    lane = enrolling()
    membership_made(lane)
    for sealed in (b"1", b"2", b"3"):
        take_shot(lane, sealed)
    lane.after(3)
    assert lane.session.enrolment is not None
    assert lane.session.enrolment.rounds == 1


def test_a_refused_enrolment_goes_on_where_the_customer_is_now() -> None:
    lane = enrolling(face=False)
    buy(lane, "tea")
    assert lane.state == "enrolling"
    ask, request = lane.asked(EnrolMember)
    lane.tell(EnrolAnswered(ask, request.session, None, code="bad_phone"))
    assert (lane.state, lane.prompt) == ("quoted", "enrol_failed")
    error = list(lane.replies.values())[-1].error
    assert error is not None
    assert error.code == "bad_phone"
    reply = lane.confirm(cash(1200))
    assert reply is not None
    assert reply.ok


def test_a_hold_that_waits_for_the_phone() -> None:
    lane = enrolling(face=False)
    ask, request = lane.asked(EnrolMember)
    lane.tell(EnrolAnswered(ask, request.session, None, pending=True))
    assert lane.prompt == "authorise_on_phone"
    lane.after(10)
    event = next(reversed(lane.sent))
    assert lane.replies[event].pending
    lane.tell(EnrolAnswered(ask, request.session, member()))
    assert lane.prompt == "member_ready"


def test_a_hold_that_nobody_authorises_is_given_up() -> None:
    lane = enrolling(face=False)
    ask, request = lane.asked(EnrolMember)
    for _ in range(4):  # somebody scans meanwhile, so the visit is not idle
        lane.after(230)
        buy(lane, "gum")
    assert lane.state == "quoted"
    lane.tell(EnrolAnswered(ask, request.session, member()))
    assert lane.session.member is None, "the answer came to nobody"


@pytest.mark.parametrize("shots", [0, 1])
def test_cancel_ends_the_question_and_leaves_the_membership(shots: int) -> None:
    lane = enrolling()
    membership_made(lane)
    for _ in range(shots):
        take_shot(lane, b"1")
    event = lane.later(FACE)
    cancel(lane)
    assert lane.replies[event].ok
    assert lane.state == "identified"
    assert lane.session.member == member()


def test_cancel_before_the_membership_is_made() -> None:
    lane = enrolling(face=False)
    cancel(lane)
    error = lane.replies[list(lane.sent)[-2]].error
    assert error is not None
    assert error.code == "enrol_refused"
    membership_made(lane)
    assert lane.session.member is None
    lane.nobody_waits()


@pytest.mark.parametrize("when", ["before_membership", "before_shot", "during_shot", "template"])
def test_consent_withdrawn_while_enrolling(when: str) -> None:
    lane = enrolling()
    if when != "before_membership":
        membership_made(lane)
    if when == "during_shot":
        lane.later(FACE)
    if when == "template":
        for sealed in (b"1", b"2", b"3"):
            take_shot(lane, sealed)
    lane.consent(granted=False)
    if when == "before_membership":
        membership_made(lane)
    assert (lane.state, lane.session.question, lane.session.enrolment) == ("identified", None, None)
    lane.refused(FACE, "consent_missing")
    lane.nobody_waits()


def test_enrolment_on_the_result_page_is_not_cut_off() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    lane.confirm(cash(1200))
    lane.consent(Purpose.MEMBERSHIP)
    lane.consent()
    assert lane.prompt == "thank_you", "a consent after paying asks for no probe"
    lane.refused(FACE, "not_now")
    lane.send(ENROL)
    membership_made(lane)
    lane.after(29)
    take_shot(lane, b"1")
    lane.after(2)
    assert lane.state == "enrolling"
    take_shot(lane, b"2")
    take_shot(lane, b"3")
    lane.face_answer(FaceOutcome.ENROLLED, templates=(TEMPLATE,))
    assert (lane.state, lane.prompt) == ("paid", "member_ready")
    lane.after(31)
    assert lane.state == "closed"


def test_nothing_is_confirmed_while_enrolling() -> None:
    lane = enrolling(codes=("tea",))
    lane.refused(Confirm(lane.session.rev, (cash(1200),)), "not_now")
    lane.refused(ENROL, "question_open")


def test_the_next_customer_ends_an_enrolment() -> None:
    lane = enrolling(face=False)
    lane.ok(SessionOpen())
    lane.ok(Scan("tea", 1))
    error = lane.replies[list(lane.sent)[-3]].error
    assert error is not None
    assert error.code == "session_gone"
    lane.nobody_waits()


def test_whose_number_it_is_cannot_be_tried_out_by_enrolling() -> None:
    lane = Lane()
    for n in range(MISSES_MAX):
        lane.open()
        lane.consent(Purpose.MEMBERSHIP)
        lane.later(Enrol(PLAN.id, "huabei_hold", f"138000000{n:02d}"))
        ask, request = lane.asked(EnrolMember)
        lane.tell(EnrolAnswered(ask, request.session, None, code="already_member" if n % 2 else "enrol_refused"))
    lane.open()
    lane.consent(Purpose.MEMBERSHIP)
    lane.refused(Enrol(PLAN.id, "huabei_hold", "13900000000"), "identify_exhausted")
    lane.refused(Identify("phone", "13900000000"), "identify_exhausted")
    lane.later(Enrol(PLAN.id, "huabei_hold"))


def offered(lane: Lane) -> tuple[str, ...]:
    assert lane.screen is not None
    return next(one.guarantees for one in lane.screen.offers if one.id == PLAN.id)


def test_who_was_refused_one_guarantee_is_offered_the_others_for_this_visit() -> None:
    lane = enrolling(face=False, codes=("tea",))
    ask, request = lane.asked(EnrolMember)
    lane.tell(EnrolAnswered(ask, request.session, None, code="enrol_refused", instead=("cash_deposit",)))
    assert (offered(lane), lane.prompt) == (("cash_deposit",), "enrol_failed")
    lane.later(ENROL)
    ask, request = lane.asked(EnrolMember)
    lane.tell(EnrolAnswered(ask, request.session, None, code="bad_phone"))
    assert offered(lane) == ("cash_deposit",), "another refusal says nothing about guarantees"
    lane.open("the next customer")
    buy(lane, "tea")
    assert offered(lane) == PLAN.guarantees


def test_the_members_own_money_needs_who_may_give_it() -> None:
    lane = Lane()
    own = (GuaranteeKind.BALANCE_HOLD, GuaranteeKind.CASH_DEPOSIT)
    plans = {PLAN.id: replace(PLAN, guarantees=own)}
    lane.book = replace(lane.book, chain_book=replace(lane.book.chain_book, plans=plans))
    lane.open()
    lane.consent(Purpose.MEMBERSHIP)
    balance, deposit = Enrol(PLAN.id, "balance_hold"), Enrol(PLAN.id, "cash_deposit")
    lane.refused(balance, "member_missing")
    lane.refused(deposit, "clerk_missing")
    lane.identify(member(membership=False))
    lane.refused(balance, "second_factor_missing")
    lane.session = replace(lane.session, confirmed=lane.session.proved)
    lane.later(balance)
    assert lane.asked(EnrolMember)[1].member == member().id
