"""The terminal protocol as an AsyncAPI 3.0 document: channels, operations, messages and MQTT bindings.

Seen from the terminal: it sends `up/…` and receives `down/…`. Schemas come from devices.schema, QoS, retain and
expiry from the constants that host and agent publish with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devices import examples, wire
from devices.agent_config import WILL_DELAY_S
from devices.bridge import COMMAND_DEADLINE_S_MAX, REPLY_EXPIRY_S, SCREEN_EXPIRY_S
from devices.codec import EVENT_TYPES
from devices.duties import RESPONSE_EXPIRY_S
from devices.schema import codes, components
from devices.sending import EVENT_EXPIRY_S, FACE_EXPIRY_S, TELEMETRY_EXPIRY_S
from devices.topics import ROOT, Down, Up

PROTOCOL_VERSION = "1.0.0"
_BINDING = "0.2.0"
_LEVEL = "^[a-z0-9-]{1,48}$"
_UUID_BYTES = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}


@dataclass(frozen=True, slots=True)
class Channel:
    """How one channel is used. `expiry_s` None: does not expire."""

    name: Up | Down
    summary: str
    qos: int
    retain: bool
    expiry_s: int | None
    schemas: tuple[str, ...]

    @property
    def up(self) -> bool:
        """The terminal writes it."""
        return isinstance(self.name, Up)


CHANNELS = (
    Channel(
        Up.PRESENCE,
        f"Birth after each connect; the Will, delayed {WILL_DELAY_S} s, names the same connection.",
        1,
        True,
        None,
        ("PresenceBirth", "PresenceDeath"),
    ),
    Channel(Up.REPORTED, "What the terminal runs and has applied.", 1, True, None, ("ReportedDocument",)),
    Channel(
        Up.EVENT,
        "What a customer, clerk or till did. Keep it until its reply, send the same bytes again.",
        1,
        False,
        EVENT_EXPIRY_S,
        tuple(f"Event.{event_type}" for event_type in EVENT_TYPES),
    ),
    Channel(
        Up.FACE,
        f"One JPEG of at most {wire.FACE_BYTES_MAX} bytes after a customer's action; its envelope is in the user "
        "properties. Never stored.",
        1,
        False,
        FACE_EXPIRY_S,
        ("Face",),
    ),
    Channel(Up.TELEMETRY, "Losable metrics of the device.", 0, False, TELEMETRY_EXPIRY_S, ("Telemetry",)),
    Channel(
        Up.RESPONSE,
        "The answer to a command, under the command's correlation data.",
        1,
        False,
        RESPONSE_EXPIRY_S,
        ("ResponseDocument",),
    ),
    Channel(
        Down.DESIRED,
        "The whole configuration and software that the terminal should run; a gen <= the applied one is ignored.",
        1,
        True,
        None,
        ("DesiredDocument",),
    ),
    Channel(
        Down.SCREEN,
        "What to show: the whole document. Compare (session, rev).",
        1,
        False,
        SCREEN_EXPIRY_S,
        ("ScreenDocument",),
    ),
    Channel(
        Down.REPLY,
        "The one answer to one event or face; correlation data = its id.",
        1,
        False,
        REPLY_EXPIRY_S,
        ("ReplyDocument",),
    ),
    Channel(
        Down.COMMAND,
        "Something to do before it expires. Its Response Topic is inside the terminal's own up/, or it is ignored.",
        1,
        False,
        COMMAND_DEADLINE_S_MAX,
        ("CommandDocument",),
    ),
)
"""Every channel of version 1."""


def document() -> dict[str, Any]:
    """The whole AsyncAPI 3.0 document, plain values only."""
    schemas = components()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:storeops:terminal-protocol:1",
        "info": {
            "title": "storeops terminal protocol",
            "version": PROTOCOL_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": "mqtt5"}, {"name": "retail"}],
        },
        "defaultContentType": "application/json",
        "servers": {"plain": _server("mqtt", "1883"), "tls": _server("secure-mqtt", "8883")},
        "channels": {_key(channel): _channel(channel) for channel in CHANNELS},
        "operations": {_operation_name(channel): _operation(channel) for channel in CHANNELS},
        "components": {
            "schemas": schemas,
            "messages": {name: _message(name, channel) for channel in CHANNELS for name in channel.schemas},
            "parameters": _PARAMETERS,
            "securitySchemes": {
                "terminal": {
                    "type": "userPassword",
                    "description": "User name = terminal id, password = the secret that registration gave once.",
                }
            },
        },
        "x-codes": codes(),
        "x-limits": {
            "event_bytes_max": wire.EVENT_BYTES_MAX,
            "face_bytes_max": wire.FACE_BYTES_MAX,
            "will_delay_s": WILL_DELAY_S,
        },
    }


_DESCRIPTION = """\
MQTT 5. A terminal of a lane sends what happened (`up/event`, `up/face`), gets exactly one reply for each, and shows
the screen document it is sent. QoS 2 is not used. PUBACK means that the broker has it and nothing more: keep an event
until its reply and send the same bytes again after 5 s (doubling to 60 s) and after every reconnect. Fields, codes and
event types may be added within version 1; ignore fields that you do not know, show the text of a prompt that you do
not know. `x-codes` are the closed lists."""

_PARAMETERS = {
    name: {"description": text}
    for name, text in {
        "region": f"The region of the store: {_LEVEL}.",
        "shard": "The first byte of sha256(store id, UTF-8) as two lower-case hex digits.",
        "store": f"The store: {_LEVEL}.",
        "terminal": f"The terminal's own id: {_LEVEL}.",
    }.items()
}


def _key(channel: Channel) -> str:
    return f"{'up' if channel.up else 'down'}.{channel.name.value}"


def _address(channel: Channel) -> str:
    way = "up" if channel.up else "down"
    return f"{ROOT}/{{region}}/{{shard}}/{{store}}/{{terminal}}/{way}/{channel.name.value}"


def _server(protocol: str, port: str) -> dict[str, Any]:
    will = "so/1/{region}/{shard}/{store}/{terminal}/up/presence"
    return {
        "host": "{broker}",
        "variables": {"broker": {"default": f"localhost:{port}", "description": "Given at registration."}},
        "protocol": protocol,
        "protocolVersion": "5",
        "security": [{"$ref": "#/components/securitySchemes/terminal"}],
        "bindings": {
            "mqtt": {
                "clientId": "{terminal}",
                "cleanSession": False,
                "keepAlive": 30,
                "sessionExpiryInterval": 3600,
                "lastWill": {"topic": will, "qos": 1, "retain": True, "message": "PresenceDeath"},
                "bindingVersion": _BINDING,
            }
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "address": _address(channel),
        "description": channel.summary,
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.schemas},
    }


def _operation_name(channel: Channel) -> str:
    return ("send" if channel.up else "receive") + channel.name.value.capitalize()


def _operation(channel: Channel) -> dict[str, Any]:
    binding: dict[str, Any] = {"qos": channel.qos, "retain": channel.retain, "bindingVersion": _BINDING}
    if channel.expiry_s is not None:
        binding["messageExpiryInterval"] = channel.expiry_s
    operation: dict[str, Any] = {
        "action": "send" if channel.up else "receive",
        "channel": {"$ref": f"#/channels/{_key(channel)}"},
        "summary": channel.summary,
        "bindings": {"mqtt": binding},
    }
    answer = {Up.EVENT: "down.reply", Up.FACE: "down.reply", Down.COMMAND: "up.response"}.get(channel.name)
    if answer is not None:
        operation["reply"] = {"channel": {"$ref": f"#/channels/{answer}"}}
    return operation


def _message(name: str, channel: Channel) -> dict[str, Any]:
    message: dict[str, Any] = {"name": name, "title": name, "contentType": "application/json"}
    if name == "Face":
        jpeg = {"type": "string", "format": "binary", "maxLength": wire.FACE_BYTES_MAX}
        return {
            **message,
            "contentType": "image/jpeg",
            "headers": {"$ref": "#/components/schemas/FaceProperties"},
            "payload": jpeg,
            "description": "The headers are MQTT 5 user properties.",
        }
    message["payload"] = {"$ref": f"#/components/schemas/{name}"}
    if channel.name in (Down.REPLY, Down.COMMAND, Up.RESPONSE):
        message["bindings"] = {"mqtt": {"correlationData": _UUID_BYTES, "bindingVersion": _BINDING}}
    example = examples.event(name.removeprefix("Event.")) if name.startswith("Event.") else examples.DOCUMENTS[name]
    message["examples"] = [{"name": "example", "payload": example}]
    return message
