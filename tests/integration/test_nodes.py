"""A node is lost, frozen, or taken out in order: its stores are served elsewhere, every effect is there once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import scratch_data_dir
from tests.integration.house import ROOT, Note, environment

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(400)]

SERVED_ELSEWHERE_S_MAX = 8.0


def measure(folder: Path) -> dict[str, Any]:
    """A process of its own has the cluster: raylets, engine and driver stay out of the tests'."""
    done = subprocess.run(
        [sys.executable, "-m", "runtime.bench.nodes", str(folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_node_that_is_lost_frozen_or_drained_is_served_elsewhere(note: Note) -> None:
    with scratch_data_dir() as folder:
        folder.chmod(0o755)
        found = measure(folder)
    note("lost_node_served_s", found["lost"]["served_s"])
    note("frozen_node_served_s", found["frozen"]["served_s"])
    note("drained_node_longest_s", found["drained_longest_s"])
    for loss in (found["lost"], found["frozen"]):
        assert (loss["lost"], loss["doubled"]) == (0, 0)
        assert loss["served_s"] <= SERVED_ELSEWHERE_S_MAX
    thaw = found["thawed"]
    assert (thaw["rows_changed"], thaw["messages_sent"]) == (0, 0)
    assert thaw["epochs"][0] == thaw["epochs"][1]
    assert thaw["heard"] > 0
