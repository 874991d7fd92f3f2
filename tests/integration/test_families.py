"""Several families of hardware in one lane show one session; a terminal that sold alone is booked once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from devices.agent_config import AgentConfig
from devices.offline_desk import OfflineDesk
from devices.profiles import PROFILES, Role
from devices.profiles.fitting import views
from devices.simulator import SimulatedTerminal
from devices.terminal import wall_now
from devices.topics import Up
from models.domain.errors import Refused
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.screen import ScreenState
from runtime import administration
from tests.integration.house import NOODLES, WATER, House, PatientUsers, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
STORE = "gz-tianhe"


@asynccontextmanager
async def standing(house: House, lane: str, role: str, profile: str) -> AsyncIterator[SimulatedTerminal]:
    """A new terminal of that family, connected and told what it should run."""
    name = f"{STORE}-{lane}-{profile}"
    added = await administration.add_terminal(house.plant, STORE, lane, role, profile, name)
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
        users = PatientUsers(http, house.plant.provider_url)
        terminal = SimulatedTerminal.of(config_of(house, profile, added), users)
        await terminal.agent.start(30.0)
        try:
            await eventually(lambda: terminal.agent.desired, f"the desired document of {name}")
            yield terminal
        finally:
            await terminal.agent.stop()


def config_of(house: House, profile: str, added: dict[str, Any]) -> AgentConfig:
    name = str(added["username"])
    return AgentConfig(
        host=house.plant.broker_host,
        port=house.plant.broker_port,
        region=RegionId(house.plant.region),
        store=StoreId(STORE),
        terminal=TerminalId(name),
        profile=profile,
        secret=str(added["secret"]),
        outbox_path=house.folder / f"{name}.sqlite",
        resend_first_s=1.0,
        reconnect_s_min=0.2,
        reconnect_s_max=1.0,
    )


async def test_three_families_in_one_lane_show_one_session(house: House) -> None:
    async with AsyncExitStack() as lane:
        plus, till, display = [
            await lane.enter_async_context(standing(house, "families", role, profile))
            for role, profile in (("face", "dragonfly-plus"), ("till", "till"), ("customer", "dragonfly-extension"))
        ]
        await plus.open_session()
        await plus.scan(NOODLES[0])
        quoted = await plus.scan(WATER[0], 2)
        seen = [await one.agent.wait_screen(lambda s: s.rev == quoted.rev) for one in (plus, till, display)]
        assert {(one.session, one.rev, one.state, one.due_fen) for one in seen} == {
            (quoted.session, quoted.rev, ScreenState.QUOTED, 1990)
        }
        assert [len(one.lines) for one in seen] == [2, 2, 0], "the display has no lines of its own"
        at_plus, at_till, at_display = (set(one.actions) for one in seen)
        assert "confirm" in at_plus & at_till & at_display
        assert "scan" not in at_display
        assert "face" not in at_till
        both = views(seen[0], PROFILES["dragonfly-plus"])
        assert both[Role.CUSTOMER].due_fen == both[Role.CLERK].due_fen == 1990

        # The till scans into the same basket, and the customer pays at the terminal.
        await till.join()
        more = await till.scan(WATER[0])
        await plus.agent.wait_screen(lambda s: s.rev == more.rev)
        done = await plus.pay_cash(2200)
        assert done.receipt is not None
        for one in (till, display):
            shown = await one.agent.wait_screen(lambda s: s.session == done.session and s.state is ScreenState.PAID)
            assert (shown.due_fen, shown.receipt) == (2190, done.receipt)
    assert len(house.rows("SELECT 1 FROM sale WHERE receipt = %s", (done.receipt.no,))) == 1


async def test_a_family_is_not_registered_for_what_it_cannot_do(house: House) -> None:
    with pytest.raises(Refused) as caught:
        await administration.add_terminal(house.plant, STORE, "families", "till", "parking", None)
    assert caught.value.code == "unfit_role"


async def test_what_was_sold_with_the_cable_pulled_is_booked_once(house: House) -> None:
    async with standing(house, "alone", "till", "till") as terminal:
        agent = terminal.agent
        desk = OfflineDesk(agent)
        await desk.take_prices(agent.desired)
        # A member is enrolled and a use of the benefit is leased while there is a network.
        await terminal.open_session()
        await terminal.consent("membership")
        member = await terminal.enrol("light-10", user="offline-lessee")
        assert member.membership is not None
        lease = await desk.lease("coupon8", 2, terminal.session, "lessee")
        assert lease.until > wall_now() + timedelta(minutes=1)
        await terminal.cancel()

        agent.drop()
        await agent.gone()
        desk.till = desk.till.scan(NOODLES[0]).give("lessee", wall_now())
        await desk.sell("cash", tendered_fen=1000)
        desk.till = desk.till.scan(WATER[0], 3)
        await desk.sell("card")
        entries = agent.outbox.entries()
        assert len(entries) == 2
        agent.restore()
        await eventually(lambda: not agent.outbox.entries(), "every sale has its reply")
        # A host that is asked again, by the same bytes, books nothing twice.
        for entry in entries:
            await agent.publish(Up.EVENT, entry.payload)
        await desk.give_back()
        await eventually(lambda: not agent.outbox.entries(), "the lease's end has its reply")
        assert (await agent.request("session.open")).ok
        await terminal.agent.request("cancel")
    query = "SELECT id, due_fen, discount_fen, uses, suspense_fen FROM sale WHERE terminal = %s ORDER BY at"
    sales = house.documents(query, (f"{STORE}-alone-till",))
    assert [(one["due_fen"], one["discount_fen"], one["suspense_fen"]) for one in sales] == [(790, 800, 0), (600, 0, 0)]
    assert [use["lease"] for use in sales[0]["uses"]] == [lease.id]
    for sale in sales:
        assert sum(house.ledger_of(sale["id"]).values()) == 0
    await eventually(
        lambda: house.rows("SELECT 1 FROM usage WHERE sale = %s AND class = %s", (sales[0]["id"], "REGULAR")),
        "the leased use is REGULAR",
    )
