"""The agent against a small host over a real broker: it repeats itself until it is answered, and no longer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devices.outbox import EntryClass
from devices.terminal import NoReply, TerminalAgent, require_ok
from devices.topics import Down, Up, topic_of
from models.domain.errors import Refused
from models.domain.events import Scan
from models.domain.ids import MessageId, SessionId
from models.domain.presence import Birth, Death
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, ReplyError, Screen, ScreenState
from runtime.broker import EmbeddedBroker
from tests.devices.support import JPEG, SmallHost, agent_config, fresh, link_config, linked, until

SCAN = {"code": "6901234567892", "quantity": 1}


@asynccontextmanager
async def running(broker: EmbeddedBroker, terminal: RegisteredTerminal, **changes: Any) -> AsyncIterator[TerminalAgent]:
    agent = TerminalAgent(agent_config(broker, terminal, **changes))
    await agent.start(connect_timeout_s=30.0)
    try:
        yield agent
    finally:
        await agent.stop()


async def test_a_request_brings_a_reply_and_a_screen(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host, running(shared_broker, terminal) as agent:
        reply = await agent.request("scan", SCAN, session=SessionId("visit-1"))
        assert (reply.ok, reply.session) == (True, "visit-1")
        screen = await agent.wait_screen(lambda s: s.rev == 1)
        assert screen.session == "visit-1"
        assert host.events[0].body == Scan(SCAN["code"], 1)  # type: ignore[arg-type]
        assert host.events[0].seq == 1
        assert uuid.UUID(host.events[0].id).version == 7
        assert agent.outbox.entries() == []
        assert len(agent.timings.event_to_screen_ms) == 1
        assert agent.counts.resent == 0


async def test_seq_rises_over_events_and_faces_together(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host, running(shared_broker, terminal) as agent:
        await agent.request("session.open")
        await agent.show_face(JPEG, SessionId("visit-1"), liveness=0.5)
        await agent.wait_screen(lambda s: s.rev == 2)
        await agent.request("scan", SCAN)
        assert [event.seq for event in host.events] == [1, 2, 3]
        assert {event.boot for event in host.events} == {agent.boot}
        assert len(agent.timings.face_to_screen_ms) == 1


async def test_the_same_bytes_again_until_the_reply(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with (
        SmallHost(shared_broker, terminal) as host,
        running(shared_broker, terminal, resend_first_s=0.2) as agent,
    ):
        host.answering = False
        request = asyncio.create_task(agent.request("scan", SCAN))
        await until(lambda: len(host.payloads) >= 3)
        assert len(set(host.payloads)) == 1
        host.answering = True
        assert (await request).ok
        assert agent.outbox.entries() == []
        seen = len(host.payloads)
        await agent.request("cancel")
        assert all(b'"cancel"' in payload for payload in host.payloads[seen:]), "an answered event is not repeated"


async def test_pauses_double(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host:
        host.answering = False
        async with running(shared_broker, terminal, resend_first_s=0.05) as agent:
            clock = asyncio.get_running_loop().time
            began = clock()
            asked = asyncio.create_task(agent.request("scan", SCAN))
            await until(lambda: agent.counts.sent >= 5)
            # 0, 0.05, 0.15, 0.35, 0.75 s, a fifth less by jitter; pauses of 0.05 s would have taken 0.24 s at most.
            assert clock() - began >= 0.6
            asked.cancel()


async def test_no_reply_keeps_the_event_and_a_reconnect_sends_it_at_once(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host:
        host.answering = False
        async with running(shared_broker, terminal) as agent:
            with pytest.raises(NoReply):
                await agent.request("scan", SCAN, timeout_s=0.1)
            assert len(agent.outbox.entries()) == 1
            agent.drop()
            await until(lambda: not agent.online)
            host.answering = True
            agent.restore()
            await until(lambda: agent.outbox.entries() == [])
            assert len(host.payloads) == 2
            assert host.payloads[0] == host.payloads[1]


async def test_what_is_made_offline_is_marked_and_sent_in_order(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host, running(shared_broker, terminal) as agent:
        agent.drop()
        await until(lambda: not agent.online)
        asked = [asyncio.create_task(agent.request("scan", {"code": str(n), "quantity": 1})) for n in range(5)]
        await asyncio.sleep(0)
        agent.restore()
        replies = await asyncio.gather(*asked)
        assert all(reply.ok for reply in replies)
        assert [event.seq for event in host.events] == [1, 2, 3, 4, 5]
        assert all(event.replay for event in host.events)


async def test_a_new_process_sends_what_the_old_one_left(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    terminal, path = fresh(), tmp_path / "outbox.db"
    async with SmallHost(shared_broker, terminal) as host:
        host.answering = False
        async with running(shared_broker, terminal, outbox_path=path) as agent:
            with pytest.raises(NoReply):
                await agent.request("scan", SCAN, timeout_s=0.2)
            boot = agent.boot
        host.answering = True
        async with running(shared_broker, terminal, outbox_path=path) as agent:
            await until(lambda: agent.outbox.entries() == [])
            assert agent.boot != boot
        assert host.events[-1].boot == boot
        assert len(set(host.payloads)) == 1


async def test_a_face_is_never_stored_and_not_sent_after_ten_seconds(
    shared_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.terminal.FACE_AGE_S_MAX", 0.3)
    terminal = fresh()
    async with (
        SmallHost(shared_broker, terminal) as host,
        running(shared_broker, terminal, resend_first_s=0.1) as agent,
    ):
        host.answering = False
        with pytest.raises(NoReply):
            await agent.show_face(JPEG, SessionId("visit-1"), timeout_s=0.05)
        assert agent.outbox.entries() == []
        await until(lambda: agent.counts.faces_too_old == 1)
        agent.drop()
        await until(lambda: not agent.online)
        faces = [event for event in host.events if event.seq == 1]
        agent.restore()
        await until(lambda: agent.online)
        host.answering = True
        await agent.request("cancel")
        assert [event for event in host.events if event.seq == 1] == faces
        assert host.events[-1].seq == 2, "the face's seq stays used"


async def test_birth_will_and_goodbye(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host:
        async with running(shared_broker, terminal) as agent:
            await until(lambda: len(host.presence) == 1)
            birth = host.presence[0]
            assert isinstance(birth, Birth)
            assert (birth.boot, birth.conn, birth.profile) == (agent.boot, agent.conn, "dragonfly-2")
            agent.drop()
            await until(lambda: len(host.presence) == 2)
            assert host.presence[1] == Death(agent.boot, birth.conn)
            agent.restore()
            await until(lambda: len(host.presence) == 3)
            again = host.presence[2]
            assert isinstance(again, Birth)
            assert (again.boot, again.conn != birth.conn) == (agent.boot, True)
        await until(lambda: len(host.presence) == 4)
        assert host.presence[3] == Death(again.boot, again.conn)
        reported = [json.loads(item.payload) for item in host.other if item.topic.channel is Up.REPORTED]
        assert reported[0]["applied_gen"] == 0


async def test_desired_generations_are_applied_once_and_upwards(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    terminal, path = fresh(), tmp_path / "outbox.db"

    def generations(host: SmallHost) -> list[int]:
        return [json.loads(item.payload)["applied_gen"] for item in host.other]

    async with SmallHost(shared_broker, terminal) as host:
        await host.bridge.publish_desired(terminal, 3, {"colour": "red"})
        async with running(shared_broker, terminal, outbox_path=path) as agent:
            await until(lambda: generations(host)[-1:] == [3])
            await host.bridge.publish_desired(terminal, 2, {"colour": "blue"})
            await host.bridge.publish_desired(terminal, 4, {"colour": "green"})
            await until(lambda: generations(host)[-1:] == [4])
            assert agent.desired == {"colour": "green"}
        async with running(shared_broker, terminal, outbox_path=path) as agent:
            assert (agent.applied_gen, agent.desired) == (4, {"colour": "green"})
        assert 2 not in generations(host)


async def test_resync_is_answered_and_a_foreign_command_is_not(shared_broker: EmbeddedBroker) -> None:
    terminal, other = fresh(), fresh()
    async with SmallHost(shared_broker, terminal) as host, running(shared_broker, terminal) as agent:
        await until(lambda: len(host.presence) == 1)

        async def command(verb: str) -> dict[str, Any]:
            answers = len(responses())
            command_id = MessageId(str(uuid.uuid4()))
            await host.bridge.publish_command(terminal, command_id, verb, {}, timedelta(seconds=5))
            await until(lambda: len(responses()) > answers)
            assert responses()[-1].correlation == command_id.encode()
            document: dict[str, Any] = json.loads(responses()[-1].payload)
            return document

        def responses() -> list[Any]:
            return [item for item in host.other if item.topic.channel is Up.RESPONSE]

        assert (await command("resync"))["status"] == "done"
        await until(lambda: len(host.presence) == 2)
        assert (await command("format-disk"))["status"] == "rejected"
        async with linked(link_config(shared_broker)) as stranger:
            await stranger.publish(
                str(topic_of(terminal, Down.COMMAND)),
                b'{"v":1,"id":"x","verb":"resync","args":{}}',
                response_topic=str(topic_of(other, Up.RESPONSE)),
            )
            await until(lambda: agent.counts.foreign_commands == 1)
        assert len(responses()) == 2


async def test_duplicate_replies_count_and_old_screens_do_not_show(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host, running(shared_broker, terminal) as agent:
        host.replies_each = 3
        await agent.request("scan", SCAN)
        await until(lambda: agent.counts.duplicate_replies == 2)
        await agent.wait_screen(lambda s: s.rev == 1)
        shown: list[tuple[str, int]] = []
        agent.on_screen = lambda screen: shown.append((screen.session, screen.rev))

        async def show(session: str, rev: int) -> None:
            await host.bridge.publish_screen(terminal, Screen(SessionId(session), rev, ScreenState.OPEN))

        for session, rev in (("visit-1", 1), ("visit-1", 3), ("visit-1", 2), ("visit-2", 1), ("visit-1", 4)):
            await show(session, rev)
        await show("visit-2", 2)
        await agent.wait_screen(lambda s: s.session == "visit-2" and s.rev == 2)
        assert shown == [("visit-1", 3), ("visit-2", 1), ("visit-2", 2)]


async def test_garbage_from_the_server_is_counted_and_survived(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with (
        SmallHost(shared_broker, terminal),
        running(shared_broker, terminal) as agent,
        linked(link_config(shared_broker)) as server,
    ):
        for channel in Down:
            topic = str(topic_of(terminal, channel))
            await server.publish(topic, b"\x00garbage", response_topic=str(topic_of(terminal, Up.RESPONSE)))
        await until(lambda: agent.counts.unreadable == len(Down))
        assert (await agent.request("scan", SCAN)).ok


async def test_nothing_too_large_is_ever_sent(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with running(shared_broker, terminal) as agent:
        with pytest.raises(ValueError, match="196608"):
            await agent.show_face(JPEG + bytes(192 * 1024), None)
        with pytest.raises(ValueError, match="65536"):
            await agent.request("scan", {"code": "x" * 70_000, "quantity": 1})
        assert agent.counts.sent == 0


async def test_telemetry_is_sent_once_and_kept_while_offline(shared_broker: EmbeddedBroker) -> None:
    terminal = fresh()
    async with SmallHost(shared_broker, terminal) as host, running(shared_broker, terminal) as agent:

        def heard() -> list[bytes]:
            return [item.payload for item in host.other if item.topic.channel is Up.TELEMETRY]

        await agent.telemetry({"n": 1})
        await until(lambda: len(heard()) == 1)
        agent.drop()
        await until(lambda: not agent.online)
        await agent.telemetry({"n": 2})
        assert [entry.kind for entry in agent.outbox.entries()] == [EntryClass.TELEMETRY]
        agent.restore()
        await until(lambda: len(heard()) == 2)
        assert agent.outbox.entries() == []


async def test_a_host_without_memory_makes_the_terminal_repeat_itself(broker: EmbeddedBroker) -> None:
    """The broker acknowledged and was killed: the terminal still has the event."""
    terminal = fresh()
    # It may be back before the host is: what it repeats then reaches nobody, and it repeats again.
    async with running(broker, terminal, resend_first_s=1.0) as agent:
        with pytest.raises(NoReply):
            await agent.request("paid", {"till_txn": "t", "rev": 1, "tenders": []}, timeout_s=0.2)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await until(lambda: not agent.online)
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        async with SmallHost(broker, terminal) as host:
            await until(lambda: agent.outbox.entries() == [], 30.0)
            assert host.events[0].seq == 1


async def test_a_killed_host_that_comes_back_finds_what_it_had_not_acknowledged(
    shared_broker: EmbeddedBroker,
) -> None:
    terminal, name = fresh(), f"host-{uuid.uuid4().hex[:8]}"
    async with running(shared_broker, terminal) as agent:
        async with SmallHost(shared_broker, terminal, name) as host:
            host.answering = host.acking = False
            asked = asyncio.create_task(agent.request("scan", SCAN))
            await until(lambda: len(host.events) == 1)
            host.link.drop()
        async with SmallHost(shared_broker, terminal, name) as again:
            assert again.connections == [True]
            assert (await asked).ok
            assert agent.counts.sent == 1, "the broker delivered it again, not the terminal"


async def test_a_refusal_is_a_reply_and_require_ok_makes_it_an_error(shared_broker: EmbeddedBroker) -> None:
    error = ReplyError("stale_rev", "The screen has changed", "confirm the new screen")
    with pytest.raises(Refused) as caught:
        require_ok(ReplyBody(None, ok=False, error=error))
    assert (caught.value.code, caught.value.do) == ("stale_rev", "confirm the new screen")
    assert require_ok(ReplyBody(None, ok=True)).ok
