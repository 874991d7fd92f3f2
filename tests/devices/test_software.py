"""Software: fetched ahead with resume, checked, activated in one step; a power cut leaves the old version running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random

import httpx
import msgspec
import pytest

from devices.software import FetchBroken, SoftwareStore, in_window
from devices.wire import SoftwareRelease
from models.domain.errors import Refused
from tests.devices.files import FileServer, serving

ROOT = Path(__file__).parents[2]
PAUSE = threading.Event()
IMAGE = Random(7).randbytes(700_000)
WINDOW = {"zone": "Asia/Shanghai", "from": "23:00", "to": "04:00"}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as one:
        one.files["/agent.bin"] = IMAGE
        yield one


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30.0) as client:
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


@pytest.mark.parametrize(
    ("zone", "at", "open_"),
    [
        # In Berlin 2026-03-29 has no 02:30: the clock goes from 02:00 to 03:00, and with it from before to after.
        ("Europe/Berlin", datetime(2026, 3, 29, 0, 59, tzinfo=UTC), False),
        ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC), True),
        ("Europe/Berlin", datetime(2026, 3, 29, 1, 30, tzinfo=UTC), False),
        # 2026-10-25 has 02:15 twice: the window is open twice.
        ("Europe/Berlin", datetime(2026, 10, 25, 0, 15, tzinfo=UTC), True),
        ("Europe/Berlin", datetime(2026, 10, 25, 1, 15, tzinfo=UTC), True),
        ("Europe/Berlin", datetime(2026, 10, 25, 2, 45, tzinfo=UTC), False),
    ],
)
def test_a_window_is_local_time_when_the_clock_is_changed(zone: str, at: datetime, open_: bool) -> None:
    assert in_window({"zone": zone, "from": "02:00", "to": "03:30"}, at) is open_


# ---------------------------------------------------------------- on trial


def fetched(folder: Path, version: str, image: bytes) -> SoftwareRelease:
    """A release that is here, without a server."""
    wanted = SoftwareRelease(version, "http://nowhere/x", sha256(image).hexdigest(), len(image))
    (folder / f"{wanted.sha256[:32]}.image").write_bytes(image)
    return wanted


def test_two_boots_that_prove_nothing_bring_the_version_before_back(tmp_path: Path) -> None:
    store = SoftwareStore(tmp_path, "1.0")
    store.activate(fetched(tmp_path, "2.0", b"two"))
    assert (store.begin().version, store.begin().version) == ("2.0", "2.0")
    again = SoftwareStore(tmp_path, "1.0")
    assert (again.begin().version, again.fell_back) == ("1.0", "2.0")
    assert again.begin().version == "1.0"
    # Not to what was never proved: 3.0 is tried from 1.0, and 4.0 before 3.0 had said anything.
    again.activate(fetched(tmp_path, "3.0", b"three"))
    assert (again.begin().version, again.fell_back) == ("3.0", "")
    again.activate(fetched(tmp_path, "4.0", b"four"))
    assert [again.begin().version for _ in range(3)] == ["4.0", "4.0", "1.0"]


def test_a_version_that_proved_itself_stays_and_is_what_the_next_one_falls_back_to(tmp_path: Path) -> None:
    store = SoftwareStore(tmp_path, "1.0")
    store.activate(fetched(tmp_path, "2.0", b"two"))
    assert store.begin().trial
    store.prove()
    assert [store.begin().version for _ in range(4)] == ["2.0"] * 4
    assert not store.begin().trial
    store.activate(fetched(tmp_path, "3.0", b"three"))
    assert [store.begin().version for _ in range(3)] == ["3.0", "3.0", "2.0"]
    store.activate(fetched(tmp_path, "4.0", b"four"))
    (tmp_path / f"{sha256(b'four').hexdigest()[:32]}.image").unlink()
    assert store.begin().version == "2.0", "the disk lost it"


LIFE = """
import asyncio, json, sys
from pathlib import Path
import httpx
from devices.software import SoftwareStore
from devices.wire import SoftwareRelease

async def main(folder, release):
    store = SoftwareStore(Path(folder), "1.0")
    running = store.begin()
    while running.trial and not store.intact():
        running = store.begin()
    print("runs " + running.version, flush=True)
    if running.trial:
        print("connects", flush=True)
        store.prove()
        print("proved", flush=True)
    wanted = SoftwareRelease(**json.loads(release))
    if running.version != wanted.version:
        print("fetches", flush=True)
        async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
            await store.fetch(wanted, http)
        print("fetched", flush=True)
        store.activate(wanted)
        print("activated", flush=True)
    else:
        print("stays", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def lives(folder: Path, wanted: SoftwareRelease, last_line: str, delay_s: float, life: str = LIFE) -> list[str]:
    """One life of a device, from power on until it is cut, `delay_s` after the line; what it said."""
    document = json.dumps(msgspec.structs.asdict(wanted))
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", life, str(folder), document],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            said.append(line.strip())
            if line.strip() == last_line:
                PAUSE.wait(delay_s)
                child.kill()
        child.wait()
    return said


def test_power_is_cut_at_every_step_and_nothing_but_old_or_new_ever_runs(server: FileServer, tmp_path: Path) -> None:
    wanted, folder = release(server), tmp_path / "device"
    folder.mkdir()
    said: list[str] = []
    for step, delay_s in (("runs 1.0", 0.0), ("fetches", 0.005), ("fetches", 0.02), ("fetched", 0.0), ("activated", 0)):
        said += lives(folder, wanted, step, delay_s)
        assert SoftwareStore(folder, "1.0").running().version in ("1.0", wanted.version)
    said += lives(folder, wanted, "connects", 0.0)
    said += lives(folder, wanted, "stays", 0.0)
    runs = [line for line in said if line.startswith("runs")]
    assert set(runs) == {"runs 1.0", f"runs {wanted.version}"}
    assert runs == sorted(runs), "once the new one ran it was never the old one again"
    assert said[-1] == "stays"
    image = SoftwareStore(folder, "1.0").running().image
    assert image is not None
    assert image.read_bytes() == IMAGE


def test_a_new_version_whose_boots_are_cut_twice_gives_way_to_the_old_one(server: FileServer, tmp_path: Path) -> None:
    wanted, folder = release(server), tmp_path / "device"
    folder.mkdir()
    slow = LIFE.replace('print("connects", flush=True)', 'print("connects", flush=True); sys.stdin.read()')
    assert lives(folder, wanted, "", 0.0)[-1] == "activated"
    assert [lives(folder, wanted, "connects", 0.0, slow)[0] for _ in range(2)] == [f"runs {wanted.version}"] * 2
    assert lives(folder, wanted, "fetches", 0.0)[0] == "runs 1.0"
    assert SoftwareStore(folder, "1.0").fell_back == wanted.version
