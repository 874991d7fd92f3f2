"""A store's figures of the day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from actors.store import Store
from actors.store import receive as receive_store
from models.domain.errors import Refused
from models.domain.ids import LaneId
from models.domain.messages import IncidentNoted, SaleNoted, VoidBegun, VoidEnded
from tests.actors.lane import NOW, book


def test_a_store_counts_its_business_day_and_starts_the_next_from_zero() -> None:
    here = book()  # its day changes at 04:00 in Shanghai
    store = receive_store(Store(), SaleNoted(1, 1200, 0), NOW, here).state
    store = receive_store(store, SaleNoted(1, 400, 800), NOW, here).state
    store = receive_store(store, SaleNoted(-1, -400, -800), NOW, here).state
    store = receive_store(store, IncidentNoted("complaint"), NOW, here).state
    assert store == Store("2026-05-01", 1, 1200, 0, 1)
    last_second = NOW + timedelta(hours=17, minutes=59, seconds=59)
    assert receive_store(store, SaleNoted(1, 100, 0), last_second, here).state.business_date == "2026-05-01"
    fresh = receive_store(store, SaleNoted(1, 100, 0), last_second + timedelta(seconds=1), here).state
    assert fresh == Store("2026-05-02", 1, 100, 0, 0)


def test_a_receipt_is_voided_in_one_lane_at_a_time() -> None:
    here = book()
    busy = receive_store(Store(), VoidBegun("s1-l1-000001", LaneId("l1")), NOW, here).state
    with pytest.raises(Refused, match="lane_busy"):
        receive_store(busy, VoidBegun("s1-l1-000001", LaneId("l2")), NOW, here)
    both = receive_store(busy, VoidBegun("s1-l1-000002", LaneId("l2")), NOW + timedelta(days=1), here).state
    assert both.voiding == (("s1-l1-000001", "l1"), ("s1-l1-000002", "l2"))
    free = receive_store(both, VoidEnded("s1-l1-000001", LaneId("l1")), NOW, here).state
    assert receive_store(free, VoidBegun("s1-l1-000001", LaneId("l3")), NOW, here).state.voiding[-1][1] == "l3"
