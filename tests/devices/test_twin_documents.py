"""What terminals say of themselves: bounded, of version 1, and never more than a database can keep."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devices import codec, wire
from devices.refusals import Undecodable, WireCode

BOOT = "5f0c6a1e-2b47-4c1e-8f7d-3a9b6c5d4e21"
COMMAND = "0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a55"


def reported(**more: Any) -> bytes:
    document = {"v": 1, "applied_gen": 3, "config_hash": "x", "software": "1", "boot": BOOT, **more}
    return json.dumps(document).encode()


def test_health_is_kept_while_it_is_small() -> None:
    assert codec.decode_reported(reported()).health == ""
    assert codec.decode_reported(reported(health={"disk_free_mb": 5})).health == '{"disk_free_mb":5}'
    assert codec.decode_reported(reported(health={"log": "x" * wire.HEALTH_BYTES_MAX})).health == ""
    assert codec.decode_reported(reported(something_new=[1])).applied_gen == 3  # unknown fields are ignored


def test_telemetry_is_one_object_of_the_terminals_own() -> None:
    assert codec.decode_telemetry(b'{"cpu_percent":12}') == {"cpu_percent": 12}
    assert codec.decode_telemetry(b'{"v":1,"a":{"b":[1]}}') == {"v": 1, "a": {"b": [1]}}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"[1]", WireCode.BAD_JSON),
        (b"{", WireCode.BAD_JSON),
        (b'{"v":2}', WireCode.UNSUPPORTED_VERSION),
        (b'{"a":"\\u0000"}', WireCode.BAD_FIELD),
        (b'{"a":"' + b"x" * wire.TELEMETRY_BYTES_MAX + b'"}', WireCode.TOO_LARGE),
        (b'{"a":' * 600, WireCode.BAD_JSON),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", WireCode.BAD_FIELD),
        (b'{"a":' + b"[" * wire.TELEMETRY_LEVELS_MAX + b"]" * wire.TELEMETRY_LEVELS_MAX + b"}", WireCode.BAD_FIELD),
    ],
)
def test_telemetry_that_is_refused(payload: bytes, code: WireCode) -> None:
    with pytest.raises(Undecodable) as refused:
        codec.decode_telemetry(payload)
    assert refused.value.code == code


@pytest.mark.parametrize("decode", [codec.decode_presence, codec.decode_reported])
def test_another_version_is_named(decode: Any) -> None:
    payload = reported(v=2, online=True, conn=BOOT, profile="till", ts="2026-05-01T02:00:00Z")
    with pytest.raises(Undecodable) as refused:
        decode(payload)
    assert refused.value.code == WireCode.UNSUPPORTED_VERSION


def test_the_detail_of_an_answer_has_no_character_that_a_database_refuses() -> None:
    answer = codec.decode_response(b'{"v":1,"status":"failed","detail":"a\\u0000b"}', COMMAND.encode())
    assert (answer.command, answer.detail) == (COMMAND, "ab")
