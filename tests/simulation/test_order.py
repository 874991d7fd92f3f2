"""Money waits for what was sent before it, 2 s at most and once; nothing else waits; a flood costs its rate."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from models.domain.ids import TerminalId
from runtime.floods import BURST_MESSAGES_MAX, Moderator
from runtime.order import HELD_A_BOOT_MAX, HELD_A_TERMINAL_MAX, HELD_MAX, WAIT_S_MAX, Passed, SeqGate, Skipped

BOOT = (TerminalId("t"), "b1")


@dataclass
class Line:
    """A gate of one boot: (seq, money) in, seqs out in their order."""

    gaps: list[tuple[int, int]] = field(default_factory=list)
    out: list[int] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate: SeqGate[int] = SeqGate(lambda _, after, seq: self.gaps.append((after, seq)))

    def take(self, seq: int, *, money: bool = False, at: float = 0.0) -> list[int]:
        return self._went(self.gate.admit(BOOT, seq, money, seq, at))

    def due(self, at: float) -> list[int]:
        return self._went(self.gate.due(at))

    def _went(self, passed: list[Passed[int]]) -> list[int]:
        self.skipped += [one.skipped for one in passed if one.skipped is not None]
        self.out += [one.item for one in passed]
        return [one.item for one in passed]


def test_money_waits_for_a_message_that_comes_late() -> None:
    line = Line()
    assert line.take(1) == [1]
    assert line.take(3, money=True) == []
    assert line.gaps == [(1, 3)]  # flagged at once
    assert line.take(4) == [4]  # nothing else waits
    assert line.take(5, money=True) == []
    assert line.take(2) == [2, 3, 5]
    assert line.gate.wait_s(0.0) == float("inf")
    assert line.skipped == []


def test_a_gap_that_never_fills_costs_one_wait() -> None:
    line = Line()
    line.take(1)
    assert line.take(4, money=True, at=10.0) == []
    assert line.gate.wait_s(10.5) == WAIT_S_MAX - 0.5
    assert line.due(11.9) == []
    assert line.due(12.0) == [4]
    assert line.skipped == [Skipped(2, 3)]
    assert line.take(5, money=True, at=12.1) == [5]
    assert line.take(3, at=12.2) == [3]  # too late to be waited for, not too late to count
    assert line.take(7, money=True, at=12.3) == []  # another gap, another wait


def test_a_duplicate_does_not_overtake_what_it_repeats() -> None:
    line = Line()
    line.take(1)
    assert line.take(3, money=True) == []
    assert line.take(3, money=True) == []
    assert line.take(2) == [2, 3, 3]
    assert line.take(3, money=True) == [3]


def test_a_boot_begins_at_one_or_where_the_inbox_knows_it() -> None:
    line = Line()
    assert line.gate.unknown(BOOT, 6)
    assert not line.gate.unknown(BOOT, 1)
    line.gate.learn(BOOT, 5)
    assert line.take(6, money=True) == [6]
    fresh = Line()
    fresh.gate.learn(BOOT, 0)
    assert fresh.take(2, money=True) == []
    assert fresh.take(1) == [1, 2]


def test_what_waits_is_bounded_and_what_exceeds_it_goes_on_marked() -> None:
    line = Line()
    line.take(1)
    for n in range(HELD_A_BOOT_MAX):
        assert line.take(10 + 2 * n, money=True) == []
    assert line.take(100, money=True) == [*range(10, 10 + 2 * HELD_A_BOOT_MAX, 2), 100]
    assert line.gate.held == 0
    assert line.skipped == [Skipped(2, 99)]


def test_a_terminal_that_makes_up_boots_uses_its_own_room() -> None:
    gate: SeqGate[str] = SeqGate(lambda *_: None)
    hostile, honest = TerminalId("h"), (TerminalId("t"), "b")
    for n in range(HELD_MAX + 1):
        gate.admit((hostile, f"boot {n}"), 5, True, "x", 0.0)
    assert gate.held == HELD_A_TERMINAL_MAX
    assert gate.admit(honest, 2, True, "money", 0.0) == [], "it waits for what was sent before it"
    assert gate.admit(honest, 1, False, "scan", 0.1) == [Passed("scan"), Passed("money")]
    gate.due(WAIT_S_MAX)
    assert gate.held == 0
    assert gate.admit((hostile, "boot"), 5, True, "x", 3.0) == [], "its room is its own again"


@given(st.permutations(list(range(1, 13))), st.sets(st.integers(1, 12)), st.sets(st.integers(1, 12)))
def test_every_message_goes_on_once_and_money_never_before_what_came_within_its_wait(
    arrivals: list[int], money: set[int], lost: set[int]
) -> None:
    line, came = Line(), dict[int, float]()
    for n, seq in enumerate(arrivals):
        if seq in lost:
            continue
        at = n * 0.5
        line.due(at)
        came[seq] = at
        line.take(seq, money=seq in money, at=at)
    line.due(1000.0)
    assert sorted(line.out) == sorted(came)
    place = {seq: n for n, seq in enumerate(line.out)}
    for seq in money & came.keys():
        for before in range(1, seq):
            if before in came and came[before] < came[seq]:
                # It had come: whatever was given up, it is not behind.
                assert place[before] < place[seq]
    assert line.gate.held == 0


def test_a_flood_of_presence_costs_its_rate_and_the_newest_word_counts() -> None:
    moderator: Moderator[str] = Moderator()
    peer = (TerminalId("t"), "presence")
    passed, replaced = 0, 0
    for n in range(1_000):
        now, gone = moderator.admit(peer, f"birth {n}", 0.0)
        passed, replaced = passed + len(now), replaced + len(gone)
    assert (passed, replaced, moderator.waiting) == (BURST_MESSAGES_MAX, 999 - BURST_MESSAGES_MAX, 1)
    _, gone = moderator.admit(peer, "will", 0.0, follows=True)
    assert gone == []  # it means nothing without its birth
    assert moderator.due(0.5) == []
    assert moderator.due(1.0) == ["birth 999", "will"]
    other, _ = moderator.admit((TerminalId("u"), "presence"), "birth", 1.0)
    assert other == ["birth"]
