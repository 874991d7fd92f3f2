"""A chain's file in the database: labels, layers, and whose document an edited line changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg

from models.domain.chain_settings import Level
from models.domain.ids import ChainId, RegionId, StoreId, TerminalId
from models.domain.kill_switch import Switch
from models.domain.twin import canonical, hash_of
from models.tables.config_layers import LayerChange, change_layer, load_layers
from models.tables.terminals import registry_mark
from runtime.chain_documents import ChainDoc
from runtime.chain_tables import apply_chain
from runtime.chains import read_chain
from runtime.directory import Directory
from runtime.settings import CONFIGS

REGION = RegionId("campus")
STORE = StoreId("sh-fudan")
Connection = psycopg.AsyncConnection[Any]


def with_settings(doc: ChainDoc, store: str, settings: dict[str, Any]) -> ChainDoc:
    stores = tuple(one.model_copy(update={"settings": settings}) if one.id == store else one for one in doc.stores)
    return doc.model_copy(update={"stores": stores, "places": {}})


async def hashes(conn: Connection) -> dict[TerminalId, str]:
    """What each terminal of the region should be told."""
    directory = Directory(REGION)
    await directory.load(conn)
    return {
        one.terminal: hash_of(canonical(directory.desired_config(one, directory.book_of(one.store, 0))))
        for one in directory.terminals()
    }


async def test_an_edited_line_changes_the_documents_of_its_terminals_and_of_no_other(
    migrated_database_url: str,
) -> None:
    doc = read_chain(CONFIGS / "chains" / "clearwater.yaml").of_region(REGION)
    async with await psycopg.AsyncConnection.connect(migrated_database_url, autocommit=True) as conn:
        await apply_chain(conn, doc, REGION, "key")
        first, mark = await hashes(conn), await registry_mark(conn, REGION)
        assert len(first) == 8
        await apply_chain(conn, doc, REGION, "key")
        assert await registry_mark(conn, REGION) == mark, "applied again it changes nothing"
        row = await (await conn.execute("SELECT labels FROM store WHERE id = %s", (STORE,))).fetchone()
        assert row == ({"city": "shanghai", "format": "campus"},)

        await apply_chain(conn, with_settings(doc, STORE, {"sound": {"volume_percent": 5}}), REGION, "key")
        assert await registry_mark(conn, REGION) != mark
        second = await hashes(conn)
        changed = {one for one in first if first[one] != second[one]}
        assert changed == {"sh-fudan-p1", "sh-fudan-k1", "sh-fudan-v1"}, "the till has no customer's screen"

        # What was set live stays over the file, and the file may be applied again.
        asked = LayerChange(
            ChainId("clearwater"), Level.STORE, STORE, REGION, {"sound": {"volume_percent": 90}}, "tests", "louder"
        )
        assert await change_layer(conn, asked, datetime.now(UTC)) == 1
        await apply_chain(conn, doc, REGION, "key")
        [layer] = [one for one in await load_layers(conn, REGION) if one.scope == STORE]
        assert (layer.source, layer.patch) == ("live", {"sound": {"volume_percent": 90}})
        assert {one for one in first if first[one] != (await hashes(conn))[one]} == changed

        directory = Directory(REGION)
        await directory.load(conn)
        kinds: dict[object, set[str]] = {}
        for one in directory.terminals():
            place = directory.book_of(one.store, 0)
            text = canonical(directory.desired_config(one, place))
            kinds.setdefault(directory.config_key(one, place), set()).add(text)
        assert all(len(texts) == 1 for texts in kinds.values()), "terminals of one kind are told the same"
        assert len(kinds) < len(first), "and there are fewer kinds than terminals"
        book = directory.book_of(StoreId("bj-wudaokou"), 0)
        assert (book.language, book.off) == ("zh", (Switch.FACE,)), "its region's language, its own choice"
        assert await directory.refresh_switches(conn, datetime.now(UTC)) == [], "no switch was thrown"
        record = next(one for one in directory.terminals() if one.terminal == "sh-fudan-p1")
        config = directory.desired_config(record, directory.book_of(STORE, 0))
        assert config["software_window"] == {"from": "02:30", "to": "04:30", "zone": "Asia/Shanghai"}
        assert config["screen"]["slogan"]["zh"] == "下课来一杯"
        assert config["sound"] == {"volume_percent": 90}
