"""The driver of a chain's rollouts: look at everything, tick, write, then do; again every few seconds.

It remembers nothing that the tables do not say: whoever carries on after it, from whichever point, ends at the same.
What it keeps between two rounds are folds that it could make again, each good for one length of its journal.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import msgspec
import structlog

from actors.hosts import Hosts
from actors.rollout import JUDGED, tick
from actors.rollout_effects import Activate, Decide, Journal, Observation, Restore, SetDesired
from actors.rollout_work import Order
from models.domain.calendar import zone_of
from models.domain.errors import NeedsOperator, Refused, RetryLater
from models.domain.evidence import StageKind, Verdict
from models.domain.ids import MessageId, RegionId, StoreId, TerminalId, derived_id
from models.domain.rollout import Observed, Reason, RolloutId, TargetState
from models.domain.rollout_journal import Rollout
from models.domain.rollout_part import at_store, laid_in, part_of, put_back
from models.domain.rollout_plan import PlannedStore, planned
from models.domain.twin import CommandAsked, CommandStatus, DesiredAsked, OrderResult
from models.tables import rollouts as table
from models.tables.rollout_sight import CommandAnswer, Twin
from runtime.clock import wall_now
from runtime.orders import order
from runtime.rollout_books import settle
from runtime.rollout_databases import AWAY, Databases
from runtime.rollout_figures import RolloutFigures, RoundCounts
from runtime.rollout_looks import first_days, settled, still_to_begin
from runtime.rollout_stores import StoreOrders, seen_by_store

log = structlog.get_logger()

ORDERS_AT_ONCE_MAX = 64
DRIVEN_MAX = 1_000
"""Rollouts of one round: far more than may begin, for a completed one that is rolled back is active again."""
LOOKED_AT_MAX = 8
"""Rollouts that a desk keeps in memory for the next look."""
ARRIVALS_EVERY = timedelta(seconds=30)
ACTIVATE_DEADLINE_S = 30
BOOKS_CLOSE_AFTER = timedelta(days=1)
"""A business date may end as late as 23:00 of the next one, and what an offline terminal kept comes in after it."""
LOOK_AGAIN_AFTER = timedelta(minutes=1)
NOT_YET = {str(one): one for one in Reason if one.put_off}
"""A terminal that answers so has refused nothing: it serves somebody, or is told once more."""

Hook = Callable[[str], Awaitable[None]]


async def _no_hook(_: str) -> None:
    return None


@dataclass(slots=True)
class _Kept:
    """One rollout's fold, as long as its journal is."""

    rollout: Rollout
    outlooks: Sequence[table.StageOutlook | None]
    arrivals: tuple[PlannedStore, ...] = ()
    arrivals_at: datetime | None = None
    look_failed_at: datetime | None = None
    """When a database was away as a look of evidence was due."""


@dataclass(slots=True)
class _Look:
    """What one observation found; `twins` too, because an order is made from what it was made against."""

    seen: Observation
    twins: Mapping[TerminalId, Twin] = field(default_factory=dict)


class RolloutDriver:
    """Drives every active rollout of one chain. Several at once do no harm: one writes, and the orders are the same.

    `between` is awaited after a commit and after each batch of orders; whatever it raises ends the round there, as a
    crash would.
    """

    def __init__(
        self,
        databases: Databases,
        hosts: Hosts,
        wall: Callable[[], datetime] = wall_now,
        between: Hook = _no_hook,
    ) -> None:
        self._databases = databases
        self._hosts = hosts
        self._stores = StoreOrders(databases, hosts)
        self._wall = wall
        self._between = between
        self._kept: dict[RolloutId, _Kept] = {}
        self._refused: dict[tuple[RolloutId, TerminalId], str] = {}
        """Changes that hosts refuse to make, by their code."""
        self.counts = RoundCounts()
        self.figures = RolloutFigures(self.counts)

    async def round(self) -> int:
        """One tick of each active rollout; returns how many there are. Raises what the home database raises.

        A rollout that cannot be driven is logged and counted, and keeps none of the others waiting.
        """
        async with self._databases.at() as conn:
            active = await table.list_headers(conn, [self._databases.chain], active=True, limit=DRIVEN_MAX)
        self._kept = {one.id: self._kept[one.id] for one in active if one.id in self._kept}
        self._refused = {key: code for key, code in self._refused.items() if key[0] in self._kept}
        self.figures.keep({one.id for one in active})
        for header in active:
            began = monotonic()
            try:
                await self.tick(header.id)
            except RetryLater as error:
                log.info("rollout_waits", rollout=header.id, code=error.code)
            except AWAY:
                raise
            except Exception:
                log.exception("rollout_broke", rollout=header.id)
                self.counts.errors += 1
            if header.id in self._kept:
                self.figures.ticked(self._kept[header.id].rollout, (monotonic() - began) * 1000)
        return len(active)

    async def tick(self, number: RolloutId) -> bool:
        """One look and what follows of it; False: somebody else wrote meanwhile, and nothing was done."""
        now = self._wall().astimezone(UTC)
        kept = await self._load(number)
        look = await self.observe(kept, now)
        turn = tick(kept.rollout, look.seen, now)
        self.counts.ticks += 1
        entries = [one.entry for one in turn.effects if isinstance(one, Journal)]
        if entries:
            decided = [
                table.Decision(one.stage, one.at, one.gate, one.counts, one.verdict)
                for one in turn.effects
                if isinstance(one, Decide)
            ]
            async with self._databases.at() as conn, conn.transaction():
                written = await table.append(conn, kept.rollout, turn.rollout, entries, decided, now)
                if written:
                    await settle(conn, kept.rollout, turn.rollout)
            if not written:
                self.counts.lost_races += 1
                del self._kept[number]
                return False
            kept.rollout = turn.rollout
            self.counts.entries += len(entries)
            for one in decided:
                log.info("rollout_decided", rollout=number, stage=one.stage, way=str(one.gate.way), why=one.gate.why.en)
            await self._between("written")
        orders = [one for one in turn.effects if isinstance(one, SetDesired | Restore | Activate)]
        await self._perform(kept.rollout, orders, look)
        return True

    async def look(self, number: RolloutId) -> tuple[Rollout, Observation]:
        """A rollout and what a tick would see now. Writes nothing: looks of evidence are spent by ticks alone."""
        kept = await self._load(number)
        rollout = kept.rollout  # others may look at the same time, and read more of the journal meanwhile
        found = await self.observe(kept, self._wall().astimezone(UTC), spend=False)
        while len(self._kept) > LOOKED_AT_MAX:
            self._kept.pop(next(iter(self._kept)))
        return rollout, found.seen

    async def _load(self, number: RolloutId) -> _Kept:
        """From memory as far as its journal still ends there, else from the tables."""
        async with self._databases.at() as conn:
            kept = self._kept.get(number)
            if kept is None:
                rollout = await table.load_rollout(conn, number)
                if not (rollout.plan.intact and rollout.artefact.intact):
                    raise NeedsOperator(
                        "rollout_changed",
                        f"the plan or the artefact of {number} is not the one that was frozen",
                        "somebody wrote past the database's guards: put the row back from a backup",
                    )
                kept = self._kept[number] = _Kept(rollout, await table.load_outlooks(conn, number))
            else:
                kept.rollout = await table.caught_up(conn, kept.rollout)
        return kept

    # ------------------------------------------------------------ seen

    async def observe(self, kept: _Kept, now: datetime, *, spend: bool = True) -> _Look:
        """The terminals of the open stages, the evidence that is due, and stores that opened since."""
        rollout = kept.rollout
        # The stage that this tick may open is looked at too: its stores are asked at once.
        opened = rollout.plan.stages[: None if rollout.supersedes is not None else rollout.stage + 2]
        stores = [store for stage in opened for store in stage.stores]
        stores += rollout.tail
        by_region: dict[RegionId, list[StoreId]] = {}
        for store in stores:
            by_region.setdefault(store.region, []).append(store.store)
        twins = await self._databases.twins(by_region)
        answers = await self._answers(rollout, stores)
        targets = _observed(rollout, twins, answers)
        for (number, terminal), code in self._refused.items():
            sight = targets.get(terminal)
            if number == rollout.id and sight is not None and sight.part != rollout.artefact.payload:
                targets[terminal] = replace(sight, refused=code)
        if at_store(rollout.artefact):
            whole = await self._databases.store_sights(by_region)
            targets = seen_by_store(rollout.artefact, stores, targets, twins, whole)
        verdicts = await self._verdicts(kept, now if spend else None)
        await self._let_arrive(kept, now)
        return _Look(Observation(targets, verdicts, kept.arrivals), twins)

    async def _answers(self, rollout: Rollout, stores: Sequence[PlannedStore]) -> dict[TerminalId, CommandAnswer]:
        """To the last command to activate, of terminals that have not come to it yet."""
        wanted: dict[RegionId, list[MessageId]] = {}
        asked: dict[MessageId, TerminalId] = {}
        if not rollout.artefact.kind.boots:
            return {}
        for store in stores:
            for target in store.targets:
                mark = rollout.marks.get(target.terminal)
                if mark is None or not mark.told or mark.state not in _TOLD:
                    continue
                back = mark.state is TargetState.ROLLING_BACK
                version = mark.previous_version if back else rollout.artefact.version
                number = MessageId(derived_id(rollout.id, f"activate:{version}:{target.terminal}:{mark.told}"))
                asked[number] = target.terminal
                wanted.setdefault(store.region, []).append(number)
        return {asked[number]: one for number, one in (await self._databases.answers(wanted)).items()}

    async def _let_arrive(self, kept: _Kept, now: datetime) -> None:
        rollout = kept.rollout
        if not rollout.policy.tail or rollout.state not in JUDGED:
            return
        if kept.arrivals_at is not None and now - kept.arrivals_at < ARRIVALS_EVERY:
            return
        sites, _ = await self._databases.sites(rollout.chain)
        known = {store.store for stage in rollout.plan.stages for store in stage.stores}
        rules = rollout.policy
        found = (
            planned(
                site,
                rollout.selector,
                rules.mandatory_roles,
                rules.stratify,
                mandatory_only=at_store(rollout.artefact),
            )
            for site in sites
            if site.store not in known
        )
        kept.arrivals, kept.arrivals_at = tuple(one for one in found if one is not None), now

    # ------------------------------------------------------------ evidence

    async def _verdicts(self, kept: _Kept, now: datetime | None) -> dict[int, Verdict]:
        """The latest look of each open stage with evidence. One that is due is computed and journalled first, and what
        was journalled counts: a look is spent once, by whichever driver. `now` None: nothing is spent.
        """
        rollout = kept.rollout
        with_evidence = [
            number for number in range(rollout.stage + 1) if rollout.policy.stages[number].policy.evidence is not None
        ]
        if not with_evidence:
            return {}
        async with self._databases.at() as conn:
            found = await table.load_verdicts(conn, rollout.id)
        if now is None or rollout.state not in JUDGED:
            return found
        for number in with_evidence:
            verdict = await self._due(kept, number, found.get(number), now)
            if verdict is not None:
                async with self._databases.at() as conn:
                    found[number] = await table.save_verdict(conn, rollout.id, number, verdict, now)
                await self._between("looked")
        return found

    async def _due(self, kept: _Kept, number: int, known: Verdict | None, now: datetime) -> Verdict | None:
        rollout = kept.rollout
        rule = rollout.policy.stages[number].policy.evidence
        assert rule is not None
        treated = first_days(rollout, number)
        looked = 0 if known is None else known.look
        today = (now - BOOKS_CLOSE_AFTER).astimezone(zone_of(rollout.policy.zone)).date()
        # No later look than this can be due; most ticks end here without a statement.
        begun = min(treated.values(), default=today)
        if looked >= rule.looks or (today - begun).days < rule.look_days[looked]:
            return None
        if rule.kind is not StageKind.STAGGERED and not settled(rollout, number):
            return None
        if kept.look_failed_at is not None and now - kept.look_failed_at < LOOK_AGAIN_AFTER:
            return None
        from runtime.evidence_desk import verdict_due

        outlook = kept.outlooks[number]
        controls = outlook.controls if outlook is not None else ()
        if rule.kind is StageKind.STAGGERED:
            controls = still_to_begin(rollout, number)
        try:
            verdict = await verdict_due(self._databases.days, rule, treated, controls, today)
        except AWAY as error:  # a look at half of the stores would be spent for nothing
            log.warning("rollout_look_waits", rollout=rollout.id, stage=number, error=str(error))
            kept.look_failed_at = now
            return None
        return None if verdict is None or verdict.look <= looked else verdict

    # ------------------------------------------------------------ done

    async def _perform(self, rollout: Rollout, orders: Sequence[Order], look: _Look) -> None:
        """Give the orders in their order, region by region; a region that is away gets them again next time."""
        regions = (
            {
                target.terminal: store.region
                for store in (*(one for stage in rollout.plan.stages for one in stage.stores), *rollout.tail)
                for target in store.targets
            }
            if orders
            else {}
        )
        if at_store(rollout.artefact):
            given, refused = await self._stores.give(rollout, orders, regions, self._wall().astimezone(UTC))
            self.counts.orders, self.counts.refused = self.counts.orders + given, self.counts.refused + refused
            if orders:
                await self._between("given")
            return
        by_region: dict[RegionId, list[tuple[TerminalId, CommandAsked | DesiredAsked]]] = {}
        for one in orders:
            by_region.setdefault(regions[one.target], []).append((one.target, _asked(rollout, one, look)))
        for region, asked in by_region.items():
            for n in range(0, len(asked), ORDERS_AT_ONCE_MAX):
                try:
                    await self._give(rollout.id, region, asked[n : n + ORDERS_AT_ONCE_MAX])
                except RetryLater as error:
                    log.info("rollout_region_waits", rollout=rollout.id, region=region, code=error.code)
                    break
                await self._between("given")

    async def _give(
        self, rollout: RolloutId, region: RegionId, asked: Sequence[tuple[TerminalId, CommandAsked | DesiredAsked]]
    ) -> None:
        try:
            answers = await self._hosts.deliver(region, [order(terminal, one) for terminal, one in asked])
        except Refused as error:  # one of them is unknown there by now, or unfit for it: each for itself
            if len(asked) == 1:
                self._refuse(rollout, *asked[0], error.code)
                return
            for one in asked:
                await self._give(rollout, region, [one])
            return
        for (terminal, wanted), answer in zip(asked, answers, strict=True):
            result = msgspec.json.decode(answer.reply, type=OrderResult)
            if result.ok:
                self.counts.orders += 1
                self._refused.pop((rollout, terminal), None)
            elif result.code == "gen_conflict":
                self.counts.conflicts += 1
            else:
                self._refuse(rollout, terminal, wanted, result.code)

    def _refuse(self, rollout: RolloutId, terminal: TerminalId, asked: CommandAsked | DesiredAsked, code: str) -> None:
        """Remembered until the next look: whoever drives after us is told the same, for the order is given again."""
        self.counts.refused += 1
        if isinstance(asked, DesiredAsked) and code != "unknown_terminal":
            self._refused[rollout, terminal] = code
        log.warning("rollout_order_refused", rollout=rollout, terminal=terminal, code=code)


_TOLD = (TargetState.ACTIVATING, TargetState.ROLLING_BACK)


def _asked(rollout: Rollout, wanted: Order, look: _Look) -> CommandAsked | DesiredAsked:
    match wanted:
        case Activate():
            return CommandAsked(wanted.id, "activate", (("version", wanted.version),), ACTIVATE_DEADLINE_S)
        case Restore():
            overrides = look.twins[wanted.target].overrides
            return put_back(wanted.id, rollout.artefact, wanted.part, overrides, wanted.expected_gen)
        case SetDesired():
            return laid_in(wanted.id, rollout.artefact, wanted.part, wanted.expected_gen)


def _observed(
    rollout: Rollout, twins: Mapping[TerminalId, Twin], answers: Mapping[TerminalId, CommandAnswer]
) -> dict[TerminalId, Observed]:
    """Thousands of terminals have few different overrides and releases: each is taken apart once."""
    parts: dict[tuple[str, str], str] = {}
    artefact = rollout.artefact
    found: dict[TerminalId, Observed] = {}
    for terminal, twin in twins.items():
        wanted = twin.software_wanted
        key = (twin.overrides, "" if wanted is None else str(wanted))
        part = parts.get(key)
        if part is None:
            part = parts[key] = part_of(artefact, twin.overrides, wanted)
        fetched, well = _health(twin)
        answer = answers.get(terminal)
        said, refused, not_yet = _said(answer) if answer is not None else (None, "", Reason.NONE)
        found[terminal] = Observed(
            twin.gen,
            part,
            twin.config_hash,
            twin.online,
            twin.applied_gen,
            twin.reported_hash,
            twin.software,
            twin.boot,
            well,
            fetched,
            said,
            refused,
            not_yet,
            twin.retired,
        )
    return found


def _health(twin: Twin) -> tuple[str, bool]:
    """The version that lies ready, and whether the terminal is well: it did not refuse its document."""
    if not twin.health or ("software_fetched" not in twin.health and "desired_refused" not in twin.health):
        return "", True
    try:
        told = json.loads(twin.health)
    except ValueError:  # cut off where our record of it ends
        return "", "desired_refused" not in twin.health
    if not isinstance(told, dict):
        return "", True
    ready = told.get("software_fetched") is True and str(told.get("software_next", ""))
    return ready or "", not told.get("desired_refused")


def _said(answer: CommandAnswer) -> tuple[datetime | None, str, Reason]:
    match CommandStatus(answer.status):
        case CommandStatus.DONE:
            return answer.answered_at, "", Reason.NONE
        case CommandStatus.REJECTED if answer.detail in NOT_YET:
            return None, "", NOT_YET[answer.detail]
        case CommandStatus.FAILED | CommandStatus.REJECTED:
            return None, answer.detail or answer.status, Reason.NONE
        case CommandStatus.EXPIRED:
            return None, "", Reason.NO_ANSWER
        case _:
            return None, "", Reason.NONE


# ---------------------------------------------------------------- for as long as the process lives

TICK_EVERY_S = 2.0


async def drive(databases: Databases, driver: RolloutDriver) -> None:
    """Round after round until it is cancelled; one that breaks is logged and counted, and the next one sees to it."""
    await databases.open()
    try:
        while True:
            try:
                await driver.round()
            except AWAY as error:
                log.warning("rollouts_database_away", error=str(error))
                driver.counts.errors += 1
            except Exception:
                log.exception("rollout_round_broke")
                driver.counts.errors += 1
            await asyncio.sleep(TICK_EVERY_S)
    finally:
        await databases.close()
