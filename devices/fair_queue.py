"""A queue that one loud sender cannot fill, and that serves senders in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class FairQueue(Generic[K, T]):
    """Each sender's items in their order; senders in turn, a few items each. Bounded for each sender."""

    def __init__(self, sender_items_max: int, turn_items: int) -> None:
        """`turn_items` of a sender are taken before the next sender's turn."""
        self._sender_items_max = sender_items_max
        self._turn_items = turn_items
        self._lines: dict[K, deque[T]] = {}
        self._turns: deque[K] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def waiting(self, sender: K) -> int:
        """Items of one sender."""
        line = self._lines.get(sender)
        return 0 if line is None else len(line)

    def line(self, sender: K) -> Iterable[T]:
        """The sender's items, the oldest first."""
        return self._lines.get(sender, ())

    def full(self, sender: K) -> bool:
        """True when the sender has as much waiting as it may."""
        return self.waiting(sender) >= self._sender_items_max

    def put(self, sender: K, item: T) -> None:
        """Add to the sender's line; `full` is the caller's to look at."""
        line = self._lines.get(sender)
        if line is None:
            line = self._lines[sender] = deque()
            self._turns.append(sender)
        line.append(item)
        self._size += 1

    def take(self, items_max: int) -> list[T]:
        """At most so many items: of each sender in turn."""
        taken: list[T] = []
        while self._turns and len(taken) < items_max:
            sender = self._turns.popleft()
            line = self._lines[sender]
            share = min(self._turn_items, len(line), items_max - len(taken))
            taken += [line.popleft() for _ in range(share)]
            if line:
                self._turns.append(sender)
            else:
                del self._lines[sender]
        self._size -= len(taken)
        return taken

    def take_first(self, sender: K, which: Callable[[T], bool]) -> T | None:
        """The sender's oldest item for which `which` holds, out of the queue; None when there is none."""
        line = self._lines.get(sender, ())
        for n, item in enumerate(line):
            if which(item):
                assert isinstance(line, deque)
                del line[n]
                self._size -= 1
                if not line:
                    del self._lines[sender]
                    self._turns.remove(sender)
                return item
        return None

    def keep(self, which: Callable[[T], bool]) -> None:
        """Forget the items for which `which` does not hold."""
        kept = [(sender, item) for sender in self._turns for item in self._lines[sender] if which(item)]
        self._lines, self._turns, self._size = {}, deque(), 0
        for sender, item in kept:
            self.put(sender, item)
