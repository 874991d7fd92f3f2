"""Signed liveness through a running house: a key is registered, from then on only what it signed is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from devices.liveness import LivenessKey, fingerprint, show_public_key
from devices.simulator import SimulatedTerminal
from runtime import following
from tests.faces.conftest import LFW10
from tests.integration.house import PAUSE, House, eventually, storeops

pytestmark = pytest.mark.integration

STORE = "gz-panyu"
PICTURE = LFW10 / "Gerhard_Schroeder" / "Gerhard_Schroeder_0001.jpg"


def decisions(house: House, session: str) -> list[tuple[Any, ...]]:
    """(device_score, liveness, reason) of a visit's decisions."""
    return house.rows(
        "SELECT device_score, liveness, reason FROM face_decision WHERE session = %s ORDER BY at, id", (session,)
    )


def sign_with(camera: SimulatedTerminal, key: LivenessKey | None) -> None:
    camera.agent.config = replace(camera.agent.config, liveness_key=key)


async def until_read(look: Callable[[], Awaitable[str]], score: str) -> None:
    """The host reads the registry within seconds of a change."""
    for _ in range(60):
        if await look() == score:
            return
        await asyncio.to_thread(PAUSE.wait, 0.25)
    raise AssertionError(f"never {score}")


@pytest.mark.skipif(not PICTURE.is_file(), reason="needs real photographs: ../shared/faces/lfw10 beside the project")
async def test_from_its_registration_on_a_key_must_have_signed_what_is_read(house: House) -> None:
    key, other = LivenessKey.make(), LivenessKey.make()
    async with house.terminal(STORE, "depth") as camera:
        terminal, data = str(camera.agent.config.terminal), ("--data", str(house.data))
        visits: list[str] = []

        async def look(score: float = 0.95) -> str:
            camera.liveness = score
            visits.append((await camera.open_session()).session)
            await camera.consent("recognise")
            await camera.show(PICTURE.read_bytes())
            await eventually(lambda: decisions(house, visits[-1]), "the decision is written")
            return str(decisions(house, visits[-1])[0][0])

        sign_with(camera, key)
        assert await look() == "unsigned", "no key is registered: the family's word"
        public = show_public_key(key.public)
        [registered] = storeops("terminal", "liveness-key", "register", terminal, public, *data)["keys"]
        assert (registered["added"], registered["told"], registered["error"]) == (fingerprint(key.public), True, "")
        await until_read(look, "signed")
        assert await look(0.05) == "signed"
        assert decisions(house, visits[-1])[0][1:] == ("failed", "liveness_failed"), "a signed veto"
        sign_with(camera, None)
        assert await look(0.05) == "ignored_unsigned"
        assert decisions(house, visits[-1])[0][1] == "not_checked"
        sign_with(camera, other)
        assert await look() == "ignored_bad_signature"
        found = following.as_document(await following.trace(house.plant.database_url, visits[-1]))
        [told] = [step for step in found["steps"] if step["table"] == "face_decision"]
        assert told["device_score"] == "ignored_bad_signature"
        assert told["what"].endswith("score ignored_bad_signature")
        health, answers = house.health(), house.faces_health()["answers"]
        assert all(health[f"scores_{one}"] for one in ("signed", "not_signed", "badly_signed"))
        assert all(answers[f"liveness:score_{one}"] for one in ("signed", "ignored_unsigned", "ignored_bad_signature"))
    kinds = house.rows("SELECT kind FROM audit_event WHERE subject = %s ORDER BY n", (terminal,))
    assert kinds == [("liveness_key.registered",)]
