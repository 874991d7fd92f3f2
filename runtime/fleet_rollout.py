"""A rollout in a fleet's day: planned, started and promoted through the real desk, on a compressed clock, then judged.

The rules are those of the policy's file; only its times are shorter. What comes out is held against the truth: what
each simulated terminal really runs, which its own report may hide.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from hashlib import shake_256
from pathlib import Path
from typing import Any

import msgspec
import yaml
from psycopg import AsyncConnection

from actors.rollout_effects import Promote, Start
from devices.fleet.orders import Fault, FleetLane, FleetTerminal, Runs
from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import RegionId, TerminalId
from models.domain.rollout import (
    Artefact,
    Device,
    PersonId,
    RolloutPolicy,
    RolloutState,
    Selector,
    Site,
    Stage,
    StagePolicy,
    StageState,
    TargetState,
)
from models.domain.rollout_gate import Counts
from models.domain.rollout_journal import Rollout
from models.domain.rollout_part import software_artefact
from models.domain.rollout_plan import draw
from models.domain.rollout_target import counts_of
from models.tables import rollouts as table
from models.tables.rollouts import Decision
from runtime.images import Images, Offered
from runtime.plant import Plant
from runtime.rehearsal import NAMED_UP_TO
from runtime.rehearsal_world import BAD, GOOD, Shares, faults_of
from runtime.rollout_databases import Databases
from runtime.rollout_desk import RolloutDesk

NAME, DELIVERED, NEXT = "fleet", "1.0.0", "2.0.0"
IMAGE_BYTES = 8 * 1024
FILE_BYTES_MAX = 64 * 1024
PER_MILLE = 1_000
SHARES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
AUTHOR, OTHER = PersonId("fleet:author"), PersonId("fleet:approver")
LOOK_EVERY_S = 1.0
ROLLOUT_S_MAX = 600.0

SOAK_S, SOAK_DEADLINE_S = 6, 60
IN_PROGRESS_S, QUEUE_S, CLAIM_GRACE_S, JITTER_S = 90, 180, 6, 2
ROLLBACK_S = 150
SMALL_STAGE = 2
FASTER = 10
"""A minute's limits count for six seconds."""


def delivered() -> str:
    """The version that the fleet's terminals come with."""
    return f"{NAME} {DELIVERED}"


def compressed(policy: RolloutPolicy, stores: int) -> RolloutPolicy:
    """The policy with times of seconds, open windows, and without what takes days: evidence, attachments, the tail.

    Gates, shares and limits in flight stay; the limits of a minute are tenfold. A stage that is larger than a quarter
    of what a small chain has left is that quarter.
    """
    left, stages = stores, []
    for stage in policy.stages:
        count = min(stage.stores, max(SMALL_STAGE, left // 4))  # 0 where it takes all
        left -= count
        stages.append(replace(stage, stores=count, policy=_quick(stage, count)))
    back = policy.rollback
    back = replace(back, deadline_s=ROLLBACK_S, starts_per_minute_max=back.starts_per_minute_max * FASTER)
    return replace(policy, stages=tuple(stages), rollback=back, tail=False)


def _quick(stage: Stage, stores: int) -> StagePolicy:
    rules = stage.policy
    if not stage.takes_all:
        reachable = stores - stores * rules.offline_percent_max // 100
        executed_min, error_stores_max = min(rules.executed_min, reachable), min(rules.error_stores_max, stores - 1)
        rules = replace(rules, executed_min=executed_min, error_stores_max=error_stores_max)
    return replace(
        rules,
        soak_s=SOAK_S,
        soak_deadline_s=SOAK_DEADLINE_S,
        in_progress_deadline_s=IN_PROGRESS_S,
        queue_deadline_s=QUEUE_S,
        claim_grace_s=CLAIM_GRACE_S,
        jitter_s=JITTER_S,
        windows=(),
        evidence=None,
        attachments=(),
        starts_per_minute_max=rules.starts_per_minute_max * FASTER,
    )


# ---------------------------------------------------------------- who is faulty


def sites_of(lanes: Sequence[FleetLane]) -> list[Site]:
    """The fleet's stores as the rules of faults see them."""
    return [
        Site(
            lane.store,
            RegionId(""),
            "",
            tuple(Device(one.terminal, one.role, one.profile) for one in lane.terminals),
        )
        for lane in lanes
    ]


def with_faults(lanes: Sequence[FleetLane], shares: Shares | None, seed: int) -> tuple[FleetLane, ...]:
    """The same lanes with a faulty terminal in so many stores; offline: all terminals of the store."""
    if shares is None:
        return tuple(lanes)
    faults = faults_of(sites_of(lanes), shares, seed)

    def one(terminal: FleetTerminal) -> FleetTerminal:
        return replace(terminal, fault=faults.get(terminal.terminal, Fault.NONE))

    return tuple(replace(lane, terminals=tuple(one(terminal) for terminal in lane.terminals)) for lane in lanes)


def shares_of(text: str) -> Shares | None:
    """`none`, `good`, `defaults`, or a file that says every share. Raises Refused `bad_faults`."""
    named = {"none": None, "good": GOOD, "defaults": BAD}
    if text in named:
        return named[text]
    try:
        said = yaml.safe_load(Path(text).read_bytes()[:FILE_BYTES_MAX])
        shares = msgspec.convert(said, Shares, strict=True)
        missing = {one.name for one in fields(Shares)} - set(said)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise Refused("bad_faults", f"{text}: {error}", "none, good, defaults, or a file of shares") from error
    values = asdict(shares).values()
    if missing or min(values) < 0 or sum(values) > PER_MILLE:
        raise Refused("bad_faults", f"{text}: {said}", "failing, offline, lying, flapping: per mille, 1000 in all")
    return shares


def away(lane: FleetLane) -> bool:
    """The store does not answer at all."""
    return all(one.fault is Fault.OFFLINE for one in lane.terminals)


# ---------------------------------------------------------------- the run


@dataclass(slots=True)
class StageTimes:
    """Seconds from the start."""

    opened_s: float | None = None
    asked_s: float | None = None
    """When its gate began to wait for a person."""
    passed_s: float | None = None


@dataclass(slots=True)
class FleetRollout:
    """One rollout through a day. `lanes` has every store, also those that are away."""

    plant: Plant
    policy: RolloutPolicy
    lanes: tuple[FleetLane, ...]
    seed: int
    say: Callable[[str], None]
    rollout: Rollout | None = None
    artefact: Artefact | None = None
    decisions: list[Decision] = field(default_factory=list)
    times: list[StageTimes] = field(default_factory=list)
    started_at: float = 0.0
    halted_s: float | None = None
    halted_why: str = ""
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Nothing more will happen by itself."""
        still = (RolloutState.HALTED, RolloutState.ROLLBACK_STUCK)
        return self.rollout is not None and (not self.rollout.state.active or self.rollout.state in still)

    async def prepare(self) -> None:
        """Two images, old and new, in the house's store. Raises NeedsOperator `software_stands`: another run's."""
        async with await AsyncConnection.connect(self.plant.database_url, autocommit=True) as conn:
            stores = [lane.store for lane in self.lanes]
            cursor = await conn.execute(
                """SELECT count(*) FROM desired d JOIN terminal t ON t.id = d.terminal
                   WHERE t.store = ANY(%s) AND coalesce(d.software, 'null'::jsonb) <> 'null'::jsonb""",
                (stores,),
            )
            row = await cursor.fetchone()
        if row is not None and row[0]:
            raise NeedsOperator(
                "software_stands",
                f"{row[0]} terminals of these stores were told to run software before",
                "take a house of the fleet's own: leave out --attach",
            )
        releases = []
        images = Images([self.plant])
        with tempfile.TemporaryDirectory() as folder:
            for number in (DELIVERED, NEXT):
                file = Path(folder) / number
                file.write_bytes(shake_256(f"{NAME} {number}".encode()).digest(IMAGE_BYTES))
                image = await images.add(Offered(file, NAME, number, notes_en="the fleet's"), AUTHOR)
                releases.append(asdict(images.release(image)))
        self.artefact = software_artefact(releases[1], releases[0], NAME)

    async def play(self) -> None:
        """Plan, start, promote whenever a person is asked, until it is over; `ROLLOUT_S_MAX` at the most."""
        databases = Databases([self.plant])
        await databases.open()
        try:
            await self._through(databases)
        finally:
            await databases.close()

    async def _through(self, databases: Databases) -> None:
        assert self.artefact is not None, "prepare comes first"
        desk = RolloutDesk(databases)
        stores = frozenset(lane.store for lane in self.lanes)
        made = await desk.plan(self._named(), self.artefact, Selector(stores=stores), AUTHOR, seed=self.seed)
        self.times = [StageTimes() for _ in made.rollout.plan.stages]
        self.started_at = time.monotonic()
        turn = await desk.tell(made.rollout.id, Start(AUTHOR))
        self.say(f"rollout {made.rollout.id}: {made.rollout.plan.stores} stores, {made.rollout.plan.targets} terminals")
        rollout = self.rollout = turn.rollout
        while not self.over and self._passed_s < ROLLOUT_S_MAX:
            await asyncio.sleep(LOOK_EVERY_S)
            async with databases.at() as conn:
                rollout = self.rollout = await table.caught_up(conn, rollout)
            self._note(rollout)
            if rollout.state is RolloutState.RUNNING and _asks(rollout):
                await desk.tell(rollout.id, Promote(OTHER))
                self.say(f"stage {rollout.stage + 1} promoted by {OTHER} after {self._passed_s:.0f} s")
        self.seconds = self._passed_s
        async with databases.at() as conn:
            self.decisions = await table.decisions(conn, rollout.id)

    def _named(self) -> RolloutPolicy:
        """A small first stage is named by people, who name stores that answer."""
        policy = compressed(self.policy, len(self.lanes))
        first = policy.stages[0]
        if first.named or not 0 < first.stores <= NAMED_UP_TO:
            return policy
        answering = sorted(
            (lane.store for lane in self.lanes if not away(lane)), key=lambda store: draw(self.seed, "named", store)
        )
        first = replace(first, named=tuple(answering[: first.stores]))
        return replace(policy, stages=(first, *policy.stages[1:]))

    @property
    def _passed_s(self) -> float:
        return time.monotonic() - self.started_at

    def _note(self, rollout: Rollout) -> None:
        now = round(self._passed_s, 1)
        if self.halted_s is None and rollout.halted_at is not None:
            self.halted_s, self.halted_why = now, rollout.why.en
            self.say(f"halted in stage {rollout.halted_at + 1} after {now:.0f} s: {rollout.why.en}")
        for mark, times in zip(rollout.stages, self.times, strict=True):
            if times.opened_s is None and mark.opened_at is not None:
                times.opened_s = now
            if times.asked_s is None and mark.state is StageState.AWAITS_APPROVAL:
                times.asked_s = now
            if times.passed_s is None and mark.state is StageState.PASSED:
                times.passed_s = now

    # ------------------------------------------------------------ judged

    def counts(self) -> list[Counts]:
        """Each stage as it stood at the halt, or at the end."""
        assert self.rollout is not None
        stages = self.rollout.plan.stages
        found = [counts_of(stage.stores, self.rollout.marks, queue_over=False) for stage in stages]
        for one in self.decisions:
            if self.rollout.halted_at is not None:
                found[one.stage] = one.counts
        return found

    async def document(self, runs: Sequence[Runs]) -> dict[str, Any]:
        """What came of it, and whether the rules did what they must; `runs`: the truth of every connected terminal."""
        assert self.rollout is not None
        rollout = self.rollout
        between = Judge(self.lanes, await self._desired()).between(runs)
        broken = [*self._wrong_successes(), *between]
        faulty = Counter(str(one.fault) for lane in self.lanes for one in lane.terminals)
        bad = any(count for fault, count in faulty.items() if fault not in (Fault.NONE, Fault.OFFLINE))
        ends = (RolloutState.COMPLETED, RolloutState.ROLLED_BACK) if bad else (RolloutState.COMPLETED,)
        if rollout.state not in ends:
            broken.append(f"it ended as {rollout.state}: {rollout.why.en}")
        back = sum(
            any(rollout.mark(one.terminal).state is TargetState.ROLLED_BACK for one in store.targets)
            for stage in rollout.plan.stages
            for store in stage.stores
        )
        return {
            "ok": not broken,
            "policy": self.policy.name,
            "version": rollout.artefact.version,
            "state": str(rollout.state),
            "why": msgspec.to_builtins(rollout.why),
            "targets": rollout.plan.targets,
            "faults": {fault: count for fault, count in sorted(faulty.items()) if fault != Fault.NONE},
            "stages": [
                {
                    "stores": one.stores,
                    "succeeded": one.succeeded,
                    "failed": one.failed,
                    "timed_out": one.timed_out,
                    "offline": one.offline,
                    "liars_caught": one.lying,
                    "under_way": one.in_progress + one.soaking,
                    "not_asked": one.queued,
                    **asdict(times),
                }
                for one, times in zip(self.counts(), self.times, strict=True)
            ],
            "halted_at": None if rollout.halted_at is None else rollout.halted_at + 1,
            "halted_s": self.halted_s,
            "halted_why": self.halted_why,
            "rolled_back": back,
            "left_between_versions": len(between),
            "versions": dict(Counter(one.version for one in runs)),
            "boots": sum(one.boots for one in runs),
            "journal": rollout.entries,
            "proved_s": _spans((mark.asked_at, mark.proved_at) for mark in rollout.marks.values()),
            "returned_s": _spans(
                (mark.restored_at, mark.since)
                for mark in rollout.marks.values()
                if mark.state is TargetState.ROLLED_BACK
            ),
            "told_again": sum(mark.told > 1 + bool(mark.restored_at) for mark in rollout.marks.values()),
            "seconds": round(self.seconds, 1),
            "broken": broken[:20],
        }

    async def _desired(self) -> dict[TerminalId, tuple[int, str]]:
        """Generation and version that each terminal is to run; "": none was ever asked for."""
        async with await AsyncConnection.connect(self.plant.database_url, autocommit=True) as conn:
            cursor = await conn.execute("SELECT terminal, gen, coalesce(software->>'version', '') FROM desired")
            return {TerminalId(name): (gen, version) for name, gen, version in await cursor.fetchall()}

    def _wrong_successes(self) -> list[str]:
        assert self.rollout is not None
        marks = self.rollout.marks
        return [
            f"{one.terminal} ({one.fault}) counts as a success"
            for lane in self.lanes
            for one in lane.terminals
            if one.fault is not Fault.NONE
            and one.terminal in marks
            and marks[one.terminal].state is TargetState.SUCCEEDED
        ]


@dataclass(frozen=True, slots=True)
class Judge:
    """Holds what terminals run against their documents. `wanted`: generation and version, "" where none was asked."""

    lanes: Sequence[FleetLane]
    wanted: Mapping[TerminalId, tuple[int, str]]

    def between(self, runs: Sequence[Runs]) -> list[str]:
        """Terminals whose document, report and truth are not of one version, and stores with two versions."""
        found = []
        versions = {one.terminal: one.version for one in runs}
        for one in runs:
            gen, version = self.wanted.get(one.terminal, (0, ""))
            right = version or delivered()
            if {one.version, one.reported} != {right} or one.applied_gen != gen:
                found.append(
                    f"{one.terminal}: to run {right} of generation {gen}, runs {one.version},"
                    f" says {one.reported} of generation {one.applied_gen}"
                )
        for lane in self.lanes:
            both = {versions[one.terminal] for one in lane.terminals if one.terminal in versions}
            if len(both) > 1:
                found.append(f"{lane.store}: {' and '.join(sorted(both))} in one store")
        return found


def _asks(rollout: Rollout) -> bool:
    return rollout.stage >= 0 and rollout.stages[rollout.stage].state is StageState.AWAITS_APPROVAL


def _spans(pairs: Iterable[tuple[datetime | None, datetime | None]]) -> dict[str, float | int]:
    """n, p50, p99 and the longest, in seconds, of spans that have an end."""
    ordered = sorted((until - since).total_seconds() for since, until in pairs if since and until)
    if not ordered:
        return {"n": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    ranks = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES}
    return {"n": len(ordered), **{name: round(value, 1) for name, value in ranks.items()}}


# ---------------------------------------------------------------- shown


def markdown(found: Mapping[str, Any]) -> str:
    """The ladder as a table, and one line of what became of it."""
    heads = ("stage", "stores", "succeeded", "failed", "timed out", "lying", "offline", "under way", "not asked")
    keys = ("stores", "succeeded", "failed", "timed_out", "liars_caught", "offline", "under_way", "not_asked")
    lines = [
        f"| {' | '.join((*heads, 'opened after', 'passed after'))} |",
        f"|---|{'---:|' * (len(heads) + 1)}",
    ]
    for number, stage in enumerate(found["stages"], 1):
        times = (_seconds(stage["opened_s"]), _seconds(stage["passed_s"]))
        lines.append(f"| {' | '.join((str(number), *(str(stage[key]) for key in keys), *times))} |")
    halted = (
        ""
        if found["halted_at"] is None
        else (f"Halted in stage {found['halted_at']} after {found['halted_s']} s: {found['halted_why']}. ")
    )
    lines += [
        "",
        f"{halted}{found['state']} after {found['seconds']} s: {found['why']['en']}. {found['rolled_back']} stores were"
        f" given back what they had; {found['left_between_versions']} terminals are left between versions.",
        "",
        f"{found['boots']} starts; {found['told_again']} terminals were told to start more than once;"
        f" {found['journal']} entries of the journal. From the asking to the proof {_span(found['proved_s'])};"
        f" from the order to return to the return {_span(found['returned_s'])}.",
    ]
    return "\n".join([*lines, *(f"- BROKEN: {one}" for one in found["broken"])])


def _span(spans: Mapping[str, Any]) -> str:
    return f"p50 {spans['p50']} s, p99 {spans['p99']} s, {spans['max']} s at most ({spans['n']})"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value} s"
