"""The published contract: up to date, valid by the official schema of AsyncAPI, and the same as what the codec does."""

from __future__ import annotations

import ast
import copy
import gzip
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from devices import asyncapi, codec, examples, schema, wire
from devices.profiles import PROFILES
from devices.refusals import Undecodable
from models.domain.ids import TerminalId
from models.domain.texts import prompt, prompt_codes
from runtime import published
from tests.architecture.documents import DOCUMENTS, ROOT, fences
from tests.devices.strategies import document_of
from tests.devices.support import registered

SPEC = Path(__file__).parent / "asyncapi_spec" / "3.0.0.json.gz"
SCHEMAS = schema.components()
QUICK = (Phase.explicit, Phase.generate)
"""Documents are small, and finding a smaller one takes minutes."""
WRITE_AGAIN = "write them again: storeops asyncapi --write docs/wire"


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Of one component."""
    return jsonschema.Draft202012Validator(schema.complete(name, SCHEMAS))


# ---------------------------------------------------------------- the document


def test_what_is_committed_is_what_is_made() -> None:
    made = published.files()
    kept = {
        str(path.relative_to(published.FOLDER)): path.read_text(encoding="utf-8")
        for path in published.FOLDER.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert sorted(kept) == sorted(made), WRITE_AGAIN
    assert [name for name in made if made[name] != kept[name]] == [], WRITE_AGAIN


def test_writing_changes_nothing_the_second_time(tmp_path: Path) -> None:
    assert sorted(published.write(tmp_path)) == sorted(published.files())
    assert published.write(tmp_path) == []


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    """The AsyncAPI Initiative's own schema of AsyncAPI 3.0.0 documents."""
    return jsonschema.Draft7Validator(json.loads(gzip.decompress(SPEC.read_bytes())))


def test_the_document_is_valid_asyncapi(official: jsonschema.Draft7Validator) -> None:
    text = (published.FOLDER / "asyncapi.yaml").read_text(encoding="utf-8")
    assert list(official.iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("asyncapi",), "4.0.0"),
        (("info", "version"), 1),
        (("channels", "up.event", "adress"), "x"),
        (("operations", "sendEvent", "action"), "publish"),
        (("operations", "sendEvent", "bindings", "mqtt", "qos"), 3),
        (("operations", "sendEvent", "bindings", "mqtt", "messageExpiryInterval"), "long"),
        (("components", "messages", "Telemetry", "examples"), "none"),
        (("components", "schemas", "Action", "type"), "text"),
        (("servers", "plain", "protocol"), None),
    ],
)
def test_the_official_schema_sees_what_is_wrong(
    official: jsonschema.Draft7Validator, path: tuple[str, ...], wrong: Any
) -> None:
    document = json.loads(published.as_json(asyncapi.document()))
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = wrong
    assert list(official.iter_errors(document))


def test_every_reference_leads_somewhere() -> None:
    document = json.loads(published.as_json(asyncapi.document()))

    def look(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from look(value)
        elif isinstance(node, list):
            for value in node:
                yield from look(value)

    found = set(look(document))
    assert len(found) > 50
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in place, reference
            place = place[part]


def test_each_file_is_a_json_schema_complete_in_itself() -> None:
    for name in schema.DOCUMENTS:
        found = json.loads((published.FOLDER / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(found)
        assert found["$schema"] == schema.DIALECT
        assert set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(found))) <= {
            f"#/$defs/{one}" for one in found.get("$defs", {})
        }


def test_channels_say_what_is_published() -> None:
    names = {f"{'up' if channel.up else 'down'}/{channel.name.value}" for channel in asyncapi.CHANNELS}
    text = (ROOT / "docs" / "terminal-protocol.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `((?:up|down)/[a-z]+)` \| [^|]+ \| (\d) \| (yes|no) \| ([^|]+) \|", text, re.MULTILINE)
    assert {name for name, *_ in told} == names
    units = {"s": 1, "h": 3600}
    for name, qos, retained, expiry in told:
        channel = next(one for one in asyncapi.CHANNELS if name.endswith(f"/{one.name.value}"))
        assert (channel.qos, channel.retain) == (int(qos), retained == "yes"), name
        seconds = re.search(r"(\d+) (s|h)\b", expiry)
        assert channel.expiry_s == (int(seconds.group(1)) * units[seconds.group(2)] if seconds else None), name


# ---------------------------------------------------------------- closed lists


def test_each_event_type_has_a_struct_and_an_example() -> None:
    for event_type in codec.EVENT_TYPES:
        assert issubclass(schema.body_of(event_type), msgspec.Struct)
        assert event_type in examples.EVENT_BODIES


def test_prompts_have_the_parameters_that_are_published() -> None:
    for code in prompt_codes():
        params = dict.fromkeys(schema.PROMPT_PARAMS.get(code, {}), 1)
        prompt(code, "zh", **params)  # a text that names another parameter raises
        prompt(code, "en", **params)
    for path in (ROOT / "actors").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "prompt" and call.args:
                said = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
                if isinstance(said, str):
                    assert said in prompt_codes(), (path.name, said)
                    given_params = {word.arg for word in call.keywords}
                    assert given_params == set(schema.PROMPT_PARAMS.get(said, {})), (path.name, said)


def test_every_refusal_of_the_actors_is_on_the_list() -> None:
    listed = set(schema.codes()["errors"])
    used = set()
    # What these refuse is said to an operator and to a host, never to a terminal.
    elsewhere = {"terminal.py", "face_worker.py", "settlement_items.py", "rollout_takeover.py"}
    for path in [*(ROOT / "actors").glob("*.py"), ROOT / "runtime" / "engine.py"]:
        if path.name in elsewhere:
            continue
        used |= set(re.findall(r'(?:Refused|refusal|_answer)\(\s*(?:item, )?"([a-z_]+)"', path.read_text("utf-8")))
    assert len(used) > 20
    assert sorted(used - listed) == []


def test_profiles_and_roles_are_the_registrys() -> None:
    lists = schema.codes()
    assert sorted(lists["profiles"]) == sorted(PROFILES)
    assert set(lists["roles"]) == {role for profile in PROFILES.values() for role in profile.roles}


# ---------------------------------------------------------------- examples


def test_examples_are_what_they_are_examples_of() -> None:
    for event_type in codec.EVENT_TYPES:
        document = examples.event(event_type)
        validator("Event").validate(document)
        codec.decode_event(msgspec.json.encode(document), registered())
    for name, document in examples.DOCUMENTS.items():
        validator(name).validate(document)
    codec.decode_presence(msgspec.json.encode(examples.DOCUMENTS["PresenceBirth"]))
    codec.decode_presence(msgspec.json.encode(examples.DOCUMENTS["PresenceDeath"]))
    codec.decode_screen(msgspec.json.encode(examples.DOCUMENTS["ScreenDocument"]))
    codec.decode_reply(msgspec.json.encode(examples.DOCUMENTS["ReplyDocument"]))


def test_the_json_in_the_documents_is_valid() -> None:
    """Every JSON block that shows an event, a screen or a reply, in every document."""
    shown = 0
    for path in DOCUMENTS:
        for block in fences(path.read_text(encoding="utf-8"), "json"):
            document = json.loads(block)
            if not isinstance(document, dict) or document.get("v") != 1:
                continue
            shown += 1
            name = "Event" if "body" in document else "ScreenDocument" if "basket_rev" in document else "ReplyDocument"
            validator(name).validate(document)
    assert shown >= 2


# ---------------------------------------------------------------- the codec says the same

UP: dict[str, Callable[[bytes], object]] = {
    "PresenceBirth": codec.decode_presence,
    "PresenceDeath": codec.decode_presence,
    "ReportedDocument": codec.decode_reported,
    "ResponseDocument": lambda payload: codec.decode_response(payload, b"0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a55"),
    **{f"Event.{name}": lambda payload: codec.decode_event(payload, registered()) for name in codec.EVENT_TYPES},
}


def accepted(name: str, document: Any) -> bool:
    """Whether the codec takes it."""
    try:
        UP[name](json.dumps(document).encode())
    except Undecodable:
        return False
    return True


def moment_exists(document: Any) -> bool:
    """A pattern cannot count days, leap seconds or years before 1 in UTC: those the codec refuses in addition."""
    ts = document.get("ts") if isinstance(document, dict) else None
    if not isinstance(ts, str):
        return True
    try:
        msgspec.convert(ts, wire.Instant, strict=False).utctimetuple()
    except (msgspec.ValidationError, OverflowError):
        return False
    return True


@settings(max_examples=80, deadline=None, phases=QUICK)
@given(name=st.sampled_from(sorted(UP)), data=st.data())
def test_what_the_schema_takes_the_codec_takes(name: str, data: st.DataObject) -> None:
    document = data.draw(document_of(SCHEMAS, name))
    assert not list(validator(name).iter_errors(document)), "the strategy makes valid documents"
    assert accepted(name, document) == moment_exists(document)


@settings(max_examples=150, deadline=None, phases=QUICK)
@given(name=st.sampled_from(sorted(UP)), data=st.data())
def test_a_damaged_document_is_judged_the_same(name: str, data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(document_of(SCHEMAS, name)))
    damage(document, data)
    valid = validator(name).is_valid(document)
    assert accepted(name, document) == (valid and moment_exists(document)), document


def damage(document: Any, data: st.DataObject) -> None:
    """One place: left out, of another type, out of bounds, or a field too many (which is ignored)."""
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        break
    match data.draw(st.integers(0, 5)):
        case 0:
            place.pop(key)
        case 1:
            place[key] = data.draw(st.sampled_from([None, True, "x", "", -1, 2**40, [], {}, "12345", "\u0000", "a\n"]))
        case 2 if isinstance(place, dict):
            place["added later"] = data.draw(st.sampled_from([None, 1, "x", {}]))
        case 3 if isinstance(place[key], str):
            place[key] = place[key] + data.draw(st.sampled_from(["\n", "\u007f", "x" * 600, "0"]))
        case 4 if isinstance(place[key], int) and not isinstance(place[key], bool):
            place[key] = place[key] + data.draw(st.sampled_from([1, -1, 10**12, 0.5]))
        case _:
            place[key] = [place[key]]


def test_user_properties_that_the_schema_takes_the_codec_takes() -> None:
    terminal = registered()
    assert terminal.terminal == TerminalId("t-1")

    @settings(max_examples=30, deadline=None)
    @given(document_of(SCHEMAS, "FaceProperties"))
    def try_one(properties: dict[str, str]) -> None:
        from datetime import UTC, datetime

        codec.decode_face(b"\xff\xd8\xff", properties, terminal, datetime.now(UTC))

    try_one()


def test_what_hosts_send_is_what_is_published() -> None:
    """The other direction: a screen with everything in it, encoded by the host's encoder."""
    document = examples.DOCUMENTS["ScreenDocument"] | {
        "paid": [{"kind": "cash", "fen": 790, "payer_fen": 790, "tendered_fen": 1000, "change_fen": 210}],
        "receipt": {
            "no": "S001-20261122-00017",
            "lines": examples.DOCUMENTS["ScreenDocument"]["lines"],
            "tenders": [{"kind": "cash", "fen": 790}],
            "text": "谢谢惠顾",
            "url": "",
        },
        "prompt": {"code": "scan_qr", "params": {"code_url": "https://qr.example/1", "expires_s": 60}, "text": "…"},
    }
    screen = codec.decode_screen(msgspec.json.encode(document))
    sent = json.loads(codec.encode_screen(screen))
    validator("ScreenDocument").validate(sent)
    assert sent == document
    broken = sent | {"actions": ["dance"]}
    assert not validator("ScreenDocument").is_valid(broken)
    assert not validator("ScreenDocument").is_valid(sent | {"prompt": {"code": "scan_qr", "params": {}, "text": ""}})
