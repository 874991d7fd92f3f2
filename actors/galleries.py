"""The galleries of a face worker: one per chain. Rows come in sealed and committed; searches say what was missing.

A gallery may be this process's own or one that the workers of a node share: then one of them writes, all search.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from actors.face_ports import SearchableGallery, Vault
from models.domain.errors import RetryLater
from models.domain.gallery import InStore, InTail, NewRow, Where, merged
from models.domain.ids import ChainId, MemberId, StoreId
from models.domain.recognition import Embedding, GalleryDelta, GalleryRow, SearchResult

CHAINS_MAX = 64
"""Galleries in one worker."""
VISITORS_MAX = 2_000
"""Recent visitors of one store that are searched with its own members; the longest ago are forgotten first."""
STORES_MAX = 4_096
"""Stores whose visitors a worker remembers."""
ROWS_AT_ONCE = 2_048
"""Rows that are opened before they become searchable together."""

Elsewhere = Callable[[ChainId, str], Iterable[GalleryRow]]
"""The chain's templates in a bucket of digits that this gallery does not hold. Raises RetryLater when away."""
Recent = Callable[[ChainId, StoreId], Iterable[MemberId]]
"""Recent visitors of a store, as far as they are known by now. From another thread: it hands out what never changes."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How many templates became searchable, and how many did not, by reason."""

    version: int
    loaded: int
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A search's result. `partial`: a part of the gallery was missing, or moved while it was read."""

    result: SearchResult
    version: int
    partial: bool = False


@dataclass(slots=True)
class _Visitors:
    stores: OrderedDict[StoreId, OrderedDict[MemberId, None]] = field(default_factory=OrderedDict)

    def add(self, store: StoreId, members: Iterable[MemberId]) -> None:
        here = self.stores.setdefault(store, OrderedDict())
        self.stores.move_to_end(store)
        for member in members:
            here[member] = None
            here.move_to_end(member)
        while len(here) > VISITORS_MAX:
            here.popitem(last=False)
        while len(self.stores) > STORES_MAX:
            self.stores.popitem(last=False)

    def drop(self, member: MemberId) -> None:
        for here in self.stores.values():
            here.pop(member, None)


class Galleries:
    """Galleries by chain. Not for several threads."""

    def __init__(
        self,
        vault: Vault,
        net_sha256: str,
        new_gallery: Callable[[ChainId], SearchableGallery],
        elsewhere: Elsewhere | None = None,
        recent: Recent | None = None,
    ) -> None:
        """`new_gallery` opens a chain's gallery, which may be full already; `elsewhere` reads other regions' rows."""
        self._vault = vault
        self.net_sha256 = net_sha256
        self._new_gallery = new_gallery
        self._elsewhere = elsewhere
        self._recent = recent
        self._chains: dict[ChainId, SearchableGallery] = {}
        self._visitors: dict[ChainId, _Visitors] = {}

    # ------------------------------------------------------------ search

    def in_store(self, chain: ChainId, store: StoreId, probe: Embedding) -> Found:
        """Among the store's own members and its recent visitors."""
        visitors = dict.fromkeys(self._recent(chain, store) if self._recent else ())
        if chain in self._visitors:
            visitors.update(self._visitors[chain].stores.get(store, {}))
        return self._search(chain, probe, InStore(store, tuple(visitors)[-VISITORS_MAX:]))

    def in_region(self, chain: ChainId, probe: Embedding) -> Found:
        """Among all templates that this worker's gallery holds."""
        return self._search(chain, probe, None)

    def in_bucket(self, chain: ChainId, tail: str, probe: Embedding) -> Found:
        """Among the members of the whole chain whose phone ends in these digits, those of other regions included."""
        here = self._search(chain, probe, InTail(tail))
        try:
            rows = list(self._elsewhere(chain, tail)) if self._elsewhere else []
        except RetryLater:
            return Found(here.result, here.version, partial=True)
        away = self._score(chain, rows, probe) if rows else SearchResult(None, None, 0)
        return Found(merged(here.result, away), here.version, here.partial)

    def visited(self, chain: ChainId, store: StoreId, members: Iterable[MemberId]) -> None:
        """Remember visitors of a store, the latest last: its next searches include them."""
        self._visitors.setdefault(chain, _Visitors()).add(store, members)

    def version(self, chain: ChainId) -> int:
        """The change up to which the chain's gallery is searchable; 0: nothing is."""
        known = self._chains.get(chain)
        return known.version if known is not None else 0

    def versions(self) -> dict[ChainId, int]:
        """Of every chain."""
        return {chain: known.version for chain, known in self._chains.items()}

    def counts(self) -> dict[ChainId, int]:
        """Templates of every chain."""
        return {chain: len(known) for chain, known in self._chains.items()}

    # ------------------------------------------------------------ changes

    def open(self, chain: ChainId) -> SearchableGallery:
        """The chain's gallery, made or attached at its first use. Raises RetryLater `chains_full`."""
        known = self._chains.get(chain)
        if known is None:
            if len(self._chains) >= CHAINS_MAX:
                raise RetryLater("chains_full", f"{CHAINS_MAX} galleries are the bound", "start another worker", 60.0)
            known = self._chains[chain] = self._new_gallery(chain)
        return known

    def load(self, chain: ChainId, version: int, rows: Iterable[GalleryRow], expected: int = 0) -> LoadReport:
        """Replace the chain's gallery by these rows, as committed up to `version`; searches meanwhile are partial.

        `expected`: how many there will be, as far as it is known.

        A row of another net or chain, or one that does not open, is skipped and counted: one bad row must not
        close a shop. Raises RetryLater `gallery_full` beyond the gallery's bound: it stays partial.
        """
        gallery = self.open(chain)
        gallery.begin_load(expected)
        loaded, skipped = self._put(chain, gallery, rows)
        gallery.end_load(version)
        return LoadReport(version, loaded, skipped)

    def apply_deltas(self, delta: GalleryDelta) -> LoadReport:
        """Take committed changes: removals, then upserts. A delta that is already inside changes nothing; one that
        starts where the gallery is may repeat what is inside, or bring what became visible late.

        Raises RetryLater `gallery_behind` when changes before `since_version` are missing here: load again.
        """
        gallery = self.open(delta.chain)
        at = gallery.version
        if delta.since_version > at:
            raise RetryLater(
                "gallery_behind", f"at {at}, the delta starts at {delta.since_version}", "load the gallery", 0.0
            )
        if delta.version <= at and delta.since_version < at:
            return LoadReport(at, 0, {})
        for member in delta.removals:
            self.forget(delta.chain, member)
        loaded, skipped = self._put(delta.chain, gallery, delta.upserts)
        gallery.advance(delta.version)
        return LoadReport(delta.version, loaded, skipped)

    def forget(self, chain: ChainId, member: MemberId) -> int:
        """Erase a member's templates at once; how many there were. Again: 0."""
        if chain in self._visitors:
            self._visitors[chain].drop(member)
        known = self._chains.get(chain)
        return known.remove(member) if known is not None else 0

    # ------------------------------------------------------------ inside

    def _search(self, chain: ChainId, probe: Embedding, where: Where) -> Found:
        known = self._chains.get(chain)
        if known is None:
            return Found(SearchResult(None, None, 0), 0)
        result, whole = known.search(probe, where)
        return Found(result, known.version, partial=not whole)

    def _put(self, chain: ChainId, into: SearchableGallery, rows: Iterable[GalleryRow]) -> tuple[int, dict[str, int]]:
        loaded, skipped = 0, Counter[str]()
        for some in _chunks(rows):
            opened = self._opened(chain, some, skipped)
            try:
                refused = into.add_many(opened)
            finally:
                _zero(opened)
            loaded += len(opened) - refused
            if refused:
                skipped["no_template"] += refused
        return loaded, dict(skipped)

    def _opened(self, chain: ChainId, rows: Iterable[GalleryRow], skipped: Counter[str]) -> list[NewRow]:
        ours = []
        for row in rows:
            if row.chain != chain:
                skipped["other_chain"] += 1
            elif row.template.net_sha256 != self.net_sha256:
                skipped["other_net"] += 1
            else:
                ours.append(row)
        opened = []
        for row, plain in zip(ours, self._vault.open_many((row.template, row.key) for row in ours), strict=True):
            if plain is None:
                skipped["template_sealed"] += 1
            else:
                template = row.template
                opened.append(NewRow(template.member, template.id, bytearray(plain), row.store, row.phone_tail))
        return opened

    def _score(self, chain: ChainId, rows: Iterable[GalleryRow], probe: Embedding) -> SearchResult:
        opened = self._opened(chain, rows, Counter())
        try:
            return self.open(chain).score(opened, probe)
        finally:
            _zero(opened)


def _zero(rows: Iterable[NewRow]) -> None:
    """Overwrite opened templates: memory that is only given back keeps them."""
    for row in rows:
        if isinstance(row.embedding, bytearray):
            row.embedding[:] = bytes(len(row.embedding))


def _chunks(rows: Iterable[GalleryRow]) -> Iterator[list[GalleryRow]]:
    source = iter(rows)
    while some := list(islice(source, ROWS_AT_ONCE)):
        yield some
