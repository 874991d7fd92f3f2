"""`storeops fleet`: the command's options; what it does is in fleet.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.datadir import default_data_dir
from runtime.settings import load_settings

FLEET_DATA = "storeops-fleet"


def fleet(
    stores: Annotated[int, typer.Option(min=1, max=10_000, help="Stores with one lane each.")] = 1_000,
    terminals: Annotated[int, typer.Option(min=1, max=8, help="Terminals of a lane: face, till, face, …")] = 3,
    rate: Annotated[float, typer.Option(min=0.1, max=5_000, help="Events a second, the day's mean.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="How long the compressed day takes.")] = 60.0,
    chaos: Annotated[
        str,
        typer.Option(
            help="all, none, or some of: offline, flapping, duplicates, reordering, lying, broken, slow, takeover,"
            " strangers, and kills of broker, host, database, gateway."
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Who comes when, and what goes wrong where.")] = 1,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Hosts of the fleet's own house.")] = 1,
    flat: Annotated[bool, typer.Option("--flat", help="The same rate all day, every shop open.")] = False,
    brisk: Annotated[
        bool, typer.Option("--brisk", help="Repeat after 1 s, reconnect within 2 s: for runs of a minute.")
    ] = False,
    switches: Annotated[
        bool, typer.Option("--switches", help="Throw and lift each kill switch through the day, and time it.")
    ] = False,
    rollout: Annotated[
        str | None,
        typer.Option("--rollout", help="Roll software out through the day: a policy of configs/rollouts, or a file."),
    ] = None,
    software_faults: Annotated[
        str,
        typer.Option(
            help="Stores that cannot do with new software: none, good (5 % are offline), defaults (3 % fail, 5 % are"
            " offline, 1 % lie, 1 % flap), or a YAML file of failing, offline, lying, flapping in per mille."
        ),
    ] = "none",
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the fleet's own house; emptied first.")] = None,
    attach: Annotated[
        Path | None, typer.Option("--attach", help="Instead: data folder of a house that runs; it is not killed.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file over configs/default.yaml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """A chain of simulated stores over real MQTT, with chaos, held against the books. Exit code 1 on a violation."""
    from models.domain.errors import Refused
    from runtime.fleet import REGION, FleetPlan, parse_chaos, run_fleet
    from runtime.fleet_rollout import shares_of

    overrides: dict[str, Any] = {
        "data_dir": str(data or default_data_dir().with_name(FLEET_DATA)),
        "region": {"name": REGION, "chain": "fleet", "slots": slots},
        "ray": {"dashboard": False},
        "clock": {"may_jump": True},
    }
    settings = load_settings(config, overrides)
    faults = shares_of(software_faults)
    if faults is not None and rollout is None:
        raise Refused("faults_of_nothing", "these faults show in a rollout of software", "give --rollout software too")
    chaos_kinds = parse_chaos(chaos)
    plan = FleetPlan(stores, terminals, rate, seconds, chaos_kinds, seed, flat, brisk, switches, rollout, faults)
    raise typer.Exit(run_fleet(plan, settings, as_json=as_json, attach_to=attach))
