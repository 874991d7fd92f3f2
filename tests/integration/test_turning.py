"""The turn of the head through a running house: from the terminal's camera to the member on its screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from devices.simulator import SimulatedTerminal
from models.domain.ids import RegionId
from models.domain.liveness import ChallengeMode
from models.domain.screen import ScreenState
from runtime.chain_tables import apply_chain
from runtime.chains import ChainDoc, FacesDoc, LivenessDoc, read_chain
from tests.faces.conftest import LFW10
from tests.integration.house import CHAIN_FILE, House, eventually

pytestmark = pytest.mark.integration

PLAN, STORE = "light-10", "gz-panyu"
TAIL = "4711"
SHOTS, STRAIGHT = ("0004", "0005", "0008"), "0010"
TURNED = {"left": "0003", "right": "0006"}
"""Photographs of one person, as `runtime.photos.photographs_from` sorts them."""


def photograph(number: str) -> bytes:
    return (LFW10 / "Hugo_Chavez" / f"Hugo_Chavez_{number}.jpg").read_bytes()


async def apply(house: House, chain: ChainDoc) -> None:
    """The house's hosts read it with the next terminal that they do not know."""
    async with await psycopg.AsyncConnection.connect(house.plant.database_url, autocommit=True) as conn:
        await apply_chain(conn, chain, RegionId(house.plant.region), "unused")


def searched(house: House) -> int:
    """Templates that the face worker searches."""
    return sum(house.faces_health()["templates"].values())


@asynccontextmanager
async def challenging(house: House) -> AsyncIterator[SimulatedTerminal]:
    """A new terminal while every face that would be accepted is asked to turn."""
    chain = read_chain(CHAIN_FILE)
    asks = FacesDoc(liveness=LivenessDoc(challenge=ChallengeMode.ALWAYS))
    await apply(house, chain.model_copy(update={"faces": asks}))
    try:
        async with house.terminal(STORE, "turning") as camera:
            yield camera
    finally:
        await apply(house, chain)
        async with house.terminal(STORE, "turned"):
            pass


@pytest.mark.skipif(not LFW10.is_dir(), reason="needs real photographs: ../shared/faces/lfw10 beside the project")
async def test_a_member_turns_the_head_and_is_on_the_screen_and_who_cannot_types_digits(house: House) -> None:
    async with challenging(house) as camera:
        await camera.open_session()
        await camera.consent("recognise")
        await camera.consent("membership")
        shots, before = [photograph(number) for number in SHOTS], searched(house)
        member = (await camera.enrol(PLAN, phone=f"1370000{TAIL}", user="turns", shots=shots)).member
        assert member is not None
        await camera.cancel()

        await camera.open_session()
        await camera.consent("recognise")
        await eventually(lambda: searched(house) > before, "the template is searched")
        asked = await camera.show(photograph(STRAIGHT))
        assert asked.prompt is not None
        assert (asked.prompt.code, asked.member) == ("turn_head", None)
        assert asked.prompt.params["direction"] in TURNED
        turned = {side: photograph(number) for side, number in TURNED.items()}
        screen = await camera.show(turned[str(asked.prompt.params["direction"])])
        assert (screen.member, screen.state) == (member, ScreenState.IDENTIFIED)
        await camera.cancel()

        await camera.open_session()
        await camera.consent("recognise")
        assert (await camera.show(photograph(STRAIGHT), turned=turned)).member == member, "in one go"
        await camera.cancel()

        await camera.open_session()
        await camera.consent("recognise")
        still = await camera.show(photograph(STRAIGHT), turned={})
        assert (still.state, still.member) == (ScreenState.DIGITS, None)
        assert (await camera.digits(TAIL)).member == member
        await camera.consent("recognise", granted=False)
        await camera.cancel()
    reasons = house.rows(
        "SELECT outcome, reason, liveness FROM face_decision JOIN terminal t ON t.lane = 'turning'"
        " AND t.store = face_decision.store ORDER BY at"
    )
    assert ("accepted", "clear", "passed") in reasons
    assert ("digits", "liveness_in_doubt", "in_doubt") in reasons
    house.check_books()
