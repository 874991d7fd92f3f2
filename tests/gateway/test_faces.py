"""The page Faces and its API: counts of decisions, never of whom."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.console.charts import across, stacked, step_for, upwards
from gateway.console.face_charts import short
from gateway.console.texts import TEXTS
from gateway.queries.faces import OUTCOMES
from gateway.routes import faces as routes
from models.domain.recognition import CLEAR, DigitsReason, SearchScope, UnknownReason
from models.faces import calibration
from models.faces.calibration import Report
from models.tables.privacy import FaceDecisionDayRow
from models.tables.sales import FaceDecisionRow
from tests.faces.reports import made_up_report
from tests.gateway.conftest import Console
from tests.gateway.world import NOW


def decision(n: int, outcome: str, reason: str, best_ppm: int, **more: object) -> FaceDecisionRow:
    given = {
        "id": f"d-{n}", "session": f"v-{n}", "store": "s-001", "at": NOW - timedelta(hours=n), "outcome": outcome,
        "member": "m-secret" if outcome == "accepted" else None, "templates_searched": 100, "threshold_ppm": 480_000,
        "best_ppm": best_ppm, "second_ppm": 100_000, "net_sha256": "net", "reason": reason, "scope": "store",
        "looks": 2, "floor_ppm": 360_000, "margin_ppm": 80_000, "liveness": "not_checked", "partial": False,
        "digits_given": False, "digits_required": False, "amount_limited": False, "elsewhere": False,
        "calibration": "table",
    }  # fmt: skip
    return FaceDecisionRow.model_validate(given | more)


ROWS = [
    decision(1, "accepted", "clear", 700_000),
    decision(2, "accepted", "clear", 710_000, scope="region"),
    decision(3, "digits", "below_threshold", 450_000, scope="region"),
    decision(4, "accepted", "clear", 450_000, scope="chain", digits_given=True),
    decision(5, "not_recognised", "nobody_enrolled", -1_000_000, templates_searched=0, scope="region"),
    decision(6, "accepted", "clear", 800_000, store="s-002"),
    decision(24 * 40, "accepted", "clear", 700_000),
]


@pytest.fixture(scope="module")
def report() -> Report:
    return made_up_report()


@pytest.fixture
async def decided(console: Console) -> Console:
    async with AsyncSession(console.edge.database) as session:
        for row in ROWS:
            await session.merge(row)
        day = (NOW - timedelta(days=50)).date().isoformat()
        await session.merge(FaceDecisionDayRow(store="s-001", day=day, outcome="digits", reason="partial", decisions=9))
        await session.commit()
    return console


async def test_decisions_are_counted_by_outcome_reason_and_scope(decided: Console) -> None:
    found = (await decided.client.get("/api/v1/faces/decisions", params={"days": 7})).json()
    assert len(found["days"]) == 7
    counts = {(one["outcome"], one["reason"], one["scope"], one["digits_given"]): one["count"]
              for one in found["decisions"]}  # fmt: skip
    assert counts["accepted", "clear", "store", False] == 2
    assert counts["accepted", "clear", "chain", True] == 1
    assert counts["not_recognised", "nobody_enrolled", "region", False] == 1
    bins = {(one["from_ppm"], one["outcome"]): one["count"] for one in found["scores"]}
    assert bins == {
        (440_000, "digits"): 1, (700_000, "accepted"): 2, (800_000, "accepted"): 1,
    }, "first looks only, and nobody's score is no score"  # fmt: skip
    assert (found["threshold_ppm_min"], found["threshold_ppm_max"]) == (480_000, 480_000)
    assert "m-secret" not in str(found)


async def test_the_window_reaches_back_into_what_retention_left(decided: Console) -> None:
    found = (await decided.client.get("/api/v1/faces/decisions", params={"days": 90})).json()
    kept = [one for one in found["decisions"] if one["reason"] == "partial"]
    assert [(one["outcome"], one["scope"], one["count"]) for one in kept] == [("digits", "", 9)]
    assert sum(one["count"] for one in found["decisions"]) == len(ROWS) + 9


async def test_the_scope_of_the_address_holds(decided: Console) -> None:
    found = (await decided.client.get("/api/v1/faces/decisions", params={"days": 7, "store": "s-002"})).json()
    assert sum(one["count"] for one in found["decisions"]) == 1
    nowhere = (await decided.client.get("/api/v1/faces/decisions", params={"days": 7, "region": "moon"})).json()
    assert nowhere["decisions"] == []


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_the_page_says_the_same_in_both_languages(
    decided: Console, language: str, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "kept", lambda: [("made-up", report)])
    decided.client.cookies.set("lang", language)
    page = (await decided.client.get("/faces?days=7")).text
    column = 0 if language == "zh" else 1
    for name in ("faces.title", "face_reason.below_threshold", "face_scope.chain", "faces.plot_roc"):
        assert TEXTS[name][column] in page
    assert page.count('class="chart"') == 5
    assert 'class="bar-of digits"' in page
    assert "m-secret" not in page
    assert report.name in page


async def test_an_empty_house_says_so(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "kept", list)
    page = await console.client.get("/faces?days=7&region=moon")
    assert page.status_code == 200
    assert TEXTS["faces.no_report"][1] in page.text
    assert TEXTS["faces.why_none"][1] in page.text


async def test_nobody_reads_it_without_a_session(console: Console) -> None:
    console.client.cookies.clear()
    assert (await console.client.get("/api/v1/faces/decisions")).status_code == 401
    assert (await console.client.get("/faces", follow_redirects=False)).headers["location"] == "/login"


def test_every_reason_outcome_and_scope_has_its_words() -> None:
    wanted = {f"face_reason.{reason}" for reason in (CLEAR, *DigitsReason, *UnknownReason)}
    wanted |= {f"face_outcome.{outcome}" for outcome in OUTCOMES}
    wanted |= {f"face_scope.{scope}" for scope in SearchScope}
    wanted |= {f"face_basis.{basis}" for basis in ("measured", "extrapolated", "table", "raised")}
    assert wanted - TEXTS.keys() == set()
    assert routes.WINDOWS == (7, 30, 90)


def test_a_stacked_chart_fills_its_height_and_no_more() -> None:
    drawn = stacked([("a", {"x": 3, "y": 1}), ("b", {}), ("c", {"y": 8})], ("x", "y"))
    assert [bar.kind for bar in drawn.bars] == ["x", "y", "y"]
    assert all(bar.y >= drawn.top and bar.y + bar.height <= drawn.bottom + 0.1 for bar in drawn.bars)
    first, second, tallest = drawn.bars
    assert second.y + second.height == pytest.approx(first.y), "one on the other"
    assert tallest.height == pytest.approx(8 * second.height, abs=0.5)
    assert [mark.text for mark in drawn.ys] == ["0", "2", "4", "6", "8"]
    assert stacked([], ("x",)).bars == ()


def test_sizes_are_short() -> None:
    assert [short(n) for n in (1, 100, 1_000, 100_000, 1_000_000, 1_500)] == ["1", "100", "1k", "100k", "1M", "1500"]


def test_axes_keep_values_inside_the_drawing() -> None:
    x, y = across(1, 1_000_000, log=True), upwards(0, 1)
    assert x.at(1_000) == pytest.approx((x.start + x.end) / 2, abs=0.1)
    assert (y.at(2), y.at(-1)) == (y.end, y.start)
    assert [step_for(most) for most in (4, 9, 17, 1000)] == [1, 5, 5, 500]
