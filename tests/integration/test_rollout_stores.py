"""What a whole store reads, rolled out on a real database: its book and its host's settings, by stores, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import AsyncConnection

from actors.hosts import REGISTRY_CHANNEL, Delivered, Delivery
from actors.rollout_effects import Promote, RollBack, SetDesired, Start
from actors.terminal import receive
from models.domain.chain_settings import Level
from models.domain.errors import Refused
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.messages import Address
from models.domain.plans import Text
from models.domain.pricing import Item
from models.domain.rollout import Artefact, RolloutId, RolloutPolicy, RolloutState, Selector
from models.domain.rollout_part import patch_artefact
from models.domain.twin import DesiredAsked, canonical
from models.tables.chain_books import save_book
from models.tables.config_layers import LayerChange, change_layer
from models.tables.store_books import in_force
from runtime.directory import Directory
from runtime.postgres import EmbeddedPostgres
from runtime.price_import import Wanted, digest_of, import_everywhere
from runtime.rollout_desk import RolloutDesk
from runtime.rollout_stores import StoreOrders
from runtime.rollouts import RolloutDriver
from tests.conftest import fresh_database
from tests.integration.rollout_shop import (
    AUTHOR,
    BEGAN,
    CHAIN,
    OTHER,
    REGION,
    STORES,
    Clock,
    KilledHere,
    opened,
    plant,
    read_twin,
    report,
    small_policy,
    write_twin,
)

pytestmark = pytest.mark.integration

FILE = "code,name_zh,name_en,price,flags\ntea,茶,Tea,6.50,\n"
TEA = Item("tea", Text(zh="茶", en="Tea"), 600)
DOCUMENT: dict[str, Any] = {"plans": [], "consents": []}
FIRST, LAST = STORES[0], STORES[5]


class Shops:
    """The region's host: it looks when it is told, prices by what it read, and then gives terminals new documents."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url, self._clock = url, clock
        self.directory = Directory(REGION)
        self.told = 0
        self.deaf = False

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        assert region == REGION
        assert {one.channel for one in batch} == {REGISTRY_CHANNEL}, "a terminal is never asked by itself"
        self.told += 1
        if not self.deaf:
            await self.look()
        return [Delivered(b"", b"")] * len(batch)

    async def look(self) -> None:
        async with await AsyncConnection.connect(self._url, autocommit=True) as conn:
            await self.directory.load(conn)
        with psycopg.connect(self._url, autocommit=True) as conn:
            for record in self.directory.terminals():
                base = canonical(self.directory.desired_config(record, self.directory.book_of(record.store, 0)))
                _, before = read_twin(conn, record.terminal)
                asked = DesiredAsked(f"{before.desired.gen}:{base}", base)  # type: ignore[arg-type]
                me = Address(REGION, record.store, "terminal", record.terminal)
                write_twin(conn, record.terminal, receive(before, asked, me, asked.id, self._clock.now).state)

    def prices(self) -> dict[str, int]:
        """What each store asks for a tea, in fen."""
        books = {store: self.directory.book_of(store, 0).chain_book for store in STORES}
        return {store: book.items["tea"].unit_fen for store, book in books.items()}


@pytest.fixture(scope="module")
def planted(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[tuple[EmbeddedPostgres, str]]:
    with fresh_database(embedded_postgres, migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            plant(conn)
            conn.execute("INSERT INTO legal_entity VALUES ('e', %s, '', '', '')", (CHAIN,))
            conn.execute("INSERT INTO store_entity SELECT id, '2000-01-01', 'e' FROM store")
        yield embedded_postgres, urlsplit(url).path.lstrip("/")


@pytest.fixture
async def url(planted: tuple[EmbeddedPostgres, str]) -> Any:
    server, template = planted
    with fresh_database(server, template) as made:
        async with await AsyncConnection.connect(made) as conn, conn.cursor() as cur:
            assert await save_book(cur, CHAIN, DOCUMENT, [TEA], BEGAN) == 1
        yield made


def offline(url: str, store: StoreId) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("UPDATE entity SET state = jsonb_set(state, '{online}', 'false') WHERE store = %s", (store,))


def pins(url: str) -> dict[str, int | None]:
    with psycopg.connect(url, autocommit=True) as conn:
        return dict(conn.execute("SELECT store, version FROM store_book ORDER BY store").fetchall())


def policy_for(artefact: Artefact, **last: Any) -> RolloutPolicy:
    found = small_policy()
    pilot, everybody = found.stages
    rules = replace(everybody.policy, **last)
    attached = replace(pilot.policy, attachments=())
    stages = (replace(pilot, policy=attached), replace(everybody, policy=rules))
    return replace(found, kinds=frozenset({artefact.kind}), stages=stages)


async def start(desk: RolloutDesk, artefact: Artefact, **last: Any) -> RolloutId:
    made = await desk.plan(policy_for(artefact, **last), artefact, Selector(all_stores=True), AUTHOR)
    await desk.tell(made.rollout.id, Start(AUTHOR))
    return made.rollout.id


async def until(
    driver: RolloutDriver,
    desk: RolloutDesk,
    shops: Shops,
    number: RolloutId,
    goal: RolloutState,
    url: str,
    clock: Clock,
) -> None:
    """Rounds; between them the host looks by itself, terminals report, and whoever waits for approval gets it."""
    for _ in range(30):
        await driver.round()
        await shops.look()
        report(url)
        clock.on(5)
        shown = await desk.show(number)
        if shown.turn.rollout.state is goal:
            return
        if shown.turn.stages and shown.turn.stages[-1].gate.way == "await_approval":
            await desk.tell(number, Promote(OTHER))
    raise AssertionError(f"still {shown.turn.rollout.state}: {shown.turn.why.en}")


async def test_prices_reach_stores_by_stages_become_the_chains_and_go_back(url: str) -> None:
    clock = Clock()
    shops = Shops(url, clock)
    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        driver = RolloutDriver(databases, shops, clock)  # type: ignore[arg-type]
        artefact = await desk.candidate_of_prices(FILE.encode())
        assert (artefact.key, artefact.payload, artefact.fallback) == ("book", "2", "1")
        assert await desk.candidate_of_prices(FILE.encode()) == artefact, "the same file is the same candidate"
        await shops.look()
        assert set(shops.prices().values()) == {600}, "a candidate is nobody's"
        offline(url, LAST)
        number = await start(desk, artefact, offline_percent_max=30)

        await driver.round()
        pilot = {store for store, fen in shops.prices().items() if fen == 650}
        assert (len(pilot), FIRST in pilot, shops.told) == (2, True, 1), "the host prices by it at once"
        with psycopg.connect(url, autocommit=True) as conn:
            _, twin = read_twin(conn, f"{FIRST}-till")
        assert (twin.desired.store_gen, twin.applied_gen) == (1, None), "and the terminal has its document after that"
        body = FILE.replace("6.50", "6.60").encode()
        with pytest.raises(Refused) as refused:
            await import_everywhere([url], body, Wanted(CHAIN, digest_of(body)), BEGAN)
        assert refused.value.code == "book_on_its_way"

        await until(driver, desk, shops, number, RolloutState.COMPLETED, url, clock)
        shown = await desk.show(number)
        assert "1 offline stores keep what they had" in shown.turn.why.en
        asked = {store: (600 if store == LAST else 650) for store in STORES}
        assert shops.prices() == asked
        assert pins(url) == dict.fromkeys(STORES, None) | {LAST: 1}, "all but the one that was left follow the chain"
        async with databases.at() as conn:
            assert await in_force(conn, CHAIN) == 2

        rollout = shown.turn.rollout
        late = SetDesired(f"{number}:late", TerminalId(f"{LAST}-till"), LAST, artefact.kind, "2", 1)  # type: ignore[arg-type]
        stale = replace(rollout, entries=rollout.entries - 1)
        given = await StoreOrders(databases, shops).give(stale, [late], {late.target: REGION}, clock())  # type: ignore[arg-type]
        assert (given, pins(url)[LAST]) == ((0, 1), 1), "an order of an earlier tick does nothing"

        await desk.tell(number, RollBack(OTHER, "too dear"))
        await shops.look()
        assert shops.prices() == asked, "taking it back moves nobody by itself"
        await until(driver, desk, shops, number, RolloutState.ROLLED_BACK, url, clock)
        assert set(shops.prices().values()) == {600}
        assert set(pins(url).values()) == {None}
        (done,) = await import_everywhere([url], body, Wanted(CHAIN, digest_of(body)), BEGAN)
        await shops.look()
        assert (done.version, set(shops.prices().values())) == (3, {660})
        again = await desk.candidate_of_version(3)
        assert (again.payload, again.fallback) == ("3", "3")
        for older in (1, 2):
            with pytest.raises(Refused) as unknown:
                await desk.candidate_of_version(older)
            assert unknown.value.code == "unknown_book"


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.soak)])
async def test_a_kill_at_every_other_effect_leaves_no_store_between_versions(url: str, first: int) -> None:
    """Effects: a commit of the journal, the change of some stores, telling their hosts. The next driver goes on."""
    clock, effects, kills = Clock(), first, 0

    class Dying(Shops):
        async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
            await dies("told")
            return await super().deliver(region, batch)

    async def dies(_: str) -> None:
        nonlocal effects, kills
        effects += 1
        if effects % 2:
            kills += 1
            raise KilledHere

    shops = Dying(url, clock)
    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        number = await start(desk, await desk.candidate_of_prices(FILE.encode()))
        for goal, fen in ((RolloutState.COMPLETED, 650), (RolloutState.ROLLED_BACK, 600)):
            while True:
                driver = RolloutDriver(databases, shops, clock, dies)  # type: ignore[arg-type]
                try:
                    await until(driver, desk, shops, number, goal, url, clock)
                    break
                except KilledHere:
                    continue
            await shops.look()
            assert set(shops.prices().values()) == {fen}
            assert set(pins(url).values()) == {None}
            if goal is RolloutState.COMPLETED:
                await desk.tell(number, RollBack(OTHER, "a kill"))
        assert kills >= 4


async def test_a_setting_of_hosts_goes_through_the_stores_own_layer(url: str) -> None:
    clock = Clock()
    shops = Shops(url, clock)
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        mine = LayerChange(CHAIN, Level.STORE, FIRST, REGION, {"timeouts": {"idle_s": 90}}, "ann", "slow customers")
        await change_layer(conn, mine, BEGAN)

    def idle() -> dict[str, int]:
        return {store: shops.directory.book_of(store, 0).settings.idle_s for store in STORES}

    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        driver = RolloutDriver(databases, shops, clock)  # type: ignore[arg-type]
        number = await start(desk, patch_artefact({"timeouts": {"idle_s": 120}}))
        shops.deaf = True
        await driver.round()
        await shops.deliver(REGION, [Delivery(f"{FIRST}-till", REGISTRY_CHANNEL, b"")])  # type: ignore[arg-type]
        report(url)
        clock.on(5)
        await driver.round()
        assert (await desk.show(number)).turn.stages[0].counts.succeeded == 0, "no host has read it yet"
        shops.deaf = False
        await until(driver, desk, shops, number, RolloutState.COMPLETED, url, clock)
        assert set(idle().values()) == {120}
        await desk.tell(number, RollBack(OTHER, "too short"))
        await until(driver, desk, shops, number, RolloutState.ROLLED_BACK, url, clock)
        assert idle() == dict.fromkeys(STORES, 300) | {FIRST: 90}
    with psycopg.connect(url, autocommit=True) as looking:
        rows = looking.execute("SELECT DISTINCT patch FROM config_layer WHERE scope <> %s", (FIRST,)).fetchall()
        assert rows == [({},)], "what a rollout set is forgotten, not hidden"
    for mixed in ({"timeouts": {"idle_s": 120}, "sound": {"volume_percent": 3}}, {"timeouts": {"idle_s": 1}}):
        with pytest.raises(Refused) as refused:
            patch_artefact(mixed)
        assert refused.value.code == "bad_artefact"


async def test_one_rollout_takes_over_from_another_and_gives_back_what_stood_before_both(url: str) -> None:
    clock = Clock()
    shops = Shops(url, clock)
    async with opened(url) as databases:
        desk = RolloutDesk(databases, clock)
        driver = RolloutDriver(databases, shops, clock)  # type: ignore[arg-type]
        old = await start(desk, await desk.candidate_of_prices(FILE.encode()))
        await driver.round()
        assert sorted(shops.prices().values()) == [600] * 4 + [650] * 2
        other = await desk.candidate_of_prices(FILE.replace("6.50", "6.70").encode())
        assert other.payload == "3"
        draft = (await desk.plan(policy_for(other), other, Selector(all_stores=True), AUTHOR)).rollout
        with pytest.raises(Refused) as refused:
            await desk.tell(draft.id, Start(AUTHOR))
        assert refused.value.code == "rollout_conflict"
        turn = await desk.supersede(old, draft.id, OTHER)
        assert sum(mark.inherited for mark in turn.rollout.marks.values()) == 4
        assert (await desk.supersede(old, draft.id, OTHER)).effects == (), "twice is once"
        assert [one.id for one in await desk.headers(active=True)] == [draft.id]
        assert (await desk.show(old)).turn.rollout.state is RolloutState.SUPERSEDED
        await driver.round()
        assert 670 in shops.prices().values()
        await desk.tell(draft.id, RollBack(OTHER, "neither"))
        await until(driver, desk, shops, draft.id, RolloutState.ROLLED_BACK, url, clock)
        assert set(shops.prices().values()) == {600}
        assert set(pins(url).values()) == {None}
