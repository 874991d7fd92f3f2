"""Software of terminals: what an image is, and which family a terminal is by the software that it runs.

A family follows the software only through the image store: a version makes a terminal another family when an image is
recorded for it that says so, when this terminal was told to run that very image, and when a boot named it from its
first birth on. What a terminal calls itself decides nothing. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from models.domain.errors import Refused

IMAGE_BYTES_MAX = 1024 * 1024 * 1024
IMAGES_MAX = 1_000
NOTES_CHARACTERS_MAX = 2_000
RELEASES_REMEMBERED_MAX = 4
"""Images that a terminal was told to run last: it may fall back to one of them by itself."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,47}")


@dataclass(frozen=True, slots=True)
class Image:
    """A recorded image. `profile`: the family that it makes of a terminal, "": it stays what it was registered as."""

    name: str
    number: str
    sha256: str
    size_bytes: int
    profile: str
    notes_zh: str
    notes_en: str
    added_by: str
    added_at: datetime

    @property
    def version(self) -> str:
        """What a terminal reports that runs it."""
        return version_of(self.name, self.number)


def version_of(name: str, number: str) -> str:
    """Name and number, as terminals report their software. Raises Refused `bad_version`."""
    if not _NAME.fullmatch(name) or not _NUMBER.fullmatch(number):
        raise Refused("bad_version", f"{name!r} {number!r}", "for example --name dragonfly --version 2.0.0")
    return f"{name} {number}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the image store knows of a version."""

    sha256: str
    profile: str


@dataclass(frozen=True, slots=True)
class Ran:
    """What a terminal said that it runs, and what it was told to. `booted`: what the boot named in its first birth."""

    software: str = ""
    booted: str = ""
    releases: tuple[str, ...] = ()
    """SHA-256 of the images that it was told to run, the newest last."""


def family_of(ran: Ran, recorded: Recorded | None, in_force: str, delivered: str) -> str:
    """The family that the terminal is from now on. `delivered`: as it was registered, before any software.

    A version that is not recorded, or recorded without a family, is no reason to be anything but what was registered.
    """
    if not ran.software or ran.software != ran.booted:
        return in_force  # nothing heard yet, or another version without a new boot
    if recorded is None or not recorded.profile:
        return delivered
    return recorded.profile if recorded.sha256 in ran.releases else in_force
