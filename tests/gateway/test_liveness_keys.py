"""Keys for signed liveness by the API and on the terminal's page, on a real database and the real desk."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from markupsafe import escape

from devices.liveness import LivenessKey, fingerprint, show_public_key
from gateway.console.texts import TEXTS
from models.domain.ids import ChainId, RegionId
from models.tables.liveness_keys import load_keys
from models.tables.privacy import list_events
from models.tables.terminals import registry_mark
from runtime.liveness_keys import LivenessKeysOfAHouse
from runtime.plant import Plant
from tests.gateway.conftest import Console

pytestmark = pytest.mark.integration

TERMINAL = "t-006-1"
API = f"/api/v1/terminals/{TERMINAL}/liveness-keys"
FIRST, SECOND, THIRD = (LivenessKey.make().public for _ in range(3))


@pytest.fixture
def told(console: Console, filled_url: str) -> list[str]:
    """Terminals whose hosts were told to look."""
    found: list[str] = []

    async def tell(plant: Plant, terminal: str) -> bool:
        found.append(terminal)
        return plant.region == "local"

    plant = Plant(data_dir=Path(), database_url=filled_url, chain=ChainId("chain"), region=RegionId("local"))
    console.edge.liveness_keys = LivenessKeysOfAHouse([plant], tell=tell)
    return found


def effect(console: Console) -> dict[str, str]:
    return {**console.ours, "Idempotency-Key": str(uuid.uuid4())}


async def test_a_key_is_registered_exchanged_and_revoked(console: Console, told: list[str], filled_url: str) -> None:
    post, key = console.client.post, effect(console)
    async with await psycopg.AsyncConnection.connect(filled_url, autocommit=True) as conn:
        await conn.execute("UPDATE terminal SET profile = 'dragonfly-2' WHERE id = %s", (TERMINAL,))
        marks = [await registry_mark(conn, RegionId("local"))]

        async def live() -> tuple[bytes, ...]:
            marks.append(await registry_mark(conn, RegionId("local")))
            return (await load_keys(conn, RegionId("local"))).get(TERMINAL, ())

        body = {"key": show_public_key(FIRST)}
        assert (await post(API, json=body)).status_code == 403, "no token of ours"
        added = await post(API, json=body, headers=key)
        assert added.json() == {"terminal": TERMINAL, "added": fingerprint(FIRST), "ended": [], "told": True}
        assert (await post(API, json=body, headers=key)).json() == added.json(), "one press, one key"
        assert await live() == (FIRST,)
        assert (await post(API, json={"key": SECOND.hex()}, headers=effect(console))).status_code == 200
        assert set(await live()) == {FIRST, SECOND}, "both count while the camera is exchanged"
        full = await post(API, json={"key": THIRD.hex()}, headers=effect(console))
        assert (full.status_code, full.json()["code"]) == (409, "keys_full")
        replaced = await post(API, json={"key": THIRD.hex(), "replace": True}, headers=effect(console))
        assert replaced.json()["ended"] == sorted([fingerprint(FIRST), fingerprint(SECOND)])
        assert await live() == (THIRD,)
        for again, code in ((THIRD, "key_known"), (FIRST, "key_ended")):
            refused = await post(API, json={"key": again.hex()}, headers=effect(console))
            assert (refused.status_code, refused.json()["code"]) == (409, code)
        ended = await post(f"{API}/revoke", json={"fingerprint": fingerprint(THIRD)}, headers=effect(console))
        assert ended.json()["ended"] == [fingerprint(THIRD)]
        assert await live() == ()
        gone = await post(f"{API}/revoke", json={}, headers=effect(console))
        assert (gone.status_code, gone.json()["code"]) == (409, "unknown_key")
        assert len(set(marks)) == 5, "hosts see each change, and nothing else"
        events = [(one.kind, one.by) for one in await list_events(conn, limit=10) if one.subject == TERMINAL]
    assert sorted({kind for kind, _ in events}) == ["liveness_key.registered", "liveness_key.revoked"]
    assert all(by.startswith("console:") for _, by in events)
    assert set(told) == {TERMINAL}
    listed = (await console.client.get(API)).json()
    assert [(one["fingerprint"], one["ended_at"] is None) for one in listed] == [
        (fingerprint(one), False) for one in (THIRD, SECOND, FIRST)
    ]
    for n, language in enumerate(("zh", "en")):
        await console.client.get(f"/language/{language}")
        page = (await console.client.get(f"/terminals/{TERMINAL}")).text
        assert all(fingerprint(one) in page for one in (FIRST, SECOND, THIRD))
        assert str(escape(TEXTS["liveness_key.none"][n])) in page


async def test_what_makes_no_sense_is_refused(console: Console, told: list[str], filled_url: str) -> None:
    post = console.client.post
    elsewhere = "/api/v1/terminals/t-007-1/liveness-keys"
    async with await psycopg.AsyncConnection.connect(filled_url, autocommit=True) as conn:
        await conn.execute("UPDATE terminal SET profile = 'dragonfly-1' WHERE id = 't-007-1'")
        await conn.execute("UPDATE terminal SET profile = 'till' WHERE id = 't-007-2'")
    mine = LivenessKey.make().public
    assert (await post(elsewhere, json={"key": mine.hex()}, headers=effect(console))).status_code == 200
    for path, key, code in (
        (API, mine, "key_elsewhere"),
        (API, b"\0" * 32, "bad_key"),
        ("/api/v1/terminals/t-007-2/liveness-keys", LivenessKey.make().public, "no_depth"),
        ("/api/v1/terminals/t-999-9/liveness-keys", LivenessKey.make().public, "unknown_terminal"),
    ):
        refused = await post(path, json={"key": key.hex()}, headers=effect(console))
        assert (refused.status_code, refused.json()["code"]) == (409, code)
        assert refused.json()["do"]
    assert (await console.client.get("/api/v1/terminals/t-999-9/liveness-keys")).status_code == 404
    assert told == ["t-007-1"]
