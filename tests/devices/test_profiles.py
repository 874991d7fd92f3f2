"""The battery that every family of terminals passes: offline, redelivery, garbage, oversize, its description."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest

import devices.profiles
from devices.profiles import PROFILES, TerminalProfile, profile_of
from devices.terminal import TerminalAgent
from devices.topics import Up, topic_of
from models.domain.errors import Refused
from models.domain.ids import SessionId
from models.domain.presence import Birth
from models.domain.registry import RegisteredTerminal
from runtime.broker import EmbeddedBroker
from tests.devices.support import JPEG, SmallHost, agent_config, fresh, link_config, linked, until

EVERY = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


@asynccontextmanager
async def counter(
    broker: EmbeddedBroker, profile: TerminalProfile, **changes: float
) -> AsyncIterator[tuple[SmallHost, TerminalAgent, RegisteredTerminal]]:
    terminal = replace(fresh(profile.name), role=profile.roles[0])
    async with SmallHost(broker, terminal) as host:
        agent = TerminalAgent(agent_config(broker, terminal, **changes))
        await agent.start(connect_timeout_s=30.0)
        try:
            yield host, agent, terminal
        finally:
            await agent.stop()


async def act(agent: TerminalAgent, profile: TerminalProfile) -> None:
    """What this family sends in its daily work."""
    assert (await agent.request("session.open")).ok
    if profile.has_camera:
        assert (await agent.show_face(JPEG, SessionId("visit-1"))).ok
    if profile.owns_basket:
        line = {"line": 1, "code": "69", "name": "Milk", "quantity": 1, "unit_fen": 500, "net_fen": 500}
        basket = {"till_txn": "T-1", "rev": 1, "lines": [line], "total_fen": 500}
        assert (await agent.request("basket", basket)).ok
    assert (await agent.request("confirm", {"rev": 1, "tenders": [{"kind": "cash", "fen": 500}]})).ok


@EVERY
async def test_a_day_at_the_counter(shared_broker: EmbeddedBroker, profile: TerminalProfile) -> None:
    async with counter(shared_broker, profile) as (host, agent, _):
        await act(agent, profile)
        assert [event.seq for event in host.events] == list(range(1, len(host.events) + 1))
        assert host.refusals == []
        birth = host.presence[0]
        assert isinstance(birth, Birth)
        assert birth.profile == profile.name


@EVERY
async def test_offline_and_back(shared_broker: EmbeddedBroker, profile: TerminalProfile) -> None:
    async with counter(shared_broker, profile) as (host, agent, _):
        agent.drop()
        await until(lambda: not agent.online)
        acting = asyncio.create_task(act(agent, profile))
        await asyncio.sleep(0)
        agent.restore()
        await acting
        assert host.events[0].replay
        assert agent.outbox.entries() == []


@EVERY
async def test_redelivery_and_repeated_replies(shared_broker: EmbeddedBroker, profile: TerminalProfile) -> None:
    async with counter(shared_broker, profile, resend_first_s=0.05) as (host, agent, _):
        host.replies_each = 2
        host.answering = False
        acting = asyncio.create_task(act(agent, profile))
        await until(lambda: len(host.payloads) >= 2)
        assert host.payloads[0] == host.payloads[1]
        host.answering = True
        await acting
        await until(lambda: agent.counts.duplicate_replies > 0)


@EVERY
async def test_garbage_and_oversize(shared_broker: EmbeddedBroker, profile: TerminalProfile) -> None:
    async with counter(shared_broker, profile) as (host, agent, terminal):
        async with linked(link_config(shared_broker)) as vandal:
            await vandal.publish(str(topic_of(terminal, Up.EVENT)), b"\x00\x01")
            await vandal.publish(str(topic_of(terminal, Up.EVENT)), b'{"v":1' + b" " * 70_000)
            await vandal.publish(str(topic_of(terminal, Up.FACE)), JPEG, properties={"id": "me"})
            await vandal.publish(str(topic_of(terminal, Up.PRESENCE)), b"[]")
        await until(lambda: len(host.refusals) == 4)
        assert [refusal.code for refusal in host.refusals] == ["bad_json", "too_large", "bad_id", "bad_json"]
        await until(lambda: agent.last_refusal is not None)
        await act(agent, profile)


@EVERY
def test_a_family_describes_itself(profile: TerminalProfile) -> None:
    assert profile_of(profile.name) is profile
    assert profile.title_zh
    assert profile.title_en
    assert profile.roles
    assert (Path(devices.profiles.__file__).parent / f"{profile.name.replace('-', '_')}.py").exists()
    assert {field.name for field in fields(profile)} >= {"can_show_lines", "has_camera", "takes_line_adjustments"}


def test_every_file_of_the_folder_is_registered() -> None:
    folder = Path(devices.profiles.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "profile", "fitting", "upgrading"}
    assert files == {name.replace("-", "_") for name in PROFILES}


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refused) as caught:
        profile_of("dragonfly-9")
    assert caught.value.code == "unknown_profile"
    assert "dragonfly-2" in caught.value.do
