"""What is refused in a layer of a chain's configuration: unknown, mistyped, out of bounds, at the wrong level."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.domain.chain_settings import BY_PATH, DERIVED, GROUPS, SETTINGS, Level, Path


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a layer. `path` is where, `do` what to do about it."""

    path: Path
    message: str
    do: str
    unknown: bool = False
    """No setting has this path."""

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
            yield Fault(path, f"{key} is no setting", DERIVED[key], unknown=True)
        else:
            yield Fault(path, "unknown setting", _nearest(path), unknown=True)


def _nearest(path: Path) -> str:
    asked = ".".join(path)
    known = [setting.path for setting in SETTINGS]
    groups = [".".join(group) for group in GROUPS]
    # A name may be wrong at its end only, or stand alone where its group is missing.
    ends = {one.rpartition(".")[2]: one for one in known}
    close = difflib.get_close_matches(asked, known + groups, 1)
    close = close or [ends[one] for one in difflib.get_close_matches(path[-1], list(ends), 1)]
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
