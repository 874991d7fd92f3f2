"""The demonstration's script: who comes, what they buy, how they pay, and what must be true at the end.

Every customer is played by a simulated terminal over real MQTT; faces are photographs, money is the provider
simulator's. Nothing here reaches into the house.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from devices.agent_config import AgentConfig
from devices.simulator import ProviderUsers, SimulatedTerminal, till_line
from models.domain.errors import Refused, StoreOpsError
from models.domain.ids import RegionId
from models.domain.screen import Screen, ScreenState
from runtime.chains import ChainDoc, DemoTerminal
from runtime.photos import Person, Photographs

PLAN = "light-10"
FULL_MEAL_FEN = 1590
RESEND_FIRST_S = 1.0
"""Terminals of the demonstration repeat sooner than the protocol's 5 s: nobody waits for a story."""


@dataclass(slots=True)
class Tally:
    """What the story saw with its own eyes."""

    asked: int = 0
    right: int = 0
    wrong: int = 0
    refused: int = 0
    strangers_asked: int = 0
    strangers_accepted: int = 0
    cash_sales: int = 0
    qr_sales: int = 0
    refusers: int = 0
    reversals: int = 0
    members: dict[str, str] = field(default_factory=dict)
    """Person -> masked name that the screen greeted them with."""


@dataclass(frozen=True, slots=True)
class Cast:
    """A person with a phone and an account at the provider."""

    person: Person
    phone: str
    user: str

    @property
    def tail(self) -> str:
        """The last four digits, as the screen shows them."""
        return self.phone[-4:]


def cast_of(people: tuple[Person, ...], first: int) -> list[Cast]:
    """Phones and provider users for people, stable from run to run."""
    return [Cast(person, f"139{first + n:08d}", f"user-{person.name}") for n, person in enumerate(people)]


class Shop:
    """All terminals of the demonstration, connected; visits are played one after another."""

    def __init__(
        self,
        chain: ChainDoc,
        terminals: list[DemoTerminal],
        *,
        region: str,
        broker_host: str,
        broker_port: int,
        provider_url: str,
        folder: Path,
    ) -> None:
        self._http = httpx.AsyncClient(timeout=10.0, trust_env=False)
        provider = ProviderUsers(self._http, provider_url)
        self.chain = chain
        self.terminals = {
            one.terminal: SimulatedTerminal.of(
                AgentConfig(
                    host=broker_host,
                    port=broker_port,
                    region=RegionId(region),
                    store=one.store,
                    terminal=one.terminal,
                    profile=one.profile,
                    secret=one.secret,
                    outbox_path=folder / f"{one.terminal}.sqlite",
                    resend_first_s=RESEND_FIRST_S,
                    reconnect_s_min=0.2,
                    reconnect_s_max=2.0,
                ),
                provider,
            )
            for one in terminals
        }
        self.owners = {store.id: store.basket_owner for store in chain.stores}

    async def start(self) -> None:
        """Connect every terminal; they stay connected until `stop`."""
        await asyncio.gather(*(one.agent.start(30.0) for one in self.terminals.values()))

    async def stop(self) -> None:
        """Disconnect in order."""
        await asyncio.gather(*(one.agent.stop() for one in self.terminals.values()), return_exceptions=True)
        await self._http.aclose()

    def face(self, store: str, lane: int = 1) -> SimulatedTerminal:
        """The face terminal of a lane."""
        return self.terminals[f"{store}-f{lane}"]  # type: ignore[index]

    def till(self, store: str) -> SimulatedTerminal:
        """The till of lane 1."""
        return self.terminals[f"{store}-t1"]  # type: ignore[index]

    def item(self, price_fen_min: int) -> tuple[str, str, int]:
        """An article that costs at least so much and may be discounted: code, name, price."""
        for item in self.chain.items:
            if item.unit_fen >= price_fen_min and not item.flags:
                return item.code, item.name.zh, item.unit_fen
        raise LookupError(price_fen_min)


class Story:
    """The script. `say` tells the audience what happens."""

    def __init__(self, shop: Shop, photographs: Photographs, say: Callable[[str], None]) -> None:
        self.shop = shop
        self.say = say
        self.tally = Tally()
        self.members = cast_of(photographs.members[:4], 10_001)
        self.stranger, self.refuser = cast_of((photographs.strangers[0], photographs.strangers[-1]), 20_001)
        stores = [store.id for store in shop.chain.stores]
        self.ours = [store for store in stores if shop.owners[store] == "storeops"]
        self.theirs = [store for store in stores if shop.owners[store] == "pos"]

    async def play(self) -> Tally:
        """The whole story, one customer at a time."""
        five, one, none, two = self.members
        dropped = self.shop.face(self.ours[-1])
        self.say(f"{dropped.agent.config.terminal}: the cable is pulled")
        dropped.agent.drop()

        await self._enrol_and_buy(five, self.shop.face(self.ours[0]))
        await self._enrol_and_buy(one, self.shop.face(self.ours[1]))
        await self._buy_then_enrol(none, self.shop.face(self.ours[2]))
        await self._enrol_and_buy(two, self.shop.face(self.ours[3], 2))

        await self._refuser(self.shop.face(self.ours[4]))
        await self._stranger(self.shop.face(self.ours[5]))

        for n in range(4):
            await self._return_visit(five, self.shop.face(self.ours[6 + n % 3]), n)
        await self._bought_and_undone(one, self.shop.face(self.ours[1], 2))
        await self._at_a_till(two, self.theirs[0])
        await self._only_looking(none, self.shop.face(self.ours[2]))

        self.say(f"{dropped.agent.config.terminal}: the cable is back")
        dropped.agent.restore()
        return self.tally

    # ------------------------------------------------------------ visits

    async def _enrol_and_buy(self, who: Cast, at: SimulatedTerminal) -> None:
        """The articles' moment: a basket, an offer, three looks into the camera, and the price falls at once."""
        await at.open_session()
        code, name, price = self.shop.item(FULL_MEAL_FEN)
        before = await at.scan(code)
        await at.consent("recognise")
        await at.consent("membership")
        screen = await self._enrol(who, at)
        self.say(f"{who.person.name} enrols: {name} {before.due_fen / 100:.2f} -> {screen.due_fen / 100:.2f}")
        assert screen.due_fen == price - 800, "enrolment recomputes the price at once"
        await self._pay_by_face(who, at)

    async def _enrol(self, who: Cast, at: SimulatedTerminal) -> Screen:
        shots = [path.read_bytes() for path in who.person.shots]
        screen = await at.enrol(PLAN, phone=who.phone, user=who.user, shots=shots)
        if screen.member is None or screen.membership is None:
            raise StoreOpsError("story_enrol", f"{who.person.name} was not enrolled: {screen.prompt}")
        self.tally.members[who.person.name] = screen.member.name
        return screen

    async def _buy_then_enrol(self, who: Cast, at: SimulatedTerminal) -> None:
        """Enrolment on the result page: it counts from the next visit."""
        await at.open_session()
        await at.scan(self.shop.item(400)[0])
        await at.pay_cash(5000)
        self.tally.cash_sales += 1
        await at.consent("recognise")
        await at.consent("membership")
        await self._enrol(who, at)
        self.say(f"{who.person.name} pays cash and enrols on the result page")

    async def _refuser(self, at: SimulatedTerminal) -> None:
        """The face is refused: same price, no more taps, paid by QR."""
        await at.open_session()
        await at.consent("recognise", granted=False)
        await at.scan(self.shop.item(900)[0])
        await at.pay_qr(self.refuser.user)
        self.tally.refusers += 1
        self.tally.qr_sales += 1
        self.say(f"{self.refuser.person.name} refuses the face and pays by QR")

    async def _stranger(self, at: SimulatedTerminal) -> None:
        """Somebody whom no gallery holds: never accepted."""
        for probe in self.stranger.person.probes[:2]:
            await at.open_session()
            await at.consent("recognise")
            screen = await at.show(probe.read_bytes())
            self.tally.strangers_asked += 1
            self.tally.strangers_accepted += screen.member is not None
            if screen.state is ScreenState.DIGITS:
                await at.cancel()
        await at.scan(self.shop.item(300)[0])
        await at.pay_cash()
        self.tally.cash_sales += 1
        self.say(f"{self.stranger.person.name} is nobody we know, and pays cash")

    async def _recognise(self, who: Cast, at: SimulatedTerminal, n: int) -> Screen:
        await at.consent("recognise")
        probes = who.person.probes
        screen = await at.show(probes[n % len(probes)].read_bytes(), turned=who.person.turns)
        self.tally.asked += 1
        if screen.member is not None:
            right = screen.member.name == self.tally.members.get(who.person.name)
            self.tally.right += right
            self.tally.wrong += not right
            return screen
        self.tally.refused += 1
        if screen.state is ScreenState.DIGITS:
            screen = await at.digits(who.tail)
        if screen.member is None:
            raise StoreOpsError("story_face", f"{who.person.name} was not recognised: {screen.prompt}")
        return screen

    async def _return_visit(self, who: Cast, at: SimulatedTerminal, n: int) -> None:
        await at.open_session()
        await self._recognise(who, at, n)
        screen = await at.scan(self.shop.item(FULL_MEAL_FEN)[0])
        self.say(f"{who.person.name} is recognised: due {screen.due_fen / 100:.2f}")
        await self._pay_by_face(who, at)

    async def _bought_and_undone(self, who: Cast, at: SimulatedTerminal) -> None:
        """A sale with a benefit, voided in the same shift: the money and the coupon come back."""
        await at.open_session()
        await self._recognise(who, at, 0)
        await at.scan(self.shop.item(FULL_MEAL_FEN)[0])
        screen = await self._pay_by_face(who, at)
        assert screen.receipt is not None
        reply = await at.void(screen.receipt.no)
        if not reply.ok:
            raise Refused("story_void", str(reply.error))
        await at.agent.wait_screen(lambda s: s.prompt is not None and s.prompt.code == "voided", 15.0)
        self.tally.reversals += 1
        self.say(f"{who.person.name}'s second sale is undone: the coupon is back")

    async def _at_a_till(self, who: Cast, store: str) -> None:
        """The till owns the basket and the drawer; the face terminal beside it brings the member."""
        face, till = self.shop.face(store), self.shop.till(store)
        opened = await till.open_session(f"txn-{random.getrandbits(48):012x}")
        face.session = opened.session
        await face.agent.wait_screen(lambda s: s.session == opened.session, 10.0)
        await self._recognise(who, face, 1)
        code, name, price = self.shop.item(FULL_MEAL_FEN)
        screen = await till.basket([till_line(1, code, name, price)])
        await till.confirm(collect="till")
        due = screen.cash_due_fen
        await till.agent.wait_screen(lambda s: s.prompt is not None and s.prompt.code == "collect_at_till", 10.0)
        await till.paid([{"kind": "cash", "fen": due}])
        self.tally.cash_sales += 1
        self.say(f"{who.person.name} pays {due / 100:.2f} at the till of {store}")

    async def _only_looking(self, who: Cast, at: SimulatedTerminal) -> None:
        await at.open_session()
        await self._recognise(who, at, 0)
        await at.cancel()
        self.say(f"{who.person.name} looks around and leaves")

    async def _pay_by_face(self, who: Cast, at: SimulatedTerminal) -> Screen:
        screen = await at.pay_face(who.user)
        if screen.state is not ScreenState.PAID:
            raise StoreOpsError("story_pay", f"{who.person.name} could not pay: {screen.prompt}")
        return screen
