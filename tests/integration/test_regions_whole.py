"""`storeops up` with two regions and two chains: `south` with a database and a broker by URL, `east` embedded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from models.domain.errors import NeedsOperator
from runtime.broker import EmbeddedBroker
from runtime.plant import Plant, read_plants
from runtime.ports import free_port
from runtime.processes import kill_all, log_tail
from tests.integration.house import PAUSE, READY_S_MAX, ROOT, environment, storeops, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture
def up(data_dir: Path, database_url: str, broker: EmbeddedBroker) -> Iterator[subprocess.Popen[bytes]]:
    """The running deployment; its settings and log lie beside its data."""
    data_dir.chmod(0o755)
    values = {
        "regions": {
            "south": {"chain": "demo.yaml", "database": {"url": database_url}, "broker": broker.info.url},
            "east": {"chain": "harbour.yaml"},
        },
        "broker": {"port": free_port()},
        "gateway": {"port": free_port()},
        "ray": {"dashboard": False},
        "faces": {"policy": "demo"},
        "clock": {"may_jump": True},
    }
    settings = data_dir / "two.yaml"
    settings.write_text(yaml.safe_dump(values, sort_keys=False))
    command = [sys.executable, "-m", "runtime", "up", "--data", str(data_dir / "data"), "--config", str(settings)]
    with (data_dir / "up.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            kill_all(family)
        process.wait(10)


def wait_ready(process: subprocess.Popen[bytes], folder: Path) -> tuple[Plant, ...]:
    deadline = time.monotonic() + READY_S_MAX
    while True:
        try:
            return read_plants(folder / "data")
        except NeedsOperator:
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, log_tail(folder / "up.log", 8_000)
            PAUSE.wait(0.1)


def test_two_regions_run_by_one_command(up: subprocess.Popen[bytes], data_dir: Path) -> None:
    south, east = wait_ready(up, data_dir)
    here = ("--data", str(data_dir / "data"))
    assert [(one.region, one.chain) for one in (south, east)] == [("south", "sunrise"), ("east", "harbour")]
    assert (south.broker_embedded, east.broker_embedded) == (False, True)
    assert [host["slot"] for host in storeops("hosts", *here)["hosts"]] == ["south/0", "east/0"]
    assert storeops("hosts", "--region", "east", *here)["hosts"][0]["slot"] == "east/0"
    assert {report["chain"] for report in storeops("settle", *here)["regions"]} == {"sunrise", "harbour"}
    asked = ("--lane", "l9", "--role", "face", "--profile", "dragonfly-2")
    for store, region in (("gz-tianhe", "south"), ("sh-pudong", "east")):
        added = storeops("terminal", "add", "--store", store, *asked, *here)
        assert added["topic_prefix"].startswith(f"so/1/{region}/")
    was = storeops("clock", "now", *here)["regions"]
    storeops("clock", "advance", "--days", "1", *here)
    now = storeops("clock", "now", *here)["regions"]
    assert all(now[region][:10] > was[region][:10] for region in ("south", "east"))

    with httpx.Client(base_url=f"http://127.0.0.1:{south.gateway_port}", trust_env=False) as http:
        wait_until(lambda: http.get("/readyz").status_code == 200, "the console is ready")
        parts = [part["name"] for part in http.get("/startup.json").json()["parts"]]
        assert {"hosts/south", "hosts/east", "faces/east", "settlement/south"} <= set(parts)

        # What is embedded is watched: the broker of `east` comes back, and `south` never noticed.
        pid_file = data_dir / "data" / "broker.pid"
        killed = psutil.Process(int(pid_file.read_text()))
        killed.kill()
        # the broker writes the file in two steps: it may be there and empty
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() not in ("", str(killed.pid)), "broker up")
        assert http.get("/readyz?region=south").status_code == 200

    up.send_signal(signal.SIGINT)
    assert up.wait(10) == 0, log_tail(data_dir / "up.log", 8_000)
    strays = [
        one for one in psutil.process_iter(["cmdline"]) if str(data_dir / "data") in json.dumps(one.info["cmdline"])
    ]
    assert strays == []
