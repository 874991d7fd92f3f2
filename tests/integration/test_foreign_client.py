"""A foreign client sells twice, in cash, by the published protocol alone: once from our basket, once from a till's."""

from __future__ import annotations

import pytest

from tests.integration import foreign
from tests.integration.foreign import ForeignTerminal
from tests.integration.house import NOODLES, WATER, House, storeops, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not foreign.installed(), reason="needs mosquitto_pub: apt-get install mosquitto-clients"),
]


def registered(house: House, store: str, lane: str, role: str, profile: str) -> ForeignTerminal:
    place = ("--store", store, "--lane", lane, "--role", role, "--profile", profile)
    access = storeops("terminal", "add", *place, "--data", str(house.data))
    assert access["usable"] == "now"
    assert set(access) >= {"topic_prefix", "username", "client_id", "secret", "broker_host", "broker_port"}
    return ForeignTerminal(access, profile)


def test_a_sale_from_our_basket(house: House) -> None:
    with registered(house, "gz-tianhe", "shell", "face", "dragonfly-2") as terminal:
        session = terminal.act("session.open", {})["session"]
        first = terminal.screen(session, lambda s: s["rev"] == 1, "the first screen")
        assert (first["v"], first["state"], first["prompt"]["code"]) == (1, "open", "welcome")
        assert "scan" in first["actions"]

        terminal.act("scan", {"code": NOODLES[0], "quantity": 1}, session)
        terminal.act("scan", {"code": WATER[0], "quantity": 2}, session)
        quoted = terminal.screen(session, lambda s: len(s["lines"]) == 2, "both articles")
        assert (quoted["state"], quoted["gross_fen"], quoted["discount_fen"]) == ("quoted", 1990, 0)
        assert (quoted["due_fen"], quoted["cash_due_fen"]) == (1990, 1990)
        assert [line["net_fen"] for line in quoted["lines"]] == [1590, 400]
        assert "confirm" in quoted["actions"]

        cash = {"kind": "cash", "fen": 1990, "tendered_fen": 2000}
        stale = terminal.send(terminal.envelope("confirm", {"rev": first["rev"], "tenders": [cash]}, session))
        assert (stale["ok"], stale["error"]["code"]) == (False, "stale_rev")
        assert stale["error"]["do"]

        confirm = terminal.envelope("confirm", {"rev": quoted["rev"], "tenders": [cash]}, session)
        reply = terminal.send(confirm)
        assert reply == {"v": 1, "id": confirm["id"], "ok": True, "session": session} | (
            {"pending": False} if "pending" in reply else {}
        )
        paid = terminal.screen(session, lambda s: s["state"] == "paid", "the result page")
        tender = {"kind": "cash", "fen": 1990, "payer_fen": 1990, "tendered_fen": 2000, "change_fen": 10}
        assert paid["paid"] == [tender]
        receipt = paid["receipt"]
        assert receipt["no"] == "gz-tianhe-shell-000001"
        assert receipt["tenders"] == [{"kind": "cash", "fen": 1990}]
        assert receipt["no"] in receipt["text"]

        assert terminal.send(confirm) == reply, "the same bytes again get the same reply"

    [sale] = house.documents("SELECT * FROM sale WHERE receipt = %s", (receipt["no"],))
    assert (sale["session"], sale["lane"], sale["clerk"], sale["entity"]) == (session, "shell", "c-7", "chain")
    assert (sale["gross_fen"], sale["due_fen"], sale["rounding_fen"], sale["suspense_fen"]) == (1990, 1990, 0, 0)
    assert house.ledger_of(sale["id"]) == {
        ("chain", "till:gz-tianhe:shell"): 1990,
        ("chain", "sales_gross:gz-tianhe"): -1990,
    }
    house.check_books()


def test_a_sale_of_a_till_that_owns_the_basket(house: House) -> None:
    with registered(house, "sz-luohu", "shell-till", "till", "till") as till:
        line = {"line": 1, "code": "4006381333931", "name": "Pen", "quantity": 3, "unit_fen": 415, "net_fen": 1245}
        basket = {"till_txn": "T-1", "rev": 1, "lines": [line], "total_fen": 1245}
        session = till.act("basket", basket)["session"]
        wrong = till.send(till.envelope("basket", {**basket, "rev": 2, "total_fen": 1244}, session))
        assert (wrong["ok"], wrong["error"]["code"]) == (False, "total_mismatch")
        late = till.send(till.envelope("basket", basket, session))
        assert (late["ok"], late["error"]["code"]) == (False, "stale_rev")

        quoted = till.screen(session, lambda s: s["basket_rev"] == 1, "the till's basket, priced")
        assert (quoted["state"], quoted["due_fen"], quoted["cash_due_fen"]) == ("quoted", 1245, 1240)
        till.act("confirm", {"rev": quoted["rev"], "tenders": [], "collect": "till"}, session)
        collect = till.screen(session, lambda s: s["state"] == "paying", "the till may collect")
        wait_for = till.screen(
            session, lambda s: s["prompt"] is not None and s["prompt"]["code"] == "collect_at_till", "collect"
        )
        assert "paid" in wait_for["actions"]
        assert collect["due_fen"] == 1245

        taken = {"till_txn": "T-1", "rev": wait_for["rev"], "tenders": [{"kind": "cash", "fen": 1240}]}
        till.act("paid", taken, session)
        paid = till.screen(session, lambda s: s["state"] == "paid", "the result page")
        assert paid["receipt"]["tenders"] == [{"kind": "cash", "fen": 1240}]
        assert (paid["gross_fen"], paid["basket_rev"]) == (1245, 1)

    [sale] = house.documents("SELECT * FROM sale WHERE receipt = %s", (paid["receipt"]["no"],))
    assert (sale["till_txn"], sale["entity"], sale["terminal"]) == ("T-1", "franchisee-1", till.access["username"])
    assert (sale["gross_fen"], sale["due_fen"], sale["rounding_fen"], sale["suspense_fen"]) == (1245, 1245, 5, 0)
    ledger = house.ledger_of(sale["id"])
    assert ledger[("franchisee-1", "till:sz-luohu:shell-till")] == 1240
    assert ledger[("franchisee-1", "cash_rounding")] == 5
    assert ledger[("franchisee-1", "sales_gross:sz-luohu")] == -1245
    assert sum(ledger.values()) == 0
    house.check_books()


def test_the_birth_and_the_will_of_a_foreign_terminal_are_presence(house: House) -> None:
    with registered(house, "gz-liwan", "shell", "face", "dragonfly-2") as terminal:
        terminal.act("session.open", {})
        name = terminal.access["username"]
        query = "SELECT online, software FROM presence WHERE terminal = %s"
        wait_until(lambda: house.rows(query, (name,)) == [(True, "shell 1")], "the birth is booked")
