"""A small crew against the real session machine over a real broker: what it saw is what was booked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from devices.fleet.checks import BookedSale, Books, violations
from devices.fleet.crew import Crew
from devices.fleet.evidence import CrewEvidence
from devices.fleet.orders import Article, Chaos, CrewOrder, Day, FleetLane, FleetTerminal
from gateway.providers.alipay import AlipayProvider
from gateway.providers.alipay_gateway import AlipayGateway
from gateway.providers.simulator import SimulatorAdmin, create_simulator_app
from runtime.broker import EmbeddedBroker
from tests.actors.lane import with_vouchers
from tests.devices.lane_host import LaneHost
from tests.devices.support import agent_config, fresh
from tests.gateway.providers.conftest import open_account, serve_in_thread

DAYS_S = (1.5, 5.0, 15.0)
"""A machine that stalls sells too little in the first: it gets a longer one."""
ARTICLES = (Article("tea", "Tea", 1200), Article("roll", "Rice roll", 653))


@pytest.fixture(scope="module")
def provider_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, thread, url = serve_in_thread(create_simulator_app(tmp_path_factory.mktemp("provider")))
    yield url
    server.should_exit = True
    thread.join(30)


async def played(broker: EmbeddedBroker, provider_url: str, day: Day, *chaos: Chaos) -> tuple[CrewEvidence, Books, int]:
    """One lane of two face terminals through a day; what they saw, what the machine booked, visits that failed."""
    first = fresh()
    second = replace(first, terminal=type(first.terminal)(f"{first.terminal}-b"))
    async with SimulatorAdmin(provider_url) as admin:
        account = await open_account(admin, provider_url)
    merchant = AlipayProvider(AlipayGateway(account))
    configs = [agent_config(broker, one) for one in (first, second)]
    lane = FleetLane(
        first.store,
        False,
        0.0,
        24.0,
        tuple(FleetTerminal(c.terminal, "face", c.profile, c.secret or "") for c in configs),
    )
    order = CrewOrder(
        crew=0,
        seed=5,
        region=first.region,
        broker_host=broker.info.host,
        broker_port=broker.info.port,
        provider_url=provider_url,
        plan="light-10",
        articles=ARTICLES,
        vouchers=("V-1", "N"),
        lanes=(lane,),
        chaos=chaos,
        connect_s=0.1,
        resend_first_s=0.5,
        reconnect_s_min=0.02,
        reconnect_s_max=0.1,
        think_s=0.0,
    )
    async with LaneHost(broker, [first, second], merchant) as host:
        host.lane.book = with_vouchers(host.lane.book)
        crew = Crew(order)
        await crew.connect()
        await crew.day(day)
        await crew.quiet(10.0)
        evidence = crew.report()
        await crew.stop()
        books = Books(tuple(_booked(host)))
    await merchant.aclose()
    return evidence, books, crew.failed


def _booked(host: LaneHost) -> Iterator[BookedSale]:
    for sale in host.lane.sales:
        tenders: dict[str, int] = {}
        for tender in sale.tenders:
            tenders[tender.kind] = tenders.get(tender.kind, 0) + tender.fen
        voucher_fen = sum(one.fen for one in sale.vouchers)
        voided = any(getattr(fact, "sale", None) == sale.id for fact in host.lane.facts)
        yield BookedSale(
            sale.id,
            sale.session,
            sale.till_txn,
            sale.store,
            sale.receipt,
            sale.due_fen,
            tenders,
            voided,
            postings=1,
            cash_fen=tenders.get("cash", 0),
            voucher_fen=voucher_fen,
            voucher_booked_fen=voucher_fen,
            voucher_used_fen=voucher_fen,
        )


async def test_a_calm_day(shared_broker: EmbeddedBroker, provider_url: str) -> None:
    for day_s in DAYS_S:
        evidence, books, failed = await played(shared_broker, provider_url, Day(day_s, 60.0, flat=True))
        evidence.undesired.clear()  # this small host sends none
        assert violations([evidence], books) == []
        assert failed <= 2, "this small host gives no second membership"
        assert len(evidence.sales) == len(books.sales)
        assert evidence.events == evidence.replies
        if len(books.sales) >= 4 and min(evidence.events, len(evidence.screen_ms)) >= 20:
            return
    pytest.fail(f"{len(books.sales)} sales, {evidence.events} events, {len(evidence.screen_ms)} screens in a long day")


async def test_a_day_of_sends_twice_and_late(shared_broker: EmbeddedBroker, provider_url: str) -> None:
    """Duplicates and pulled cables change nothing in the books."""
    for day_s in (2.5, *DAYS_S[1:]):
        day = Day(day_s, 60.0, flat=True)
        evidence, books, _ = await played(shared_broker, provider_url, day, Chaos.DUPLICATES, Chaos.TAKEOVER)
        evidence.undesired.clear()
        assert violations([evidence], books) == []
        if len(evidence.sales) >= 2:
            return
    pytest.fail("hardly a sale in a long day")
