"""The agent in a bad world: killed in the middle, a twin with its id, a broker with a small packet size."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from devices.outbox import EntryClass, Outbox, OutboxFull
from devices.terminal import SHORT_CONNECTIONS_ALARM, TerminalAgent
from models.domain.errors import Refused
from models.domain.ids import SessionId
from runtime.broker import EmbeddedBroker
from tests.devices.support import JPEG, SmallHost, agent_config, fresh, until
from tests.devices.test_outbox import entry

ROOT = Path(__file__).parents[2]
CHILD = """
import asyncio, json, sys
from pathlib import Path
from devices.agent_config import AgentConfig
from devices.outbox import Outbox
from devices.terminal import TerminalAgent

place = json.loads(sys.argv[1])
place["outbox_path"] = Path(place["outbox_path"])

class Telling(Outbox):
    async def put(self, entry):
        await super().put(entry)  # money: on the disk when this returns
        print(json.loads(entry.payload)["body"]["till_txn"], flush=True)

async def main():
    config = AgentConfig(**place)
    agent = TerminalAgent(config, outbox=Telling(config.outbox_path))
    await agent.start(connect_timeout_s=30.0)
    for n in range(100_000):
        if n % 3 == 2:
            agent.drop()
        elif n % 3 == 0:
            agent.restore()
        body = {"till_txn": f"{agent.boot[:8]}-{n}", "rev": 0, "tenders": [{"kind": "cash", "fen": 100}]}
        await agent.store("paid", body)
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


async def killed_in_the_middle(place: dict[str, Any], promises: int) -> list[str]:
    """Run an agent that takes money until it is killed; what it promised to keep."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(CHILD), json.dumps(place), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None
    promised = [(await child.stdout.readline()).decode().strip() for _ in range(promises)]
    os.kill(child.pid, signal.SIGKILL)
    promised += (await child.stdout.read()).decode().split()
    await child.wait()
    assert all(promised)
    return promised


async def test_an_agent_that_is_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    shared_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    terminal = fresh("till")
    config = agent_config(shared_broker, terminal, outbox_path=tmp_path / "outbox.sqlite", resend_first_s=5.0)
    names = ("host", "port", "region", "store", "terminal", "profile", "secret", "reconnect_s_min", "reconnect_s_max")
    place = {name: getattr(config, name) for name in names} | {"outbox_path": str(config.outbox_path)}
    async with SmallHost(shared_broker, terminal) as host:
        promised: list[str] = []
        for promises in (9, 60):
            promised += await killed_in_the_middle(place, promises)
        agent = TerminalAgent(config)
        await agent.start(connect_timeout_s=30.0)
        await until(lambda: agent.outbox.entries() == [])
        await agent.stop()
    documents = [json.loads(payload) for payload in host.payloads]
    taken = [one["body"]["till_txn"] for one in documents]
    assert set(promised) <= set(taken), "nothing lost"
    assert len(set(host.payloads)) == len({one["id"] for one in documents}), "one id, one content"
    assert len({one["id"] for one in documents}) == len(set(taken)), "one payment, one id"
    places = {(one["boot"], one["seq"]) for one in documents}
    assert len(places) == len(set(taken)), "no place of a boot is used twice"
    assert {boot for boot, _ in places} >= {one["boot"] for one in documents}


async def test_two_clients_with_one_id_back_off_and_say_so(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    config = agent_config(shared_broker, terminal, reconnect_s_min=0.02, reconnect_s_max=5.0)
    async with SmallHost(shared_broker, terminal) as host:
        twins = [TerminalAgent(config), TerminalAgent(config)]
        for twin in twins:
            await twin.start()
        await until(lambda: all(twin.alarm for twin in twins))
        assert all(twin.alarm.startswith(("client_id_taken", "short_connections")) for twin in twins)
        connections = [twin.link.counts.connections for twin in twins]
        assert max(connections) <= 40, "the pauses grow; without that it were hundreds"
        assert max(connections) >= SHORT_CONNECTIONS_ALARM
        await twins[0].stop()
        await until(lambda: twins[1].online)
        await until(lambda: any(b'"alarm"' in item.payload for item in host.other))
        assert (await twins[1].request("session.open")).ok
        await twins[1].stop()


async def test_what_the_broker_would_disconnect_for_is_never_sent(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host:
        agent = TerminalAgent(agent_config(shared_broker, terminal, resend_first_s=0.05))
        await agent.start(connect_timeout_s=30.0)
        agent.link._peer_packet_bytes_max = 2_000  # a broker that takes less than ours
        with pytest.raises(Refused) as caught:
            await agent.show_face(JPEG + bytes(4_000), SessionId("visit-1"))
        assert caught.value.code == "too_large"
        lines = [
            {"line": n, "code": "1", "name": "n" * 50, "quantity": 1, "unit_fen": 1, "net_fen": 1} for n in range(40)
        ]
        with pytest.raises(Refused):
            await agent.request("basket", {"till_txn": "T", "rev": 1, "lines": lines, "total_fen": 40})
        assert agent.outbox.entries() == []
        money = {"till_txn": "T" * 64, "rev": 0, "tenders": [{"kind": "cash", "fen": 1}] * 90}
        with pytest.raises(Refused):
            await agent.request("paid", money)
        assert [kept.kind for kept in agent.outbox.entries()] == [EntryClass.MONEY], "money stays"
        assert (await agent.request("cancel")).ok
        assert agent.link.counts.connections == 1
        assert len(host.events) == 1
        assert agent.counts.too_large >= 3
        await agent.stop()


async def test_each_class_has_its_own_bound() -> None:
    classes = {EntryClass.TELEMETRY: 50, EntryClass.QUESTION: 80}
    outbox = Outbox(None, bytes_max=1_000, class_bytes_max=classes)
    await outbox.open()
    try:
        for n in range(4):
            await outbox.put(entry(f"t{n}", EntryClass.TELEMETRY, 20))
        assert [kept.id for kept in outbox.entries()] == ["t2", "t3"], "the oldest figures went first"
        await outbox.put(entry("q1", size=70))
        with pytest.raises(OutboxFull):
            await outbox.put(entry("q2", size=20))
        for n in range(3):
            await outbox.put(entry(f"m{n}", EntryClass.MONEY, 500))
        assert [kept.id for kept in outbox.entries() if kept.kind is EntryClass.MONEY] == ["m0", "m1", "m2"]
    finally:
        await outbox.close()


async def test_a_refused_event_leaves_no_gap(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    outbox = Outbox(None, bytes_max=1_000)
    async with SmallHost(shared_broker, terminal) as host:
        agent = TerminalAgent(agent_config(shared_broker, terminal), outbox=outbox)
        await agent.start(connect_timeout_s=30.0)
        with pytest.raises(OutboxFull):
            await agent.request("voucher", {"code": "x" * 2_000})
        with pytest.raises(ValueError, match="65536"):
            await agent.request("voucher", {"code": "x" * 70_000})
        await agent.request("cancel")
        assert [event.seq for event in host.events] == [1]
        await agent.stop()
