"""What changes for whole stores, against rows, hosts that look now and then, and terminals: killed between any two
effects, with orders of the dead that come late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest

from actors.rollout import tick
from actors.rollout_commands import receive
from actors.rollout_effects import Activate, Journal, Observation, Restore, RollBack, RolloutTurn, SetDesired, Start
from models.domain.ids import StoreId, TerminalId
from models.domain.rollout import ArtefactKind, Observed, RolloutState, Selector, TargetState
from models.domain.rollout_journal import Entry, Rollout, drafted, folded
from models.domain.rollout_part import BOOKS, book_artefact, layer_change, patch_artefact, store_part
from models.domain.rollout_plan import resolve
from models.domain.rollout_target import UNSEEN
from models.domain.twin import overlaid
from models.tables.rollout_sight import Twin
from models.tables.store_books import StoreSight
from runtime.rollout_stores import seen_by_store
from tests.domain.rollouts import AUTHOR, OTHER, after, policy, rules, site

PRICES = book_artefact(ArtefactKind.PRICES, 7, 6)
SETTING = patch_artefact({"timeouts": {"idle_s": 120}})
SITES = tuple(site(n, terminals=2) for n in range(4))
LADDER = (
    {"name": "one", "stores": 1} | rules(),
    {"name": "all", "stores": "all"}
    | rules(success_percent_min=50, error_percent_max=50, error_stores_max=2, executed_min=2),
)


@dataclass
class Chain:
    """Rows of stores, what their host has read of them, and terminals with the documents that it gave."""

    artefact: Any
    gens: dict[StoreId, int] = field(default_factory=dict)
    versions: dict[StoreId, int] = field(default_factory=dict)
    layers: dict[StoreId, dict[str, Any]] = field(default_factory=dict)
    twins: dict[TerminalId, Twin] = field(default_factory=dict)
    sick: frozenset[TerminalId] = frozenset()

    def __post_init__(self) -> None:
        for place in SITES:
            self.gens[place.store], self.versions[place.store], self.layers[place.store] = 0, 6, {}
            for one in place.terminals:
                self.twins[one.terminal] = Twin(1, "h1", "{}", None, True, 1, "h1", "1.0", "b", "", 0)

    def part(self, store: StoreId) -> str:
        return store_part(self.artefact, self.versions[store], self.layers[store])

    def carry_out(self, order: SetDesired | Restore) -> None:
        """One transaction of a store."""
        self.gens[order.store] += 1
        if self.artefact.kind in BOOKS:
            self.versions[order.store] = int(order.part)
            return
        patch, forget = layer_change(self.artefact, order.part)
        self.layers[order.store] = {} if forget else overlaid(self.layers[order.store], patch)

    def hosts_look(self) -> None:
        for place in SITES:
            for one in place.terminals:
                twin = self.twins[one.terminal]
                if twin.store_gen != self.gens[place.store]:
                    gen, read = twin.gen + 1, self.gens[place.store]
                    self.twins[one.terminal] = replace(twin, gen=gen, config_hash=f"h{gen}", store_gen=read)

    def terminals_apply(self) -> None:
        for terminal, twin in self.twins.items():
            lies = terminal in self.sick and self.part(StoreId(terminal.rpartition("-")[0])) == self.artefact.payload
            said = "other" if lies else twin.config_hash
            self.twins[terminal] = replace(twin, applied_gen=twin.gen, reported_hash=said)

    def seen(self, rollout: Rollout) -> Observation:
        plain = {
            terminal: Observed(
                twin.gen, "", twin.config_hash, twin.online, twin.applied_gen, twin.reported_hash, "1.0", "b"
            )
            for terminal, twin in self.twins.items()
        }
        stores = [store for stage in rollout.plan.stages for store in stage.stores]
        whole = {one: StoreSight(self.gens[one], self.versions[one], self.layers[one]) for one in self.gens}
        return Observation(seen_by_store(rollout.artefact, stores, plain, self.twins, whole))


class Driver:
    """Journals, then orders store by store while the journal is as long; dies before effect `dies_at`."""

    def __init__(self, artefact: Any, dies_at: int | None, **sick: Any) -> None:
        rule = policy(*LADDER, mandatory_roles=["till"])
        plan = resolve(
            SITES, Selector(all_stores=True), rule.stages, 7, mandatory_roles=frozenset({"till"}), mandatory_only=True
        )
        self.chain = Chain(artefact, **sick)
        self.draft = drafted("r-1", "c", artefact, Selector(all_stores=True), rule, plan, AUTHOR)  # type: ignore[arg-type]
        self.journal: list[Entry] = []
        self.rollout, self.dies_at, self.done = self.draft, dies_at, 0
        self.late: list[tuple[int, SetDesired | Restore]] = []
        self.second = 0
        self.told(Start(AUTHOR))

    def told(self, command: Any) -> None:
        turn = receive(self.rollout, command, self.chain.seen(self.rollout), self.now)
        self.journal += [one.entry for one in turn.effects if isinstance(one, Journal)]
        self.rollout = turn.rollout

    @property
    def now(self) -> datetime:
        return after(self.second)

    def _dies(self) -> bool:
        self.done += 1
        if self.done - 1 != self.dies_at:
            return False
        self.rollout = folded(self.draft, self.journal)
        return True

    def step(self) -> None:
        turn = tick(self.rollout, self.chain.seen(self.rollout), self.now)
        self._perform(turn)
        # Whoever died may have left an order behind that is carried out now: only under the journal of its tick.
        for entries, order in self.late:
            self._carry_out(entries, order)
        if self.second % 3 == 0:
            self.chain.hosts_look()
        self.chain.terminals_apply()
        self.second += 20

    def _perform(self, turn: RolloutTurn) -> None:
        entries = [one.entry for one in turn.effects if isinstance(one, Journal)]
        orders = {one.store: one for one in turn.effects if isinstance(one, SetDesired | Restore)}
        assert not any(isinstance(one, Activate) for one in turn.effects)
        assert len({(one.store, one.part) for one in turn.effects if isinstance(one, SetDesired | Restore)}) == len(
            orders
        ), "all terminals of a store are told the same"
        if entries:
            if self._dies():
                return
            self.journal += entries
            self.rollout = turn.rollout
        for order in orders.values():
            if self._dies():
                self.late.append((turn.rollout.entries, order))
                return
            self._carry_out(turn.rollout.entries, order)

    def _carry_out(self, entries: int, order: SetDesired | Restore) -> None:
        if len(self.journal) == entries:
            self.chain.carry_out(order)

    def until(self, *goals: RolloutState) -> None:
        for _ in range(60):
            if self.rollout.state in goals:
                return
            self.step()
        raise AssertionError(f"still {self.rollout.state}: {self.rollout.why.en}")

    def settled(self) -> dict[StoreId, str]:
        """Once everything in flight has happened."""
        for entries, order in self.late:
            self._carry_out(entries, order)
        self.chain.hosts_look()
        self.chain.terminals_apply()
        return {place.store: self.chain.part(place.store) for place in SITES}


def lives(artefact: Any, **sick: Any) -> Iterator[tuple[dict[StoreId, str], dict[StoreId, str]]]:
    """Forward, then back, killed before each effect in turn."""
    effects = 1
    dies_at = -1
    while dies_at < effects:
        driver = Driver(artefact, dies_at, **sick)
        driver.until(RolloutState.COMPLETED)
        forward = driver.settled()
        driver.told(RollBack(OTHER, "back"))
        driver.until(RolloutState.ROLLED_BACK)
        effects = max(effects, driver.done)
        dies_at += 1
        yield forward, driver.settled()


@pytest.mark.parametrize("artefact", [PRICES, SETTING], ids=["prices", "setting"])
def test_killed_between_any_two_effects_every_store_is_wholly_new_and_then_wholly_old(artefact: Any) -> None:
    before = Chain(artefact).part(SITES[0].store)
    count = 0
    for forward, back in lives(artefact):
        assert set(forward.values()) == {artefact.payload}
        assert set(back.values()) == {before}
        count += 1
    assert count > 10


def test_a_store_that_failed_goes_back_as_a_whole_and_is_not_asked_again() -> None:
    """One of the last stage's tills reports another document than it was given."""
    last = Driver(PRICES, None).rollout.plan.stages[1].stores[0].store
    sick = frozenset({TerminalId(f"{last}-till")})
    for forward, back in lives(PRICES, sick=sick):
        assert forward == {place.store: "6" if place.store == last else "7" for place in SITES}
        assert set(back.values()) == {"6"}


def test_until_the_host_has_read_it_nothing_is_proved() -> None:
    driver = Driver(PRICES, None)
    driver.step()
    [store] = driver.rollout.plan.stages[0].stores
    [till] = store.targets
    driver.chain.twins[till.terminal] = replace(driver.chain.twins[till.terminal], store_gen=0, gen=1, applied_gen=1)
    seen = driver.chain.seen(driver.rollout).targets[till.terminal]
    assert (seen.part, seen.gen, seen.applied_gen) == ("7", 2, 1)
    driver.rollout = tick(driver.rollout, driver.chain.seen(driver.rollout), driver.now).rollout
    assert driver.rollout.mark(till.terminal).state is TargetState.ACTIVATING
    assert driver.chain.seen(driver.rollout).targets.get(TerminalId("nobody"), UNSEEN) is UNSEEN


def two_tills() -> Driver:
    """Stores with two mandatory terminals each, under one stage that bears a failure."""
    two = tuple(
        replace(one, terminals=tuple(replace(device, role="till") for device in one.terminals)) for one in SITES
    )
    driver = Driver(PRICES, None)
    loose = rules(
        success_percent_min=50, offline_percent_max=100, error_percent_max=50, error_stores_max=2, executed_min=4
    )
    rule = policy({"name": "all", "stores": "all"} | loose, mandatory_roles=["till"])
    plan = resolve(two, Selector(all_stores=True), rule.stages, 7, mandatory_roles=frozenset({"till"}))
    driver.draft = replace(driver.draft, policy=rule, plan=plan, stages=driver.draft.stages[:1])
    driver.journal, driver.rollout = [], driver.draft
    driver.told(Start(AUTHOR))
    return driver


def test_a_second_till_that_comes_later_remembers_what_the_store_had() -> None:
    driver = two_tills()
    late = TerminalId("s-0-face")
    driver.chain.twins[late] = replace(driver.chain.twins[late], online=False)
    for _ in range(3):
        driver.step()
    assert not driver.rollout.mark(late).asked
    driver.chain.twins[late] = replace(driver.chain.twins[late], online=True)
    for _ in range(3):
        driver.step()
    assert driver.rollout.mark(late).previous == driver.rollout.mark(TerminalId("s-0-till")).previous == "6"


def test_the_second_till_does_not_bring_back_what_its_store_gave_back() -> None:
    driver = two_tills()
    first, late = TerminalId("s-0-till"), TerminalId("s-0-face")
    driver.chain.sick = frozenset({first})
    driver.chain.twins[late] = replace(driver.chain.twins[late], online=False)
    while driver.rollout.mark(first).state is not TargetState.ROLLING_BACK:
        driver.step()
    driver.chain.twins[late] = replace(driver.chain.twins[late], online=True)
    for _ in range(3):
        driver.step()
    assert driver.rollout.mark(first).state is TargetState.ROLLED_BACK
    assert not driver.rollout.mark(late).asked
    assert driver.settled()[StoreId("s-0")] == "6"
