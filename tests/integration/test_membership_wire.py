"""A membership over the wire: enrolled and used at a terminal, then suspended, resumed and cancelled in the house."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from devices.simulator import SimulatedTerminal
from models.domain.membership_actions import Asked, Done
from models.domain.screen import Screen
from runtime.membership_desk import opened
from tests.integration.house import NOODLES, House, storeops, wait_until

STORE = "gz-haizhu"
COUPON = 800


async def shop(terminal: SimulatedTerminal, member: str) -> Screen:
    """A visit with one bowl of noodles, paid in cash by whoever shows the member's card."""
    await terminal.open_session()
    await terminal.identify("card", member)
    await terminal.scan(NOODLES[0])
    return await terminal.pay_cash(2000)


def used(house: House, membership: str) -> list[tuple[Any, ...]]:
    return house.rows(
        "SELECT class, count(*), sum(fen)::bigint FROM usage WHERE membership = %s GROUP BY class", (membership,)
    )


async def test_what_is_done_with_a_membership_shows_at_the_terminals_at_once(house: House) -> None:
    async with opened([house.plant]) as desk, house.terminal(STORE, "wire-life") as terminal:

        async def do(verb: str, by: str = "") -> Done:
            return await desk.do(f"wire-life {verb}", membership, Asked(verb, by), by="test")

        await terminal.open_session()
        await terminal.consent("membership")
        screen = await terminal.enrol("light-10", user="wire-life")
        assert screen.membership is not None
        await terminal.cancel()
        [(membership, member)] = house.rows(
            "SELECT id, member FROM membership WHERE terminal = %s", (str(terminal.agent.config.terminal),)
        )
        paid = await shop(terminal, member)
        assert paid.due_fen == NOODLES[1] - COUPON

        await do("suspend")
        assert (await shop(terminal, member)).due_fen == NOODLES[1], "suspended: the full price"
        await do("resume")
        assert (await shop(terminal, member)).due_fen == NOODLES[1] - COUPON
        # A sale is paid before its use is posted.
        both = [("REGULAR", 2, 2 * COUPON)]
        await asyncio.to_thread(wait_until, lambda: used(house, membership) == both, "both uses are posted")

        told = (await do("cancel", "member")).told
        assert (told["charge_fen"], told["given_up_fen"]) == (1000, 0)
        assert (await shop(terminal, member)).due_fen == NOODLES[1], "over: the full price"
    shown = storeops("membership", "show", membership, "--data", str(house.data))
    assert (shown["state"], shown["used_fen"], shown["due_fen"]) == ("EXPIRED", 2 * COUPON, 1000)
    assert [one["verb"] for one in shown["requests"]] == ["cancel", "resume", "suspend"]
    async with httpx.AsyncClient(base_url=house.plant.gateway_url, timeout=30.0) as stranger:
        answer = await stranger.post(f"/api/v1/memberships/{membership}/actions/suspend", json={})
        assert answer.status_code == 401
