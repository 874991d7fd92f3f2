"""A folder per person through the production pipeline: what each photograph gives, and why not. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from models.domain.errors import Refused
from models.domain.face_quality import JPEG_BYTES_MAX, FaceKind, LookPurpose, QualityPolicy, QualityReport
from models.domain.recognition import Embedding, Seen, Unseen
from models.faces.variations import encode_bounded

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
PEOPLE_MAX = 2_000
PHOTOGRAPHS_MAX = 3_000
"""Of all people: four and a half million comparisons."""
PHOTOGRAPHS_PER_PERSON_MAX = 50
PHOTOGRAPH_BYTES_MAX = 32 * 1024 * 1024
LONGEST_SIDE_PX = 1280


class Looking(Protocol):
    """The pipeline, as far as an evaluation needs it."""

    net_sha256: str

    def look(self, jpeg: bytes, *, kind: FaceKind, purpose: LookPurpose, policy: QualityPolicy) -> Seen | Unseen:
        """A face or the reason."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One photograph of one person, by number. An embedding is there where its gates were passed."""

    person: int
    probe: Embedding | None = field(repr=False)
    enrol: Embedding | None = field(repr=False)
    quality: QualityReport | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """All photographs. `left_out`: path (relative) or folder -> reason; refusals count photographs by reason."""

    name: str
    net_sha256: str
    policy: QualityPolicy
    people: tuple[str, ...]
    shots: tuple[Shot, ...]
    refusals_probe: dict[str, int]
    refusals_enrol: dict[str, int]
    left_out: dict[str, str]


def folders(directory: Path) -> tuple[list[tuple[str, list[Path]]], dict[str, str]]:
    """(person, photographs) by folder, and what was left out by name.

    Raises Refused `photographs` when there is no folder, too few photographs to compare, or more than the bounds.
    """
    if not directory.is_dir():
        raise Refused("photographs", f"{directory} is no folder", "give a folder with one folder per person")
    people: list[tuple[str, list[Path]]] = []
    left_out: dict[str, str] = {}
    for one in sorted(directory.iterdir()):
        if one.name.startswith("."):
            continue
        if not one.is_dir():
            if one.suffix.lower() in SUFFIXES:
                left_out[one.name] = "lies beside the folders: whose is it?"
            continue
        files = sorted(file for file in one.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            left_out[one.name] = "no photograph in it"
            continue
        for file in files[PHOTOGRAPHS_PER_PERSON_MAX:]:
            left_out[f"{one.name}/{file.name}"] = f"beyond the first {PHOTOGRAPHS_PER_PERSON_MAX}"
        people.append((one.name, files[:PHOTOGRAPHS_PER_PERSON_MAX]))
    if not people:
        raise Refused("photographs", f"{directory} holds no folder with photographs in it", _what_to_do(directory))
    _comparable([len(files) for _, files in people], left_out, {})
    count = sum(len(files) for _, files in people)
    if len(people) > PEOPLE_MAX or count > PHOTOGRAPHS_MAX:
        raise Refused(
            "photographs",
            f"{len(people)} people, {count} photographs: {PEOPLE_MAX} and {PHOTOGRAPHS_MAX} are the bounds",
            "evaluate a sample of the people",
        )
    return people, left_out


def survey(
    directory: Path,
    eyes: Looking,
    policy: QualityPolicy,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Survey:
    """Every photograph, judged as a probe and as an enrolment shot. `progress(done, all)` after each.

    Raises Refused `photographs` as `folders` does, and when the gates leave too few of them.
    """
    people, left_out = folders(directory)
    count, done = sum(len(files) for _, files in people), 0
    probes, enrolments = Counter[str](), Counter[str]()
    shots: list[Shot] = []
    for number, (person, files) in enumerate(people):
        for file in files:
            content = _readable(file)
            if isinstance(content, str):
                left_out[f"{person}/{file.name}"] = content
            else:
                shots.append(_shot(number, content, eyes, policy, probes, enrolments))
            done += 1
            progress(done, count)
    found = Survey(
        directory.resolve().name,
        eyes.net_sha256,
        policy,
        tuple(person for person, _ in people),
        tuple(shots),
        dict(probes.most_common()),
        dict(enrolments.most_common()),
        left_out,
    )
    usable = Counter(shot.person for shot in shots if shot.probe is not None)
    _comparable(list(usable.values()), left_out, found.refusals_probe)
    return found


def _comparable(usable: list[int], left_out: dict[str, str], refusals: dict[str, int]) -> None:
    """Two people at least, one of them twice; `usable`: photographs of each person."""
    gone = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:5])
    refused = ", ".join(f"{count} {reason}" for reason, count in refusals.items())
    told = "".join(f" ({part})" for part in (gone, refused) if part)
    if len(usable) < 2:
        who = "nobody" if not usable else "only one person"
        raise Refused(
            "photographs",
            f"{who} has photographs that can be used, two at least must{told}",
            "one folder per person; strangers are compared with each other",
        )
    if max(usable) < 2:
        raise Refused(
            "photographs",
            f"nobody has two photographs that can be used: there is no mate to compare with{told}",
            "two photographs of each person at least, ten are better",
        )


def _what_to_do(directory: Path) -> str:
    """One folder per person; where such folders lie, or that the photographs lie bare."""
    for files, tells in (("*.*", "put them into one folder per person"), ("*/*/*.*", "they lie deeper")):
        found = next((one for one in directory.glob(files) if one.suffix.lower() in SUFFIXES and one.is_file()), None)
        if found is not None:
            give = f": give {found.parent.parent}" if found.parent != directory else ""
            return f"there is {found.relative_to(directory)}; {tells}{give}"
    return "one folder per person, two photographs each"


def _shot(
    person: int, jpeg: bytes, eyes: Looking, policy: QualityPolicy, probes: Counter[str], enrolments: Counter[str]
) -> Shot:
    embeddings: list[Embedding | None] = []
    quality: QualityReport | None = None
    for purpose, refusals in ((LookPurpose.PROBE, probes), (LookPurpose.ENROL, enrolments)):
        seen = eyes.look(jpeg, kind=FaceKind.FRAME, purpose=purpose, policy=policy)
        quality = quality or seen.quality
        if isinstance(seen, Unseen):
            refusals[seen.reason.value] += 1
            embeddings.append(None)
        else:
            embeddings.append(seen.embedding)
    return Shot(person, embeddings[0], embeddings[1], quality)


def _readable(file: Path) -> bytes | str:
    """A JPEG that a terminal could send: the file, or a smaller copy of it in memory; else why not."""
    try:
        if file.stat().st_size > PHOTOGRAPH_BYTES_MAX:
            return f"larger than {PHOTOGRAPH_BYTES_MAX >> 20} MiB"
        content = file.read_bytes()
    except OSError as error:
        return error.strerror or "unreadable"
    if not content:
        return "empty file"
    if len(content) <= JPEG_BYTES_MAX and content[:2] == b"\xff\xd8":
        return content
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if pixels is None:
        return "no picture that can be read, or one of very many pixels"
    scale = min(1.0, LONGEST_SIDE_PX / max(pixels.shape[:2]))
    smaller = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return encode_bounded(np.asarray(smaller, np.uint8), 92)
