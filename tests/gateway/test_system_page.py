"""What the System page says of the hosts, and the terminals page of a revoked one."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.registry import TerminalRow
from tests.gateway.conftest import Console
from tests.gateway.shop import SmallShop

COUNTS = {"messages": 98_765, "messages_lately": 123, "entities": 4_321, "outbox": 17}
REFUSED = {"refused_full": 1, "refused_entities": 20, "refused_outbox": 300, "too_fast": 4_000}


def cells(page: str) -> list[str]:
    row = re.search(r'<tr data-slot="local/0">.*?</tr>', page, re.S)
    assert row is not None
    return [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row.group(), re.S)]


@pytest.mark.parametrize(
    ("language", "heads"),
    [
        ("zh", ["每秒消息", "消息总数", "繁忙拒绝", "待答请求", "内存实体"]),
        ("en", ["Messages/s", "Messages", "Refused, busy", "Open asks", "Entities"]),
    ],
)
async def test_each_hosts_figures_are_shown(console: Console, shop: SmallShop, language: str, heads: list[str]) -> None:
    shop.figures = {**COUNTS, **REFUSED}
    page = (await console.client.get("/system", headers={"Accept-Language": language})).text
    for head in heads:
        assert f'<th scope="col" class="number">{head}</th>' in page
    assert cells(page)[2:7] == ["12.3", "98765", "4321", "17", "4321"]


async def test_a_host_that_does_not_answer_has_no_figures(console: Console, shop: SmallShop) -> None:
    assert cells((await console.client.get("/system")).text)[2:7] == ["–"] * 5, "it waits for its turn"
    shop.figures, shop.away = dict(COUNTS), True
    answer = await console.client.get("/system")
    assert (answer.status_code, cells(answer.text)[2:7]) == (200, ["–"] * 5)


async def test_a_revoked_terminal_is_marked(console: Console, engine: AsyncEngine) -> None:
    async def revoke(at: datetime | None) -> None:
        async with AsyncSession(engine) as session:
            row = await session.get(TerminalRow, "t-002-1")
            assert row is not None
            row.revoked_at = at
            await session.commit()

    await revoke(datetime(2026, 11, 20, tzinfo=UTC))
    try:
        for language, mark in (("zh", "凭证已吊销"), ("en", "revoked")):
            page = (await console.client.get("/terminals", headers={"Accept-Language": language})).text
            marked = [row for row in page.split("<tr>") if mark in row]
            assert ["/terminals/t-002-1" in row for row in marked] == [True]
        found = (await console.client.get("/api/v1/terminals", params={"store": "s-002"})).json()["items"]
        assert {one["id"]: one["revoked"] for one in found}["t-002-1"] is True
    finally:
        await revoke(None)
