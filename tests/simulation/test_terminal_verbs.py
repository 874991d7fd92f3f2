"""What the command line refuses before it looks for a house: each with what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from models.domain.errors import Refused
from runtime.__main__ import app
from runtime.commands import new_command
from runtime.terminal_verbs import whole_fen

GOOD = ["--url", "https://example.org/2.bin", "--sha256", "a" * 64, "--size", "10"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["desired", "t1"], "nothing_desired"),
        (["desired", "t1", "--set", "{"], "bad_config"),
        (["desired", "t1", "--software", "2.0", "--size", "5"], "bad_software"),
        (["desired", "t1", "--software", "2.0", *GOOD[:4], "--size", "0"], "bad_software"),
        (["command", "t1", "explode"], "unknown_verb"),
        (["command", "t1", "reboot", "--arg", "x"], "bad_args"),
    ],
)
def test_words_that_make_no_sense(words: list[str], code: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["terminal", *words, "--data", str(tmp_path)])
    assert isinstance(result.exception, Refused)
    assert result.exception.code == code
    assert result.exception.do


def test_an_argument_is_a_number_when_it_looks_like_one() -> None:
    asked = new_command("show_text", ["text=5 yuan", "seconds=5", "offset=-3", "code=12345678901234567"], 10)
    assert dict(asked.args) == {"text": "5 yuan", "seconds": 5, "offset": -3, "code": "12345678901234567"}


def amounts(command: Any, path: str = "storeops") -> Iterator[tuple[str, Any]]:
    """Every option below a command that means fen, by its name or by what it says of itself."""
    for name, below in getattr(command, "commands", {}).items():
        yield from amounts(below, f"{path} {name}")
    for option in command.params:
        if re.search(r"\bfen\b", f"{' '.join(option.opts)} {getattr(option, 'help', '')}"):
            yield f"{path} {option.opts[0]}", option


def test_every_amount_of_the_command_line_is_whole_fen() -> None:
    group: Any = typer.main.get_command(app)
    found = dict(amounts(group))
    assert {"storeops agreement sign --day-fen", "storeops pricing preview --used"} <= found.keys()
    for option in found.values():
        context = group.make_context("storeops", ["clock", "show"], resilient_parsing=True)
        assert option.process_value(context, "200") == 200
        with pytest.raises(typer.BadParameter, match="whole fen"):
            option.process_value(context, "200.00")
    assert whole_fen(0) == 0, "a default is an integer already"
