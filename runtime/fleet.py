"""`storeops fleet`: a chain of simulated stores over real MQTT, with chaos, held against the books at the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from devices.fleet.checks import SHOWN_MAX, Books, violations
from devices.fleet.evidence import CrewEvidence
from devices.fleet.orders import KILLS, Chaos, CrewOrder, Day, FleetLane
from models.domain.errors import NeedsOperator, Refused, StoreOpsError
from models.domain.ids import ChainId
from runtime import fleet_books
from runtime.administration import running
from runtime.bootstrap import DEMO_KEY, House, reset_data
from runtime.broker import let_all_in
from runtime.chain_tables import apply_chain
from runtime.chains import ChainDoc
from runtime.datadir import open_data_dir
from runtime.fleet_books import Mark
from runtime.fleet_chain import articles_of, fleet_chain, lanes_of, vouchers_of
from runtime.fleet_crews import Crews, latencies
from runtime.fleet_parts import Kill, Parts, data_folder, kill_through_the_day
from runtime.fleet_rollout import FleetRollout, away, delivered, markdown, with_faults
from runtime.fleet_switches import Turned, throw_through_the_day
from runtime.plant import Plant
from runtime.progress import Progress as StartProgress
from runtime.rehearsal_world import Shares
from runtime.rollout_files import policy_path, read_policy
from runtime.settings import Settings

T = TypeVar("T")
QUIET_S_MAX = 150.0
REGION = "south-china"
PROBE_EVERY_S = 0.5
LONGER_S = 5.0
"""A day that waits for its rollout goes on for so long at a time."""
CONNECT_PER_S = 150
"""Terminals that connect in a second at the start of a day; a storm is a chaos of its own."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What `storeops fleet` was asked for."""

    stores: int
    terminals: int
    rate_per_s: float
    seconds: float
    chaos: tuple[Chaos, ...]
    seed: int
    flat: bool = False
    brisk: bool = False
    """Terminals repeat after 1 s and reconnect within 2 s instead of the protocol's 5 and 60: for short runs."""
    switches: bool = False
    """Each kill switch is thrown for the chain and lifted again through the day."""
    rollout: str | None = None
    """A policy for software, by its name or file: it is rolled out through the day, which lasts until it is over."""
    software_faults: Shares | None = None
    """Stores with a terminal that is not as it should be with new software."""


def parse_chaos(text: str) -> tuple[Chaos, ...]:
    """`all`, `none`, or names with commas between. Raises Refused `unknown_chaos`."""
    if text == "all":
        return tuple(Chaos)
    if text in {"none", ""}:
        return ()
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in set(Chaos)]
    if unknown:
        raise Refused("unknown_chaos", ", ".join(unknown), f"all, none, or some of: {', '.join(Chaos)}")
    return tuple(Chaos(name) for name in names)


def order_of(plan: FleetPlan, plant: Plant, chain: ChainDoc, key: str) -> CrewOrder:
    """The order for all crews together. Stores that are away have no terminal in it."""
    lanes = tuple(lane for lane in lanes_with_faults(plan, chain, key) if not away(lane))
    busy_s = max(0.0, len(lanes) / max(0.1, plan.rate_per_s / 4.2) / 3)
    return CrewOrder(
        crew=0,
        seed=plan.seed,
        region=plant.region,
        broker_host=plant.broker_host,
        broker_port=plant.broker_port,
        provider_url=plant.provider_url,
        plan=chain.plans[0],
        articles=articles_of(chain),
        vouchers=vouchers_of(chain),
        lanes=lanes,
        chaos=tuple(one for one in plan.chaos if one not in KILLS),
        connect_s=max(0.5, plan.stores * plan.terminals / CONNECT_PER_S),
        resend_first_s=1.0 if plan.brisk else 5.0,
        reconnect_s_min=0.2 if plan.brisk else 1.0,
        reconnect_s_max=2.0 if plan.brisk else 60.0,
        think_s=min(1.0, busy_s / 8),
        software="" if plan.rollout is None else delivered(),
    )


def lanes_with_faults(plan: FleetPlan, chain: ChainDoc, key: str) -> tuple[FleetLane, ...]:
    """Every lane of the fleet."""
    return with_faults(lanes_of(chain, key, plan.seed), plan.software_faults, plan.seed)


# ---------------------------------------------------------------- the house


def fleet_house(settings: Settings, chain: ChainDoc, progress: StartProgress) -> House:
    """A house of the fleet's own, with the generated chain; not started yet."""
    house = House(settings, demo=True, chain_file=None, progress=progress)
    house.places = tuple(replace(place, chain=ChainId(chain.chain), doc=chain) for place in house.places)
    return house


async def attach(plant: Plant, chain: ChainDoc) -> str:
    """Register the fleet's stores in a house that runs; returns the key of its terminals' secrets.

    Raises NeedsOperator `broker_foreign` when its broker is not ours to let terminals into.
    """
    from psycopg import AsyncConnection

    if not plant.broker_embedded:
        raise NeedsOperator("broker_foreign", "the house's broker is by URL", "register the terminals at that broker")
    data = open_data_dir(plant.data_dir, create=False)
    key = data.secret(DEMO_KEY)
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        await apply_chain(conn, chain.model_copy(update={"chain": plant.chain}), plant.region, key)
    users = {str(one.terminal): one.secret for lane in lanes_of(chain, key, 0) for one in lane.terminals}
    await asyncio.to_thread(let_all_in, data, users)
    return key


# ---------------------------------------------------------------- the run


@dataclass(slots=True)
class Run:
    """A run that is going on; the progress bar reads it."""

    plan: FleetPlan
    plant: Plant
    crews: Crews
    console: Console
    kills: list[Kill]
    rollout: FleetRollout | None = None
    turned: list[Turned] = field(default_factory=list)
    told: dict[str, Any] | None = None
    """What became of the rollout."""
    began_mark: Mark | None = None
    phase: str = "connecting"
    connected_s: float = 0.0
    day_s: float = 0.0
    quiet_s: float = 0.0
    host_cpu_s: float = 0.0

    async def play(self) -> tuple[list[CrewEvidence], Books]:
        """Connect, live through the day, become quiet, read both sides."""
        self.began_mark = await fleet_books.mark(self.plant)
        if self.rollout is not None:
            await self.rollout.prepare()
        await self.crews.start()
        self.connected_s = await self.crews.connect()
        self._enter("day")
        cpu = self._host_cpu()
        rng = random.Random(f"{self.plan.seed}/kills")  # noqa: S311 - a simulation
        day = Day(self.plan.seconds, self.plan.rate_per_s, self.plan.flat)
        killing = asyncio.create_task(
            kill_through_the_day(self.plant, self.plan.chaos, self.plan.seconds, rng, self._say)
        )
        switching, rolling = asyncio.create_task(self._throw()), asyncio.create_task(self._roll())
        began = time.monotonic()
        try:
            await self.crews.day(day)
            while not rolling.done():
                await self.crews.day(replace(day, seconds=LONGER_S, flat=True))
            await asyncio.gather(switching, rolling)
        finally:
            for one in (killing, switching, rolling):
                one.cancel()
            with_kills, *_ = await asyncio.gather(killing, switching, rolling, return_exceptions=True)
            self.kills = with_kills if isinstance(with_kills, list) else self.kills
        self.day_s, self.host_cpu_s = time.monotonic() - began, self._host_cpu() - cpu
        self._enter("becoming quiet")
        self.quiet_s = await self.crews.quiet(QUIET_S_MAX)
        self.quiet_s += await fleet_books.quiet(self.plant)
        if self.rollout is not None:
            self.told = await self.rollout.document(await self.crews.software())
        self._enter("reading the books")
        evidence = await self.crews.report()
        stores = sorted({lane.store for one in self.crews.processes for lane in one.order.lanes})
        return evidence, await fleet_books.read_books(self.plant, stores, self.began_mark)

    async def _throw(self) -> None:
        if self.plan.switches:
            await throw_through_the_day(self.plant, self.plan.seconds, self.turned, self._say)

    async def _roll(self) -> None:
        if self.rollout is not None:
            await self.rollout.play()

    def _host_cpu(self) -> float:
        try:
            return Parts(self.plant).host_cpu_s()
        except Exception:  # noqa: BLE001 - a figure for the report, not worth a run
            return 0.0

    def _enter(self, phase: str) -> None:
        """The next part of the run, and where it stands: the bar is gone when nobody looks at a terminal."""
        self.phase = phase
        tick = self.crews.tick
        self.console.print(
            f"· {phase}: {tick.online} online, {tick.events} events, {tick.waiting} wait, {tick.busy} lanes busy",
            markup=False,
        )

    def _say(self, text: str) -> None:
        self.console.print(f"! {text}", markup=False, style="yellow")

    def report(self, evidence: Sequence[CrewEvidence], books: Books) -> dict[str, Any]:
        """The JSON object of the run."""
        found = violations(evidence, books)
        rules = Counter(one.rule for one in found)
        sums = {
            name: sum(getattr(one, name) for one in evidence)
            for name in ("events", "replies", "duplicate_replies", "members")
        }
        return {
            "ok": not found and (self.told is None or self.told["ok"]),
            "plan": asdict(self.plan),
            "terminals": sum(len(lane.terminals) for one in self.crews.processes for lane in one.order.lanes),
            "connected_s": round(self.connected_s, 1),
            "day_s": round(self.day_s, 1),
            "quiet_s": round(self.quiet_s, 1),
            **sums,
            "visits": self.crews.tick.visits,
            "visits_failed": self.crews.tick.failed,
            "sales_seen": sum(len(one.sales) for one in evidence),
            "sales_booked": len(books.sales),
            "voided": sum(sale.voided for sale in books.sales),
            "refusals": dict(sum((Counter(one.refusals) for one in evidence), Counter[str]())),
            "chaos": dict(sum((Counter(one.mischief) for one in evidence), Counter[str]())),
            "kills": [asdict(kill) for kill in self.kills],
            "switches": [one.document() for one in self.turned],
            "rollout": self.told,
            "outages_s": sorted((s for one in evidence for s in one.outages_s), reverse=True)[:SHOWN_MAX],
            "latency_ms": {
                "event_to_reply": latencies([ms for one in evidence for ms in one.reply_ms]),
                "event_to_screen": latencies([ms for one in evidence for ms in one.screen_ms]),
            },
            "cpu": {
                "crews_s": round(self.crews.cpu_s, 1),
                "hosts_s": round(self.host_cpu_s, 1),
                "hosts_core": round(self.host_cpu_s / max(0.1, self.day_s), 3),
            },
            "ledger": {
                "sum_fen": books.sum_fen,
                "provider_fen": books.provider_fen,
                "clearing_fen": books.clearing_fen,
                "cash_fen": sum(sale.cash_fen for sale in books.sales),
            },
            "violations": {"count": len(found), "rules": dict(rules)},
            "shown": [asdict(one) for one in found[:SHOWN_MAX]],
        }


async def play_fleet(plan: FleetPlan, plant: Plant, chain: ChainDoc, key: str, console: Console) -> dict[str, Any]:
    """One run against a house that is up; the report. `plan.chaos` with kills: the house must be ours."""
    began, load = time.monotonic(), os.getloadavg()[0]
    crews = Crews(order_of(plan, plant, chain, key), data_folder(plant))
    run = Run(plan, plant, crews, console, [])
    if plan.rollout is not None:
        policy = read_policy(policy_path(plan.rollout))
        run.rollout = FleetRollout(plant, policy, lanes_with_faults(plan, chain, key), plan.seed, run._say)
    showing = asyncio.create_task(_show(run))
    try:
        evidence, books = await run.play()
    except asyncio.CancelledError:
        crews.kill()
        raise
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        await crews.stop()
    machine = {"cpus": os.cpu_count(), "load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1)}
    return {**run.report(evidence, books), "seconds": round(time.monotonic() - began, 1), "machine": machine}


async def _show(run: Run) -> None:
    """A bar with live rates on stderr, until cancelled."""
    columns = (
        TextColumn("{task.fields[phase]:>17}"),
        BarColumn(30),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    began, last = time.monotonic(), run.crews.tick
    day_began = None
    with Progress(*columns, console=run.console, transient=True) as bar:
        task: TaskID = bar.add_task("fleet", total=run.plan.seconds, phase=run.phase, now="")
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            tick = run.crews.tick
            if run.phase == "day" and day_began is None:
                day_began = time.monotonic()
            passed, began = time.monotonic() - began, time.monotonic()
            clock = f"{int(tick.hour):02d}:{int(tick.hour % 1 * 60):02d}"
            now = (
                f"{tick.online} online · {(tick.events - last.events) / passed:.0f} events/s · {tick.sales} sales"
                f" · {tick.waiting} wait · {tick.reply_p50_ms:.0f} ms · {clock}"
            )
            done = 0.0 if day_began is None else time.monotonic() - day_began
            bar.update(task, completed=min(done, run.plan.seconds), phase=run.phase, now=now)
            last = tick


# ---------------------------------------------------------------- the command


async def until_signal(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; Ctrl-C and SIGTERM cancel it, so that it takes its processes with it.

    The house is stopped outside of the loop: stopping waits for threads that would wait for this one.
    """
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def run_fleet(plan: FleetPlan, settings: Settings, *, as_json: bool, attach_to: Path | None) -> int:
    """Play it on a house of its own, or on one that runs; prints the report, returns the exit code."""
    console = Console(stderr=True, highlight=False)
    chain = fleet_chain(plan.stores, plan.terminals)
    if attach_to is not None:
        return _attached(plan, chain, attach_to, console, as_json)
    assert settings.data_dir is not None
    reset_data(settings.data_dir)
    out, sys.stdout = sys.stdout, sys.stderr  # the engine tells of dead workers on standard output
    house = fleet_house(settings, chain, StartProgress(console))
    plant, *_ = house.start()
    threading.Thread(target=house.watch, daemon=True).start()
    console.print(f"{plan.stores} stores x {plan.terminals} terminals · house ready after {house.ready_s:.1f} s")
    try:
        report = asyncio.run(until_signal(play_fleet(plan, plant, chain, house.data.secret(DEMO_KEY), console)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return house.leave(130)
    except StoreOpsError as error:
        report = {"ok": False, "error": {"code": error.code, "message": error.message, "do": error.do}}
        console.print(f"[bold red]{error.code}[/]: {error.message}")
    except Exception as error:  # noqa: BLE001 - whatever it is, the house is stopped
        console.print_exception()
        report = {"ok": False, "error": {"code": "fleet_failed", "message": f"{type(error).__name__}: {error}"}}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself from here
    sys.stdout = out
    _print(report, as_json)
    return house.leave(0 if report["ok"] else 1)


def _attached(plan: FleetPlan, chain: ChainDoc, data: Path, console: Console, as_json: bool) -> int:
    if any(one in KILLS for one in plan.chaos):
        left_out = ", ".join(one for one in plan.chaos if one in KILLS)
        console.print(f"left out in a house that is not the fleet's own: {left_out}", style="yellow")
        plan = replace(plan, chaos=tuple(one for one in plan.chaos if one not in KILLS))
    plant = running(data, demo=False)

    async def both() -> dict[str, Any]:
        key = await attach(plant, chain)
        return await play_fleet(plan, plant, chain.model_copy(update={"chain": ChainId(plant.chain)}), key, console)

    try:
        report = asyncio.run(until_signal(both()))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    _print(report, as_json)
    return 0 if report["ok"] else 1


def _print(report: dict[str, Any], as_json: bool) -> None:
    typer.echo(json.dumps(report, ensure_ascii=False, default=str) if as_json else summary(report))


def summary(report: dict[str, Any]) -> str:
    """The report for a person."""
    if "error" in report:
        return str(report["error"])
    reply, screen = report["latency_ms"]["event_to_reply"], report["latency_ms"]["event_to_screen"]
    lines = [
        f"{report['terminals']} terminals, {report['visits']} visits, {report['events']} events,"
        f" {report['sales_booked']} sales ({report['sales_seen']} seen as paid, {report['voided']} voided)",
        f"event -> reply p50 {reply['p50']} ms, p99 {reply['p99']} ms;"
        f" event -> screen p50 {screen['p50']} ms, p99 {screen['p99']} ms; hosts {report['cpu']['hosts_core']} core",
        f"chaos: {report['chaos'] or 'none'}; killed: {[kill['part'] for kill in report['kills']] or 'nothing'}",
        "every reply once, every sale once, the books agree"
        if report["ok"]
        else f"VIOLATIONS: {report['violations']['rules']}",
    ]
    lines += [f"  {one['rule']}: {one['what']}" for one in report["shown"]]
    if report["rollout"] is not None:
        lines += ["", markdown(report["rollout"])]
    return "\n".join(lines)
