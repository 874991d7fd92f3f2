"""What people do with a chain's rollouts: plan, start, promote, stop, roll back, look. Nothing here asks a terminal.

A command is a journal entry, written by compare-and-set on what it was decided upon; the driver sees it within a round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import uuid_utils
from psycopg import AsyncConnection

from actors.rollout import tick
from actors.rollout_commands import receive
from actors.rollout_effects import Decide, Journal, RolloutCommand, RolloutTurn, Start
from gateway.rollouts import Planned, Shown
from models.domain.calendar import zone_of
from models.domain.errors import Refused, RetryLater
from models.domain.evidence import StageKind
from models.domain.ids import StoreId
from models.domain.rollout import (
    STORES_MAX,
    Artefact,
    PersonId,
    RolloutId,
    RolloutPolicy,
    RolloutState,
    Selector,
    Site,
    digest_of,
)
from models.domain.rollout_feasible import fitted, plan_problems
from models.domain.rollout_journal import Entry, Rollout, drafted
from models.domain.rollout_part import BOOKS, at_store
from models.domain.rollout_plan import resolve
from models.domain.rollout_policy import misfits
from models.domain.twin import keepable
from models.tables import rollouts as table
from models.tables.privacy import audit
from models.tables.rollouts import Decision, Header, Look, StageOutlook
from runtime import rollout_books
from runtime.clock import wall_now
from runtime.rollout_conflicts import in_the_way, require_free
from runtime.rollout_databases import Databases
from runtime.rollout_fit import require_fit
from runtime.rollout_takeover import taken_over
from runtime.rollouts import RolloutDriver

ATTEMPTS_MAX = 5
SELECTOR_CHARACTERS_MAX = 100
NUMBER_CHARACTERS_MAX = 200


class RolloutDesk:
    """One chain's. `databases` are open."""

    def __init__(self, databases: Databases, wall: Callable[[], datetime] = wall_now) -> None:
        self._databases = databases
        self._wall = wall
        self._watcher = RolloutDriver(databases, _NOBODY, wall)
        """Keeps what it read of a journal, for whoever looks again."""

    async def plan(
        self,
        policy: RolloutPolicy,
        artefact: Artefact,
        selector: Selector,
        author: PersonId,
        *,
        seed: int = 0,
        number: str | None = None,
    ) -> Planned:
        """Resolve, freeze and keep a draft; nothing changes anywhere. `number` repeated gives the same draft.

        Raises Refused: bad_text, books_one_database, policy_misfit, number_reused, what `resolve` and `require_fit`
        raise; RetryLater region_away.
        """
        return await self.keep(await self.preview(policy, artefact, selector, author, seed=seed, number=number))

    async def preview(
        self,
        policy: RolloutPolicy,
        artefact: Artefact,
        selector: Selector,
        author: PersonId,
        *,
        seed: int = 0,
        number: str | None = None,
    ) -> Planned:
        """As `plan`, and keeps nothing."""
        chain = self._databases.chain
        said = f"{author}{number or ''}"
        if not author.strip() or len(said) > NUMBER_CHARACTERS_MAX or not keepable(said):
            raise Refused(
                "bad_text",
                "the author's name or the number cannot be kept",
                f"{NUMBER_CHARACTERS_MAX} characters at most, no control characters",
            )
        if artefact.kind in BOOKS:
            rollout_books.require_one_database(self._databases)
        sites, away = await self._databases.sites(chain)
        if away:
            raise RetryLater(
                "region_away", f"the database of {', '.join(away)} does not answer", "plan when it is back"
            )
        plan = resolve(
            sites,
            selector,
            policy.stages,
            seed,
            mandatory_roles=policy.mandatory_roles,
            stratify=policy.stratify,
            mandatory_only=at_store(artefact),
        )
        policy = fitted(policy, plan)
        if problems := (*misfits(policy, artefact), *plan_problems(policy, plan)):
            raise Refused(
                "policy_misfit", "; ".join(f"{one.path}: {one.reason}" for one in problems), "mend the policy"
            )
        if artefact.kind.boots:
            await require_fit(self._databases, artefact, plan)
        made = RolloutId(str(uuid_utils.uuid7()) if number is None else digest_of(f"{author}:{number}")[:32])
        draft = drafted(made, chain, artefact, selector, policy, plan, author)
        async with self._databases.at() as conn:
            if (known := await self._known(conn, made)) is not None:
                if _asked_for(known.rollout) != _asked_for(draft):
                    raise Refused("number_reused", "something else was planned under this number", "use a new number")
                return known
        outlooks = await self._outlooks(draft, sites)
        async with self._databases.at() as conn:
            return Planned(draft, outlooks, await in_the_way(conn, draft))

    async def candidate_of_prices(self, body: bytes, *, force: bool = False) -> Artefact:
        """See runtime.rollout_books; what a price is until later files is decided by business time."""
        return await rollout_books.candidate_of_prices(self._databases, body, self._wall(), force=force)

    async def candidate_of_plans(self, plans: Sequence[Mapping[str, Any]]) -> Artefact:
        """See runtime.rollout_books."""
        return await rollout_books.candidate_of_plans(self._databases, plans)

    async def candidate_of_version(self, version: int) -> Artefact:
        """See runtime.rollout_books."""
        return await rollout_books.candidate_of_version(self._databases, version)

    async def keep(self, planned: Planned) -> Planned:
        """Keep a previewed draft, with its line in the audit. Returns what is kept: the first one of its number."""
        draft, now = planned.rollout, self._wall().astimezone(UTC)
        artefact = draft.artefact
        async with self._databases.at() as conn, conn.transaction():
            if not await table.insert_draft(conn, draft, scope_of(draft), planned.outlooks, now):
                return await self._known(conn, draft.id) or planned
            detail = {"artefact": str(artefact.key), "version": artefact.version, "plan": draft.plan.sha256}
            await audit(conn, "rollout.planned", draft.id, detail, draft.author, now)
        return planned

    async def _known(self, conn: AsyncConnection[Any], number: RolloutId) -> Planned | None:
        try:
            rollout = await table.load_rollout(conn, number)
        except Refused:
            return None
        return Planned(rollout, await table.load_outlooks(conn, number), await in_the_way(conn, rollout))

    async def _outlooks(self, draft: Rollout, sites: Sequence[Site]) -> tuple[StageOutlook | None, ...]:
        """Controls and outlook of each stage with evidence: controls are stores that no stage has changed by then."""
        specs = [stage.policy.evidence for stage in draft.policy.stages]
        labels = {site.store: {"region": str(site.region), **site.labels} for site in sites}
        found: list[StageOutlook | None] = []
        for number, (rule, stage) in enumerate(zip(specs, draft.plan.stages, strict=True)):
            if rule is None:
                found.append(None)
                continue
            from runtime.evidence_desk import prepare

            changed = {store.store for one in draft.plan.stages[:number] for store in one.stores}
            pool = {store: those for store, those in labels.items() if store not in changed}
            if rule.kind is StageKind.STAGGERED:
                pool = {store.store: labels[store.store] for store in stage.stores}
            today = self._wall().astimezone(zone_of(draft.policy.zone)).date()
            ready = await prepare(self._databases.days, rule, [one.store for one in stage.stores], pool, today)
            found.append(StageOutlook(ready.all_controls, ready.short, ready.outlook))
        return tuple(found)

    # ------------------------------------------------------------ told

    async def tell(self, number: RolloutId, told: RolloutCommand) -> RolloutTurn:
        """Do what somebody says; durable when this returns, at the terminals from the driver's next round on.

        Raises Refused with the rollout's own reasons, rollout_conflict, too_many_rollouts, unknown_rollout; RetryLater
        `rollout_busy` when others wrote in between again and again.
        """
        for _ in range(ATTEMPTS_MAX):
            turn = await self._told(number, told)
            if turn is not None:
                return turn
        raise RetryLater("rollout_busy", "it moved each time it was looked at", "say it again", after_s=1)

    async def _told(self, number: RolloutId, told: RolloutCommand) -> RolloutTurn | None:
        now = self._wall().astimezone(UTC)
        rollout, seen = await RolloutDriver(self._databases, _NOBODY, self._wall).look(number)
        turn = receive(rollout, told, seen, now)
        entries: list[Entry] = [one.entry for one in turn.effects if isinstance(one, Journal)]
        if not entries:
            return turn
        decided = [
            Decision(one.stage, one.at, one.gate, one.counts, one.verdict)
            for one in turn.effects
            if isinstance(one, Decide)
        ]
        async with self._databases.at() as conn, conn.transaction():
            if isinstance(told, Start):
                await table.lock_starts(conn, rollout.chain)
                await require_free(conn, rollout)
            if not await table.append(conn, rollout, turn.rollout, entries, decided, now):
                return None
            await rollout_books.settle(conn, rollout, turn.rollout)
            detail = {"state": str(turn.rollout.state), "why": turn.rollout.why.en[:400]}
            await audit(conn, f"rollout.{type(told).__name__.lower()}", number, detail, told.by, now)
        return turn

    async def supersede(self, old: RolloutId, new: RolloutId, by: PersonId) -> RolloutTurn:
        """The draft `new` begins and takes over what `old` changed, which ends: one commit. Returns the new one's turn.

        Raises Refused with `actors.rollout_takeover`'s reasons, `rollout_conflict`, `book_moved`, `unknown_rollout`;
        RetryLater `rollout_busy`, `region_away`.
        """
        for _ in range(ATTEMPTS_MAX):
            if (turn := await taken_over(self._databases, old, new, by, self._wall().astimezone(UTC))) is not None:
                return turn
        raise RetryLater("rollout_busy", "it moved each time it was looked at", "say it again", after_s=1)

    # ------------------------------------------------------------ shown

    async def headers(self, *, active: bool = False, before: str = "", limit: int = 100) -> list[Header]:
        """The newest first."""
        async with self._databases.at() as conn:
            return await table.list_headers(conn, [self._databases.chain], active=active, before=before, limit=limit)

    async def show(self, number: RolloutId) -> Shown:
        """As it stands now, held against what terminals report at this moment; nothing is written."""
        now = self._wall().astimezone(UTC)
        rollout, seen = await self._watcher.look(number)
        async with self._databases.at() as conn:
            header = await table.load_header(conn, number)
            outlooks = await table.load_outlooks(conn, number)
            decided = await table.decisions(conn, number)
        turn = tick(rollout, seen, now) if rollout.state is not RolloutState.DRAFT else RolloutTurn(rollout)
        return Shown(header, RolloutTurn(rollout, (), turn.stages, turn.why), outlooks, tuple(decided))

    async def decisions(self, number: RolloutId) -> list[Decision]:
        """Every gate's word that was journalled, with its counts and evidence. Raises Refused `unknown_rollout`."""
        async with self._databases.at() as conn:
            await table.load_header(conn, number)
            return await table.decisions(conn, number)

    async def looks(self, number: RolloutId) -> list[Look]:
        """The evidence of each look that was spent, with what a picture needs. Raises Refused `unknown_rollout`."""
        async with self._databases.at() as conn:
            await table.load_header(conn, number)
            return await table.looks(conn, number)

    async def journal(
        self, number: RolloutId, *, target: str | None = None, since: int = 0, limit: int = 200
    ) -> list[tuple[int, Entry]]:
        """Entries in their order; `target` "" for those about no terminal. Raises Refused `unknown_rollout`."""
        async with self._databases.at() as conn:
            await table.load_header(conn, number)
            return await table.journal(conn, number, since=since, target=target, limit=limit)


class _Nobody:
    """Hosts that nobody asks: the desk looks and writes, the driver orders."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the desk gives no orders: {name}")


_NOBODY: Any = _Nobody()


def _asked_for(rollout: Rollout) -> tuple[object, ...]:
    """What somebody wanted; the plan follows from it and from the stores of that moment."""
    return rollout.artefact, rollout.selector, rollout.policy.name, rollout.plan.seed


def scope_of(rollout: Rollout) -> str:
    """The stores that a plan reaches, in one word: `all`, or the digest of their ids."""
    if rollout.selector == Selector(all_stores=True):
        return "all"
    return digest_of(",".join(sorted(store.store for stage in rollout.plan.stages for store in stage.stores)))[:16]


def selector_from(document: Mapping[str, Any]) -> Selector:
    """From plain data as the API and the command line give it. Raises Refused `bad_selector`."""
    try:
        selector = msgspec.convert(dict(document), type=Selector, strict=True)
    except (msgspec.ValidationError, TypeError) as error:
        raise Refused(
            "bad_selector", str(error), "all, region=NAME, store=ID, label.NAME=VALUE, role=, profile="
        ) from error
    words = _words(msgspec.to_builtins(selector))
    if len(words) > STORES_MAX or not all(len(one) <= SELECTOR_CHARACTERS_MAX and keepable(one) for one in words):
        raise Refused(
            "bad_selector",
            "too many words, or one that cannot be kept",
            f"{STORES_MAX} words of {SELECTOR_CHARACTERS_MAX} characters at most, no control characters",
        )
    return selector


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [word for pair in value.items() for one in pair for word in _words(one)]
    return [word for one in value for word in _words(one)] if isinstance(value, Sequence) else []


def selected_by(words: Sequence[str]) -> Selector:
    """From words as `all`, `region=guangzhou`, `store=a`, `label.format=street`, `role=till`, `profile=p`, each also
    with `!` before it to leave out (stores, regions, labels, terminals). Raises Refused `bad_selector`."""
    plain: dict[str, Any] = {}
    names = {"region": "regions", "store": "stores", "profile": "profiles", "role": "roles"}
    out = {"region": "excluded_regions", "store": "excluded_stores", "terminal": "excluded_terminals"}
    for word in words:
        if word == "all":
            plain["all_stores"] = True
            continue
        leave, name = word.startswith("!"), word.removeprefix("!")
        name, equals, value = name.partition("=")
        known = out if leave else names
        if equals and value and name in known:
            plain.setdefault(known[name], []).append(value)
        elif equals and value and name.startswith("label."):
            labels = plain.setdefault("excluded_labels" if leave else "labels", {})
            labels.setdefault(name.removeprefix("label."), []).append(value)
        else:
            raise Refused("bad_selector", f"{word!r}", "all, region=NAME, store=ID, label.NAME=VALUE, role=, profile=")
    return selector_from(plain)


def stores_named(rollout: Rollout) -> dict[StoreId, tuple[str, ...]]:
    """Each store of the plan and the tail with its terminals."""
    stores = (*(one for stage in rollout.plan.stages for one in stage.stores), *rollout.tail)
    return {store.store: tuple(target.terminal for target in store.targets) for store in stores}
