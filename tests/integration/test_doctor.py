"""The guard against foreign code, the doctor's findings and the ticks on the screen."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from runtime import doctor as doctor_module
from runtime.doctor import Check, as_json, as_table, doctor
from runtime.origin import PACKAGES, check
from runtime.ports import free_port
from runtime.progress import Progress, language_of_environment
from runtime.settings import Settings, load_settings

HOME = Path(__file__).resolve().parent.parent.parent
PROBE = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2])['check'](); print('clean')"


def run_check(shadow: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", PROBE, str(shadow), str(HOME / "runtime" / "origin.py")]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)


def test_our_own_code_is_clean(tmp_path: Path) -> None:
    check()
    assert run_check(tmp_path).stdout == "clean\n"


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("shape", ["package", "namespace", "module"])
def test_foreign_code_under_one_of_our_names_is_refused(tmp_path: Path, name: str, shape: str) -> None:
    if shape == "module":
        (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign code ran')\n", encoding="utf-8")
    else:
        (tmp_path / name).mkdir()
        if shape == "package":
            (tmp_path / name / "__init__.py").write_text("raise SystemExit('foreign code ran')\n", encoding="utf-8")
    done = run_check(tmp_path)
    if shape == "namespace":  # a folder without __init__ loses against a package further down the path
        assert done.stdout == "clean\n"
        return
    assert done.returncode != 0
    assert "ForeignCode" in done.stderr
    assert str(tmp_path / name) in done.stderr
    assert "foreign code ran" not in done.stderr


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    ports = {"gateway.port": free_port(), "broker.port": free_port()}
    return load_settings(None, {"data_dir": data_dir, **ports}, {})


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_fit_machine_has_no_failure_and_is_not_changed(settings: Settings, data_dir: Path) -> None:
    before = (data_dir.stat().st_mode, data_dir.stat().st_gid)
    checks = doctor(settings, "en")
    assert [check for check in checks if not check.ok] == []
    assert as_json(checks)["ok"] is True
    json.dumps(as_json(checks))
    assert by_name(checks)["Ray"].warning
    assert "all addresses" in by_name(checks)["Ray"].detail
    assert (data_dir.stat().st_mode, data_dir.stat().st_gid) == before
    assert list(data_dir.iterdir()) == []


def test_a_taken_port_is_a_warning_with_the_next_one(settings: Settings) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", settings.gateway.port))
        listener.listen()
        found = by_name(doctor(settings, "en"))["console port"]
    assert found.warning
    assert str(settings.gateway.port) in found.detail
    assert "will be taken" in found.do


def test_readable_secrets_are_a_failure(settings: Settings, data_dir: Path) -> None:
    (data_dir / "secrets").mkdir(mode=0o700)
    (data_dir / "secrets" / "key").touch(mode=0o644)
    (data_dir / "secrets" / "key").chmod(0o644)
    found = by_name(doctor(settings, "en"))["secrets"]
    assert not found.ok
    assert "key" in found.detail
    (data_dir / "secrets" / "key").chmod(0o600)
    assert by_name(doctor(settings, "en"))["secrets"].ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")
def test_a_closed_data_folder_is_a_failure(data_dir: Path) -> None:
    settings = load_settings(None, {"data_dir": data_dir / "inner"}, {})
    data_dir.chmod(0o700)
    found = by_name(doctor(settings, "en"))["data folder"]
    assert not found.ok
    assert "--data" in found.do


def test_a_missing_mosquitto_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "find_program", lambda: None)
    assert by_name(doctor(settings, "en"))["broker"].warning
    forced = settings.model_copy(update={"broker": settings.broker.model_copy(update={"kind": "mosquitto"})})
    assert not by_name(doctor(forced, "en"))["broker"].ok


def test_both_languages_say_the_same(settings: Settings) -> None:
    english, chinese = doctor(settings, "en"), doctor(settings, "zh")
    assert [(c.ok, c.warning, bool(c.do)) for c in english] == [(c.ok, c.warning, bool(c.do)) for c in chinese]
    assert not any("\u4e00" <= letter <= "\u9fff" for c in english for letter in c.name + c.detail + c.do)
    screen = Console(file=io.StringIO(), width=200, force_terminal=False)
    screen.print(as_table([*chinese, Check("x", False, "y", "z")], "zh"))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "数据目录" in shown
    assert "✗" in shown


def ticks(terminal: bool, act: Callable[[Progress], None]) -> str:
    screen = Console(file=io.StringIO(), width=100, force_terminal=terminal, color_system=None)
    act(Progress(screen, "en"))
    return screen.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_ticks_off_each_part(terminal: bool) -> None:
    times: dict[str, int] = {}

    def act(progress: Progress) -> None:
        with progress.part("database") as database, progress.part("broker"):
            database.detail = "postgresql://…"
        with pytest.raises(ZeroDivisionError), progress.part("ray"):
            raise ZeroDivisionError
        with progress.stopping("database"):
            pass
        times.update(progress.ready_ms)

    shown = ticks(terminal, act)
    for expected in ("✓ broker", "✓ database", "postgresql://…", "✗ Ray", "failed", "■ database stopped", " ms"):
        assert expected in shown
    assert list(times) == ["broker", "database"]


def test_the_language_is_the_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert language_of_environment() == "en"
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert language_of_environment() == "zh"
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert language_of_environment() == "en"


def test_each_of_several_regions_is_examined(data_dir: Path) -> None:
    regions = {
        "south": {"chain": "demo.yaml", "broker": "mqtt://127.0.0.1:9"},
        "east": {"chain": "harbour.yaml"},
    }
    checks = {
        check.name: check for check in doctor(load_settings(None, {"regions": regions, "data_dir": data_dir}, {}), "en")
    }
    assert (checks["region south"].ok, "127.0.0.1:9" in checks["region south"].detail) == (False, True)
    assert (checks["region east"].ok, checks["region east"].detail) == (True, "harbour")
    regions["east"]["chain"] = "demo.yaml"
    [check] = [check for check in doctor(load_settings(None, {"regions": regions}, {}), "zh") if check.name == "区域"]
    assert (check.ok, "gz-tianhe" in check.detail) == (False, True)
