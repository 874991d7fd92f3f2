"""Plans & offers: the list, and the preview that is the till's own price function."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.gateway.conftest import Console

VOUCHERS = [
    {"id": "five", "code": "FIVE", "name": {"zh": "满五减二", "en": "2 off 5"}, "funder": "chain", "value_fen": 200,
     "threshold_fen": 500, "group": "over"},
    {"id": "six", "code": "SIX", "name": {"zh": "减一元", "en": "1 off"}, "funder": "chain", "value_fen": 100,
     "group": "over"},
    {"id": "old", "code": "OLD", "name": {"zh": "旧券", "en": "old"}, "funder": "chain", "value_fen": 100,
     "valid": {"until": "2020-01-01"}},
]  # fmt: skip


async def furnish(engine: AsyncEngine) -> tuple[str, str]:
    """Give the book its vouchers; a store and an article of it."""
    async with engine.begin() as conn:
        more = {"vouchers": VOUCHERS, "zone": "Asia/Shanghai"}
        await conn.execute(
            text(
                "UPDATE book SET doc = doc || cast(:more AS jsonb)"
                " || jsonb_build_object('plans', (SELECT jsonb_agg(plan.doc) FROM plan WHERE plan.chain = book.chain))"
            ),
            {"more": json.dumps(more)},
        )
        store = (await conn.execute(text("SELECT id FROM store ORDER BY id LIMIT 1"))).scalar_one()
        code = (await conn.execute(text("SELECT code FROM item ORDER BY code LIMIT 1"))).scalar_one()
    return str(store), str(code)


async def ask(console: Console, **body: Any) -> Any:
    answer = await console.client.post("/api/v1/pricing/preview", json=body, headers=console.ours)
    return answer.json() | {"status": answer.status_code}


async def test_the_preview_says_why_and_what_was_left_out(console: Console, engine: AsyncEngine) -> None:
    store, code = await furnish(engine)
    lines = [{"code": code, "quantity": 1, "unit_fen": 1000}]
    answer = await ask(console, store=store, lines=lines, vouchers=["five", "SIX", "OLD", "nobody"])
    assert (answer["status"], answer["due_fen"], answer["discount_fen"]) == (200, 800, 200)
    assert answer["lines"][0]["why"] == {"zh": "券：满五减二", "en": "voucher: 2 off 5"}
    assert [(one["code"], one["funder"]) for one in answer["taken"]] == [("FIVE", "chain")]
    left_out = {one["code"]: one["reason"] for one in answer["not_taken"]}
    assert left_out == {"SIX": "group", "OLD": "voucher_over", "nobody": "unknown_voucher"}
    assert answer["effective_fen"] == answer["due_fen"] + answer["later_fen"]
    assert answer["optimal"]


async def test_a_member_sees_what_is_charged_later(console: Console, engine: AsyncEngine) -> None:
    store, code = await furnish(engine)
    lines = [{"code": code, "quantity": 1, "unit_fen": 1000}]
    answer = await ask(console, store=store, lines=lines, membership={"plan": "light-10", "used_fen": 0})
    assert (answer["due_fen"], answer["later_fen"], answer["effective_fen"]) == (200, 800, 1000)
    assert answer["uses"] == [{"benefit": "coupon8", "fen": 800}]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"store": "nowhere"}, 404, "not_found"),
        ({"lines": [{"code": "no-such"}]}, 409, "unknown_item"),
        ({"membership": {"plan": "no-such"}}, 409, "unknown_plan"),
        ({"lines": []}, 422, "invalid_request"),
    ],
)
async def test_what_cannot_be_priced(
    console: Console, engine: AsyncEngine, change: dict[str, Any], status: int, code: str
) -> None:
    store, item = await furnish(engine)
    answer = await ask(console, **{"store": store, "lines": [{"code": item}]} | change)
    assert (answer["status"], answer["code"]) == (status, code)


async def test_offers_are_listed_in_words(console: Console, engine: AsyncEngine) -> None:
    await furnish(engine)
    offers = (await console.client.get("/api/v1/offers")).json()
    plan = next(one for one in offers["plans"] if one["id"] == "light-10")
    assert plan["newest"]
    assert plan["fee"]["en"] == "at the end the lower of the fee of 10.00 and the benefits used"
    words = {one["code"]: one["words"]["en"] for one in offers["vouchers"]}
    assert words["FIVE"] == "2.00 off from 5.00 on; one of its kind (over)"


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_the_page(console: Console, engine: AsyncEngine, language: str) -> None:
    store, code = await furnish(engine)
    console.client.headers["Accept-Language"] = language
    typed = {"shop": store, "basket": f"{code} 3", "vouchers": "FIVE old"}
    shown = (await console.client.get("/plans", params=typed)).text
    assert "FIVE" in shown
    assert {"zh": "券：满五减二", "en": "voucher: 2 off 5"}[language] in shown
    assert {"zh": "该券已过期", "en": "The voucher has expired"}[language] in shown
    wrong = (await console.client.get("/plans", params={"shop": store, "basket": "a b c"})).text
    assert {"zh": "看不懂输入", "en": "That cannot be read"}[language] in wrong
