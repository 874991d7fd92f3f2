"""Candidates of a chain's book for a rollout, and what its beginning, end and return mean to the chain's book."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection

from models.domain.errors import Refused
from models.domain.ids import ChainId
from models.domain.plans import plan_from_dict
from models.domain.rollout import Artefact, ArtefactKind, RolloutState, Selector
from models.domain.rollout_journal import Rollout
from models.domain.rollout_part import BOOKS, book_artefact
from models.domain.twin import canonical
from models.tables import store_books
from models.tables.chain_books import PLAN_FILE, lock_books, newest_document, save_candidate
from models.tables.clock import business_now
from models.tables.items import load_assortment
from models.tables.plans import save_plan
from runtime.price_import import Wanted, digest_of, import_prices, read_for_chain
from runtime.rollout_databases import Databases


def require_one_database(databases: Databases) -> None:
    """Raises Refused `books_one_database`: versions are counted in each database by itself."""
    if len(databases.regions) > 1:
        raise Refused(
            "books_one_database",
            "the chain's books stand in several databases, and a version is another one in each",
            "import the file everywhere at once: storeops prices import",
        )


async def candidate_of_prices(databases: Databases, body: bytes, now: datetime, *, force: bool = False) -> Artefact:
    """A price file as a candidate over the book in force. `now`: wall time.

    Raises Refused `unknown_chain`, `prices_wrong`, `price_jumps`, `nothing_changes`, `too_many_candidates`.
    """
    require_one_database(databases)
    chain = databases.chain
    async with databases.at() as conn:
        file = await read_for_chain(conn, chain, body)
        async with conn.cursor() as cur:
            now = await business_now(cur, now)
        done = await import_prices(conn, file, Wanted(chain, digest_of(body), force=force, candidate=True), now)
        base = await store_books.in_force(conn, chain)
    if not done.version:
        raise _nothing("the file's prices are in force already")
    return book_artefact(ArtefactKind.PRICES, done.version, base)


async def candidate_of_plans(databases: Databases, plans: Sequence[Mapping[str, Any]]) -> Artefact:
    """These plans, each a new one or the next version of one, over the book in force.

    Raises PlanError for a wrong one, NeedsOperator `plan_changed` for other terms under a known version; Refused
    `unknown_chain`, `nothing_changes`, `too_many_candidates`.
    """
    require_one_database(databases)
    chain = databases.chain
    async with databases.at() as conn, conn.transaction(), conn.cursor() as cur:
        await lock_books(cur, chain)
        newest = await newest_document(cur, chain)
        if newest is None:
            raise Refused("unknown_chain", f"there is no chain {chain!r} with a book", "see `storeops status`")
        base, document = newest
        by_id = {str(one["id"]): one for one in document.get("plans", [])}
        for plan in plans:
            by_id[plan_from_dict(plan).id] = dict(plan)
        if list(by_id.values()) == document.get("plans", []):
            raise _nothing("these plans are in force already")
        for plan in plans:
            await save_plan(cur, ChainId(chain), plan)
        digest = hashlib.sha256("".join(canonical(one) for one in plans).encode()).hexdigest()
        goods = list((await load_assortment(conn, chain)).at(base).values())
        wanted = {**document, "plans": list(by_id.values())}
        made = await save_candidate(cur, chain, wanted, (PLAN_FILE, {"sha256": digest}), goods, datetime.now(UTC))
    return book_artefact(ArtefactKind.PLAN, made, base)


async def candidate_of_version(databases: Databases, version: int) -> Artefact:
    """A candidate that was made since the book in force, or that book itself, for stores that were left behind.

    Raises Refused `unknown_book`.
    """
    require_one_database(databases)
    async with databases.at() as conn:
        base = await store_books.in_force(conn, databases.chain)
        candidate = await store_books.is_candidate(conn, databases.chain, version)
        kind = await store_books.kind_of(conn, databases.chain, version)
    if not base or not (version == base or (candidate and version > base)):
        raise Refused(
            "unknown_book",
            f"version {version} is neither in force nor a candidate after it",
            f"version {base} is in force; an older one is rolled out as a file",
        )
    return book_artefact(kind, version, base)


def _nothing(message: str) -> Refused:
    return Refused("nothing_changes", message, "give a file that changes something")


# ---------------------------------------------------------------- with the journal's commit


async def settle(conn: AsyncConnection[Any], before: Rollout, after: Rollout) -> None:
    """What moves of the chain's book when a rollout begins, is complete, or is taken back after that.

    In the transaction that writes the journal. Raises Refused `book_moved`.
    """
    if after.artefact.kind not in BOOKS or before.state is after.state:
        return
    base, version, chain = int(after.artefact.fallback), int(after.artefact.payload), after.chain
    async with conn.cursor() as cur:
        await lock_books(cur, chain)
    if before.state is RolloutState.DRAFT:
        if (now_in_force := await store_books.in_force(conn, chain)) != base:
            raise Refused(
                "book_moved", f"it was made over version {base}, and {now_in_force} is in force", "plan again"
            )
    elif after.state is RolloutState.COMPLETED and after.selector == Selector(all_stores=True):
        planned = [store.store for stage in after.plan.stages for store in stage.stores]
        await store_books.make_current(conn, chain, base, version, planned)
    elif before.state is RolloutState.COMPLETED:
        stores = (store for stage in after.plan.stages for store in stage.stores)
        asked = [one.store for one in stores if any(after.mark(target.terminal).asked for target in one.targets)]
        await store_books.take_back(conn, chain, base, version, asked)
