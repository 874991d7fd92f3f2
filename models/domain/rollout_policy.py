"""Reads the rules of a rollout from plain data and says of each wrong value where it stands and why.

Every field must be said, in the stage or in `every_stage`; nothing has a default. Values that are fine one by one and
cannot be followed together (a gate that can never be met, a queue that is over before the last store's turn) are
refused as well: such a rollout would hang, or pass, in the middle of the night.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import time
from enum import StrEnum
from functools import partial
from math import inf
from typing import Any, NoReturn, TypeVar

from models.domain.calendar import zone_of
from models.domain.evidence import GateSpec, MetricId, StageKind
from models.domain.evidence_metrics import METRICS
from models.domain.ids import StoreId, is_topic_level
from models.domain.plan_reader import Text
from models.domain.rollout import (
    ALL_STORES,
    BOOK_KEY,
    PAYLOAD_CHARACTERS_MAX,
    RULE_SECONDS_MAX,
    STAGES_MAX,
    STORES_MAX,
    TERMINALS_PER_STORE_MAX,
    Artefact,
    ArtefactKind,
    Following,
    LocalWindow,
    RollbackPolicy,
    RolloutPolicy,
    Stage,
    StagePolicy,
    Unclear,
)
from models.domain.rollout_feasible import Problem, contradictions
from models.domain.twin import canonical, keepable

PRIVACY_ATTACHMENT = "privacy_assessment"
_Choice = TypeVar("_Choice", bound=StrEnum)
_Read = TypeVar("_Read")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

POLICY_FIELDS = tuple(field.name for field in fields(RolloutPolicy))
RULE_FIELDS = tuple(field.name for field in fields(StagePolicy))
_EVIDENCE_FIELDS = tuple(field.name for field in fields(GateSpec))


class PolicyError(ValueError):
    """Rules that nobody can follow; `problems` names every wrong value."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{one.path or 'policy'}: {one.reason}" for one in problems))
        self.problems = tuple(problems)


class _Wrong(Exception):
    """One value is wrong; it has been noted, and the others are looked at too."""


def policy_from(document: object) -> RolloutPolicy:
    """The policy that a document describes. Raises PolicyError with every problem, not only the first."""
    reader = _PolicyReader()
    policy = reader.policy(document)
    if not reader.problems and policy is not None:
        reader.problems.extend(contradictions(policy))
    if reader.problems or policy is None:
        raise PolicyError(sorted(set(reader.problems), key=lambda one: one.path))
    return policy


def misfits(policy: RolloutPolicy, artefact: Artefact) -> tuple[Problem, ...]:
    """Why this artefact must not go out under this policy; empty when it may."""
    found = []
    if artefact.kind not in policy.kinds:
        names = ", ".join(sorted(policy.kinds))
        found.append(Problem("kinds", f"is for {names}, not for {artefact.kind}"))
    if not artefact.intact:
        found.append(Problem("artefact.sha256", "is not the SHA-256 of the payload"))
    if not 0 < len(artefact.payload) <= PAYLOAD_CHARACTERS_MAX:
        found.append(Problem("artefact.payload", f"must have 1..{PAYLOAD_CHARACTERS_MAX} characters"))
    if artefact.kind.boots:
        found.extend(_software_misfits(artefact))
    elif artefact.kind in (ArtefactKind.CONFIG, ArtefactKind.FLAG) and not _canonical_patch(artefact.payload):
        found.append(Problem("artefact.payload", "must be one JSON object with sorted keys and no spaces"))
    if artefact.key == BOOK_KEY and policy.tail:
        found.append(Problem("tail", "a store that opens later starts with the chain's book: write false"))
    asked = PRIVACY_ATTACHMENT in policy.stages[0].policy.attachments
    if touches_faces(artefact) and not asked and len(policy.stages) > 1:
        reason = f"must name {PRIVACY_ATTACHMENT}: {artefact.key} touches faces"
        found.append(Problem("stages[0].attachments", reason))
    return tuple(found)


def _canonical_patch(payload: str) -> bool:
    """Parts are compared as text, so there is one way to write them."""
    try:
        document = json.loads(payload)
    except ValueError:
        return False
    return isinstance(document, dict) and canonical(document) == payload


def _software_misfits(artefact: Artefact) -> list[Problem]:
    found = []
    for name, part in (("payload", artefact.payload), ("fallback", artefact.fallback)):
        try:
            document = json.loads(part)
            whole = set(document) == {"version", "url", "sha256", "size_bytes"} and bool(document["version"])
            whole = whole and _SHA256.fullmatch(document["sha256"]) is not None
        except (ValueError, TypeError):
            whole = False
        if not whole:
            found.append(Problem(f"artefact.{name}", "must be JSON of version, url, sha256 (64 hex), size_bytes"))
        elif name == "payload" and document["version"] != artefact.version:
            found.append(Problem("artefact.version", f"is not the payload's {document['version']}"))
    return found


def touches_faces(artefact: Artefact) -> bool:
    """True when a configuration or flag changes what happens with faces: a key `faces` or `face…` at any depth."""
    if artefact.kind not in (ArtefactKind.CONFIG, ArtefactKind.FLAG):
        return False

    def named(document: object) -> bool:
        if not isinstance(document, Mapping):
            return False
        return any(str(key).startswith(("face", "liveness")) or named(value) for key, value in document.items())

    try:
        return artefact.key.startswith("face") or named(json.loads(artefact.payload))
    except ValueError:
        return False


# ---------------------------------------------------------------- reading


@dataclass(slots=True)
class _Fields:
    """One mapping of the document and where it stands; `common`: fields that may stand in `every_stage` instead."""

    data: Mapping[str, Any]
    path: str
    common: Mapping[str, Any]

    def at(self, name: str) -> str:
        if name not in self.data and name in self.common:
            return f"every_stage.{name}"
        return f"{self.path}.{name}" if self.path else name


class _PolicyReader:
    """Takes the document apart; each wrong value becomes a problem, and reading goes on."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def policy(self, document: object) -> RolloutPolicy | None:
        every = {*POLICY_FIELDS, "every_stage"}
        try:
            root = self._mapping(document, "", every)
        except _Wrong:
            return None
        common: Mapping[str, Any] = {}
        if "every_stage" in root.data:
            inner = partial(self._mapping, root.data["every_stage"], "every_stage", set(RULE_FIELDS))
            common = self._or(lambda: inner().data, common)
        read: dict[str, Callable[[], Any]] = {
            "name": partial(self._slug, root, "name"),
            "title": partial(self._text, root, "title"),
            "kinds": partial(self._kinds, root),
            "mandatory_roles": partial(self._roles, root),
            "stratify": partial(self._names, root, "stratify", 8),
            "tail": partial(self._flag, root, "tail"),
            "zone": partial(self._zone, root),
            "rollback": partial(self._rollback, root),
            "stages": partial(self._stages, root, common),
        }
        try:
            return RolloutPolicy(**self._all(read))
        except _Wrong:
            return None

    # ------------------------------------------------------------ parts

    def _kinds(self, root: _Fields) -> frozenset[ArtefactKind]:
        entries = self._list(root, "kinds", 1, len(ArtefactKind))
        return frozenset(
            self._choice(_Fields({"kind": one}, f"kinds[{n}]", {}), "kind", ArtefactKind, f"kinds[{n}]")
            for n, one in enumerate(entries)
        )

    def _roles(self, root: _Fields) -> frozenset[str]:
        if root.data.get("mandatory_roles") == "all":
            return frozenset()
        return frozenset(self._names(root, "mandatory_roles", 16, low=1))

    def _rollback(self, root: _Fields) -> RollbackPolicy:
        names = {field.name for field in fields(RollbackPolicy)}
        inner = self._mapping(self._required(root, "rollback"), "rollback", names)
        read: dict[str, Callable[[], Any]] = {
            "in_flight_stores_max": partial(self._whole, inner, "in_flight_stores_max", 1, STORES_MAX),
            "starts_per_minute_max": partial(self._whole, inner, "starts_per_minute_max", 1, STORES_MAX),
            "deadline_s": partial(self._whole, inner, "deadline_s", 1, RULE_SECONDS_MAX),
            "error_stores_max": partial(self._whole, inner, "error_stores_max", 0, STORES_MAX),
            "terminals_up_min": partial(self._whole, inner, "terminals_up_min", 0, TERMINALS_PER_STORE_MAX),
            "automatic": partial(self._flag, inner, "automatic"),
        }
        return RollbackPolicy(**self._all(read))

    def _stages(self, root: _Fields, common: Mapping[str, Any]) -> tuple[Stage, ...]:
        entries = self._list(root, "stages", 1, STAGES_MAX)
        return tuple(
            self._all({str(n): partial(self._stage, one, n, common) for n, one in enumerate(entries)}).values()
        )

    def _stage(self, entry: object, number: int, common: Mapping[str, Any]) -> Stage:
        path = f"stages[{number}]"
        known = {"name", "stores", "named", *RULE_FIELDS}
        found = self._mapping(entry, path, known)
        stage = _Fields(found.data, path, common)
        stores = self._required(stage, "stores")
        named = tuple(StoreId(one) for one in self._names(stage, "named", 1_000)) if "named" in stage.data else ()
        if stores != ALL_STORES:
            self._whole(stage, "stores", 1, STORES_MAX, f'a number of stores, or "{ALL_STORES}"')
            if len(named) > stores:
                self._wrong(stage.at("named"), f"names {len(named)} stores, the stage has {stores}")
        read = self._rules(stage)
        return Stage(self._slug(stage, "name"), 0 if stores == ALL_STORES else stores, StagePolicy(**read), named)

    def _rules(self, stage: _Fields) -> dict[str, Any]:
        percent = ("success_percent_min", "error_percent_max", "offline_percent_max")
        over_0 = ("queue_deadline_s", "in_progress_deadline_s", "soak_deadline_s")
        from_0 = ("soak_s", "claim_grace_s", "jitter_s")
        stores = ("executed_min", "in_flight_stores_max", "starts_per_minute_max")
        read: dict[str, Callable[[], Any]] = {
            "error_stores_max": partial(self._whole, stage, "error_stores_max", 0, STORES_MAX),
            "flaps_max": partial(self._whole, stage, "flaps_max", 0, 100),
            "terminals_up_min": partial(self._whole, stage, "terminals_up_min", 0, TERMINALS_PER_STORE_MAX),
            "windows": partial(self._windows, stage),
            "following": partial(self._choice, stage, "following", Following),
            "attachments": partial(self._names, stage, "attachments", 8),
            "evidence": partial(self._evidence, stage),
            "unclear": partial(self._choice, stage, "unclear", Unclear),
        }
        read |= {name: partial(self._whole, stage, name, 0, 100, "percent out of 0..100") for name in percent}
        read |= {name: partial(self._whole, stage, name, 1, RULE_SECONDS_MAX) for name in over_0}
        read |= {name: partial(self._whole, stage, name, 0, RULE_SECONDS_MAX) for name in from_0}
        read |= {name: partial(self._whole, stage, name, 1, STORES_MAX) for name in stores}
        return self._all(read)

    def _windows(self, stage: _Fields) -> tuple[LocalWindow, ...]:
        entries = self._list(stage, "windows", 0, 8)
        return tuple(self._window(one, f"{stage.at('windows')}[{n}]") for n, one in enumerate(entries))

    def _window(self, entry: object, path: str) -> LocalWindow:
        window = self._mapping(entry, path, {"begins", "until", "weekdays"})
        begins, until = self._clock(window, "begins"), self._clock(window, "until")
        days = self._list(window, "weekdays", 1, 7)
        if any(type(day) is not int or not 1 <= day <= 7 for day in days) or len(set(days)) != len(days):
            self._wrong(window.at("weekdays"), "must be days, Monday 1 .. Sunday 7, each once")
        if begins == until:
            self._wrong(window.at("until"), "is the window's beginning: it never opens")
        return LocalWindow(begins, until, frozenset(days))

    def _evidence(self, stage: _Fields) -> GateSpec | None:
        value = self._required(stage, "evidence", null=True)
        if value is None:
            return None
        path = stage.at("evidence")
        spec = self._mapping(value, path, set(_EVIDENCE_FIELDS))
        read: dict[str, Callable[[], Any]] = {
            "kind": partial(self._choice, spec, "kind", StageKind),
            "safety": partial(self._metrics, spec, "safety"),
            "primary": partial(self._primary, spec),
            "look_days": partial(self._looks, spec),
            "match_labels": partial(self._names, spec, "match_labels", 8),
            "before_days": partial(self._whole, spec, "before_days", 2, 400),
            "controls_per_store": partial(self._whole, spec, "controls_per_store", 1, 20),
            "seed": partial(self._whole, spec, "seed", 0, 2**31),
            "mde": partial(self._share, spec, "mde", null=True),
        }
        read |= {name: partial(self._share, spec, name) for name in ("alpha", "power", "sample_ratio_alpha")}
        made = self._all(read)
        try:
            return GateSpec(**made)
        except ValueError as error:
            name, _, reason = str(error).partition(": ")
            self._wrong(f"{path}.{name}" if name in _EVIDENCE_FIELDS else path, reason or str(error))

    def _looks(self, spec: _Fields) -> tuple[int, ...]:
        days = self._list(spec, "look_days", 1, 20)
        if any(type(one) is not int or not 1 <= one <= 365 for one in days):
            self._wrong(spec.at("look_days"), f"must be days 1..365, got {days!r}")
        return tuple(days)

    def _metrics(self, spec: _Fields, name: str) -> tuple[MetricId, ...]:
        return tuple(self._metric(one, spec.at(name)) for one in self._names(spec, name, 16))

    def _primary(self, spec: _Fields) -> MetricId | None:
        value = self._required(spec, "primary", null=True)
        return None if value is None else self._metric(value, spec.at("primary"))

    def _metric(self, value: object, path: str) -> MetricId:
        if not isinstance(value, str) or value not in METRICS:
            self._wrong(path, f"{value!r} is no metric; one of {', '.join(sorted(METRICS))}")
        return MetricId(str(value))

    # ------------------------------------------------------------ values

    def _wrong(self, path: str, reason: str) -> NoReturn:
        self.problems.append(Problem(path, reason))
        raise _Wrong

    def _or(self, read: Callable[[], _Read], otherwise: _Read) -> _Read:
        try:
            return read()
        except _Wrong:
            return otherwise

    def _all(self, read: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Each field read; when any is wrong the others are looked at before it is given up."""
        before = len(self.problems)
        values = {name: self._or(one, None) for name, one in read.items()}
        if len(self.problems) > before:
            raise _Wrong
        return values

    def _mapping(self, value: object, path: str, known: set[str]) -> _Fields:
        if not isinstance(value, Mapping):
            self._wrong(path, "must be a mapping of fields")
        for key in value:
            if key not in known:
                self.problems.append(Problem(f"{path}.{key}" if path else str(key), "is no field here"))
        return _Fields(value, path, {})

    def _required(self, found: _Fields, name: str, *, null: bool = False) -> Any:
        for data in (found.data, found.common):
            if name in data:
                if data[name] is None and not null:
                    self._wrong(found.at(name), "says nothing")
                return data[name]
        return self._wrong(f"{found.path}.{name}" if found.path else name, "is missing")

    def _whole(self, found: _Fields, name: str, low: int, high: int, said: str = "") -> int:
        value = self._required(found, name)
        if type(value) is not int or not low <= value <= high:
            self._wrong(found.at(name), f"{said or f'must be a whole number {low}..{high}'}, got {value!r}")
        return int(value)

    def _share(self, found: _Fields, name: str, *, null: bool = False) -> Any:
        value: Any = self._required(found, name, null=null)
        if value is None:
            return None
        try:
            fine = not isinstance(value, bool) and 0 < value < inf
        except TypeError:
            fine = False
        if not fine:
            self._wrong(found.at(name), f"must be a number above 0, got {value!r}")
        return value

    def _flag(self, found: _Fields, name: str) -> bool:
        value = self._required(found, name)
        if not isinstance(value, bool):
            self._wrong(found.at(name), f"must be true or false, got {value!r}")
        return bool(value)

    def _slug(self, found: _Fields, name: str) -> str:
        value = self._required(found, name)
        if not isinstance(value, str) or not is_topic_level(value):
            self._wrong(found.at(name), f"must match [a-z0-9-]{{1,48}}, got {value!r}")
        return str(value)

    def _text(self, root: _Fields, name: str) -> Text:
        inner = self._mapping(self._required(root, name), name, {"zh", "en"})
        zh, en = (self._required(inner, language) for language in ("zh", "en"))
        if not all(isinstance(one, str) and 0 < len(one.strip()) <= 200 and keepable(one) for one in (zh, en)):
            self._wrong(root.at(name), "must be two texts of 1..200 characters, zh and en, none of them a control")
        return Text(zh, en)

    def _list(self, found: _Fields, name: str, low: int, high: int) -> Sequence[Any]:
        value = self._required(found, name)
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            self._wrong(found.at(name), f"must be a list of {low}..{high} entries")
        return list(value)

    def _names(self, found: _Fields, name: str, high: int, low: int = 0) -> tuple[str, ...]:
        entries = self._list(found, name, low, high)
        if not all(isinstance(one, str) and _LABEL.fullmatch(one) for one in entries):
            self._wrong(found.at(name), "must be a list of names")
        if len(set(entries)) != len(entries):
            self._wrong(found.at(name), "names an entry twice")
        return tuple(entries)

    def _choice(self, found: _Fields, name: str, kind: type[_Choice], path: str = "") -> _Choice:
        value = self._required(found, name)
        if value not in list(kind):
            self._wrong(path or found.at(name), f"must be one of {', '.join(kind)}, got {value!r}")
        return kind(value)

    def _clock(self, found: _Fields, name: str) -> time:
        value = self._required(found, name)
        try:
            read = time.fromisoformat(value)
        except (TypeError, ValueError):
            self._wrong(found.at(name), f'must be a local time in quotes, as "22:00", got {value!r}')
        if read.tzinfo is not None:
            self._wrong(found.at(name), "is local to the store: no offset")
        return read

    def _zone(self, root: _Fields) -> str:
        value = self._required(root, "zone")
        try:
            zone_of(value)
        except (TypeError, ValueError):
            self._wrong(root.at("zone"), f"must be an IANA zone such as Asia/Shanghai, got {value!r}")
        return str(value)
