"""A membership's actions by the API and the console's fragment, on a real database and the real life of memberships."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from models.domain.events import ProviderAuth
from models.domain.membership_actions import Asked, Done, told
from runtime.membership_life import MembershipLife
from tests.gateway.conftest import Console, client_of
from tests.gateway.trusted import trusted_membership

API = "/api/v1/memberships"


class Desk:
    """The real life behind the gateway's protocol, on one database and without a provider to ask."""

    def __init__(self, life: MembershipLife) -> None:
        self._life = life

    async def foresee(self, membership: str, asked: Asked) -> Mapping[str, Any]:
        return told(await self._life.foresee(membership, asked))

    async def do(
        self, number: str, membership: str, asked: Asked, *, by: str, auth: ProviderAuth | None = None
    ) -> Done:
        return await self._life.do(number, membership, asked, by=by, auth=auth)


@pytest.fixture
async def desk(console: Console, filled_url: str) -> AsyncIterator[None]:
    async with AsyncConnectionPool(filled_url, min_size=1, max_size=4, open=False) as pool:
        console.edge.memberships = Desk(MembershipLife(pool, _nobody))
        yield


def _nobody(entity: str, provider: str = "", /) -> Any:
    raise AssertionError(f"no provider {provider!r} is asked for {entity}")


@pytest.fixture
def membership(filled_url: str) -> str:
    """Active, admitted on trust, with a second plan to change to."""
    return trusted_membership(filled_url)


def effect(console: Console) -> dict[str, str]:
    return {**console.ours, "Idempotency-Key": str(uuid.uuid4())}


@pytest.mark.usefixtures("desk")
async def test_an_action_is_foreseen_then_done_once_per_key(console: Console, membership: str) -> None:
    address = f"{API}/{membership}/actions/cancel"
    foreseen = (await console.client.get(address, params={"by": "merchant"})).json()
    assert (foreseen["state"], foreseen["fee_eff_fen"], foreseen["charge_fen"]) == ("EXPIRED", 0, 0)
    assert "应付 0.00 元" in foreseen["sentence"]["zh"]
    assert (await console.client.get(f"{API}/{membership}")).json()["state"] == "ACTIVE", "nothing happened yet"
    headers = effect(console)
    first = await console.client.post(address, json={"by": "merchant"}, headers=headers)
    again = await console.client.post(address, json={"by": "merchant"}, headers=headers)
    assert (first.status_code, first.json()["state"]) == (200, "done")
    assert first.json() == again.json()
    assert (await console.client.get(f"{API}/{membership}")).json()["state"] == "EXPIRED"
    other = await console.client.post(address, json={"by": "member"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "number_reused")
    late = await console.client.post(address, json={"by": "member"}, headers=effect(console))
    assert (late.status_code, late.json()["code"]) == (409, "cancel_refused")
    assert late.headers["content-type"] == "application/problem+json"


@pytest.mark.usefixtures("desk")
async def test_what_is_not_an_action_and_who_may_not_act(console: Console, membership: str) -> None:
    address = f"{API}/{membership}/actions"
    assert (await console.client.post(f"{address}/explode", json={}, headers=effect(console))).status_code == 422
    keyless = await console.client.post(f"{address}/suspend", json={}, headers=console.ours)
    assert keyless.status_code == 422
    foreign = await console.client.post(f"{address}/suspend", json={}, headers={"Idempotency-Key": "12345678"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "csrf")
    nobody = await console.client.get(f"{API}/nobody/actions/suspend")
    assert (nobody.status_code, nobody.json()["code"]) == (409, "unknown_membership")
    async with client_of(console.app) as stranger:
        assert (await stranger.get(f"{address}/suspend")).status_code == 401


async def test_the_desk_may_still_be_starting(console: Console, membership: str) -> None:
    answer = await console.client.get(f"{API}/{membership}/actions/suspend")
    assert (answer.status_code, answer.json()["code"]) == (503, "starting")


@pytest.mark.usefixtures("desk")
async def test_a_detail_has_the_buttons_of_its_state_in_both_languages(console: Console, membership: str) -> None:
    async def buttons(language: str) -> str:
        answer = await console.client.get(f"/memberships/{membership}/actions", headers={"Accept-Language": language})
        assert answer.status_code == 200
        return answer.text

    english, chinese = await buttons("en"), await buttons("zh")
    assert all(text in english for text in ("Cancel by the merchant", "Suspend", "Renew", "Change the plan"))
    assert all(text in chinese for text in ("商家终止", "暂停使用", "到期续期", "变更方案"))
    assert "Resume" not in english
    await console.client.post(f"{API}/{membership}/actions/suspend", json={}, headers=effect(console))
    await console.client.post(f"{API}/{membership}/actions/renew", json={"on": True}, headers=effect(console))
    english = await buttons("en")
    assert "Resume" in english
    assert "Do not renew" in english
    assert "Change the plan" not in english
    page = (await console.client.get(f"/memberships/{membership}")).text
    assert f'hx-get="/memberships/{membership}/actions"' in page
