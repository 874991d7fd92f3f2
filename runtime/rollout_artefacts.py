"""What the command line is given to roll out, as an artefact. Files of prices and plans become candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from models.domain.errors import NeedsOperator, Refused
from models.domain.plans import PlanError
from models.domain.price_file import FILE_BYTES_MAX as PRICES_BYTES_MAX
from models.domain.rollout import Artefact

if TYPE_CHECKING:
    from runtime.images import Images
    from runtime.rollout_desk import RolloutDesk

FILE_BYTES_MAX = 64 * 1024
KINDS = ("config", "flag", "software", "prices", "plan", "book")


@dataclass(frozen=True, slots=True)
class Given:
    """One of them, as typed: `config`, `flag`, `software` with `fallback`, a file of prices, some of plans, a book."""

    config: str | None = None
    flag: str | None = None
    software: str | None = None
    prices: Path | None = None
    plan: Sequence[Path] | None = None
    book: int | None = None
    fallback: str | None = None
    family: str = ""
    force: bool = False

    def require_one(self) -> None:
        """Raises Refused `which_artefact`."""
        said = [one.name for one in fields(self) if one.name in KINDS and getattr(self, one.name) not in (None, [])]
        if len(said) != 1:
            names = ", ".join(f"--{name}" for name in KINDS)
            raise Refused("which_artefact", "what is rolled out?", f"give one of {names}")


async def artefact_of(given: Given, desk: RolloutDesk, images: Images) -> Artefact:
    """Raises Refused `bad_artefact`, `unknown_version` and what `runtime.rollout_books` raises; NeedsOperator for an
    unreadable file."""
    from models.domain.rollout_part import patch_artefact

    given.require_one()
    if given.config is not None:
        return patch_artefact(_document(given.config))
    if given.flag is not None:
        return _flag(given.flag)
    if given.prices is not None:
        return await desk.candidate_of_prices(_bytes(given.prices), force=given.force)
    if given.plan:
        try:
            return await desk.candidate_of_plans([_plan(path) for path in given.plan])
        except PlanError as error:
            raise NeedsOperator("plan_wrong", str(error), "mend that entry") from error
    if given.book is not None:
        return await desk.candidate_of_version(given.book)
    assert given.software is not None, "require_one() saw to it"
    return await _software(given.software, given.fallback, given.family, images)


async def _software(text: str, fallback: str | None, family: str, images: Images) -> Artefact:
    """Versions are those of the image store, which says where each is fetched and how it is checked."""
    from models.domain.rollout_part import software_artefact

    release, name = await _release(text, images)
    if fallback is None:
        others = [one.version for one in await images.list() if one.version != release["version"]]
        known = ", ".join(others[:8]) or "none is recorded: storeops software add"
        raise Refused(
            "no_fallback",
            "terminals that were never told what to run need a version to go back to",
            f"--fallback: {known}",
        )
    back, _ = await _release(fallback, images)
    return software_artefact(release, back, family or name)


async def _release(text: str, images: Images) -> tuple[dict[str, Any], str]:
    """A recorded version, or JSON; and the name of the software. Raises Refused `unknown_version`, `bad_artefact`."""
    if _is_document(text):
        return _document(text), "all"
    image = await images.find(text)
    return asdict(images.release(image)), image.name


def _is_document(text: str) -> bool:
    return text.lstrip().startswith("{") or isfile(text)


def _document(text: str) -> dict[str, Any]:
    """A JSON object: given, or in a file. Raises Refused `bad_artefact`."""
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).read_bytes()[: FILE_BYTES_MAX + 1].decode()
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise Refused("bad_artefact", str(error), "a JSON object, or a file with one") from error
    if not isinstance(document, dict):
        raise Refused("bad_artefact", "is no JSON object", 'for example {"sound": {"volume_percent": 40}}')
    return document


def _flag(text: str) -> Artefact:
    from models.domain.rollout_part import patch_artefact

    name, equals, value = text.partition("=")
    try:
        patch: Any = json.loads(value)
    except ValueError:
        patch = value
    if not (name and equals):
        raise Refused("bad_artefact", f"{text!r}", "write --flag face.enabled=true")
    for part in reversed(name.split(".")):
        patch = {part: patch}
    return patch_artefact(patch, name)


def _bytes(path: Path) -> bytes:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise NeedsOperator("prices_unreadable", str(error), "give a CSV file: docs/price-files.md") from error
    if len(body) > PRICES_BYTES_MAX:
        raise NeedsOperator("prices_unreadable", f"{len(body)} bytes", f"{PRICES_BYTES_MAX} at most")
    return body


def _plan(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_bytes()[:FILE_BYTES_MAX])
    except (OSError, yaml.YAMLError) as error:
        raise NeedsOperator("plan_unreadable", f"{path}: {error}", "a YAML file as in configs/plans") from error
    if not isinstance(document, dict):
        raise NeedsOperator("plan_wrong", f"{path} is no plan", "a YAML file as in configs/plans")
    return document
