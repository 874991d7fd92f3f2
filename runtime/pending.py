"""Durable asks without an answer, of each store: so that one store cannot fill the outbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from models.domain.ids import StoreId
from models.tables.journal import Commit

OUTBOX_ROWS_A_STORE_MAX = 256
"""Not done, of one store: some lanes with a payment each, and an hour of uses that memberships could not take."""


class Pending:
    """Keeps step with what a host commits. Nobody else writes its stores' rows."""

    def __init__(self, rows_a_store_max: int = OUTBOX_ROWS_A_STORE_MAX) -> None:
        self._rows_max = rows_a_store_max
        self._store_of: dict[str, StoreId] = {}
        self._of_store: Counter[StoreId] = Counter()

    def __len__(self) -> int:
        return len(self._store_of)

    def begin(self, rows: Iterable[tuple[str, StoreId]]) -> None:
        """As the database has it: (outbox id, store) of what is not done."""
        self._store_of = dict(rows)
        self._of_store = Counter(self._store_of.values())

    def full(self, store: StoreId, more: int) -> bool:
        """True when the store has as many as it may, with `more` that are about to be committed."""
        return self._of_store[store] + more >= self._rows_max

    def committed(self, commit: Commit) -> None:
        """A batch is in the database."""
        for entry in commit.outbox:
            if entry.id not in self._store_of:
                self._store_of[entry.id] = entry.address.store
                self._of_store[entry.address.store] += 1
        for ask, _ in commit.answered:
            store = self._store_of.pop(ask, None)
            if store is not None:
                self._of_store[store] -= 1
                if not self._of_store[store]:
                    del self._of_store[store]
