"""The catalogue of nets: what each is, where it comes from, under which licence, its digest, and how it is fed."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from models.domain.errors import NeedsOperator
from models.faces.calibration import ThresholdsFrom, thresholds_from

CATALOGUE_DIR = Path(__file__).resolve().parents[2] / "configs" / "faces"
"""The checkout's catalogue; another folder of the same form may be passed instead."""

CROP_SIDE_PX = 112
"""Side of the crop that the five-landmark similarity warp makes: what every recogniser is fed."""

DIMENSION_MAX = 2048


class NetKind(StrEnum):
    """What a net is for."""

    DETECTOR = "detector"
    RECOGNISER = "recogniser"
    LIVENESS = "liveness"


class Precision(StrEnum):
    """Of the prepared net's arithmetic: `float32` as published, or matrices of 8-bit integers, faster, another net."""

    FLOAT32 = "float32"
    EIGHT_BITS = "eight_bits"


class Colour(StrEnum):
    """Order of the channels."""

    RGB = "RGB"
    BGR = "BGR"


class Alignment(StrEnum):
    """How a face comes to the net: warped by its five landmarks, cut out by its box, or the image as it is."""

    FIVE_LANDMARKS = "five_landmarks"
    BOX = "box"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Feed:
    """How pixels become the net's input, float32 N x 3 x H x W: `(value - mean) * scale`, values 0 to 255."""

    tensor: str
    colour: Colour
    mean: tuple[float, float, float]
    scale: float
    alignment: Alignment
    size_px: tuple[int, int] | None = None
    """Height and width; None: any multiple of `multiple_px`."""
    multiple_px: int = 1


@dataclass(frozen=True, slots=True)
class AliveOutput:
    """How a liveness net is shown a face, and which of its numbers says that it is alive."""

    around: float
    """Side of the square that is cut out, in sides of the face's box."""
    index: int
    """Of the class `alive` in the net's output."""
    logits: bool
    """The output is not normalised yet: softmax is applied."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A wheel that holds the file; its code is never imported."""

    distribution: str
    file: str


@dataclass(frozen=True, slots=True)
class NetEntry:
    """One net. `sha256` is the digest of the published file."""

    name: str
    kind: NetKind
    source: str
    carrier: Carrier | Path
    sha256: str
    licence: str
    licence_path: Path
    feed: Feed
    precision: Precision = Precision.FLOAT32
    parity_cosine_min: float = 0.99999
    """With OpenCV's own run of the published file, for a recogniser."""
    dimension: int = 0
    thresholds: tuple[tuple[int, float], ...] = ()
    thresholds_from: ThresholdsFrom | None = None
    """The calibration report that they are held against."""
    alive: AliveOutput | None = None
    """Of a liveness net."""
    default: bool = False
    """The recogniser of a chain that names none."""

    @property
    def identity(self) -> str:
        """What templates and decisions carry, 64 hex digits: the file's digest, and with 8 bits a digest of both."""
        if self.precision is Precision.FLOAT32:
            return self.sha256
        return hashlib.sha256(f"{self.sha256}/{self.precision}/1".encode()).hexdigest()


def load_entry(path: Path) -> NetEntry:
    """Read one catalogue file. Raises NeedsOperator naming the file and the entry that is missing or wrong."""
    try:
        raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        entry = _entry(raw, path.parent)
        _check(entry, raw)
    except KeyError as error:
        raise _wrong(path, f"{error.args[0]} is missing") from error
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise _wrong(path, str(error)) from error
    if not entry.licence_path.is_file():
        raise NeedsOperator(
            "net_licence_missing",
            f"{path.name} names {entry.licence_path.name}, which is not there",
            "put the licence text beside the catalogue",
        )
    return entry


def _wrong(path: Path, why: str) -> NeedsOperator:
    return NeedsOperator("net_catalogue", f"{path.name}: {why}", "correct the catalogue file")


def _entry(raw: dict[str, Any], folder: Path) -> NetEntry:
    if not isinstance(raw, dict):
        raise TypeError("it has no lines `entry: value`")
    known = {"name", "kind", "source", "carrier", "file", "sha256", "licence", "licence_file", "input", "precision"}
    known |= {"parity_cosine_min", "dimension", "thresholds", "thresholds_from", "default", "strides", "alive"}
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"{unknown[0]!r} is no entry of a net; known are {', '.join(sorted(known))}")
    if ("carrier" in raw) == ("file" in raw):
        raise ValueError("give either `carrier` (a wheel and the file in it) or `file` (a path beside the catalogue)")
    carrier: Carrier | Path
    if "carrier" in raw:
        carrier = Carrier(str(raw["carrier"]["distribution"]), str(raw["carrier"]["file"]))
    else:
        carrier = folder / str(raw["file"])
    return NetEntry(
        name=str(raw["name"]),
        kind=NetKind(raw["kind"]),
        source=str(raw["source"]),
        carrier=carrier,
        sha256=str(raw["sha256"]),
        licence=str(raw["licence"]),
        licence_path=folder / str(raw["licence_file"]),
        feed=_feed(raw["input"]),
        precision=Precision(raw.get("precision", Precision.FLOAT32)),
        parity_cosine_min=float(raw.get("parity_cosine_min", 0.99999)),
        dimension=int(raw.get("dimension", 0)),
        thresholds=tuple((int(n), float(t)) for n, t in raw.get("thresholds", ())),
        thresholds_from=thresholds_from(raw.get("thresholds_from")),
        alive=_alive(raw["alive"]) if raw["kind"] == NetKind.LIVENESS else None,
        default=bool(raw.get("default", False)),
    )


def _alive(raw: dict[str, Any]) -> AliveOutput:
    output = AliveOutput(float(raw["around"]), int(raw["index"]), bool(raw["logits"]))
    if not 1 <= output.around <= 8 or not 0 <= output.index < 16:
        raise ValueError("alive: around is from 1 to 8 sides of the box, index from 0 to 15")
    return output


def _feed(raw: dict[str, Any]) -> Feed:
    known = {"tensor", "layout", "colour", "mean", "scale", "alignment", "size_px", "multiple_px"}
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"input: {unknown[0]!r} is no entry; known are {', '.join(sorted(known))}")
    if raw["layout"] != "NCHW":
        raise ValueError(f"input: layout {raw['layout']!r} is not supported, NCHW is")
    mean = raw["mean"]
    means = tuple(float(value) for value in (mean if isinstance(mean, list) else [mean] * 3))
    if len(means) != 3:
        raise ValueError("input: mean is one number, or three in the order of `colour`")
    size = raw.get("size_px")
    if size is not None and len(size) != 2:
        raise ValueError("input: size_px is [height, width]")
    return Feed(
        tensor=str(raw["tensor"]),
        colour=Colour(raw["colour"]),
        mean=(means[0], means[1], means[2]),
        scale=float(raw["scale"]),
        alignment=Alignment(raw["alignment"]),
        size_px=None if size is None else (int(size[0]), int(size[1])),
        multiple_px=int(raw.get("multiple_px", 1)),
    )


def _check(entry: NetEntry, raw: dict[str, Any]) -> None:
    if len(entry.sha256) != 64 or set(entry.sha256) - set("0123456789abcdef"):
        raise ValueError("sha256 is not 64 hex digits in lower case, as sha256sum prints them")
    if not 0 < entry.feed.scale <= 1:
        raise ValueError("input: scale is above 0 and at most 1")
    if entry.kind is NetKind.DETECTOR:
        # What models.faces.detect decodes; a detector of another form needs a decoder of its own.
        if raw.get("strides") != [8, 16, 32] or entry.feed.multiple_px != 32:
            raise ValueError("a detector has strides [8, 16, 32] and input.multiple_px 32, as YuNet")
        if (entry.feed.colour, entry.feed.mean, entry.feed.scale) != (Colour.BGR, (0.0, 0.0, 0.0), 1.0):
            raise ValueError("a detector is fed BGR, mean 0, scale 1, as YuNet")
    if entry.kind is NetKind.RECOGNISER:
        if entry.feed.alignment is not Alignment.FIVE_LANDMARKS:
            raise ValueError("a recogniser is aligned by five_landmarks: without it TAR falls from 0.993 to 0.196")
        if entry.feed.size_px != (CROP_SIDE_PX, CROP_SIDE_PX):
            raise ValueError(f"a recogniser's input.size_px is [{CROP_SIDE_PX}, {CROP_SIDE_PX}], as the warp makes it")
        if not 8 <= entry.dimension <= DIMENSION_MAX:
            raise ValueError(f"dimension is from 8 to {DIMENSION_MAX}")
        counts, values = [n for n, _ in entry.thresholds], [t for _, t in entry.thresholds]
        rises = counts == sorted(set(counts)) and values == sorted(set(values)) and len(counts) > 1
        if not rises or counts[0] != 1:  # a flat one would accept more strangers in each larger gallery
            raise ValueError("thresholds start at N = 1 and rise with N: two points at least")
        if not 0.9 <= entry.parity_cosine_min <= 1:
            raise ValueError("parity_cosine_min is from 0.9 to 1")
    if entry.kind is NetKind.LIVENESS and (entry.feed.size_px is None or entry.feed.alignment is not Alignment.BOX):
        raise ValueError("a liveness net has an input.size_px, and alignment box")


def load_catalogue(directory: Path = CATALOGUE_DIR) -> tuple[NetEntry, ...]:
    """All entries of the folder, by file name. Raises NeedsOperator; two nets of one name are refused."""
    files = sorted(directory.glob("*.yaml"))
    entries = tuple(load_entry(path) for path in files)
    for what in ("name", "identity"):
        found = [getattr(entry, what) for entry in entries]
        for one in found:
            if found.count(one) > 1:
                names = " and ".join(path.name for path, other in zip(files, found, strict=True) if other == one)
                raise NeedsOperator("net_catalogue", f"{names} have one {what}: {one}", "keep one of the files")
    return entries


def the_detector(catalogue: tuple[NetEntry, ...]) -> NetEntry:
    """The only detector. Raises NeedsOperator when there is none, or more than one."""
    found = [entry for entry in catalogue if entry.kind is NetKind.DETECTOR]
    if len(found) != 1:
        names = ", ".join(entry.name for entry in found) or "none"
        raise NeedsOperator("net_catalogue", f"one detector is needed, found: {names}", "keep exactly one")
    return found[0]


def recognisers(catalogue: tuple[NetEntry, ...], first: str = "") -> tuple[NetEntry, ...]:
    """All recognisers, the named one first; without a name the one marked `default`. Raises NeedsOperator."""
    found = [entry for entry in catalogue if entry.kind is NetKind.RECOGNISER]
    chosen = [entry for entry in found if (entry.name == first if first else entry.default or len(found) == 1)]
    if len(chosen) != 1:
        names = ", ".join(entry.name for entry in found) or "none"
        if first:
            what = f"no recogniser {first!r} in configs/faces; there are: {names}"
            raise NeedsOperator("net_unknown", what, "name one of them")
        raise NeedsOperator("net_catalogue", f"of the recognisers {names} not one is the default", "mark exactly one")
    return (chosen[0], *(entry for entry in found if entry is not chosen[0]))


def published_file(entry: NetEntry) -> Path:
    """The net as published, digest checked; a wheel's code is never imported.

    Raises NeedsOperator when it is not there or its content is not the catalogue's.
    """
    if isinstance(entry.carrier, Path):
        located, do = entry.carrier, f"put the file with this digest at {entry.carrier}"
        what = entry.carrier.name
    else:
        located = _in_wheel(entry.carrier)
        what, do = entry.carrier.file, f"install the locked requirements ({entry.carrier.distribution} carries the net)"
    if not located.is_file():
        raise NeedsOperator("net_missing", f"{entry.name}: {what} is not there", do)
    if sha256_of(located) != entry.sha256:
        message = f"{entry.name}: {what} is not the file that the catalogue names ({entry.sha256[:12]}…)"
        raise NeedsOperator("net_altered", message, do)
    return located


def _in_wheel(carrier: Carrier) -> Path:
    try:
        files = importlib.metadata.files(carrier.distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    return next((Path(str(f.locate())) for f in files if str(f) == carrier.file), Path(carrier.file))


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
