"""A region's layers of configuration as its host holds them: what each store acts by, what each terminal is told."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from devices.profiles import PROFILES, Role
from models.domain.book import StoreBook
from models.domain.chain_config import Effective, Layer, Origin, completed, effective
from models.domain.chain_settings import Level, Needs, StoreSettings, store_settings
from models.domain.ids import ChainId, RegionId, StoreId
from models.domain.registry import RegisteredTerminal
from models.domain.twin import canonical
from models.tables.config_layers import StoredLayer, load_layers

EVERYTHING = frozenset(Needs)


def capabilities(profile: str) -> frozenset[Needs]:
    """What settings a family can use; one that this release does not know is told all of them."""
    family = PROFILES.get(profile)
    if family is None:
        return EVERYTHING
    can = {
        Needs.CAMERA: family.has_camera,
        Needs.CUSTOMER_SCREEN: Role.CUSTOMER in family.screens,
        Needs.OFFLINE_TILL: family.sells_offline,
    }
    return frozenset(need for need, has in can.items() if has)


@dataclass(frozen=True, slots=True)
class Scope:
    """What the terminals of one store, or of all stores that say nothing of their own, have in common."""

    layers: tuple[Layer, ...]
    settings: StoreSettings
    text: str
    """The effective document as canonical JSON: equal for equal configurations."""


def scope_of(layers: tuple[Layer, ...]) -> Scope:
    """Of layers in their order, chain first."""
    document = effective(layers).document
    return Scope(layers, store_settings(document), canonical(document))


NOTHING = scope_of(())


class Layers:
    """Of one region. Loaded whole: there are as many layers as scopes that say something."""

    def __init__(self) -> None:
        self._chains: dict[str, Scope] = {}
        self._stores: dict[str, Scope] = {}
        self._terminals: dict[str, tuple[Layer, ...]] = {}

    async def load(self, conn: AsyncConnection[Any], region: RegionId) -> None:
        """Read the region's layers."""
        self.take(await load_layers(conn, region))

    def take(self, stored: Iterable[StoredLayer]) -> None:
        """These layers from now on; those of one scope in the order in which they are laid over each other."""
        found: dict[tuple[Level, str], list[Layer]] = {}
        chains: dict[str, ChainId] = {}
        for one in stored:
            found.setdefault((one.level, one.scope), []).append(one.layer)
            chains[f"{one.level}:{one.scope}"] = one.chain
        self._chains, self._stores, self._terminals = {}, {}, {}
        for chain in dict.fromkeys(chains.values()):
            regions = [
                layer
                for (level, scope), layers in found.items()
                if level is Level.REGION and chains[f"{level}:{scope}"] == chain
                for layer in layers
            ]
            self._chains[chain] = scope_of((*found.get((Level.CHAIN, chain), ()), *regions))
        for (level, scope), layers in found.items():
            if level is Level.STORE:
                above = self._chains[chains[f"{level}:{scope}"]]
                self._stores[scope] = scope_of((*above.layers, *layers))
            elif level is Level.TERMINAL:
                self._terminals[scope] = tuple(layers)

    def scope(self, chain: ChainId, store: StoreId) -> Scope:
        """Of a store."""
        return self._stores.get(store) or self._chains.get(chain) or NOTHING

    def key(self, record: RegisteredTerminal, book: StoreBook) -> Hashable:
        """Equal for terminals that get the same settings."""
        own = self._terminals.get(record.terminal, ())
        return (
            self.scope(book.chain_book.chain, record.store).text,
            tuple(canonical(layer.patch) for layer in own),
            capabilities(record.profile),
            book.zone,
        )

    def effective(self, record: RegisteredTerminal, book: StoreBook) -> Effective:
        """What a terminal is told of the settings, with their origins; defaults included."""
        own = self._terminals.get(record.terminal, ())
        return terminal_config((*self.scope(book.chain_book.chain, record.store).layers, *own), record.profile, book)


def terminal_config(layers: Iterable[Layer], profile: str, book: StoreBook) -> Effective:
    """As `Layers.effective`, of these layers."""
    head = Layer(str(Level.CHAIN), book.chain_book.chain, {"language": book.chain_book.language})
    found = completed(effective((head, *layers)), capabilities(profile))
    window = found.document.get("software_window")
    if not isinstance(window, dict) or "zone" in window or not {"from", "to"} <= window.keys():
        return found
    path = ("software_window", "zone")
    zone = Origin(str(Level.STORE), book.store, "its own time zone")
    document = {**found.document, path[0]: {**window, path[1]: book.zone}}
    return Effective(document, {**found.origins, path: zone})
