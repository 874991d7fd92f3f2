"""A terminal's twin: its page, the API behind it, and orders that go to the terminal's host."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Request, Response

from actors.hosts import COMMAND_CHANNEL, DESIRED_CHANNEL, Delivery
from gateway.console.render import page
from gateway.edge import Edge, EdgeOf, OfTerminal
from gateway.errors import not_found
from gateway.queries import registry
from gateway.queries.twins import get_twin
from gateway.routes.documented import problems
from gateway.twin_views import CommandAnswer, CommandOrder, DesiredAnswer, DesiredOrder, TwinView
from gateway.views import TerminalView
from models.domain.errors import Refused
from models.domain.ids import MessageId, RegionId, TerminalId, derived_id
from models.domain.twin import CommandAsked, DesiredAsked, OrderResult, canonical, require_config

router = APIRouter()

Key = Annotated[str, Header(min_length=8, max_length=64)]

TAKEOVER_SHOWN = timedelta(hours=1)
BUTTONS = ("resync", "test_print", "reboot")
"""Verbs that need no words: one press on the page."""


@router.get("/terminals/{terminal}", include_in_schema=False)
async def twin_page(request: Request, database: OfTerminal, edge: EdgeOf, terminal: str) -> Response:
    """One terminal in full: what it should run, what it says it runs, what it was told."""
    found = await get_twin(database, terminal)
    if found is None:
        raise not_found("terminal", terminal)
    takeover_at = found.reported.takeover_at if found.reported is not None else None
    return page(
        request,
        "twin.html",
        twin=found,
        contested=takeover_at is not None and edge.now() - takeover_at < TAKEOVER_SHOWN,
        buttons=BUTTONS,
        store=await registry.get_store(database, found.terminal.store),
        tile=edge.wall.terminals.get(TerminalId(terminal)),
        scope_label=None,
    )


@router.get("/api/v1/terminals/{terminal}/twin", tags=["registry"], responses=problems(404))
async def twin(database: OfTerminal, terminal: str) -> TwinView:
    """Desired and reported, the clock's skew, the newest telemetry, the last commands."""
    found = await get_twin(database, terminal)
    if found is None:
        raise not_found("terminal", terminal)
    return found


@router.post("/api/v1/terminals/{terminal}/commands", tags=["registry"], responses=problems(403, 404, 409))
async def send_command(
    database: OfTerminal, edge: EdgeOf, terminal: str, order: CommandOrder, idempotency_key: Key
) -> CommandAnswer:
    """Tell the terminal to do something; answers once that is durable. The same key tells it once."""
    registered = await _registered(database, terminal)
    command = MessageId(derived_id(terminal, idempotency_key))
    asked = CommandAsked(command, order.verb, tuple(order.args.items()), order.deadline_s)
    await _order(edge, registered, COMMAND_CHANNEL, asked)
    return CommandAnswer(id=command)


@router.patch("/api/v1/terminals/{terminal}/desired", tags=["registry"], responses=problems(403, 404, 409))
async def change_desired(
    database: OfTerminal, edge: EdgeOf, terminal: str, order: DesiredOrder, idempotency_key: Key
) -> DesiredAnswer:
    """Give the terminal a new generation. 409 `gen_conflict` unless `expected_gen` is the present one."""
    registered = await _registered(database, terminal)
    require_config(order.config)
    change = MessageId(derived_id(terminal, idempotency_key))
    asked = DesiredAsked(change, "", canonical(order.config), expected_gen=order.expected_gen)
    return DesiredAnswer(gen=(await _order(edge, registered, DESIRED_CHANNEL, asked)).gen)


async def _registered(database: OfTerminal, terminal: str) -> TerminalView:
    found = await registry.get_terminal(database, terminal)
    if found is None:
        raise not_found("terminal", terminal)
    return found


async def _order(edge: Edge, registered: TerminalView, channel: str, asked: CommandAsked | DesiredAsked) -> OrderResult:
    """Through the Hosts port. Raises Refused with the host's own code, message and advice."""
    delivery = Delivery(TerminalId(registered.id), channel, msgspec.json.encode(asked))
    [answer] = await edge.require_hosts().deliver(RegionId(registered.region), [delivery])
    result = msgspec.json.decode(answer.reply, type=OrderResult)
    if not result.ok:
        raise Refused(result.code, result.message, result.do)
    return result
