"""Who comes to a lane of the fleet and what they do there. One customer at a time; the pauses are short, not real."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import uuid_utils

from devices.fleet.agent import FleetAgent
from devices.fleet.orders import Article, FleetLane
from devices.simulator import SimulatedTerminal, till_line
from models.domain.errors import StoreOpsError
from models.domain.screen import Screen, ScreenState

PATIENCE_S = 45.0
"""How long a customer of the fleet waits for a screen or a reply: through any single kill."""
VOUCHER_PIECES = 2
"""What somebody with a voucher buys more than others."""
_OVER = frozenset({ScreenState.PAID, ScreenState.CLOSED})

Visit = Callable[["Counter"], Awaitable[None]]


class Counter:
    """A lane with its terminals, and who stands there."""

    def __init__(
        self,
        lane: FleetLane,
        terminals: dict[str, SimulatedTerminal],
        agents: list[FleetAgent],
        rng: random.Random,
        articles: tuple[Article, ...],
        plan: str,
        think_s: float,
        cash_only: bool = False,
        vouchers: tuple[str, ...] = (),
    ) -> None:
        self.lane = lane
        self.agents = agents
        self.rng = rng
        self.think_s = think_s
        self.lock = asyncio.Lock()
        """Held by the customer who is served, and by chaos that needs the lane for itself."""
        self.visits = 0
        self.members = 0
        self.last_screen_rev = 0
        self._articles = articles
        self._plan = plan
        self._cash_only = cash_only
        self.vouchers = vouchers
        self._faces = [one for name, one in terminals.items() if name != "till"]
        self.till = terminals.get("till")
        for one in terminals.values():
            one.screen_timeout_s = one.reply_timeout_s = PATIENCE_S

    @property
    def owner(self) -> SimulatedTerminal:
        """The terminal that starts a visit: the till where it owns the basket, else one of the customers'."""
        if self.lane.pos and self.till is not None:
            return self.till
        return self.rng.choice(self._faces)

    @property
    def online(self) -> bool:
        """Every terminal of the lane is connected."""
        return all(agent.online for agent in self.agents)

    def article(self) -> Article:
        """Something at random."""
        return self.rng.choice(self._articles)

    def user(self) -> str:
        """A customer of the provider, one of a few dozen for each lane."""
        return f"fleet-{self.lane.store}-{self.rng.randrange(40)}"

    async def think(self) -> None:
        """The pause between two actions."""
        if self.think_s:
            await asyncio.sleep(min(self.think_s * 4, self.rng.expovariate(1 / self.think_s)))

    # ------------------------------------------------------------ a visit

    async def serve(self) -> bool:
        """One customer, of a kind at random. False when it did not end as the customer wanted; nothing raises."""
        kinds = TILL_VISITS if self.lane.pos and self.till is not None else VISITS
        if self._cash_only:
            kinds = tuple(one for one in kinds if one[1] in CASH_VISITS)
        visit = self.rng.choices([one[1] for one in kinds], [one[0] for one in kinds])[0]
        self.visits += 1
        try:
            await visit(self)
        except (StoreOpsError, TimeoutError, KeyError):
            await self._leave()
            return False
        return True

    async def _leave(self) -> None:
        """The customer goes; what is open on the lane is cancelled, so that the next one finds it free."""
        agent = self.agents[0]
        screen = agent.screen
        if screen is None or screen.state in _OVER:
            return
        try:
            await agent.request("cancel", {}, session=screen.session, timeout_s=5.0)
        except (StoreOpsError, TimeoutError):
            return

    async def fill(self, at: SimulatedTerminal, more: int = 0) -> Screen:
        """Step up and have one to three things scanned, and `more`."""
        await at.open_session()
        screen = at.screen
        for _ in range(self.rng.choice((1, 1, 2, 2, 3)) + more):
            await self.think()
            screen = await at.scan(self.article().code, self.rng.choice((1, 1, 1, 2)))
        await self.think()
        return screen

    async def basket(self, at: SimulatedTerminal, more: int = 0) -> Screen:
        """The till sends its basket, once or growing, of one to three things and `more`."""
        chosen = [self.article() for _ in range(self.rng.choice((1, 2, 3)) + more)]
        lines = [till_line(n, one.code, one.name, one.unit_fen) for n, one in enumerate(chosen, 1)]
        txn = str(uuid_utils.uuid7())
        screen = await at.basket(lines[:1], till_txn=txn)
        if len(lines) > 1:
            await self.think()
            screen = await at.basket(lines, till_txn=txn)
        await self.think()
        return screen

    async def enter_voucher(self, at: SimulatedTerminal) -> None:
        """Show a voucher's code, where there are any."""
        if self.vouchers:
            await at.voucher(self.rng.choice(self.vouchers))
            await self.think()

    async def become_member(self, at: SimulatedTerminal) -> None:
        """Enrol by the provider's authorisation, without a face; the membership's coupon counts at once."""
        self.members += 1
        digits = int.from_bytes(uuid_utils.uuid4().bytes[:4]) % 10**9
        await at.consent("membership")
        await at.enrol(self._plan, phone=f"13{digits:09d}", user=f"m-{uuid_utils.uuid4()}", timeout_s=PATIENCE_S)
        self.agents[0].witness.evidence.members += 1


async def _cash(counter: Counter) -> None:
    at = counter.owner
    screen = await counter.fill(at)
    await at.pay_cash(screen.cash_due_fen + counter.rng.choice((0, 0, 500)))


async def _voucher(counter: Counter) -> None:
    """A code from the phone, and more in the basket for it. Below its threshold it takes nothing off."""
    at = counter.owner
    await counter.fill(at, VOUCHER_PIECES)
    await counter.enter_voucher(at)
    await at.pay_cash()


async def _code(counter: Counter) -> None:
    at = counter.owner
    await counter.fill(at)
    await at.pay_code(counter.user())


async def _qr(counter: Counter) -> None:
    at = counter.owner
    await counter.fill(at)
    await at.pay_qr(counter.user())


async def _token(counter: Counter) -> None:
    at = counter.owner
    await counter.fill(at)
    await at.pay_face(counter.user())


async def _goes_away(counter: Counter) -> None:
    at = counter.owner
    await counter.fill(at)
    await at.cancel()


async def _void(counter: Counter) -> None:
    at = counter.owner
    await counter.fill(at)
    screen = await at.pay_cash()
    if screen.receipt is not None:
        await counter.think()
        await at.void(screen.receipt.no)


async def _member(counter: Counter) -> None:
    at = counter.owner
    await at.open_session()
    await counter.become_member(at)
    await counter.think()
    await at.scan(counter.article().code)
    await at.pay_cash()


async def _complaint(counter: Counter) -> None:
    await counter.owner.complain(counter.rng.choice(("price", "other")))


async def _digits_unasked(counter: Counter) -> None:
    """Somebody types digits that nobody asked for: refused, and the visit goes on."""
    at = counter.owner
    await counter.fill(at)
    await at.agent.request("digits", {"tail": "1234"}, session=at.session, timeout_s=PATIENCE_S)
    await at.pay_cash()


async def _till_collects(counter: Counter) -> None:
    at = counter.owner
    await counter.basket(at)
    screen = await at.confirm(collect="till")
    if screen.state is not ScreenState.PAYING:
        screen = await at.agent.wait_screen(lambda s: s.session == at.session and "paid" in s.actions, PATIENCE_S)
    await counter.think()
    kind = counter.rng.choice(("cash", "cash", "card"))
    fen = screen.cash_due_fen if kind == "cash" else screen.due_fen
    await at.paid([{"kind": kind, "fen": fen}])


async def _till_cash(counter: Counter) -> None:
    at = counter.owner
    await counter.basket(at)
    await at.pay_cash()


async def _till_voucher(counter: Counter) -> None:
    at = counter.owner
    await counter.basket(at, VOUCHER_PIECES)
    await counter.enter_voucher(at)
    await at.pay_cash()


async def _till_code(counter: Counter) -> None:
    at = counter.owner
    await counter.basket(at)
    await at.pay_code(counter.user())


async def _till_stops(counter: Counter) -> None:
    at = counter.owner
    await counter.basket(at)
    await at.cancel()


VISITS: tuple[tuple[int, Visit], ...] = (
    (40, _cash),
    (6, _voucher),
    (14, _code),
    (8, _qr),
    (6, _token),
    (8, _goes_away),
    (4, _void),
    (2, _member),
    (4, _complaint),
    (3, _digits_unasked),
)
"""Shares of the visits where the shop scans. Invented, of a plausible form."""
TILL_VISITS: tuple[tuple[int, Visit], ...] = (
    (50, _till_collects),
    (20, _till_cash),
    (5, _till_voucher),
    (10, _till_code),
    (8, _till_stops),
)
"""Shares where the till owns the basket."""
CASH_VISITS = frozenset({_cash, _goes_away, _till_collects, _till_cash, _till_stops})
"""Those that need no provider."""
EVENTS_PER_VISIT = 4.2
"""What a visit sends on the average; the dispatcher corrects what is wrong with it."""
