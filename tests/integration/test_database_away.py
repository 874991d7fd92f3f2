"""PostgreSQL is away: nothing is acknowledged and nobody is answered; back again, each event has its one effect."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator

import psutil
import pytest

from runtime.processes import wait_ended
from tests.integration.house import WATER, House, Note, eventually
from tests.integration.wire import Sender, Wire, open_wire

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SILENCE_S = 2.0
"""Absence can only be waited for: longer than any reply of a running house takes."""


@contextlib.contextmanager
def frozen(house: House) -> Iterator[None]:
    """The server and its children are stopped by SIGSTOP: it accepts connections and answers none."""
    postmaster = house.postmaster()
    family = [postmaster, *postmaster.children(recursive=True)]
    for one in family:
        one.suspend()
    try:
        yield
    finally:
        for one in [*family, *postmaster.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()


async def no_reply(wire: Wire, message: str) -> None:
    with pytest.raises(TimeoutError):
        await wire.reply(lambda reply: reply.id == message, SILENCE_S)


def lines_of(house: House, lane: str) -> list[tuple[str, int]]:
    [(lines,)] = house.rows("SELECT state->'lines' FROM entity WHERE kind = 'session' AND id = %s", (lane,))
    return [(line["code"], line["quantity"]) for line in lines]


async def test_a_frozen_database_delays_the_answer_and_nothing_else(house: House, note: Note) -> None:
    sender = Sender(house.plant, await house.register("fs-shunde", "frozen"))
    async with open_wire(house.plant) as wire:
        await sender.begin(wire)
        scan = sender.event("scan", {"code": WATER[0], "quantity": 1})
        with frozen(house):
            await wire.send(sender.up, json.dumps(scan).encode())
            await no_reply(wire, scan["id"])
        began = asyncio.get_running_loop().time()
        # Sent once: it was not acknowledged, so the broker still has it if the host had to begin anew.
        reply = await wire.reply(lambda reply: reply.id == scan["id"])
        note("answer_after_thaw_s", asyncio.get_running_loop().time() - began)
        assert reply.document["ok"]
        assert (await sender.ask(wire, scan)).payload == reply.payload
        assert not wire.contradictions()
    assert lines_of(house, "frozen") == [(WATER[0], 1)]
    house.check_books()


async def test_a_host_that_dies_while_the_database_is_frozen_had_acknowledged_nothing(house: House, note: Note) -> None:
    sender = Sender(house.plant, await house.register("fs-shunde", "unacked"))
    async with open_wire(house.plant) as wire:
        await sender.begin(wire)
        host = house.host()
        scan = sender.event("scan", {"code": WATER[0], "quantity": 1})
        with frozen(house):
            await wire.send(sender.up, json.dumps(scan).encode())
            await no_reply(wire, scan["id"])
            host.kill()
            await asyncio.to_thread(wait_ended, [host], 5.0)
        began = asyncio.get_running_loop().time()
        # Nobody sends it again: only the broker can have kept it, because nobody had acknowledged it.
        reply = await wire.reply(lambda reply: reply.id == scan["id"], 60.0)
        note("answer_of_the_next_host_s", asyncio.get_running_loop().time() - began)
        assert reply.document["ok"]
        assert not wire.contradictions()
    assert house.host().pid != host.pid
    assert lines_of(house, "unacked") == [(WATER[0], 1)]
    house.check_books()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast_shutdown", "immediate_shutdown"])
async def test_a_database_that_is_shut_down_is_started_again_and_every_sale_is_booked_once(
    house: House, note: Note, how: signal.Signals
) -> None:
    lane = f"shut-{how.name.lower()}"
    sender = Sender(house.plant, await house.register("fs-shunde", lane))
    async with open_wire(house.plant) as wire:
        session = await sender.begin(wire)
        postmaster, outages = house.postmaster(), house.health()["database_outages"]
        began = asyncio.get_running_loop().time()
        postmaster.send_signal(how)
        events = [sender.event("scan", {"code": WATER[0], "quantity": 1}, session=session) for _ in range(5)]
        for event in events:
            await wire.send(sender.up, json.dumps(event).encode())
        for event in events:
            reply = await wire.reply(lambda reply, event=event: reply.id == event["id"], 60.0)  # type: ignore[misc]
            assert reply.document["ok"], reply.document
        note("outage_s", asyncio.get_running_loop().time() - began)
        assert not wire.contradictions()
        await eventually(lambda: house.has_another_postmaster(than=postmaster), "another server")
    assert lines_of(house, lane) == [(WATER[0], 5)]
    assert house.health()["database_outages"] > outages
    house.check_books()
