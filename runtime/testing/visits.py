"""What people do at a counter, as coroutines: one script that has everything once, and visits at random."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from models.domain.screen import Screen
from runtime.testing.provider import MemoryProvider
from runtime.testing.terminal import Counter

CODES = ("tea", "roll", "gum", "smokes", "beer")


class Wallet:
    """A customer's means to pay, and what the customer does on the phone meanwhile."""

    def __init__(self, provider: MemoryProvider, rng: random.Random) -> None:
        self._provider = provider
        self._rng = rng

    def cash(self, screen: Screen) -> list[dict[str, Any]]:
        """All of it in cash."""
        if screen.due_fen == 0:
            return []
        handed = screen.cash_due_fen + self._rng.choice([0, 0, 50, 1000])
        return [{"kind": "cash", "fen": screen.cash_due_fen, "tendered_fen": handed}]

    def face(self, screen: Screen) -> list[dict[str, Any]]:
        """By the provider's face payment."""
        return self._by("face", screen, "ok")

    def code(self, screen: Screen) -> list[dict[str, Any]]:
        """By the code on the phone; some phones ask first, some are poor."""
        return self._by("code", screen, self._rng.choice(["ok", "ok", "slow", "poor"]))

    def qr(self, screen: Screen) -> list[dict[str, Any]]:
        """By a collection code."""
        return [{"kind": "qr", "fen": screen.due_fen}] if screen.due_fen else []

    def split(self, screen: Screen) -> list[dict[str, Any]]:
        """A part in cash."""
        if screen.due_fen < 200:
            return self.cash(screen)
        part = 100 * self._rng.randrange(1, screen.due_fen // 100)
        return [{"kind": "cash", "fen": part}, *self._by("face", screen, "ok", screen.due_fen - part)]

    def _by(self, kind: str, screen: Screen, token: str, fen: int | None = None) -> list[dict[str, Any]]:
        if screen.due_fen == 0:
            return []
        auth = {"provider": "alipay", "token": f"{token}:{self._rng.getrandbits(48):x}"}
        return [{"kind": kind, "fen": screen.due_fen if fen is None else fen, "auth": auth}]

    def nothing(self, screen: Screen) -> None:
        """Wait."""

    def phone(self, screen: Screen) -> None:
        """Scan the collection code and pay it, or confirm what the phone asks."""
        prompt = screen.prompt
        if prompt is not None and prompt.code == "scan_qr":
            order = self._provider.by_code(str(prompt.params.get("code_url", "")))
            if order is not None:
                self._provider.confirm(order.number)
        else:
            for order in list(self._provider.orders.values()):
                if order.payer.startswith("slow") or order.fen == screen.due_fen:
                    self._provider.confirm(order.number)


async def story(ours: Counter, tills: Counter, wallet: Wallet) -> None:
    """Everything once: enrol, buy with a benefit by face, cash, the till's own basket, a collection code, a void."""
    await asyncio.gather(_our_story(ours, wallet), _till_story(tills))


async def _our_story(counter: Counter, wallet: Wallet) -> None:
    await counter.open()
    await counter.enrol("ann")
    await counter.scan("tea")
    first = await counter.pay(wallet.face, wallet.phone)
    receipt = counter.screen.receipt.no if first and counter.screen is not None and counter.screen.receipt else ""
    await counter.open()
    await counter.consent("recognise")
    await counter.look("ann")
    await counter.scan("tea", "roll")
    await counter.pay(wallet.cash, wallet.nothing)
    await counter.open()
    await counter.scan("roll", "smokes")
    await counter.pay(wallet.qr, wallet.phone)
    if receipt:
        await counter.do("void", {"receipt": receipt})


async def _till_story(counter: Counter) -> None:
    await till_sale(counter, "txn-1", [1200, 653], collect=True)


async def till_sale(
    counter: Counter, txn: str, prices: list[int], *, collect: bool, take_fen: int | None = None
) -> None:
    """A till sells by itself; with `collect` it has the benefits reserved first."""
    await counter.open(txn)
    await counter.basket(txn, 1, prices)
    await counter.wait(lambda s: s.session == counter.visit and s.state == "quoted", 30.0)
    screen = counter.screen
    rev, due = (screen.rev, screen.due_fen) if screen is not None else (1, sum(prices))
    if collect and screen is not None and counter.till is not None:
        reply = await counter.till.send("confirm", {"rev": rev, "tenders": [], "collect": "till"}, counter.visit)
        if reply.ok:
            await counter.wait(lambda s: s.state != "quoted", 20.0)
    await counter.paid(txn, rev, "card", due if take_fen is None else take_fen)


async def shopping(
    counter: Counter, wallet: Wallet, people: list[str], rng: random.Random, visits: int, names: Callable[[], str]
) -> None:
    """So many visits at random at one counter."""
    for _ in range(visits):
        try:
            async with asyncio.timeout(900):
                if counter.till is not None:
                    await _till_visit(counter, rng, names())
                else:
                    await _visit(counter, wallet, people, rng, names)
        except TimeoutError:
            continue
        await asyncio.sleep(rng.choice([0.0, 1.0, 40.0]))


async def _visit(
    counter: Counter, wallet: Wallet, people: list[str], rng: random.Random, names: Callable[[], str]
) -> None:
    await counter.open()
    who = rng.choice(people)
    course = rng.randrange(12)
    if course < 3:
        await counter.enrol(who, shots=rng.random() < 0.8)
    elif course < 7:
        await counter.consent("recognise")
        await counter.look(who, twin=rng.random() < 0.3)
    elif course == 7:
        await counter.consent("recognise", granted=False)
    elif course > 9:
        await counter.identify(who)
    if counter.screen is not None and counter.screen.member is not None and rng.random() < 0.4:
        await _go_offline(counter, rng, names)
        return
    await counter.scan(*(rng.choice(CODES) for _ in range(rng.randrange(1, 4))))
    if rng.random() < 0.1:
        await counter.do("cancel", {})
        return
    means = rng.choice([wallet.cash, wallet.face, wallet.code, wallet.qr, wallet.split])
    act = rng.choice([wallet.phone, wallet.phone, wallet.nothing])
    if rng.random() < 0.15:
        await asyncio.gather(counter.pay(means, act), _impatient(counter, rng))
    elif await counter.pay(means, act):
        receipt = counter.screen.receipt if counter.screen is not None else None
        if receipt is not None:
            counter.report.receipts.append(receipt.no)
    if rng.random() < 0.2 and counter.report.receipts:
        await counter.do("void", {"receipt": rng.choice(counter.report.receipts)})
    elif rng.random() < 0.3 and counter.report.receipts:
        await counter.bring_back(rng.choice(counter.report.receipts), rng.choice([1, 1, 2]))


async def _go_offline(counter: Counter, rng: random.Random, names: Callable[[], str]) -> None:
    """Uses are leased, one is given while offline, and perhaps one too many; what is left is given back."""
    uses = rng.choice([1, 2])
    lease = await counter.lease(uses)
    for _ in range(rng.choice([0, 1, uses, uses + 1])):
        await counter.sell_offline(names(), lease, rng.choice([0.0, 5.0, 600.0]))
    if lease is not None and rng.random() < 0.7:
        await counter.do("lease.end", {"lease": lease.id})


async def _impatient(counter: Counter, rng: random.Random) -> None:
    await asyncio.sleep(rng.uniform(0.0, 8.0))
    await counter.do("cancel", {})


async def _till_visit(counter: Counter, rng: random.Random, txn: str) -> None:
    course = rng.randrange(6)
    prices = [rng.choice([100, 653, 1200, 7]) for _ in range(rng.randrange(1, 4))]
    if course == 0:
        await counter.paid(txn, 1, "card", sum(prices))  # we never heard of it
    elif course == 1:
        await till_sale(counter, txn, prices, collect=False, take_fen=sum(prices))
    else:
        await till_sale(counter, txn, prices, collect=True)
    if rng.random() < 0.3:
        kind, fen = counter.report.paid_by_till[txn][0]
        assert counter.till is not None
        await counter.till.send("paid", {"till_txn": txn, "rev": 99, "tenders": [{"kind": kind, "fen": fen}]}, None)


async def offline_story(ours: Counter, second: Counter, wallet: Wallet) -> None:
    """What the other story has not: found by phone, leased, sold offline, beer, and goods brought back."""
    await ours.open()
    await ours.enrol("ann", shots=False)
    lease = await ours.lease(2)
    await ours.sell_offline("off-1", lease, 300.0)
    await second.open()
    await second.identify("ann")
    await second.scan("tea", "tea", "beer")
    paid = await second.pay(wallet.face, wallet.phone)
    receipt = second.screen.receipt if paid and second.screen is not None else None
    await ours.sell_offline("off-2", None, 60.0)
    if lease is not None:
        await ours.do("lease.end", {"lease": lease.id})
    if receipt is not None:
        await asyncio.gather(second.bring_back(receipt.no), ours.bring_back(receipt.no))
        await second.bring_back(receipt.no)


async def race(ours: Counter, second: Counter, wallet: Wallet, rng: random.Random) -> None:
    """Two lanes want the same at the same moment: the last coupon of one member, and the money of one receipt."""
    await ours.open()
    await ours.enrol("ann", shots=False)
    receipts: list[str] = []
    for n in range(4):
        rival = _hurry(second, wallet) if n % 2 else _lease_and_sell(second, f"off-{n}")
        await asyncio.gather(_hurry(ours, wallet), rival)
        shown = [counter.screen for counter in (ours, second)]
        receipts += [screen.receipt.no for screen in shown if screen is not None and screen.receipt is not None]
        for receipt in receipts[-2:]:
            await asyncio.gather(*(_undo(counter, receipt, rng) for counter in (ours, second)))


async def _hurry(counter: Counter, wallet: Wallet) -> None:
    await counter.open()
    await counter.identify("ann")
    await counter.scan("tea")
    await counter.pay(wallet.face, wallet.phone)


async def _lease_and_sell(counter: Counter, txn: str) -> None:
    await counter.open()
    await counter.identify("ann")
    lease = await counter.lease(1)
    if lease is not None:
        await asyncio.sleep(10.0)  # meanwhile the other lane wants the same coupon
        await counter.sell_offline(txn, lease, 5.0)
        await counter.do("lease.end", {"lease": lease.id})


async def _undo(counter: Counter, receipt: str, rng: random.Random) -> None:
    await asyncio.sleep(rng.choice([0.0, 0.0, 0.2, 1.0]))
    if rng.random() < 0.5:
        await counter.do("void", {"receipt": receipt})
    else:
        await counter.bring_back(receipt)
