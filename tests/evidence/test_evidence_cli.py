"""What a stage can see, and what its looks found: the two verbs, their words and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from models.domain.errors import NeedsOperator
from runtime.__main__ import app
from runtime.evidence import judge
from runtime.evidence_cli import power_shown
from runtime.evidence_trial import Chain, Size, trial
from tests.evidence.test_judge import SAFETY, calm, chain_of, judged

PNG = b"\x89PNG"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["rollout", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_table_of_what_is_seen_with_its_picture(tmp_path: Path) -> None:
    folder = str(tmp_path)
    said = json.loads(run("power", "--stores", "2", "--stores", "12", "--runs", "20", "--plots", folder, "--json"))
    few, more = said["sizes"]
    assert (few["treated"], few["controls"], more["treated"]) == (2, 2, 12)
    assert few["mde"] > more["mde"] > 0
    assert {"wrong", "covered", "plain_z_wrong", "found_at_mde"} <= set(few)
    assert [one["days"] for one in said["safety"]] == [1, 3, 7]
    [picture] = said["plots"]
    assert Path(picture).read_bytes().startswith(PNG)


def test_the_table_for_a_person() -> None:
    one = trial(Size(12, 3), Chain(), 10, 5)
    assert next(column.header for column in power_shown({"sizes": [one]}, "zh").columns) == "门店"
    out = Console(width=100)
    with out.capture() as said:
        out.print(power_shown({"sizes": [one]}, "en"))
    assert "12 v 3" in said.get()


def test_the_same_seed_the_same_table() -> None:
    assert trial(Size(3, 3), Chain(), 10, 5) == trial(Size(3, 3), Chain(), 10, 5)
    assert trial(Size(3, 3), Chain(), 10, 5) != trial(Size(3, 3), Chain(), 10, 6)


def test_evidence_that_was_stored_is_told_and_drawn(tmp_path: Path) -> None:
    samples = chain_of(20, 20, 0.2)
    looks = [judged(samples, day) for day in (7, 14)]
    stored = tmp_path / "verdicts.json"
    stored.write_text(json.dumps([one.document() for one in looks]), "utf-8")
    said = json.loads(run("evidence", str(stored), "--plots", str(tmp_path), "--json"))
    assert [one["look"] for one in said["verdicts"]] == [1, 2]
    assert said["verdicts"][1]["why"] == {"zh": looks[1].why.zh, "en": looks[1].why.en}
    assert Path(said["plots"][0]).read_bytes().startswith(PNG)
    assert "2/2 better" in run("evidence", str(stored))


def test_what_cannot_be_drawn_or_read_says_what_to_do(tmp_path: Path) -> None:
    stored = tmp_path / "verdict.json"
    stored.write_text(json.dumps(judge(SAFETY, {one: [calm("a")] for one in SAFETY.safety}, 3).document()), "utf-8")
    with pytest.raises(NeedsOperator, match="no look"):
        run("evidence", str(stored), "--plots", str(tmp_path))
    stored.write_text("{}", "utf-8")
    with pytest.raises(NeedsOperator, match="verdict"):
        run("evidence", str(stored))
    with pytest.raises(NeedsOperator, match="91"):
        run("power", "--look-day", "0", "--runs", "10")
