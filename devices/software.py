"""A terminal's software: fetched ahead by HTTP range, checked by SHA-256, activated in one step, later.

A power cut at any moment leaves the old version or the new one running, whole, and a download continues where it
stopped. What was activated is on trial: the image before it is kept until the new one has proved itself in a boot, and
runs again when two boots of the new one did not.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import msgspec

from devices.durable import sync_folder, write_whole
from devices.wire import SoftwareRelease
from models.domain.errors import Refused, RetryLater

SOFTWARE_BYTES_MAX = 1024 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
RELEASES_KEPT = 2
"""The running one and the one before, or the next."""
_IMAGE_NAME = re.compile(r"[0-9a-f]{32}\.image")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,127}")


class FetchBroken(RetryLater):
    """The transfer ended early or the server refused; what came is kept, a later fetch continues it."""


TRIAL_BOOTS_MAX = 2
MANIFEST_BYTES_MAX = 4 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """The version that a boot runs. `image` None: what the device was delivered with. `trial`: not proved yet.

    `profile`: the family that the image says it makes of the device; "": that which it was registered as.
    """

    version: str
    image: Path | None
    trial: bool = False
    profile: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """The first line of an image that says what it is: `{"storeops_image":1,"profile":"dragonfly-2"}`."""

    storeops_image: Literal[1]
    profile: Annotated[str, msgspec.Meta(max_length=48)] = ""


def manifest_of(image: Path) -> Manifest | None:
    """What an image says of itself; None: it has no such line, as a vendor's own format has none. Blocking."""
    with image.open("rb") as file:
        line = file.readline(MANIFEST_BYTES_MAX)
    try:
        return msgspec.json.decode(line, type=Manifest)
    except msgspec.DecodeError:
        return None


class _Pointer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`current.json`: which image runs. Written whole, so that a power cut leaves the one before or the new one."""

    version: str
    image: str
    """The file's name; "": what the device was delivered with."""
    sha256: str = ""
    trial: bool = False
    boots: int = 0
    """Boots of the trial so far."""
    before: _Pointer | None = None
    """What runs again when the trial fails."""
    fell_back: str = ""
    """The version whose trial failed last."""


class Software(Protocol):
    """Where a terminal keeps its releases. `SoftwareStore` is one and says what each promises; blocking but `fetch`."""

    @property
    def fell_back(self) -> str: ...

    def running(self) -> Running: ...

    def begin(self) -> Running: ...

    def intact(self) -> bool: ...

    def prove(self) -> None: ...

    def ready(self, release: SoftwareRelease) -> bool: ...

    async def fetch(self, release: SoftwareRelease, http: httpx.AsyncClient) -> object: ...

    def activate(self, release: SoftwareRelease) -> Running: ...


class SoftwareStore:
    """The releases in a folder and which of them runs. Blocking, but for `fetch`."""

    def __init__(self, folder: Path, delivered: str) -> None:
        self._folder = folder
        self._delivered = delivered

    def running(self) -> Running:
        """What runs from the next start on: the last activated version whose image is there, else what was before it,
        else the delivered."""
        pointer = self._pointer()
        image = self._folder / pointer.image if pointer.image else None
        manifest = None if image is None else manifest_of(image)
        return Running(pointer.version, image, pointer.trial, "" if manifest is None else manifest.profile)

    @property
    def fell_back(self) -> str:
        """The version whose trial failed last; "" when none did since another one was activated."""
        return self._pointer().fell_back

    def begin(self) -> Running:
        """A boot begins: count it, when what runs is on trial; after two boots that did not prove it, the version
        before it runs again. On the disk when this returns: a boot that ends before it has proved itself has failed.
        """
        pointer = self._pointer()
        if pointer.trial and pointer.boots >= TRIAL_BOOTS_MAX:
            before = pointer.before or _Pointer(self._delivered, "")
            self._write(msgspec.structs.replace(before, fell_back=pointer.version, trial=False, before=None))
        elif pointer.trial:
            self._write(msgspec.structs.replace(pointer, boots=pointer.boots + 1))
        return self.running()

    def intact(self) -> bool:
        """Whether the image that runs still is what was fetched: the first thing that a trial looks at."""
        pointer = self._pointer()
        return not pointer.image or not pointer.sha256 or _measure(self._folder / pointer.image)[1] == pointer.sha256

    def prove(self) -> None:
        """What runs is healthy: the trial is over."""
        pointer = self._pointer()
        if pointer.trial:
            self._write(msgspec.structs.replace(pointer, trial=False, boots=0, before=None))

    def _pointer(self) -> _Pointer:
        try:
            pointer: _Pointer | None = msgspec.json.decode((self._folder / "current.json").read_bytes(), type=_Pointer)
        except (OSError, msgspec.DecodeError):
            pointer = None
        while pointer is not None and pointer.image and not self._is_here(pointer.image):
            pointer = pointer.before  # the disk lost it
        return pointer or _Pointer(self._delivered, "")

    def _is_here(self, name: str) -> bool:
        return _IMAGE_NAME.fullmatch(name) is not None and (self._folder / name).is_file()

    def _write(self, pointer: _Pointer) -> None:
        write_whole(self._folder / "current.json", msgspec.json.encode(pointer))

    def ready(self, release: SoftwareRelease) -> bool:
        """Fetched whole and checked."""
        return self._image(release).is_file()

    async def fetch(self, release: SoftwareRelease, http: httpx.AsyncClient) -> Path:
        """Fetch and check a release; continues an earlier download. Returns when its image is on the disk.

        Raises Refused `bad_release` (never worth another try) or FetchBroken (try again later).
        """
        _require_sane(release)
        image = self._image(release)
        if image.is_file():
            return image
        part = image.with_suffix(".part")
        await asyncio.to_thread(_keep_only, part)
        have = part.stat().st_size if part.exists() else 0
        if have > release.size:
            part.unlink()
            have = 0
        if have < release.size:
            await self._transfer(release, http, part, have)
        size, digest = await asyncio.to_thread(_measure, part)
        if (size, digest) != (release.size, release.sha256):
            await asyncio.to_thread(part.unlink)
            raise FetchBroken(
                "bad_image", f"{size} bytes with SHA-256 {digest[:12]}…", "the download begins anew", 60.0
            )
        await asyncio.to_thread(part.replace, image)
        await asyncio.to_thread(sync_folder, image.parent)
        return image

    async def _transfer(self, release: SoftwareRelease, http: httpx.AsyncClient, part: Path, have: int) -> None:
        headers = (
            {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
        )
        try:
            async with http.stream("GET", release.url, headers=headers, follow_redirects=True) as answer:
                if answer.status_code == httpx.codes.OK:
                    have = 0  # a server without ranges sends everything
                elif answer.status_code != httpx.codes.PARTIAL_CONTENT or not _continues(answer, have):
                    await asyncio.to_thread(part.unlink, missing_ok=True)
                    raise FetchBroken(
                        "fetch_refused", f"HTTP {answer.status_code}", "check the release's address", 60.0
                    )
                await self._receive(answer, part, have, release.size)
        except httpx.HTTPError as error:
            raise FetchBroken("fetch_broken", f"{type(error).__name__}: {error}", "it continues by itself") from error

    @staticmethod
    async def _receive(answer: httpx.Response, part: Path, have: int, size: int) -> None:
        file = await asyncio.to_thread(part.open, "r+b" if have else "wb")
        try:
            await asyncio.to_thread(file.seek, have)
            async for chunk in answer.aiter_raw():
                have += len(chunk)
                if have > size:
                    raise FetchBroken("fetch_too_long", f"more than the {size} bytes of the release", "check it", 60.0)
                await asyncio.to_thread(file.write, chunk)
        finally:
            await asyncio.to_thread(file.close)

    def activate(self, release: SoftwareRelease) -> Running:
        """Make a fetched release the one that runs from the next start on, on trial, in one step. Blocking.

        Raises Refused `not_fetched`.
        """
        image = self._image(release)
        if not image.is_file():
            raise Refused("not_fetched", f"{release.version} is not here yet", "wait for the download")
        before = self._pointer()
        if before.trial and before.before is not None:
            before = before.before  # never proved: not what to fall back to
        kept = msgspec.structs.replace(before, trial=False, boots=0, before=None, fell_back="")
        self._write(_Pointer(release.version, image.name, release.sha256, trial=True, before=kept))
        self._tidy({image.name, kept.image})
        return self.running()

    def _tidy(self, kept: set[str]) -> None:
        images = sorted(self._folder.glob("*.image"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in [path for path in images if path.name not in kept][max(0, RELEASES_KEPT - len(kept - {""})) :]:
            old.unlink(missing_ok=True)

    def _image(self, release: SoftwareRelease) -> Path:
        return self._folder / f"{release.sha256[:32]}.image"


def _require_sane(release: SoftwareRelease) -> None:
    if not re.fullmatch(r"https?://\S{1,2000}", release.url):
        raise Refused("bad_release", f"not an address: {release.url[:80]!a}", "use http or https")
    if not re.fullmatch(r"[0-9a-f]{64}", release.sha256) or not _VERSION.fullmatch(release.version):
        raise Refused("bad_release", "version or SHA-256 malformed", "64 lower-case hex digits")
    if not 0 < release.size <= SOFTWARE_BYTES_MAX:
        raise Refused("bad_release", f"{release.size} bytes", f"{SOFTWARE_BYTES_MAX} at most")


def _continues(answer: httpx.Response, have: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _keep_only(part: Path) -> None:
    """One download at a time: what is left of another release goes. Refuses a full disk early."""
    part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for other in part.parent.glob("*.part"):
        if other != part and other.name != "current.json.part":
            other.unlink(missing_ok=True)
    if shutil.disk_usage(part.parent).free < CHUNK_BYTES:
        raise FetchBroken("disk_full", "no room for the download", "free space on the device", 600.0)


def _measure(path: Path) -> tuple[int, str]:
    digest, size = sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def in_window(window: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether `desired.config.software_window` is open: `{"zone":"Asia/Shanghai","from":"02:00","to":"04:00"}`.

    `to` is exclusive and may lie after midnight. No window, or one that cannot be read: never open, so that only the
    command `activate` activates.
    """
    if not isinstance(window, Mapping):
        return False
    try:
        begin, end = time.fromisoformat(str(window["from"])), time.fromisoformat(str(window["to"]))
        local = now.astimezone(ZoneInfo(str(window["zone"]))).time()
    except (KeyError, ValueError, ZoneInfoNotFoundError):
        return False
    if begin <= end:
        return begin <= local < end
    return local >= begin or local < end
