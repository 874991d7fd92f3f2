"""The vendor's first terminal, exactly as the documents print it, against the running house."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.documents import ROOT, fences
from tests.integration.house import House, storeops, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

EN, ZH = ROOT / "docs" / "first-terminal.md", ROOT / "docs" / "first-terminal.zh-CN.md"


def code(language: str) -> list[str]:
    return fences(EN.read_text("utf-8"), language)


def test_both_languages_print_the_same_programs() -> None:
    for language in ("sh", "python"):
        assert code(language) == fences(ZH.read_text("utf-8"), language)


def test_thirty_lines_are_about_thirty() -> None:
    [program] = code("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 40
    assert set(re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE)) == {"json", "datetime", "paho"}


def registered(house: House, lane: str) -> dict[str, Any]:
    """By the documented command, at this house in place of the demonstration."""
    words = code("sh")[0].split()
    command = [*words[1 : words.index("--demo")], "--data", str(house.data)]
    command[command.index("lane-9")] = lane
    return storeops(*command)


def sold(house: House, receipt: str, lane: str) -> None:
    [(due, tenders)] = house.rows("SELECT due_fen, tenders FROM sale WHERE receipt = %s AND lane = %s", (receipt, lane))
    assert due == 1590
    assert tenders[0]["change_fen"] == 410
    house.check_books()


def test_in_python(house: House, tmp_path: Path) -> None:
    import json

    access = registered(house, "first-py")
    (tmp_path / "access.json").write_text(json.dumps(access))
    (tmp_path / "first_terminal.py").write_text(code("python")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "first_terminal.py", "access.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [(receipt,)] = house.rows("SELECT receipt FROM sale WHERE terminal = %s", (access["username"],))
    assert receipt in done.stdout
    sold(house, receipt, "first-py")
    query = "SELECT software FROM presence WHERE terminal = %s"
    wait_until(lambda: house.rows(query, (access["username"],)) == [("first 1",)], "its birth was booked")


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="needs apt-get install mosquitto-clients")
def test_in_a_shell(house: House, tmp_path: Path) -> None:
    access = registered(house, "first-sh")
    values = {
        "P": access["topic_prefix"],
        "U": access["username"],
        "S": access["secret"],
        "HOST": access["broker_host"],
        "PORT": str(access["broker_port"]),
    }
    done = subprocess.run(
        ["sh", "-eu", "-c", code("sh")[1]],
        cwd=tmp_path,
        env={**os.environ, **values},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.fullmatch(r'"no":"([^"]+)"', done.stdout.strip().splitlines()[-1])
    assert match is not None
    sold(house, match.group(1), "first-sh")
