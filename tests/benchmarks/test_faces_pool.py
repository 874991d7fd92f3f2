"""What `storeops bench faces` says of workers behind their desk; the measuring itself is not a test."""

from __future__ import annotations

import importlib

import pytest
from rich.console import Console

from models.domain.errors import Refused
from runtime.bench import faces
from runtime.bench.faces_pool import Figures, rows


def measured(
    one: float = 40.0, two: float = 76.0, found_ms: float = 30.0, crops: float = 50.0, two_crops: float = 98.0
) -> Figures:
    return Figures(
        bare_crops=[55.0, 10.0, 56.0],
        look_crops=[54.0, 55.0, 55.0],
        one_crops=[crops, 1.0, 90.0],
        bare_frames=[44.0, 43.0, 44.0],
        one_frames=[one],
        two_frames=[two],
        two_crops=[two_crops],
        two_looks=[85.0],
        bare_ms=[22.0] * 40,
        found_ms=[found_ms] * 60 + [90.0] * 40,
        bare_crop_cpu_ms=[14.0],
        crop_cpu_ms=[16.0],
        bare_frame_cpu_ms=[21.0],
        frame_cpu_ms=[23.0],
        desk_cpu_ms=[2.0],
        host_cpu_ms=[1.0],
    )


def test_the_promises_of_a_pool() -> None:
    assert {one.what: one.target for one in rows(measured()) if one.target is not None} == {
        "one worker, 720p frames": ">= 0.9 x",
        "one worker, aligned crops": ">= 0.9 x",
        "one worker, aligned crops, by the net": ">= 0.9 x",
        "two workers, 720p frames": ">= 1.8 x",
        "two workers, aligned crops": ">= 1.8 x",
        "identification of one 720p JPEG among 10,000, p50": "<= 35",
    }
    assert all(one.ok for one in rows(measured()))


@pytest.mark.parametrize(
    ("slow", "missed"),
    [
        ({"one": 39.0, "two": 90.0}, ["one worker, 720p frames"]),
        ({"two": 71.0}, ["two workers, 720p frames"]),
        ({"two_crops": 89.0}, ["two workers, aligned crops"]),
        ({"found_ms": 35.1}, ["identification of one 720p JPEG among 10,000, p50"]),
        ({"crops": 49.0}, ["one worker, aligned crops", "one worker, aligned crops, by the net"]),
    ],
)
def test_each_can_be_missed(slow: dict[str, float], missed: list[str]) -> None:
    assert [one.what for one in rows(measured(**slow)) if not one.ok] == missed


@pytest.mark.parametrize("name", faces.PARTS)
def test_each_part_is_a_module_of_the_form(name: str) -> None:
    part = importlib.import_module(faces.PARTS[name])
    assert part.STEPS >= 1
    assert callable(part.measure)


def test_a_part_that_is_none_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(Refused, match="no part 'rebuilt'"):
        faces.run(Console(), only="rebuilt")
    assert all(importlib.import_module(module).STEPS > 0 for module in faces.PARTS.values())
