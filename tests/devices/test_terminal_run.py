"""`terminal run` for a terminal that is enrolled at a house elsewhere: one code, one credential, then it plays."""

from __future__ import annotations

import io
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from devices.interactive import run_terminal
from models.domain.errors import NeedsOperator, Refused
from runtime import terminal_run
from runtime.broker import EmbeddedBroker
from tests.devices.files import serving
from tests.devices.support import SmallHost, fresh
from tests.devices.test_duties import answer_for


async def test_enrolled_once_it_connects_by_itself_ever_after(shared_broker: EmbeddedBroker, tmp_path: Path) -> None:
    terminal, secret = fresh("kiosk"), uuid.uuid4().hex
    shared_broker.add_user(terminal.terminal, secret)
    with serving() as gateway:
        gateway.posts["/terminals/enrol"] = lambda _: (200, answer_for(shared_broker, terminal, secret))
        first = await terminal_run.enrolled(tmp_path / "home", "1234-5678", f"{gateway.url}/", certificate=False)
    again = await terminal_run.enrolled(tmp_path / "home", None, None, certificate=False)
    assert again == first
    assert again.secret == secret
    output = io.StringIO()
    async with SmallHost(shared_broker, terminal) as host:
        await run_terminal(
            again, console=Console(file=output, width=140), commands=io.StringIO("open\nquit\n"), language="zh"
        )
        assert len(host.events) == 1
    assert "自助收银机" in output.getvalue()


async def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator) as caught:
        await terminal_run.enrolled(tmp_path, None, None, certificate=False)
    assert caught.value.code == "not_enrolled"
    with pytest.raises(Refused) as refused:
        await terminal_run.enrolled(tmp_path, "1234", None, certificate=False)
    assert refused.value.code == "enrol_where"


def test_a_restart_uses_no_code_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["storeops", "terminal", "run", "--enrol", "1234", "--home", "h", "--enrol=5"])
    terminal_run.restart_program("stuck")
    assert started[0][1:] == ["-m", "runtime", "terminal", "run", "--home", "h"]
