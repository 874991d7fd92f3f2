"""What a store's configuration changes in a visit: when it ends by itself, digits, language, the receipt's footer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.ports import IdentifyFace
from models.domain.chain_settings import StoreSettings
from models.domain.events import FaceShown
from tests.actors.lane import JPEG, Lane, buy, cash


def lane_with(settings: StoreSettings) -> Lane:
    lane = Lane()
    lane.book = replace(lane.book, settings=settings)
    return lane


@pytest.mark.parametrize("idle_s", [60, 300])
def test_a_visit_ends_by_itself_after_the_stores_own_time(idle_s: int) -> None:
    lane = lane_with(StoreSettings(idle_s=idle_s))
    lane.open()
    lane.after(idle_s - 1)
    assert lane.state == "open"
    lane.after(2)
    assert lane.state == "closed"


@pytest.mark.parametrize("required", [True, False])
def test_digits_follow_a_face_where_the_store_wants_them(required: bool) -> None:
    lane = lane_with(StoreSettings(digits_required=required))
    lane.open()
    lane.consent()
    lane.later(FaceShown(JPEG, "frame"))
    _, asked = lane.asked(IdentifyFace)
    assert asked.digits_required is required


@pytest.mark.parametrize(
    ("language", "ending"),
    [("en", "saved 0.00. Come back"), ("zh", "优惠 0.00 元。欢迎再来"), (None, "saved 0.00. Come back")],
)
def test_receipts_end_with_the_stores_sentence_in_the_stores_language(language: str | None, ending: str) -> None:
    lane = lane_with(StoreSettings(language=language, footer_zh="欢迎再来", footer_en="Come back"))
    buy(lane, "tea")
    lane.confirm(cash(1200))
    assert lane.state == "paid"
    assert lane.session.receipt is not None
    assert lane.session.receipt.text.endswith(ending)
