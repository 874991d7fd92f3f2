"""A terminal's twin: what it should run, what it says it runs, what it was told to do, and how wrong its clock is.

Pure. `desired` is a whole document with a rising generation; a change names the generation it was made against, so
that two administrators cannot overwrite each other unseen.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from models.domain.chain_refusals import faults
from models.domain.chain_settings import Level
from models.domain.errors import Refused
from models.domain.ids import MessageId, StoreId, TerminalId

GEN_MAX = 2**31 - 1
OVERRIDES_CHARACTERS_MAX = 4_096
CONFIG_DEPTH_MAX = 8
INTEGER_MAX = 2**53 - 1
"""What every JSON reader keeps exactly."""
CHANGES_REMEMBERED_MAX = 8
STORE_GEN = "store_gen"
"""In a terminal's document: how often a rollout changed something for its whole store, as its host has read it."""
PROTECTED_CONFIG = frozenset({"consents", "switches", "book", STORE_GEN})
"""The texts that customers agree to come from the chain's book alone, what is switched off from its kill switches,
and what a rollout changed for the store is told by the host that acts by it."""


class Sync(StrEnum):
    """How a terminal stands to its desired document."""

    UNKNOWN = "unknown"
    """It has reported nothing yet, or nothing is desired."""
    IN_SYNC = "in_sync"
    BEHIND = "behind"
    AHEAD = "ahead"
    """It claims a generation that was never published: its storage is of another deployment."""
    DIFFERS = "differs"
    """It claims our generation with another configuration: a liar, or broken storage."""


@dataclass(frozen=True, slots=True)
class SoftwareVersion:
    """A version that a terminal should run, where it is fetched and how it is checked."""

    version: str
    url: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Desired:
    """What a terminal should run, without the document itself: that is a row of its own.

    `overrides` is canonical JSON, laid over the chain's configuration as a merge patch (RFC 7396).
    """

    gen: int = 0
    base_hash: str = ""
    config_hash: str = ""
    overrides: str = "{}"
    software: SoftwareVersion | None = None
    changes: tuple[str, ...] = ()
    """The last changes by id: the same one asked again makes no new generation."""
    store_gen: int = 0
    """Of the document: see STORE_GEN."""


@dataclass(frozen=True, slots=True)
class DesiredAsked:
    """Change what a terminal should run.

    `base`: the chain's configuration for it, canonical JSON. `patch`: a merge patch over its overrides, or None.
    `expected_gen`: refuse unless this is the present generation. `leap`: the terminal is ahead or differs, publish
    the same document under a generation that it cannot ignore.
    """

    id: MessageId
    base: str
    patch: str | None = None
    software: SoftwareVersion | None = None
    no_software: bool = False
    reset: bool = False
    """Forget the overrides so far, back to the chain's configuration, before `patch`."""
    expected_gen: int | None = None
    leap: bool = False
    anew: bool = False
    """A new generation also when nothing differs: whoever asks against the present one after this finds another."""


def canonical(document: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces, non-ASCII as it is: what `config_hash` is the SHA-256 of, in UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(text: str) -> str:
    """SHA-256 of a canonical document, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396: a null takes the key away, an object goes inside, anything else replaces."""
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            inside = result.get(key)
            result[key] = merged(inside if isinstance(inside, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def overlaid(overrides: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Two patches one after the other as one: a null stays, because it hides a key of the base."""
    result = dict(overrides)
    for key, value in patch.items():
        inside = result.get(key)
        if isinstance(value, Mapping) and isinstance(inside, Mapping):
            result[key] = overlaid(inside, value)
        else:
            result[key] = value
    return result


_UNKEPT = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f\\ud800-\\udfff\\u202a-\\u202e\\u2066-\\u2069]")


def keepable(text: str) -> bool:
    """True for text that every database, device and reader keeps as it is: no control character but tab and line end,
    no half of a surrogate pair, and nothing that turns the direction of what stands after it.
    """
    return _UNKEPT.search(text) is None


def require_config(document: object, depth: int = CONFIG_DEPTH_MAX) -> None:
    """Raises Refused `bad_config` unless it is JSON without fractions: their text differs between devices' hashes."""
    if depth == 0:
        raise Refused("bad_config", "the configuration is nested too deeply", f"{CONFIG_DEPTH_MAX} levels at most")
    if isinstance(document, Mapping):
        for key, value in document.items():
            if not isinstance(key, str) or not keepable(key):
                raise Refused("bad_config", f"{key!r} is no text", "keys are text")
            require_config(value, depth - 1)
    elif isinstance(document, list | tuple):
        for value in document:
            require_config(value, depth - 1)
    elif isinstance(document, str):
        if not keepable(document):
            raise Refused("bad_config", f"{document!r} cannot be kept", "leave control characters out")
    elif isinstance(document, int):
        if abs(document) > INTEGER_MAX:
            raise Refused("bad_config", "a number is too large", f"{INTEGER_MAX} at most")
    elif document is not None:
        raise Refused("bad_config", f"{document!r} cannot stand in a configuration", "use whole numbers with a unit")


def change(desired: Desired, asked: DesiredAsked, applied_gen: int) -> tuple[Desired, str]:
    """The next desired and its whole configuration as canonical JSON. The same object when nothing is new.

    The generation rises by one, and over `applied_gen` when the terminal is ahead: it ignores gen <= applied.
    Raises Refused: gen_conflict, bad_config, protected_config, gen_exhausted.
    """
    if asked.id in desired.changes:
        return desired, ""
    if asked.expected_gen is not None and asked.expected_gen != desired.gen:
        raise Refused("gen_conflict", f"the present generation is {desired.gen}", "look at it, then ask again")
    overrides = "{}" if asked.reset else desired.overrides
    if asked.patch is not None:
        overrides = _patched(overrides, asked.patch)
    software = None if asked.no_software else asked.software or desired.software
    base = cast(dict[str, Any], json.loads(asked.base))
    config = canonical(merged(base, json.loads(overrides)))
    next_hash, base_hash = hash_of(config), hash_of(asked.base)
    same = (next_hash, overrides, software) == (desired.config_hash, desired.overrides, desired.software)
    if same and desired.gen and not (asked.leap or asked.anew):
        return (desired if base_hash == desired.base_hash else replace(desired, base_hash=base_hash)), ""
    gen = max(desired.gen, applied_gen) + 1
    if gen > GEN_MAX:
        raise Refused("gen_exhausted", "the terminal claims the last generation there is", "register it anew")
    changes = (*desired.changes, asked.id)[-CHANGES_REMEMBERED_MAX:]
    return Desired(gen, base_hash, next_hash, overrides, software, changes, int(base.get(STORE_GEN, 0))), config


def _patched(overrides: str, patch: str) -> str:
    document = json.loads(patch)
    if not isinstance(document, dict):
        raise Refused("bad_config", "a change is one JSON object", 'for example {"sound": {"volume_percent": 40}}')
    require_config(document)
    if protected := PROTECTED_CONFIG & document.keys():
        raise Refused(
            "protected_config", f"{', '.join(sorted(protected))} comes from the chain's book", "change it there"
        )
    for fault in faults(document, Level.TERMINAL):
        if not fault.unknown:  # a vendor's own keys are its own business
            raise Refused("bad_config", f"{fault.key}: {fault.message}", fault.do)
    text = canonical(overlaid(json.loads(overrides), document))
    if len(text) > OVERRIDES_CHARACTERS_MAX:
        raise Refused(
            "bad_config", "too many changes for one terminal", f"{OVERRIDES_CHARACTERS_MAX} characters at most"
        )
    return text


def sync_of(desired: Desired, applied_gen: int | None, config_hash: str, software: str) -> Sync:
    """Hold a report against what is desired. `applied_gen` None: nothing was reported."""
    if applied_gen is None or desired.gen == 0:
        return Sync.UNKNOWN
    if applied_gen > desired.gen:
        return Sync.AHEAD
    if applied_gen < desired.gen:
        return Sync.BEHIND
    if config_hash != desired.config_hash:
        return Sync.DIFFERS
    if desired.software is not None and software != desired.software.version:
        return Sync.BEHIND  # the document is applied, the software not yet active
    return Sync.IN_SYNC


# ---------------------------------------------------------------- commands

COMMAND_DEADLINE_S_MAX = 30
COMMANDS_PENDING_MAX = 8
COMMAND_ARGS_MAX = 16
COMMAND_ARG_CHARACTERS_MAX = 512

VERBS = ("resync", "reboot", "show_text", "test_print", "activate", "rotate")
"""What a terminal may be told: a closed list; a terminal rejects what its profile cannot do."""

Args = tuple[tuple[str, str | int], ...]


class CommandStatus(StrEnum):
    """Where a command stands. `sent` and `expired` are ours, the others the terminal's."""

    SENT = "sent"
    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Nothing follows, but a late answer to an expired one."""
        return self in (CommandStatus.DONE, CommandStatus.FAILED, CommandStatus.REJECTED, CommandStatus.EXPIRED)


_ORDER = list(CommandStatus)


def goes_on(before: CommandStatus, after: CommandStatus) -> bool:
    """True when `after` says more than `before`: a repeated or older answer does not."""
    return not before.final and (after.final or _ORDER.index(after) > _ORDER.index(before))


@dataclass(frozen=True, slots=True)
class CommandAsked:
    """Tell a terminal to do something within `deadline_s` (1..30). `id` is the idempotency key."""

    id: MessageId
    verb: str
    args: Args = ()
    deadline_s: int = 10


def require_command(asked: CommandAsked) -> None:
    """Raises Refused: unknown_verb, bad_deadline, bad_args."""
    if asked.verb not in VERBS:
        raise Refused("unknown_verb", f"no verb {asked.verb!r}", f"one of {', '.join(VERBS)}")
    if not 1 <= asked.deadline_s <= COMMAND_DEADLINE_S_MAX:
        raise Refused("bad_deadline", f"{asked.deadline_s} s", f"1 to {COMMAND_DEADLINE_S_MAX} s")
    if len(asked.args) > COMMAND_ARGS_MAX:
        raise Refused("bad_args", "too many arguments", f"{COMMAND_ARGS_MAX} at most")
    for name, value in asked.args:
        if not name.isidentifier() or len(str(value)) > COMMAND_ARG_CHARACTERS_MAX or "\x00" in str(value):
            raise Refused("bad_args", f"argument {name!r}", f"name=value, {COMMAND_ARG_CHARACTERS_MAX} characters")


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """A command without its final answer."""

    id: MessageId
    verb: str
    args: Args
    deadline_at: datetime
    status: CommandStatus = CommandStatus.SENT


# ---------------------------------------------------------------- the terminal's clock

SKEW_ALARM = timedelta(minutes=5)
SKEW_BUCKET = timedelta(minutes=10)
SKEW_SURE_AFTER = timedelta(minutes=1)
REPLAY_AGE_MAX = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ClockSkew:
    """How far a terminal's clock is ahead of ours, in milliseconds, from `ts` against receipt.

    A message can only arrive late, so each sample is at most the skew: the largest of the last 10 to 20 minutes is
    the best known one (the minimum-delay filter of RFC 5905, section 10, for one way). What was stored offline or
    queued while a host was away gives small samples, which a larger one outweighs.
    """

    best_ms: int
    bucket_since: datetime
    first_at: datetime
    last_at: datetime
    before_ms: int | None = None

    @property
    def ms(self) -> int:
        """The estimate."""
        return self.best_ms if self.before_ms is None else max(self.best_ms, self.before_ms)

    @property
    def alarming(self) -> bool:
        """Over 5 minutes. Being ahead is sure at once; being behind may be a late delivery for a minute."""
        limit_ms = SKEW_ALARM // timedelta(milliseconds=1)
        return self.ms > limit_ms or (self.ms < -limit_ms and self.last_at - self.first_at >= SKEW_SURE_AFTER)


def observed(skew: ClockSkew | None, ts: datetime, received_at: datetime) -> ClockSkew:
    """The estimate after one more message. Hand in what was sent at once only, never `replay:true`."""
    sample_ms = (ts - received_at) // timedelta(milliseconds=1)
    if skew is None or received_at - skew.last_at >= 2 * SKEW_BUCKET:
        return ClockSkew(sample_ms, received_at, received_at, received_at)
    if received_at - skew.bucket_since >= SKEW_BUCKET:
        return ClockSkew(sample_ms, received_at, skew.first_at, received_at, skew.best_ms)
    return replace(skew, best_ms=max(skew.best_ms, sample_ms), last_at=max(skew.last_at, received_at))


def replayed_at(ts: datetime, skew: timedelta, received_at: datetime) -> datetime:
    """When a `replay:true` event happened, by our wall clock: its `ts` less the terminal's skew.

    Never after its receipt and at most 7 days before it, whatever the terminal's clock says.
    """
    try:
        corrected = ts - skew
    except OverflowError:
        corrected = received_at
    return min(max(corrected, received_at - REPLAY_AGE_MAX), received_at)


# ---------------------------------------------------------------- what is recorded


@dataclass(frozen=True, slots=True)
class DesiredRecord:
    """The document of a generation: durable before it is published. Replaces the terminal's row."""

    terminal: TerminalId
    gen: int
    config: str
    config_hash: str
    software: SoftwareVersion | None
    at: datetime


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command as it was asked."""

    terminal: TerminalId
    store: StoreId
    command: PendingCommand
    at: datetime


@dataclass(frozen=True, slots=True)
class CommandAnswered:
    """What became of a command; `late`: the answer came after it had expired."""

    command: MessageId
    status: CommandStatus
    detail: str
    at: datetime
    late: bool = False


@dataclass(frozen=True, slots=True)
class TerminalRetired:
    """A terminal is out of service: nothing of its twin stays but what it did."""

    terminal: TerminalId
    at: datetime


@dataclass(frozen=True, slots=True)
class FamilyChanged:
    """By the software that it reports the terminal is another family, in the registry from this commit on."""

    terminal: TerminalId
    profile: str
    software: str
    boot: str
    at: datetime


TwinFact = DesiredRecord | CommandRecord | CommandAnswered | FamilyChanged | TerminalRetired


@dataclass(frozen=True, slots=True)
class PresenceRecord:
    """A terminal as pages show it; the truth of a turn is the entity's state."""

    store: StoreId
    online: bool
    known: bool
    software: str
    boot: str
    gen: int
    applied_gen: int | None
    config_hash: str
    sync: Sync
    behind_since: datetime | None
    skew_ms: int | None
    skew_alarm: bool
    takeovers: int
    takeover_at: datetime | None
    gaps: int
    health: str


@dataclass(frozen=True, slots=True)
class OrderResult:
    """What became of an administrator's order once it was durable: `gen` is the present generation."""

    ok: bool
    gen: int = 0
    code: str = ""
    message: str = ""
    do: str = ""
