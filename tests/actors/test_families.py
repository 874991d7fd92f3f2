"""A terminal that software makes another family: who is believed, and what the visit that is open keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from actors.effects import Save, Tell
from actors.families import heed
from actors.stage import Stage
from actors.terminal import Terminal, receive
from actors.visit import Session
from models.domain.events import Complaint, Event, Traits
from models.domain.facts import Incident
from models.domain.ids import LaneId, MessageId, SessionId, TerminalId
from models.domain.messages import Address, FamilyMoved
from models.domain.presence import Birth, FamilyClaimed, FamilyFound, Reported
from models.domain.screen import ScreenState
from models.domain.software import Ran, Recorded, family_of, version_of
from models.domain.twin import DesiredAsked, FamilyChanged, SoftwareVersion, canonical
from tests.actors.lane import NOW, book
from tests.actors.test_terminal import ME, after, incidents, turn

OLD, NEW, IMAGE = "dragonfly 1.0.0", "dragonfly 2.0.0", "a" * 64
RECORDED = Recorded(IMAGE, "dragonfly-2")
ASKS = Traits(digits_required=True)


@pytest.mark.parametrize(
    ("ran", "recorded", "in_force", "family"),
    [
        (Ran(NEW, NEW, (IMAGE,)), RECORDED, "dragonfly-1", "dragonfly-2"),
        (Ran(NEW, NEW, ()), RECORDED, "dragonfly-1", "dragonfly-1"),  # nobody told it to run that
        (Ran(NEW, NEW, ("b" * 64,)), RECORDED, "dragonfly-1", "dragonfly-1"),
        (Ran(NEW, OLD, (IMAGE,)), RECORDED, "dragonfly-1", "dragonfly-1"),  # without a new boot
        (Ran(NEW, NEW, (IMAGE,)), None, "dragonfly-1", "dragonfly-1"),  # no image of that version
        (Ran(NEW, NEW, (IMAGE,)), Recorded(IMAGE, ""), "dragonfly-1", "dragonfly-1"),
        (Ran(OLD, OLD, (IMAGE,)), None, "dragonfly-2", "dragonfly-1"),  # rolled back, or fell back
        (Ran(OLD, NEW, (IMAGE,)), None, "dragonfly-2", "dragonfly-2"),
        (Ran("", "", ()), None, "dragonfly-2", "dragonfly-2"),
    ],
)
def test_a_family_follows_the_image_that_was_recorded_and_ordered(
    ran: Ran, recorded: Recorded | None, in_force: str, family: str
) -> None:
    assert family_of(ran, recorded, in_force, "dragonfly-1") == family


def born(software: str, boot: str, seconds: int, profile: str = "dragonfly-2") -> Birth:
    return Birth(boot, f"c{seconds}", software, profile, NOW + timedelta(seconds=seconds))


def test_a_terminal_remembers_what_it_was_told_to_run_and_what_its_boot_named() -> None:
    software = SoftwareVersion(NEW, "https://x/y", IMAGE, 9)
    terminal = after(Terminal(), born(OLD, "b1", 1), DesiredAsked(MessageId("d1"), canonical({}), software=software))
    assert terminal.ran == Ran(OLD, OLD, (IMAGE,))
    claims = after(terminal, Reported(1, "h", NEW, "b1"), born(NEW, "b1", 2))
    assert claims.ran == Ran(NEW, OLD, (IMAGE,)), "another version without a new boot"
    upgraded = after(terminal, born(NEW, "b2", 2), Reported(1, "h", NEW, "b2"), born(NEW, "b2", 3))
    assert upgraded.ran == Ran(NEW, NEW, (IMAGE,))
    back = after(upgraded, DesiredAsked(MessageId("d2"), canonical({}), no_software=True), born(OLD, "b3", 4))
    assert back.ran == Ran(OLD, OLD, (IMAGE,))


def test_the_registry_learns_it_in_the_commit_that_tells_the_lane() -> None:
    terminal = after(Terminal(), born(NEW, "b1", 1))
    made = turn(terminal, FamilyFound("dragonfly-1", "dragonfly-2", LaneId("l1"), ASKS))
    assert made.state == terminal
    saved, told = made.effects
    assert saved == Save(FamilyChanged(TerminalId(ME.id), "dragonfly-2", NEW, "b1", NOW))
    assert told == Tell(Address.session(ME.region, ME.store, LaneId("l1")), FamilyMoved(TerminalId(ME.id), ASKS))


def test_an_untrue_family_alarms_once_a_boot_and_once_an_hour() -> None:
    claim = FamilyClaimed("dragonfly-2", "dragonfly-1")
    first = turn(after(Terminal(), born(OLD, "b1", 1)), claim)
    assert incidents(first) == ["family_claimed"]
    [incident] = [one.fact for one in first.effects if isinstance(one, Save) and isinstance(one.fact, Incident)]
    assert incident.detail == "claims dragonfly-2 with dragonfly 1.0.0, is dragonfly-1"
    assert turn(first.state, claim).effects == ()
    again = after(first.state, born(OLD, "b2", 2))
    assert turn(again, claim).effects == ()
    later = receive(again, claim, ME, "cause", NOW + timedelta(hours=1))
    assert incidents(later) == ["family_claimed"]


def event(terminal: str, traits: Traits) -> Event:
    ids = (MessageId("e1"), "b1", 1, NOW, TerminalId(terminal), "face", None, None, False)
    return Event(*ids, Complaint("face"), traits)


def test_the_open_visit_goes_on_as_it_began_and_the_next_one_does_not() -> None:
    visit = Session(LaneId("l1"), SessionId("v1"), ScreenState.OPEN, rev=4)
    stage = Stage(visit, "cause", NOW, book())
    heed(stage, FamilyMoved(TerminalId("t1"), ASKS))
    heed(stage, FamilyMoved(TerminalId("t1"), Traits()))  # and another one: the first is what the visit began with
    assert stage.session.rev == 4
    kept = heed(stage, event("t1", Traits()))
    other = heed(stage, event("t2", Traits()))
    assert (kept, other) == (event("t1", ASKS), event("t2", Traits()))
    stage.session = replace(stage.session, state=ScreenState.CLOSED)
    assert heed(stage, event("t1", Traits())) == event("t1", Traits())


def test_nobody_stands_there_and_nothing_is_kept() -> None:
    stage = Stage(Session(LaneId("l1")), "cause", NOW, book())
    heed(stage, FamilyMoved(TerminalId("t1"), ASKS))
    assert stage.session.former == ()


def test_a_version_is_a_name_and_a_number() -> None:
    assert version_of("dragonfly", "2.0.0-rc1") == "dragonfly 2.0.0-rc1"
