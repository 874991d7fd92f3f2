"""A kill switch in the running house: at every connected terminal within seconds, while selling goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devices.simulator import SimulatedTerminal
from gateway.kill_switches import KillOrder
from models.domain.errors import Refused
from models.domain.kill_switch import Scope, ScopeKind, Switch
from models.domain.screen import Screen, ScreenState
from runtime.kill_cli import reach
from runtime.kill_switches import KillSwitchesOfAHouse
from runtime.plant import read_plants
from tests.integration.house import WATER, House, Note, eventually, storeops

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
JPEG = b"\xff\xd8 nobody looks at it"


def switches(terminal: SimulatedTerminal) -> list[str]:
    """What its configuration says is off."""
    return list(terminal.agent.desired.get("switches", []))


async def shown(terminal: SimulatedTerminal, code: str) -> Screen:
    return await terminal.agent.wait_screen(lambda s: s.prompt is not None and s.prompt.code == code, 20.0)


async def test_thrown_and_lifted_while_customers_stand_there(house: House, note: Note) -> None:
    here = ("--data", str(house.data))
    async with (
        house.terminal("gz-haizhu", "killed") as counter,
        house.terminal("gz-haizhu", "other") as other,
        house.terminal("gz-yuexiu", "apart") as apart,
    ):
        looking = await counter.open_session()
        await counter.consent()
        await shown(counter, "look_at_camera")
        bought = await other.scan(WATER[0])

        why = ("--reason", "a bad net", "--until", "2h")
        thrown = await asyncio.to_thread(storeops, "kill", "face", "--store", "gz-haizhu", *why, *here)
        assert thrown["ok"], thrown
        assert thrown["terminals"]["applied"] == thrown["terminals"]["connected"] >= 2
        note("kill_terminals_s", thrown["terminals"]["max_s"])
        off = await shown(counter, "face_off")
        assert (off.session, off.state) == (looking.session, ScreenState.OPEN)
        assert "face" not in off.actions
        assert "identify" in off.actions
        await eventually(lambda: switches(counter) == switches(other) == ["face"], "the terminals know")
        assert switches(apart) == []
        with pytest.raises(Refused) as refused:
            await counter.show(JPEG)
        assert refused.value.code == "face_off"

        # Selling goes on, of the visit that the switch found there too; and a host that begins anew knows it.
        assert other.screen.session == bought.session
        assert (await other.pay_cash(500)).state is ScreenState.PAID
        killed = house.host()
        await asyncio.to_thread(killed.kill)
        await eventually(lambda: house.host().pid != killed.pid, "the host is back")
        await counter.scan(WATER[0])
        with pytest.raises(Refused) as refused:
            await counter.show(JPEG)
        assert refused.value.code == "face_off"
        assert (await counter.pay_cash(500)).state is ScreenState.PAID

        again = await asyncio.to_thread(storeops, "kill", "list", *here)
        [stands] = [one for one in again["switches"] if one["standing"]]
        assert (stands["switch"], stands["reason"], stands["applied"]) == ("face", "a bad net", stands["connected"])
        lifted = await lift(house.data, Scope(ScopeKind.STORE, "gz-haizhu"))
        note("lift_terminals_s", lifted)
        await eventually(lambda: switches(counter) == switches(other) == [], "the terminals know")
    house.check_books()
    audited = house.rows("SELECT kind, subject FROM audit_event WHERE starts_with(kind, 'kill_switch.') ORDER BY n")
    assert audited == [("kill_switch.thrown", "store:gz-haizhu"), ("kill_switch.lifted", "store:gz-haizhu")]


async def lift(data: Path, scope: Scope) -> float:
    """The same without a process of its own; seconds until every connected terminal said so."""
    desk = KillSwitchesOfAHouse(read_plants(data))
    began = asyncio.get_running_loop().time()
    outcome = await desk.order(KillOrder("lift-1", Switch.FACE, scope, "repaired", "test", lift=True))
    assert outcome.ok
    reached = await reach(desk, Switch.FACE, scope, began, 20.0)
    assert reached.max_s is not None, reached
    return reached.max_s
