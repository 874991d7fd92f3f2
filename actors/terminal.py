"""One terminal as we know it: is it there, what does it run, what was it told. Customers' events go to its lane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from actors.effects import ClockKind, Command, Desire, Effect, Save, Tell, Turn, Wake
from models.domain.errors import Refused
from models.domain.facts import Incident
from models.domain.ids import MessageId, TerminalId, derived_id
from models.domain.messages import Address, FamilyMoved, IncidentNoted, TimerFired
from models.domain.presence import (
    Birth,
    CommandResponse,
    Death,
    FamilyClaimed,
    FamilyFound,
    GapSkipped,
    PresenceAsked,
    Reported,
    Retired,
    SkewFound,
    TerminalMessage,
)
from models.domain.software import RELEASES_REMEMBERED_MAX, Ran
from models.domain.twin import (
    COMMANDS_PENDING_MAX,
    CommandAnswered,
    CommandAsked,
    CommandRecord,
    CommandStatus,
    Desired,
    DesiredAsked,
    DesiredRecord,
    FamilyChanged,
    PendingCommand,
    PresenceRecord,
    Sync,
    TerminalRetired,
    change,
    goes_on,
    require_command,
    sync_of,
)

PRESENCE_DEADLINE = timedelta(seconds=35)
"""A resync expires after 30 s: who has not said that it is there by then is not."""
BOOTS_REMEMBERED_MAX = 4
COMMANDS_REMEMBERED_MAX = 8
INCIDENT_EVERY = timedelta(hours=1)

NOTHING = Desired()
COMMAND_TIMER, PRESENCE_TIMER = "command", "presence"


@dataclass(frozen=True, slots=True)
class Past:
    """A connection before the present one: what of it comes late says nothing new."""

    conn: str
    boot: str
    ts: datetime


@dataclass(frozen=True, slots=True)
class Terminal:
    """The twin's two halves. `conn` numbers the connection: a Will of an older one says nothing.

    `known` is False when the broker lost its memory and the terminal did not answer since.
    """

    online: bool = False
    known: bool = True
    boot: str = ""
    conn: str = ""
    born_ts: datetime | None = None
    software: str = ""
    profile: str = ""
    applied_gen: int | None = None
    config_hash: str = ""
    health: str = ""
    changed_at: datetime | None = None
    births: int = 0
    past: tuple[Past, ...] = ()
    takeovers: int = 0
    takeover_at: datetime | None = None
    takeover_told_at: datetime | None = None
    asked: MessageId | None = None
    """The `resync` that the terminal has not answered by a birth."""
    resynced: MessageId | None = None
    desired: Desired = NOTHING
    sync: Sync = Sync.UNKNOWN
    behind_since: datetime | None = None
    leapt_boot: str = ""
    pending: tuple[PendingCommand, ...] = ()
    expired: tuple[MessageId, ...] = ()
    ended: tuple[MessageId, ...] = ()
    """The last commands with a final answer: asked again, they are not told again."""
    skew_ms: int | None = None
    skew_alarm: bool = False
    skew_told_at: datetime | None = None
    gaps: int = 0
    """Money events that went on over messages which never came."""
    gap_told_at: datetime | None = None
    booted: str = ""
    """The software that the present boot named in its first birth."""
    releases: tuple[str, ...] = ()
    """SHA-256 of the images that it was told to run, the newest last."""
    claimed_boot: str = ""
    """The boot whose untrue family was counted."""
    claim_told_at: datetime | None = None

    @property
    def ran(self) -> Ran:
        """What its family is judged by."""
        return Ran(self.software, self.booted, self.releases)

    def awaits(self, command: MessageId) -> bool:
        """True when an answer under this id is no surprise."""
        known = (self.asked, self.resynced, *self.expired, *self.ended)
        return command in known or any(one.id == command for one in self.pending)


def receive(
    terminal: Terminal, message: TerminalMessage | TimerFired, me: Address, cause: str, now: datetime
) -> Turn[Terminal]:
    """Decide what one message does to a terminal. Pure; `now` is wall time.

    Raises Refused for a command or a change that makes no sense; what terminals say is never refused.
    """
    match message:
        case Birth():
            return _born(terminal, message, me, cause, now)
        case Death():
            if message.conn != terminal.conn:
                return Turn(terminal)
            return Turn(replace(terminal, online=False, changed_at=now, asked=None))
        case Reported():
            return _reported(terminal, message, now)
        case CommandResponse():
            return _answered(terminal, message, now)
        case PresenceAsked():
            return _asked_for_presence(terminal, message)
        case CommandAsked():
            return _commanded(terminal, message, me, now)
        case DesiredAsked():
            return _desired(terminal, message, me, now)
        case SkewFound():
            return _skewed(terminal, message, me, cause, now)
        case GapSkipped():
            return _over_a_gap(terminal, message, me, cause, now)
        case FamilyFound():
            return _another_family(terminal, message, me, now)
        case FamilyClaimed():
            return _untrue_family(terminal, message, me, cause, now)
        case Retired():
            return _retired(terminal, me, now)
        case TimerFired():
            return _fired(terminal, message, now)
        case _:
            assert_never(message)


def presence_of(terminal: Terminal, me: Address) -> PresenceRecord:
    """What pages show of it."""
    return PresenceRecord(
        store=me.store,
        online=terminal.online,
        known=terminal.known,
        software=terminal.software,
        boot=terminal.boot,
        gen=terminal.desired.gen,
        applied_gen=terminal.applied_gen,
        config_hash=terminal.config_hash,
        sync=terminal.sync,
        behind_since=terminal.behind_since,
        skew_ms=terminal.skew_ms,
        skew_alarm=terminal.skew_alarm,
        takeovers=terminal.takeovers,
        takeover_at=terminal.takeover_at,
        gaps=terminal.gaps,
        health=terminal.health,
    )


def _incident(me: Address, cause: str, kind: str, detail: str, now: datetime) -> tuple[Effect, ...]:
    incident = Incident(derived_id(cause, kind), me.store, TerminalId(me.id), kind, now, detail)
    return Save(incident), Tell(Address(me.region, me.store, "store", me.store), IncidentNoted(kind))


def _over(told_at: datetime | None, now: datetime) -> bool:
    return told_at is None or now - told_at >= INCIDENT_EVERY


# ---------------------------------------------------------------- presence


def _born(terminal: Terminal, birth: Birth, me: Address, cause: str, now: datetime) -> Turn[Terminal]:
    if any(one.conn == birth.conn and birth.ts <= one.ts for one in terminal.past):
        return Turn(terminal)  # delivered again, after the next connection was born
    past = terminal.past
    if terminal.born_ts is not None and terminal.conn != birth.conn:
        past = (*past, Past(terminal.conn, terminal.boot, terminal.born_ts))[-BOOTS_REMEMBERED_MAX:]
    born = replace(
        terminal,
        online=True,
        known=True,
        boot=birth.boot,
        conn=birth.conn,
        born_ts=birth.ts,
        software=birth.software,
        booted=birth.software if birth.boot != terminal.boot else terminal.booted,
        profile=birth.profile,
        changed_at=now,
        births=terminal.births + (birth.conn != terminal.conn),
        past=past,
        asked=None,
    )
    born = _compared(born, now)
    # A boot never comes back after another one, unless two devices use one id and push each other out.
    if birth.boot == terminal.boot or not any(one.boot == birth.boot for one in past):
        return Turn(born)
    born = replace(born, takeovers=terminal.takeovers + 1, takeover_at=now)
    if not _over(terminal.takeover_told_at, now):
        return Turn(born)
    detail = f"boots {birth.boot} and {terminal.boot} take turns"
    return Turn(replace(born, takeover_told_at=now), _incident(me, cause, "session_takeover", detail, now))


def _asked_for_presence(terminal: Terminal, message: PresenceAsked) -> Turn[Terminal]:
    if not terminal.online:
        return Turn(replace(terminal, resynced=message.command))
    asked = replace(terminal, asked=message.command, resynced=message.command)
    return Turn(asked, (Wake(ClockKind.WALL, PRESENCE_TIMER, message.command, after=PRESENCE_DEADLINE),))


def _fired(terminal: Terminal, timer: TimerFired, now: datetime) -> Turn[Terminal]:
    if timer.kind == PRESENCE_TIMER:
        if terminal.asked != timer.ref:
            return Turn(terminal)
        return Turn(replace(terminal, online=False, known=False, asked=None, changed_at=now))
    late = next((one for one in terminal.pending if one.id == timer.ref), None)
    if late is None:
        return Turn(terminal)
    expired = (*terminal.expired, late.id)[-COMMANDS_REMEMBERED_MAX:]
    left = tuple(one for one in terminal.pending if one is not late)
    answer = CommandAnswered(late.id, CommandStatus.EXPIRED, "", now)
    return Turn(replace(terminal, pending=left, expired=expired), (Save(answer),))


def _retired(terminal: Terminal, me: Address, now: datetime) -> Turn[Terminal]:
    """Everything is forgotten but the generation: who registers this id again must get a higher one."""
    ended = tuple(Save(CommandAnswered(one.id, CommandStatus.EXPIRED, "retired", now)) for one in terminal.pending)
    blank = Terminal(desired=Desired(gen=terminal.desired.gen))
    return Turn(blank, (*ended, Save(TerminalRetired(TerminalId(me.id), now))))


# ---------------------------------------------------------------- desired and reported


def _reported(terminal: Terminal, report: Reported, now: datetime) -> Turn[Terminal]:
    reported = replace(
        terminal,
        applied_gen=report.applied_gen,
        config_hash=report.config_hash,
        software=report.software,
        health=report.health,
    )
    return Turn(_compared(reported, now))


def _compared(terminal: Terminal, now: datetime) -> Terminal:
    """How it stands to its desired document, and since when it does not stand well."""
    sync = sync_of(terminal.desired, terminal.applied_gen, terminal.config_hash, terminal.software)
    since = None if sync is Sync.IN_SYNC else terminal.behind_since or now
    return replace(terminal, sync=sync, behind_since=since)


def _desired(terminal: Terminal, asked: DesiredAsked, me: Address, now: datetime) -> Turn[Terminal]:
    if asked.leap and (terminal.leapt_boot == terminal.boot or terminal.sync not in (Sync.AHEAD, Sync.DIFFERS)):
        return Turn(terminal)  # once a boot: a terminal that lies on is shown, not chased
    desired, config = change(terminal.desired, asked, terminal.applied_gen or 0)
    if desired.gen == terminal.desired.gen:
        return Turn(replace(terminal, desired=desired))
    leapt_boot = terminal.boot if asked.leap else terminal.leapt_boot
    since = terminal.behind_since if terminal.sync is not Sync.IN_SYNC else None
    next_one = replace(
        terminal, desired=desired, leapt_boot=leapt_boot, behind_since=since, releases=_releases(terminal, desired)
    )
    record = DesiredRecord(TerminalId(me.id), desired.gen, config, desired.config_hash, desired.software, now)
    return Turn(_compared(next_one, now), (Save(record), Desire(desired.gen, config, desired.software)))


def _releases(terminal: Terminal, desired: Desired) -> tuple[str, ...]:
    if desired.software is None or desired.software.sha256 in terminal.releases[-1:]:
        return terminal.releases
    others = tuple(one for one in terminal.releases if one != desired.software.sha256)
    return (*others, desired.software.sha256)[-RELEASES_REMEMBERED_MAX:]


# ---------------------------------------------------------------- its family


def _another_family(terminal: Terminal, found: FamilyFound, me: Address, now: datetime) -> Turn[Terminal]:
    """Nothing of the state moves: the registry says which family it is. The lane's visit goes on as it began."""
    name = TerminalId(me.id)
    changed = FamilyChanged(name, found.profile, terminal.software, terminal.boot, now)
    lane = Address.session(me.region, me.store, found.lane)
    return Turn(terminal, (Save(changed), Tell(lane, FamilyMoved(name, found.traits))))


def _untrue_family(terminal: Terminal, claim: FamilyClaimed, me: Address, cause: str, now: datetime) -> Turn[Terminal]:
    """Once a boot, and one incident an hour."""
    if terminal.claimed_boot == terminal.boot:
        return Turn(terminal)
    noted = replace(terminal, claimed_boot=terminal.boot)
    if not _over(terminal.claim_told_at, now):
        return Turn(noted)
    detail = f"claims {claim.claimed[:64]} with {terminal.software[:64]}, is {claim.in_force}"
    return Turn(replace(noted, claim_told_at=now), _incident(me, cause, "family_claimed", detail, now))


# ---------------------------------------------------------------- commands


def _commanded(terminal: Terminal, asked: CommandAsked, me: Address, now: datetime) -> Turn[Terminal]:
    require_command(asked)
    if terminal.awaits(asked.id):
        return Turn(terminal)  # asked again: it runs, or it was too late
    if len(terminal.pending) >= COMMANDS_PENDING_MAX:
        raise Refused("commands_full", f"{COMMANDS_PENDING_MAX} commands wait for answers", "wait for their deadlines")
    deadline = timedelta(seconds=asked.deadline_s)
    command = PendingCommand(asked.id, asked.verb, asked.args, now + deadline)
    effects: tuple[Effect, ...] = (
        Save(CommandRecord(TerminalId(me.id), me.store, command, now)),
        Command(command),
        Wake(ClockKind.WALL, COMMAND_TIMER, asked.id, after=deadline),
    )
    return Turn(replace(terminal, pending=(*terminal.pending, command)), effects)


def _answered(terminal: Terminal, response: CommandResponse, now: datetime) -> Turn[Terminal]:
    status = CommandStatus(response.status)
    if response.command in terminal.expired:
        if not status.final:
            return Turn(terminal)
        left = tuple(one for one in terminal.expired if one != response.command)
        late = CommandAnswered(response.command, status, response.detail, now, late=True)
        return Turn(replace(terminal, expired=left, ended=_remembered(terminal, response.command)), (Save(late),))
    command = next((one for one in terminal.pending if one.id == response.command), None)
    if command is None or not goes_on(command.status, status):
        return Turn(terminal)
    others = tuple(one for one in terminal.pending if one is not command)
    answer = CommandAnswered(command.id, status, response.detail, now)
    if status.final:
        return Turn(replace(terminal, pending=others, ended=_remembered(terminal, command.id)), (Save(answer),))
    return Turn(replace(terminal, pending=(*others, replace(command, status=status))), (Save(answer),))


def _remembered(terminal: Terminal, command: MessageId) -> tuple[MessageId, ...]:
    return (*terminal.ended, command)[-COMMANDS_REMEMBERED_MAX:]


# ---------------------------------------------------------------- its order and its clock


def _over_a_gap(terminal: Terminal, gap: GapSkipped, me: Address, cause: str, now: datetime) -> Turn[Terminal]:
    """Each is counted; after a bad connection there are many, so one an hour is an incident."""
    counted = replace(terminal, gaps=terminal.gaps + 1)
    if not _over(terminal.gap_told_at, now):
        return Turn(counted)
    detail = f"boot {gap.boot}: {gap.first}..{gap.last} before {gap.event}"
    return Turn(replace(counted, gap_told_at=now), _incident(me, cause, "seq_gap", detail, now))


def _skewed(terminal: Terminal, found: SkewFound, me: Address, cause: str, now: datetime) -> Turn[Terminal]:
    skewed = replace(terminal, skew_ms=found.skew_ms, skew_alarm=found.alarming)
    if not found.alarming or terminal.skew_alarm or not _over(terminal.skew_told_at, now):
        return Turn(skewed)
    detail = f"{found.skew_ms // 1000} s ahead of ours"
    return Turn(replace(skewed, skew_told_at=now), _incident(me, cause, "clock_skew", detail, now))
