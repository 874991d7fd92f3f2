"""Who stands before a terminal that is played on a laptop: folders of photographs, or whoever is before the camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Protocol

from devices.camera import Camera
from models.domain.errors import StoreOpsError

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg"})
CUSTOMERS_MAX = 1000


class Faces(Protocol):
    """Where a face comes from when the terminal looks. Blocking calls."""

    @property
    def names(self) -> list[str]:
        """The customers that may be chosen."""

    @property
    def now(self) -> str:
        """Who stands here."""

    def choose(self, beginning: str) -> None:
        """The customer whose name begins so. Raises LookupError."""

    def photo(self) -> bytes:
        """One JPEG of the present customer. Raises LookupError when there is no customer."""

    def shots(self) -> Iterator[bytes]:
        """Photographs for an enrolment, as many as are asked for and can be had."""

    def close(self) -> None:
        """No more pictures."""


@dataclass
class Customers:
    """The photographs of each customer, shown one after the other, from the first again at the end."""

    photos: dict[str, list[bytes]]
    now: str = ""

    def __post_init__(self) -> None:
        self._turns = {name: cycle(pictures) for name, pictures in self.photos.items()}
        self.now = self.now or next(iter(self.photos), "")

    @property
    def names(self) -> list[str]:
        return list(self.photos)

    def choose(self, beginning: str) -> None:
        for name in self.photos:
            if name.lower().startswith(beginning.lower()):
                self.now = name
                return
        raise LookupError(f"nobody is called {beginning}")

    def photo(self) -> bytes:
        return next(self._turns[self.now])

    def shots(self) -> Iterator[bytes]:
        return iter(self.photos[self.now])

    def close(self) -> None:
        """Nothing is open."""


class CameraCustomer:
    """Whoever is before the camera. A name may be given, for the payment provider's simulated users."""

    def __init__(self, camera: Camera, name: str = "me", shots_max: int = 12) -> None:
        self._camera = camera
        self._shots_max = shots_max
        self.now = name

    @property
    def names(self) -> list[str]:
        return [self.now]

    def choose(self, beginning: str) -> None:
        self.now = beginning

    def photo(self) -> bytes:
        return self._camera.photo()

    def shots(self) -> Iterator[bytes]:
        for _ in range(self._shots_max):
            yield self._camera.photo()

    def close(self) -> None:
        self._camera.close()


class Nobody:
    """A terminal without a camera: a gate, a till."""

    def __init__(self) -> None:
        self.now = "somebody"

    @property
    def names(self) -> list[str]:
        return []

    def choose(self, beginning: str) -> None:
        self.now = beginning

    def photo(self) -> bytes:
        raise LookupError("this terminal was started without --photos or --camera")

    def shots(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


def load_customers(folder: Path) -> Customers:
    """A folder per customer, JPEG files inside. Raises StoreOpsError when there is none."""
    photos: dict[str, list[bytes]] = {}
    places: Iterable[Path] = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
    for place in list(places)[:CUSTOMERS_MAX]:
        pictures = [p.read_bytes() for p in sorted(place.iterdir()) if p.suffix.lower() in PHOTO_SUFFIXES]
        if pictures:
            photos[place.name] = pictures
    if not photos:
        raise StoreOpsError("no_photos", f"{folder} has no folders with JPEG files", "make one folder per customer")
    return Customers(photos)


def faces_from(photos: Path | None, camera: str | None) -> Faces:
    """The customers of `--photos` or `--camera`, or nobody. Raises StoreOpsError with what to do."""
    if camera is not None:
        return CameraCustomer(Camera(camera))
    return load_customers(photos) if photos is not None else Nobody()
