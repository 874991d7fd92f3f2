"""The real host in virtual time: what it promised terminals before it died, and who is there after a broker died."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec

from actors.terminal import COMMAND_TIMER, Terminal
from devices.topics import Down, parse
from models.domain.ids import MessageId, StoreId
from models.domain.messages import Address
from models.domain.plans import Plan
from models.domain.twin import CommandStatus, PendingCommand, Sync
from models.tables.journal import StoredEntity, TimerKey
from runtime.observed import address_of
from runtime.testing.clock import let_pass
from runtime.testing.shop import ShopSimulation


def terminal(shop: ShopSimulation, at: Address) -> Terminal:
    return msgspec.json.decode(shop.database.entities[at].state, type=Terminal)


def test_a_command_that_its_host_did_not_live_to_send_is_sent_by_the_next_within_its_deadline(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        at = address_of(shop.ours.face.record)
        await let_pass(2.0)
        shop._end_life(shop._life)
        await let_pass(1.0)
        told: list[str] = []
        hear = shop.broker.down

        def listen(topic: str, payload: bytes) -> None:
            if parse(topic).channel is Down.COMMAND:
                told.append(msgspec.json.decode(payload)["id"])
            hear(topic, payload)

        shop.broker.down = listen
        # As the turn left it, with its timer: committed, and not a word published.
        fresh = PendingCommand(MessageId("fresh"), "reboot", (), shop.wall() + timedelta(seconds=20))
        stale = PendingCommand(MessageId("stale"), "reboot", (), shop.wall() - timedelta(seconds=1))
        stored = shop.database.entities[at]
        state = replace(terminal(shop, at), pending=(stale, fresh))
        shop.database.entities[at] = StoredEntity(msgspec.json.encode(state), stored.version + 1)
        for n, command in enumerate((stale, fresh)):
            key = TimerKey(at, "wall", COMMAND_TIMER, command.id, command.deadline_at, n=10_000 + n)
            shop.database.timers[at, "wall", COMMAND_TIMER, command.id] = key
        shop._boot()
        await let_pass(5.0)
        assert told == ["fresh"]
        assert [one.command for one in shop.database.command_answers] == ["stale"]
        await let_pass(20.0)
        assert [(one.command, one.status) for one in shop.database.command_answers][1:] == [
            ("fresh", CommandStatus.EXPIRED)
        ]
        assert terminal(shop, at).expired == ("stale", "fresh")

    ShopSimulation(1, plan).run(script)


def test_after_a_broker_lost_its_memory_who_does_not_answer_is_unknown(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        here, away = shop.ours.face.record, shop.second.face.record
        await let_pass(2.0)
        hear = shop.broker.down

        def listen(topic: str, payload: bytes) -> None:
            if parse(topic).terminal != away.terminal:
                hear(topic, payload)

        shop.broker.down = listen
        shop.broker.drop(forget=True)
        await let_pass(10.0)
        assert terminal(shop, address_of(away)).online, "its deadline is not over"
        await let_pass(40.0)
        answered, silent = terminal(shop, address_of(here)), terminal(shop, address_of(away))
        assert (answered.online, answered.known) == (True, True)
        assert (silent.online, silent.known) == (False, False)

    ShopSimulation(2, plan).run(script)


def test_a_new_book_is_a_generation_for_its_terminals_and_for_no_other(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        await let_pass(5.0)
        store = StoreId("s1")
        shop._books[store] = replace(shop._books[store], basket_owner="pos")
        shop.database.registry_moves += 1
        await let_pass(8.0)
        gens = {name: row.gen for name, row in shop.database.desired.items()}
        assert gens == {"s1-a": 2, "s1-b": 2, "s2-a": 1, "s2-till": 1}
        assert '"basket_owner":"pos"' in shop.database.desired[shop.ours.face.record.terminal].config

    ShopSimulation(4, plan).run(script)


def test_each_terminal_has_a_document_before_anybody_asks_and_it_is_durable(plan: Plan) -> None:
    async def script(shop: ShopSimulation) -> None:
        desired: dict[str, int] = {}
        hear = shop.broker.down

        def listen(topic: str, payload: bytes) -> None:
            if parse(topic).channel is Down.DESIRED:
                name = parse(topic).terminal
                desired[name] = msgspec.json.decode(payload)["gen"]
                assert shop.database.desired[name].gen >= desired[name], "published before it was durable"
            hear(topic, payload)

        shop.broker.down = listen
        await let_pass(5.0)
        assert desired == dict.fromkeys(["s1-a", "s1-b", "s2-a", "s2-till"], 1)
        shop._end_life(shop._life)
        shop._boot()
        await let_pass(5.0)
        assert {row.gen for row in shop.database.desired.values()} == {1}, "the same book is no news"
        assert terminal(shop, address_of(shop.ours.face.record)).sync is Sync.UNKNOWN

    ShopSimulation(3, plan).run(script)
