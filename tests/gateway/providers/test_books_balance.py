"""Whatever merchants and customers do, in any order: books, customers' money and signed answers agree."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.providers.amounts import format_yuan, parse_yuan
from gateway.providers.signing import private_key_pem, public_key_pem
from gateway.providers.simulator import users, wechat
from gateway.providers.simulator import wechat_names as names
from gateway.providers.simulator.books import books
from gateway.providers.simulator.database import Database, one
from gateway.providers.simulator.protocol import MerchantApp, Simulator
from gateway.providers.simulator.routes import authorise_as, pay_as
from tests.gateway.providers.conftest import API_KEY, KEY, MovableClock

PEMS = (public_key_pem(KEY.public_key()), private_key_pem(KEY))
APP = MerchantApp("app", "2088", KEY.public_key(), KEY)
USERS = ("lin", "wang")
BALANCE_FEN, LIMIT_FEN = 2000, 3000

numbers = st.integers(0, 3)
amounts = st.integers(1, 1500)
steps = st.one_of(
    st.tuples(st.just("pay"), numbers, amounts, st.sampled_from(USERS)),
    st.tuples(st.just("precreate"), numbers, amounts),
    st.tuples(st.just("scan"), numbers, st.sampled_from(USERS)),
    st.tuples(st.just("freeze"), numbers, amounts, st.sampled_from(USERS)),
    st.tuples(st.just("capture"), numbers, numbers, amounts, st.booleans()),
    st.tuples(st.just("unfreeze"), numbers, numbers, amounts),
    st.tuples(st.just("cancel"), numbers),
    st.tuples(st.just("cancel_freeze"), numbers),
    st.tuples(st.just("refund"), numbers, numbers, amounts),
    st.tuples(st.just("wait"), st.sampled_from((1, 20, 100))),
)


@dataclass
class World:
    """The simulator, driven without sockets, and what its signed answers alone would make a merchant believe."""

    simulator: Simulator
    clock: MovableClock
    paid: dict[str, int] = field(default_factory=dict)
    refunds: dict[tuple[str, str], int] = field(default_factory=dict)
    reversed_: set[str] = field(default_factory=set)
    hold_nos: dict[int, str] = field(default_factory=dict)

    def call(self, method: str, **biz: object) -> dict[str, Any]:
        return self.simulator.perform(APP, method, biz, "http://sim", "", None)

    def order(self, n: int, fen: int) -> dict[str, str]:
        return {"out_trade_no": f"O{n}", "total_amount": format_yuan(fen), "subject": "a"}

    def code(self, user: str) -> str:
        with self.simulator.database.transaction() as db:
            return users.issue_code(db, user, "payment", self.clock()).code

    def learn(self, n: int) -> None:
        """Ask what became of order n, as our settlement would."""
        answer = self.call("alipay.trade.query", out_trade_no=f"O{n}")
        if answer.get("send_pay_date"):
            assert self.paid.setdefault(f"O{n}", parse_yuan(answer["total_amount"])) == parse_yuan(
                answer["total_amount"]
            )

    def pay(self, n: int, fen: int, user: str) -> None:
        self.call("alipay.trade.pay", **self.order(n, fen), scene="bar_code", auth_code=self.code(user))

    def precreate(self, n: int, fen: int) -> None:
        self.call("alipay.trade.precreate", **self.order(n, fen))

    def scan(self, n: int, user: str) -> None:
        row = one(self.simulator.database.connection, "SELECT * FROM trade WHERE out_trade_no = ?", f"O{n}")
        with suppress(HTTPException):  # nothing to pay, or no means
            pay_as(self.simulator, row, user)

    def freeze(self, n: int, fen: int, user: str) -> None:
        answer = self.call(
            "alipay.fund.auth.order.freeze",
            out_order_no=f"F{n}",
            out_request_no=f"F{n}",
            order_title="m",
            amount=format_yuan(fen),
            product_code="PRE_AUTH",
            enable_pay_channels='[{"payChannelType":"PCREDIT_PAY"}]',
            auth_code=self.code(user),
        )
        if answer.get("status") == "SUCCESS":
            self.hold_nos[n] = answer["auth_no"]

    def capture(self, n: int, hold: int, fen: int, complete: bool) -> None:
        mode = "COMPLETE" if complete else "NOT_COMPLETE"
        hold_no = self.hold_nos.get(hold, "none")
        self.call(
            "alipay.trade.pay",
            **self.order(n, fen),
            product_code="PRE_AUTH",
            auth_no=hold_no,
            auth_confirm_mode=mode,
        )

    def unfreeze(self, n: int, hold: int, fen: int) -> None:
        self.call(
            "alipay.fund.auth.order.unfreeze",
            auth_no=self.hold_nos.get(hold, "none"),
            out_request_no=f"U{n}",
            amount=format_yuan(fen),
        )

    def cancel(self, n: int) -> None:
        answer = self.call("alipay.trade.cancel", out_trade_no=f"O{n}")
        if answer["action"] == "refund":
            self.reversed_.add(f"O{n}")

    def cancel_freeze(self, n: int) -> None:
        self.call("alipay.fund.auth.operation.cancel", out_order_no=f"F{n}", out_request_no=f"F{n}")

    def refund(self, n: int, order: int, fen: int) -> None:
        answer = self.call(
            "alipay.trade.refund", out_trade_no=f"O{order}", out_request_no=f"R{n}", refund_amount=format_yuan(fen)
        )
        if answer["code"] == "10000":
            assert self.refunds.setdefault((f"O{order}", f"R{n}"), fen) == fen

    def wait(self, minutes: int) -> None:
        self.clock.advance(timedelta(minutes=minutes))

    def check(self) -> None:
        db = self.simulator.database.connection
        totals = books(db, APP.app_id, 0, 0)
        captured = sum(self.paid.values())
        refunded = sum(self.refunds.values())
        reversed_ = sum(
            self.paid[order] - sum(fen for (of, _), fen in self.refunds.items() if of == order)
            for order in self.reversed_
        )
        assert totals["captured_fen"] == captured
        assert totals["refunded_fen"] == refunded + reversed_
        people = db.execute(
            "SELECT sum(?1 - balance_fen + huabei_used_fen) AS gone, sum(huabei_held_fen) AS held FROM user",
            (BALANCE_FEN,),
        ).fetchone()
        assert people["gone"] == totals["net_fen"], "what customers lost is what the merchant has"
        assert people["held"] == totals["held_fen"], "each hold is held from somebody"
        credit = db.execute(
            "SELECT (SELECT sum(huabei_used_fen) FROM user) AS used, "
            "coalesce(sum(total_fen - refunded_fen), 0) AS owed FROM trade WHERE channel = 'PCREDIT'"
        ).fetchone()
        assert credit["used"] == credit["owed"], "money goes back to the channel that it came from"
        over = db.execute("SELECT count(*) AS n FROM hold WHERE captured_fen + released_fen > amount_fen").fetchone()
        assert over["n"] == 0


class WechatWorld(World):
    """The same over WeChat's protocol: a service order for a hold, captured once; a cancel is a reverse or a close."""

    def ask(self, name: str, **biz: object) -> tuple[int, dict[str, Any]]:
        merchant = self.simulator.wechat(APP.app_id)
        assert merchant is not None
        [method] = [one for one in wechat.METHODS if one.name == name]
        named = {"appid": APP.seller_id, "mchid": APP.app_id, "service_id": "5", "notify_url": "http://127.0.0.1:9/x"}
        status, fields = wechat.perform(self.simulator, merchant, method, named | biz, "http://sim", None)
        return status, fields or {}

    def opening(self, n: int, fen: int) -> dict[str, object]:
        return {"out_trade_no": f"order{n}", "description": "a", "amount": {"total": fen}}

    def learn(self, n: int) -> None:
        _, answer = self.ask(names.QUERY, out_trade_no=f"order{n}")
        if answer.get("success_time"):
            assert self.paid.setdefault(f"O{n}", answer["amount"]["total"]) == answer["amount"]["total"]

    def pay(self, n: int, fen: int, user: str) -> None:
        with self.simulator.database.transaction() as db:
            code = users.issue_code(db, user, "payment", self.clock(), "wechat").code
        self.ask(names.CODEPAY, **self.opening(n, fen), payer={"auth_code": code})

    def precreate(self, n: int, fen: int) -> None:
        self.ask(names.NATIVE, **self.opening(n, fen))

    def scan(self, n: int, user: str) -> None:
        row = one(self.simulator.database.connection, "SELECT * FROM trade WHERE out_trade_no = ?", f"order{n}")
        with suppress(HTTPException):
            pay_as(self.simulator, row, user)

    def freeze(self, n: int, fen: int, user: str) -> None:
        risk = {"name": "r", "amount": fen}
        self.ask(
            names.CREATE,
            out_order_no=f"order{n}",
            service_introduction="m",
            risk_fund=risk,
            need_user_confirm=True,
        )
        row = one(self.simulator.database.connection, "SELECT * FROM hold WHERE out_order_no = ?", f"order{n}")
        with suppress(HTTPException):
            authorise_as(self.simulator, row, user)

    def capture(self, n: int, hold: int, fen: int, complete: bool) -> None:
        payments = [{"name": "m", "description": f"S{n}", "amount": fen}]
        status, answer = self.ask(names.COMPLETE, out_order_no=f"order{hold}", post_payments=payments, total_amount=fen)
        if status == 200 and answer["collection"]["state"] == "USER_PAID":
            assert self.paid.setdefault(f"H{hold}", answer["total_amount"]) == answer["total_amount"] == fen

    def unfreeze(self, n: int, hold: int, fen: int) -> None:
        self.ask(names.CANCEL, out_order_no=f"order{hold}", reason="x")

    def cancel(self, n: int) -> None:
        status, _ = self.ask(names.REVERSE, out_trade_no=f"order{n}")
        _, after = self.ask(names.QUERY, out_trade_no=f"order{n}")
        if status == 200 and after.get("success_time"):
            self.reversed_.add(f"O{n}")
        if status != 200:
            self.ask(names.CLOSE, out_trade_no=f"order{n}")

    def cancel_freeze(self, n: int) -> None:
        self.ask(names.CANCEL, out_order_no=f"order{n}", reason="x")

    def refund(self, n: int, order: int, fen: int) -> None:
        amount = {"refund": fen, "total": self.paid.get(f"O{order}", 1)}
        status, _ = self.ask(names.REFUND, out_trade_no=f"order{order}", out_refund_no=f"R{order}-{n}", amount=amount)
        if status == 200:
            assert self.refunds.setdefault((f"O{order}", f"R{n}"), fen) == fen


@pytest.mark.parametrize("kind", [World, WechatWorld])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([("freeze", 0, 1000, "lin"), ("capture", 0, 0, 800, True), ("refund", 0, 0, 300), ("cancel", 0)])
@example([("pay", 0, 900, "lin"), ("pay", 1, 1200, "lin"), ("refund", 0, 1, 700), ("cancel", 0), ("cancel", 1)])
@given(st.lists(steps, max_size=25))
def test_books_customers_and_answers_agree(kind: type[World], history: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database, clock = Database(Path(folder)), MovableClock(datetime(2026, 11, 22, tzinfo=UTC))
        world = kind(Simulator(database, clock), clock)
        with database.transaction() as db:
            db.execute("INSERT INTO app VALUES ('app', '2088', '', ?, ?, '', '')", PEMS)
            if kind is WechatWorld:
                db.execute("INSERT INTO wechat_merchant VALUES ('app', '2088', 'AB', 'P1', ?, '5')", (API_KEY,))
            for user in USERS:
                users.ensure_user(db, user, clock(), BALANCE_FEN, LIMIT_FEN)
        for verb, *arguments in history:
            getattr(world, verb)(*arguments)
            for n in range(4):
                world.learn(n)
            world.check()
        database.close()
