"""Generations rise, changes are compare-and-set, hashes are the terminal's own, clocks judged by their best word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import Refused
from models.domain.ids import MessageId
from models.domain.twin import (
    GEN_MAX,
    REPLAY_AGE_MAX,
    ClockSkew,
    CommandStatus,
    Desired,
    DesiredAsked,
    SoftwareVersion,
    Sync,
    canonical,
    change,
    goes_on,
    hash_of,
    merged,
    observed,
    replayed_at,
    sync_of,
)

NOW = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)
BASE = canonical({"language": "zh", "screen": {"lines": 4}})
SOFTWARE = SoftwareVersion("2.1", "https://example.org/2.1.bin", "0" * 64, 10)

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
keys = st.text(max_size=4)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
documents = st.dictionaries(keys, values, max_size=4)


def ask(n: int | str, patch: str | None = None, **more: Any) -> DesiredAsked:
    return DesiredAsked(MessageId(str(n)), more.pop("base", BASE), patch, **more)


@given(documents)
def test_the_hash_is_the_one_that_a_terminal_makes(document: dict[str, Any]) -> None:
    theirs = sha256(msgspec.json.encode(document, order="sorted")).hexdigest()
    assert hash_of(canonical(document)) == theirs


@given(documents, documents)
def test_a_merge_patch_is_rfc_7396(base: dict[str, Any], patch: dict[str, Any]) -> None:
    result = merged(base, patch)
    assert merged(result, patch) == result  # applied twice is applied once
    for key, value in patch.items():
        if value is None:
            assert key not in result
        elif not isinstance(value, dict):
            assert result[key] == value
    assert {key: value for key, value in result.items() if key not in patch} == {
        key: value for key, value in base.items() if key not in patch
    }


@given(st.lists(st.tuples(documents, st.integers(0, 50), st.booleans()), max_size=12))
def test_generations_rise_by_what_is_new_and_over_what_the_terminal_claims(
    steps: list[tuple[dict[str, Any], int, bool]],
) -> None:
    desired = Desired()
    for n, (patch, applied, reset) in enumerate(steps):
        patch.pop("consents", None)
        try:
            nxt, text = change(desired, ask(n, canonical(patch), reset=reset), applied)
        except Refused:
            continue  # too deep
        if nxt.gen == desired.gen:
            assert text == ""
            assert nxt.config_hash == desired.config_hash
            continue
        assert nxt.gen > max(desired.gen, applied)
        assert nxt.config_hash == hash_of(text)
        again, nothing = change(nxt, ask(n, canonical(patch), reset=reset), applied)
        assert (again, nothing) == (nxt, "")  # the same change asked again
        desired = nxt


def test_a_change_names_the_generation_it_was_made_against() -> None:
    first, _ = change(Desired(), ask(1), 0)
    second, config = change(first, ask(2, '{"screen":{"lines":null,"dark":true}}', expected_gen=1), 0)
    assert (second.gen, config) == (2, '{"language":"zh","screen":{"dark":true}}')
    with pytest.raises(Refused, match="present generation is 2"):
        change(second, ask(3, '{"volume":3}', expected_gen=1), 0)


def test_overrides_stay_when_the_chain_changes_its_book() -> None:
    first, _ = change(Desired(), ask(1, '{"volume":3}'), 0)
    second, config = change(first, ask(2, base=canonical({"language": "en"})), 0)
    assert (second.gen, config) == (2, '{"language":"en","volume":3}')
    third, config = change(second, ask(3, base=canonical({"language": "en"}), reset=True), 0)
    assert (third.gen, config) == (3, '{"language":"en"}')


def test_software_is_a_generation_too_and_in_sync_means_that_it_runs() -> None:
    first, _ = change(Desired(), ask(1, software=SOFTWARE), 0)
    assert sync_of(first, 1, first.config_hash, "1.0") is Sync.BEHIND
    assert sync_of(first, 1, first.config_hash, "2.1") is Sync.IN_SYNC
    assert change(first, ask(2), 0)[0].software == SOFTWARE
    assert change(first, ask(3, no_software=True), 0)[0].software is None


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ('{"volume":0.5}', "bad_config"),
        ("[1]", "bad_config"),
        ('{"consents":[]}', "protected_config"),
        ('{"a":' * 9 + "1" + "}" * 9, "bad_config"),
        ('{"a":"' + "x" * 5000 + '"}', "bad_config"),
    ],
)
def test_changes_that_are_refused(patch: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        change(Desired(), ask(1, patch), 0)
    assert refused.value.code == code


def test_a_terminal_that_claims_the_last_generation_is_not_chased() -> None:
    with pytest.raises(Refused, match="last generation"):
        change(Desired(), ask(1, leap=True), GEN_MAX)


def test_an_answer_goes_on_only_forward() -> None:
    assert goes_on(CommandStatus.SENT, CommandStatus.RUNNING)
    assert goes_on(CommandStatus.RUNNING, CommandStatus.FAILED)
    assert not goes_on(CommandStatus.RUNNING, CommandStatus.ACCEPTED)
    assert not goes_on(CommandStatus.DONE, CommandStatus.FAILED)


# ---------------------------------------------------------------- clocks


@given(
    st.integers(-600_000, 600_000),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 7_200_000)), min_size=1, max_size=60),
)
def test_the_estimate_is_never_above_the_skew_and_as_near_as_the_quickest_message(
    skew_ms: int, messages: list[tuple[int, int]]
) -> None:
    """`messages`: milliseconds since the one before, and how late it came."""
    estimate: ClockSkew | None = None
    sent = NOW
    for gap_ms, _ in messages:
        sent += timedelta(milliseconds=gap_ms)
    received, best = NOW, -(10**12)
    for gap_ms, late_ms in messages:
        received += timedelta(milliseconds=gap_ms)
        estimate = observed(estimate, received + timedelta(milliseconds=skew_ms - late_ms), received)
        best = max(best, skew_ms - late_ms)
        assert estimate.ms <= skew_ms
    assert estimate is not None
    if received - NOW < timedelta(minutes=10):
        assert estimate.ms == best


def test_a_backlog_after_an_outage_raises_no_alarm_and_a_clock_behind_does_after_a_minute() -> None:
    late = observed(None, NOW - timedelta(hours=1), NOW)
    for n in range(100):  # an hour's backlog, drained in five seconds
        late = observed(late, NOW - timedelta(minutes=59, seconds=n), NOW + timedelta(milliseconds=50 * n))
    assert not late.alarming
    assert not observed(late, NOW + timedelta(seconds=6), NOW + timedelta(seconds=6)).alarming
    behind = None
    for n in range(0, 70, 10):
        behind = observed(behind, NOW - timedelta(minutes=6) + timedelta(seconds=n), NOW + timedelta(seconds=n))
    assert behind is not None
    assert behind.alarming
    assert observed(None, NOW + timedelta(minutes=6), NOW).alarming  # nothing arrives before it was sent


def test_a_clock_that_was_set_right_is_believed_within_twenty_minutes() -> None:
    skew = observed(None, NOW + timedelta(minutes=7), NOW)
    for minute in range(1, 22):
        at = NOW + timedelta(minutes=minute)
        skew = observed(skew, at, at)
    assert (skew.ms, skew.alarming) == (0, False)


@given(st.datetimes(), st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_a_replayed_event_happened_before_it_came_and_not_long_ago(ts: datetime, skew: timedelta) -> None:
    at = replayed_at(ts.replace(tzinfo=UTC), skew, NOW)
    assert NOW - REPLAY_AGE_MAX <= at <= NOW


def test_a_replayed_event_is_corrected_by_its_terminals_clock() -> None:
    assert replayed_at(NOW - timedelta(hours=1), timedelta(minutes=10), NOW) == NOW - timedelta(minutes=70)
