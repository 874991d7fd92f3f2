"""Software: fetched ahead with resume, checked, activated in one step; a power cut leaves the old version running."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random

import httpx
import pytest

from devices.software import FetchBroken, SoftwareStore, in_window
from devices.wire import SoftwareRelease
from models.domain.errors import Refused
from tests.devices.files import FileServer, serving

IMAGE = Random(7).randbytes(700_000)
WINDOW = {"zone": "Asia/Shanghai", "from": "23:00", "to": "04:00"}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as one:
        one.files["/agent.bin"] = IMAGE
        yield one


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5.0) as client:
        yield client


def release(server: FileServer, version: str = "agent 2.0", image: bytes = IMAGE) -> SoftwareRelease:
    return SoftwareRelease(version, f"{server.url}/agent.bin", sha256(image).hexdigest(), len(image))


async def test_a_broken_download_continues_where_it_stopped(
    server: FileServer, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    wanted = release(server)
    server.cut_after = 300_000
    with pytest.raises(FetchBroken):
        await SoftwareStore(tmp_path, "1.0").fetch(wanted, http)
    server.cut_after = None
    # Another process after a power cut: only the folder is left.
    store = SoftwareStore(tmp_path, "1.0")
    image = await store.fetch(wanted, http)
    assert image.read_bytes() == IMAGE
    assert server.asked[0] == ""
    begun = int(server.asked[1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begun <= 300_000
    await store.fetch(wanted, http)
    assert len(server.asked) == 2, "what is here is not fetched again"


async def test_a_server_without_ranges_begins_anew(server: FileServer, http: httpx.AsyncClient, tmp_path: Path) -> None:
    store = SoftwareStore(tmp_path, "1.0")
    server.cut_after, server.ranges = 300_000, False
    with pytest.raises(FetchBroken):
        await store.fetch(release(server), http)
    server.cut_after = None
    assert (await store.fetch(release(server), http)).read_bytes() == IMAGE


async def test_a_wrong_image_is_never_kept(server: FileServer, http: httpx.AsyncClient, tmp_path: Path) -> None:
    store = SoftwareStore(tmp_path, "1.0")
    wanted = release(server)
    server.files["/agent.bin"] = IMAGE[:-1] + b"?"
    with pytest.raises(FetchBroken) as caught:
        await store.fetch(wanted, http)
    assert caught.value.code == "bad_image"
    server.files["/agent.bin"] = IMAGE + b"and more"
    with pytest.raises(FetchBroken) as caught:
        await store.fetch(wanted, http)
    assert caught.value.code == "fetch_too_long"
    assert not store.ready(wanted)
    with pytest.raises(Refused):
        store.activate(wanted)


@pytest.mark.parametrize(
    ("field", "value"),
    [("url", "file:///etc/passwd"), ("sha256", "../../x"), ("size", 0), ("size", 2**40), ("version", "\n")],
)
async def test_a_release_that_makes_no_sense_is_not_fetched(
    server: FileServer, http: httpx.AsyncClient, tmp_path: Path, field: str, value: object
) -> None:
    values = {"version": "2", "url": f"{server.url}/agent.bin", "sha256": "0" * 64, "size": 1} | {field: value}
    with pytest.raises(Refused):
        await SoftwareStore(tmp_path, "1.0").fetch(SoftwareRelease(**values), http)  # type: ignore[arg-type]
    assert server.asked == []


async def test_activation_is_one_step(server: FileServer, http: httpx.AsyncClient, tmp_path: Path) -> None:
    store = SoftwareStore(tmp_path, "1.0")
    await store.fetch(release(server), http)
    assert store.running().version == "1.0", "fetched is not running"
    # A power cut while the pointer was written leaves a part beside it, which says nothing.
    (tmp_path / "current.json.part").write_text('{"version":"agent 2.0","im')
    assert SoftwareStore(tmp_path, "1.0").running().version == "1.0"
    store.activate(release(server))
    assert SoftwareStore(tmp_path, "1.0").running().version == "agent 2.0"
    # A pointer to an image that the disk lost falls back to what the device was delivered with.
    (tmp_path / str(json.loads((tmp_path / "current.json").read_text())["image"])).unlink()
    assert SoftwareStore(tmp_path, "1.0").running().version == "1.0"


async def test_old_releases_are_tidied_away(server: FileServer, http: httpx.AsyncClient, tmp_path: Path) -> None:
    store = SoftwareStore(tmp_path, "1.0")
    for n in range(4):
        server.files["/agent.bin"] = image = IMAGE + bytes([n])
        await store.fetch(release(server, f"v{n}", image), http)
        store.activate(release(server, f"v{n}", image))
    assert len([name for name in os.listdir(tmp_path) if name.endswith(".image")]) == 2
    assert store.running().version == "v3"


@pytest.mark.parametrize(
    ("hour_utc", "open_"), [(14, False), (15, True), (19, True), (20, False), (0, False)], ids=lambda value: str(value)
)
def test_a_window_is_local_time_and_may_pass_midnight(hour_utc: int, open_: bool) -> None:
    assert in_window(WINDOW, datetime(2026, 5, 1, hour_utc, 0, tzinfo=UTC)) is open_


@pytest.mark.parametrize("window", [None, {}, {"zone": "Mars", "from": "01:00", "to": "02:00"}, {**WINDOW, "from": 3}])
def test_no_window_is_never_open(window: dict[str, str] | None) -> None:
    assert not any(in_window(window, datetime(2026, 5, 1, hour, tzinfo=UTC)) for hour in range(24))
