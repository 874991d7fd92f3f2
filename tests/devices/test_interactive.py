"""A terminal on a laptop: keys by family and screen, both languages, a camera, and selling with the cable pulled."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from devices.customers import Nobody, faces_from
from devices.interactive import run_terminal
from devices.keys import KEYS, keys_for, text_of
from devices.liveness import LivenessKey
from devices.offline import HeldLease
from devices.offline_desk import OfflineDesk
from devices.pictures import pictures
from devices.profiles import PROFILES
from devices.profiles.fitting import fit
from devices.terminal import NoReply, TerminalAgent
from models.domain.device_score import Signature
from models.domain.errors import Refused, StoreOpsError
from models.domain.events import FaceShown
from models.domain.ids import BenefitId, LeaseId, MembershipId, SessionId
from models.domain.screen import LeaseGrant, ReplyBody, Screen, ScreenState
from runtime.broker import EmbeddedBroker
from tests.devices.files import serving
from tests.devices.support import SmallHost, agent_config, fresh, until
from tests.devices.test_camera import clip
from tests.devices.test_fitting import FULL
from tests.devices.test_offline import PRICES

NOW = datetime(2026, 5, 1, 4, 0, tzinfo=UTC)


def usages(profile: str, screen: Screen | None, *, offline: bool = False) -> set[str]:
    return {key.usage.split()[0] for key in keys_for(PROFILES[profile], screen, offline=offline)}


def test_keys_are_those_that_the_screen_and_the_family_allow() -> None:
    paying = Screen(SessionId("v"), 3, ScreenState.PAYING, actions=("cancel",))
    assert usages("dragonfly-2", paying) & {"scan", "pay", "enrol", "cancel"} == {"cancel"}
    greeted = Screen(SessionId("v"), 1, ScreenState.OPEN, actions=("consent", "cancel", "scan"))
    assert {"look", "alive", "scan"} <= usages("dragonfly-2", greeted)
    assert "alive" not in usages("kiosk", greeted), "it measures no depth"
    assert "look" not in usages("till", greeted)
    assert "amount" in usages("parking", None)
    assert not usages("parking", fit(FULL, PROFILES["parking"], "self")) & {"scan", "remove", "look", "digits", "void"}
    assert {"give", "pay", "scan", "back"} & usages("till", FULL, offline=True) == {"give", "pay", "scan"}
    assert not {"pay", "scan", "give"} & usages("kiosk", None, offline=True), "it cannot take money alone"


def test_every_key_is_said_in_both_languages() -> None:
    for key in KEYS:
        assert text_of(key, "zh") != text_of(key, "en")
        assert key.zh
        assert not key.zh.isascii()
        assert key.en.isascii()


@pytest.mark.parametrize(("profile", "displays"), [("dragonfly-2", 1), ("dragonfly-plus", 2), ("parking", 1)])
def test_each_display_of_a_device_is_shown(profile: str, displays: int) -> None:
    output = io.StringIO()
    tables = pictures(FULL, PROFILES[profile], "zh")
    assert len(tables) == displays
    for table in tables:
        Console(file=output, width=100).print(table)
    assert "应付" in output.getvalue()


def test_a_gate_says_that_it_opens() -> None:
    output = io.StringIO()
    for table in pictures(Screen(SessionId("v"), 3, ScreenState.PAID), PROFILES["parking"], "en"):
        Console(file=output, width=100).print(table)
    assert "opens" in output.getvalue()


def test_where_faces_come_from(tmp_path: Path) -> None:
    assert isinstance(faces_from(None, None), Nobody)
    with pytest.raises(LookupError):
        Nobody().photo()
    with pytest.raises(StoreOpsError):
        faces_from(tmp_path / "none", None)
    camera = faces_from(None, str(clip(tmp_path / "clip.avi")))
    camera.choose("Ada")
    assert camera.names == ["Ada"]
    assert len(list(camera.shots())) > 3
    camera.close()


async def played(broker: EmbeddedBroker, terminal: Any, typed: str, **options: Any) -> str:
    output = io.StringIO()
    await run_terminal(
        agent_config(broker, terminal, **options.pop("config", {})),
        console=Console(file=output, width=140),
        commands=io.StringIO(typed),
        **options,
    )
    return output.getvalue()


async def test_a_clip_stands_before_the_terminal(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    key, path = LivenessKey.make(), clip(tmp_path / "clip.avi")
    terminal = replace(fresh(), liveness_keys=(key.public,))
    keyed = {"config": {"liveness_key": key}, "camera": str(path), "language": "zh"}
    async with SmallHost(shared_broker, terminal) as host:
        shown = await played(shared_broker, terminal, "alive 2\nopen\nalive 0.9\nlook\nquit\n", **keyed)
    assert [type(event.body).__name__ for event in host.events] == ["SessionOpen", "Consent", "FaceShown"]
    face = host.events[-1].body
    assert isinstance(face, FaceShown)
    assert (face.liveness, face.signature) == (0.9, Signature.VALID)
    assert "没有听懂: 2" in shown
    assert "0.9, 签名" in shown
    assert "顾客屏" in shown
    assert "可用" in shown


async def test_the_idle_screen_is_as_the_desired_document_says(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    terminal = fresh()
    config = {"outbox_path": tmp_path / "outbox.sqlite"}
    desired = {
        "language": "en",
        "screen": {"slogan": {"en": "Open when you are"}, "brightness_percent": 30},
        "sound": {"volume_percent": 0},
    }
    async with SmallHost(shared_broker, terminal) as host:
        await host.bridge.publish_desired(terminal, 1, desired)
        agent = TerminalAgent(agent_config(shared_broker, terminal, **config))
        await agent.start(connect_timeout_s=30.0)
        await until(lambda: agent.applied_gen == 1)
        await agent.stop()
        shown = await played(shared_broker, terminal, "quit\n", config=config)
    assert "Open when you are  ☀ 30 %  ♪ 0 %" in shown


async def test_pull_the_cable_sell_and_plug_it_in(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    terminal = fresh("till")
    typed = "drop\nscan rice\nscan gum 2\nremove 2\npay face\npay cash 2000\nscan gum\npay card\nback\nquit\n"
    config = {"outbox_path": tmp_path / "outbox.sqlite"}
    async with SmallHost(shared_broker, terminal) as host:
        await host.bridge.publish_desired(terminal, 1, {"language": "en", "offline": PRICES})
        # A boot before the outage takes the prices; they outlive the process.
        agent = TerminalAgent(agent_config(shared_broker, terminal, **config))
        await agent.start(connect_timeout_s=30.0)
        await until(lambda: agent.applied_gen == 1)
        await agent.stop()
        shown = await played(shared_broker, terminal, typed, config=config)
        assert "tender_unsupported" in shown
        assert shown.count("stored, sent when the network is back") == 2
        await until(lambda: sum(b'"sale"' in payload for payload in set(host.payloads)) == 2)
    sales = [json.loads(payload) for payload in dict.fromkeys(host.payloads) if b'"sale"' in payload]
    assert all(sale["replay"] for sale in sales)
    assert [sale["body"]["tenders"] for sale in sales] == [
        [{"kind": "cash", "fen": 1590, "tendered_fen": 2000}],
        [{"kind": "card", "fen": 300}],
    ]
    assert len({sale["body"]["till_txn"] for sale in sales}) == 2


# ---------------------------------------------------------------- the desk


@asynccontextmanager
async def desk_at(broker: EmbeddedBroker, terminal: Any, **config: Any) -> AsyncIterator[OfflineDesk]:
    agent = TerminalAgent(agent_config(broker, terminal, **config), now=lambda: NOW)
    await agent.start(connect_timeout_s=30.0)
    desk = OfflineDesk(agent)
    desk.load()
    try:
        yield desk
    finally:
        await agent.stop()


async def test_leases_outlive_the_process_and_a_sale_takes_its_use_with_it(
    shared_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    terminal, path = fresh("till"), tmp_path / "outbox.sqlite"
    async with SmallHost(shared_broker, terminal) as host:
        host.answering = False
        async with desk_at(shared_broker, terminal, outbox_path=path) as desk:
            await desk.take_prices({"offline": PRICES})
            desk.till = desk.till.hold(HeldLease("L1", "m", "coupon8", 2, NOW + timedelta(hours=1)))
            desk._write_leases()
            await desk.take_prices({"offline": PRICES, "switches": ["benefits"]})
            with pytest.raises(Refused) as refused:
                desk.till.scan("rice").give("L1", NOW)
            assert refused.value.code == "unknown_benefit"
            await desk.take_prices({"offline": PRICES})
            desk.agent.drop()
            await desk.agent.gone()
            desk.till = desk.till.scan("rice").give("L1", NOW)
            await desk.sell("cash")
        async with desk_at(shared_broker, terminal, outbox_path=path) as desk:
            assert [one.used for one in desk.till.leases] == [1]
            assert len(desk.agent.outbox.entries()) == 1
            host.answering = True
            desk.agent.unanswered.resend_all()
            await until(lambda: desk.agent.outbox.entries() == [])
            assert await desk.give_back() == ["L1"]
            await until(lambda: desk.agent.outbox.entries() == [])
        sent = {json.loads(payload)["type"] for payload in host.payloads}
        assert sent == {"sale", "lease.end"}


async def test_a_long_price_list_comes_as_a_file(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    terminal = fresh("till")
    content = json.dumps(PRICES).encode()
    with serving() as files:
        files.files["/prices"] = content
        place = {"url": f"{files.url}/prices", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        async with SmallHost(shared_broker, terminal), desk_at(shared_broker, terminal, folder=tmp_path) as desk:
            await desk.take_prices({"offline": place})
            assert desk.till.prices.version == 3
            await desk.take_prices({"offline": {**place, "size": 9 * 1024 * 1024}})
            assert "at most" in desk.price_error
            await desk.take_prices({"offline": {"items": [{"code": "x"}]}})
            assert desk.price_error
            assert "rice" in desk.till.prices.items, "the last good list stays"
            await desk.take_prices({})
            assert "rice" in desk.till.prices.items
            await desk.take_prices({"offline": PRICES, "offline_sales": {"enabled": False}})
            assert not desk.till.prices.items, "it may not sell alone"


async def test_a_lease_is_refused_in_the_servers_words(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh("till")
    async with SmallHost(shared_broker, terminal) as host, desk_at(shared_broker, terminal) as desk:
        with pytest.raises(Refused) as caught:
            await desk.lease("coupon8", 2, SessionId("visit-1"))
        assert caught.value.code == "lease_pending", "this host grants none"
        assert type(host.events[0].body).__name__ == "Lease"


async def test_a_lease_whose_reply_came_late_is_held_after_all(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    terminal, path = fresh("till"), tmp_path / "outbox.sqlite"
    until_at = (NOW + timedelta(hours=1)).isoformat()
    async with SmallHost(shared_broker, terminal) as host:
        host.answering = False
        async with desk_at(shared_broker, terminal, outbox_path=path) as desk:
            with pytest.raises(NoReply):
                await desk.agent.request("lease", {"benefit": "coupon8", "uses": 2}, timeout_s=0.2)
            grant = LeaseGrant(LeaseId("L7"), MembershipId("m"), BenefitId("coupon8"), 2, until_at)
            await until(lambda: bool(host.events))
            await host.bridge.publish_reply(terminal, ReplyBody(host.events[0].id, ok=True, lease=grant))
            await until(lambda: bool(desk.till.leases))
        async with desk_at(shared_broker, terminal, outbox_path=path) as desk:
            assert [(one.id, one.left(NOW)) for one in desk.till.leases] == [("L7", 2)]
            fresh_desk = OfflineDesk(desk.agent)
            late = LeaseGrant(LeaseId("L8"), MembershipId("m"), BenefitId("coupon8"), 1, until_at)
            fresh_desk._late(ReplyBody(None, ok=True, lease=late))
            assert [one.id for one in fresh_desk.till.leases] == ["L7", "L8"]
