"""One way to open a net: a worker is one process with one thread (faces.md: batching and threads only lose)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.faces import devices
from models.faces.catalogue import Colour, Feed


def open_session(net: Path | bytes) -> ort.InferenceSession:
    """An onnxruntime session on the process's device: one thread, sequential, all optimisations, no spinning.

    Also holds OpenCV to one thread: the machine is shared by one worker per core.
    """
    cv2.setNumThreads(1)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    content = net if isinstance(net, bytes) else str(net)
    return devices.opened(ort.InferenceSession(content, options, providers=devices.chosen()))


def to_blob(pixels: NDArray[np.uint8], feed: Feed) -> NDArray[np.float32]:
    """BGR pixels as the net's input, float32[1, 3, H, W]: colour order, mean and scale of its catalogue entry."""
    swap = feed.colour is Colour.RGB
    return np.asarray(cv2.dnn.blobFromImage(pixels, feed.scale, mean=feed.mean, swapRB=swap), dtype=np.float32)
