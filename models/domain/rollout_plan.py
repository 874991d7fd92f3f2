"""Which stores are in which stage, decided once: frozen, hashed, and the same for the same seed.

Each stage keeps the shares of the strata (regions, formats …) by largest remainders, so that what it shows holds for
the chain; inside a stratum a seeded hash draws. Named stores come first and count in their strata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from heapq import heapify, heappop, heappush
from typing import Any

from models.domain.errors import Refused
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.rollout import Selector, Site, Stage

KNOWN_NAMED_MAX = 8
REGION = "region"
"""The stratum that every site has without a label."""


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """One terminal. `mandatory`: the store has not succeeded without it."""

    terminal: TerminalId
    role: str
    mandatory: bool


@dataclass(frozen=True, slots=True)
class PlannedStore:
    """One store with the terminals that the rollout reaches."""

    store: StoreId
    region: RegionId
    zone: str
    stratum: str
    targets: tuple[PlannedTarget, ...]


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage's stores, in the order in which they are asked."""

    name: str
    stores: tuple[PlannedStore, ...]


@dataclass(frozen=True, slots=True)
class FrozenPlan:
    """The whole order. `sha256` is of the rest in canonical JSON: what a person approved is what is carried out."""

    seed: int
    stages: tuple[PlannedStage, ...]
    sha256: str

    @property
    def stores(self) -> int:
        """How many in all stages."""
        return sum(len(stage.stores) for stage in self.stages)

    @property
    def targets(self) -> int:
        """How many terminals in all stages."""
        return sum(len(store.targets) for stage in self.stages for store in stage.stores)

    @property
    def intact(self) -> bool:
        """False when somebody changed the plan after it was frozen."""
        return self.sha256 == _digest(self.seed, self.stages)


def draw(seed: int, *names: str) -> int:
    """A seeded number 0 .. 2**64-1 for a thing: the same for ever, on every machine."""
    text = ":".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def selected(selector: Selector, site: Site) -> bool:
    """True when the site is among the selector's stores; its terminals are narrowed by `devices_of`."""
    if site.store in selector.excluded_stores or site.region in selector.excluded_regions:
        return False
    if any(site.labels.get(label) in values for label, values in selector.excluded_labels.items()):
        return False
    if site.store in selector.stores:
        return True
    narrowed = bool(selector.regions or selector.labels)
    if not (selector.all_stores or narrowed):
        return False
    if selector.regions and site.region not in selector.regions:
        return False
    return all(site.labels.get(label) in values for label, values in selector.labels.items())


def planned(
    site: Site,
    selector: Selector,
    mandatory_roles: frozenset[str],
    stratify: Sequence[str] = (),
    *,
    mandatory_only: bool = False,
) -> PlannedStore | None:
    """The store as a plan has it; None when no terminal of it is reached.

    Without a terminal of a mandatory role each of its terminals is mandatory. `mandatory_only`: what changes for the
    whole store is proved by these; the others get it with them and cannot go back alone.
    """
    devices = sorted(
        (
            one
            for one in site.terminals
            if (not selector.profiles or one.profile in selector.profiles)
            and (not selector.roles or one.role in selector.roles)
            and one.terminal not in selector.excluded_terminals
        ),
        key=lambda one: one.terminal,
    )
    if not devices or not selected(selector, site):
        return None
    every = not any(one.role in mandatory_roles for one in devices)
    targets = (PlannedTarget(one.terminal, one.role, every or one.role in mandatory_roles) for one in devices)
    return PlannedStore(
        site.store,
        site.region,
        site.zone,
        "|".join(site.region if label == REGION else site.labels.get(label, "") for label in stratify),
        tuple(one for one in targets if one.mandatory or not mandatory_only),
    )


def require_known(inventory: Sequence[Site], selector: Selector) -> None:
    """Raises Refused `unknown_selected`: a name that is misspelt in what is left out would let its store go along."""
    sites = {site.store: site for site in inventory}
    devices = [one for site in inventory for one in site.terminals]
    labels = {f"{name}={value}" for site in inventory for name, value in site.labels.items()}
    asked: tuple[tuple[str, Iterable[str], Iterable[str]], ...] = (
        ("store", selector.stores | selector.excluded_stores, sites),
        ("region", selector.regions | selector.excluded_regions, {site.region for site in inventory}),
        ("label", _pairs(selector.labels) | _pairs(selector.excluded_labels), labels),
        ("role", selector.roles, {one.role for one in devices}),
        ("profile", selector.profiles, {one.profile for one in devices}),
        ("terminal", selector.excluded_terminals, {one.terminal for one in devices}),
    )
    for what, names, known in asked:
        there = set(known)
        for name in sorted(set(names) - there):
            close = get_close_matches(name, there, 1)
            do = f"did you mean {close[0]}?" if close else f"one of: {', '.join(sorted(there)[:KNOWN_NAMED_MAX])}"
            raise Refused("unknown_selected", f"no {what} with a terminal in service is called {name!r}", do)


def _pairs(labels: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset(f"{name}={value}" for name, values in labels.items() for value in values)


def resolve(
    inventory: Iterable[Site],
    selector: Selector,
    stages: Sequence[Stage],
    seed: int,
    *,
    mandatory_roles: frozenset[str] = frozenset(),
    stratify: Sequence[str] = (),
    mandatory_only: bool = False,
) -> FrozenPlan:
    """The frozen plan.

    Raises Refused: unknown_selected, nothing_selected, named_store_unknown, too_few_stores, stores_left_over.
    """
    sites = list(inventory)
    require_known(sites, selector)
    found = (planned(site, selector, mandatory_roles, stratify, mandatory_only=mandatory_only) for site in sites)
    pool = {one.store: one for one in found if one is not None}
    if not pool:
        raise Refused("nothing_selected", "the selector reaches no terminal", "widen it, or say all_stores")
    made: list[PlannedStage] = []
    reserved = {store for stage in stages for store in stage.named}
    if unknown := sorted(reserved - pool.keys()):
        raise Refused("named_store_unknown", f"not selected: {', '.join(unknown[:5])}", "name stores of the selector")
    for stage in stages:
        chosen = _drawn(stage, pool, reserved, seed)
        for one in chosen:
            del pool[one.store]
        made.append(PlannedStage(stage.name, chosen))
    if pool:
        raise Refused("stores_left_over", f"{len(pool)} stores are in no stage", 'give the last stage stores: "all"')
    done = tuple(made)
    return FrozenPlan(seed, done, _digest(seed, done))


def _drawn(
    stage: Stage, pool: Mapping[StoreId, PlannedStore], reserved: set[StoreId], seed: int
) -> tuple[PlannedStore, ...]:
    named = tuple(pool[store] for store in stage.named)
    free = [one for one in pool.values() if one.store not in reserved]
    wanted = len(free) + len(named) if stage.takes_all else stage.stores
    if wanted > len(free) + len(named) or not wanted:
        raise Refused(
            "too_few_stores",
            f"stage {stage.name} of the rules wants {wanted or 'all'} stores, {len(free) + len(named)} are left for it",
            "take rules for fewer stores, as the policy small, or change stores: of that stage; or select more stores",
        )
    strata: dict[str, list[PlannedStore]] = {}
    for one in free:
        strata.setdefault(one.stratum, []).append(one)
    for members in strata.values():
        members.sort(key=lambda one: draw(seed, stage.name, one.store), reverse=True)
    sizes = {name: len(members) for name, members in strata.items()}
    has = dict.fromkeys(strata, 0)
    for one in named:
        sizes[one.stratum] = sizes.get(one.stratum, 0) + 1
        has[one.stratum] = has.get(one.stratum, 0) + 1
    total = sum(sizes.values())
    # The seat goes to the stratum that is furthest below its share: largest remainders, one seat at a time.
    queue = [(has[name] * total - wanted * sizes[name], draw(seed, stage.name, name), name) for name in strata]
    heapify(queue)
    taken: list[PlannedStore] = []
    while len(taken) < wanted - len(named):
        deficit, tie, name = heappop(queue)
        taken.append(strata[name].pop())
        if strata[name]:
            heappush(queue, (deficit + total, tie, name))
    return named + tuple(sorted(taken, key=lambda one: draw(seed, stage.name, "order", one.store)))


def _digest(seed: int, stages: tuple[PlannedStage, ...]) -> str:
    document: dict[str, Any] = {"seed": seed, "stages": [asdict(stage) for stage in stages]}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
