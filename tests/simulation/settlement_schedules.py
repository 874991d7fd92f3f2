"""Schedules of settlement: where a worker dies, what the provider does, when a reversal comes, who works beside it.

A schedule is played by real `SettlementRunner`s over a `World` (rows in memory, or PostgreSQL) and a model provider.
Every commit boundary of every run is a point of the schedule; one actor moves at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from models.domain.ids import ChainId, RegionId
from models.domain.ledger import Transaction
from models.domain.membership import HoldState, State
from models.domain.settlement import CALL_LEASE, Call, CallState, Standing
from runtime.settlement import QUERY_AGAIN_MAX, SettlementLimits, SettlementRunner
from tests.simulation.settlement_provider import BYSTANDER, Does, ModelProvider

CHAIN, REGION = ChainId("demo"), RegionId("east")
NOW = datetime(2026, 4, 10, tzinfo=UTC)
FEE_FEN = 1000
OPEN = {CallState.NEW, CallState.UNKNOWN}
RUNS_MAX = 16
STEPS_MAX = 600


class Beside(StrEnum):
    """A second worker: none; its whole run at that point; step by step in turn; the same two while the lease of the
    first one has run out, so that both hold the same calls."""

    NOBODY = "nobody"
    WHOLE = "whole"
    IN_TURN = "in turn"
    IN_TURN_LEASE_OVER = "in turn, lease over"
    WHOLE_LEASE_OVER = "whole, lease over"


LEASE_OVER = {Beside.IN_TURN_LEASE_OVER, Beside.WHOLE_LEASE_OVER}


class Profile(StrEnum):
    """The membership that the schedule is about. All have a plan of 10.00; but for one it is dunned once."""

    FEE = "fee, held"
    CLAWBACK = "clawback of two entities, held"
    ONE_USE = "clawback of one use, held"
    UNUSED = "unused, held"
    FREE = "clawback, nothing held"
    SHARED = "fee shared by usage, held"
    TASK_KEPT = "task of purchases, just kept, held"
    TASK_MISSED = "task of an amount, missed, held"
    CREDIT = "fee, settled by the provider's own records"
    DUNNED_TWICE = "clawback of two entities, held, dunned twice"


USES: dict[Profile, tuple[tuple[str, int], ...]] = {
    Profile.FEE: (("s-own", 800), ("s-north", 800)),
    Profile.CLAWBACK: (("s-own", 300), ("s-north", 500)),
    Profile.ONE_USE: (("s-north", 800),),
    Profile.UNUSED: (),
    Profile.FREE: (("s-own", 800),),
    Profile.SHARED: (("s-own", 300), ("s-own", 450), ("s-north", 450)),
    Profile.TASK_KEPT: (("s-own", 800), ("s-north", 800)),
    Profile.TASK_MISSED: (("s-own", 300), ("s-north", 500)),
    Profile.CREDIT: (("s-own", 800), ("s-north", 800)),
    Profile.DUNNED_TWICE: (("s-own", 300), ("s-north", 500)),
}
"""(store, fen) of each use; the last one is what is taken back, wholly or but for 1 fen."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Points are counted from 0 over all runs; None: it does not happen."""

    profile: Profile = Profile.FEE
    script: tuple[Does, ...] = ()
    crash: int | None = None
    reversal: int | None = None
    back_fen: int = 800
    beside: Beside = Beside.NOBODY
    beside_at: int = 0
    early: bool = False
    """After the crash somebody looks before the leases have run out."""
    chunk: int = 10


class Killed(Exception):
    """The worker died here."""


class Broken(AssertionError):
    """An invariant does not hold."""


# ---------------------------------------------------------------- what it is played on


@dataclass(frozen=True, slots=True)
class Committed:
    """Everything that was committed."""

    standings: dict[str, Standing]
    calls: dict[str, Call]
    transactions: dict[str, Transaction]


class World(Protocol):
    """Rows in memory, or PostgreSQL."""

    def pool(self) -> AsyncConnectionPool[AsyncConnection[Any]]:
        """For the runners."""

    async def plant(self, profile: Profile) -> dict[str, int]:
        """The two memberships, due for cutoff; the provider's holds."""

    async def reverse(self, fen: int, now: datetime) -> None:
        """The subject's last use is taken back."""

    async def tell(self, number: str) -> bool:
        """The provider says that a failed capture was collected after all. False: nobody waits for it."""

    async def state(self) -> Committed:
        """What was committed."""

    async def blocked(self) -> int:
        """How many transactions stand at a row that another one holds."""

    async def totals_agree(self, batch_at: datetime) -> bool:
        """The control totals of a batch agree."""


# ---------------------------------------------------------------- playing


class _Worker:
    """One run, held at every point until it may go on."""

    def __init__(self, play: Play, now: datetime) -> None:
        self.go: asyncio.Future[None] | None = None
        limits = SettlementLimits(play.schedule.chunk, play.schedule.chunk, calls_per_s_max=1e12, patience_s=0)
        provider = play.provider.port()
        runner = SettlementRunner(
            CHAIN, REGION, play.world.pool(), lambda *_: provider, limits, wall=lambda: play.wall,
            between_steps=self._held,
        )  # fmt: skip
        self.task = asyncio.ensure_future(runner.run(now))

    async def _held(self, _step: str) -> None:
        self.go = asyncio.get_running_loop().create_future()
        await self.go

    def move(self, killed: bool = False) -> None:
        """Go on to the next point, or die at this one."""
        assert self.go is not None
        go, self.go = self.go, None
        if killed:
            go.set_exception(Killed())
        else:
            go.set_result(None)


@dataclass
class Play:
    """One schedule on one world. `after_each`: called with what was committed, at each point."""

    schedule: Schedule
    world: World
    provider: ModelProvider
    after_each: Callable[[Play], Awaitable[None]]
    wall: datetime = NOW
    points: int = 0
    runs: list[datetime] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    """What the schedule demanded and happened: crash, reversal, beside."""
    _turn: int = 0
    _tasks: list[asyncio.Future[Any]] = field(default_factory=list)

    async def run(self) -> None:
        """From the cutoff to the end of everything, whatever dies on the way."""
        for _ in range(RUNS_MAX):
            await self._one_run()
            state = await self.world.state()
            if await self._told(state):
                continue
            if ended(state) and not await self._late_reversal():
                return
            if "crash" in self.begun and self.schedule.early and "early" not in self.begun:
                self.begun.add("early")
                continue
            dunning = any(one.state is State.DUNNING for one in state.standings.values())
            self.wall += timedelta(days=1) if dunning else CALL_LEASE + QUERY_AGAIN_MAX
        raise Broken(f"it does not end: {await self.world.state()}")

    async def _late_reversal(self) -> bool:
        """The runs ended before the reversal's point: it comes now."""
        if self.schedule.reversal is None or "reversal" in self.begun:
            return False
        self._reverse()
        await self._still([])
        return True

    async def _told(self, state: Committed) -> bool:
        for number, does in list(self.provider.secret.items()):
            meanwhile = any(call.attempt and call.state is CallState.UNKNOWN for call in state.calls.values())
            due = ended(state) or does is Does.FAILS_AND_COLLECTS
            due = due or (meanwhile and does is Does.FAILS_AND_COLLECTS_TOLD_MEANWHILE)
            if due and await self.world.tell(number):
                del self.provider.secret[number]
                return True
        return False

    async def _one_run(self) -> None:
        self.runs.append(self.wall)
        workers = [_Worker(self, self.wall)]
        await self._still(workers)
        for _ in range(STEPS_MAX):
            alive = [one for one in workers if not one.task.done()]
            if not alive:
                break
            await self.after_each(self)
            mover = self._mover(workers)
            if mover is None:
                raise Broken("everybody waits for somebody else's row")
            if mover is workers[0]:
                killed = self._point(workers)
                await self._still(workers)  # who begins here goes as far as it comes, before the first one moves
                mover.move(killed=killed)
            else:
                mover.move()
            await self._still(workers)
        for one in workers:
            raised = one.task.exception()
            if raised is not None and not isinstance(raised, Killed):
                raise raised
        await asyncio.gather(*self._tasks)
        self._tasks.clear()
        await self.after_each(self)

    def _mover(self, workers: list[_Worker]) -> _Worker | None:
        ready = [one for one in workers if one.go is not None and not one.task.done()]
        if not ready:
            return None
        if self.schedule.beside in {Beside.WHOLE, Beside.WHOLE_LEASE_OVER}:
            return ready[-1]
        self._turn += 1
        return ready[self._turn % len(ready)]

    def _point(self, workers: list[_Worker]) -> bool:
        """What happens at this point of the first worker, before it goes on. True: it dies."""
        point, plan = self.points, self.schedule
        self.points += 1
        if plan.beside is not Beside.NOBODY and plan.beside_at == point:
            self.begun.add("beside")
            if plan.beside in LEASE_OVER:
                self.wall += CALL_LEASE
            workers.append(_Worker(self, self.wall))
        if plan.reversal == point:
            self._reverse()
        if plan.crash == point:
            self.begun.add("crash")
            return True
        return False

    def _reverse(self) -> None:
        self.begun.add("reversal")
        if USES[self.schedule.profile]:
            self._tasks.append(asyncio.ensure_future(self.world.reverse(self.schedule.back_fen, self.wall)))

    async def _still(self, workers: list[_Worker]) -> None:
        """Until everybody stands at a point, at a row that somebody holds, or has ended."""
        while True:
            moving = sum(1 for one in workers if one.go is None and not one.task.done())
            moving += sum(1 for task in self._tasks if not task.done())
            if not moving or moving == await self.world.blocked():
                return
            await asyncio.sleep(0)


def ended(state: Committed) -> bool:
    """Nothing is left to do: everybody is at a last state, every call booked.

    A dunning attempt of what was collected meanwhile is never made, and one that is open is never asked about again.
    """
    over = {id_ for id_, one in state.standings.items() if one.state in {State.CLOSED, State.WRITTEN_OFF}}
    waits = (call for call in state.calls.values() if call.state is not CallState.POSTED)
    return over == state.standings.keys() and all(call.attempt and call.state in OPEN for call in waits)


# ---------------------------------------------------------------- invariants


class Audit:
    """money.md's invariants, after every step and at the end."""

    def __init__(self) -> None:
        self._entries: dict[str, Transaction] = {}
        self._charges: dict[str, tuple[int, object]] = {}
        self._looked_at: tuple[object, ...] = ()

    async def step(self, play: Play) -> None:
        """Raises Broken for the first that does not hold."""
        state, provider = await play.world.state(), play.provider
        looked_at = (state, len(provider.captured), len(provider.blind), len(play.begun))
        if looked_at == self._looked_at:
            return  # nothing was committed, nothing was collected since
        self._looked_at = looked_at
        for one in state.standings.values():
            self._membership(one, provider)
        for number, txn in self._entries.items():
            require(state.transactions.get(number) is txn or state.transactions.get(number) == txn, "an entry changed")
        self._entries = dict(state.transactions)
        generations = Counter(number.partition("A")[0] for number in provider.captured)
        require(all(count == 1 for count in generations.values()), f"two captures of one generation: {generations}")
        # Whoever stalls between its claim and its request sends it after others did: the provider knows the number.
        stalled = play.schedule.beside in LEASE_OVER and "beside" in play.begun
        require(stalled or not provider.blind, f"sent again without a query: {provider.blind}")
        booked = sum(one.paid_fen + one.refunded_fen for one in state.standings.values() if one.captured_number)
        back = [c for c in state.calls.values() if c.number.startswith("R") and c.state is CallState.POSTED]
        booked_on = sums(state)
        clearing = booked_on["provider_clearing"]
        require(clearing == booked - sum(call.fen for call in back), f"clearing {clearing}, captured {booked}")
        owed = sum(one.receivable_fen for one in state.standings.values())
        require(booked_on["member_receivable"] + booked_on["bad_debt"] == owed, f"owed {owed}")

    def _membership(self, one: Standing, provider: ModelProvider) -> None:
        require(one.state is not State.PARKED, f"{one.id} is parked")
        require(0 <= one.paid_fen <= min(one.fee_eff_fen, one.used_fen), f"paid {one.paid_fen} of {one.used_fen}")
        require(not one.captured_number or one.paid_fen == one.due_fen, f"paid {one.paid_fen}, due {one.due_fen}")
        held = one.hold_state is HoldState.HELD
        require(not (held and one.state is State.CLOSED), f"{one.id} is CLOSED and still holds")
        require(not one.hold_fen or one.paid_fen + one.refunded_fen <= one.hold_fen, "captured more than was held")
        if one.captured_number:
            taken = provider.captured.get(one.captured_number)
            require(taken == one.paid_fen + one.refunded_fen, f"{one.captured_number}: the provider took {taken}")
        if one.charge_fen is not None:
            fixed = (one.charge_fen, one.branch)
            require(self._charges.setdefault(one.id, fixed) == fixed, f"the charge of {one.id} changed")

    async def end(self, play: Play) -> None:
        """When nothing is left to do."""
        await self.step(play)
        state, provider = await play.world.state(), play.provider
        require(ended(state), "something is left to do")
        require(
            provider.net_fen == sum(one.paid_fen for one in state.standings.values()), "the provider's books differ"
        )
        require(sums(state)["refund_payable"] == 0, "a refund is owed")
        require(sums(state)["hold"] == 0 and not provider.holds, f"somebody still holds: {provider.holds}")
        for one in state.standings.values():
            require(one.state in {State.CLOSED, State.WRITTEN_OFF}, f"{one.id} ends {one.state}")
            kept = one.task_target is not None and one.task_done >= one.task_target
            due = 0 if kept else min(one.fee_eff_fen, one.used_fen)
            want = 0 if one.state is State.WRITTEN_OFF else due
            require(one.paid_fen == (want if one.captured_number or want == 0 else -1), f"{one.id} paid {one.paid_fen}")
        other = state.standings[BYSTANDER]
        require((other.state, other.paid_fen) == (State.CLOSED, FEE_FEN), "the bystander was touched")
        for at in set(play.runs):
            require(await play.world.totals_agree(at), f"control totals of {at}")


def require(holds: bool, what: str) -> None:
    """Raises Broken."""
    if not holds:
        raise Broken(what)


def sums(state: Committed) -> Counter[str]:
    """Fen by kind of account; due_to and due_from between entities too."""
    found: Counter[str] = Counter()
    for txn in state.transactions.values():
        for entry in txn.entries:
            found[entry.account.partition(":")[0]] += entry.amount_fen
    return found


async def play(schedule: Schedule, world: World) -> Play:
    """Plays it and audits every step. Raises Broken."""
    audit = Audit()
    holds = await world.plant(schedule.profile)
    played = Play(schedule, world, ModelProvider(schedule.script, holds), audit.step)
    try:
        await played.run()
        await audit.end(played)
    except Exception as broken:
        raise Broken(f"{schedule}: {broken!r}") from broken
    return played
