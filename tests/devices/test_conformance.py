"""A conformance run: our own agent passes every rule; a device with one fault fails the rule for it and no other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from devices.conformance import judge
from devices.conformance.examiner import Examined, Examiner, Pace
from devices.conformance.operators import Act, Person, Script
from devices.conformance.packets import NotMqtt, Other, PacketReader, Publish
from devices.conformance.record import Record
from devices.conformance.rules import RULES, Finding, Verdict
from devices.conformance.tap import Seen, Tap
from devices.topics import prefix
from runtime.broker import EmbeddedBroker
from tests.devices.broken_devices import FAULTS, KEY, Fault
from tests.devices.support import agent_config, fresh, link_config

pytestmark = pytest.mark.timeout(180)  # the devices, side by side, take half a minute of waiting
PACE = Pace(
    start_s=30.0,
    act_s=20.0,
    answer_s=5.0,
    resend_s=1.5,
    face_age_s=2.25,
    reconnect_s=1.5,
    reconnect_s_max=20.0,
)
APART_S = 0.1
"""So that not all of them come back at the same moment, in the time of which the protocol has its say."""
FAST = {"resend_first_s": 1.5, "reconnect_s_min": 0.25, "reconnect_s_max": 2.0, "will_delay_s": 15}


async def examine(broker: EmbeddedBroker, fault: Fault) -> list[Finding]:
    """One device, from its start to its findings."""
    terminal = fresh()
    config = agent_config(broker, terminal, **{**FAST, "liveness_key": KEY, **fault.settings})
    tap = Tap(config.host, config.port)
    script = Script(fault.device(replace(config, port=await tap.start())))
    device = Examined(
        prefix(terminal.region, terminal.store, terminal.terminal), terminal.terminal, config.secret, KEY.public
    )
    try:
        return await Examiner(tap, link_config(broker), device, script, PACE).run()
    finally:
        await script.close()
        await tap.stop()


@pytest.fixture(scope="module")
def examined(shared_broker: EmbeddedBroker) -> dict[str, dict[str, Finding]]:
    """Every device of the table, examined side by side: most of a run is waiting."""

    async def all_of_them() -> list[list[Finding]]:
        async def in_turn(number: int, fault: Fault) -> list[Finding]:
            await asyncio.sleep(number * APART_S)
            return await examine(shared_broker, fault)

        return await asyncio.gather(*(in_turn(number, fault) for number, fault in enumerate(FAULTS)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devices.terminal.FACE_AGE_S_MAX", PACE.face_age_s)
        # Chance out of it: a jitter of nearly nothing, four times, would look like no backing off.
        patch.setattr("random.uniform", lambda low, high: (low + high) / 2)
        found = asyncio.run(all_of_them())
    return {
        fault.name: {finding.rule.key: finding for finding in findings}
        for fault, findings in zip(FAULTS, found, strict=True)
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_device_fails_for_its_fault_and_for_nothing_else(
    examined: dict[str, dict[str, Finding]], fault: Fault
) -> None:
    findings = examined[fault.name]
    failed = {key: finding.detail for key, finding in findings.items() if finding.verdict is Verdict.FAILED}
    assert set(failed) == ({fault.rule} if fault.rule else set()), failed
    assert sorted(findings) == sorted(RULES)


def test_our_own_agent_is_examined_in_everything(examined: dict[str, dict[str, Finding]]) -> None:
    assert {finding.verdict for finding in examined["none"].values()} == {Verdict.PASSED}


def test_every_rule_has_a_device_that_breaks_it() -> None:
    elsewhere = {"connect.version", "subscribe.connect", "command.resync", "packet.limit"}
    assert {fault.rule for fault in FAULTS if fault.rule} | elsewhere == set(RULES)


# ---------------------------------------------------------------- devices that speak no word of it


async def _raw(broker: EmbeddedBroker, sent: bytes) -> dict[str, Finding]:
    tap = Tap(broker.info.host, broker.info.port)
    port = await tap.start()
    writers = []

    class Raw(Person):
        async def do(self, act: Act) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(sent)

    terminal = fresh()
    device = Examined(prefix(terminal.region, terminal.store, terminal.terminal), terminal.terminal)
    person = Raw(lambda _: None, lambda _: None, has_camera=False)
    pace = replace(PACE, start_s=1.0)
    try:
        findings = await Examiner(tap, link_config(broker), device, person, pace).run()
    finally:
        for writer in writers:
            writer.close()
        await tap.stop()
    return {finding.rule.key: finding for finding in findings}


MQTT_311 = bytes.fromhex("101000044d51545404020 01e000474657374".replace(" ", ""))


@pytest.mark.parametrize("sent", [MQTT_311, b"GET / HTTP/1.1\r\n\r\n", b""], ids=["MQTT 3.1.1", "HTTP", "silence"])
async def test_another_protocol_fails_the_first_rule(shared_broker: EmbeddedBroker, sent: bytes) -> None:
    findings = await _raw(shared_broker, sent)
    assert findings["connect.version"].verdict is Verdict.FAILED
    assert [key for key, one in findings.items() if one.verdict is Verdict.FAILED and key.startswith("will")] == []


# ---------------------------------------------------------------- rules that a device cannot easily be made to break


def _record(*packets: tuple[Publish | Other, int]) -> Record:
    tap = Tap("127.0.0.1", 1)
    tap.seen += [Seen(time.monotonic(), 0, packet, length) for packet, length in packets]
    return Record(tap, "so/1/south/00/s-1/t-1", "t-1")


def test_a_packet_above_the_limit_is_seen() -> None:
    assert judge._limit(_record((Other(3), 256 * 1024)))[0] is Verdict.PASSED
    assert judge._limit(_record((Other(3), 256 * 1024 + 1)))[0] is Verdict.FAILED


def test_without_a_report_there_was_no_resync() -> None:
    report = Publish("so/1/south/00/s-1/t-1/up/reported", b"{}", 1, True, None, None, None, ())
    assert judge._resynced(_record((report, 10)))[0] is Verdict.PASSED
    assert judge._resynced(_record((Other(3), 10)))[0] is Verdict.FAILED


def test_packets_come_apart_however_the_bytes_are_cut() -> None:
    stream = MQTT_311 + b"\xc0\x00" * 3
    whole = PacketReader().feed(stream)
    reader = PacketReader()
    bytewise = [packet for byte in stream for packet in reader.feed(bytes([byte]))]
    assert whole == bytewise
    assert [type(packet).__name__ for packet, _ in whole] == ["Connect", "Other", "Other", "Other"]


@pytest.mark.parametrize(
    "garbage", [b"\x30\xff\xff\xff\xff\x01", b"\x30\xff\xff\xff\x7f", b"\x10\x02\x00\x09", b"\x30\x01\x00"]
)
def test_what_is_no_packet_is_said_so(garbage: bytes) -> None:
    with pytest.raises(NotMqtt):
        PacketReader().feed(garbage)


async def test_a_person_is_told_and_asked_in_both_languages() -> None:
    told: list[str] = []
    person = Person(told.append, lambda question: "conformance 5" in question, has_camera=True)
    await person.do(Act.FACE)
    assert "刷脸" in told[0]
    assert "camera" in told[0]
    assert await person.sees("conformance 5") is True
