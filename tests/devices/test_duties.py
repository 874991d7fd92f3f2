"""The operator's side of the agent over a real broker: software, reboot, enrolment, rotation, watchdog."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from devices import codec
from devices.credentials import Credential, CredentialStore, Enrolled, enrol
from devices.software import Running, SoftwareStore
from devices.terminal import NoReply, TerminalAgent
from devices.topics import Up, prefix
from devices.watchdog import LoopWatch, last_restart, note_restart
from devices.wire import SoftwareRelease
from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import MessageId
from models.domain.presence import Birth
from models.domain.registry import RegisteredTerminal
from runtime.broker import EmbeddedBroker
from tests.devices.files import FileServer, serving
from tests.devices.support import SmallHost, agent_config, fresh, until

IMAGE = b"agent two" * 1000
NIGHT = {"zone": "UTC", "from": "01:00", "to": "03:00"}


@pytest.fixture
def files() -> Iterator[FileServer]:
    with serving() as server:
        server.files["/two"] = IMAGE
        yield server


class Desk:
    """A terminal, its host and an operator."""

    def __init__(self, broker: EmbeddedBroker, folder: Path, profile: str = "dragonfly-2", **changes: Any) -> None:
        self.terminal = fresh(profile)
        self.wall = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
        config = agent_config(broker, self.terminal, folder=folder, duties_every_s=0.02, **changes)
        self.host = SmallHost(broker, self.terminal)
        self.agent = TerminalAgent(config, now=lambda: self.wall)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Desk:
        await self._stack.enter_async_context(self.host)
        self._stack.push_async_callback(self.agent.stop)
        await self.agent.start(connect_timeout_s=30.0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def heard(self, channel: Up) -> list[dict[str, Any]]:
        return [json.loads(item.payload) for item in self.host.other if item.topic.channel is channel]

    async def command(self, verb: str, **args: str | int) -> list[dict[str, Any]]:
        """All answers to one command, the final one last."""
        before, command = len(self.heard(Up.RESPONSE)), MessageId(str(uuid.uuid4()))
        await self.host.bridge.publish_command(self.terminal, command, verb, args, timedelta(seconds=20))
        final = ("done", "failed", "rejected")
        await until(lambda: any(one["status"] in final for one in self.heard(Up.RESPONSE)[before:]))
        return self.heard(Up.RESPONSE)[before:]

    async def reported(self, **wanted: Any) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def fits() -> bool:
            found[:] = [one for one in self.heard(Up.REPORTED) if wanted.items() <= one.items()]
            return bool(found)

        await until(fits)
        return found[-1]


def release(files: FileServer) -> SoftwareRelease:
    return SoftwareRelease("agent 2", f"{files.url}/two", sha256(IMAGE).hexdigest(), len(IMAGE))


async def test_software_is_fetched_ahead_and_activated_by_command(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        first_boot = desk.agent.boot
        assert [one["detail"] for one in await desk.command("activate")] == ["", "nothing_to_activate"]
        await desk.host.bridge.publish_desired(desk.terminal, 1, {}, release(files))
        await until(lambda: desk.agent.duties.fetched == "agent 2")
        report = await desk.reported(applied_gen=1)
        assert report["software"] == desk.agent.config.software, "what is fetched does not run yet"
        answers = await desk.command("activate")
        assert [one["status"] for one in answers] == ["accepted", "running", "done"]
        report = await desk.reported(software="agent 2")
        assert report["boot"] == desk.agent.boot != first_boot, "reported from the boot after the change"
        assert report["health"]["restarted"]["reason"] == "software agent 2"
        births = [one for one in desk.host.presence if isinstance(one, Birth)]
        assert [one.software for one in births][-1] == "agent 2"
        assert (await desk.agent.request("scan", {"code": "1", "quantity": 1})).ok
        assert desk.host.events[-1].seq == 1


async def test_software_is_activated_in_its_window_and_never_while_somebody_is_served(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        await desk.agent.request("scan", {"code": "1", "quantity": 1})
        await desk.agent.wait_screen(lambda s: s.state == "basket")
        await desk.host.bridge.publish_desired(desk.terminal, 1, {"software_window": NIGHT}, release(files))
        await until(lambda: desk.agent.duties.fetched == "agent 2")
        desk.wall = datetime(2026, 5, 2, 2, 0, tzinfo=UTC)
        assert (await desk.command("activate"))[-1]["detail"] == "busy"
        assert desk.agent.duties.running != "agent 2"
        desk.agent.screen = None
        await desk.reported(software="agent 2")


async def test_a_cut_connection_and_a_killed_download_leave_the_old_version(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    files.cut_after = 3_000
    async with Desk(shared_broker, tmp_path) as desk:
        await desk.host.bridge.publish_desired(desk.terminal, 1, {}, release(files))
        await until(lambda: bool(desk.agent.duties.fetch_error))
        assert (await desk.command("activate"))[-1]["detail"] == "not_fetched"
        assert desk.agent.duties.running == desk.agent.config.software
        files.cut_after = None
        await until(lambda: desk.agent.duties.fetched == "agent 2")
        assert any(asked.startswith("bytes=") for asked in files.asked)


async def test_a_document_that_comes_while_it_stops_begins_no_download(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        duties, wanted = desk.agent.duties, release(files)
        await duties.stop()
        document = {"v": 1, "gen": 1, "config": {}, "software": msgspec.to_builtins(wanted)}
        payload = msgspec.json.encode(document)
        await duties.desire(payload, codec.decode_desired(payload))
        assert duties.twin.software == wanted, "it is kept for the next process"
        assert not [task for task in asyncio.all_tasks() if "_fetch" in repr(task.get_coro())]
        assert files.asked == []


async def test_a_disk_that_refuses_is_asked_again(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "software").write_text("no folder")
    async with Desk(shared_broker, tmp_path) as desk:
        await desk.host.bridge.publish_desired(desk.terminal, 1, {}, release(files))
        await until(lambda: desk.agent.duties.fetch_error.startswith("disk: "))
        (tmp_path / "software").unlink()
        await until(lambda: desk.agent.duties.fetched == "agent 2")
        assert desk.agent.duties.fetch_error == ""


async def test_a_document_that_comes_while_a_version_starts_is_applied_by_the_boot_after_it(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        duties, delivered = desk.agent.duties, desk.agent.config.software
        await desk.host.bridge.publish_desired(desk.terminal, 1, {}, release(files))
        await until(lambda: duties.fetched == "agent 2")
        rejected = (await desk.command("activate", version="agent 3"))[-1]
        assert (rejected["detail"], duties.running) == ("other_version", delivered)
        assert isinstance(duties._store, SoftwareStore)
        starting, goes_on, activate = threading.Event(), threading.Event(), duties._store.activate

        def slowly(wanted: SoftwareRelease) -> Running:
            starting.set()
            assert goes_on.wait(30.0)
            return activate(wanted)

        monkeypatch.setattr(duties._store, "activate", slowly)
        starts = asyncio.create_task(desk.command("activate", version="agent 2"))
        await until(starting.is_set)
        back = msgspec.structs.replace(release(files), version=delivered)
        await desk.host.bridge.publish_desired(desk.terminal, 2, {}, back)
        await until(lambda: any("Duties.desire" in repr(task.get_coro()) for task in asyncio.all_tasks()))
        for _ in range(20):  # time enough to be applied and reported
            await desk.agent.report()
        assert duties.twin.gen == 1
        goes_on.set()
        assert (await starts)[-1]["status"] == "done"
        report = await desk.reported(applied_gen=2)
        assert report["software"] == "agent 2", "whoever reads it knows that the way back still lies ahead"


async def test_reboot_is_a_new_boot_and_what_waits_keeps_its_own(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        boot = desk.agent.boot
        desk.host.answering = False
        with pytest.raises(NoReply):
            await desk.agent.request("paid", {"till_txn": "T", "rev": 0, "tenders": []}, timeout_s=0.2)
        desk.host.answering = True
        answers = await desk.command("reboot")
        assert answers[-1]["detail"] == desk.agent.boot != boot
        await until(lambda: desk.agent.outbox.entries() == [])
        assert {event.boot for event in desk.host.events} == {boot}
        assert len(set(desk.host.payloads)) == 1


async def test_a_silent_server_makes_the_agent_begin_anew_and_say_why(
    shared_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with Desk(shared_broker, tmp_path, resend_first_s=0.05, silent_s_max=0.4) as desk:
        boot = desk.agent.boot
        desk.host.answering = False
        with pytest.raises(NoReply):
            await desk.agent.request("scan", {"code": "1", "quantity": 1}, timeout_s=0.1)
        await until(lambda: desk.agent.counts.reboots == 1)
        desk.host.answering = True
        await until(lambda: desk.agent.outbox.entries() == [])
        report = await desk.reported(boot=desk.agent.boot)
        assert desk.agent.boot != boot
        assert "no reply" in report["health"]["restarted"]["reason"]


async def test_samples_and_patience_are_as_the_desired_document_says(
    shared_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with Desk(shared_broker, tmp_path, silent_s_max=0.01) as desk:
        config = {"telemetry": {"every_s": 1}, "watchdog": {"silent_s": 600}}
        await desk.host.bridge.publish_desired(desk.terminal, 1, config)
        await until(lambda: bool(desk.heard(Up.TELEMETRY)))
        assert desk.heard(Up.TELEMETRY)[0].keys() >= {"v", "outbox_bytes", "sent"}
        desk.host.answering = False
        with pytest.raises(NoReply):
            await desk.agent.request("scan", {"code": "1", "quantity": 1}, timeout_s=0.3)
        assert desk.agent.counts.reboots == 0, "its own 10 ms count no more"


async def test_the_operators_words_and_the_printer(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        said: list[str] = []
        desk.agent.on_text = said.append
        assert (await desk.command("show_text", text="back in five minutes"))[-1]["status"] == "done"
        assert said == ["back in five minutes"]
        assert (await desk.command("test_print"))[-1] == {"v": 1, "status": "rejected", "detail": "no_printer"}


# ---------------------------------------------------------------- the watchdog


def test_a_blocked_loop_is_seen_from_outside(tmp_path: Path) -> None:
    note, restarted = tmp_path / "restart.json", threading.Event()

    async def blocks() -> None:
        watch = LoopWatch(note, lambda _: restarted.set(), blocked_s_max=0.2)
        watch.start()
        # The very fault: somebody waits in the loop's own thread.
        assert restarted.wait(30.0)
        watch.stop()

    asyncio.run(blocks())
    why = last_restart(note)
    assert why is not None
    assert "did not turn" in why["reason"]
    assert last_restart(note) is None, "said once"


def test_a_turning_loop_is_left_alone(tmp_path: Path) -> None:
    async def turns() -> tuple[list[str], float]:
        """What it said, and the longest time that the machine held the loop up."""
        restarts: list[str] = []
        watch = LoopWatch(tmp_path / "restart.json", restarts.append, blocked_s_max=0.2)
        watch.start()
        began = last = time.monotonic()
        longest = 0.0
        while last < began + 0.6:
            await asyncio.sleep(0.005)
            last, before = time.monotonic(), last
            longest = max(longest, last - before)
        watch.stop()
        return restarts, longest

    for _ in range(20):
        restarts, longest = asyncio.run(turns())
        if longest < 0.1:
            break
    assert restarts == []
    note_restart(tmp_path / "x.json", "y" * 500)
    assert len((last_restart(tmp_path / "x.json") or {})["reason"]) == 200


# ---------------------------------------------------------------- enrolment and rotation


def answer_for(broker: EmbeddedBroker, terminal: RegisteredTerminal, secret: str) -> dict[str, Any]:
    return {
        "terminal": terminal.terminal,
        "region": terminal.region,
        "store": terminal.store,
        "profile": terminal.profile,
        "topic_prefix": prefix(terminal.region, terminal.store, terminal.terminal),
        "broker": {"host": broker.info.host, "port": broker.info.port},
        "secret": secret,
    }


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=30.0) as client:
        yield client


async def test_a_code_becomes_a_credential_that_only_the_owner_can_read(
    shared_broker: EmbeddedBroker, files: FileServer, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    terminal, secret = fresh(), uuid.uuid4().hex
    asked: list[Any] = []

    def answer(body: Any) -> tuple[int, Any]:
        asked.append(body)
        if len(asked) > 1:
            return 409, {"code": "code_used", "detail": "that code was used", "do": "make a new one"}
        return 200, answer_for(shared_broker, terminal, secret)

    files.posts["/terminals/enrol"] = answer
    store = CredentialStore(tmp_path / "home")
    assert store.load() is None
    store.save(await enrol("7777-8888", files.url, http))
    assert asked == [{"code": "7777-8888"}]
    path = tmp_path / "home" / "credential.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    kept = store.load()
    assert kept is not None
    shared_broker.add_user(terminal.terminal, secret)
    agent = TerminalAgent(store.config(kept, reconnect_s_min=0.02))
    async with SmallHost(shared_broker, terminal):
        await agent.start(connect_timeout_s=30.0)
        assert (await agent.request("session.open")).ok
        await agent.stop()
    with pytest.raises(Refused) as caught:
        await enrol("7777-8888", files.url, http)
    assert caught.value.code == "code_used"
    path.write_text("{")
    with pytest.raises(NeedsOperator):
        store.load()


async def test_an_answer_that_does_not_fit_is_no_credential(
    shared_broker: EmbeddedBroker, files: FileServer, http: httpx.AsyncClient
) -> None:
    terminal = fresh()
    good = answer_for(shared_broker, terminal, uuid.uuid4().hex)
    changes: list[dict[str, Any]] = [
        {"topic_prefix": "so/1/south/00/s/t"},
        {"terminal": "../x"},
        {"secret": None},
        {"broker": {}},
    ]
    for change in changes:
        answer = 200, good | change
        files.posts["/terminals/enrol"] = lambda _, answer=answer: answer  # type: ignore[misc]
        with pytest.raises(NeedsOperator):
            await enrol("1", files.url, http)


async def test_a_certificate_is_asked_for_with_a_key_that_never_leaves(
    shared_broker: EmbeddedBroker, files: FileServer, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    terminal, seen = fresh(), []

    def answer(body: Any) -> tuple[int, Any]:
        seen.append(body)
        given = answer_for(shared_broker, terminal, "") | {"secret": None, "certificate": "PEM of the certificate"}
        return 200, given | {"broker": {"host": "broker", "port": 8883, "tls": True, "ca": "PEM of the authority"}}

    files.posts["/terminals/enrol"] = answer
    credential = await enrol("1", files.url, http, certificate=True)
    assert "BEGIN CERTIFICATE REQUEST" in seen[0]["csr"]
    assert "PRIVATE" not in json.dumps(seen)
    store = CredentialStore(tmp_path)
    store.save(credential)
    config = store.config(credential)
    assert config.tls is not None
    assert config.tls.key is not None
    assert "BEGIN PRIVATE KEY" in config.tls.key.read_text()
    assert stat.S_IMODE(config.tls.key.stat().st_mode) == 0o600
    with pytest.raises(NeedsOperator):
        config.tls.context()


async def test_rotation_connects_with_the_new_secret_before_it_forgets_the_old(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        store = CredentialStore(tmp_path)
        assert (await desk.command("rotate", url="x", code="y"))[-1]["detail"] == "not_enrolled"

        def credential(secret: str) -> Credential:
            return Credential(msgspec.convert(answer_for(shared_broker, desk.terminal, secret), Enrolled))

        old, new = str(desk.agent.config.secret), uuid.uuid4().hex
        store.save(credential(old))
        files.posts["/rotate"] = lambda body: (200, answer_for(shared_broker, desk.terminal, new))
        # The broker does not know the new secret yet: the old one goes on.
        where = {"url": f"{files.url}/rotate", "code": "1234"}
        desk.agent.duties.rotated_s_max = 0.3
        assert (await desk.command("rotate", **where))[-1]["status"] == "failed"
        assert (await desk.agent.request("session.open")).ok
        kept = store.load()
        assert kept is not None
        assert kept.enrolled.secret == old

        def let_in(_: Any) -> tuple[int, Any]:
            shared_broker.add_user(desk.terminal.terminal, new)  # mosquitto drops who came with the old one
            return 200, answer_for(shared_broker, desk.terminal, new)

        files.posts["/rotate"] = let_in
        answers = await desk.command("rotate", **where)
        assert answers[-1]["status"] == "done", answers
        kept = store.load()
        assert kept is not None
        assert kept.enrolled.secret == new
        assert (await desk.agent.request("cancel")).ok


async def test_an_image_that_does_not_prove_itself_falls_back_and_is_not_tried_again_by_itself(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    async with Desk(shared_broker, tmp_path) as desk:
        await desk.host.bridge.publish_desired(desk.terminal, 1, {"software_window": NIGHT}, release(files))
        await until(lambda: desk.agent.duties.fetched == "agent 2")
        [image] = (tmp_path / "software").glob("*.image")
        image.write_bytes(b"rotten" + IMAGE[6:])
        answers = await desk.command("activate")
        assert [one["status"] for one in answers] == ["accepted", "running", "failed"]
        report = await desk.reported(boot=desk.agent.boot)
        assert report["software"] == desk.agent.config.software
        assert (report["health"]["software_next"], report["health"]["fell_back"]) == ("agent 2", "agent 2")
        boots = desk.agent.counts.reboots
        desk.wall = datetime(2026, 5, 2, 2, 0, tzinfo=UTC)
        assert (await desk.command("activate"))[-1]["detail"] == "fell_back"
        assert desk.agent.counts.reboots == boots, "neither the command nor the window tries it again"
        image.write_bytes(IMAGE)
        assert (await desk.command("activate", again=1))[-1]["status"] == "done"
        report = await desk.reported(software="agent 2")
        assert "fell_back" not in report["health"]


async def test_the_image_says_which_family_it_makes_of_the_device(
    shared_broker: EmbeddedBroker, files: FileServer, tmp_path: Path
) -> None:
    files.files["/two"] = image = b'{"storeops_image":1,"profile":"dragonfly-2"}\n' + IMAGE
    wanted = SoftwareRelease("agent 2", f"{files.url}/two", sha256(image).hexdigest(), len(image))
    async with Desk(shared_broker, tmp_path, profile="dragonfly-1") as desk:
        await desk.host.bridge.publish_desired(desk.terminal, 1, {}, wanted)
        await until(lambda: desk.agent.duties.fetched == "agent 2")
        assert (await desk.command("activate"))[-1]["status"] == "done"
        await desk.reported(software="agent 2")
        births = [one for one in desk.host.presence if isinstance(one, Birth)]
        assert [(one.software, one.profile) for one in births] == [
            (desk.agent.config.software, "dragonfly-1"),
            ("agent 2", "dragonfly-2"),
        ]
