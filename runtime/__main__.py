"""The command line. Results go to standard output, everything else to standard error; `--json` on every verb."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from models.domain.errors import Refused, StoreOpsError
from runtime import credential_verbs, liveness_keys_cli, origin, terminal_verbs, verbs
from runtime.bench.cli import bench_app
from runtime.config_cli import config_app
from runtime.datadir import default_data_dir
from runtime.drawer_cli import drawer_app
from runtime.faces_cli import faces_app
from runtime.fleet_cli import fleet
from runtime.hosts_cli import hosts_app
from runtime.kill_cli import kill_app
from runtime.ledger_cli import entity_app, ledger_app
from runtime.member_money_cli import agreement_app, balance_app
from runtime.membership_cli import membership_app
from runtime.papers_cli import invoice, points_app, prices_app, receipts_app
from runtime.permissions_cli import permissions_app
from runtime.plan_cli import plan_app
from runtime.pricing_cli import pricing_app
from runtime.privacy_cli import privacy_app
from runtime.reconciliation_cli import day_app, reconcile_app
from runtime.rollout_cli import rollout_app
from runtime.settings import CONFIGS, Settings, load_settings
from runtime.settlement_cli import settle_app
from runtime.software_cli import software_app
from runtime.telemetry import configure_logs

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
terminal_app = typer.Typer(no_args_is_help=True, help="Terminals: register one, run one on this laptop.")
clock_app = typer.Typer(no_args_is_help=True, help="The business clock.")
app.add_typer(terminal_app, name="terminal")
app.add_typer(clock_app, name="clock")
app.add_typer(bench_app, name="bench")
app.add_typer(hosts_app, name="hosts")
app.add_typer(drawer_app, name="drawer")
app.add_typer(membership_app, name="membership")
app.add_typer(balance_app, name="balance")
app.add_typer(agreement_app, name="agreement")
app.add_typer(plan_app, name="plan")
app.add_typer(faces_app, name="faces")
app.add_typer(privacy_app, name="privacy")
app.add_typer(pricing_app, name="pricing")
app.add_typer(ledger_app, name="ledger")
app.add_typer(entity_app, name="entity")
app.add_typer(prices_app, name="prices")
app.add_typer(receipts_app, name="receipts")
app.add_typer(points_app, name="points")
app.add_typer(permissions_app, name="permissions")
app.command()(invoice)
app.add_typer(reconcile_app, name="reconcile")
app.add_typer(day_app, name="day")
app.add_typer(settle_app, name="settle")
app.add_typer(rollout_app, name="rollout")
app.add_typer(kill_app, name="kill")
app.add_typer(software_app, name="software")
app.command()(fleet)
verbs.register(app)
terminal_verbs.register(terminal_app)
credential_verbs.register(terminal_app, app)
liveness_keys_cli.register(terminal_app)
app.add_typer(config_app, name="config")
err = Console(stderr=True, highlight=False)

InRegion = Annotated[str | None, typer.Option("--region", help="Which region; not needed where there is one.")]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder; the default is shown by `storeops doctor`.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file over configs/default.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]

DEMO_DATA = "storeops-demo"
DEMO_CHAIN = CONFIGS / "chains" / "demo.yaml"


def main() -> None:
    """Entry point: an error of ours is one sentence and what to do, never a traceback."""
    try:
        origin.check()
        configure_logs()
        code = app(standalone_mode=False)
    except StoreOpsError as error:
        _tell(error.code, error.message, error.do)
        _end(1)
    except typer.Abort:
        sys.exit(130)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Exception as error:  # noqa: BLE001 - told whole, then the process ends
        show = getattr(error, "show", None)  # click's usage errors print themselves
        if show is None:
            traceback.print_exc()
            _end(1)
        if "--json" in sys.argv:
            _tell("usage", getattr(error, "format_message", error.__str__)(), "see --help of this verb")
        else:
            show()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


def _tell(code: str, message: str, do: str) -> None:
    """One sentence and what to do; for a program that asked for `--json`, one object with the same."""
    if "--json" in sys.argv:
        told = json.dumps({"error": {"code": code, "message": message, "do": do}}, ensure_ascii=False)
        sys.stderr.write(f"{told}\n")
        return
    err.print(f"[bold red]{code}[/]: {escape(message)}")
    if do:
        err.print(f"→ {do}", markup=False)


def _end(code: int) -> NoReturn:
    """End this process. Where Ray was loaded its own hooks would first wait a minute for an engine that is gone."""
    if "ray" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def print_result(value: dict[str, Any], as_json: bool, text: str) -> None:
    """The result: one JSON object, or a sentence."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


@app.command()
def up(
    data: Data = None,
    config: Config = None,
    chain: Annotated[Path | None, typer.Option(help="Chain file to apply, e.g. configs/chains/demo.yaml.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Delete the data folder first.")] = False,
) -> None:
    """Start everything and keep it running until Ctrl-C."""
    overrides = {"data_dir": str(data)} if data is not None else {}
    settings = load_settings(config, overrides)
    run_house(settings, chain_file=chain, reset=reset)


def run_house(settings: Settings, *, chain_file: Path | None, reset: bool) -> None:
    """`up` in the foreground."""
    from runtime.bootstrap import House, reset_data
    from runtime.progress import Progress

    if reset:
        reset_data(settings.data_dir or default_data_dir())
    house = House(settings, demo=False, chain_file=chain_file, progress=Progress())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    plant, *_ = house.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    watcher = threading.Thread(target=house.watch, daemon=True)
    watcher.start()
    from runtime import administration  # the console does not wait for it

    link = asyncio.run(administration.login_link(plant))
    err.print(f"ready after {house.ready_s:.1f} s · {house.gateway_url}", markup=False)
    err.print(f"sign in, once, within 10 minutes: {link}", markup=False, soft_wrap=True)
    stop.wait()
    house.leave()


@app.command()
def demo(
    data: Data = None,
    config: Config = None,
    once: Annotated[bool, typer.Option("--once", help="Run the story to its end, then stop.")] = False,
    as_json: AsJson = False,
    photos: Annotated[Path | None, typer.Option(help="A folder per person, at least four photographs each.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget the last demonstration first.")] = False,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the console.")] = False,
) -> None:
    """Twenty stores, sixty terminals, real photographs: the whole way from a face to a settled charge."""
    from runtime.demo import run_demo

    root = data or default_data_dir().with_name(DEMO_DATA)
    overrides: dict[str, Any] = {
        "data_dir": str(root),
        "region": {"name": "south-china", "chain": "sunrise"},
        "faces": {"policy": "production" if photos is not None else "demo"},
        "clock": {"may_jump": True},
    }
    settings = load_settings(config, overrides)
    if reset or once:
        from runtime.bootstrap import reset_data

        reset_data(settings.data_dir or default_data_dir())
    run_demo(settings, DEMO_CHAIN, once=once, as_json=as_json, photos=photos, open_browser=open_browser)


@app.command()
def doctor(data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Check this machine: ports, disk, clock, python, limits, broker, Ray."""
    from runtime import doctor as examination

    settings = load_settings(config, {"data_dir": str(data)} if data is not None else {})
    checks = examination.doctor(settings)
    if as_json:
        typer.echo(json.dumps(examination.as_json(checks), ensure_ascii=False))
    else:
        Console().print(examination.as_table(checks))
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


@app.command()
def login(
    person: Annotated[str, typer.Option("--as", help="Who signs in: permissions are given to a person.")] = "",
    data: Data = None,
    demo_: Annotated[bool, typer.Option("--demo")] = False,
    as_json: AsJson = False,
) -> None:
    """A link that signs one browser in, once, within ten minutes."""
    from runtime import administration

    link = asyncio.run(administration.login_link(administration.running_all(data, demo_)[0], person))
    print_result({"url": link}, as_json, link)


@clock_app.command("now")
def clock_now(
    region: InRegion = None,
    data: Data = None,
    demo_: Annotated[bool, typer.Option("--demo")] = False,
    as_json: AsJson = False,
) -> None:
    """Business time now, of one region or of each."""
    from runtime import administration

    times = asyncio.run(administration.clocks(administration.running_all(data, demo_), region))
    now = next(iter(times.values()))
    text = "\n".join(f"{name:<20} {time}" for name, time in times.items()) if len(times) > 1 else now
    print_result({"business_now": now, "regions": times}, as_json, text)


@clock_app.command("advance")
def clock_advance(
    to: Annotated[
        datetime | None, typer.Option(help="Business time to reach, ISO 8601; UTC unless it has an offset.")
    ] = None,
    days: Annotated[int, typer.Option(min=0, max=3_660, help="Instead: so many days from business time now.")] = 0,
    region: InRegion = None,
    data: Data = None,
    demo_: Annotated[bool, typer.Option("--demo")] = False,
    as_json: AsJson = False,
) -> None:
    """Move the business clock forward, stopping at everything that is due on the way. Never in production.

    Regions that share a database share its clock. Without --region every region's clock is moved.
    """
    from runtime import administration

    if (to is None) == (days == 0):
        raise Refused("clock_where", "how far shall the clock go?", "give either --to or --days")
    plants = administration.running_all(data, demo_)
    if to is None:
        times = asyncio.run(administration.clocks(plants, region))
        to = max(datetime.fromisoformat(time) for time in times.values()) + timedelta(days=days)
    advanced = asyncio.run(administration.advance_regions(plants, region, to, err))
    print_result(advanced, as_json, f"{advanced['was']} -> {advanced['now']}, {advanced['stops']} stops")


@terminal_app.command("add")
def terminal_add(
    store: Annotated[str, typer.Option()],
    lane: Annotated[str, typer.Option()],
    role: Annotated[str, typer.Option(help="face, till, clerk, customer or self: what it does in the lane")],
    profile: Annotated[str, typer.Option(help="Its family of hardware: dragonfly-2, till, kiosk, parking …")],
    terminal: Annotated[str | None, typer.Option("--id", help="Its id; made from store and role otherwise.")] = None,
    data: Data = None,
    demo_: Annotated[bool, typer.Option("--demo")] = False,
    as_json: AsJson = False,
) -> None:
    """Register a terminal. Prints topic prefix, user name and secret: once, they are not kept in clear."""
    from runtime import administration

    plant = asyncio.run(administration.of_store(administration.running_all(data, demo_), store))
    added = asyncio.run(administration.add_terminal(plant, store, lane, role, profile, terminal))
    text = "\n".join(f"{name:<13} {value}" for name, value in added.items())
    print_result(added, as_json, text)


@terminal_app.command("run")
def terminal_run(
    terminal: Annotated[
        str | None, typer.Option("--id", help="A registered terminal of a house that runs here.")
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="A folder per customer.")] = None,
    camera: Annotated[str | None, typer.Option(help="A camera's number (0), or a video file, as the customer.")] = None,
    secret: Annotated[str | None, typer.Option(envvar="STOREOPS_TERMINAL_SECRET")] = None,
    enrol: Annotated[str | None, typer.Option(help="A one-time code: enrol this machine as a terminal first.")] = None,
    gateway: Annotated[str | None, typer.Option(help="With --enrol: the gateway that made the code.")] = None,
    certificate: Annotated[bool, typer.Option("--certificate", help="With --enrol: a certificate, no secret.")] = False,
    home: Annotated[Path | None, typer.Option(help="Where an enrolled terminal keeps its credential.")] = None,
    language: Annotated[str | None, typer.Option(help="zh or en; the chain's otherwise.")] = None,
    data: Data = None,
    demo_: Annotated[bool, typer.Option("--demo")] = False,
) -> None:
    """Run one terminal on this laptop: photographs or a camera are its customers, `help` lists the keys."""
    from runtime import terminal_run as running

    if photos is not None and camera is not None:
        raise Refused("which_customers", "photographs or a camera?", "give one of --photos and --camera")
    if language not in (None, "zh", "en"):
        raise Refused("which_language", f"{language!r} is not spoken here", "zh or en")
    if terminal is None:
        config, provider = (
            asyncio.run(running.enrolled(home or running.default_home(), enrol, gateway, certificate=certificate)),
            None,
        )
    else:
        from runtime import administration

        plant = asyncio.run(administration.of_terminal(administration.running_all(data, demo_), terminal))
        config, provider = asyncio.run(running.registered(plant, terminal, secret)), plant.provider_url or None
        config = running.with_home(config, home)
    asyncio.run(running.play(config, photos=photos, camera=camera, language=language, provider_url=provider))


@app.command("provider-sim")
def provider_sim(
    data: Data = None,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 18_840,
    script: Annotated[Path | None, typer.Option(help="Faults, YAML or JSON (docs/providers.md).")] = None,
) -> None:
    """Run the payment provider's simulator alone."""
    from gateway.providers.simulator import run_simulator
    from models.domain.errors import NeedsOperator

    try:
        story = script.read_text(encoding="utf-8") if script is not None else ""
        run_simulator(host, port, data or default_data_dir() / "provider", story)
    except (OSError, ValueError) as error:
        raise NeedsOperator(
            "script_invalid", f"{script}: {error}", "write it as docs/providers.md shows, or leave --script out"
        ) from error


if __name__ == "__main__":
    main()
