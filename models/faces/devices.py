"""What a process's nets run on: a GPU when onnxruntime offers one and the settings do not forbid it, else the CPU.

One choice for each process, before its first net is opened: a face worker is one process on one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import onnxruntime as ort

CPU = "CPUExecutionProvider"
GPU_OPTIONS: dict[str, dict[str, Any]] = {
    "CUDAExecutionProvider": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
    "MIGraphXExecutionProvider": {},
    "ROCMExecutionProvider": {},
}
"""In order of preference. TF32 would round what the parity check compares. Not among them: TensorRT, which compiles
for minutes, and CoreML, whose half precision fails the parity check."""

Provider = str | tuple[str, dict[str, Any]]


class Device(StrEnum):
    """The setting `faces.device`."""

    AUTO = "auto"
    CPU = "cpu"


def providers_of(device: Device, offered: Sequence[str]) -> list[Provider]:
    """For onnxruntime, the preferred one first; the CPU is always the last."""
    gpus = [name for name in GPU_OPTIONS if name in offered] if device is Device.AUTO else []
    return [*((name, GPU_OPTIONS[name]) for name in gpus[:1]), CPU]


class _Process:
    """Of this process."""

    providers: tuple[Provider, ...] = (CPU,)
    opened_on: str = CPU


def choose(device: Device) -> None:
    """For every net that this process opens from now on."""
    _Process.providers = tuple(providers_of(device, ort.get_available_providers()))


def chosen() -> list[Provider]:
    """What to open the next net with."""
    return list(_Process.providers)


def opened(session: ort.InferenceSession) -> ort.InferenceSession:
    """Notes where a net runs: onnxruntime falls back to the CPU when a GPU is offered and does not work."""
    _Process.opened_on = str(session.get_providers()[0])
    return session


def in_use() -> str:
    """Where the net that was opened last runs: `cpu`, `cuda`, …"""
    return _Process.opened_on.removesuffix("ExecutionProvider").lower()
