"""Twins, commands, order and retirement in the running house: a terminal by the agent, the rest by hand over MQTT."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from devices.link import Delivery
from devices.mqtt import LinkConfig, MqttLink
from models.domain.errors import Refused
from models.domain.ids import MessageId
from models.domain.twin import CommandAsked
from runtime import administration, commands
from runtime.commands import Change
from tests.integration.house import House, eventually, storeops

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STORE = "gz-tianhe"


class Hand:
    """A terminal worked by hand: what is sent is what the test says, in its order."""

    def __init__(self, access: dict[str, Any]) -> None:
        self.access = access
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.commands: list[Delivery] = []
        self.link = MqttLink(
            LinkConfig(
                host=access["broker_host"],
                port=access["broker_port"],
                client_id=access["client_id"],
                username=access["username"],
                password=access["secret"],
                reconnect_s_min=0.2,
                reconnect_s_max=0.5,
            )
        )
        self._up = asyncio.Event()
        self.link.listen(self, (f"{access['topic_prefix']}/down/#",))

    async def start(self) -> None:
        await self.link.start()
        await asyncio.wait_for(self._up.wait(), 20.0)

    def delivered(self, delivery: Delivery) -> None:
        channel = delivery.topic.rsplit("/", 1)[1]
        if delivery.payload:
            self.heard.append((channel, msgspec.json.decode(delivery.payload)))
        if channel == "command":
            self.commands.append(delivery)
        if delivery.receipt is not None:
            self.link.ack(delivery.receipt)

    def connected(self, epoch: int, session_present: bool) -> None:
        self._up.set()

    def disconnected(self, reason: str) -> None:
        pass

    async def may_reconnect(self, taken_over: bool) -> bool:
        return True

    async def say(self, channel: str, document: dict[str, Any], **options: Any) -> None:
        payload = msgspec.json.encode({"v": 1, **document})
        await self.link.publish(f"{self.access['topic_prefix']}/up/{channel}", payload, **options)

    async def birth(self, boot: str, at: datetime) -> None:
        conn, ts = str(uuid.uuid4()), at.isoformat()
        birth = {"online": True, "boot": boot, "conn": conn, "software": "hand 1", "profile": "till", "ts": ts}
        await self.say("presence", birth, retain=True)

    async def event(self, boot: str, seq: int, kind: str, body: dict[str, Any], session: str | None = None) -> str:
        ident = str(uuid.uuid4())
        head = {"id": ident, "boot": boot, "seq": seq, "ts": datetime.now(UTC).isoformat(), "session": session}
        await self.say("event", {**head, "type": kind, "body": body})
        return ident

    def reply(self, ident: str) -> dict[str, Any] | None:
        return next((one for channel, one in self.heard if channel == "reply" and one["id"] == ident), None)


@asynccontextmanager
async def by_hand(house: House, lane: str, role: str = "till") -> AsyncIterator[Hand]:
    hand = Hand(await house.register(STORE, lane, role))
    await hand.start()
    try:
        yield hand
    finally:
        await hand.link.stop()


def presence(house: House, terminal: str) -> dict[str, Any]:
    return next(iter(house.documents("SELECT * FROM presence WHERE terminal = %s", (terminal,))), {})


async def test_a_change_is_published_without_a_restart_and_the_report_is_held_against_it(house: House) -> None:
    async with house.terminal(STORE, "twin-1") as terminal:
        agent, name = terminal.agent, terminal.agent.config.terminal
        await eventually(lambda: presence(house, name).get("sync") == "in_sync", "the first document is applied")
        first = presence(house, name)["gen"]
        results = await commands.set_desired(house.plant, [name], Change('{"volume":40}', expected_gen=first))
        assert results[name].gen == first + 1
        stale = await commands.set_desired(house.plant, [name], Change('{"volume":50}', expected_gen=first))
        assert (stale[name].ok, stale[name].code, stale[name].gen) == (False, "gen_conflict", first + 1)
        await eventually(lambda: agent.desired.get("volume") == 40, "the terminal has it")
        await eventually(lambda: presence(house, name)["applied_gen"] == first + 1, "and says so")
        assert presence(house, name)["sync"] == "in_sync"
        done = await commands.command(house.plant, name, commands.new_command("resync", [], 10))
        assert (done["verb"], done["status"]) == ("resync", "done")
        shown = await commands.show(house.plant, name)
        assert [one["id"] for one in shown["commands"]] == [done["id"]]
        assert (shown["desired"]["config"]["volume"], shown["presence"]["known"]) == (40, True)
        # A host that died publishes what it had promised, and no other generation.
        house.host().kill()
        words = ("terminal", "desired", name, "--set", '{"volume": 60}', "--data", str(house.data))
        again = await asyncio.to_thread(storeops, *words)
        assert again["terminals"][name] == {"ok": True, "gen": first + 2, "code": "", "do": ""}
        await eventually(lambda: agent.desired.get("volume") == 60, "the next host told it")


async def test_commands_are_answered_expire_and_outlive_their_host(house: House) -> None:
    async with by_hand(house, "twin-2") as hand:
        name = hand.access["username"]
        await hand.birth(str(uuid.uuid4()), datetime.now(UTC))
        await eventually(lambda: presence(house, name).get("online"), "it is there")

        async def answer(status: str) -> None:
            await eventually(lambda: hand.commands, "the command")
            told = hand.commands.pop()
            assert told.correlation is not None
            assert told.response_topic == f"{hand.access['topic_prefix']}/up/response"
            await hand.say("response", {"status": status, "detail": "by hand"}, correlation=told.correlation)

        asked = CommandAsked(MessageId(str(uuid.uuid4())), "show_text", (("text", "你好"),), 10)
        row, _ = await asyncio.gather(commands.command(house.plant, name, asked), answer("done"))
        assert (row["status"], row["detail"], row["args"]) == ("done", "by hand", {"text": "你好"})
        assert (await commands.command(house.plant, name, asked))["status"] == "done"
        assert hand.commands == []  # asked again under its id: not told again

        short = CommandAsked(MessageId(str(uuid.uuid4())), "test_print", (), 1)
        assert (await commands.command(house.plant, name, short))["status"] == "expired"
        await answer("done")
        late = "SELECT status, late_status FROM command WHERE id = %s"
        await eventually(lambda: house.rows(late, (short.id,)) == [("expired", "done")], "the late answer is recorded")

        stranger = str(uuid.uuid4()).encode()
        await hand.say("response", {"status": "done", "detail": ""}, correlation=stranger)
        await eventually(lambda: house.health()["unasked_responses"] >= 1, "an answer that nobody asked for is counted")

        # The answer comes although the host was killed in between: once in effect by its id.
        long = CommandAsked(MessageId(str(uuid.uuid4())), "reboot", (), 25)
        waiting = asyncio.create_task(commands.command(house.plant, name, long))
        await eventually(lambda: hand.commands, "the command")
        house.host().kill()
        told = hand.commands.pop()
        await hand.say("response", {"status": "done", "detail": "rebooted"}, correlation=told.correlation)
        assert (await waiting)["detail"] == "rebooted"


async def test_money_waits_for_the_message_before_it_and_a_gap_costs_one_wait(house: House) -> None:
    async with by_hand(house, "twin-3") as hand:
        name, boot = hand.access["username"], str(uuid.uuid4())
        opened = await hand.event(boot, 1, "session.open", {})
        await eventually(lambda: hand.reply(opened), "a visit")
        session = (hand.reply(opened) or {})["session"]
        cancel = await hand.event(boot, 3, "cancel", {}, session)  # overtook its predecessor
        await hand.event(boot, 2, "consent", {"purpose": "marketing", "text": "v1", "granted": False}, session)
        await eventually(lambda: hand.reply(cancel), "both")
        order = [one["id"] for channel, one in hand.heard if channel == "reply"]
        assert order[-1] == cancel
        began = asyncio.get_running_loop().time()
        lost = await hand.event(boot, 9, "cancel", {}, session)
        await eventually(lambda: hand.reply(lost), "goes on without what never came")
        assert 1.9 <= asyncio.get_running_loop().time() - began <= 6.0
        await eventually(lambda: presence(house, name).get("gaps") == 1, "and is marked")
        kinds = "SELECT kind FROM incident WHERE terminal = %s"
        assert ("seq_gap",) in house.rows(kinds, (name,))
        again = await hand.event(boot, 10, "cancel", {}, session)
        began = asyncio.get_running_loop().time()
        await eventually(lambda: hand.reply(again), "the gap costs one wait")
        assert asyncio.get_running_loop().time() - began < 1.9


async def test_takeover_a_wrong_clock_a_lie_telemetry_and_the_end(house: House) -> None:
    async with by_hand(house, "twin-4") as hand:
        name = hand.access["username"]
        now, boots = datetime.now(UTC), [str(uuid.uuid4()), str(uuid.uuid4())]
        for n in range(4):  # two devices with one id take turns, and their clock is seven minutes ahead
            await hand.birth(boots[n % 2], now + timedelta(minutes=7, seconds=n))
        await eventually(lambda: presence(house, name).get("takeovers") == 2, "two devices with one id")
        await eventually(lambda: presence(house, name)["skew_alarm"], "a wrong clock")
        assert 400_000 < presence(house, name)["skew_ms"] < 430_000
        kinds = {row[0] for row in house.rows("SELECT kind FROM incident WHERE terminal = %s", (name,))}
        assert kinds >= {"session_takeover", "clock_skew"}

        def gen() -> int:
            return int(presence(house, name)["gen"])

        await eventually(lambda: gen() > 0, "its first document")
        lie = {"config_hash": "x", "software": "hand 1", "boot": boots[1], "health": {"disk_free_mb": 5}}
        await hand.say("reported", {"applied_gen": gen() + 40, **lie}, retain=True)
        await eventually(lambda: gen() > 40, "a terminal that is ahead gets a generation that it cannot ignore")
        await hand.say("reported", {"applied_gen": gen(), **lie}, retain=True)
        await eventually(lambda: presence(house, name)["sync"] == "differs", "a liar is shown")
        assert presence(house, name)["health"] == '{"disk_free_mb":5}'

        await hand.say("telemetry", {"cpu_percent": 12}, qos=0)
        doc = "SELECT doc FROM telemetry WHERE terminal = %s"
        await eventually(lambda: house.rows(doc, (name,)), "a sample")
        before = house.health()
        for n in range(50):
            await hand.say("telemetry", {"cpu_percent": n}, qos=0)
        await eventually(lambda: house.health()["telemetry_dropped"] - before["telemetry_dropped"] >= 45, "a flood")
        assert len(house.rows(doc, (name,))) == 1

        await hand.link.publish(f"{hand.access['topic_prefix']}/up/presence", b'{"v":2,"online":true}')
        await eventually(lambda: house.health()["unsupported_versions"] > before["unsupported_versions"], "version 2")

    done = await commands.retire(house.plant, name)
    assert (done["host"], done["broker"]) == ("told", "user removed")
    await eventually(lambda: presence(house, name) == {}, "its twin is forgotten, its retained topics are cleared")
    with pytest.raises(Refused) as refused:
        await commands.set_desired(house.plant, [name], Change('{"volume":1}'))
    assert refused.value.code == "unknown_terminal"
    profile = ("till", "till")
    again = await administration.add_terminal(house.plant, STORE, "twin-4", *profile, name)
    assert again["secret"] != hand.access["secret"]
