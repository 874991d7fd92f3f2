from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import Refused
from models.domain.membership import State
from models.domain.privacy import (
    GENESIS_SHA256,
    Age,
    AuditEvent,
    FaceUse,
    FilingLevel,
    RetentionPolicy,
    Standing,
    TemplateEnd,
    TemplateStanding,
    audit_sha256,
    chain_fault,
    check_erasable,
    check_four_eyes,
    filing_level,
    may_be_child,
    permits,
    template_end,
    template_permitted,
    withdraws,
)

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = RetentionPolicy(365, 90, 90)


def ago(days: float) -> datetime:
    return NOW - days * DAY


@pytest.mark.parametrize(
    ("standing", "end"),
    [
        (TemplateStanding(ago(10)), None),
        (TemplateStanding(ago(364.99)), None),
        (TemplateStanding(ago(365)), TemplateEnd.IDLE),
        (TemplateStanding(ago(900), last_visit_at=ago(364)), None),
        (TemplateStanding(ago(900), last_visit_at=ago(365)), TemplateEnd.IDLE),
        (TemplateStanding(ago(1), last_visit_at=ago(900)), None),
        (TemplateStanding(ago(100), membership_ended_at=ago(89.99)), None),
        (TemplateStanding(ago(100), membership_ended_at=ago(90)), TemplateEnd.MEMBERSHIP_ENDED),
        (TemplateStanding(ago(200), ago(1), ago(95)), TemplateEnd.MEMBERSHIP_ENDED),
        (TemplateStanding(ago(200), ago(1), ago(95), consented_at=ago(94)), None),
        (TemplateStanding(ago(200), ago(1), ago(95), consented_at=ago(96)), TemplateEnd.MEMBERSHIP_ENDED),
        (TemplateStanding(ago(900), ago(400), ago(450), consented_at=ago(400)), TemplateEnd.IDLE),
        (TemplateStanding(ago(1), age=Age(marked_under_14=True)), TemplateEnd.UNDER_14),
        (TemplateStanding(ago(1), age=Age(marked_under_14=True, guardian_consent="g-1")), None),
        (TemplateStanding(ago(1), age=Age(birth_year=2012)), TemplateEnd.UNDER_14),
        (TemplateStanding(ago(1), age=Age(birth_year=2011)), None),
    ],
)
def test_when_a_template_must_go(standing: TemplateStanding, end: TemplateEnd | None) -> None:
    assert template_end(standing, POLICY, NOW) is end


@given(st.integers(0, 2_000), st.integers(0, 2_000), st.integers(1, 1_000), st.integers(1, 1_000))
def test_a_template_that_must_go_never_comes_back_into_time(made: int, seen: int, idle: int, after: int) -> None:
    standing = TemplateStanding(ago(made), last_visit_at=ago(seen), membership_ended_at=ago(made))
    policy = RetentionPolicy(idle, after, 1)
    if template_end(standing, policy, NOW) is not None:
        assert template_end(standing, policy, NOW + DAY) is not None


@pytest.mark.parametrize("days", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_is_kept_for_no_time(days: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="one day"):
        RetentionPolicy(*days)


@pytest.mark.parametrize(
    ("age", "child"),
    [
        (Age(birth_year=2011), False),
        (Age(birth_year=2012), True),
        (Age(birth_year=2026), True),
        (Age(), False),
        (Age(birth_year=1980, marked_under_14=True), True),
    ],
)
def test_who_may_still_be_under_14_in_2026(age: Age, child: bool) -> None:
    assert may_be_child(age, 2026) is child
    assert template_permitted(age, 2026) is not child
    assert template_permitted(replace(age, guardian_consent="g-1"), 2026)


def test_of_whom_no_age_is_known_a_template_may_be() -> None:
    assert template_permitted(None, 2026)


@pytest.mark.parametrize("use", FaceUse)
def test_without_a_visit_s_consent_nothing_is_done_with_a_face(use: FaceUse) -> None:
    assert not permits(use, visit_consent=False, standing=Standing(tuple(FaceUse)))


@pytest.mark.parametrize("use", [FaceUse.REEMBED, FaceUse.ADAPT])
def test_a_stored_template_is_touched_under_a_standing_consent_that_covers_it(use: FaceUse) -> None:
    assert permits(use, visit_consent=True, standing=Standing((use,)))
    assert not permits(use, visit_consent=True, standing=Standing((FaceUse.PROBE,)))
    assert not permits(use, visit_consent=True, standing=Standing((use,), withdrawn=True))
    assert not permits(use, visit_consent=True, standing=None)


def test_a_probe_needs_the_visit_s_consent_alone() -> None:
    assert permits(FaceUse.PROBE, visit_consent=True, standing=None)


@pytest.mark.parametrize(
    ("granted", "before", "identified", "erases"),
    [
        (False, True, True, True),
        (False, False, True, False),
        (False, True, False, False),
        (True, True, True, False),
    ],
)
def test_what_a_consent_event_withdraws(granted: bool, before: bool, identified: bool, erases: bool) -> None:
    assert withdraws(granted=granted, granted_before=before, identified=identified) is erases


@pytest.mark.parametrize("state", State)
def test_a_person_with_open_money_is_not_erased(state: State) -> None:
    over = state in {State.CLOSED, State.WRITTEN_OFF, State.REJECTED, State.ABANDONED}
    if over:
        check_erasable([("m-1", state)])
        return
    with pytest.raises(Refused) as refused:
        check_erasable([("m-0", State.CLOSED), ("m-1", state)])
    assert refused.value.code == "membership_open"
    assert "m-1" in refused.value.message
    assert "m-0" not in refused.value.message
    assert refused.value.do


def test_whoever_asked_does_not_approve() -> None:
    check_four_eyes("member:m", "console:a")
    check_four_eyes("member:a", "console:a")
    check_four_eyes("cli:b", "console:a")
    for again in ("cli:a", "console:a"):
        with pytest.raises(Refused, match="the one who asked"):
            check_four_eyes("console:a", again)
    with pytest.raises(Refused) as refused:
        check_four_eyes("console:a", "console:a")
    assert refused.value.code == "four_eyes"


@pytest.mark.parametrize(
    ("faces", "level"),
    [
        (0, FilingLevel.WELL),
        (79_999, FilingLevel.WELL),
        (80_000, FilingLevel.NEAR),
        (99_999, FilingLevel.NEAR),
        (100_000, FilingLevel.OVER),
        (1_000_000, FilingLevel.OVER),
    ],
)
def test_how_near_the_filing_threshold_is(faces: int, level: FilingLevel) -> None:
    assert filing_level(faces) is level


def chain(length: int) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    prev = GENESIS_SHA256
    for n in range(1, length + 1):
        digest = audit_sha256(n, NOW, "kind", "member", "tests", {"n": n}, prev)
        events.append(AuditEvent(n, NOW, "kind", "member", "tests", {"n": n}, prev, digest))
        prev = digest
    return events


def test_the_digest_does_not_depend_on_the_zone_or_on_the_order_of_keys() -> None:
    elsewhere = NOW.astimezone()
    one = audit_sha256(1, NOW, "k", "s", "b", {"a": 1, "b": "撤回"}, GENESIS_SHA256)
    assert one == audit_sha256(1, elsewhere, "k", "s", "b", {"b": "撤回", "a": 1}, GENESIS_SHA256)


@given(st.integers(0, 4), st.sampled_from(["n", "kind", "subject", "by", "detail", "at", "prev_sha256", "sha256"]))
def test_no_field_of_an_event_can_be_changed_unseen(at: int, name: str) -> None:
    events = chain(5)
    assert chain_fault(events, 0, GENESIS_SHA256) is None
    other = {"n": 9, "detail": {"n": 9}, "at": NOW + timedelta(microseconds=1)}.get(name, "0" * 63 + "1")
    events[at] = replace(events[at], **{name: other})  # type: ignore[arg-type]
    assert chain_fault(events, 0, GENESIS_SHA256) is not None
