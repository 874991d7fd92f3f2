"""A chain's configuration in layers: chain -> region -> store -> terminal, each a merge patch over the ones before.

Pure. `effective` folds them by RFC 7396 and remembers of each leaf which layer set it last; `faults` refuses what no
setting is (models.domain.chain_settings), all of it at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.domain.chain_settings import BY_PATH, DERIVED, GROUPS, SETTINGS, Level, Needs, Path
from models.domain.twin import merged

LAYER_CHARACTERS_MAX = 4_096
"""Of one layer as canonical JSON."""
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. `level`: a Level, `default`, or what else lays something over the document.

    `place`: file:line, or who changed it when; empty when that is not known.
    """

    level: str
    name: str
    place: str = ""

    def __str__(self) -> str:
        said = self.level if self.name in ("", self.level) else f"{self.level} {self.name}"
        return f"{said} ({self.place})" if self.place else said


@dataclass(frozen=True, slots=True)
class Layer:
    """One patch. `places` says of its leaves, by path, where each was written; the empty path: of all others."""

    level: str
    name: str
    patch: Mapping[str, Any]
    places: Mapping[Path, str] = field(default_factory=dict)

    def origin(self, path: Path) -> Origin:
        """Of a leaf that this layer set: the nearest place that is known of it."""
        for n in range(len(path), -1, -1):
            if path[:n] in self.places:
                return Origin(self.level, self.name, self.places[path[:n]])
        return Origin(self.level, self.name)


@dataclass(frozen=True, slots=True)
class Effective:
    """A document, and the origin of each of its leaves by path."""

    document: Mapping[str, Any]
    origins: Mapping[Path, Origin]


def leaves(document: Mapping[str, Any], under: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no object, and every empty object, by path."""
    for key, value in document.items():
        path = (*under, key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def effective(layers: Iterable[Layer]) -> Effective:
    """Lay patches over each other in order; what nothing sets is not there. The document is the fold of `merged`."""
    document: dict[str, Any] = {}
    origins: dict[Path, Origin] = {}
    for layer in layers:
        document = merged(document, layer.patch)
        touched = [path for path, _ in leaves(layer.patch)]
        now: dict[Path, Origin] = {}
        for path, _ in leaves(document):
            if any(path == one or one[: len(path)] == path or path[: len(one)] == one for one in touched):
                now[path] = layer.origin(path) if _set_by(layer.patch, path) else origins.get(path, layer.origin(path))
            else:
                now[path] = origins[path]
        origins = now
    return Effective(document, origins)


def _set_by(patch: Mapping[str, Any], path: Path) -> bool:
    """Whether a patch gives the leaf at `path` its value; one that only takes something away beside it does not."""
    inside: Any = patch
    for key in path:
        if not isinstance(inside, Mapping) or key not in inside:
            return False
        inside = inside[key]
    return inside is not None and inside != {}


def completed(found: Effective, has: frozenset[Needs] | None = None) -> Effective:
    """With the defaults of what is not set; without what a terminal that `has` only this cannot do (None: all)."""
    document: dict[str, Any] = dict(found.document)
    origins = dict(found.origins)
    for setting in SETTINGS:
        if setting.default is not None and setting.keys not in origins:
            document = merged(document, _nested(setting.keys, setting.default))
            origins[setting.keys] = Origin(DEFAULT, "storeops")
    for setting in SETTINGS if has is not None else ():
        if setting.needs is not Needs.NOTHING and has is not None and setting.needs not in has:
            document = _without(document, setting.keys)
            origins.pop(setting.keys, None)
    return Effective(document, origins)


def _nested(path: Path, value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _without(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The document without this leaf, and without objects that are empty then."""
    result = dict(document)
    if len(path) == 1:
        result.pop(path[0], None)
        return result
    inside = result.get(path[0])
    if isinstance(inside, Mapping):
        rest = _without(inside, path[1:])
        if rest:
            result[path[0]] = rest
        else:
            del result[path[0]]
    return result


# ---------------------------------------------------------------- what is refused


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a layer. `path` is where, `do` what to do about it."""

    path: Path
    message: str
    do: str

    @property
    def key(self) -> str:
        """The dotted path."""
        return ".".join(self.path)


def faults(patch: object, level: Level) -> tuple[Fault, ...]:
    """Everything that is wrong with one layer's patch. A null is right anywhere: it gives a key back."""
    if not isinstance(patch, Mapping):
        return (Fault((), f"{patch!r} is no mapping of settings", "write names and values under it"),)
    return tuple(_faults(patch, level, ()))


def _faults(patch: Mapping[Any, Any], level: Level, under: Path) -> Iterator[Fault]:
    for key, value in patch.items():
        path = (*under, str(key))
        setting = BY_PATH.get(path)
        if setting is not None:
            if level not in setting.levels:
                where = ", ".join(one for one in Level if one in setting.levels)
                yield Fault(path, f"{setting.path} cannot be set at level {level}", f"set it at one of: {where}")
            elif value is not None and not setting.fits(value):
                yield Fault(path, f"{value!r} does not fit", f"give {setting.wanted}")
        elif path in GROUPS:
            if isinstance(value, Mapping):
                yield from _faults(value, level, path)
            elif value is not None:
                below = ", ".join(".".join(one) for one in BY_PATH if one[: len(path)] == path)
                yield Fault(path, f"{value!r} stands where settings stand", f"set {below}")
        elif not under and key in DERIVED:
            yield Fault(path, f"{key} is no setting", DERIVED[key])
        else:
            yield Fault(path, "unknown setting", _nearest(path))


def _nearest(path: Path) -> str:
    asked = ".".join(path)
    known = [setting.path for setting in SETTINGS]
    groups = [".".join(group) for group in GROUPS]
    # A name may be wrong at its end only, or stand alone where its group is missing.
    ends = {one.rpartition(".")[2]: one for one in known}
    close = difflib.get_close_matches(asked, known + groups, 1, 0.6)
    close = close or [ends[one] for one in difflib.get_close_matches(path[-1], list(ends), 1, 0.6)]
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def together(document: Mapping[str, Any]) -> tuple[Fault, ...]:
    """What is wrong with an effective document though each of its values fits."""
    window = document.get("software_window")
    if isinstance(window, Mapping) and window and not {"from", "to"} <= window.keys():
        missing = ", ".join(f"software_window.{key}" for key in ("from", "to") if key not in window)
        return (Fault(("software_window",), "a window has a begin and an end", f"set {missing}, too"),)
    return ()


# ---------------------------------------------------------------- two documents beside each other


@dataclass(frozen=True, slots=True)
class Difference:
    """A leaf that differs; `before` or `after` is ABSENT where it is not there."""

    path: Path
    before: Any
    after: Any


ABSENT = "(absent)"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Every leaf that is not the same, by path."""
    one, other = dict(leaves(before)), dict(leaves(after))
    return tuple(
        Difference(path, one.get(path, ABSENT), other.get(path, ABSENT))
        for path in sorted(one.keys() | other.keys())
        if (path in one) != (path in other) or one[path] != other[path]
    )


def ordered(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """By level, chain first; those of one level keep their order."""
    rank = {str(level): n for n, level in enumerate(Level)}
    return tuple(sorted(layers, key=lambda layer: rank[layer.level]))
