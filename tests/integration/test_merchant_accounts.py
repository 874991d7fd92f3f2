"""A legal entity's accounts at several providers: as the chain's file says, chosen by name, told apart at the door."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.app import create_app
from gateway.providers.alipay import AlipayProvider
from gateway.providers.signing import private_key_pem, public_key_pem
from gateway.providers.wechat import WechatProvider
from gateway.providers.wechat_calls import order_number
from gateway.providers.wechat_signing import seal, told_headers
from gateway.settings import GatewaySettings
from models.domain.errors import NeedsOperator
from models.domain.ids import LegalEntityId
from runtime.chains import read_chain
from runtime.plant import MerchantAccount, Plant, Providers
from runtime.provider_desk import ProvidersOfAHouse
from runtime.settings import CONFIGS
from tests.gateway.providers.conftest import API_KEY
from tests.integration.test_provider_notices import KEY, NOW, ORDER, due, form, kept, waiting

PUBLIC, PRIVATE = public_key_pem(KEY.public_key()), private_key_pem(KEY)
ENTITY = LegalEntityId("e")
ALIPAY = MerchantAccount(ENTITY, "app-1", "seller-1", PRIVATE, PUBLIC)
WECHAT = MerchantAccount(
    ENTITY,
    "1900000001",
    "wx1",
    PRIVATE,
    PUBLIC,
    provider="wechat",
    serial_no="AB",
    provider_serial="P1",
    api_key=API_KEY,
)
OTHER = replace(WECHAT, entity=LegalEntityId("f"), app_id="1900000002", provider_serial="P2", api_key="f" * 32)


def chain_file(folder: Path, accounts: list[str]) -> Path:
    document: dict[str, Any] = yaml.safe_load((CONFIGS / "chains" / "harbour.yaml").read_text(encoding="utf-8"))
    [entity] = document["entities"]
    entity["accounts"] = accounts
    path = folder / "chain.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return path


def test_a_chain_names_the_providers_of_its_entities(tmp_path: Path) -> None:
    assert read_chain(CONFIGS / "chains" / "harbour.yaml").entities[0].accounts == ("alipay",)
    assert read_chain(chain_file(tmp_path, ["wechat", "alipay"])).entities[0].accounts == ("wechat", "alipay")


@pytest.mark.parametrize(
    ("accounts", "said"),
    [(["bank"], "no provider 'bank'"), (["wechat"], "needs an account at alipay"), ([], "at least 1")],
)
def test_a_chain_whose_accounts_cannot_work_does_not_load(tmp_path: Path, accounts: list[str], said: str) -> None:
    with pytest.raises(NeedsOperator) as refused:
        read_chain(chain_file(tmp_path, accounts))
    assert refused.value.code == "chain_wrong"
    assert said in refused.value.message


async def test_an_entity_has_a_client_for_each_of_its_accounts() -> None:
    providers = Providers(Plant(Path("/"), provider_url="http://127.0.0.1:9", accounts=(ALIPAY, WECHAT, OTHER)))
    assert isinstance(providers(ENTITY), AlipayProvider)
    assert isinstance(providers(ENTITY, "wechat"), WechatProvider)
    assert providers(ENTITY, "wechat") is providers(ENTITY, "wechat")
    assert providers(ENTITY, "wechat") is not providers(OTHER.entity, "wechat")
    with pytest.raises(KeyError):
        providers(OTHER.entity)
    await providers.aclose()


@pytest.fixture
async def gateway(migrated_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    plant = Plant(Path("/"), database_url=migrated_database_url, accounts=(ALIPAY, WECHAT, OTHER))
    app = create_app(GatewaySettings())
    desk = app.state.edge.providers = ProvidersOfAHouse([plant], now=lambda: NOW)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8000") as client:
        yield client
    await desk.aclose()


async def tell(gateway: httpx.AsyncClient, account: MerchantAccount, serial: str = "P1", total: int = 800) -> int:
    told = {"mchid": account.app_id, "appid": "wx1", "out_trade_no": order_number(ORDER), "attach": ORDER}
    told |= {"transaction_id": "4", "trade_state": "SUCCESS"}
    resource = seal(json.dumps(told | {"amount": {"total": total}}), api_key=account.api_key, associated_data="t")
    event = {"id": "EV-1", "create_time": "2026-11-22T12:00:00+08:00", "event_type": "TRANSACTION.SUCCESS"}
    body = json.dumps(event | {"resource": resource})
    headers = told_headers(body, key=KEY, serial=serial, now=NOW)
    answer = await gateway.post("/api/v1/providers/wechat/notify", content=body.encode(), headers=headers)
    assert answer.content == (b"" if answer.status_code == 200 else b"fail")
    return answer.status_code


async def test_a_notification_of_wechat_hastens_the_poll_of_its_order(
    gateway: httpx.AsyncClient, migrated_database_url: str
) -> None:
    waiting(migrated_database_url, NOW + timedelta(seconds=3))
    for _ in range(2):
        assert await tell(gateway, WECHAT) == 200
    assert due(migrated_database_url) == NOW
    assert kept(migrated_database_url) == [("EV-1", ORDER, 800, 1, True)]
    assert (await gateway.post("/api/v1/providers/alipay/notify", data=form())).content == b"success"


async def test_a_notification_of_another_merchant_proves_nothing(
    gateway: httpx.AsyncClient, migrated_database_url: str
) -> None:
    assert await tell(gateway, OTHER) == 400, "signed for one, sealed for another"
    assert await tell(gateway, WECHAT, serial="P2") == 400
    assert await tell(gateway, WECHAT, serial="P3") == 400
    assert kept(migrated_database_url) == []
