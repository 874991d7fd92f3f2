"""The published terminal contract as JSON Schemas (2020-12), generated from the Structs that the codec decodes with.

Nothing is written twice: a field added to `devices.wire` is in the schema, a code added to the lists of texts is in
the closed lists. `devices.asyncapi` puts channels and operations around them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from devices import wire
from devices.codec import EVENT_TYPES
from devices.profiles import PROFILES
from devices.refusals import WireCode
from models.domain.events import Purpose, TenderKind
from models.domain.pricing import Flag
from models.domain.screen import ScreenState
from models.domain.texts import prompt_codes, refusal_codes
from models.domain.twin import VERBS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
URN = "urn:storeops:terminal-protocol:1:"
PROMPT_PARAMS: Mapping[str, Mapping[str, Schema]] = {
    "look_at_camera": {"shot": {"type": "integer", "minimum": 1}, "of": {"type": "integer", "minimum": 1}},
    "turn_head": {"direction": {"enum": ["left", "right"], "description": "The customer's own left or right."}},
    "scan_qr": {
        "code_url": {"type": "string", "description": "Draw it as a QR code."},
        "expires_s": {"type": "integer", "minimum": 0},
    },
    "scan_to_agree": {
        "code_url": {"type": "string", "description": "Draw it as a QR code."},
        "expires_s": {"type": "integer", "minimum": 0},
    },
    "returned": {
        "back": {"type": "string", "description": "Yuan that go back, as printed."},
        "cash": {"type": "string", "description": "How much of it is cash."},
    },
    "voucher_added": {
        "name": {"type": "string", "description": "The voucher's name, in the chain's language."},
        "saves": {"type": "string", "description": "Yuan that it takes off, as printed."},
    },
    "voucher_waits": {
        "name": {"type": "string", "description": "The voucher's name, in the chain's language."},
        "why": {"type": "string", "description": "Why it takes nothing off yet, in the chain's language."},
    },
}
"""The parameters of prompts; a prompt that is not named here has none."""

_DOWN = ("ReplyDocument", "ScreenDocument", "DesiredDocument", "CommandDocument")
_DATE_TIME = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$"


def codes() -> Schema:
    """Every closed list of the protocol, sorted. Codes may be added within version 1, never removed or renamed."""
    return {
        "errors": sorted({*refusal_codes(), *(code.value for code in WireCode)}),
        "prompts": {code: sorted(PROMPT_PARAMS.get(code, {})) for code in sorted(prompt_codes())},
        "actions": sorted({*EVENT_TYPES, "face"}),
        "event_types": sorted(EVENT_TYPES),
        "states": [state.value for state in ScreenState],
        "tenders": [kind.value for kind in TenderKind],
        "purposes": [purpose.value for purpose in Purpose],
        "flags": sorted(flag.value for flag in Flag),
        "commands": sorted(VERBS),
        "roles": sorted({role for profile in PROFILES.values() for role in profile.roles}),
        "profiles": {
            name: {
                field: getattr(profile, field)
                for field in profile.__dataclass_fields__
                if field != "name" and not callable(getattr(profile, field))
            }
            for name, profile in sorted(PROFILES.items())
        },
    }


def body_of(event_type: str) -> type[msgspec.Struct]:
    """The Struct of an event's body, by its name: `session.open` is SessionOpenBody."""
    words = event_type.replace(".", "_").split("_")
    found: type[msgspec.Struct] = getattr(wire, "".join(word.capitalize() for word in words) + "Body")
    return found


def components() -> dict[str, Schema]:
    """All schemas by name; references are `#/components/schemas/NAME`."""
    structs = [
        one
        for _, one in inspect.getmembers(wire, inspect.isclass)
        if issubclass(one, msgspec.Struct) and one.__module__ == wire.__name__
    ]
    _, made = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    schemas: dict[str, Schema] = dict(sorted(made.items()))
    for struct in structs:
        _mend_unset(struct, schemas.get(struct.__name__, {}))
    for name in _DOWN:
        schemas[name]["properties"]["v"] = {"const": wire.VERSION}
    _close_lists(schemas)
    _split_presence(schemas)
    envelope = schemas.pop("Envelope")
    schemas.pop("EnvelopeHead", None)
    for event_type in EVENT_TYPES:
        schemas[f"Event.{event_type}"] = _event(envelope, event_type)
    schemas["Event"] = {
        "title": "Event",
        "description": "`up/event`: one of the types.",
        "oneOf": [_ref(f"Event.{event_type}") for event_type in EVENT_TYPES],
    }
    schemas["FaceProperties"] = _as_strings(schemas["FaceProperties"])
    schemas["Telemetry"] = {
        "title": "Telemetry",
        "type": "object",
        "description": "`up/telemetry`: losable metrics of the device, free-form.",
    }
    return {name: _mend_times(schema) for name, schema in sorted(schemas.items())}


DOCUMENTS: Mapping[str, str] = {
    "presence-birth": "PresenceBirth",
    "presence-death": "PresenceDeath",
    "reported": "ReportedDocument",
    "event": "Event",
    "face-properties": "FaceProperties",
    "telemetry": "Telemetry",
    "response": "ResponseDocument",
    "desired": "DesiredDocument",
    "screen": "ScreenDocument",
    "reply": "ReplyDocument",
    "command": "CommandDocument",
}
"""What is published as a file of its own: file name without `.json` -> schema."""


def document_schema(name: str, schemas: Mapping[str, Schema] | None = None) -> Schema:
    """One document's schema, complete in itself."""
    schemas = components() if schemas is None else schemas
    return {"$schema": DIALECT, "$id": f"{URN}{name}", **complete(DOCUMENTS[name], schemas)}


def complete(root: str, schemas: Mapping[str, Schema]) -> Schema:
    """A component with everything that it refers to below `$defs`."""
    defs = {other: _local(schemas[other]) for other in sorted(_reachable(root, schemas) - {root})}
    schema: Schema = _local(schemas[root])
    return {**schema, "$defs": defs} if defs else schema


# ---------------------------------------------------------------- refinements


def _event(envelope: Schema, event_type: str) -> Schema:
    schema = copy.deepcopy(envelope)
    schema["title"] = f"Event.{event_type}"
    schema["properties"]["type"] = {"const": event_type}
    schema["properties"]["body"] = _ref(body_of(event_type).__name__)
    return schema


def _split_presence(schemas: dict[str, Schema]) -> None:
    """A birth must say everything; the Will only which connection died."""
    both = schemas.pop("PresenceDocument")
    birth, death = copy.deepcopy(both), copy.deepcopy(both)
    birth |= {"title": "PresenceBirth", "description": "`up/presence` of a terminal that has connected."}
    birth["required"] = ["v", "online", "boot", "conn", "software", "profile", "ts"]
    for name in ("software", "profile", "ts"):
        birth["properties"][name] = _without_null(birth["properties"][name])
        death["properties"].pop(name)
    death |= {"title": "PresenceDeath", "description": "`up/presence` as the Will of connection `conn`."}
    birth["properties"]["online"] = {"const": True}
    death["properties"]["online"] = {"const": False}
    schemas |= {"PresenceBirth": birth, "PresenceDeath": death}


def _close_lists(schemas: dict[str, Schema]) -> None:
    """Where a host writes a code, the schema says which codes there are."""
    lists = codes()
    schemas["ErrorCode"] = {"title": "ErrorCode", "description": "Codes may be added.", "enum": lists["errors"]}
    schemas["Action"] = {"title": "Action", "description": "What is allowed now.", "enum": lists["actions"]}
    schemas["ReplyError"]["properties"]["code"] = _ref("ErrorCode")
    schemas["ScreenDocument"]["properties"]["actions"]["items"] = _ref("Action")
    schemas["CommandDocument"]["properties"]["verb"] = {"enum": lists["commands"]}
    prompt = schemas["Prompt"]
    prompt["properties"]["code"] = {"enum": sorted(prompt_codes())}
    prompt["allOf"] = [
        {
            "if": {"properties": {"code": {"const": code}}, "required": ["code"]},
            "then": {
                "properties": {"params": {"properties": dict(params), "required": sorted(params)}},
                "required": ["params"],
            },
        }
        for code, params in PROMPT_PARAMS.items()
    ]


def _as_strings(schema: Schema) -> Schema:
    """User properties are strings on the wire, numbers included."""
    schema = copy.deepcopy(schema)
    for name, field in schema["properties"].items():
        plain = _without_null(field)
        kind = plain.get("type")
        if kind == "integer":
            plain = {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}
        elif kind == "number":
            plain = {"type": "string", "pattern": r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$"}
        schema["properties"][name] = plain
    return schema


def _without_null(field: Schema) -> Schema:
    if "anyOf" not in field:
        return field
    kept = [one for one in field["anyOf"] if one != {"type": "null"}]
    assert len(kept) == 1, field
    return dict(kept[0])


def _mend_unset(struct: type[msgspec.Struct], schema: Schema) -> None:
    """A field that may be UNSET may be absent, default or not."""
    hints = msgspec.inspect.type_info(struct)
    assert isinstance(hints, msgspec.inspect.StructType)
    for field in hints.fields:
        unset = "UnsetType" in str(struct.__annotations__.get(field.name, ""))
        if unset and field.encode_name in schema.get("required", []):
            schema["required"].remove(field.encode_name)


def _mend_times(schema: Any) -> Any:
    """`format` asserts nothing by itself; a moment without an offset is refused, so the pattern says so."""
    if isinstance(schema, list):
        return [_mend_times(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    mended = {key: _mend_times(value) for key, value in schema.items()}
    return {**mended, "pattern": _DATE_TIME} if mended.get("format") == "date-time" else mended


# ---------------------------------------------------------------- references

_COMPONENT = "#/components/schemas/"


def _ref(name: str) -> Schema:
    return {"$ref": _COMPONENT + name}


def references(schema: Any) -> set[str]:
    """Names of the components that a schema refers to, directly."""
    if isinstance(schema, list):
        return {name for one in schema for name in references(one)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].removeprefix(_COMPONENT)} if isinstance(schema.get("$ref"), str) else set()
    return own | {name for value in schema.values() for name in references(value)}


def _reachable(root: str, schemas: Mapping[str, Schema]) -> set[str]:
    found, open_ = {root}, [root]
    while open_:
        for name in references(schemas[open_.pop()]) - found:
            found.add(name)
            open_.append(name)
    return found


def _local(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_local(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: "#/$defs/" + value.removeprefix(_COMPONENT) if key == "$ref" and isinstance(value, str) else _local(value)
        for key, value in schema.items()
    }
