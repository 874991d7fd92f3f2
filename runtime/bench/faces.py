"""`storeops bench faces`: what the face engine does, each figure beside a baseline of the same run.

A part is a module with `STEPS` and `measure(ground, advance) -> rows`; PARTS lists them. Everything is measured on
photographs that are fetched and checked by digest as the demonstration does it, with the nets of the catalogue.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.domain.errors import Refused
from models.faces.jpeg import Pixels
from models.faces.pipeline import FacePipeline
from runtime.bench.form import Report, Row, load_now, machine, report
from runtime.photos import Photographs, demo_photographs
from runtime.settings import CONFIGS

NAME = "faces"
SECONDS = 30.0
"""How long each rate is measured, all its trials together."""
TEMPLATES = 20_000
FRAME_WIDTH_PX, FRAME_HEIGHT_PX = 1280, 720
FRAME_JPEG_QUALITY = 85
GROUND_LUMINANCE = 110
FACE_PART_OF_HEIGHT = 0.8
WHEEL_DIR = CONFIGS.parent / "var" / "photos"

Advance = Callable[[str], None]

PARTS: dict[str, str] = {
    "pool": "runtime.bench.faces_pool",
    "embedding": "runtime.bench.faces_embedding",
    "accuracy": "runtime.bench.faces_accuracy",
    "search": "runtime.bench.faces_search",
    "rebuild": "runtime.bench.faces_rebuild",
}
"""Name -> module. It has `STEPS`, how often it calls `advance`, and `measure(ground, advance) -> list[Row]`."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What every part measures on. `folder` is scratch, `cache` holds the built nets."""

    folder: Path
    cache: Path
    photographs: Photographs
    frames: tuple[bytes, ...]
    """JPEGs of 1280 x 720 with one person each, a different picture at each place."""
    seconds: float
    templates: int = TEMPLATES
    """How many the rebuild has."""


def run(console: Console, seconds: float = SECONDS, only: str = "", templates: int = TEMPLATES) -> Report:
    """Measure, or `only` one part. Raises NeedsOperator when nets or photographs are missing, or a part does not come
    up; Refused `unknown_part`."""
    if only and only not in PARTS:
        raise Refused("unknown_part", f"there is no part {only!r}", f"one of {', '.join(PARTS)}")
    load_before = load_now()
    parts = [importlib.import_module(name) for part, name in PARTS.items() if only in ("", part)]
    steps = 1 + sum(int(part.STEPS) for part in parts)
    rows: list[Row] = []
    with _progress(console, steps) as advance, tempfile.TemporaryDirectory(prefix="so-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's user walks through it when we are root
        ground = replace(open_ground(folder, seconds), templates=templates)
        advance("photographs")
        for part in parts:
            rows += part.measure(ground, advance)
    return report(NAME, machine(load_before), rows)


def open_ground(folder: Path, seconds: float) -> Ground:
    """Nets, photographs and frames. Raises NeedsOperator."""
    cache = folder / "nets"
    photographs = demo_photographs(cache, WHEEL_DIR, FacePipeline.from_cache(cache))
    people = (*photographs.members, *photographs.strangers)
    frames = tuple(frame_of(path.read_bytes()) for person in people for path in person.probes)
    return Ground(folder, cache, photographs, frames, seconds)


def frame_of(jpeg: bytes) -> bytes:
    """A portrait in the middle of a picture of 1280 x 720, as a terminal's camera sees a customer."""
    portrait = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert portrait is not None
    scale = FACE_PART_OF_HEIGHT * FRAME_HEIGHT_PX / portrait.shape[0]
    scale = min(scale, FRAME_WIDTH_PX / portrait.shape[1])
    size = (int(portrait.shape[1] * scale), int(portrait.shape[0] * scale))
    small = cv2.resize(portrait, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    frame: Pixels = np.full((FRAME_HEIGHT_PX, FRAME_WIDTH_PX, 3), GROUND_LUMINANCE, np.uint8)
    # A plain ground would make the JPEG, and its decoding, smaller than a camera's.
    noise = np.random.default_rng(7).normal(0.0, 6.0, frame.shape)
    frame = np.clip(frame + noise, 0, 255).astype(np.uint8)
    top, left = (FRAME_HEIGHT_PX - size[1]) // 2, (FRAME_WIDTH_PX - size[0]) // 2
    frame[top : top + size[1], left : left + size[0]] = small
    done, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, FRAME_JPEG_QUALITY])
    assert done
    return encoded.tobytes()


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("photographs", total=steps)

        def advance(what: str) -> None:
            shown.update(task, advance=1, description=what)

        yield advance
