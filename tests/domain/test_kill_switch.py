"""Which switches hold in a store: the union of three scopes, expiry, lift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId, StoreId
from models.domain.kill_switch import KillSwitch, Place, Scope, ScopeKind, Switch, require_order, switches_off

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
PLACES = [
    Place(ChainId(chain), RegionId(region), StoreId(f"{region}-{n}"))
    for chain, region in (("sunrise", "south"), ("sunrise", "north"), ("moon", "west"))
    for n in range(2)
]
NAMES = sorted({name for place in PLACES for name in (place.chain, place.region, place.store)})

moments = st.integers(-3, 3).map(lambda hours: NOW + timedelta(hours=hours))
thrown = st.builds(
    KillSwitch,
    id=st.text("ab", min_size=1, max_size=2),
    switch=st.sampled_from(Switch),
    scope=st.builds(Scope, st.sampled_from(ScopeKind), st.sampled_from(NAMES)),
    reason=st.just("why"),
    by=st.just("who"),
    at=st.just(NOW - timedelta(days=1)),
    until=st.none() | moments,
    lifted_at=st.none() | moments,
)
many = st.lists(thrown, max_size=8)
places = st.sampled_from(PLACES)


@given(many, many, places)
def test_a_store_is_under_the_union(some: list[KillSwitch], others: list[KillSwitch], place: Place) -> None:
    both = switches_off([*some, *others], place, NOW)
    assert set(both) == set(switches_off(some, place, NOW)) | set(switches_off(others, place, NOW))
    assert both == switches_off([*others, *some, *others], place, NOW) == tuple(sorted(set(both)))


@given(many, places)
def test_each_is_off_because_of_its_store_its_region_or_its_chain(some: list[KillSwitch], place: Place) -> None:
    here = {
        Scope(ScopeKind.STORE, place.store),
        Scope(ScopeKind.REGION, place.region),
        Scope(ScopeKind.CHAIN, place.chain),
    }
    for switch in Switch:
        because = [
            one
            for one in some
            if one.switch is switch
            and one.scope in here
            and one.lifted_at is None
            and (one.until is None or one.until > NOW)
        ]
        assert (switch in switches_off(some, place, NOW)) == bool(because)


@given(thrown, places)
def test_what_ended_never_comes_back_by_itself(one: KillSwitch, place: Place) -> None:
    held = [bool(switches_off([one], place, NOW + timedelta(hours=hours))) for hours in range(-4, 5)]
    assert held == sorted(held, reverse=True)


def test_a_switch_ends_at_its_instant() -> None:
    one = KillSwitch("1", Switch.FACE, Scope(ScopeKind.CHAIN, "sunrise"), "why", "who", NOW, until=NOW)
    assert one.in_force(NOW - timedelta(microseconds=1))
    assert not one.in_force(NOW)


def test_an_order_has_a_reason_and_an_end_to_come() -> None:
    assert require_order("  a bad \n model ", NOW, NOW + timedelta(hours=1)) == "a bad model"
    for reason, until, code in (
        (" ", None, "reason_missing"),
        ("x" * 401, None, "reason_long"),
        ("why", NOW, "until_past"),
        ("why", datetime(2030, 1, 1), "until_past"),  # noqa: DTZ001 - a time without a zone is refused
    ):
        with pytest.raises(Refused) as refused:
            require_order(reason, NOW, until)
        assert refused.value.code == code
