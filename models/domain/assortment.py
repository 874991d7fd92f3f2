"""The articles of a chain in all versions of its book, each kept once: versions differ in what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from models.domain.pricing import Item


class Assortment:
    """Filled in the order of versions. The newest is one look-up; an older one asks what was changed since."""

    def __init__(self) -> None:
        self._newest: dict[str, Item] = {}
        self._before: dict[int, dict[str, Item | None]] = {}
        """By version: what an article was before this version changed it. Ascending."""
        self.complete = 0
        """Everything up to this version was put in: a load that broke off goes on from here."""

    @property
    def version(self) -> int:
        """The last version that changed anything; 0: none did."""
        return next(reversed(self._before), 0)

    def put(self, version: int, code: str, item: Item | None) -> None:
        """From `version` on the article is this; None: it is gone. Versions do not fall; said again, nothing is."""
        if code in self._before.get(version, ()):
            return
        assert version >= self.version, "versions come in their order"
        old = self._newest.get(code)
        self._before.setdefault(version, {})[code] = old
        if item is None:
            self._newest.pop(code, None)
        elif old is not None and old.name == item.name:
            # Mostly the price changes: the names are the larger part of an article.
            self._newest[code] = replace(item, code=old.code, name=old.name)
        else:
            self._newest[code] = item

    def at(self, version: int) -> Mapping[str, Item]:
        """The articles of one version. Stays right while newer ones are put in."""
        return _AtVersion(self, version)

    def find(self, code: str, version: int) -> Item | None:
        """The article as it was in that version."""
        if self.version > version:
            for changed, before in self._before.items():
                if changed > version and code in before:
                    return before[code]
        return self._newest.get(code)

    def codes(self, version: int) -> Iterator[str]:
        """The codes of that version: those still listed in their order, then those that went since."""
        if self.version <= version:
            yield from self._newest
            return
        went: dict[str, None] = {}
        for changed, before in self._before.items():
            if changed > version:
                went.update(dict.fromkeys(code for code in before if code not in self._newest))
        for code in (*self._newest, *went):
            if self.find(code, version) is not None:
                yield code

    def total(self, version: int) -> int:
        """How many articles that version has."""
        return len(self._newest) if self.version <= version else sum(1 for _ in self.codes(version))


class _AtVersion(Mapping[str, Item]):
    __slots__ = ("_assortment", "_version")

    def __init__(self, assortment: Assortment, version: int) -> None:
        self._assortment, self._version = assortment, version

    def __getitem__(self, code: str) -> Item:
        item = self._assortment.find(code, self._version)
        if item is None:
            raise KeyError(code)
        return item

    def get(self, code: str, default: object = None) -> object:  # type: ignore[override]  # a miss raises nothing
        item = self._assortment.find(code, self._version)
        return default if item is None else item

    def __contains__(self, code: object) -> bool:
        return isinstance(code, str) and self._assortment.find(code, self._version) is not None

    def __iter__(self) -> Iterator[str]:
        return self._assortment.codes(self._version)

    def __len__(self) -> int:
        return self._assortment.total(self._version)
