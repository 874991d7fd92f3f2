"""The image store: added once, served in ranges to who knows the digest, never a path, removed when nobody runs it."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from devices.software import FetchBroken, SoftwareStore
from devices.wire import SoftwareRelease
from gateway.edge import Edge
from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId
from runtime.images import Images, Offered
from runtime.plant import Plant
from tests.gateway.conftest import client_of

IMAGE = b'{"storeops_image":1,"profile":"dragonfly-2"}\n' + bytes(range(256)) * 300


@pytest.fixture
def images(filled_url: str, tmp_path: Path, app: FastAPI) -> Images:
    edge: Edge = app.state.edge
    edge.images = tmp_path / "images"
    plant = Plant(tmp_path, ChainId("chain"), RegionId("local"), 1, filled_url, gateway_url="http://127.0.0.1:8000/")
    return Images([plant])


def offered(folder: Path, number: str, image: bytes = IMAGE, profile: str = "dragonfly-2") -> Offered:
    file = folder / "image.bin"
    file.write_bytes(image)
    return Offered(file, "dragonfly", number, profile, "不再输入数字", "digits no longer required")


async def test_a_version_is_recorded_once_and_never_changes(images: Images, tmp_path: Path) -> None:
    first = await images.add(offered(tmp_path, "2.0.0"), "test")
    again = await images.add(offered(tmp_path, "2.0.0"), "test")
    assert (again.version, again.sha256) == ("dragonfly 2.0.0", sha256(IMAGE).hexdigest())
    assert [one.version for one in await images.list()].count("dragonfly 2.0.0") == 1
    document = images.document(await images.find("dragonfly 2.0.0"))
    assert document["url"] == f"http://127.0.0.1:8000/images/{first.sha256}"
    assert (document["here"], document["profile"], document["notes"]["zh"]) == (True, "dragonfly-2", "不再输入数字")
    cases = {
        "version_taken": offered(tmp_path, "2.0.0", IMAGE + b"more"),
        "bad_version": offered(tmp_path, "../2"),
        "unknown_profile": offered(tmp_path, "9", profile="dragonfly-9"),
    }
    for code, wrong in cases.items():
        wrong.file.write_bytes(IMAGE + b"more" if code == "version_taken" else IMAGE)
        with pytest.raises(Refused) as refused:
            await images.add(wrong, "test")
        assert refused.value.code == code
    for wrong in (offered(tmp_path, "9", b""), offered(tmp_path, "9", profile="dragonfly-1")):
        wrong.file.write_bytes(b"" if wrong.profile == "dragonfly-2" else IMAGE)
        with pytest.raises(Refused) as refused:
            await images.add(wrong, "test")
        assert refused.value.code == "bad_image"
    assert not [name for name in os.listdir(tmp_path / "images") if name.endswith(".part")]


async def test_a_terminal_fetches_it_in_ranges_without_a_session(images: Images, app: FastAPI, tmp_path: Path) -> None:
    image = await images.add(offered(tmp_path, "2.0.1"), "test")
    release = images.release(image)
    path = f"/images/{image.sha256}"
    async with client_of(app) as client:
        whole = await client.get(path)
        assert (whole.status_code, whole.content) == (200, IMAGE)
        assert whole.headers["etag"] == f'"{image.sha256}"'
        assert "immutable" in whole.headers["cache-control"]
        part = await client.get(path, headers={"Range": "bytes=70000-"})
        assert (part.status_code, part.content) == (206, IMAGE[70_000:])
        assert part.headers["content-range"] == f"bytes 70000-{len(IMAGE) - 1}/{len(IMAGE)}"
        other = await client.get(path, headers={"Range": "bytes=70000-", "If-Range": '"another"'})
        assert (other.status_code, len(other.content)) == (200, len(IMAGE))
        assert (await client.get(path, headers={"Range": f"bytes={len(IMAGE)}-"})).status_code == 416
        head = await client.head(path)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(IMAGE)))

        device = SoftwareStore(tmp_path / "device", "1.0")
        wanted = SoftwareRelease(release.version, release.url, release.sha256, release.size_bytes)
        (tmp_path / "device").mkdir()
        (tmp_path / "device" / f"{image.sha256[:32]}.part").write_bytes(IMAGE[:50_000])
        assert (await device.fetch(wanted, client)).read_bytes() == IMAGE
        gone = SoftwareRelease("x", f"http://127.0.0.1:8000/images/{'0' * 64}", "0" * 64, 5)
        with pytest.raises(FetchBroken):
            await device.fetch(gone, client)


@pytest.mark.parametrize(
    "path",
    ["/images/", "/images/..%2Fsecrets%2Fmetrics-token", "/images/%2e%2e", f"/images/{'A' * 64}", "/images/.1.part"],
)
async def test_nothing_but_a_digest_is_a_name(images: Images, app: FastAPI, tmp_path: Path, path: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".1.part").write_bytes(b"half")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "metrics-token").write_text("secret")
    async with client_of(app) as client:
        answer: httpx.Response = await client.get(path)
    assert answer.status_code == 404
    assert b"secret" not in answer.content


async def test_what_somebody_is_told_to_run_is_not_removed(images: Images, filled_url: str, tmp_path: Path) -> None:
    image = await images.add(offered(tmp_path, "3.0.0", IMAGE + b"three"), "test")
    insert = """INSERT INTO desired (terminal, gen, config, config_hash, software, set_at)
        VALUES ('t-image', 1, '{}', 'h', jsonb_build_object('sha256', %s::text), now())"""
    with psycopg.connect(filled_url, autocommit=True) as conn:
        conn.execute(insert, (image.sha256,))
        with pytest.raises(Refused) as refused:
            await images.remove(image.version, "test")
        assert refused.value.code == "image_in_use"
        conn.execute("DELETE FROM desired WHERE terminal = 't-image'")
    await images.remove(image.version, "test")
    assert not (tmp_path / "images" / image.sha256).exists()
    with pytest.raises(Refused) as refused:
        await images.find(image.version)
    assert refused.value.code == "unknown_version"
