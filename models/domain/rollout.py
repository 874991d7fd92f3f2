"""A change on its way through a chain: what changes, whom it reaches, in which stages, under which rules.

Values only. The store is the unit of a stage, its terminals are the targets. A rule says everything: no number of a
policy has a default, because a threshold that nobody wrote is one that nobody meant. Seconds are wall time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from typing import NewType

from models.domain.evidence import GateSpec
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.plan_reader import Text

RolloutId = NewType("RolloutId", str)
ArtefactKey = NewType("ArtefactKey", str)
"""What two rollouts may not change at the same time: `software/dragonfly-2`, `config`, `prices`, a flag's name."""
BOOK_KEY = ArtefactKey("book")
"""Of plans and of prices: a store has one book."""
PersonId = NewType("PersonId", str)
"""Who gave a command, by which way: `console:ann`, `cli:ann`. To four eyes the way makes no difference."""

STAGES_MAX = 16
STORES_MAX = 20_000
TERMINALS_PER_STORE_MAX = 64
PAYLOAD_CHARACTERS_MAX = 4_096
ALL_STORES = "all"
RULE_SECONDS_MAX = 90 * 24 * 3600


def same_person(one: PersonId, other: PersonId) -> bool:
    """Whether two names, whichever way each came, are one pair of eyes."""
    return one.rpartition(":")[2] == other.rpartition(":")[2]


class ArtefactKind(StrEnum):
    """What changes. `plan` and `prices`: a candidate version of the chain's book, pinned for the store."""

    CONFIG = "config"
    FLAG = "flag"
    SOFTWARE = "software"
    PLAN = "plan"
    PRICES = "prices"

    @property
    def boots(self) -> bool:
        """It is true only after a new start of the terminal, which sells nothing meanwhile."""
        return self is ArtefactKind.SOFTWARE


@dataclass(frozen=True, slots=True)
class Artefact:
    """What a target is to have.

    `payload` is the *part* of a desired document that this rollout owns, as canonical text: for `config` and `flag` a
    merge patch (RFC 7396); for `software` canonical JSON of version, url, sha256, size_bytes; for `plan` and `prices`
    the book's version. `fallback`: the part that a target goes back to which had nothing in its place ("": nothing may
    stand there again); software needs one, because a device cannot run nothing.
    """

    kind: ArtefactKind
    key: ArtefactKey
    version: str
    payload: str
    sha256: str
    fallback: str = ""

    @property
    def intact(self) -> bool:
        """True when the payload is the one that was hashed."""
        return digest_of(self.payload) == self.sha256


def digest_of(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def version_in(kind: ArtefactKind, part: str) -> str:
    """The version that a terminal reports when it runs this part; "" where no version is reported, or none stands."""
    return str(json.loads(part)["version"]) if kind.boots and part else ""


# ---------------------------------------------------------------- whom it reaches


@dataclass(frozen=True, slots=True)
class Site:
    """One store as the resolver sees it. `zone`: IANA name. `labels`: what strata and selectors go by."""

    store: StoreId
    region: RegionId
    zone: str
    terminals: tuple[Device, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """One terminal of a store: its role in the lane and its profile (family of hardware)."""

    terminal: TerminalId
    role: str
    profile: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Which stores and which of their terminals. What is empty does not narrow; exclusions win over everything.

    `all_stores` must be said: a selector that names nothing selects nothing.
    """

    all_stores: bool = False
    regions: frozenset[RegionId] = frozenset()
    stores: frozenset[StoreId] = frozenset()
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Each label must have one of its values."""
    profiles: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    excluded_stores: frozenset[StoreId] = frozenset()
    excluded_regions: frozenset[RegionId] = frozenset()
    excluded_labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    excluded_terminals: frozenset[TerminalId] = frozenset()


# ---------------------------------------------------------------- under which rules


class Following(StrEnum):
    """How the next stage opens once its gate is satisfied."""

    AUTOMATIC = "automatic"
    APPROVAL = "approval"
    """By a person who is not the author."""


class Unclear(StrEnum):
    """What the last look does when it is still unclear. Before the last look an unclear verdict waits."""

    APPROVAL = "approval"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class LocalWindow:
    """Hours in the store's own zone; `until` is exclusive and may lie after midnight.

    `weekdays`: Monday 1 .. Sunday 7, of the day on which the window begins.
    """

    begins: time
    until: time
    weekdays: frozenset[int]


@dataclass(frozen=True, slots=True)
class StagePolicy:
    """The rules of one stage. Percentages are whole per cent; a store is executed when it succeeded or failed.

    Errors: failed, timed out, lying, flapping. They halt when there are more than `error_stores_max` of them, whatever
    was executed, or more than `error_percent_max` of the stores that were asked once `executed_min` are executed. (Not
    of the executed: failures are quick and successes have to soak, so the first executed are the worst.)
    """

    success_percent_min: int
    """Of the stage's stores without those in the offline bucket."""
    error_percent_max: int
    error_stores_max: int
    """0: the first failed store halts."""
    executed_min: int
    soak_s: int
    queue_deadline_s: int
    """From the stage's opening (or a store's return) until it is asked; after it, offline stores over the cap halt."""
    in_progress_deadline_s: int
    """Of the prefetch, and again of the activation."""
    soak_deadline_s: int
    """From the first report of the new version until it was healthy for `soak_s` without a break."""
    claim_grace_s: int
    """A terminal that said "done" may report the old version for so long."""
    flaps_max: int
    """So often it may fall back while or after soaking; once more is a failure."""
    offline_percent_max: int
    """The cap of the offline bucket: stores that were never asked because nobody answers there."""
    in_flight_stores_max: int
    starts_per_minute_max: int
    jitter_s: int
    """Stores that are due at the same time begin within so many seconds, seeded."""
    windows: tuple[LocalWindow, ...]
    """When terminals may change; none: at any time. Prefetching is not bound to them."""
    terminals_up_min: int
    """So many of a store's terminals stay up while others change; counts for software."""
    following: Following
    attachments: tuple[str, ...]
    """What must be attached before the next stage opens, e.g. `privacy_assessment`."""
    evidence: GateSpec | None
    unclear: Unclear


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. `stores`: how many, 0 for all that are left. `named`: these first, they are a part of `stores`."""

    name: str
    stores: int
    policy: StagePolicy
    named: tuple[StoreId, ...] = ()

    @property
    def takes_all(self) -> bool:
        """It takes every store that no earlier stage has."""
        return self.stores == 0


@dataclass(frozen=True, slots=True)
class RollbackPolicy:
    """How a rollout goes back: last asked, first restored, by thresholds of its own, at any hour."""

    in_flight_stores_max: int
    starts_per_minute_max: int
    deadline_s: int
    """For one terminal that answers; those that are offline have their old document waiting for them."""
    error_stores_max: int
    """More stores that cannot be brought back stop the rollback: an operator must look."""
    terminals_up_min: int
    automatic: bool
    """A halt by the rules begins it at once; False: a person does."""


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """The rules of a rollout, as a file of configs/rollouts gives them."""

    name: str
    title: Text
    kinds: frozenset[ArtefactKind]
    mandatory_roles: frozenset[str]
    """A store succeeded when each of its terminals with these roles did; empty: each of its terminals."""
    stratify: tuple[str, ...]
    """Labels (or `region`) whose shares each stage keeps."""
    tail: bool
    """Stores that open later get the change after the last stage."""
    stages: tuple[Stage, ...]
    rollback: RollbackPolicy
    zone: str
    """For stores without a zone of their own."""


# ---------------------------------------------------------------- states


class RolloutState(StrEnum):
    """Where a rollout stands."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    """Stopped, nothing is asked of anybody; a person rolls back or lets it be."""
    ROLLING_BACK = "rolling_back"
    ROLLBACK_STUCK = "rollback_stuck"
    """More stores than the rollback's own threshold cannot be brought back."""
    ROLLED_BACK = "rolled_back"
    COMPLETED = "completed"
    TAILING = "tailing"
    """Complete; stores that open later still get the change."""
    SUPERSEDED = "superseded"

    @property
    def active(self) -> bool:
        """It may still change terminals."""
        return self not in (RolloutState.ROLLED_BACK, RolloutState.COMPLETED, RolloutState.SUPERSEDED)


class StageState(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    OPEN = "open"
    AWAITS_APPROVAL = "awaits_approval"
    PASSED = "passed"
    HALTED = "halted"


class TargetState(StrEnum):
    """Where one terminal stands."""

    QUEUED = "queued"
    OFFLINE = "offline"
    """Not asked, because it does not answer."""
    PREFETCHING = "prefetching"
    ACTIVATING = "activating"
    SOAKING = "soaking"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LYING = "lying"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    """Somebody else changed this part: it is theirs now."""

    @property
    def error(self) -> bool:
        """It counts as a failure at the gate. Such a state is left by a rollback only."""
        return self in (TargetState.FAILED, TargetState.TIMED_OUT, TargetState.LYING)

    @property
    def waiting(self) -> bool:
        """Nothing was asked of it."""
        return self in (TargetState.QUEUED, TargetState.OFFLINE)


class Reason(StrEnum):
    """Why a target stands where it stands; "" when the state says it all."""

    NONE = ""
    QUEUE_DEADLINE = "queue_deadline"
    WINDOW_MISSED = "window_missed"
    PREFETCH_DEADLINE = "prefetch_deadline"
    ACTIVATE_DEADLINE = "activate_deadline"
    SOAK_DEADLINE = "soak_deadline"
    REFUSED_BY_TERMINAL = "refused_by_terminal"
    SAID_DONE = "said_done"
    """It said "done" and still reports the old version."""
    OLD_BOOT = "old_boot"
    """It reports the new version under the boot of the old one."""
    WRONG_HASH = "wrong_hash"
    """It reports our generation with another configuration."""
    FLAPPING = "flapping"
    UNHEALTHY = "unhealthy"
    REBOOTED = "rebooted"
    WENT_OFFLINE = "went_offline"
    FELL_BACK = "fell_back"
    """It reports the old version again."""
    ROLLBACK_DEADLINE = "rollback_deadline"
    CHANGED_ELSEWHERE = "changed_elsewhere"
    RETIRED = "retired"
    """It was taken out of service: its document is forgotten, and nobody waits for it."""
    BUSY = "busy"
    """It was told to start the new version and serves somebody: it waits for its next turn, as those below do."""
    NOT_FETCHED = "not_fetched"
    NOTHING_TO_ACTIVATE = "nothing_to_activate"
    OTHER_VERSION = "other_version"
    """Its document wants another version than it was told to start."""
    NO_ANSWER = "no_answer"
    """It was told and has not said in time what became of it."""

    @property
    def put_off(self) -> bool:
        """It answered "not now": it goes on with what it runs."""
        return self in (Reason.BUSY, Reason.NOT_FETCHED, Reason.NOTHING_TO_ACTIVATE, Reason.OTHER_VERSION)


@dataclass(frozen=True, slots=True)
class Observed:
    """One terminal as desired and reported have it at a tick.

    `part` and `gen`: what its desired document says where the artefact goes, in the form of `Artefact.payload`, and
    the document's generation and hash. `said_done_at`: its answer "done" to the last command to activate, `refused`
    its answer "failed" or "rejected", or why its host refuses the order; `not_yet`: why it did not do it now.
    `retired`: it was taken out of service. `fetched`: the software version that lies ready. `healthy`: by its own
    report and ours.
    """

    gen: int
    part: str
    config_hash: str = ""
    online: bool = False
    applied_gen: int | None = None
    reported_hash: str = ""
    software: str = ""
    boot: str = ""
    healthy: bool = True
    fetched: str = ""
    said_done_at: datetime | None = None
    refused: str = ""
    not_yet: Reason = Reason.NONE
    retired: bool = False
