"""A book and a setting of the host, rolled out to one store of the running house at the same time, and back."""

from __future__ import annotations

import asyncio
import csv
from dataclasses import replace
from io import StringIO

import pytest
from psycopg import AsyncConnection

from actors.rollout_effects import RollBack, Start
from models.domain.ids import StoreId, TerminalId
from models.domain.rollout import Artefact, RolloutId, Selector
from models.domain.rollout_part import patch_artefact
from models.tables.items import load_assortment
from models.tables.store_books import in_force
from runtime.plant import read_plants
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk
from tests.integration.house import House, Note, eventually
from tests.integration.test_rollout_house import AUTHOR, OTHER, quick_policy, state

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

STORE = StoreId("gz-haizhu")


async def dearer(databases: Databases) -> bytes:
    """The prices in force as a file, each two fen more."""
    async with databases.at() as conn:
        assert isinstance(conn, AsyncConnection)
        known = await load_assortment(conn, databases.chain)
        items = known.at(await in_force(conn, databases.chain)).values()
    text = StringIO()
    rows = csv.writer(text)
    rows.writerow(["code", "name_zh", "name_en", "price", "flags"])
    for one in items:
        price = f"{(one.unit_fen + 2) / 100:.2f}"
        rows.writerow([one.code, one.name.zh, one.name.en, price, " ".join(sorted(one.flags))])
    return text.getvalue().encode()


async def test_a_book_and_a_setting_of_one_store(house: House, note: Note) -> None:
    async with house.terminal(STORE, "whole") as terminal:
        ours = str(terminal.agent.config.terminal)
        others = house.rows("SELECT id FROM terminal WHERE store = %s AND id <> %s", (STORE, ours))
        excluded = frozenset(TerminalId(str(name)) for (name,) in others)
        selector = Selector(stores=frozenset({STORE}), excluded_terminals=excluded)

        def idle() -> object:
            return terminal.agent.desired["timeouts"]["idle_s"]

        before = idle()
        databases = Databases(read_plants(house.data))
        await databases.open()
        try:
            desk = RolloutDesk(databases)

            async def begun(artefact: Artefact) -> RolloutId:
                _, last = quick_policy().stages
                kinds = frozenset({artefact.kind})
                policy = replace(quick_policy(), kinds=kinds, stages=(last,), mandatory_roles=frozenset({"face"}))
                number = (await desk.plan(policy, artefact, selector, AUTHOR)).rollout.id
                await desk.tell(number, Start(AUTHOR))
                return number

            book = await desk.candidate_of_prices(await dearer(databases))
            began = asyncio.get_running_loop().time()
            both = [await begun(book), await begun(patch_artefact({"timeouts": {"idle_s": 121}}))]
            await eventually(lambda: {state(house, one) for one in both} == {"completed"}, "both are complete")
            note("whole_store_s", asyncio.get_running_loop().time() - began)
            assert (terminal.agent.desired["book"], idle()) == (int(book.payload), 121)
            for one in both:
                await desk.tell(one, RollBack(OTHER, "enough"))
            await eventually(lambda: {state(house, one) for one in both} == {"rolled_back"}, "both are back")
            assert (terminal.agent.desired["book"], idle()) == (int(book.fallback), before)
            assert house.rows("SELECT version FROM store_book WHERE store = %s", (STORE,)) == [(None,)]
        finally:
            await databases.close()
