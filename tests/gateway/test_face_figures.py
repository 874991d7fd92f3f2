"""What the System page says of face workers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import face_figures
from models.domain.errors import RetryLater
from tests.gateway.conftest import Console

TOLD: dict[str, Any] = {
    "region": "local",
    "waiting": 3,
    "oldest_ms": 140,
    "look_ms": 21.6,
    "asked": 500,
    "shed": 30,
    "expired": 4,
    "workers": [
        {"n": 0, "state": "ready", "device": "cpu", "answered": 460, "deaths": 2},
        {"n": 1, "state": "starting", "answered": 0, "deaths": 0},
    ],
}


@pytest.fixture
def page_of(console: Console) -> Iterator[Console]:
    """The console, without a desk afterwards."""
    yield console
    console.edge.face_desks = None


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ["Face workers", "local: 3 wait, the oldest for 140 ms; a look takes about 22 ms", "running", "starts"]),
        ("zh", ["人脸识别", "local：3 个等待，最久 140 毫秒", "运行中", "启动中"]),
    ],
)
async def test_each_worker_has_a_row(page_of: Console, language: str, words: list[str]) -> None:
    async def ask(region: str) -> dict[str, Any]:
        return TOLD | {"region": region}

    page_of.edge.face_desks = ask
    page = (await page_of.client.get("/system", headers={"Accept-Language": language})).text
    assert [word for word in words if word not in page] == []
    assert re.search(r'data-face-worker="local/0".*?460.*?<td class="number bad">2<', page, re.S)
    assert "34" in page


async def test_a_desk_that_is_away_is_left_out(page_of: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(region: str) -> dict[str, Any]:
        if region == "slow":
            await asyncio.Event().wait()
        raise RetryLater("desk_away", "the desk does not answer", "try again", 1.0)

    monkeypatch.setattr(face_figures, "ANSWER_S_MAX", 0.01)
    assert await face_figures.look(away, ["away", "slow"]) == []
    page_of.edge.face_desks = away
    answer = await page_of.client.get("/system")
    assert (answer.status_code, "data-face-worker" in answer.text) == (200, False)
