"""Notifications at the gateway's door, over real tables: kept before they are answered, and a poll comes at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import httpx
import msgspec
import psycopg
import pytest

from actors.visit import Payment, Phase, Session
from gateway.app import create_app
from gateway.providers.signing import generate_private_key, notification_text, public_key_pem, sign
from gateway.routes.providers import BODY_BYTES_MAX
from gateway.settings import GatewaySettings
from models.domain.events import Tender, TenderKind
from models.domain.ids import LaneId, LegalEntityId, SaleId, SessionId, TerminalId
from models.tables.notices import KEPT, forget_notices
from runtime.plant import MerchantAccount, Plant
from runtime.provider_desk import ProvidersOfAHouse

KEY = generate_private_key()
NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
PATH = "/api/v1/providers/alipay/notify"
ORDER = "P0123abc"


@pytest.fixture
async def gateway(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    account = MerchantAccount(LegalEntityId("e"), "app-1", "seller-1", "", public_key_pem(KEY.public_key()))
    plant = Plant(Path("/"), database_url=migrated_database_url, accounts=(account,))
    app = create_app(GatewaySettings())
    desk = app.state.edge.providers = ProvidersOfAHouse([plant, replace(plant)], now=lambda: NOW)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8000") as client:
        yield client
    await desk.aclose()


def form(**changes: str) -> dict[str, str]:
    fields = {
        "notify_time": "2026-11-22 12:00:00",
        "notify_type": "trade_status_sync",
        "notify_id": "n1",
        "app_id": "app-1",
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "trade_no": "T1",
        "out_trade_no": ORDER,
        "seller_id": "seller-1",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "8.00",
    } | changes
    return fields | {"sign": sign(notification_text(fields), KEY)}


def waiting(url: str, due_at: datetime) -> None:
    """A lane that polls ORDER, as a host stores it."""
    tender = Tender(TenderKind.QR, 800)
    payment = Payment(
        SaleId("x"), ORDER, Phase.COLLECTING, TerminalId("t"), 1, (tender,), (), None, polls=3, code_shown=True
    )
    state = msgspec.json.encode(Session(LaneId("l"), SessionId("s"), payment=payment)).decode()
    with psycopg.connect(url) as conn:
        conn.execute(
            "INSERT INTO entity (region, store, kind, id, shard, state, version, changed_at) "
            "VALUES ('r', 's', 'session', 'l', 0, %s, 1, now())",
            (state,),
        )
        conn.execute(
            "INSERT INTO timer (region, shard, store, entity_kind, entity_id, clock, kind, ref, due_at) "
            "VALUES ('r', 0, 's', 'session', 'l', 'wall', 'poll', %s, %s)",
            (f"{ORDER}:3", due_at),
        )


def due(url: str) -> datetime:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT due_at FROM timer").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def kept(url: str) -> list[tuple[str, str, int | None, int, bool]]:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT id, number, fen, repeats, hastened FROM provider_notice ORDER BY id").fetchall()


async def test_a_paid_order_is_polled_now_and_the_notification_is_kept_once(
    gateway: httpx.AsyncClient, migrated_database_url: str
) -> None:
    waiting(migrated_database_url, NOW + timedelta(seconds=3))
    for _ in range(3):
        answer = await gateway.post(PATH, data=form())
        assert (answer.status_code, answer.content) == (200, b"success")
    assert due(migrated_database_url) == NOW
    assert kept(migrated_database_url) == [("n1", ORDER, 800, 2, True)]


@pytest.mark.parametrize("changes", [{"total_amount": "7.99"}, {"out_trade_no": "P0123"}, {"out_trade_no": "P%"}])
async def test_what_is_not_our_order_over_our_amount_hastens_nothing(
    gateway: httpx.AsyncClient, migrated_database_url: str, changes: dict[str, str]
) -> None:
    later = NOW + timedelta(seconds=3)
    waiting(migrated_database_url, later)
    answer = await gateway.post(PATH, data=form(**changes))
    assert answer.content == b"success"
    assert due(migrated_database_url) == later
    assert kept(migrated_database_url)[0][-1] is False


async def test_a_poll_that_is_due_sooner_is_not_put_off(gateway: httpx.AsyncClient, migrated_database_url: str) -> None:
    sooner = NOW - timedelta(seconds=1)
    waiting(migrated_database_url, sooner)
    await gateway.post(PATH, data=form())
    assert due(migrated_database_url) == sooner


async def test_nothing_unproven_is_kept_or_acknowledged(gateway: httpx.AsyncClient, migrated_database_url: str) -> None:
    unsigned = form() | {"total_amount": "9.00"}
    foreign = form(app_id="app-2")
    for data in (unsigned, foreign, form(seller_id="seller-2"), {"a": "b"}):
        answer = await gateway.post(PATH, data=data)
        assert (answer.status_code, answer.content) == (400, b"fail")
    assert (await gateway.post(PATH.replace("alipay", "nobody"), data=form())).status_code == 404
    assert (await gateway.get(PATH)).status_code in {401, 503}
    large = urlencode(form() | {"x": "y" * BODY_BYTES_MAX}).encode()
    assert (await gateway.post(PATH, content=large)).status_code == 413
    assert kept(migrated_database_url) == []


async def test_old_notifications_are_forgotten(gateway: httpx.AsyncClient, migrated_database_url: str) -> None:
    await gateway.post(PATH, data=form())
    async with await psycopg.AsyncConnection.connect(migrated_database_url) as conn:
        assert await forget_notices(conn, NOW + KEPT) == 0
        assert await forget_notices(conn, NOW + KEPT + timedelta(seconds=1)) == 1
