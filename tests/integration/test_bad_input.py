"""What no terminal should send, sent to the real host: answered with a code and what to do, counted, survived."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest

from devices.link import LinkError
from devices.topics import prefix
from models.domain.errors import Refused
from models.domain.face_quality import JPEG_BYTES_MAX
from models.domain.ids import RegionId, StoreId, TerminalId
from runtime.photos import PICTURE, WHEEL, Photographs
from tests.integration.house import WATER, WHEEL_DIR, House
from tests.integration.wire import Reply, Sender, Wire, new_id, open_wire

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REPEAT_S = 1.2
"""Bytes without an id are answered once a second: whoever is not answered sends them again."""


@dataclass(frozen=True)
class Bad:
    """Bytes for one channel, and how they are refused."""

    what: str
    code: str
    payload: bytes
    channel: str = "event"
    properties: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None


def bad_messages(sender: Sender) -> list[Bad]:
    """One of each kind; those that carry a readable id are answered under it."""

    def event(what: str, code: str, envelope: dict[str, Any], *, named: bool = True) -> Bad:
        return Bad(what, code, json.dumps(envelope).encode(), id=envelope["id"] if named else None)

    large = sender.event("scan", {"code": WATER[0], "quantity": 1, "more": "x" * 65 * 1024})
    huge_face, drawing = sender.face(), sender.face()
    broken = {"kind": "cash", "fen": 12.5}
    jpeg = b"\xff\xd8\xff" + os.urandom(JPEG_BYTES_MAX + 20_000)
    return [
        Bad("bytes that are no text", "bad_json", b"\xff\xfe\x00garbage\x80"),
        Bad("half a document", "bad_json", b'{"v":1,"id":'),
        Bad("no object", "bad_json", b"[1,2,3]"),
        Bad("nested without end", "bad_json", b"[" * 30_000),
        event("65 KiB", "too_large", large),
        event("another version", "unsupported_version", sender.event("scan", {}, v=2)),
        event("an unknown type", "unknown_type", sender.event("dance", {})),
        event("a quantity of none", "bad_field", sender.event("scan", {"code": WATER[0], "quantity": 0})),
        event("money that is no integer", "bad_field", sender.event("confirm", {"rev": 1, "tenders": [broken]})),
        event("text with a zero byte", "bad_field", sender.event("scan", {"code": "a\x00b", "quantity": 1})),
        event("an id that is none", "bad_id", sender.event("scan", {}, id="17"), named=False),
        Bad("a face of 212 KiB", "too_large", jpeg, "face", huge_face, huge_face["id"]),
        Bad("a PNG", "not_jpeg", b"\x89PNG\r\n\x1a\n" + bytes(100), "face", drawing, drawing["id"]),
        Bad("a face without properties", "bad_id", b"\xff\xd8\xff\xd9", "face"),
        Bad("a presence that is none", "bad_json", b"hello", "presence"),
        Bad("a response to nothing", "bad_id", b"{}", "response"),
    ]


async def answered(wire: Wire, sender: Sender, bad: Bad) -> Reply:
    """The refusal. Sends again while nothing comes, as the one-a-second rule asks for."""
    for _ in range(10):
        already = len(wire.replies)
        await wire.send(f"{sender.topic}/up/{bad.channel}", bad.payload, bad.properties)
        try:
            return await wire.reply(
                lambda reply: reply.terminal == sender.terminal and reply.id == bad.id, REPEAT_S, after=already
            )
        except TimeoutError:
            continue
    raise AssertionError(f"no answer to {bad.what}")


async def test_every_bad_message_is_answered_with_a_code_and_what_to_do(house: House) -> None:
    sender = Sender(house.plant, await house.register("gz-panyu", "bad"))
    async with open_wire(house.plant) as wire:
        await sender.begin(wire)
        before, pid = house.health(), house.host().pid
        refused = bad_messages(sender)
        for bad in refused:
            # Nobody has to wait for the second of another's.
            spare = sender if bad.id is not None else Sender(house.plant, await house.register("gz-panyu", "bad-too"))
            reply = await answered(wire, spare, bad)
            assert (reply.code, reply.document["ok"]) == (bad.code, False), bad.what
            assert reply.document["error"]["do"], bad.what
            assert reply.document["error"]["message"], bad.what
        # The next customer is served by the same process.
        assert (await sender.ask(wire, sender.event("scan", {"code": WATER[0], "quantity": 1}))).document["ok"]
        after = house.health()
    assert after["undecodable"] - before["undecodable"] >= len(refused)
    assert (after["dead_letters"], after["pid"], house.host().pid) == (before["dead_letters"], pid, pid)
    house.check_books()


async def test_a_terminal_reaches_no_topic_but_its_own(house: House) -> None:
    """The broker's access list first: as another terminal one is not even heard."""
    mine, other = await house.register("gz-panyu", "acl"), await house.register("gz-panyu", "acl")
    victim = Sender(house.plant, other)
    async with open_wire(house.plant) as ear, open_wire(house.plant, mine) as wire:
        await victim.begin(ear)
        before = house.health()
        forged = victim.event("cancel", {})
        with pytest.raises(LinkError):
            await wire.send(victim.up, json.dumps(forged).encode())
        victim.seq -= 1
        # Its own event, sent later, is answered; the forged one never was.
        assert (await victim.ask(ear, victim.event("scan", {"code": WATER[0], "quantity": 1}))).document["ok"]
        assert not [reply for reply in ear.replies if reply.id == forged["id"]]
        assert house.health()["seq_gaps"] == before["seq_gaps"]


async def test_the_host_holds_the_topic_against_the_registry(house: House) -> None:
    """A broker without an access list lets everything through: then the registry decides."""
    access = await house.register("gz-panyu", "moved")
    sender = Sender(house.plant, access)
    async with open_wire(house.plant) as ear, open_wire(house.plant, access) as wire:
        await sender.begin(ear)
        before = house.health()
        region, name = RegionId(house.plant.region), TerminalId(sender.terminal)
        elsewhere = prefix(region, StoreId("gz-tianhe"), name)
        forged = sender.event("cancel", {})
        await wire.send(f"{elsewhere}/up/event", json.dumps(forged).encode())
        refusal = await wire.reply(lambda reply: reply.code == "wrong_store")
        assert refusal.id is None
        assert refusal.document["error"]["do"]

        stranger = prefix(region, StoreId("gz-panyu"), TerminalId("nobody"))
        unknown = sender.event("cancel", {})
        await ear.send(f"{stranger}/up/event", json.dumps(unknown).encode())
        nowhere = sender.topic.replace(sender.topic.split("/")[3], "00" if "/00/" not in sender.topic else "01", 1)
        misplaced = sender.event("cancel", {})
        await ear.send(f"{nowhere}/up/event", json.dumps(misplaced).encode())

        # In the order of the connection, so what came before was dealt with; the visit was not touched.
        assert (await sender.ask(ear, sender.event("scan", {"code": WATER[0], "quantity": 1}))).document["ok"]
        after = house.health()
        unanswered = {forged["id"], unknown["id"], misplaced["id"]}
        assert not [reply for reply in ear.replies if reply.id in unanswered or reply.terminal == "nobody"]
    assert after["wrong_store"] - before["wrong_store"] == 1
    assert after["unknown_terminals"] - before["unknown_terminals"] == 1
    assert after["bad_topics"] - before["bad_topics"] == 1


async def test_a_duplicate_gets_the_same_reply_and_has_no_second_effect(house: House) -> None:
    access = await house.register("gz-panyu", "twice")
    old, new = Sender(house.plant, access), Sender(house.plant, access)
    async with open_wire(house.plant) as wire:
        await old.begin(wire)
        scan = old.event("scan", {"code": WATER[0], "quantity": 1})
        first = await old.ask(wire, scan)
        assert first.document["ok"]
        duplicates = house.health()["duplicates"]
        assert (await old.ask(wire, scan)).payload == first.payload
        # A refusal is an answer too.
        wrong = old.event("scan", {"code": "no such code", "quantity": 1})
        refused = await old.ask(wire, wrong)
        assert refused.code == "unknown_item"
        assert (await old.ask(wire, wrong)).payload == refused.payload

        # The terminal starts again; what it sent before comes once more, late.
        assert (await new.ask(wire, new.event("scan", {"code": WATER[0], "quantity": 1}))).document["ok"]
        assert (await old.ask(wire, scan)).payload == first.payload
        assert house.health()["duplicates"] - duplicates == 3
    [(lines,)] = house.rows("SELECT state->'lines' FROM entity WHERE kind = 'session' AND id = 'twice'")
    assert [(line["code"], line["quantity"]) for line in lines] == [(WATER[0], 2)]


async def test_an_id_or_a_number_that_was_used_for_something_else_is_a_conflict(house: House) -> None:
    sender = Sender(house.plant, await house.register("gz-panyu", "conflict"))
    async with open_wire(house.plant) as wire:
        await sender.begin(wire)
        scan = sender.event("scan", {"code": WATER[0], "quantity": 1})
        assert (await sender.ask(wire, scan)).document["ok"]
        same_id = await sender.ask(wire, {**scan, "seq": scan["seq"] + 1})
        assert (same_id.code, same_id.document["error"]["do"] != "") == ("id_conflict", True)
        same_seq = await sender.ask(wire, {**scan, "id": new_id()})
        assert same_seq.code == "id_conflict"
    [(lines,)] = house.rows("SELECT state->'lines' FROM entity WHERE kind = 'session' AND id = 'conflict'")
    assert [line["quantity"] for line in lines] == [1]


# ---------------------------------------------------------------- photographs


def jpeg_of(pixels: Any, quality: int = 85) -> bytes:
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return encoded.tobytes()


def pixels_of(jpeg: bytes) -> Any:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


def group_photograph() -> bytes:
    """Six people, small enough for the wire."""
    with zipfile.ZipFile(WHEEL_DIR / WHEEL) as archive:
        jpeg = jpeg_of(pixels_of(archive.read(PICTURE)), 70)
    assert len(jpeg) <= JPEG_BYTES_MAX
    return jpeg


async def test_a_photograph_that_shows_nobody_or_too_many_gets_the_right_prompt(
    house: House, people: Photographs
) -> None:
    portrait = people.members[0].probes[0].read_bytes()
    wall = cv2.GaussianBlur(np.random.default_rng(1).integers(80, 180, (480, 640, 3), np.uint8), (0, 0), 9)
    before, worker = house.faces_health()["answers"], house.face_worker().pid
    async with house.terminal("gz-panyu", "photographs") as camera:
        await camera.open_session()
        with pytest.raises(Refused) as early:
            await camera.show(portrait)
        assert early.value.code == "consent_missing"
        await camera.consent("recognise")
        for photograph, prompt in (
            (jpeg_of(wall), "come_closer"),
            (group_photograph(), "several_faces"),
            (jpeg_of((pixels_of(portrait) * 0.04).astype(np.uint8)), "more_light"),
            (portrait, "not_recognised"),
        ):
            screen = await camera.show(photograph)
            assert screen.prompt is not None
            assert (screen.prompt.code, screen.state.value, screen.member) == (prompt, "open", None)
            assert screen.prompt.text
        after = house.faces_health()["answers"]
        assert sum(after.values()) - sum(before.values()) == 4
    assert house.face_worker().pid == worker
    house.check_books()


async def test_a_damaged_photograph_is_refused_and_the_next_one_is_seen(house: House, people: Photographs) -> None:
    portrait = people.members[0].probes[0].read_bytes()
    async with house.terminal("gz-panyu", "damaged") as camera:
        await camera.open_session()
        await camera.consent("recognise")
        for damaged in (portrait[: len(portrait) // 8], b"\xff\xd8\xff" + bytes(range(256)) * 40):
            reply = await camera.agent.show_face(damaged, camera.session)
            assert reply.error is not None
            assert reply.error.code == "bad_image"
            assert reply.error.do
        png = cv2.imencode(".png", pixels_of(portrait)[::4, ::4])[1].tobytes()
        drawing = await camera.agent.show_face(png, camera.session)
        assert drawing.error is not None
        assert drawing.error.code == "not_jpeg"
        screen = await camera.show(portrait)
        assert screen.prompt is not None
        assert screen.prompt.code == "not_recognised"
    house.check_books()
