"""One loud sender against many quiet ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devices.fair_queue import FairQueue

SENDERS = st.sampled_from(["a", "b", "c"])


def test_senders_are_served_in_turn() -> None:
    queue: FairQueue[str, int] = FairQueue(sender_items_max=100, turn_items=2)
    for n in range(50):
        queue.put("loud", n)
    queue.put("quiet", 100)
    assert queue.take(5) == [0, 1, 100, 2, 3]
    assert (len(queue), queue.waiting("quiet"), queue.waiting("loud")) == (46, 0, 46)


def test_a_sender_has_its_own_bound() -> None:
    queue: FairQueue[str, int] = FairQueue(sender_items_max=2, turn_items=1)
    queue.put("loud", 1)
    assert not queue.full("loud")
    queue.put("loud", 2)
    assert queue.full("loud")
    assert not queue.full("quiet")


@given(st.lists(st.tuples(SENDERS, st.integers())), st.integers(1, 4), st.integers(1, 7))
def test_nothing_is_lost_and_each_sender_keeps_its_order(puts: list[tuple[str, int]], turn: int, some: int) -> None:
    queue: FairQueue[str, tuple[str, int]] = FairQueue(sender_items_max=1_000, turn_items=turn)
    for sender, n in puts:
        queue.put(sender, (sender, n))
    taken: list[tuple[str, int]] = []
    while len(queue):
        part = queue.take(some)
        assert 0 < len(part) <= some
        taken += part
    for name in "abc":
        assert [one for one in taken if one[0] == name] == [one for one in puts if one[0] == name]


def test_what_is_taken_out_or_forgotten_is_gone() -> None:
    queue: FairQueue[str, int] = FairQueue(sender_items_max=10, turn_items=1)
    for sender, n in (("a", 1), ("a", 2), ("b", 3)):
        queue.put(sender, n)
    assert queue.take_first("a", lambda n: n == 2) == 2
    assert queue.take_first("a", lambda n: n == 2) is None
    assert queue.take_first("nobody", lambda _: True) is None
    assert queue.take_first("b", lambda _: True) == 3
    assert (len(queue), queue.take(9)) == (1, [1])
    for n in range(4):
        queue.put("a", n)
    queue.keep(lambda n: n % 2 == 0)
    assert (len(queue), queue.take(9)) == (2, [0, 2])
