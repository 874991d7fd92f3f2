"""One paid sale followed from the terminal's message to the ledger's entries, on the running house."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devices.simulator import SimulatedTerminal
from models.domain.ids import derived_id, event_cause
from models.domain.screen import ScreenState
from runtime import following
from runtime.following import lead_back
from tests.integration.house import NOODLES, House, storeops
from tests.integration.wire import Sender, open_wire

pytestmark = pytest.mark.integration


def of(found: dict[str, Any], table: str) -> list[dict[str, Any]]:
    return [step for step in found["steps"] if step["table"] == table]


async def test_one_paid_sale_end_to_end(house: House) -> None:
    """By the provider: the ledger row comes from an answer to an answer, and still leads back to `confirm`."""
    async with house.terminal("sz-yantian", "trace") as terminal:
        receipt, confirm = await _pay(terminal)
    found = storeops("trace", receipt, "--data", str(house.data))
    assert found["found_as"] == "receipt"
    [sale] = of(found, "sale")
    [booked] = [step for step in of(found, "txn") if step["what"].startswith("sale_paid")]
    assert sale["trace"] == booked["trace"] == confirm
    assert sum(fen for _, fen in booked["entries"]) == 0
    events = {step["what"].partition(" ")[0]: step for step in of(found, "inbox")}
    assert set(events) >= {"Scan", "Confirm"}
    [paid] = [step for step in of(found, "outbox") if step.get("order")]
    assert paid["trace"] == confirm
    [answered] = [step for step in of(found, "answer") if step["id"] == paid["id"]]
    assert answered["outcome"] == "succeeded"
    times = [step["at"] for step in found["steps"]]
    assert times == sorted(times)
    assert found["steps"][0]["at"] <= paid["at"] <= answered["at"] <= booked["at"] or booked["at"] <= answered["at"]

    for wanted in (confirm, sale["id"], paid["order"], found["session"]):
        again = await following.trace(house.plant.database_url, wanted)
        assert again.anchor is not None
        assert again.anchor.session == found["session"]
    text = following.as_text(await following.trace(house.plant.database_url, confirm))
    assert len([line for line in text.splitlines() if line.startswith("→")]) >= 4


async def _pay(terminal: SimulatedTerminal) -> tuple[str, str]:
    """A face payment at the provider; the receipt's number and the id of the `confirm`."""
    sent: list[str] = []
    add = terminal.agent.unanswered.add

    def note(waiting: Any, **more: Any) -> None:
        if waiting.payload.startswith(b"{") and json.loads(waiting.payload)["type"] == "confirm":
            sent.append(waiting.id)
        add(waiting, **more)

    terminal.agent.unanswered.add = note  # type: ignore[method-assign]
    await terminal.open_session()
    await terminal.scan(NOODLES[0])
    screen = await terminal.pay_face("trace-1")
    assert screen.state is ScreenState.PAID
    assert screen.receipt is not None
    return screen.receipt.no, sent[-1]


async def test_what_nobody_knows_is_said_so(house: House) -> None:
    with pytest.raises(AssertionError, match="unknown_id"):
        storeops("trace", "0194d2a1-7c3e-7b1a-9f40-000000000000", "--data", str(house.data))


async def test_a_refusal_in_the_log_carries_trace_terminal_and_store(house: House) -> None:
    access = await house.register("sz-yantian", "trace-bad")
    async with open_wire(house.plant) as wire:
        sender = Sender(house.plant, access)
        reply = await sender.ask(wire, sender.event("scan", {"code": 7, "quantity": 1}))
        assert reply.code == "bad_field"
    lines = [
        json.loads(line)
        for path in (house.data / "logs").glob("host-*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    [line] = [one for one in lines if one.get("trace") == reply.id]
    assert (line["event"], line["terminal"], line["store"]) == ("undecodable", access["username"], "sz-yantian")


def test_ids_lead_back_through_answers_and_to_their_own_event_only() -> None:
    first = derived_id(event_cause("t-1", "0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a55"), 1)  # type: ignore[arg-type]
    second = derived_id(derived_id(first, "answer"), 3)
    third = derived_id(derived_id(second, "progress7"), 1)
    events = [("t-1", "0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a55"), ("t-2", "0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a56")]
    roots = lead_back(events, [first, second, third])
    assert {roots[one] for one in (first, second, third)} == {events[0][1]}
    assert events[1][1] in roots
    assert lead_back(events, [third]).get(third) is None
