"""Takes typed fields out of plain data and names the field that is wrong: what every part of a plan is read with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, TypeVar

from models.domain.ids import is_topic_level

_Choice = TypeVar("_Choice", bound=StrEnum)


class PlanError(ValueError):
    """A plan that cannot be offered. `field` is the path of the wrong entry, e.g. `benefits[0].quota`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Text:
    """One text in the two languages of equal rank."""

    zh: str
    en: str

    def to(self, language: str) -> str:
        """The text in `language` ("zh", "zh-CN", …); anything but Chinese reads English."""
        return self.zh if language.lower().startswith("zh") else self.en


class Reader:
    """One mapping; each method takes a field, checks it, and raises PlanError with the field's path."""

    def __init__(self, data: object, prefix: str, fields: frozenset[str]) -> None:
        self._prefix = prefix
        if not isinstance(data, Mapping):
            raise PlanError(prefix or "plan", "must be a mapping of fields")
        self.data: Mapping[str, Any] = data
        unknown = sorted(str(key) for key in data if key not in fields)
        if unknown:
            raise PlanError(self.path(unknown[0]), "is not a field of a plan")

    def path(self, field: str) -> str:
        """Where `field` stands in the whole document."""
        return f"{self._prefix}.{field}" if self._prefix else field

    def has(self, field: str) -> bool:
        """True when the document says something about `field`."""
        return field in self.data

    def inner(self, field: str, fields: frozenset[str]) -> Reader:
        """A reader of the mapping that stands in `field`."""
        return Reader(self._required(field), self.path(field), fields)

    def _required(self, field: str) -> Any:
        if field not in self.data:
            raise PlanError(self.path(field), "is missing")
        return self.data[field]

    def integer(self, field: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number `low..high`."""
        value = default if default is not None and not self.has(field) else self._required(field)
        if type(value) is not int or not low <= value <= high:
            raise PlanError(self.path(field), f"must be a whole number {low}..{high}, got {value!r}")
        return value

    def string(self, field: str, default: str | None = None) -> str:
        """A text of 1..200 characters."""
        value = default if default is not None and not self.has(field) else self._required(field)
        if not isinstance(value, str) or not value.strip() or len(value) > 200:
            raise PlanError(self.path(field), "must be a text of 1..200 characters")
        return value

    def slug(self, field: str, default: str | None = None) -> str:
        """A name that may stand in a topic."""
        value = self.string(field, default)
        if not is_topic_level(value):
            raise PlanError(self.path(field), f"must match [a-z0-9-]{{1,48}}, got {value!r}")
        return value

    def text(self, field: str) -> Text:
        """A text in both languages."""
        inner = self.inner(field, frozenset({"zh", "en"}))
        return Text(zh=inner.string("zh"), en=inner.string("en"))

    def day(self, field: str) -> date:
        """A calendar date, written in quotes: a plan is kept as JSON, which has no dates."""
        value = self._required(field)
        try:
            return date.fromisoformat(value)
        except (TypeError, ValueError) as error:
            raise PlanError(self.path(field), f'must be a date in quotes, as "2026-12-31", got {value!r}') from error

    def choice(self, field: str, kind: type[_Choice], default: _Choice | None = None) -> _Choice:
        """One of the words of `kind`."""
        value = default if default is not None and not self.has(field) else self._required(field)
        try:
            return kind(value)
        except ValueError as error:
            raise PlanError(self.path(field), f"must be one of {', '.join(kind)}, got {value!r}") from error

    def items(self, field: str, low: int, high: int) -> Sequence[Any]:
        """A list of `low..high` entries."""
        value = self._required(field)
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            raise PlanError(self.path(field), f"must be a list of {low}..{high} entries")
        return value

    def names(self, field: str, entries_max: int, what: str) -> frozenset[str]:
        """A list of 1..`entries_max` texts, each once; empty when the document does not have the field."""
        if not self.has(field):
            return frozenset()
        entries = self.items(field, 1, entries_max)
        if not all(isinstance(entry, str) and 0 < len(entry) <= 200 for entry in entries):
            raise PlanError(self.path(field), f"must be a list of {what}")
        if len(set(entries)) != len(entries):
            raise PlanError(self.path(field), "names an entry twice")
        return frozenset(entries)
