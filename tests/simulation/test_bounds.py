"""A full queue refuses loudly, says when to come back, and is counted; the other lanes go on."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import msgspec
import pytest

from actors.hosts import Delivered, Delivery
from models.domain.errors import RetryLater
from models.domain.events import Cancel, EventBody, OfflineSale, Paid, Return, Scan, Void
from models.domain.ids import LaneId, StoreId, TerminalId
from models.domain.messages import Address
from models.domain.plans import Plan
from models.domain.screen import ReplyBody
from models.tables.journal import Commit, OutboxEntry
from runtime.deliveries import LANE_MESSAGES_MAX
from runtime.floods import EVENTS_BURST_MAX, EVENTS_PER_S, MONEY_EVENTS_BURST_MAX, MONEY_EVENTS_PER_S, Pace, Verdict
from runtime.pending import Pending
from runtime.states import LOOKED_EVERY_S
from runtime.testing.provider import ProviderFaults
from runtime.testing.shop import FOUL, REGION, ShopSimulation, Weather
from runtime.testing.terminal import SimulatedDevice
from tests.simulation.shops import go_shopping


def opening(device: SimulatedDevice, seq: int, boot: str) -> Delivery:
    body = {"v": 1, "id": str(uuid.UUID(int=seq)), "boot": boot, "seq": seq, "ts": "2026-05-01T02:00:00Z"}
    body |= {"mono_ms": 1, "type": "session.open", "session": None, "clerk": None, "replay": False, "body": {}}
    return Delivery(device.record.terminal, "event", msgspec.json.encode(body))


def test_one_lane_cannot_fill_the_host(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        loud, quiet, boot = shop.ours.face, shop.second.face, str(uuid.UUID(int=7))
        calls = [shop.host.deliver([opening(loud, n, boot)]) for n in range(1, LANE_MESSAGES_MAX + 11)]
        answers = await asyncio.gather(*calls, shop.host.deliver([opening(quiet, 1, boot)]), return_exceptions=True)
        refused = [one for one in answers if isinstance(one, RetryLater)]
        assert {(one.code, one.after_s) for one in refused} == {("host_full", 5.0)}
        assert (len(refused), shop.host.counts.refused_full) == (10, 10)
        served = answers[-1]
        assert isinstance(served, list)
        assert isinstance(served[0], Delivered)
        assert b'"ok":true' in served[0].reply
        again = await shop.host.deliver([opening(loud, LANE_MESSAGES_MAX + 1, boot)])
        assert b'"ok":true' in again[0].reply, "there is room now"

    ShopSimulation(5, plan).run(script)


# ---------------------------------------------------------------- how fast a terminal may speak

MEANWHILE_S = 1.0
"""Virtual: a payment takes six of them."""
FAST = TerminalId("fast")
SCAN = Scan("tea", 1)
SALE = OfflineSale((), (), 0)


def verdicts(pace: Pace, body: EventBody, events: int, begin_s: float, per_s: float) -> Counter[Verdict]:
    return Counter(pace.judge(FAST, body, begin_s + n / per_s) for n in range(events))


def test_a_burst_passes_and_then_the_rate() -> None:
    pace = Pace()
    assert verdicts(pace, SCAN, EVENTS_BURST_MAX, 0.0, 1e9) == {Verdict.GO: EVENTS_BURST_MAX}
    later = verdicts(pace, SCAN, 10_000, 0.0, 1_000.0)
    assert later[Verdict.GO] == pytest.approx(10 * EVENTS_PER_S, abs=1)
    assert later[Verdict.TELL] == 10, "once a second"
    assert pace.judge(TerminalId("other"), SCAN, 10.0) is Verdict.GO
    stored = Counter(pace.judge(FAST, SCAN, 20.0, replay=True) for _ in range(1_000))
    assert stored == {Verdict.GO: EVENTS_BURST_MAX, Verdict.LEAVE: 800}, "what was stored offline is not refused"


@pytest.mark.parametrize("body", [Paid("txn", 1, ()), SALE, Cancel(), Void("r"), Return("r", (), "broken")])
def test_money_is_held_against_the_second_bound_only(body: EventBody) -> None:
    pace = Pace()
    verdicts(pace, SCAN, 10_000, 0.0, 1e9)
    assert verdicts(pace, body, MONEY_EVENTS_BURST_MAX, 0.0, 1e9) == {Verdict.GO: MONEY_EVENTS_BURST_MAX}
    beyond = verdicts(pace, body, 10_000, 2.0, 1e9)
    assert beyond[Verdict.GO] == pytest.approx(2 * MONEY_EVENTS_PER_S, abs=1)
    taken = isinstance(body, Paid | OfflineSale)
    assert beyond[Verdict.TELL] == (0 if taken else 1), "what was paid is not refused, it waits for its repeat"


def test_a_terminal_that_floods_is_told_once_a_second_and_every_event_gets_its_reply(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        loud, shop.auditor.floods = shop.ours.face, True
        session = (await loud.send("session.open", {}, None)).session
        began = asyncio.get_running_loop().time()
        sent: list[asyncio.Task[ReplyBody]] = []
        for n in range(900):
            body = {"about": "price"}
            sent.append(asyncio.create_task(loud.send("complaint", body, session, clerk=str(n))))
            await asyncio.sleep(0.003)
        quiet = await shop.second.face.send("session.open", {}, None)
        assert quiet.ok, "another terminal is not held back"
        cancelled = await loud.send("cancel", {}, session)
        assert cancelled.ok, "what ends a visit is not refused for speed"
        replies = await asyncio.gather(*sent)
        lasted_s = asyncio.get_running_loop().time() - began
        codes = Counter("ok" if one.error is None else one.error.code for one in replies)
        assert 2 <= codes["too_fast"] <= lasted_s + 1
        assert sum(codes.values()) == len(sent)
        assert shop.host.counts.too_fast > 100

    ShopSimulation(9, plan).run(script)


# ---------------------------------------------------------------- entities in memory


def test_a_full_host_forgets_who_is_idle_and_refuses_when_nobody_is(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        first, second, till = shop.ours.face, shop.second.face, shop.tills.face
        assert (await second.send("session.open", {}, None)).ok
        opened = await first.send("session.open", {}, None)
        assert (opened.ok, len_of(shop)) == (True, 6), "four terminals and two lanes"
        refused = await till.send("session.open", {}, None)
        assert refused.error is not None
        assert (refused.error.code, refused.error.do) == ("host_full", "5 秒后重试")
        assert (await first.send("scan", {"code": "tea", "quantity": 1}, opened.session)).ok, "who is in stays in"
        assert shop.host.counts.refused_entities == 1
        assert (await first.send("cancel", {}, opened.session)).ok
        await asyncio.sleep(LOOKED_EVERY_S * 2)
        assert (await till.send("session.open", {}, None)).ok, "the lane that was left made room"
        assert len_of(shop) <= 6
        assert shop.host.counts.passivated >= 1
        await asyncio.sleep(LOOKED_EVERY_S * 2)
        back = await first.send("session.open", {}, None)
        assert not back.ok

    ShopSimulation(6, plan, entities_max=6).run(script)


def len_of(shop: ShopSimulation) -> int:
    entities = shop.host.health()["entities"]
    assert isinstance(entities, int)
    return entities


# ---------------------------------------------------------------- open asks of a store


def test_a_store_with_a_full_outbox_asks_nothing_more_until_one_is_answered(plan: Plan) -> None:
    async def confirm(at: SimulatedDevice, session: str | None, code: str) -> ReplyBody:
        tender = {"kind": "code", "fen": 1200, "auth": {"provider": "alipay", "token": code}}
        return await at.send("confirm", {"rev": 2, "tenders": [tender]}, session)

    async def script(shop: ShopSimulation) -> None:
        first, second = shop.ours.face, shop.second.face
        visits = [(await one.send("session.open", {}, None)).session for one in (first, second)]
        for one, session in zip((first, second), visits, strict=True):
            assert (await one.send("scan", {"code": "tea", "quantity": 1}, session)).ok
        paying = asyncio.create_task(confirm(first, visits[0], "ok:a"))
        await asyncio.sleep(MEANWHILE_S)
        assert shop.host.health()["outbox"] == 1
        refused = await confirm(second, visits[1], "ok:b")
        assert refused.error is not None
        assert (refused.error.code, refused.error.do) == ("busy", "10 秒后重试")
        assert shop.host.counts.refused_outbox == 1
        assert second.screen is not None
        assert second.screen.state.value == "quoted", "nothing happened"
        assert (await paying).ok, "the reply of what was committed is not lost"
        await shop.ours.wait(lambda screen: screen.state.value == "paid")
        assert shop.host.health()["outbox"] == 0
        assert (await confirm(second, visits[1], "ok:c")).ok

    slow = Weather(provider=ProviderFaults(slow_s=(6.0, 6.0)))
    shop = ShopSimulation(7, plan, weather=slow, outbox_rows_a_store_max=1).run(script)
    assert [sale.due_fen for sale in shop.database.sales.values()] == [1200, 1200]


@pytest.mark.parametrize("seed", [1, 4])
def test_foul_weather_in_a_shop_with_hardly_any_room(plan: Plan, seed: int) -> None:
    """Deaths, outages and both refusals at once: the auditor finds every reply, sale and payment where it should be."""
    shop = ShopSimulation(seed, plan, weather=FOUL, entities_max=6, outbox_rows_a_store_max=1).run(go_shopping)
    replies = [reply for one in (shop.ours, shop.second, shop.tills) for reply in one.face.replies.values()]
    codes = Counter(reply.error.code for reply in replies if reply.error is not None)
    assert codes["busy"] > 0
    assert codes["host_full"] > 0
    assert len(shop.kills) > 3
    assert len(shop.database.sales) > 8


def test_open_asks_are_counted_by_store_and_once() -> None:
    def entry(ident: str, store: str) -> OutboxEntry:
        return OutboxEntry(ident, Address.session(REGION, StoreId(store), LaneId("l")), "payments", "P", b"{}")

    pending = Pending(rows_a_store_max=2)
    pending.begin([("a", StoreId("s1"))])
    pending.committed(Commit(outbox=[entry("a", "s1"), entry("b", "s2")]))
    assert (len(pending), pending.full(StoreId("s1"), 0), pending.full(StoreId("s1"), 1)) == (2, False, True)
    pending.committed(Commit(answered=[("a", b""), ("a", b""), ("unknown", b"")]))
    assert (len(pending), pending.full(StoreId("s1"), 1)) == (1, False)
