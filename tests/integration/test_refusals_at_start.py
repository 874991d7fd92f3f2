"""What a start refuses before it does harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.domain.errors import NeedsOperator
from runtime import __main__ as cli
from runtime.bootstrap import reset_data

pytestmark = [pytest.mark.integration]


def test_reset_deletes_no_folder_that_storeops_did_not_make(data_dir: Path) -> None:
    (data_dir / "thesis.txt").write_text("years of work")
    with pytest.raises(NeedsOperator) as refused:
        reset_data(data_dir)
    assert refused.value.code == "not_a_data_folder"
    assert (data_dir / "thesis.txt").exists()


def test_the_console_is_not_served_in_clear_beyond_this_machine(data_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "up", "--data", str(data_dir)],
        env={**os.environ, "STOREOPS__GATEWAY__HOST": "0.0.0.0"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "gateway_exposed" in done.stderr


def test_a_program_reads_an_error_as_one_object_and_a_person_as_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(status: int, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["storeops", *arguments])
        monkeypatch.setattr(cli, "_end", sys.exit)  # where the engine is loaded it ends the process
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (status, "")
        return err

    nothing_runs = ("hosts", "--data", f"{tmp_path}/[/none]")
    said = told(1, *nothing_runs)
    assert "not_running: " in said
    assert "/[/none]" in said.replace("\n", ""), "what looks like markup is text"
    error = json.loads(told(1, *nothing_runs, "--json"))["error"]
    assert (error["code"], sorted(error)) == ("not_running", ["code", "do", "message"])
    assert f"{tmp_path}/[/none]" in error["message"]
    assert "Usage: " in told(2, "hosts", "--nonesuch")
    assert json.loads(told(2, "hosts", "--nonesuch", "--json"))["error"]["code"] == "usage"


DIES = """
import sys
import ray
from models.domain.errors import NeedsOperator
from runtime import __main__ as cli
from runtime import __main__, hosting

class Worker:
    def __init__(self):
        raise NeedsOperator("net_altered", "this net is not the file that the catalogue names", "put it back")
    def health(self): ...

def up():
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False, num_cpus=1)
    hosting.started([ray.remote(Worker).remote().health.remote()], 60.0)

__main__.app = lambda **_: up()
__main__.main()
"""


@pytest.mark.soak
def test_what_a_worker_died_of_at_its_start_is_told_and_nothing_waits_for_the_engine() -> None:
    done = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "actor_not_started: this net is not the file" in done.stderr.replace("\n", " ")
