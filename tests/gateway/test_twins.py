"""A terminal's twin over HTTP: both halves, orders that go to its host once, refusals with what to do."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.console.texts import TEXTS
from gateway.routes.twins import BUTTONS
from models.domain.twin import VERBS, CommandAsked, CommandStatus, DesiredAsked, OrderResult, Sync, hash_of
from models.tables.twins import CommandRow, DesiredRow, PresenceRow, TelemetryRow
from tests.gateway.conftest import Console
from tests.gateway.shop import SmallShop
from tests.gateway.world import NOW

pytestmark = pytest.mark.integration

PATH = "/api/v1/terminals/t-004-1"
CONFIG = '{"language":"zh","volume":40}'


async def given_a_twin(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        if await session.get(DesiredRow, "t-004-1") is not None:
            return
        presence = await session.get(PresenceRow, "t-004-1")
        assert presence is not None
        presence.sync, presence.gen, presence.applied_gen, presence.health = "behind", 3, 2, '{"disk_free_mb":5}'
        presence.skew_ms, presence.skew_alarm = 420_000, True
        session.add(presence)
        session.add(
            DesiredRow(terminal="t-004-1", gen=3, config=CONFIG, config_hash=hash_of(CONFIG), software=None, set_at=NOW)
        )
        session.add(TelemetryRow(terminal="t-004-1", minute=1, at=NOW, doc={"cpu_percent": 12}))
        session.add(
            CommandRow(
                id="k1", terminal="t-004-1", store="s-004", verb="test_print", args={}, asked_at=NOW,
                deadline_at=NOW + timedelta(seconds=10), status="expired", late_status="done",
            )
        )  # fmt: skip
        await session.commit()


async def test_both_halves_of_a_twin(console: Console, engine: AsyncEngine) -> None:
    await given_a_twin(engine)
    twin = (await console.client.get(f"{PATH}/twin")).json()
    assert (twin["desired"]["gen"], twin["desired"]["config"]["volume"]) == (3, 40)
    assert (twin["reported"]["sync"], twin["reported"]["health"]) == ("behind", {"disk_free_mb": 5})
    assert twin["telemetry"]["doc"] == {"cpu_percent": 12}
    assert [(one["verb"], one["status"], one["late_status"]) for one in twin["commands"]] == [
        ("test_print", "expired", "done")
    ]
    page = (await console.client.get("/terminals/t-004-1")).text
    for shown in ("420.0 s", "disk_free_mb", "cpu_percent", "volume"):
        assert shown in page
    bare = (await console.client.get("/api/v1/terminals/t-005-1/twin")).json()
    assert (bare["desired"], bare["telemetry"], bare["commands"]) == (None, None, [])
    assert (await console.client.get("/api/v1/terminals/t-999-9/twin")).status_code == 404


async def test_a_command_goes_to_the_host_under_one_id(console: Console, shop: SmallShop) -> None:
    headers = console.ours | {"Idempotency-Key": "press-one"}
    order = {"verb": "show_text", "args": {"text": "你好", "seconds": 5}, "deadline_s": 20}
    answers = [await console.client.post(f"{PATH}/commands", json=order, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    told = [msgspec.json.decode(one.payload, type=CommandAsked) for one in shop.orders]
    assert told[0] == told[1]
    assert (told[0].id, told[0].verb, dict(told[0].args), told[0].deadline_s) == (
        answers[0].json()["id"], "show_text", {"text": "你好", "seconds": 5}, 20,
    )  # fmt: skip
    for wrong in ({"verb": "explode"}, {"verb": "reboot", "deadline_s": 31}, {"verb": "reboot", "args": {"a b": 1}}):
        response = await console.client.post(f"{PATH}/commands", json=wrong, headers=headers)
        assert response.status_code == 422
    assert (await console.client.post(f"{PATH}/commands", json=order)).status_code == 403  # not from our page


async def test_a_change_is_compare_and_set(console: Console, shop: SmallShop) -> None:
    headers = console.ours | {"Idempotency-Key": "change-one"}
    change = {"config": {"volume": 40}, "expected_gen": 2}
    assert (await console.client.patch(f"{PATH}/desired", json=change, headers=headers)).json() == {"gen": 3}
    asked = msgspec.json.decode(shop.orders[-1].payload, type=DesiredAsked)
    assert (asked.patch, asked.expected_gen, asked.base) == ('{"volume":40}', 2, "")
    shop.order_result = OrderResult(False, 3, "gen_conflict", "the present generation is 3", "look at it")
    refused = await console.client.patch(f"{PATH}/desired", json=change, headers=headers)
    assert (refused.status_code, refused.json()["code"], refused.json()["do"]) == (409, "gen_conflict", "look at it")
    fraction = await console.client.patch(f"{PATH}/desired", json={"config": {"a": 0.5}}, headers=headers)
    assert (fraction.status_code, fraction.json()["code"]) == (409, "bad_config")


def test_every_state_of_a_twin_has_its_words() -> None:
    wanted = {f"sync.{state}" for state in Sync} | {f"command.{state}" for state in CommandStatus}
    assert wanted | {f"verb.{verb}" for verb in VERBS} <= TEXTS.keys()
    assert set(BUTTONS) <= set(VERBS)
