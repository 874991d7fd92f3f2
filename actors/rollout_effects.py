"""What a rollout is told, what it sees, and what it wants done: values between `actors.rollout` and its driver.

The driver performs the effects of one tick in their order: all `Journal` and `Decide` are written in one commit (with
compare-and-set on `Rollout.entries`), then the orders go out, then `Publish`. It may die between any two: every order
is asked again by the next tick until desired and reported show that it was carried out, under the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from models.domain.evidence import Verdict
from models.domain.ids import MessageId, StoreId, TerminalId
from models.domain.plan_reader import Text
from models.domain.rollout import ArtefactKind, Observed, PersonId, RolloutId
from models.domain.rollout_gate import Counts, Gate
from models.domain.rollout_journal import NO_TEXT, Entry, Rollout
from models.domain.rollout_plan import PlannedStore

# ---------------------------------------------------------------- seen


@dataclass(frozen=True, slots=True)
class Observation:
    """All that a tick looks at besides the rollout: what terminals are to run and say they run, and the evidence.

    `targets` holds every terminal of the stages that are open; one that is missing counts as offline and unknown.
    `verdicts`: the latest verdict of a stage by its number. `arrivals`: stores of the selector that are in no stage
    (`models.domain.rollout_plan.planned` makes them).
    """

    targets: Mapping[TerminalId, Observed]
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)
    arrivals: tuple[PlannedStore, ...] = ()


# ---------------------------------------------------------------- told


@dataclass(frozen=True, slots=True)
class Start:
    """Open the first stage."""

    by: PersonId


@dataclass(frozen=True, slots=True)
class Approve:
    """Say yes to what the gate of the open stage shows. Refused while the gate waits for anything but a person.

    `stage`: the one that was looked at (0 the first); when another one is open by then, nobody approves it unseen.
    """

    by: PersonId
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class Promote:
    """Approve, and open the next stage at once. `stage` as in Approve."""

    by: PersonId
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class Attach:
    """Attach a document that a stage requires."""

    by: PersonId
    name: str
    reference: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask nobody else; what is under way goes on. Twice is once."""

    by: PersonId
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on after a pause. The queue's deadlines begin anew. Twice is once."""

    by: PersonId


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop. Only a rollback, or another rollout, follows."""

    by: PersonId
    reason: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """Give every target back what it had; also after completion, and again when a rollback stuck."""

    by: PersonId
    reason: str


@dataclass(frozen=True, slots=True)
class Supersede:
    """Another rollout takes the same key over: this one stops where it is and touches nothing any more."""

    by: PersonId
    successor: RolloutId


RolloutCommand = Start | Approve | Promote | Attach | Pause | Resume | Halt | RollBack | Supersede


# ---------------------------------------------------------------- wanted


@dataclass(frozen=True, slots=True)
class Journal:
    """Write this entry; with the others of the tick in one commit, before anything goes out."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Decide:
    """Keep what a gate decided, with the counts and the evidence that it saw, in the journal's commit."""

    rollout: RolloutId
    stage: int
    at: datetime
    gate: Gate
    counts: Counts
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class SetDesired:
    """Lay the artefact's part into the target's desired document, if its generation is still `expected_gen`.

    A conflict is no error: the next tick looks at what stands there now.
    """

    id: MessageId
    target: TerminalId
    store: StoreId
    kind: ArtefactKind
    part: str
    expected_gen: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Put back the part that the journal recorded before the change. `part` "": nothing.

    Always as a new generation, also where that part stands already: an older order against `expected_gen` that is still
    on its way must find another generation.
    """

    id: MessageId
    target: TerminalId
    store: StoreId
    kind: ArtefactKind
    part: str
    expected_gen: int


@dataclass(frozen=True, slots=True)
class Activate:
    """Tell the terminal to start the version that it has fetched (command `activate`)."""

    id: MessageId
    target: TerminalId
    store: StoreId
    version: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Show the rollout as it stands now to whoever watches: last of a tick in which something moved."""

    rollout: RolloutId
    at: datetime


RolloutEffect = Journal | Decide | SetDesired | Restore | Activate | Publish


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage as a tick sees it: counts by store and what its gate says. Not kept: a tick makes it anew."""

    counts: Counts
    gate: Gate


@dataclass(frozen=True, slots=True)
class RolloutTurn:
    """The rollout after a tick or a command, what to do, and how each open stage stands."""

    rollout: Rollout
    effects: tuple[RolloutEffect, ...] = ()
    stages: tuple[StageView, ...] = ()
    why: Text = NO_TEXT
    """What it waits for, or why it ended."""
