"""`storeops kill …`: stop face, benefits or offers of a store, region or chain at once; lifting is the same verb."""

from __future__ import annotations

import asyncio
import getpass
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.domain.errors import Refused
from models.domain.kill_switch import Scope, ScopeKind, Switch
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err

if TYPE_CHECKING:
    from gateway.kill_switches import KillOutcome, ThrownSwitch
    from runtime.kill_switches import KillSwitchesOfAHouse

kill_app = typer.Typer(no_args_is_help=True, help="Kill switches: face, benefits, offers; of a store, region or chain.")

POLL_S = 0.1
_SPAN = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Reached:
    """How long the connected terminals took to report the document that says so, from the order on."""

    terminals: int
    connected: int
    applied: int
    p50_s: float | None
    """When half of them had; None: not within the wait."""
    max_s: float | None
    """When all of them had."""


def _verb(switch: Switch) -> Callable[..., None]:
    def throw(
        reason: Annotated[str, typer.Option("--reason", help="Why: it stands in the audit.")],
        store: Annotated[str | None, typer.Option("--store", help="One store.")] = None,
        region: Annotated[str | None, typer.Option("--region", help="Every store of a region.")] = None,
        chain: Annotated[str | None, typer.Option("--chain", help="Every store of a chain.")] = None,
        until: Annotated[
            str | None, typer.Option("--until", help="When it ends by itself: 90m, 8h, 2d, or a time with its zone.")
        ] = None,
        lift: Annotated[bool, typer.Option("--lift", help="Lift it instead.")] = False,
        wait: Annotated[float, typer.Option(min=0.0, max=120.0, help="Seconds to wait for the terminals.")] = 10.0,
        number: Annotated[
            str | None, typer.Option("--number", help="A request number of your own: repeated, it has one effect.")
        ] = None,
        data: Data = None,
        demo: Demo = False,
        as_json: AsJson = False,
    ) -> None:
        from gateway.kill_switches import KillOrder
        from runtime import administration
        from runtime.kill_switches import KillSwitchesOfAHouse

        scope = scope_of(store, region, chain)
        ends = until_of(until, datetime.now(UTC))
        who, request = f"cli:{getpass.getuser()}", f"cli:{number or uuid.uuid4()}"
        desk = KillSwitchesOfAHouse(administration.running_all(data, demo))
        order = KillOrder(request, switch, scope, reason, who, ends, lift)

        async def run() -> tuple[KillOutcome, Reached]:
            began = time.monotonic()
            outcome = await desk.order(order)
            with err.status("waiting for the terminals") as status:
                told = lambda reached: status.update(f"{reached.applied} of {reached.connected} terminals")  # noqa: E731
                return outcome, await reach(desk, switch, scope, began, wait, told)

        outcome, reached = asyncio.run(run())
        _print(document(outcome, reached), as_json, text_of(outcome, reached))
        raise typer.Exit(0 if outcome.ok else 1)

    throw.__doc__ = {
        Switch.FACE: "No face is asked for or looked at; members come by phone, card or code.",
        Switch.BENEFITS: "No light benefit is offered or reserved; memberships stand and settle.",
        Switch.OFFERS: "No offers on screens, and no plan is entered.",
    }[switch]
    return throw


for _switch in Switch:
    kill_app.command(_switch.value)(_verb(_switch))


@kill_app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """What is switched off, by whom, why and until when, and how many terminals say so; then what was."""
    from runtime import administration
    from runtime.kill_switches import KillSwitchesOfAHouse

    found = asyncio.run(KillSwitchesOfAHouse(administration.running_all(data, demo)).switches(limit=limit))
    shown = [_row(one) for one in found]
    _print({"switches": shown}, as_json, "\n".join(_line(one) for one in found) or "nothing is switched off")


def scope_of(store: str | None, region: str | None, chain: str | None) -> Scope:
    """Raises Refused `which_scope` unless exactly one is named."""
    named = {ScopeKind.STORE: store, ScopeKind.REGION: region, ScopeKind.CHAIN: chain}
    chosen = [Scope(kind, name) for kind, name in named.items() if name]
    if len(chosen) != 1:
        raise Refused("which_scope", "where?", "give one of --store, --region and --chain")
    return chosen[0]


def until_of(text: str | None, now: datetime) -> datetime | None:
    """A span from now, or an ISO 8601 time with its zone. Raises Refused `bad_until`."""
    if text is None:
        return None
    if span := _SPAN.fullmatch(text.strip()):
        return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        at: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Refused("bad_until", f"{text!r} is no such time", "90m, 8h, 2d, or 2026-11-22T18:00:00+08:00")
    return at.astimezone(UTC)


async def reach(
    desk: KillSwitchesOfAHouse,
    switch: Switch,
    scope: Scope,
    began_s: float,
    wait_s: float,
    told: Callable[[Reached], None] = lambda _: None,
) -> Reached:
    """Watch until every connected terminal reports what stands, or `wait_s` are over. `began_s`: monotonic."""
    half: float | None = None
    async with desk.watch(switch, scope) as look:
        while True:
            far = await look()
            elapsed = round(time.monotonic() - began_s, 3)
            if half is None and far.connected and far.applied * 2 >= far.connected:
                half = elapsed
            everywhere = far.applied >= far.connected
            done = elapsed if everywhere and far.connected else None
            reached = Reached(far.terminals, far.connected, far.applied, half, done)
            told(reached)
            if everywhere or elapsed >= wait_s:
                return reached
            await asyncio.sleep(POLL_S)


def document(outcome: KillOutcome, reached: Reached) -> dict[str, Any]:
    """An order as `--json` prints it."""
    order = outcome.order
    return {
        "ok": outcome.ok,
        "switch": str(order.switch),
        "scope": str(order.scope),
        "lifted": order.lift,
        "reason": order.reason,
        "by": order.by,
        "until": None if order.until is None else order.until.isoformat(),
        "regions": [{**asdict(one), "ok": one.ok} for one in outcome.databases],
        "terminals": asdict(reached),
    }


def text_of(outcome: KillOutcome, reached: Reached) -> str:
    """The same for a person."""
    order = outcome.order
    done = "lifted" if order.lift else "switched off"
    lines = [f"{order.switch} {done} for {order.scope}"]
    for one in outcome.databases:
        where = ", ".join(one.regions)
        if not one.ok:
            lines.append(f"{where}: NOT reached: {one.message}. {one.do}")
        else:
            lines.append(f"{where}: {one.stores} stores{'' if one.changed else ', as it was already'}")
    took = "" if reached.max_s is None else f" within {reached.max_s:.1f} s (half of them {reached.p50_s:.1f} s)"
    lines.append(f"{reached.applied} of {reached.connected} connected terminals say so{took}")
    if away := reached.terminals - reached.connected:
        lines.append(f"{away} terminals are not connected: they learn of it when they are")
    return "\n".join(lines)


def _row(one: ThrownSwitch) -> dict[str, Any]:
    shown = asdict(one)
    thrown = shown.pop("thrown")
    return {**thrown, "scope": str(one.thrown.scope), **shown}


def _line(one: ThrownSwitch) -> str:
    thrown = one.thrown
    ends = "until it is lifted" if thrown.until is None else f"until {thrown.until.isoformat(timespec='minutes')}"
    if one.standing:
        state = f"OFF {ends}; {one.applied} of {one.connected} connected terminals say so"
    elif thrown.lifted_by == "expiry" or thrown.lifted_at is None:
        state = "expired"
    else:
        state = f"lifted by {thrown.lifted_by}: {thrown.lifted_reason}"
    at = thrown.at.isoformat(timespec="seconds")
    return f"{at}  {thrown.switch:<8} {thrown.scope}  {state}  ({thrown.by}: {thrown.reason})"
