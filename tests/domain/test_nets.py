from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.ids import MemberId
from models.domain.messages import RecognitionDecision, TemplateKind
from models.domain.nets import NetDecision, pack, settle, unpack, upkeep, with_all
from models.domain.recognition import (
    Accepted,
    Candidate,
    Decision,
    DigitsReason,
    Embedding,
    Match,
    NeedsDigits,
    NotRecognised,
    RecognitionPolicy,
    SearchResult,
    UnknownReason,
    decide,
    reason_of,
)

LI, WANG = MemberId("li"), MemberId("wang")
NEW, OLD = "n" * 64, "o" * 64


def said(net: str, match: Match, best_ppm: int = 700_000) -> NetDecision:
    reason = "clear" if isinstance(match, Accepted) else match.reason.value
    return NetDecision(net, Decision(match, RecognitionDecision(10, 480_000, best_ppm, 100_000, net, reason)))


UNKNOWN = NotRecognised(UnknownReason.BELOW_FLOOR)
DIGITS = NeedsDigits(DigitsReason.BELOW_THRESHOLD)


@pytest.mark.parametrize(
    ("new", "old", "stands"),
    [
        (Accepted(LI), UNKNOWN, NEW),
        (UNKNOWN, Accepted(LI), OLD),
        (Accepted(LI), Accepted(LI), NEW),
        (DIGITS, Accepted(LI), OLD),
        (UNKNOWN, DIGITS, OLD),
        (DIGITS, UNKNOWN, NEW),
        (UNKNOWN, UNKNOWN, NEW),
    ],
)
def test_the_first_that_accepts_stands_else_the_first_that_asks(new: Match, old: Match, stands: str) -> None:
    both = [said(NEW, new), said(OLD, old)]
    assert settle(both) == both[[NEW, OLD].index(stands)]


def test_two_nets_that_accept_two_people_ask_for_digits_and_with_digits_for_nobody() -> None:
    both = [said(NEW, Accepted(LI)), said(OLD, Accepted(WANG))]
    undecided = settle(both).decision
    assert undecided.match == NeedsDigits(DigitsReason.THIN_MARGIN)
    assert undecided.record.reason == "thin_margin" == reason_of(undecided.record)
    record = replace(both[0].decision.record, digits_given=True)
    both[0] = replace(both[0], decision=replace(both[0].decision, record=record))
    undecided = settle(both).decision
    assert undecided.match == NotRecognised(UnknownReason.DIGITS_THIN_MARGIN)
    assert undecided.record.reason == reason_of(undecided.record)


def test_n_is_the_templates_of_every_net() -> None:
    """A score that a gallery of ten accepts is digits when another net's thousand were searched beside it."""
    ten = SearchResult(Candidate(LI, 0.5), None, 10)
    thousand = SearchResult(None, None, 990)
    assert isinstance(decide(ten, RecognitionPolicy(), net_sha256=NEW).match, Accepted)
    first, second = with_all([ten, thousand])
    assert (first.searched, second.searched) == (1000, 1000)
    assert decide(first, RecognitionPolicy(), net_sha256=NEW).match == DIGITS


@pytest.mark.parametrize("second_factor", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("has_current", [False, True])
@pytest.mark.parametrize("net", [NEW, OLD])
@pytest.mark.parametrize("best_ppm", [599_999, 600_000])
@pytest.mark.parametrize("match", [Accepted(LI), DIGITS, UNKNOWN])
def test_which_template_a_recognised_member_gets(
    match: Match, best_ppm: int, net: str, has_current: bool, adaptive: bool, second_factor: bool
) -> None:
    kind = upkeep(
        said(net, match, best_ppm), NEW, has_current=has_current, second_factor=second_factor, adaptive=adaptive
    )
    if not isinstance(match, Accepted) or best_ppm < 600_000:
        expected = None
    elif not has_current:
        expected = TemplateKind.MIGRATED if net == OLD else None
    else:
        expected = TemplateKind.ADAPTIVE if adaptive and second_factor and net == NEW else None
    assert kind is expected


@given(st.dictionaries(st.text("0123456789abcdef", min_size=1, max_size=64), st.binary(max_size=600), max_size=4))
def test_a_packed_probe_comes_back_in_its_order(probes: dict[str, bytes]) -> None:
    typed = {net: Embedding(value) for net, value in probes.items()}
    assert list(unpack(pack(typed)).items()) == list(typed.items())


@pytest.mark.parametrize("cut", [1, 67, 70, 131])
def test_a_packed_probe_that_was_cut_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="cut short"):
        unpack(pack({NEW: Embedding(b"x" * 64)})[:cut])
