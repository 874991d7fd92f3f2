"""`storeops demo`: the house with its embedded parts, sixty terminals, the story, the settlement, the accounts."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import statistics
import threading
import time
import webbrowser
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from rich.console import Console

from gateway.providers.simulator import SimulatorAdmin
from models.domain.errors import StoreOpsError
from models.domain.ids import StoreId
from models.faces.pipeline import FacePipeline
from models.tables.ledger import ledger_totals
from runtime import administration, clock, demo_rollout
from runtime.bootstrap import DEMO_KEY, House
from runtime.chains import read_chain, terminals_of
from runtime.photos import Photographs, demo_photographs, photographs_from
from runtime.plant import Plant
from runtime.progress import Progress
from runtime.settings import CONFIGS, Settings
from runtime.story import Shop, Story, Tally

MEMBERSHIP_LASTS = timedelta(days=34)
"""Period 30 days, the day after, one day of grace, and some: every membership of the plan is due by then."""
WHEEL_DIR = CONFIGS.parent / "var" / "photos"
PILOT = slice(9, 11)
"""Of the stores whose basket is ours: two that the story leaves alone."""


def run_demo(
    settings: Settings, chain_file: Path, *, once: bool, as_json: bool, photos: Path | None, open_browser: bool
) -> None:
    """Run it; with `once` end after the story with exit code 0 only if everything in it held."""
    console = Console(stderr=True, highlight=False)
    console.print("[bold]storeops[/] — 刷脸到结算，一台电脑一条链路 · from a face to a settled charge")
    house = House(settings, demo=True, chain_file=chain_file, progress=Progress(console))
    stop = threading.Event()

    def end(*_: object) -> None:
        stop.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    [plant] = house.start()
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=house.watch, daemon=True).start()
    result: dict[str, Any] = {"ok": False}
    try:
        result = asyncio.run(_play(house, plant, once, photos, open_browser, console, stop))
    except StoreOpsError as error:
        result = {"ok": False, "error": {"code": error.code, "message": error.message, "do": error.do}}
        console.print(f"[bold red]{error.code}[/]: {error.message}")
    except Exception as error:  # noqa: BLE001 - the result says what went wrong, then everything is stopped
        console.print_exception()
        result = {
            "ok": False,
            "error": {"code": "demo_failed", "message": f"{type(error).__name__}: {error}", "do": ""},
        }
    if once:
        typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _summary(result))
    house.leave(0 if result["ok"] or not once else 1)


async def _play(
    house: House,
    plant: Plant,
    once: bool,
    photos: Path | None,
    open_browser: bool,
    console: Console,
    stop: threading.Event,
) -> dict[str, Any]:
    link = await administration.login_link(plant, demo_rollout.VISITOR)
    console.print(f"ready after {house.ready_s:.1f} s · {house.gateway_url}")
    console.print(f"sign in, once, within 10 minutes: {link}", soft_wrap=True)
    if open_browser:
        webbrowser.open(link)
    people = await asyncio.to_thread(_people, plant, photos)
    if people.kind == "variations":
        console.print("photographs: seeded camera variations of one picture of six people (policy demo)", style="dim")
    chain = read_chain(CONFIGS / "chains" / "demo.yaml")
    folder = plant.data_dir / "terminals"
    folder.mkdir(exist_ok=True)
    shop = Shop(
        chain,
        terminals_of(chain, house.data.secret(DEMO_KEY)),
        region=plant.region,
        broker_host=plant.broker_host,
        broker_port=plant.broker_port,
        provider_url=plant.provider_url,
        folder=folder,
    )
    await shop.start()
    try:
        story = Story(shop, people, lambda text: console.print(f"· {text}", markup=False))
        playing = asyncio.create_task(_perform(house, plant, story, people, console, once))
        stopped = asyncio.create_task(asyncio.to_thread(stop.wait))
        await asyncio.wait({playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            if not once:
                house.leave()  # Ctrl-C waits for nobody: what is unanswered stays in the terminals' outboxes
            playing.cancel()
            return {"ok": False, "error": {"code": "stopped", "message": "stopped by Ctrl-C", "do": ""}}
        return playing.result()
    finally:
        ended = stop.is_set()
        stop.set()
        if not ended:
            await shop.stop()


async def _perform(
    house: House, plant: Plant, story: Story, people: Photographs, console: Console, once: bool
) -> dict[str, Any]:
    """The story; then, unless it is told once, visits at random until somebody stops it."""
    result = await _story(house, plant, story, people, console)
    if not once:
        console.print(f"the story is told · {_summary(result)} · Ctrl-C ends", markup=False)
        await _go_on(story)
    return result


def _people(plant: Plant, photos: Path | None) -> Photographs:
    pipeline = FacePipeline.from_cache(plant.faces_cache)
    if photos is not None:
        return photographs_from(photos, plant.faces_cache, pipeline)
    return demo_photographs(plant.faces_cache, WHEEL_DIR, pipeline)


async def _story(house: House, plant: Plant, story: Story, people: Photographs, console: Console) -> dict[str, Any]:
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute("SELECT id FROM membership")
        earlier = [row[0] for row in await cursor.fetchall()]

    def say(text: str) -> None:
        console.print(f"· {text}", markup=False, soft_wrap=True)

    rollout = await demo_rollout.begin(plant, [StoreId(one) for one in story.ours[PILOT]], say)
    tally = await story.play()
    await _quiet(plant)
    gate_passed = await demo_rollout.passed_its_gate(plant, rollout, say)
    async with _pool(plant) as pool:
        now = await clock.business_now(pool)
    console.print("· the business clock jumps past every expiry and cutoff", markup=False)
    await administration.advance(plant, now + MEMBERSHIP_LASTS)
    return await _accounts(house, plant, story, tally, people, earlier, gate_passed)


async def _quiet(plant: Plant, deadline_s: float = 20.0) -> None:
    """Wait until every ask of the story is done: then the accounts can be compared."""
    end = time.monotonic() + deadline_s
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        while time.monotonic() < end:
            cursor = await conn.execute("SELECT count(*) FROM outbox WHERE done_at IS NULL")
            row = await cursor.fetchone()
            if row is not None and row[0] == 0:
                return
            await asyncio.sleep(0.1)
    raise StoreOpsError("not_quiet", "some asks are not answered", "see the host's log")


async def _go_on(story: Story) -> None:
    """Visits at random until Ctrl-C: the wall lives."""
    randomly = random.Random(7)  # noqa: S311 - a story, not a secret
    while True:
        at = story.shop.face(randomly.choice(story.ours), randomly.choice((1, 2)))
        try:
            await at.open_session()
            for _ in range(randomly.randint(1, 3)):
                await at.scan(story.shop.item(randomly.choice((200, 450, 900, 1200)))[0])
                await asyncio.sleep(randomly.uniform(0.2, 1.0))
            await at.pay_cash()
        except (StoreOpsError, TimeoutError):
            continue  # somebody plays with this lane in the browser
        await asyncio.sleep(randomly.uniform(0.5, 2.0))


def _pool(plant: Plant) -> AsyncConnectionPool[Any]:
    return AsyncConnectionPool(plant.database_url, min_size=1, max_size=2, open=False)


# ---------------------------------------------------------------- accounts


async def _accounts(
    house: House,
    plant: Plant,
    story: Story,
    tally: Tally,
    people: Photographs,
    earlier: list[str],
    gate_passed: bool,
) -> dict[str, Any]:
    async with await AsyncConnection.connect(plant.database_url, autocommit=True) as conn:
        cursor = await conn.execute(
            """SELECT id, fee_fen, used_fen, coalesce(charge_fen, -1), paid_fen, state FROM membership
               WHERE id <> ALL(%s) ORDER BY enrolled_at, id""",
            (earlier,),
        )
        members = [
            {
                "id": row[0],
                "fee_fen": row[1],
                "used_fen": row[2],
                "charge_fen": row[3],
                "saved_fen": row[2] - row[3],
                "state": row[5],
            }
            for row in await cursor.fetchall()
        ]
        totals = await ledger_totals(conn)
        cursor = await conn.execute(
            """SELECT coalesce(sum(e.amount_fen), 0)::bigint FROM entry e JOIN txn t ON t.id = e.txn
               WHERE e.account = 'provider_clearing:alipay' AND e.book = 'posted' AND t.kind <> 'reconciled'"""
        )
        row = await cursor.fetchone()
        ours_fen = row[0] if row is not None else 0
    async with SimulatorAdmin(plant.provider_url) as admin:
        books = await admin.books()
    captured_fen = books["net_fen"]
    agents = [one.agent for one in story.shop.terminals.values()]
    events = [value for agent in agents for value in agent.timings.event_to_screen_ms]
    faces = [value for agent in agents for value in agent.timings.face_to_screen_ms]
    expected = [(4000, 1000), (800, 800), (0, 0), (1600, 1000)]
    held = {
        "members": [(one["used_fen"], one["charge_fen"]) for one in members] == expected
        and all(one["state"] == "CLOSED" for one in members),
        "faces": tally.wrong == 0 and tally.asked == tally.right + tally.refused and tally.asked > 0,
        "strangers": tally.strangers_asked > 0 and tally.strangers_accepted == 0,
        "ledger": totals.sum_fen == 0 and totals.transactions > 0,
        "provider": captured_fen == ours_fen,
        "story": min(tally.cash_sales, tally.qr_sales, tally.refusers, tally.reversals) >= 1,
        "rollout": gate_passed,
    }
    return {
        "ok": all(held.values()),
        "photos": people.kind,
        "recognised": {
            "asked": tally.asked,
            "right": tally.right,
            "wrong": tally.wrong,
            "refused": tally.refused,
        },
        "strangers": {"asked": tally.strangers_asked, "accepted": tally.strangers_accepted},
        "members": [{name: value for name, value in one.items() if name != "state"} for one in members],
        "ledger": {"transactions": totals.transactions, "sum_fen": totals.sum_fen},
        "provider": {"captured_fen": captured_fen, "ours_fen": ours_fen},
        "latency_ms": {"event_to_screen": _latency(events), "face_to_screen": _latency(faces)},
        "seconds": {
            "to_console": round(house.console_s or 0.0, 2),
            "to_ready": round(house.ready_s or 0.0, 2),
            "total": round(time.monotonic() - house.began, 2),
        },
        "held": held,
    }


def _latency(samples: list[float]) -> dict[str, float | int]:
    """n, p50 and p99 in milliseconds (nearest rank)."""
    if not samples:
        return {"n": 0, "p50": 0.0, "p99": 0.0}
    ordered = sorted(samples)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"n": len(samples), "p50": round(statistics.median(ordered), 1), "p99": round(p99, 1)}


def _summary(result: dict[str, Any]) -> str:
    if "recognised" not in result:
        return str(result.get("error", result))
    seen, members = result["recognised"], result["members"]
    charges = ", ".join(f"{one['charge_fen'] / 100:.2f} of {one['fee_fen'] / 100:.2f}" for one in members)
    return (
        f"{'everything holds' if result['ok'] else 'NOT ok: ' + str(result['held'])}; recognised {seen['right']}"
        f" of {seen['asked']}, wrong {seen['wrong']}; charges {charges}; ledger sums to"
        f" {result['ledger']['sum_fen']}, provider {result['provider']['captured_fen']} ="
        f" ours {result['provider']['ours_fen']}"
    )
