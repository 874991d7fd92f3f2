"""A chain's configuration in layers: chain -> region -> store -> terminal, each a merge patch over the ones before.

Pure. `effective` folds them by RFC 7396 and remembers of each leaf which layer set it last. What may stand in a layer
is in chain_settings.py, what is refused in chain_refusals.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.domain.chain_refusals import Fault
from models.domain.chain_settings import SETTINGS, Level, Needs, Path
from models.domain.twin import merged

LAYER_CHARACTERS_MAX = 4_096
"""Of one layer as canonical JSON."""
DEFAULT = "default"
ABSENT = "(absent)"


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
        before = dict(leaves(document))
        document = merged(document, layer.patch)
        origins = {
            # A leaf that no patch names is new when what stood below it was taken away: then it is an empty object.
            path: layer.origin(path)
            if _set_by(layer.patch, path) or before.get(path, ABSENT) != value
            else origins[path]
            for path, value in leaves(document)
        }
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


# ---------------------------------------------------------------- what does not go together


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
