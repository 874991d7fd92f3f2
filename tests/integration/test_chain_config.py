"""Layers of a running house: a change reaches exactly the terminals whose document it changes, and says who made it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from models.domain.chain_config import ABSENT
from models.domain.chain_settings import Level
from models.domain.errors import Refused
from models.domain.ids import ChainId
from models.tables.config_layers import LayerChange, change_layer
from runtime.chains import read_chain
from runtime.config_views import Asked, change, flat_file, flat_house, of_house
from tests.integration.house import CHAIN_FILE, House, eventually, storeops

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STORE, OTHER = "fs-nanhai", "fs-shunde"


def documents(house: House) -> dict[str, tuple[str, int, dict[str, Any]]]:
    """Store, generation and configuration of each terminal that was given one."""
    rows = house.rows("SELECT d.terminal, t.store, d.gen, d.config FROM desired d JOIN terminal t ON t.id = d.terminal")
    return {terminal: (store, gen, json.loads(config)) for terminal, store, gen, config in rows}


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {terminal for terminal, (_, gen, _) in after.items() if terminal in before and gen != before[terminal][1]}


async def test_a_layer_reaches_exactly_the_terminals_whose_document_it_changes(house: House) -> None:
    plants = (house.plant,)
    async with house.terminal(STORE, "lane-1") as terminal:
        name = terminal.agent.config.terminal
        before = documents(house)
        here = {one for one, (store, _, _) in before.items() if store == STORE}
        faces = {one for one in here if "screen" in before[one][2]}
        assert name in faces
        assert here - faces, "its till has no customer's screen"
        assert before[name][2]["screen"]["slogan"]["zh"] == "晨光便利，先享后付"

        # By the command line, for one store: its face terminals, and neither its till nor any other store's.
        words = ("config", "set", "sound.volume_percent=15", "--store", STORE, "--reason", "complaints at night")
        first = await asyncio.to_thread(storeops, *words, "--data", str(house.data))
        assert first == {"ok": True, "version": 1, "set": {"sound": {"volume_percent": 15}}}
        await eventually(lambda: terminal.agent.desired["sound"]["volume_percent"] == 15, "the terminal has it")
        await eventually(lambda: moved(before, documents(house)) == faces, "every face terminal of the store")
        audited = house.rows("SELECT detail->>'change' FROM audit_event WHERE subject = %s", (f"store:{STORE}",))
        assert audited[-1:] == [('{"sound":{"volume_percent":15}}',)]
        same = await change(plants, Asked(store=STORE), {"sound": {"volume_percent": 15}}, "tests", "again")
        assert same == 1, "the same again is no new version"

        # What hosts read reaches all of the store's terminals that can use it, and the store's book.
        between = documents(house)
        patch = {"language": "en", "offers": {"enabled": False}, "sound": {"volume_percent": None}}
        await change(plants, Asked(store=STORE), patch, "tests", "tourists")
        await eventually(lambda: moved(between, documents(house)) == here, "every terminal of the store")
        await eventually(lambda: terminal.agent.desired.get("switches") == ["offers"], "it says what is off")
        shown = await terminal.open_session()
        assert shown.prompt is not None
        assert shown.prompt.text.isascii(), "prompts are English now"
        assert "enrol" not in shown.actions, "memberships are not offered"

        # Where each value comes from, overrides included.
        # By the command line: a process that joined the engine does not outlive the house's next stop.
        patch_words = ("--set", '{"screen":{"brightness_percent":30}}', "--data", str(house.data))
        await asyncio.to_thread(storeops, "terminal", "desired", name, *patch_words)
        await eventually(lambda: terminal.agent.desired["screen"]["brightness_percent"] == 30, "the override is there")
        rows = (await of_house(plants, Asked(terminal=name))).rows()
        assert rows["screen.brightness_percent"]["origin"].startswith("override (a person or a rollout, generation")
        assert rows["sound.volume_percent"] == {"value": 60, "origin": "default storeops"}, "a null gave it back"
        assert rows["language"]["value"] == "en"
        assert rows["language"]["origin"].startswith(f"store {STORE} (tests, ")
        assert rows["screen.slogan.zh"]["origin"].startswith("chain sunrise (demo.yaml:")
        assert rows["timeouts.idle_s"]["origin"] == "default storeops"
        assert rows["consents"]["origin"].startswith("chain sunrise (book version")
        assert rows["switches"]["origin"].startswith("kill switch")
        published = documents(house)[name][2]
        assert {path.split(".")[0] for path in rows} == published.keys()

        # Held against its file: exactly what was changed live.
        runs, file = await flat_house(plants, "sunrise"), flat_file(read_chain(CHAIN_FILE))
        differs = {path for path in runs.keys() | file.keys() if runs.get(path, ABSENT) != file.get(path, ABSENT)}
        assert {path for path in differs if path.startswith(f"store {STORE}")} == {
            f"store {STORE}: language",
            f"store {STORE}: offers.enabled",
            f"store {STORE}: sound.volume_percent",
        }
        others = {one for one, (store, _, _) in before.items() if store != STORE}
        assert not moved(before, documents(house)) & others, "nobody else heard of it"

    await change(plants, Asked(store=STORE), {}, "tests", "over", ["language", "offers", "sound.volume_percent"])
    assert house.rows("SELECT patch, places FROM config_layer WHERE scope = %s", (STORE,)) == [({}, {})]
    history = house.rows(
        'SELECT version, "by", reason FROM config_change WHERE level = %s AND scope = %s ORDER BY version',
        ("store", STORE),
    )
    assert [(version, reason) for version, _, reason in history] == [
        (1, "complaints at night"),
        (2, "tourists"),
        (3, "over"),
    ]


async def test_a_wrong_or_overtaken_change_of_a_layer_is_refused(house: House) -> None:
    plants = (house.plant,)
    with pytest.raises(Refused, match=r"sound\.volume: unknown setting"):
        await change(plants, Asked(store=OTHER), {"sound": {"volume": 1}}, "tests", "typo")
    with pytest.raises(Refused, match="why"):
        await change(plants, Asked(store=OTHER), {"sound": {"volume_percent": 1}}, "tests", " ")
    with pytest.raises(Refused, match="no store 'nowhere' runs here"):
        await change(plants, Asked(store="nowhere"), {}, "tests", "x")
    async with await psycopg.AsyncConnection.connect(house.plant.database_url, autocommit=True) as conn:
        asked = LayerChange(
            ChainId("sunrise"), Level.STORE, OTHER, "south-china", {}, "tests", "stale", expected_version=7
        )
        with pytest.raises(Refused) as refused:
            await change_layer(conn, asked, datetime.now(UTC))
        assert refused.value.code == "layer_conflict"
    assert not house.rows("SELECT 1 FROM config_layer WHERE scope = %s", (OTHER,))
