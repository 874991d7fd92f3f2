"""Every member of a lane gets the screen that its role needs and its family can show; prices never differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import codec
from devices.profiles import PROFILES, Role, TerminalProfile, require_role, traits_of
from devices.profiles.fitting import CLERK_ACTIONS, clip, fit, views
from models.domain.errors import Refused
from models.domain.ids import LaneId, MessageId, RegionId, SessionId, StoreId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.domain.screen import Prompt, Screen, ScreenLine, ScreenState, Suggestion
from models.domain.texts import prompt
from runtime.publisher import LaneScreen
from tests.devices.support import encoded, event_document

PLUS, EXTENSION, TILL = PROFILES["dragonfly-plus"], PROFILES["dragonfly-extension"], PROFILES["till"]
DRAGONFLY, KIOSK, PARKING, VENDING = (PROFILES[n] for n in ("dragonfly-2", "kiosk", "parking", "vending"))


def line(n: int, name: str = "Curry chicken rice with a fried egg") -> ScreenLine:
    return ScreenLine(n, f"c{n}", name, 1, 1590, 800, 790, "8-yuan coupon")


ACTIONS = (
    "confirm", "consent", "face", "digits", "cancel", "enrol", "scan", "remove", "basket", "amount", "paid",
    "age_check", "void", "return", "voucher",
)  # fmt: skip
FULL = Screen(
    SessionId("v"),
    9,
    ScreenState.QUOTED,
    lines=tuple(line(n) for n in range(1, 11)),
    gross_fen=15_900,
    discount_fen=8_000,
    due_fen=7_900,
    cash_due_fen=7_900,
    suggestions=(Suggestion("tea", "Tea", "goes with rice"),),
    prompt=prompt("welcome", "zh"),
    actions=ACTIONS,
)
PLAIN = replace(FULL, actions=("confirm", "consent", "face", "cancel", "enrol", "scan", "remove"))


def test_a_full_display_shows_the_very_same_object() -> None:
    assert fit(PLAIN, DRAGONFLY, Role.FACE) is PLAIN
    without_camera = replace(PLAIN, actions=tuple(a for a in PLAIN.actions if a != "face"))
    assert fit(without_camera, TILL, Role.TILL) is without_camera


def test_what_is_the_clerks_is_never_offered_to_the_customer() -> None:
    for profile in PROFILES.values():
        for role in profile.roles:
            shown = set(fit(FULL, profile, role).actions)
            reads = role in (Role.TILL, Role.CLERK) or (role is Role.FACE and profile is PLUS)
            assert bool(shown & CLERK_ACTIONS) == reads, (profile.name, role)
    customer = fit(FULL, PLUS, Role.CUSTOMER)
    assert customer.suggestions == ()
    assert fit(FULL, PLUS, Role.CLERK).suggestions == FULL.suggestions


def test_actions_are_those_that_the_hardware_can_do() -> None:
    assert "face" not in fit(FULL, TILL, Role.TILL).actions
    assert {"basket", "paid"} <= set(fit(FULL, TILL, Role.TILL).actions)
    assert not {"basket", "paid"} & set(fit(FULL, DRAGONFLY, Role.FACE).actions)
    gate = set(fit(FULL, PARKING, Role.SELF).actions)
    assert "amount" in gate
    assert not gate & {"scan", "remove", "basket", "face", "digits", "age_check"}
    machine = set(fit(FULL, VENDING, Role.SELF).actions)
    assert {"amount", "scan", "confirm"} <= machine
    assert not machine & {"age_check", "void", "paid"}
    assert "scan" not in fit(FULL, EXTENSION, Role.CUSTOMER).actions


def test_a_display_without_lines_has_the_totals() -> None:
    shown = fit(FULL, EXTENSION, Role.CUSTOMER)
    assert shown.lines == ()
    assert (shown.due_fen, shown.discount_fen, shown.rev) == (7_900, 8_000, 9)
    narrow = fit(FULL, VENDING, Role.SELF)
    assert [one.line for one in narrow.lines] == [10], "the newest line"
    assert [one.line for one in fit(FULL, PROFILES["dragonfly-1"], Role.FACE).lines] == list(range(3, 11))
    short = replace(FULL, lines=(line(1),))
    assert [one.line for one in fit(short, PROFILES["dragonfly-1"], Role.FACE).lines] == [1]


def test_a_member_without_keypad_sends_the_customer_to_the_one_that_has_it() -> None:
    asked = Screen(
        SessionId("v"), 3, ScreenState.DIGITS, prompt=prompt("ask_digits", "en"), actions=("digits", "cancel")
    )
    beside = fit(asked, EXTENSION, Role.CUSTOMER, [EXTENSION, PLUS])
    assert beside.prompt == prompt("digits_elsewhere", "en")
    assert beside.actions == ("cancel",)
    alone = fit(asked, EXTENSION, Role.CUSTOMER, [EXTENSION])
    assert alone.prompt == prompt("not_recognised", "en")
    assert fit(asked, PLUS, Role.FACE, [EXTENSION, PLUS]) is asked
    in_chinese = replace(asked, prompt=prompt("ask_digits", "zh"))
    assert fit(in_chinese, PARKING, Role.SELF, [PLUS]).prompt == prompt("digits_elsewhere", "zh")


def test_an_age_is_checked_only_where_somebody_of_the_shop_stands() -> None:
    asked = replace(PLAIN, prompt=prompt("age_check", "en"))
    assert fit(asked, KIOSK, Role.SELF, [KIOSK]).prompt == prompt("no_clerk", "en")
    assert fit(asked, KIOSK, Role.SELF, [KIOSK, TILL]) is asked
    assert fit(asked, TILL, Role.TILL, [TILL]).prompt == asked.prompt


def test_a_display_of_one_alphabet_speaks_its_language() -> None:
    latin = replace(EXTENSION, languages=("en",))
    assert fit(FULL, latin, Role.CUSTOMER).prompt == prompt("welcome", "en")
    of_later = replace(FULL, prompt=Prompt("hologram", {}, "看这里"))
    assert fit(of_later, latin, Role.CUSTOMER).prompt == of_later.prompt


def test_two_screens_of_one_device() -> None:
    both = views(FULL, PLUS)
    assert set(both) == {Role.CUSTOMER, Role.CLERK}
    assert "age_check" in both[Role.CLERK].actions
    assert "face" in both[Role.CUSTOMER].actions
    assert "face" not in both[Role.CLERK].actions
    assert both[Role.CUSTOMER].due_fen == both[Role.CLERK].due_fen


def test_text_is_cut_by_columns() -> None:
    assert clip("Tea", 3) == "Tea"
    assert clip("Oolong", 4) == "Ool…"
    assert clip("叉烧饭", 6) == "叉烧饭"
    assert clip("叉烧饭", 5) == "叉烧…"
    assert clip("叉烧饭", 4) == "叉…"


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_cut_text_always_fits(text: str, columns: int) -> None:
    assert len(clip(text, columns)) <= columns or clip(text, columns) == text


@given(st.sampled_from(sorted(PROFILES)), st.sampled_from(list(ScreenState)), st.sets(st.sampled_from(ACTIONS)))
def test_money_state_and_revision_are_the_lanes(name: str, state: ScreenState, actions: set[str]) -> None:
    screen = replace(FULL, state=state, actions=tuple(sorted(actions)))
    profile = PROFILES[name]
    for role in profile.roles:
        shown = fit(screen, profile, role, [profile])
        for field in (
            "session",
            "rev",
            "state",
            "gross_fen",
            "discount_fen",
            "due_fen",
            "cash_due_fen",
            "paid",
            "receipt",
        ):
            assert getattr(shown, field) == getattr(screen, field)
        assert set(shown.actions) <= actions
        assert fit(shown, profile, role, [profile]) == shown, "fitting twice changes nothing"


def member(terminal: str, profile: TerminalProfile, role: Role) -> RegisteredTerminal:
    return RegisteredTerminal(TerminalId(terminal), StoreId("s"), RegionId("south"), LaneId("l"), role, profile.name)


def test_a_lane_encodes_each_view_once() -> None:
    faces = [member(f"f{n}", DRAGONFLY, Role.FACE) for n in range(3)]
    plus, display = member("p", PLUS, Role.FACE), member("e", EXTENSION, Role.CUSTOMER)
    unknown = replace(faces[0], terminal=TerminalId("u"), profile="of-a-later-release")
    lane = LaneScreen(PLAIN, [*faces, plus, display, unknown])
    whole = lane.bytes_for(faces[0])
    assert whole == codec.encode_screen(PLAIN)
    assert all(lane.bytes_for(one) is whole for one in (*faces, plus, unknown))
    assert codec.decode_screen(lane.bytes_for(display)).lines == ()


def test_the_door_adds_what_a_visit_must_know_of_the_family() -> None:
    old = member("t", PROFILES["dragonfly-1"], Role.FACE)
    event = codec.decode_event(encoded(event_document()), old)
    assert event.traits.digits_required
    face = {"id": str(MessageId(event.id)), "boot": event.boot, "seq": "1", "kind": "frame"}
    assert codec.decode_face(b"\xff\xd8", face, old, event.ts).traits.digits_required
    assert not traits_of("dragonfly-2").digits_required
    assert not traits_of("of-a-later-release").digits_required


def test_a_family_is_registered_only_for_a_role_that_it_can_play() -> None:
    require_role(PARKING, "self")
    with pytest.raises(Refused) as caught:
        require_role(PARKING, "till")
    assert caught.value.code == "unfit_role"
    assert "self" in caught.value.do
