"""Where nets run: a GPU that is offered, unless it is forbidden; the CPU always last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnxruntime as ort
import pytest

from models.faces import devices
from models.faces.devices import CPU, Device, providers_of
from models.faces.nets import Nets
from models.faces.pipeline import FacePipeline

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def choice() -> Iterator[None]:
    """The process's choice as it was."""
    yield
    devices.choose(Device.CPU)


@pytest.mark.parametrize(
    ("device", "offered", "names"),
    [
        (Device.AUTO, [CPU], [CPU]),
        (Device.AUTO, ["AzureExecutionProvider", CPU], [CPU]),
        (Device.AUTO, ["TensorrtExecutionProvider", CUDA, CPU], [CUDA, CPU]),
        (Device.AUTO, ["ROCMExecutionProvider", "MIGraphXExecutionProvider", CPU], ["MIGraphXExecutionProvider", CPU]),
        (Device.AUTO, ["CoreMLExecutionProvider", CPU], [CPU]),
        (Device.CPU, [CUDA, CPU], [CPU]),
    ],
)
def test_the_device_by_setting_and_offer(device: Device, offered: list[str], names: list[str]) -> None:
    assert [one if isinstance(one, str) else one[0] for one in providers_of(device, offered)] == names


def test_the_whole_precision_is_asked_of_a_gpu() -> None:
    assert providers_of(Device.AUTO, [CUDA, CPU])[0] == (CUDA, devices.GPU_OPTIONS[CUDA])
    assert devices.GPU_OPTIONS[CUDA]["use_tf32"] == "0"


@pytest.mark.usefixtures("choice")
def test_nets_are_opened_where_it_was_said_and_run_once_before_a_customer_comes(
    monkeypatch: pytest.MonkeyPatch, nets: Nets
) -> None:
    asked: list[object] = []
    real = ort.InferenceSession

    def session(*arguments: Any, **named: Any) -> ort.InferenceSession:
        asked.append(named["providers"])
        return real(*arguments, **{**named, "providers": [CPU]})

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "InferenceSession", session)
    devices.choose(Device.AUTO)
    pipeline = FacePipeline(nets)
    assert asked
    assert all(one == [(CUDA, devices.GPU_OPTIONS[CUDA]), CPU] for one in asked)
    assert devices.in_use() == "cpu", "offered, and does not work here"
    pipeline.warm_up()
