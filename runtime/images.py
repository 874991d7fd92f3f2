"""The house's store of terminals' software: files by their SHA-256 in the data folder, rows that say what they are.

The gateway serves a file to whoever knows its address: 256 bits that only a terminal's desired document tells. An
image holds no secret, and what is fetched is believed by its SHA-256 alone. A house of several machines adds an image
on each machine that serves a gateway: the rows are there once, the file is put beside them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from devices.durable import sync_folder
from devices.profiles import profile_of
from devices.software import manifest_of
from models.domain.errors import Refused
from models.domain.software import IMAGE_BYTES_MAX, IMAGES_MAX, NOTES_CHARACTERS_MAX, Image, version_of
from models.domain.twin import SoftwareVersion
from models.tables.privacy import audit
from models.tables.software import add_image, list_images, remove_image, users_of
from runtime.plant import Plant

FOLDER = "images"
CHUNK_BYTES = 1024 * 1024
FREE_BYTES_MIN = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Offered:
    """What is added: a file, and what it is said to be."""

    file: Path
    name: str
    number: str
    profile: str = ""
    notes_zh: str = ""
    notes_en: str = ""


class Images:
    """Of a house: all its databases have the same rows."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self._urls = list(dict.fromkeys(plant.database_url for plant in plants))
        self._folder = plants[0].data_dir / FOLDER
        self._base = plants[0].gateway_url.rstrip("/")

    async def add(self, offered: Offered, by: str, progress: Callable[[int], None] = lambda _: None) -> Image:
        """Record a version and keep its file; both are durable when this returns. The same once more is no error.

        `progress` gets the bytes copied so far. Raises Refused: bad_version, unknown_profile, bad_image,
        image_too_large, disk_full, images_full, version_taken.
        """
        version = version_of(offered.name, offered.number)
        if offered.profile:
            profile_of(offered.profile)
        if max(len(offered.notes_zh), len(offered.notes_en)) > NOTES_CHARACTERS_MAX:
            raise Refused("bad_image", "the notes are too long", f"{NOTES_CHARACTERS_MAX} characters at most")
        digest, size = await asyncio.to_thread(self._copy, offered, progress)
        now = datetime.now(UTC)
        image = Image(
            offered.name,
            offered.number,
            digest,
            size,
            offered.profile,
            offered.notes_zh,
            offered.notes_en,
            by,
            now,
        )
        for url in self._urls:
            async with await AsyncConnection.connect(url) as conn:
                known = await list_images(conn)
                same = next((one for one in known if one.version == version), None)
                if same is not None and (same.sha256, same.profile) != (digest, offered.profile):
                    do = "a version never changes: give the next one another number"
                    raise Refused("version_taken", f"{version} is recorded with other bytes or another family", do)
                if same is None and len(known) >= IMAGES_MAX:
                    raise Refused(
                        "images_full", f"{IMAGES_MAX} images are kept", "remove old ones: storeops software remove"
                    )
                if await add_image(conn, image):
                    detail: dict[str, str | int] = {"sha256": digest, "bytes": size, "profile": offered.profile}
                    await audit(conn, "software.added", version, detail, by, now)
        return image

    async def remove(self, version: str, by: str) -> Image:
        """Forget a version that no terminal is told to run, or runs. Raises Refused: unknown_version, image_in_use."""
        image = await self.find(version)
        for url in self._urls:
            async with await AsyncConnection.connect(url) as conn:
                users = await users_of(conn, image)
                if users["desired"] or users["running"]:
                    who = f"{users['desired']} terminals are told to run it, {users['running']} say that they do"
                    raise Refused("image_in_use", who, "give them another version first")
        for url in self._urls:
            async with await AsyncConnection.connect(url) as conn:
                await remove_image(conn, image)
                await audit(conn, "software.removed", version, {"sha256": image.sha256}, by, datetime.now(UTC))
        if all(one.sha256 != image.sha256 for one in await self.list()):
            await asyncio.to_thread((self._folder / image.sha256).unlink, missing_ok=True)
        return image

    async def list(self) -> list[Image]:
        """All versions, by name, the newest first."""
        async with await AsyncConnection.connect(self._urls[0], autocommit=True) as conn:
            return await list_images(conn)

    async def find(self, version: str) -> Image:
        """One version. Raises Refused `unknown_version`."""
        known = await self.list()
        for image in known:
            if image.version == version:
                return image
        names = ", ".join(one.version for one in known[:8]) or "none: storeops software add"
        raise Refused("unknown_version", f"no image of {version!r} is recorded", f"one of: {names}")

    def release(self, image: Image) -> SoftwareVersion:
        """As a desired document names it."""
        return SoftwareVersion(image.version, f"{self._base}/{FOLDER}/{image.sha256}", image.sha256, image.size_bytes)

    def document(self, image: Image) -> dict[str, Any]:
        """For `--json`. `here`: this machine has the file."""
        return {
            "version": image.version,
            "name": image.name,
            "number": image.number,
            "sha256": image.sha256,
            "size_bytes": image.size_bytes,
            "profile": image.profile,
            "notes": {"zh": image.notes_zh, "en": image.notes_en},
            "added_by": image.added_by,
            "added_at": image.added_at.isoformat(),
            "url": self.release(image).url,
            "here": (self._folder / image.sha256).is_file(),
        }

    def _copy(self, offered: Offered, progress: Callable[[int], None]) -> tuple[str, int]:
        """The file under its SHA-256; a copy that was cut short is a `.part` that the next one overwrites."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            size = offered.file.stat().st_size
            if not offered.file.is_file() or size == 0:
                raise Refused("bad_image", f"{offered.file} is no file with something in it", "name the image's file")
            if size > IMAGE_BYTES_MAX:
                raise Refused("image_too_large", f"{size} bytes", f"{IMAGE_BYTES_MAX} at most")
            if shutil.disk_usage(self._folder).free < size + FREE_BYTES_MIN:
                raise Refused("disk_full", f"{size} bytes do not fit into {self._folder}", "make room there")
            self._require_manifest(offered)
            return self._keep(offered.file, progress)
        except OSError as error:
            raise Refused("bad_image", f"{offered.file}: {error.strerror}", "name a file that can be read") from error

    @staticmethod
    def _require_manifest(offered: Offered) -> None:
        manifest = manifest_of(offered.file)
        if manifest is not None and manifest.profile != offered.profile:
            said = manifest.profile or "no family"
            raise Refused("bad_image", f"the image's own manifest says {said}", f"--profile {manifest.profile or '…'}")

    def _keep(self, source: Path, progress: Callable[[int], None]) -> tuple[str, int]:
        digest, size = sha256(), 0
        part = self._folder / f".{os.getpid()}.part"
        try:
            with source.open("rb") as read, part.open("wb") as write:
                while chunk := read.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > IMAGE_BYTES_MAX:
                        raise Refused("image_too_large", f"over {size} bytes", f"{IMAGE_BYTES_MAX} at most")
                    digest.update(chunk)
                    write.write(chunk)
                    progress(size)
                write.flush()
                os.fsync(write.fileno())
            part.replace(self._folder / digest.hexdigest())
            sync_folder(self._folder)
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest(), size
