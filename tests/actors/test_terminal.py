"""A terminal's turns: presence by connection numbers, takeover, commands with deadlines, its clock, retirement."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.effects import ClockKind, Command, Desire, Save, Turn, Wake
from actors.terminal import Terminal, presence_of, receive
from models.domain.errors import Refused
from models.domain.facts import Incident
from models.domain.ids import MessageId, RegionId, StoreId, derived_id
from models.domain.messages import Address, TimerFired
from models.domain.presence import (
    Birth,
    CommandResponse,
    Death,
    GapSkipped,
    PresenceAsked,
    Reported,
    Retired,
    SkewFound,
    TerminalMessage,
)
from models.domain.twin import (
    COMMANDS_PENDING_MAX,
    CommandAnswered,
    CommandAsked,
    CommandRecord,
    CommandStatus,
    DesiredAsked,
    DesiredRecord,
    Sync,
    TerminalRetired,
    canonical,
)
from tests.actors.lane import NOW

ME = Address(RegionId("north"), StoreId("s1"), "terminal", "s1-a")
BASE = canonical({"language": "zh", "basket_owner": "pos"})


def turn(terminal: Terminal, message: TerminalMessage | TimerFired, now: datetime = NOW) -> Turn[Terminal]:
    return receive(terminal, message, ME, derived_id(str(message), str(now)), now)


def after(terminal: Terminal, *messages: TerminalMessage | TimerFired, now: datetime = NOW) -> Terminal:
    for message in messages:
        terminal = turn(terminal, message, now).state
    return terminal


def birth(conn: str, boot: str = "b1", at: datetime = NOW) -> Birth:
    return Birth(boot, conn, "agent 1.0", "dragonfly-2", at)


def facts(made: Turn[Terminal]) -> list[object]:
    return [effect.fact for effect in made.effects if isinstance(effect, Save)]


def incidents(made: Turn[Terminal]) -> list[str]:
    return [fact.kind for fact in facts(made) if isinstance(fact, Incident)]


# ---------------------------------------------------------------- presence


def test_born_reported_and_gone() -> None:
    terminal = after(Terminal(), birth("c1"))
    assert (terminal.online, terminal.profile, terminal.births) == (True, "dragonfly-2", 1)
    terminal = after(terminal, Reported(7, "hash", "agent 1.1", "b1", '{"outbox_bytes":3}'))
    assert (terminal.applied_gen, terminal.software, terminal.health) == (7, "agent 1.1", '{"outbox_bytes":3}')
    gone = after(terminal, Death("b1", "c1"), now=NOW + timedelta(seconds=15))
    assert (gone.online, gone.changed_at) == (False, NOW + timedelta(seconds=15))


def test_the_will_of_an_older_connection_says_nothing() -> None:
    terminal = after(Terminal(), birth("c1"), birth("c2", at=NOW + timedelta(seconds=1)))
    assert after(terminal, Death("b1", "c1")) == terminal
    assert not after(terminal, Death("b1", "c2")).online


def test_a_birth_delivered_twice_counts_once_and_an_older_one_never_comes_back() -> None:
    second = birth("c2", at=NOW + timedelta(seconds=1))
    terminal = after(Terminal(), birth("c1"), birth("c1"), second)
    assert terminal.births == 2
    assert after(terminal, birth("c1")) == terminal  # redelivered after a lost acknowledgement
    assert after(terminal, Death("b1", "c1")).online


@given(st.lists(st.sampled_from(["birth", "death", "old birth", "old death"]), max_size=30))
def test_presence_follows_the_newest_connection_whatever_comes_late(steps: list[str]) -> None:
    terminal, made, online, at = Terminal(), 0, False, NOW
    for step in steps:
        at += timedelta(seconds=1)
        if step == "birth":
            made, online = made + 1, True
            terminal = after(terminal, birth(f"c{made}", at=NOW + timedelta(seconds=made)), now=at)
        elif step == "death" and made:
            online = False
            terminal = after(terminal, Death("b1", f"c{made}"), now=at)
        elif step == "old birth" and made > 1:
            terminal = after(terminal, birth(f"c{made - 1}", at=NOW + timedelta(seconds=made - 1)), now=at)
        elif step == "old death" and made > 1:
            terminal = after(terminal, Death("b1", f"c{made - 1}"), now=at)
        assert terminal.online == online
        assert terminal.takeovers == 0


def test_two_devices_with_one_id_push_each_other_out_and_that_is_an_incident() -> None:
    at = NOW
    terminal, told = Terminal(), 0
    for n in range(6):
        at += timedelta(seconds=30)
        made = turn(terminal, birth(f"c{n}", boot="ab"[n % 2], at=at), at)
        terminal, told = made.state, told + len(incidents(made))
    assert (terminal.takeovers, told) == (4, 1)  # the third connection is the first that proves it; told once an hour
    assert presence_of(terminal, ME).takeover_at == at
    rebooted = after(terminal, birth("c9", boot="c", at=at + timedelta(minutes=1)))
    assert rebooted.takeovers == 4


def test_who_does_not_answer_a_resync_is_unknown_and_a_birth_makes_it_known() -> None:
    asked = PresenceAsked(MessageId("r1"))
    made = turn(after(Terminal(), birth("c1")), asked)
    [wake] = [effect for effect in made.effects if isinstance(effect, Wake)]
    assert (wake.clock, wake.ref) == (ClockKind.WALL, "r1")
    fired = TimerFired(wake.kind, wake.ref, NOW)
    answered = after(made.state, birth("c1", at=NOW + timedelta(seconds=2)), fired)
    assert (answered.online, answered.known) == (True, True)
    silent = after(made.state, fired)
    assert (silent.online, silent.known) == (False, False)
    assert after(silent, birth("c2", at=NOW + timedelta(minutes=5))).known
    assert after(Terminal(), asked).resynced == "r1"  # who is known to be away has no deadline
    assert not turn(Terminal(), asked).effects


# ---------------------------------------------------------------- desired and reported


def desired(terminal: Terminal, change: str = "d1", patch: str | None = None, **more: object) -> Turn[Terminal]:
    return turn(terminal, DesiredAsked(MessageId(change), BASE, patch, **more))  # type: ignore[arg-type]


def test_a_generation_is_recorded_before_it_is_published_and_compared_with_the_report() -> None:
    made = desired(after(Terminal(), birth("c1")))
    [record] = [fact for fact in facts(made) if isinstance(fact, DesiredRecord)]
    [told] = [effect for effect in made.effects if isinstance(effect, Desire)]
    assert (record.gen, record.config, told.gen, told.config) == (1, BASE, 1, BASE)
    behind = after(made.state, Reported(0, "", "agent 1.0", "b1"))
    assert (behind.sync, behind.behind_since) == (Sync.BEHIND, NOW)
    there = after(behind, Reported(1, record.config_hash, "agent 1.0", "b1"), now=NOW + timedelta(seconds=9))
    assert (there.sync, there.behind_since) == (Sync.IN_SYNC, None)
    liar = after(there, Reported(1, "another", "agent 1.0", "b1"), now=NOW + timedelta(minutes=1))
    assert (liar.sync, liar.behind_since) == (Sync.DIFFERS, NOW + timedelta(minutes=1))


def test_a_terminal_ahead_of_us_gets_a_generation_it_cannot_ignore_once_a_boot() -> None:
    terminal = after(desired(after(Terminal(), birth("c1"))).state, Reported(40, "x", "agent 1.0", "b1"))
    assert terminal.sync is Sync.AHEAD
    leapt = desired(terminal, "l1", leap=True).state
    assert leapt.desired.gen == 41
    lying = after(leapt, Reported(99, "x", "agent 1.0", "b1"))
    assert desired(lying, "l2", leap=True).state == lying
    rebooted = after(lying, birth("c2", boot="b2", at=NOW + timedelta(seconds=1)))
    assert desired(rebooted, "l3", leap=True).state.desired.gen == 100


# ---------------------------------------------------------------- commands


def command(n: str = "k1", verb: str = "reboot", deadline_s: int = 10) -> CommandAsked:
    return CommandAsked(MessageId(n), verb, (("text", "x"),), deadline_s)


def test_a_command_is_recorded_told_once_and_answered() -> None:
    made = turn(Terminal(), command())
    [record] = [fact for fact in facts(made) if isinstance(fact, CommandRecord)]
    assert record.command.deadline_at == NOW + timedelta(seconds=10)
    assert [effect for effect in made.effects if isinstance(effect, Command)] == [Command(record.command)]
    assert not turn(made.state, command()).effects  # asked again under the same id
    running = turn(made.state, CommandResponse(MessageId("k1"), "running", "half"))
    assert facts(running) == [CommandAnswered(MessageId("k1"), CommandStatus.RUNNING, "half", NOW)]
    assert not turn(running.state, CommandResponse(MessageId("k1"), "accepted", "")).effects  # overtaken
    done = turn(running.state, CommandResponse(MessageId("k1"), "done", ""))
    assert done.state.pending == ()
    assert not turn(done.state, command()).effects
    assert not turn(done.state, TimerFired("command", "k1", NOW)).effects
    assert done.state.awaits(MessageId("k1"))


def test_a_command_without_an_answer_expires_and_a_late_answer_is_recorded_once() -> None:
    asked = turn(Terminal(), command()).state
    expired = turn(asked, TimerFired("command", "k1", NOW))
    assert facts(expired) == [CommandAnswered(MessageId("k1"), CommandStatus.EXPIRED, "", NOW)]
    late = turn(expired.state, CommandResponse(MessageId("k1"), "done", "sorry"))
    assert facts(late) == [CommandAnswered(MessageId("k1"), CommandStatus.DONE, "sorry", NOW, late=True)]
    assert turn(late.state, CommandResponse(MessageId("k1"), "done", "sorry")).state == late.state


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    stranger = CommandResponse(MessageId("k9"), "done", "")
    terminal = turn(Terminal(), command()).state
    assert turn(terminal, stranger) == Turn(terminal)
    assert not terminal.awaits(stranger.command)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (command(verb="explode"), "unknown_verb"),
        (command(deadline_s=31), "bad_deadline"),
        (command(deadline_s=0), "bad_deadline"),
        (replace(command(), args=(("no name", 1),)), "bad_args"),
        (replace(command(), args=(("text", "x" * 513),)), "bad_args"),
    ],
)
def test_commands_that_make_no_sense(asked: CommandAsked, code: str) -> None:
    with pytest.raises(Refused) as refused:
        turn(Terminal(), asked)
    assert refused.value.code == code


def test_commands_are_bounded() -> None:
    terminal = after(Terminal(), *(command(f"k{n}") for n in range(COMMANDS_PENDING_MAX)))
    with pytest.raises(Refused, match="8 commands"):
        turn(terminal, command("one more"))


# ---------------------------------------------------------------- clock, gaps, retirement


def test_a_wrong_clock_is_one_incident_an_hour() -> None:
    made = turn(Terminal(), SkewFound(400_000, True))
    assert incidents(made) == ["clock_skew"]
    right = after(made.state, SkewFound(100, False))
    assert not right.skew_alarm
    assert incidents(turn(right, SkewFound(400_000, True), NOW + timedelta(minutes=59))) == []
    assert incidents(turn(right, SkewFound(400_000, True), NOW + timedelta(hours=1))) == ["clock_skew"]


def test_a_skipped_gap_leaves_its_mark() -> None:
    made = turn(Terminal(), GapSkipped("b1", 5, 6, "e7"))
    assert (made.state.gaps, incidents(made)) == (1, ["seq_gap"])
    again = turn(made.state, GapSkipped("b1", 8, 8, "e9"), NOW + timedelta(minutes=5))
    assert (again.state.gaps, incidents(again)) == (2, [])


def test_a_retired_terminal_is_forgotten_but_for_its_generation() -> None:
    terminal = after(desired(after(Terminal(), birth("c1"))).state, command())
    made = turn(terminal, Retired())
    assert TerminalRetired in {type(fact) for fact in facts(made)}
    assert CommandAnswered(MessageId("k1"), CommandStatus.EXPIRED, "retired", NOW) in facts(made)
    assert (made.state.online, made.state.desired.gen) == (False, 1)
    assert desired(made.state, "d2").state.desired.gen == 2
