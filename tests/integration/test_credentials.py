"""Codes, secrets, certificates: enrolment that may be repeated, rotation that locks nobody out, revocation at once."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from devices.agent_config import AgentConfig
from devices.credentials import CredentialStore, enrol, make_csr
from devices.terminal import TerminalAgent
from gateway.enrolment import Enrolment, EnrolRequest
from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId
from runtime import mqtt_probe
from runtime.broker import EmbeddedBroker, ExternalBroker
from runtime.broker_mosquitto import find_program, password_line
from runtime.credentials import Credentials, normal
from runtime.datadir import open_data_dir
from runtime.deploy import write_mosquitto
from runtime.plant import Plant
from runtime.ports import accepts, free_port
from runtime.processes import ChildProcess, ProcessSpec
from runtime.settings import Broker as BrokerSettings
from tests.conftest import scratch_data_dir
from tests.integration.house import House, eventually, storeops

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_program() is None, reason="needs mosquitto: apt-get install mosquitto"),
]

REGION = "south-china"


def refused(code: str) -> Any:
    """The block is refused with this code."""
    return pytest.raises(Refused, check=lambda error: error.code == code)


class Shop:
    """A database with two registered terminals, a mosquitto with TLS, and the server's half of the protocol."""

    def __init__(self, url: str, broker: EmbeddedBroker, data: Path) -> None:
        self.url, self.broker, self.data = url, broker, data
        info = broker.info
        self.plant = Plant(
            data, ChainId("c"), RegionId(REGION), 1, url, info.host, info.port, True, info.username, info.password,
            terminals=broker.door,
        )  # fmt: skip
        self.credentials = Credentials([self.plant])
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(
                "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner,"
                " opened_at) VALUES ('s1', 'c', %s, 0, '店', 'Shop', 'Asia/Shanghai', 0, 'storeops', now())",
                (REGION,),
            )
            for name in ("t-1", "t-2"):
                conn.execute(
                    "INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)"
                    " VALUES (%s, 's1', 'l1', 'face', 'dragonfly-2', 'x', now())",
                    (name,),
                )

    def execute(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            cursor = conn.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    async def code(self, terminal: str = "t-1", *, certificate: bool = False, minutes: int = 15, ago_s: int = 0) -> str:
        now = datetime.now(UTC) - timedelta(seconds=ago_s)
        made = self.credentials.make_code(self.plant, terminal, certificate=certificate, minutes=minutes, now=now)
        return (await made)[0]

    async def enrol(self, code: str, csr: str | None = None) -> Enrolment:
        return await self.credentials.redeem(EnrolRequest(code, csr=csr), "10.0.0.9", rotates=False)

    async def rotating(self, command: str, status: str = "accepted", terminal: str = "t-1") -> Enrolment:
        """A rotation whose command has come so far."""
        self.execute(
            "INSERT INTO command (id, terminal, store, verb, args, asked_at, deadline_at, status, detail)"
            " VALUES (%s, %s, 's1', 'rotate', '{}', now(), now(), %s, '')",
            command, terminal, status,
        )  # fmt: skip
        code = await self.credentials.rotation_code(self.plant, terminal, command, datetime.now(UTC))
        return await self.credentials.redeem(EnrolRequest(code, terminal), "10.0.0.9", rotates=True)

    def lets_in(self, secret: str | None, terminal: str = "t-1") -> bool:
        info = self.broker.info
        return mqtt_probe.login(info.host, info.port, terminal, secret) == mqtt_probe.SUCCESS

    async def settles(self, secret: str | None, opens: bool) -> None:
        await eventually(lambda: self.lets_in(secret) is opens, f"the secret opens: {opens}")

    def events(self) -> list[str]:
        return [row[0] for row in self.execute("SELECT what FROM credential_event ORDER BY id")]


@pytest.fixture
def shop(migrated_database_url: str) -> Iterator[Shop]:
    with scratch_data_dir() as folder:
        settings = BrokerSettings(kind="mosquitto", tls=True, tls_port=0, certificates_port=0)
        broker = EmbeddedBroker(folder, "mosquitto", tls=settings)
        try:
            broker.start()
            yield Shop(migrated_database_url, broker, folder)
        finally:
            broker.stop()


async def test_a_code_becomes_a_secret_once_and_the_same_one_when_asked_again(shop: Shop) -> None:
    code = await shop.code()
    first = await shop.enrol(code)
    assert first.secret is not None
    assert len(bytes.fromhex(first.secret)) == 32
    assert shop.lets_in(first.secret), "at once"
    again = await shop.enrol(code.lower().replace("-", " "))
    assert again == first
    stored = str(shop.execute("SELECT * FROM credential")) + str(shop.execute("SELECT * FROM enrolment_code"))
    assert first.secret not in stored
    assert normal(code) not in stored
    assert shop.events() == ["enrolment_code", "enrolled", "repeated"]
    shop.execute("UPDATE enrolment_code SET used_at = now() - interval '11 minutes'")
    with refused("code_used"):
        await shop.enrol(code)
    next_one = await shop.enrol(await shop.code())
    assert next_one.secret != first.secret
    await shop.settles(first.secret, False)


async def test_codes_that_are_refused(shop: Shop) -> None:
    with refused("code_unknown"):
        await shop.enrol("ABCD-EFGH-JKMN")
    with refused("code_expired"):
        await shop.enrol(await shop.code(minutes=1, ago_s=61))
    older, newer = await shop.code(), await shop.code()
    with refused("code_unknown"):
        await shop.enrol(older)
    with refused("csr_unexpected"):
        await shop.enrol(newer, make_csr("t-1")[1])
    with refused("csr_missing"):
        await shop.enrol(await shop.code(certificate=True))
    with refused("bad_csr"):
        await shop.enrol(await shop.code(certificate=True), "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n")
    with refused("unknown_terminal"):
        await shop.code("nobody")


async def test_a_rotation_is_confirmed_by_done(shop: Shop) -> None:
    old = (await shop.enrol(await shop.code())).secret
    new = (await shop.rotating("r1")).secret
    assert shop.lets_in(new)
    shop.execute("UPDATE command SET status = 'done'")
    await shop.credentials.look(datetime.now(UTC))
    assert shop.execute("SELECT state FROM credential ORDER BY made_at") == [("ended",), ("current",)]
    assert shop.lets_in(new)
    assert not shop.lets_in(old)


async def test_a_rotation_that_failed_is_taken_back(shop: Shop) -> None:
    old = (await shop.enrol(await shop.code())).secret
    new = (await shop.rotating("r1")).secret
    shop.execute("UPDATE command SET status = 'failed'")
    await shop.credentials.look(datetime.now(UTC))
    await shop.settles(old, True)
    assert not shop.lets_in(new)


async def test_a_terminal_that_was_killed_gets_in_with_whichever_secret_it_kept(shop: Shop) -> None:
    """Killed between answer and save it has the old one, after the save and before `done` the new one."""
    old = (await shop.enrol(await shop.code())).secret
    new = (await shop.rotating("r1")).secret
    now = datetime.now(UTC)
    await shop.credentials.look(now + timedelta(seconds=59))
    assert shop.lets_in(new)
    await shop.credentials.look(now + timedelta(seconds=62))  # never seen under the new one
    await shop.settles(old, True)
    assert not shop.lets_in(new), "one of the two at any time"
    await shop.credentials.look(now + timedelta(seconds=125))
    await shop.settles(new, True)
    shop.execute(
        "INSERT INTO presence (terminal, store, online, known, software, boot, gen, config_hash, sync, skew_alarm,"
        " takeovers, gaps, health, changed_at)"
        " VALUES ('t-1', 's1', true, true, '', '', 0, '', '', false, 0, 0, '', %s)",
        now + timedelta(seconds=130),
    )
    await shop.credentials.look(now + timedelta(seconds=600))
    assert shop.execute("SELECT count(*) FROM credential WHERE state = 'next'") == [(1,)]
    await shop.credentials.look(now + timedelta(seconds=800))
    assert shop.execute("SELECT state FROM credential ORDER BY made_at") == [("ended",), ("current",)]
    assert shop.lets_in(new)


async def test_a_terminal_registered_by_hand_goes_back_to_its_secret(shop: Shop) -> None:
    shop.broker.add_user("t-1", "printed-once")
    new = (await shop.rotating("r1")).secret
    assert shop.lets_in(new)
    shop.execute("UPDATE command SET status = 'failed'")
    await shop.credentials.look(datetime.now(UTC))
    await shop.settles("printed-once", True)


async def test_a_gateway_killed_after_its_commit_and_a_broker_restarted(shop: Shop) -> None:
    """The commit was made, the broker's file not written: the next gateway's first look writes it."""
    await shop.enrol(await shop.code())
    new = (await shop.rotating("r1")).secret
    passwords = shop.data / "broker" / "passwords"
    lines = [line for line in passwords.read_text().splitlines() if not line.startswith("t-1:")]
    passwords.write_text("\n".join([*lines, password_line("t-1", "as before")]) + "\n")
    shop.broker.stop()
    shop.broker.start()
    assert not shop.lets_in(new)
    await Credentials([shop.plant]).look(datetime.now(UTC), again=True)
    await shop.settles(new, True)


async def test_certificates_overlap_until_done_and_the_old_one_is_on_the_list(shop: Shop) -> None:
    key, csr = make_csr("anything")
    first = await shop.enrol(code := await shop.code(certificate=True), csr)
    assert first.certificate is not None
    assert await shop.enrol(code, csr) == first
    other = await shop.enrol(code, make_csr("t-1")[1])
    assert other.certificate != first.certificate
    assert shop.execute("SELECT state FROM credential ORDER BY made_at") == [("ended",), ("current",)]
    shop.execute(
        "INSERT INTO command (id, terminal, store, verb, args, asked_at, deadline_at, status, detail)"
        " VALUES ('r1', 't-1', 's1', 'rotate', '{}', now(), now(), 'accepted', '')"
    )
    rotation = await shop.credentials.rotation_code(shop.plant, "t-1", "r1", datetime.now(UTC))
    request = EnrolRequest(rotation, "t-1", make_csr("t-1")[1])
    await shop.credentials.redeem(request, "", rotates=True)
    live = "SELECT count(*) FROM credential WHERE state IN ('current', 'next')"
    assert shop.execute(live) == [(2,)]
    shop.execute("UPDATE command SET status = 'done'")
    await shop.credentials.look(datetime.now(UTC))
    assert shop.execute(live) == [(1,)]
    assert key


async def test_revocation_counts_at_once_and_ends_with_a_new_enrolment(shop: Shop) -> None:
    secret = (await shop.enrol(await shop.code())).secret
    shop.execute(
        "INSERT INTO liveness_key (terminal, fingerprint, public_key, added_at, added_by)"
        " VALUES ('t-1', 'f', repeat('ab', 32), now(), 'test'), ('t-2', 'g', repeat('cd', 32), now(), 'test')"
    )
    told = await shop.credentials.revoke(shop.plant, "t-1", datetime.now(UTC))
    live = "SELECT terminal FROM liveness_key WHERE ended_at IS NULL"
    assert shop.execute(live) == [("t-2",)], "its camera signs nothing any more"
    assert (told["broker"], told["connection"]) == ("refuses it", "ended")
    await shop.settles(secret, False)
    assert "user t-1\ntopic deny #" in (shop.data / "broker" / "acl").read_text()
    assert shop.execute("SELECT count(*) FROM terminal WHERE revoked_at IS NOT NULL") == [(1,)]
    fresh = (await shop.enrol(await shop.code())).secret
    assert shop.lets_in(fresh)
    assert "user t-1" not in (shop.data / "broker" / "acl").read_text()
    assert shop.execute("SELECT count(*) FROM terminal WHERE revoked_at IS NOT NULL") == [(0,)]


async def test_a_deployed_mosquitto_knows_the_registrys_terminals(shop: Shop) -> None:
    """What `storeops deploy mosquitto` writes starts as it is, and lets in who may come in."""
    secret = (await shop.enrol(await shop.code())).secret
    lost = (await shop.enrol(await shop.code("t-2"))).secret
    await shop.credentials.revoke(shop.plant, "t-2", datetime.now(UTC))
    ports = free_port(), free_port()
    folder = shop.data / "broker" / "deployed"  # a folder that the broker's user may enter
    written = await write_mosquitto([shop.plant], folder, ["localhost", "127.0.0.1"], *ports, folder)
    assert (written["passwords"], written["without"], written["refused"]) == (1, 0, 1)
    config = folder / "mosquitto.conf"
    text = config.read_text().replace("/var/lib/mosquitto/", f"{folder}/").replace("log_dest syslog", "log_dest stderr")
    config.write_text(f"user root\n{text}")
    program = find_program()
    assert program is not None
    broker = ChildProcess(ProcessSpec("deployed", (program, "-c", str(config)), shop.data / "deployed.log"))
    broker.start()
    try:
        broker.wait_ready(lambda: accepts(ports[0]), 5.0)
        tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))

        def login(name: str, with_secret: str | None) -> int | None:
            return mqtt_probe.login("127.0.0.1", ports[0], name, with_secret, tls=tls)

        assert login("t-1", secret) == mqtt_probe.SUCCESS
        assert login("t-2", lost) == 0x87
        ExternalBroker((folder / "broker-url").read_text().strip(), folder / "ca.pem").start()
    finally:
        broker.stop()


@pytest.mark.timeout(300)
async def test_in_a_running_house_by_the_command_line(house: House) -> None:
    """enrol-code, the agent's own enrolment over HTTP, rotate with its `done`, revoke: nothing in between by hand."""
    added = await house.register("gz-tianhe", "credential")
    name, data = str(added["username"]), ("--data", str(house.data))
    made = await asyncio.to_thread(storeops, "terminal", "enrol-code", name, *data)
    folder = house.folder / "enrolled"
    store = CredentialStore(folder)
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
        credential = await enrol(made["code"], made["gateway"], http)
        with refused("code_unknown"):
            await enrol("ABCD-EFGH-JKMN", made["gateway"], http)
    folder.mkdir(mode=0o700)
    store.save(credential)
    config: AgentConfig = store.config(credential, reconnect_s_min=0.1, reconnect_s_max=0.5)
    agent = TerminalAgent(config)
    await agent.start(30.0)
    try:
        await eventually(lambda: agent.online, "enrolled and connected")
        rotated = await asyncio.to_thread(storeops, "terminal", "rotate", name, *data)
        assert rotated["terminals"] == {name: "done"}
        saved = store.load()
        assert saved is not None
        assert saved.enrolled.secret not in {None, credential.enrolled.secret}
        states = "SELECT state FROM credential WHERE terminal = %s ORDER BY made_at"
        await eventually(lambda: house.rows(states, (name,)) == [("ended",), ("current",)], "confirmed")
        assert agent.online
        await asyncio.to_thread(storeops, "terminal", "revoke", name, *data)
        await eventually(lambda: not agent.online, "its connection ended")
    finally:
        await agent.stop()
        shutil.rmtree(folder)
    assert open_data_dir(house.data, create=False).secret("enrolment-pepper")
