"""The regions of one deployment, each with the chain's file that applies to it; what may not be is refused here.

Pure but for reading files: it runs before anything is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, RegionId
from runtime.chains import ChainDoc, read_chain
from runtime.settings import CONFIGS, Settings


@dataclass(frozen=True, slots=True)
class Place:
    """One region: what it serves, with how many hosts, and what it has of its own (None: the deployment's)."""

    name: RegionId
    chain: ChainId
    slots: int
    doc: ChainDoc | None
    """The chain's file with this region's stores alone; None when the database knows the chain already."""
    database_url: str | None = None
    broker_url: str | None = None


def places_of(settings: Settings, chain_file: Path | None = None) -> tuple[Place, ...]:
    """Every region. `chain_file` applies to the regions of its chain, and to the only region whatever that says.

    Raises NeedsOperator: `chain_unreadable`, `chain_wrong`, `chain_which`, `chain_differs`, `store_twice`,
    `store_nowhere`, `entity_twice`, `plan_twice`, `recogniser_nowhere`, and what is wrong with a chain's recogniser.
    """
    given = read_chain(chain_file) if chain_file is not None else None
    named = settings.places
    docs = {name: _doc_of(place.chain, given, alone=len(named) == 1) for name, place in named.items()}
    if given is not None and given not in docs.values():
        chains = ", ".join(f"{name}: {place.chain}" for name, place in named.items())
        raise NeedsOperator("chain_which", f"no region serves the chain {given.chain!r} ({chains})", "check --chain")
    _refuse_unknown_regions(docs)
    places = tuple(
        Place(
            RegionId(name),
            ChainId(doc.chain if (doc := docs[name]) is not None else place.chain),
            place.slots,
            doc and doc.of_region(name),
            place.database.url or settings.database.url,
            place.broker.url or settings.broker.url,
        )
        for name, place in named.items()
    )
    _refuse_clashes(places)
    _refuse_unknown_recognisers(settings.faces.recognisers, places)
    return places


def _doc_of(chain: str, given: ChainDoc | None, *, alone: bool) -> ChainDoc | None:
    if Path(chain).suffix in {".yaml", ".yml"}:
        beside = CONFIGS / "chains" / chain
        return read_chain(beside if beside.exists() and not Path(chain).exists() else Path(chain))
    return given if given is not None and (alone or given.chain == chain) else None


def _refuse_unknown_regions(docs: dict[str, ChainDoc | None]) -> None:
    for doc in docs.values():
        for store in doc.stores if doc is not None else ():
            if store.region is not None and store.region not in docs:
                raise NeedsOperator(
                    "store_nowhere",
                    f"store {store.id!r} is of region {store.region!r}, which the settings do not name",
                    f"one of {', '.join(docs)}",
                )


def _refuse_clashes(places: Sequence[Place]) -> None:
    """Ids that are one thing's alone in a deployment, and chains that are one chain's twice."""
    stores: dict[str, Place] = {}
    owners: dict[str, Place] = {}
    books: dict[ChainId, Place] = {}
    plans: dict[tuple[str | None, str], Place] = {}
    for place in places:
        if place.doc is None:
            continue
        other = books.setdefault(place.chain, place)
        if other.doc is not None and other.doc.without_stores() != place.doc.without_stores():
            _refuse("chain_differs", f"two files of chain {place.chain!r}", other, place, "a chain has one book")
        for store in place.doc.stores:
            if (first := stores.setdefault(store.id, place)) is not place:
                _refuse("store_twice", f"store {store.id!r}", first, place, "rename one, or give it its `region`")
        for entity in place.doc.entities:
            if (first := owners.setdefault(entity.id, place)).chain != place.chain:
                _refuse("entity_twice", f"legal entity {entity.id!r}", first, place, "each company has its own account")
        for plan in place.doc.plans:
            if (first := plans.setdefault((place.database_url, plan), place)).chain != place.chain:
                _refuse("plan_twice", f"plan {plan!r} of two chains in one database", first, place, "rename one")


def _refuse_unknown_recognisers(chosen: Mapping[str, str], places: Sequence[Place]) -> None:
    """A net that is not there, or not the file that the catalogue names, is found here and not by a worker."""
    if not chosen:
        return
    from models.faces.catalogue import load_catalogue, published_file, recognisers  # seconds, for who names one

    chains, catalogue = sorted({place.chain for place in places}), load_catalogue()
    for chain, net in chosen.items():
        if chain not in chains:
            raise NeedsOperator(
                "recogniser_nowhere",
                f"faces.recognisers names chain {chain!r}, which no region serves",
                f"one of {', '.join(chains)}",
            )
        published_file(recognisers(catalogue, net)[0])


def _refuse(code: str, what: str, first: Place, second: Place, do: str) -> None:
    where = f"regions {first.name} and {second.name}" if first.name != second.name else f"region {first.name}"
    raise NeedsOperator(code, f"{what}: in {where}", do)
