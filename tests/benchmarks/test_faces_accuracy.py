"""The accuracy part of the bench, on people that do not exist: a wrong accept is counted as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.domain.recognition import THRESHOLDS, Embedding
from models.faces.survey import Survey
from runtime.bench import faces_accuracy as part
from tests.faces.reports import made_up_survey

NETS = SimpleNamespace(
    dimension=128, thresholds=THRESHOLDS, recogniser_sha256="net", recogniser=SimpleNamespace(calibration="table")
)


def test_right_and_wrong_accepts_are_counted() -> None:
    found = made_up_survey(people=6, photographs=5, likeness=0.9)
    tally = part.identify_all(found, NETS, 500)  # type: ignore[arg-type]
    assert tally == part.Tally(probes=12, right=12, wrong=0, strangers=12, strangers_accepted=0)


def test_a_photograph_in_the_wrong_folder_is_a_wrong_accept() -> None:
    """The last photograph of the first person is another picture of the second one's template."""
    found = made_up_survey(people=6, photographs=5, likeness=0.9)
    others = [np.frombuffer(shot.probe or b"", "<f4") for shot in found.shots if shot.person == 1]
    swapped = Embedding((np.mean(others, axis=0) / np.linalg.norm(np.mean(others, axis=0))).astype("<f4").tobytes())
    last = max(index for index, shot in enumerate(found.shots) if shot.person == 0)
    shots = tuple(replace(shot, probe=swapped, enrol=None) if index == last else shot
                  for index, shot in enumerate(found.shots))  # fmt: skip
    tally = part.identify_all(replace_shots(found, shots), NETS, 500)  # type: ignore[arg-type]
    assert (tally.wrong, tally.strangers_accepted) == (1, 1)


def replace_shots(found: Survey, shots: tuple[object, ...]) -> Survey:
    return replace(found, shots=shots)  # type: ignore[arg-type]


def test_without_photographs_it_says_so_and_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(part.VARIABLE, str(tmp_path / "nowhere"))
    steps: list[str] = []
    rows = part.measure(SimpleNamespace(cache=tmp_path), steps.append)  # type: ignore[arg-type]
    assert [(one.value, one.target, one.ok) for one in rows] == [(0, None, True)]
    assert "no photographs" in rows[0].what
    assert len(steps) == part.STEPS
